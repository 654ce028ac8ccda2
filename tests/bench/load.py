"""Calls by SIPp from inside to outside: INVITE 100 180 200 ACK BYE 200."""

from __future__ import annotations

import contextlib
import csv
import time
from pathlib import Path
from typing import NamedTuple

from tests.lab.host import LabError, Process, wait_until
from tests.lab.lab import Lab

SCENARIOS = Path(__file__).parent / "sipp"
CALLER, CALLEE = "phone1", "remote1"
PORT = 5060
FIRST_RTP_PORT, LAST_RTP_PORT = 10000, 60000    # of the caller, a pair per call
CALLEE_RTP_PORT = 40000
OVERTIME = 5.0         # seconds beyond the last call's beginning after which a run is given up


class Load(NamedTuple):
    """What SIPp says of one run."""

    calls: int
    failed: int
    retransmissions: int
    seconds: float

    @property
    def is_clean(self) -> bool:
        """Every call came about."""
        return not self.failed

    def check(self, what: str = "natfix") -> None:
        """Raise LabError unless every call came about: what was measured of *what* means nothing then."""
        if not self.is_clean:
            raise LabError(f"{what}: {self.failed} of {self.calls} calls failed")


class Callee:
    """The called side; one for all runs of a lab."""

    def __init__(self) -> None:
        self.process: Process | None = None

    def start(self, lab: Lab) -> None:
        host = lab[CALLEE]
        self.process = host.popen([
            "sipp", "-sf", str(SCENARIOS / "callee.xml"), "-i", host.address, "-p", str(PORT),
            "-mp", "61000", "-nostdin", "-nd", "-deadcall_wait", "4000", "-l", "100000",
            "-key", "rtp_port", str(CALLEE_RTP_PORT),
        ], "callee", environment={"TERM": "dumb"})
        bound = f"{host.address}:{PORT}"
        wait_until(lambda: bound in host.run(["ss", "-lunH"]).stdout, 10.0, "SIPp's port")


class Calls:
    """A run of SIPp that goes on by itself; *to* is where it sends to, by default the callee."""

    def __init__(self, lab: Lab, calls: int, rate: float, *, to: str = "", talk: float = 0.0) -> None:
        host = lab[CALLER]
        target = f"{lab[CALLEE].address}:{PORT}"
        name = f"calls-{len(host.processes)}"
        self.calls, self.began = calls, time.monotonic()
        self.patience = calls / rate + talk + OVERTIME
        self.statistics = lab.path(f"{name}.csv")
        rows = lab.path("rtp-ports.csv")
        if not rows.exists():
            ports = range(FIRST_RTP_PORT, LAST_RTP_PORT, 2)
            rows.write_text("SEQUENTIAL\n" + "".join(f"{port}\n" for port in ports))
        self.process = host.popen([
            "sipp", to or target, "-sf", str(SCENARIOS / "caller.xml"), "-i", host.address, "-p", str(PORT),
            "-mp", "61000", "-nostdin", "-nd", "-m", str(calls), "-r", f"{rate:g}", "-l", "100000",
            "-d", str(round(1000 * talk)), "-key", "target", target, "-inf", str(rows),
            "-trace_stat", "-stf", str(self.statistics), "-fd", "1",
        ], name, environment={"TERM": "dumb"})

    def wait(self) -> Load:
        """Return what came of it, once all calls are over or time is up."""
        with contextlib.suppress(LabError):
            self.process.wait(self.patience)
        self.process.kill()
        with self.statistics.open() as text:
            last = list(csv.DictReader(text, delimiter=";"))[-1]
        good = int(last["SuccessfulCall(C)"])
        return Load(self.calls, self.calls - good, int(last["Retransmissions(C)"]),
                    time.monotonic() - self.began)


def place_calls(lab: Lab, calls: int, rate: float, *, to: str = "", talk: float = 0.0) -> Load:
    """Place *calls* at *rate* a second, each *talk* seconds long, and wait for their end."""
    return Calls(lab, calls, rate, to=to, talk=talk).wait()
