"""What systemd does with natfix.service, as that file says: for labs in network namespaces, without systemd.

It starts the daemon, waits for READY=1, wants to hear WATCHDOG=1, ends what hangs, runs ExecStopPost with the
result, and starts it again after RestartSec.
"""

from __future__ import annotations

import asyncio
import configparser
import re
import signal
import socket
from pathlib import Path
from time import monotonic

from tests.lab.gateway import Natfix
from tests.lab.host import PROJECT, Process
from tests.lab.lab import Lab

UNIT = PROJECT / "tools" / "deb" / "natfix.service"
LOOK = 0.02         # seconds between two looks at the process


class Unit:
    """The lines of a service's unit file that matter here; times in seconds."""

    def __init__(self, path: Path = UNIT) -> None:
        parser = configparser.RawConfigParser(strict=False, delimiters=("=",), comment_prefixes=("#",))
        parser.optionxform = str        # type: ignore[assignment,method-assign]
        parser.read(path)
        service = parser["Service"]
        self.watchdog = float(service["WatchdogSec"])
        self.restart_after = float(service["RestartSec"])
        self.start_timeout = float(service["TimeoutStartSec"])
        self.stop_timeout = float(service["TimeoutStopSec"])
        # "-": its failure is none; "$$" is systemd's way to write "$".
        found = re.fullmatch(r"-/bin/sh -c '(.*)'", service["ExecStopPost"])
        assert found is not None
        assert service["Restart"] == "on-failure"
        self.stop_post = found[1].replace("$$", "$")


class Supervisor:
    """Keeps one natfix running in *lab*; *program* is the argv of the natfix command."""

    def __init__(self, lab: Lab, natfix: Natfix, program: list[str], unit: Unit) -> None:
        self.lab, self.natfix, self.program, self.unit = lab, natfix, program, unit
        self.results: list[str] = []        # of each process that ended: "success", "signal", "watchdog", ...
        self.loop = asyncio.get_running_loop()
        self._path = lab.path("notify.sock")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(self._path))
        self._heard = 0.0
        self._ready = asyncio.Event()
        self._stopping = False
        self._watching: asyncio.Task[None] | None = None
        self.loop.add_reader(self._socket, self._listen)

    @property
    def pid(self) -> int:
        """The daemon's process number."""
        assert self.natfix.process is not None
        return self.natfix.process.pid

    async def start(self) -> None:
        """Start it, and return once it is ready."""
        self._stopping = False
        self._ready.clear()
        self._watching = self.loop.create_task(self._keep_running())
        await self._wait_ready()

    async def restart(self) -> None:
        """SIGTERM, the end, and a new start, as `systemctl try-restart` does."""
        await self.stop()
        await self.start()

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL where that takes too long."""
        self._stopping = True
        process = self.natfix.process
        assert process is not None
        assert self._watching is not None
        process.signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(asyncio.shield(self._watching), self.unit.stop_timeout)
        except TimeoutError:
            process.kill()
            await self._watching

    async def replaced(self, pid: int) -> None:
        """Wait until another process than *pid* is ready."""
        while self.natfix.process is None or self.pid == pid:
            self._check()
            await asyncio.sleep(LOOK)
        await self._wait_ready()

    def close(self) -> None:
        """Watch no longer; the lab ends the process."""
        if self._watching is not None:
            self._watching.cancel()
        self.loop.remove_reader(self._socket)
        self._socket.close()

    async def _wait_ready(self) -> None:
        while not self._ready.is_set():
            self._check()
            await asyncio.sleep(LOOK)

    def _check(self) -> None:
        if self._watching is not None and self._watching.done():
            self._watching.result()
            raise AssertionError(f"natfix is not kept running: {self.results}")

    async def _keep_running(self) -> None:
        while True:
            self._ready.clear()
            process = self.natfix.process = self.lab.gateway.popen(
                [*self.program, "--config", str(self.natfix.config), "run"], "natfix",
                environment={"NOTIFY_SOCKET": str(self._path),
                             "WATCHDOG_USEC": str(round(self.unit.watchdog * 1e6))})
            result = await self._watch(process)
            self.results.append(result)
            await self._run_stop_post(result)
            if self._stopping or result == "success":
                return
            await asyncio.sleep(self.unit.restart_after)

    async def _watch(self, process: Process) -> str:
        """Return how it ended, in the words of $SERVICE_RESULT."""
        began = self._heard = monotonic()
        while (code := process.poll()) is None:
            if self._ready.is_set() and monotonic() > self._heard + self.unit.watchdog:
                return await self._end_hanging(process, "watchdog")
            if not self._ready.is_set() and monotonic() > began + self.unit.start_timeout:
                return await self._end_hanging(process, "timeout")
            await asyncio.sleep(LOOK)
        return "success" if code == 0 else "signal" if code < 0 else "exit-code"

    async def _end_hanging(self, process: Process, result: str) -> str:
        # systemd sends SIGCONT after the signal, so that a stopped process gets it.
        process.signal(signal.SIGABRT if result == "watchdog" else signal.SIGTERM)
        process.signal(signal.SIGCONT)
        end = monotonic() + self.unit.stop_timeout
        while process.poll() is None:
            if monotonic() > end:
                process.kill()
            await asyncio.sleep(LOOK)
        return result

    async def _run_stop_post(self, result: str) -> None:
        # In the way of a hanging natfix everything else goes on, so it may not hold this program up.
        command = " ".join([*self.program, "--config", str(self.natfix.config)])
        script = self.unit.stop_post.replace("/usr/bin/natfix", command)
        done = self.lab.gateway.popen(["env", f"SERVICE_RESULT={result}", "sh", "-c", script], "stop-post")
        while done.poll() is None:
            await asyncio.sleep(LOOK)

    def _listen(self) -> None:
        while True:
            try:
                said = self._socket.recv(4096).decode().splitlines()
            except BlockingIOError:
                return
            if "READY=1" in said:
                self._ready.set()
            if "READY=1" in said or "WATCHDOG=1" in said:
                self._heard = monotonic()
