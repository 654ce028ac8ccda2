"""Stand-ins for what the live shell drives, where a test is about the shell alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from natfix.address import Endpoint
from natfix.commands import Command, Flow, Outcome, OwnPacket, SendSegment
from natfix.engine import Path
from natfix.errors import KernelRefused
from natfix.happenings import Event
from natfix.kernel.base import FlowState, KernelMapping, Skeleton
from natfix.quotas import Quotas, Rates
from natfix.reports import Change, Report

SKELETON = Skeleton(("wan0",), (5060,), (30000, 39999), 0x04000000, 5060, False)


class StandInEngine:
    """An engine whose answers the test sets; what it was asked is in ``asked``."""

    def __init__(self, answer: Callable[[bytes], Outcome] | None = None) -> None:
        self.answer = answer or (lambda raw: Outcome())
        self.asked: list[tuple[bytes, Path, float]] = []
        self.reports: list[Report] = []
        self.report_answer: Callable[[Report], Outcome] = lambda report: Outcome()
        self.timer: float | None = None
        self.timer_answer: Callable[[], Outcome] = Outcome
        self.timer_calls = 0
        self.parting: list[SendSegment] = []
        self.wanted: list[Command] = []
        self.changes: list[Change] = []
        self.flows: set[Flow] = set()
        self.quotas = Quotas(Rates(0, 0), ())

    def receive_packet(self, raw: bytes, path: Path, now: float) -> Outcome:
        self.asked.append((raw, path, now))
        return self.answer(raw)

    def handle_report(self, report: Report, now: float) -> Outcome:
        self.reports.append(report)
        return self.report_answer(report)

    def handle_timer(self, now: float) -> Outcome:
        self.timer_calls += 1
        outcome = self.timer_answer()
        self.timer = None
        return outcome

    def next_timeout(self) -> float | None:
        return self.timer

    def farewell(self) -> list[SendSegment]:
        return self.parting

    def desired(self) -> list[Command]:
        return list(self.wanted)

    def pop_changes(self) -> list[Change]:
        changes, self.changes = self.changes, []
        return changes

    def pop_events(self) -> list[Event]:
        return []

    def flows_of_interest(self) -> set[Flow]:
        return self.flows

    def calls(self, now: float) -> list[dict[str, Any]]:
        return [{"call_id": "call-1"}]

    def registrations(self, now: float) -> list[dict[str, Any]]:
        return [{"aor": "sip:alice@example.com"}]

    def status(self, now: float) -> dict[str, Any]:
        return {"calls": 1}


class RecordingKernel:
    """A kernel that writes down what it is asked, and refuses where ``refusing`` names the verb."""

    def __init__(self) -> None:
        self.floods: dict[str, int] = {}
        self.done: list[tuple[str, Any]] = []
        self.refusing: set[str] = set()
        self.held: list[KernelMapping] = []
        self.entries: list[FlowState] = []
        self.gone: set[Flow] = set()
        self.streams: dict[tuple[Endpoint, Endpoint], Flow] = {}
        self.packets = 0
        self.entries_refused = 0
        self.last_refusal = ""

    def _note(self, verb: str, what: Any = None) -> None:
        self.done.append((verb, what))
        if verb in self.refusing:
            raise KernelRefused(f"no {verb} today")

    def verbs(self) -> list[str]:
        return [verb for verb, _ in self.done]

    def install(self, skeleton: Skeleton) -> None:
        self._note("install", skeleton)

    def apply(self, commands: Sequence[Command]) -> None:
        self._note("apply", list(commands))

    def resync(self, commands: Sequence[Command]) -> None:
        self._note("resync", list(commands))

    def mappings(self) -> list[KernelMapping]:
        self._note("mappings")
        return self.held

    def flows(self) -> list[FlowState]:
        self._note("flows")
        return self.entries

    def counters(self, flows: Iterable[Flow]) -> dict[Flow, FlowState]:
        asked = list(flows)
        self._note("counters", asked)
        self.packets += 7
        known = [flow for flow in asked if flow not in self.gone]
        return {flow: FlowState(flow, 120.0, self.packets, 4, 0, True) for flow in known}

    def open_stream(self, source: Endpoint, destination: Endpoint) -> Flow | None:
        self._note("open_stream", (source, destination))
        return self.streams.get((source, destination))

    def refused(self) -> dict[Endpoint, int]:
        return {}

    def flooding(self) -> dict[str, int]:
        return dict(self.floods)

    def send(self, packets: Sequence[OwnPacket]) -> int:
        self._note("send", list(packets))
        return 0

    def remove(self) -> None:
        self._note("remove")


@dataclass
class WaitingPacket:
    """A queued packet that remembers its verdict."""

    raw: bytes
    hook: str = "forward"
    in_interface: str = "lan0"
    out_interface: str = "wan0"
    mark: int = 0
    verdict: tuple[str, bytes | None] | None = field(default=None)
    log: list[str] | None = None        # shared between packets: the order of things

    def accept(self, packet: bytes | None = None) -> None:
        assert self.verdict is None
        self.verdict = ("accept", packet)
        if self.log is not None:
            self.log.append("verdict")

    def drop(self) -> None:
        assert self.verdict is None
        self.verdict = ("drop", None)


class ListReader:
    """A queue reader that hands over what the test puts in, one batch per read."""

    def __init__(self) -> None:
        self.overflows = 0
        self.batches: list[list[WaitingPacket]] = []
        self.forgotten = 0
        self._wake, self._waker = os.pipe()

    def put(self, *packets: WaitingPacket) -> None:
        self.batches.append(list(packets))
        os.write(self._waker, b"x")

    def fileno(self) -> int:
        return self._wake

    def read(self) -> list[WaitingPacket]:
        os.read(self._wake, 1)
        return self.batches.pop(0)

    def forget_interfaces(self) -> None:
        self.forgotten += 1

    def close(self) -> None:
        os.close(self._wake)
        os.close(self._waker)


class ListStore:
    """A store that keeps its rows in memory."""

    def __init__(self, rows: tuple[Change, ...] = ()) -> None:
        self.rows = rows
        self.put_changes: list[Change] = []

    def load(self) -> tuple[Change, ...]:
        return self.rows

    def put(self, changes: Iterable[Change]) -> None:
        self.put_changes += changes

    def close(self) -> None:
        """Has nothing to write."""
