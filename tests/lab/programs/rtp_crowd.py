"""Many counted RTP streams of one host (:mod:`tests.lab.crowd`) as a program."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab.host import PROJECT, Process

if TYPE_CHECKING:
    from tests.lab.lab import Lab


class RtpCrowd:
    """Bind every port of *rows* on *host*; after :meth:`go` each sends to its row's "address:port"."""

    def __init__(self, host: str, rows: Sequence[tuple[int, str]]) -> None:
        self.host_name, self.rows = host, rows
        self.process: Process | None = None
        self.output = Path()
        self.result: dict[str, dict[str, dict[str, int]]] = {}

    def start(self, lab: Lab) -> None:
        """Start it and wait until all its ports are bound."""
        host = lab[self.host_name]
        rows = lab.path(f"crowd-{self.host_name}.rows")
        rows.write_text(json.dumps(self.rows))
        self.output = lab.path(f"crowd-{self.host_name}.json")
        command = [sys.executable, str(PROJECT / "tests/lab/crowd.py"), host.address, str(rows),
                   str(self.output)]
        self.process = host.popen(command, "crowd", stdin=subprocess.PIPE)
        self.process.wait_for("ready")

    def go(self) -> None:
        """Start all streams."""
        self._say("go")

    def silence(self, port: int) -> None:
        """Stop the stream that is sent from *port*."""
        self._say(str(port))

    def stop(self) -> None:
        """End it, and read what it counted."""
        assert self.process is not None
        assert self.process.popen.stdin is not None
        if not self.result:
            self.process.popen.stdin.close()
            self.process.wait(5.0)
            self.result = json.loads(self.output.read_text())

    def sent(self, port: int) -> int:
        """Return how many packets were sent from *port*."""
        self.stop()
        return int(self.result[str(port)]["sent"])      # type: ignore[call-overload]

    def received(self, port: int) -> dict[str, int]:
        """Return how many packets came to *port*, by "address:port ssrc" of the sender."""
        self.stop()
        return self.result[str(port)]["received"]

    def _say(self, line: str) -> None:
        assert self.process is not None
        assert self.process.popen.stdin is not None
        self.process.popen.stdin.write(f"{line}\n".encode())
        self.process.popen.stdin.flush()
