"""SIPp 3.6.1: runs a scenario file against a host, or waits for calls with one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab.host import LabError, Process

if TYPE_CHECKING:
    from tests.lab.lab import Lab

SCENARIOS = Path(__file__).resolve().parents[1] / "sipp"
OWN_MEDIA_PORT = 61000      # the first that SIPp binds (four for each), and nobody uses
# How its log announces a message: "UDP message received [509] bytes :", "UDP message sent (309 bytes):".
LOGGED = re.compile(rb"^-{20,} .+\n(?:UDP|TCP) message (sent|received) \D(\d+)[^\d\n]*\n\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class SippResult:
    """How a run ended: ``code`` 0 means that every call succeeded."""

    code: int
    errors: str                             # SIPp's error log
    messages: list[tuple[str, str]]         # ("sent" or "received", the whole message), in order

    def received(self, start: str = "") -> list[str]:
        """Return the received messages whose first line starts with *start*."""
        return [text for way, text in self.messages if way == "received" and text.startswith(start)]

    def sent(self, start: str = "") -> list[str]:
        """Return the sent messages whose first line starts with *start*."""
        return [text for way, text in self.messages if way == "sent" and text.startswith(start)]


class Sipp:
    """Run *scenario* (a file of tests/lab/sipp, a path, or XML text) on *host*.

    With *to* ("address:port") it calls; without, it waits for calls. *keys* become ``-key`` variables,
    *rows* an ``-inf`` file (one tuple per call, used in order: ``[field0]``). *calls* is how many calls;
    *options* are further SIPp options. Over *transport* "tcp" all calls share one connection. SIPp binds
    ``[media_port]`` itself, so that a RtpAgent could not: scenarios write ``[rtp_port]``: *rtp_port*.
    """

    def __init__(self, host: str, scenario: str | Path, *, to: str = "", port: int = 5060, calls: int = 1,
                 service: str = "service", keys: dict[str, str] | None = None,
                 rows: Sequence[Sequence[object]] = (), rtp_port: int = 12000, rate: int = 10,
                 timeout: float = 30.0, options: Sequence[str] = (), transport: str = "udp") -> None:
        self.transport = transport
        self.host_name, self.scenario, self.to, self.port, self.calls = host, scenario, to, port, calls
        self.service, self.keys, self.rows, self.rtp_port = service, keys or {}, rows, rtp_port
        self.rate, self.timeout, self.options = rate, timeout, options
        self.process: Process | None = None
        self.prefix = Path()

    def start(self, lab: Lab) -> None:
        """Start it; a waiting one is ready once its port is bound."""
        host = lab[self.host_name]
        self.prefix = lab.path(f"sipp-{self.host_name}-{len(host.processes)}")
        command = self._command(host.address, OWN_MEDIA_PORT + 4 * len(host.processes))
        self.process = host.popen(command, "sipp", environment={"TERM": "dumb"})
        if not self.to:
            bound = f"{host.address}:{self.port}"
            for _ in range(100):
                if bound in host.run(["ss", "-lntuH"]).stdout or self.process.poll() is not None:
                    return
            raise LabError(f"SIPp on {self.host_name} did not bind {bound}")

    def wait(self, timeout: float | None = None, check: bool = True) -> SippResult:
        """Wait until all calls are done; raises LabError where one failed and *check* is True."""
        assert self.process is not None
        code = self.process.wait(timeout or self.timeout + 5)
        result = SippResult(code, self._read("errors"), self.messages())
        if check and code:
            raise LabError(f"SIPp on {self.host_name} ended with {code}: {result.errors.strip()[-2000:]}")
        return result

    def messages(self) -> list[tuple[str, str]]:
        """Return ("sent" or "received", message) for all so far, in order."""
        path = Path(f"{self.prefix}.messages")
        return list(messages_from_log(path.read_bytes())) if path.exists() else []

    def _command(self, address: str, media_port: int) -> list[str]:
        command = ["sipp", *([self.to] if self.to else []), "-sf", str(self._scenario_path()),
                   "-i", address, "-p", str(self.port), "-mi", address, "-mp", str(media_port),
                   "-m", str(self.calls), "-r", str(self.rate), "-s", self.service, "-nostdin",
                   "-timeout", f"{self.timeout:.0f}s", "-timeout_error", "-nd",
                   "-trace_msg", "-message_file", f"{self.prefix}.messages",
                   "-trace_err", "-error_file", f"{self.prefix}.errors"]
        command += ["-t", "t1"] if self.transport == "tcp" else []
        for name, value in {"rtp_port": str(self.rtp_port), **self.keys}.items():
            command += ["-key", name, value]
        if self.rows:
            rows = "\n".join(";".join(str(field) for field in row) for row in self.rows)
            Path(f"{self.prefix}.csv").write_text(f"SEQUENTIAL\n{rows}\n")
            command += ["-inf", f"{self.prefix}.csv"]
        return command + list(self.options)

    def _scenario_path(self) -> Path:
        text = str(self.scenario)
        if text.lstrip().startswith("<"):
            path = Path(f"{self.prefix}.xml")
            path.write_text(text)
            return path
        path = Path(text)
        return path if path.is_absolute() else SCENARIOS / path

    def _read(self, suffix: str) -> str:
        path = Path(f"{self.prefix}.{suffix}")
        return path.read_text(errors="replace") if path.exists() else ""


def messages_from_log(log: bytes) -> Iterator[tuple[str, str]]:
    """Yield ("sent" or "received", message and a newline), but not one that is written only in part."""
    position = 0
    while header := LOGGED.search(log, position):
        start, position = header.end(), header.end() + int(header[2]) + 1
        if position > len(log):
            return
        yield header[1].decode(), log[start:position].decode(errors="replace").replace("\r\n", "\n")
