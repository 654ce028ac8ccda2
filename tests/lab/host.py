"""A host of the lab, and the processes that run on it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.lab import namespaces
from tests.lab.topology import HostRow

PROJECT = Path(__file__).resolve().parents[2]
PATIENCE = 3.0      # seconds a process gets between SIGTERM and SIGKILL
SLOWNESS = float(os.environ.get("NATFIX_LAB_SLOWNESS", "1"))    # all time limits are so many times as long


class LabError(Exception):
    """Something in the lab did not happen; the text is one sentence, often with a log's tail."""


def wait_until(condition: Callable[[], Any], timeout: float, what: str, interval: float = 0.02) -> Any:
    """Return the first true value of *condition*; raises LabError naming *what* after *timeout* seconds."""
    deadline = time.monotonic() + timeout * SLOWNESS
    while True:
        if value := condition():
            return value
        if time.monotonic() > deadline:
            raise LabError(f"{what}: did not happen within {timeout:g} s")
        time.sleep(interval)


class Process:
    """A program the lab started, in a session of its own; its output goes to ``log``."""

    def __init__(self, name: str, popen: subprocess.Popen[bytes], log: Path) -> None:
        self.name, self.popen, self.log = name, popen, log
        self.pid = popen.pid

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs; what it leaves of its process group is ended."""
        if self.popen.returncode is None and self._has_ended():
            # As long as nobody has waited for it, its number cannot become somebody else's group.
            self._kill_group()
            self.popen.wait()
        return self.popen.returncode

    def wait(self, timeout: float) -> int:
        """Return the exit code; raises LabError where it still runs after *timeout* seconds."""
        deadline = time.monotonic() + timeout * SLOWNESS
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise LabError(f"{self.name} still runs after {timeout:g} s\n{self.tail()}")
            time.sleep(0.01)
        return code

    def output(self) -> str:
        """Return all it has printed so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def tail(self, lines: int = 30) -> str:
        """Return the last *lines* of its output."""
        return "\n".join(self.output().splitlines()[-lines:])

    def wait_for(self, text: str, timeout: float = 10.0) -> str:
        """Return its output once *text* stands in it; raises LabError when it ends or takes too long."""
        def seen() -> str:
            ended = self.poll() is not None
            output = self.output()
            if text in output:
                return output
            if ended:
                raise LabError(f"{self.name} ended with {self.poll()} before {text!r}\n{self.tail()}")
            return ""
        return str(wait_until(seen, timeout, f"{text!r} in the output of {self.name}\n{self.tail()}"))

    def signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it the hard way (SIGKILL), with its children."""
        if self.poll() is None:
            self._kill_group()
            self.wait(PATIENCE)

    def stop(self) -> None:
        """End it: SIGTERM, and SIGKILL for what is left of its process group after a while."""
        self.signal(signal.SIGTERM)
        with contextlib.suppress(LabError):
            self.wait(PATIENCE)
        self.kill()

    def _has_ended(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


class Host:
    """One network namespace: run programs in it, open sockets in it."""

    def __init__(self, row: HostRow, prefix: str, directory: Path) -> None:
        self.name = row.name
        self.row = row
        self.namespace = namespaces.namespace(prefix, row.name)
        self.directory = directory
        self.processes: list[Process] = []

    def __repr__(self) -> str:
        return f"<Host {self.name} {self.address}>"

    @property
    def address(self) -> str:
        """The address of the host's only link; of a gateway, the outside one (its last link)."""
        return self.row.links[-1].address

    @property
    def interface(self) -> str:
        """The interface that carries :attr:`address`."""
        return self.row.links[-1].interface

    def run(self, command: Sequence[str], check: bool = True, timeout: float = 30.0,
            input: str | None = None) -> subprocess.CompletedProcess[str]:  # noqa: A002 (subprocess's word)
        """Run *command* to its end and return what it printed; raises LabError where *check* fails."""
        done = subprocess.run(self._enter(command), capture_output=True, text=True,
                              timeout=timeout * SLOWNESS, input=input, cwd=PROJECT, errors="replace")
        if check and done.returncode:
            raise LabError(f"{' '.join(command)} on {self.name}: exit {done.returncode}: "
                           f"{done.stderr.strip() or done.stdout.strip()}")
        return done

    def popen(self, command: Sequence[str], name: str = "", stdin: int | None = subprocess.DEVNULL,
              environment: dict[str, str] | None = None) -> Process:
        """Start *command*; the lab ends it when it closes. Output goes to ``<host>-<name>-<n>.log``."""
        name = name or Path(command[0]).name
        log = self.directory / f"{self.name}-{name}-{len(self.processes)}.log"
        with log.open("wb") as output:
            popen = subprocess.Popen(self._enter(command), stdin=stdin, stdout=output, stderr=output,
                                     start_new_session=True, cwd=PROJECT,
                                     env={**os.environ, **(environment or {})})
        process = Process(f"{name} on {self.name}", popen, log)
        self.processes.append(process)
        return process

    def _enter(self, command: Sequence[str]) -> list[str]:
        # "ip netns exec" ends in exec, so the process number is that of the program itself.
        return ["ip", "netns", "exec", self.namespace, *command]
