"""The operator's own program, run for events: `[export] hook`.

It gets one event, as `natfix monitor --json` has it, on stdin; one at a time, from a thread of its own, and
after the verdicts. No packet waits for it: what it cannot keep up with is dropped and counted. It runs
without a shell, with hardly any environment, and without the capabilities that natfix has as a service.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import queue
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from natfix.config import Export
from natfix.message_ids import kind
from natfix.monitor import Monitor

WAITING = 256           # events that wait for the program
TIME_LIMIT = 10.0       # seconds that it may take for one event
REPEATS = frozenset({"limit", "over-rate", "refused"})      # events that one flood makes thousands of
PAUSE = 60.0            # seconds between two of these for the same reason
MOST_REASONS = 100      # that are remembered; a host's name is part of some
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}

PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4            # of <linux/prctl.h>

log = logging.getLogger("natfix")


class Hook:
    """Runs the program, if there is one."""

    def __init__(self, settings: Export, time_limit: float = TIME_LIMIT) -> None:
        """Nothing is run yet; *time_limit* is in seconds for each event."""
        self._path = settings.hook
        self._events = frozenset(settings.hook_events)
        self._time_limit = time_limit
        self._complaint = ""
        self._told: dict[tuple[str, str], float] = {}       # by event and reason, when it was last run for
        self._child: subprocess.Popen[bytes] | None = None
        self.counters: Counter[str] = Counter()
        self._waiting: queue.Queue[Mapping[str, Any] | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._run_all, name="hook", daemon=True)

    def watch(self, monitor: Monitor) -> None:
        """Begin, with the events of *monitor*; does nothing where no program is named.

        A program that cannot be run is only said in the log: it may come later.
        """
        if self._path:
            if not os.access(self._path, os.X_OK):
                self._complain("natfix cannot run it: is it there, executable, and not below /home or /root?")
            self._thread.start()
            monitor.add(self.offer, "", "", self._events)

    def offer(self, row: Mapping[str, Any]) -> bool:
        """Take an event; never waits. False: it is dropped, since too many wait."""
        if self._is_repeated(row):
            self.counters["hook_repeated"] += 1
            return True
        try:
            self._waiting.put_nowait(row)
        except queue.Full:
            self.counters["hook_dropped"] += 1
            return False
        return True

    def close(self) -> None:
        """End, and with it a program that does not end within a second; events that wait are lost."""
        if not self._thread.is_alive():
            return
        while not self._waiting.empty():
            self._waiting.get_nowait()
        self._waiting.put_nowait(None)
        self._thread.join(1.0)
        child = self._child
        if child is not None:
            child.kill()

    def _is_repeated(self, row: Mapping[str, Any]) -> bool:
        if row["event"] not in REPEATS:
            return False
        key, now = (row["event"], row.get("why", "")), time.monotonic()
        if key in self._told and now - self._told[key] < PAUSE:
            return True
        if len(self._told) >= MOST_REASONS:
            self._told.clear()
        self._told[key] = now
        return False

    def _run_all(self) -> None:
        _give_up_capabilities()
        while (row := self._waiting.get()) is not None:
            try:
                problem = self._run(json.dumps(row).encode() + b"\n")
            except Exception as failure:    # one event that cannot be told must not end all others
                problem = str(failure) or repr(failure)
            self.counters["hook_failed" if problem else "hook_run"] += 1
            self._complain(problem)

    def _run(self, document: bytes) -> str:
        """Run the program with *document* on stdin; return what went wrong, "" if nothing."""
        child = subprocess.Popen(
            [self._path], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=ENVIRONMENT, cwd="/", start_new_session=True)
        self._child = child
        try:
            child.communicate(document, self._time_limit)
        except subprocess.TimeoutExpired:
            # What it has started, too: its session is its own.
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
            return f"it took longer than {self._time_limit:g} s, and was killed"
        finally:
            self._child = None
        return f"it ended with {child.returncode}" if child.returncode else ""

    def _complain(self, problem: str) -> None:
        """Say a problem once, until the program does its work again."""
        if problem and problem != self._complaint:
            log.warning("[export] hook %s: %s", self._path, problem, extra=kind("hook-failed"))
        self._complaint = problem


def _give_up_capabilities() -> None:
    """Have what this thread, and no other, starts from now on get none of the service's capabilities."""
    ctypes.CDLL(None).prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
