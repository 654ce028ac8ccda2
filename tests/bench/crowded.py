"""natfix with ten thousand calls up: what one more costs, how much memory it takes, how long it pauses."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

from tests.bench.arrangements import MeasuredNatfix
from tests.bench.processor import cpu_seconds, resident_megabytes
from tests.bench.report import Results
from tests.lab.host import PROJECT, Process, wait_until
from tests.lab.lab import Lab

INSIDE, OUTSIDE = "phone1", "remote1"
FIRST_PORT, SERVER_PORT = 10000, 5060
PHONES = 500            # inside endpoints
FEW = 10                # calls
ROUND = 50              # calls of one look at what a call costs
RATE = 100              # calls a second while pauses are looked for
PORTION = 1000          # registrations or calls
PAUSES = 5              # that are described
LATER = 1_010_000       # the first serial number of calls that end at once; their RTP ports are their own


class Crowd:
    """One gateway with natfix, its phones, and who answers them."""

    def __init__(self, lab: Lab) -> None:
        self.natfix = MeasuredNatfix(lab, "turns")
        self.natfix.start()
        assert self.natfix.process is not None
        self.pid = self.natfix.process.pid
        outside, inside = lab[OUTSIDE], lab[INSIDE]
        server = f"{outside.address}:{SERVER_PORT}"
        answerer = outside.popen([sys.executable, str(PROJECT / "tests/bench/answerer.py"), outside.address,
                                  str(SERVER_PORT)], "answerer")
        answerer.wait_for("ready")
        self.phones: Process = inside.popen(
            [sys.executable, str(PROJECT / "tests/bench/phones.py"), inside.address, str(FIRST_PORT),
             str(PHONES), server], "phones", stdin=subprocess.PIPE)
        self.phones.wait_for("ready")
        self.told = 0
        self.later = LATER

    def tell(self, what: str, first: int, count: int) -> None:
        """Have the phones do *what*, and wait until it is done."""
        assert self.phones.popen.stdin is not None
        self.phones.popen.stdin.write(f"{what} {first} {count}\n".encode())
        self.phones.popen.stdin.flush()
        self.told += 1
        wait_until(lambda: self.phones.output().count("done") >= self.told or self.phones.poll() is not None,
                   600.0, f"{what} {count}", interval=0.002)
        assert self.phones.poll() is None, self.phones.tail()

    def fill(self, what: str, count: int) -> None:
        """Have the phones do *what*, in portions and half of the time, as if it came about over hours."""
        for first in range(0, count, PORTION):
            began = time.monotonic()
            self.tell(what, first, min(PORTION, count - first))
            time.sleep(time.monotonic() - began)

    def place_some(self) -> None:
        """Place a tenth of a second's calls, and let as much of it pass."""
        began = time.monotonic()
        self.tell("more", self.later, RATE // 10)
        self.later += RATE // 10
        time.sleep(max(0.0, began + 0.1 - time.monotonic()))

    def cost_of_one_more(self) -> float:
        """Return the microseconds of CPU that natfix uses for a call, over some of them."""
        before = cpu_seconds([self.pid])
        self.tell("more", self.later, ROUND)
        self.later += ROUND
        return (cpu_seconds([self.pid]) - before) / ROUND * 1e6


def measure(calls: int, addresses: int, rounds: int, seconds: float) -> Results:
    """Return the row for *calls* calls and *addresses* registered; *seconds* are watched for pauses."""
    with _crowd() as few, _crowd() as many:
        few.fill("register", PHONES)        # each phone's port is mapped, as it is among the many
        few.tell("call", 0, FEW)
        many.fill("register", addresses)
        many.fill("call", calls)
        pairs = [(few.cost_of_one_more(), many.cost_of_one_more()) for _ in range(rounds)]
        memory = resident_megabytes(many.pid)
        began = time.time()
        while time.time() < began + seconds:
            many.place_some()
        status = many.natfix.request("status")
        many.natfix.stop()
        turns = [turn for turn in many.natfix.results()["turns"] if began <= turn["at"] < began + seconds]
    costs = [median(column) for column in zip(*pairs, strict=True)]
    return {
        "cost_growth": {"at_10000_calls": round(costs[1] / costs[0], 3), "calls": status["calls"],
                        "us_at_10": round(costs[0]), "us_at_many": round(costs[1])},
        "memory_mb": round(memory, 1),
        "longest_pause_ms": round(max((turn["ms"] for turn in turns), default=0.0), 2),
        "longest_pause_cpu_ms": round(max((turn["cpu_ms"] for turn in turns), default=0.0), 2),
        "longest_pauses": sorted(turns, key=lambda turn: turn["ms"], reverse=True)[:PAUSES],
        "memory": {"calls": status["calls"], "registrations": status["registrations"], "endpoints": PHONES},
    }


@contextmanager
def _crowd() -> Iterator[Crowd]:
    with Lab(accounting=False) as lab:
        yield Crowd(lab)
