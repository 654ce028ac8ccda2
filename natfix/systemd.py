"""What systemd is told: that natfix is ready, how it goes, that its loop still turns (sd_notify(3)), and how
grave a line of the log is (sd-daemon(3)).

All of it does nothing where natfix was not started by a unit of ``Type=notify``.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import sys
import time
from collections.abc import Callable

from natfix.message_ids import kind

JOURNAL_SOCKET = "/run/systemd/journal/socket"
IDENTIFIER = "natfix"
LONGEST_FIELD = 32768   # octets of one field: a datagram has to fit into the socket's buffer
MOST_OFTEN = 0.1        # seconds; a shorter watchdog time is somebody's mistake, not a reason to spin

# Of the journal, from syslog(3): the level of a record, and from which of Python's levels on it is that.
PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
LEAST = 7

log = logging.getLogger("natfix")
_PLAIN = logging.Formatter()

CallAt = Callable[[float, Callable[[float], None]], None]


def notify(*lines: str) -> bool:
    """Tell systemd *lines* ("READY=1", "STATUS=...") where it has asked for that; True: it was told."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
            speaker.setblocking(False)      # a full socket of systemd's must not hold packets up
            speaker.connect("\0" + address[1:] if address.startswith("@") else address)
            speaker.send("\n".join(lines).encode())
    except OSError as problem:
        log.warning("systemd cannot be told %s (%s)", lines[0], problem, extra=kind("systemd"))
        return False
    return True


def notify_reloading() -> None:
    """Say that the configuration is read again; a READY=1 has to follow."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def watchdog_time() -> float:
    """Return the seconds within which systemd wants to hear of this process; 0.0 where it does not."""
    wanted = os.environ.get("WATCHDOG_USEC", "")
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()) or not wanted.isdecimal():
        return 0.0
    return int(wanted[:15]) / 1e6


def writes_to_journal() -> bool:
    """Tell whether what this process writes to stderr goes straight to systemd's journal."""
    try:
        stream = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):
        return False
    return os.environ.get("JOURNAL_STREAM", "") == f"{stream.st_dev}:{stream.st_ino}"


def can_reach_journal() -> bool:
    """Tell whether the journal takes entries with fields here, beside lines on stderr."""
    return os.access(JOURNAL_SOCKET, os.W_OK)


class JournalHandler(logging.Handler):
    """Sends each record as one entry with fields (systemd.journal-fields(7)); it never waits,
    and never raises.

    What the journal does not take at once is lost, and counted in the next entry (NATFIX_LOST).
    """

    def __init__(self) -> None:
        super().__init__()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Send *record*; "message_id" and "call_id" of its extra become fields."""
        try:
            # By name each time: a journal that was restarted has another socket there.
            self._socket.sendto(self._entry(record), JOURNAL_SOCKET)
            self._lost = 0
        except Exception:       # a line that cannot be sent must not cost a verdict
            self._lost += 1

    def close(self) -> None:
        self._socket.close()
        super().close()

    def _entry(self, record: logging.LogRecord) -> bytes:
        values = {
            "MESSAGE": _PLAIN.format(record),
            "PRIORITY": str(priority(record.levelno)),
            "SYSLOG_IDENTIFIER": IDENTIFIER,
            "MESSAGE_ID": getattr(record, "message_id", ""),
            "CALL_ID": getattr(record, "call_id", ""),
            "NATFIX_LOST": str(self._lost or ""),
        }
        return b"".join(journal_field(name, value) for name, value in values.items() if value)


def journal_field(name: str, value: str) -> bytes:
    """Return one field as the journal's own protocol has it; whatever *value* holds, it stays one field."""
    octets = value.encode(errors="replace")[:LONGEST_FIELD]
    if b"\n" not in octets:
        return b"%s=%s\n" % (name.encode(), octets)
    return b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(octets)), octets)


def priority(level: int) -> int:
    """Return what syslog(3) calls a *level* of Python's."""
    return next((number for least, number in PRIORITIES if level >= least), LEAST)


class JournalFormatter(logging.Formatter):
    """Puts the priority before each line, and no time, which the journal has itself."""

    def format(self, record: logging.LogRecord) -> str:
        number = priority(record.levelno)
        return "\n".join(f"<{number}>{line}" for line in super().format(record).splitlines())


class Heartbeat:
    """A task of the loop's own schedule, so that it stops where the loop does."""

    def __init__(self, call_at: CallAt, status: Callable[[], str]) -> None:
        """*call_at* puts a task on the loop's schedule, *status* returns one line for `systemctl status`."""
        self._call_at = call_at
        self._status = status
        self._told = ""
        self._every = max(watchdog_time() / 2, MOST_OFTEN) if watchdog_time() else 0.0

    def begin(self, now: float) -> None:
        """Say that natfix is ready; from here on, until the loop stands still, that it turns."""
        self._told = self._status()
        if notify("READY=1", f"STATUS={self._told}") and self._every:
            self._call_at(now + self._every, self._beat)

    def _beat(self, now: float) -> None:
        self._call_at(now + self._every, self._beat)
        status = self._status()
        changed = [f"STATUS={status}"] if status != self._told else []
        self._told = status
        notify("WATCHDOG=1", *changed)
