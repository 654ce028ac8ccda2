"""Pass 1: the inputs, read once. What is SIP goes to disk; of all else only what is concluded is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from natfix.errors import NatfixError
from natfix.replay.media_seen import MediaTable
from natfix.replay.model import IcmpError, LogLine, Sighting, Stream, TcpReset, TlsFlow
from natfix.replay.network import Evidence
from natfix.replay.sightings import Reader
from natfix.replay.source import Unreadable
from natfix.replay.spool import SortedSpool, record_from_sighting
from natfix.replay.stages import Meetings, file_of
from natfix.replay.work import Work

if TYPE_CHECKING:
    from natfix.replay.redact import Redactor

MOST_OF_EACH = 10_000           # ICMP errors, log lines, TCP resets: of each so many are kept
MOST_PORTS = 4096
MOST_UNREADABLE = 1000

Item = Sighting | IcmpError | LogLine | TcpReset | TlsFlow


class NothingReadable(NatfixError):
    """None of the inputs is a capture."""


class Input(NamedTuple):
    """One capture: where it is, and what its packets are called by where there are several."""

    path: str
    label: str = ""


@dataclass(slots=True)
class Reading:
    """What pass 1 leaves."""

    spools: dict[str, SortedSpool] = field(default_factory=dict)       # by the input's label
    evidence: Evidence = field(default_factory=Evidence)
    meetings: Meetings = field(default_factory=Meetings)
    ports: Counter[int] = field(default_factory=Counter)               # that requests are sent to
    errors: list[IcmpError] = field(default_factory=list)
    log: list[LogLine] = field(default_factory=list)
    resets: list[TcpReset] = field(default_factory=list)
    tls: list[TlsFlow] = field(default_factory=list)
    unreadable: list[Sighting] = field(default_factory=list)
    neighbours: dict[str, str] = field(default_factory=dict)
    streams: list[Stream] = field(default_factory=list)
    files: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    interrupted: bool = False

    @property
    def sip(self) -> int:
        """How many SIP messages were seen."""
        return sum(spool.count for spool in self.spools.values())

    def take(self, item: Item) -> None:
        """Take one thing that an input holds."""
        if isinstance(item, Sighting):
            self._note(item)
            return
        tables: dict[type, list[Any]] = {
            IcmpError: self.errors, LogLine: self.log, TcpReset: self.resets, TlsFlow: self.tls}
        table = tables[type(item)]
        if len(table) < MOST_OF_EACH:
            table.append(item)

    def _note(self, sighting: Sighting) -> None:
        """Keep one sighting, and what it says of the network."""
        file = file_of(sighting)
        spool = self.spools.get(file)
        if spool is None:
            spool = self.spools[file] = SortedSpool()
        self.evidence.note(sighting)
        spool.append(sighting.time, record_from_sighting(sighting))
        self.meetings.note(sighting)
        message = sighting.message
        if message is None:
            if sighting.problem and len(self.unreadable) < MOST_UNREADABLE:
                self.unreadable.append(sighting)
        elif message.is_request and sighting.transport == "udp":
            port = sighting.destination.port
            if port in self.ports or len(self.ports) < MOST_PORTS:
                self.ports[port] += 1

    def close(self) -> None:
        """Give the disk space back."""
        for spool in self.spools.values():
            spool.close()


def read_inputs(inputs: Sequence[Input], work: Work, redactor: Redactor | None = None) -> Reading:
    """Read all inputs, as far as that goes; raises NothingReadable with a line for each where none can be.

    With a *redactor* nothing else ever sees what it hides.
    """
    reading, media = Reading(), MediaTable()
    problems = []
    for place, each in enumerate(inputs):
        try:
            reader = _read(reading, media, each, len(inputs), place, work, redactor)
        except Unreadable as problem:
            problems.append(str(problem))
            continue
        reading.files.append(reader.counts.as_dict())
        reading.neighbours |= reader.counts.neighbours
        reading.warnings += reader.counts.warnings()
        if work.stops:
            reading.interrupted = True
            break
    if not reading.files:
        raise NothingReadable("\n".join(problems))
    reading.warnings += problems
    reading.streams = media.streams()
    if redactor is not None:
        reading.streams = [redactor.stream(stream) for stream in reading.streams]
        reading.neighbours.clear()
        for file in reading.files:
            file["name"] = Path(file["name"]).name
    return reading


def _read(
    reading: Reading, media: MediaTable, one: Input, several: int, place: int, work: Work,
    redactor: Redactor | None,
) -> Reader:
    """Read one of *several* inputs to its end, or until it is to stop."""
    def goes_on() -> bool:
        work.show((place + reader.share) / several, "reading")
        return not work.stops

    reader = Reader(one.path, one.label if several > 1 else "", media, goes_on)
    for item in reader:
        reading.take(item if redactor is None else redactor.item(item))
    return reader
