"""Two passes over captures: what is in them, then what natfix makes of it and what is wrong.

    pass 1  reads the inputs once (natfix.replay.reading): SIP goes to a spool on disk, media into the
            table of streams, and whatever says where the NAT is to natfix.replay.network
    pass 2  reads the spool in the order of time: sightings become passages, the engine is driven with
            them, conversations are collected, judged, and their rows spooled for the outputs

Ctrl-C in pass 1 ends the reading: what was read goes through pass 2. A second one ends that, too
(:class:`natfix.replay.work.Work`).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import TYPE_CHECKING

from natfix.address import is_ipv4
from natfix.config import Settings
from natfix.engine import NO_QUIRKS
from natfix.quirks import Quirks
from natfix.replay import diagnosis
from natfix.replay.conversations import Conversations, Held, MediaIndex, Stations
from natfix.replay.drive import Drive
from natfix.replay.gateway import Gateway
from natfix.replay.model import Context, Finding, NetworkView, Passage, Side, Sighting
from natfix.replay.network import Given, infer, side_of_copy
from natfix.replay.passages import Passages
from natfix.replay.reading import Input, Reading, read_inputs
from natfix.replay.result import Result
from natfix.replay.spool import Record, SortedSpool, record_from_row, sighting_from_record
from natfix.replay.stages import Point, clock_offsets
from natfix.replay.summaries import dialog_row, row_from_passage
from natfix.replay.visitors import Visitors
from natfix.replay.work import Work

if TYPE_CHECKING:
    from natfix.replay.redact import Redactor

__all__ = ["Input", "Options", "Result", "replay_reading", "run"]

MOST_FINDINGS = 10_000
MOST_RECORDS = 1000             # header-only passages that rules are shown
KEPT_OCTETS = 16 << 20          # of conversations with findings that had to be retired early
MOST_SIP_PORTS = 15             # as [signalling] ports has it
STAND_IN = "192.0.2.1"          # for the outside address, where none is known (RFC 5737)
TICK = 512                      # sightings between two looks at the progress


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    inputs: tuple[Input, ...]
    inside: tuple[str, ...] = ()
    outside: str = ""
    settings: Settings | None = None        # of --config
    quirks: Quirks = NO_QUIRKS
    call_id: str = ""
    redact: bool = False                    # people and places are replaced by tokens before all else


def run(options: Options, work: Work | None = None) -> Result:
    """Replay the inputs; raises NatfixError where none can be read."""
    work = work or Work()
    redactor = None
    if options.redact:
        from natfix.replay.redact import Redactor

        redactor = Redactor()
        options = _redacted(options, redactor)
    reading = read_inputs(options.inputs, work, redactor)
    try:
        result = replay_reading(options, reading, work)
        result.asked = options.call_id
        return result
    finally:
        reading.close()


def _redacted(options: Options, redactor: Redactor) -> Options:
    """Return *options* in the words that the redacted captures have."""
    given = _given(options)
    inside = tuple(part for network in given.inside for part in redactor.networks(network))
    return replace(options, inside=inside, outside=given.outside and redactor.host(given.outside),
                   call_id=redactor.call_id(options.call_id))


def replay_reading(options: Options, reading: Reading, work: Work) -> Result:
    """Do pass 2 over what pass 1 has left."""
    return _Second(options, reading, work).run()


class _Second:
    """Pass 2, from the spools to the result."""

    def __init__(self, options: Options, reading: Reading, work: Work) -> None:
        self._reading, self._work = reading, work
        self._offsets = clock_offsets(reading.meetings.found, reading.spools)
        view = infer(reading.evidence, reading.meetings.found, _given(options))
        self._context = _context(reading, view, self._offsets)
        self._gateway = _gateway(options, reading, view)
        self._drive = Drive(view, self._gateway)
        self._passages = Passages(view)
        self._conversations = Conversations()
        self._stations = Stations(self._context)
        self._visitors = Visitors(self._context)
        self._media = MediaIndex(self._context.streams, self._context.errors)
        self._kept_octets = 0
        self._result = Result(_summary(reading), view, warnings=[*reading.warnings], context=self._context,
                              stages=self._context.stages, interrupted=reading.interrupted)

    def run(self) -> Result:
        for sighting in self._sightings():
            for passage in self._passages.add(sighting):
                self._take(passage)
            if self._work.stops > 1:
                self._result.interrupted = True
                break
        for passage in self._passages.finish():
            self._take(passage)
        for held in self._conversations.rest():
            self._judge(held)
            self._result.conversations.append(held.conversation)
        self._finish()
        return self._result

    def _sightings(self) -> Iterator[Sighting]:
        """Yield all sightings of all inputs in the order of time, by the first one's clock."""
        spools = self._reading.spools.items()
        sources = [_source(spool, self._offsets[file], place) for place, (file, spool) in enumerate(spools)]
        total = max(1, self._reading.sip)
        for count, (time, _, _, record) in enumerate(heapq.merge(*sources)):
            if count % TICK == 0:
                self._work.show(count / total, "replaying")
            yield sighting_from_record(time, record)

    def _take(self, passage: Passage) -> None:
        """One passage: show it to natfix, collect it, write its row."""
        self._drive.show(passage)
        self._stations.note(passage)
        message = passage.message
        if message is None and not passage.first.payload and len(self._context.records) < MOST_RECORDS:
            self._context.records.append(passage)
        held = self._conversations.add(passage)
        if held is not None:
            self._visitors.note(passage)
        self._result.passages.append(record_from_row(row_from_passage(passage)))
        for retired in self._conversations.retired():
            findings = self._judge(retired)
            if findings and self._kept_octets < KEPT_OCTETS:
                self._kept_octets += retired.cost
                self._result.conversations.append(retired.conversation)
            else:
                self._result.left_out += 1

    def _judge(self, held: Held) -> list[Finding]:
        """A conversation is complete: its media, its findings, its row. A remainder misleads the rules."""
        self._media.attach(held)
        self._stations.note_registrations(held.conversation)
        findings: list[Finding] = []
        if not held.is_remainder:
            findings += diagnosis.judge_conversation(held.conversation, self._context)
        self._add_findings(findings)
        self._result.dialog_rows.append((dialog_row(held.conversation, findings, held.left_out),))
        return findings

    def _add_findings(self, findings: list[Finding]) -> None:
        room = MOST_FINDINGS - len(self._result.findings)
        self._result.findings += findings[:room]
        self._findings_left_out += max(0, len(findings) - room)

    _findings_left_out = 0

    def _finish(self) -> None:
        """Judge what is not about one conversation, and put everything in order."""
        result, context = self._result, self._context
        for _, station in sorted(context.stations.items()):
            self._add_findings([*diagnosis.judge_station(station, context)])
        self._add_findings([*diagnosis.judge_capture(context)])
        result.findings = diagnosis.sort(result.findings)
        result.conversations.sort(key=lambda each: (each.passages[0].time, each.passages[0].packets))
        if self._gateway is not None:
            result.mappings = self._gateway.mappings()
        result.input["interrupted"] = result.interrupted
        if result.interrupted:
            result.warnings.append("it was interrupted: what comes behind the last packet shown was not read")
        result.warnings += self._left_out()

    def _left_out(self) -> Iterator[str]:
        counts = (
            (self._findings_left_out, "findings are left out: only so many are kept"),
            (self._stations.left_out, "packets were of more phones than are kept in mind"),
            (self._gateway.mappings_left_out if self._gateway else 0, "mappings are left out of the list"),
        )
        return (f"{count} {what}" for count, what in counts if count)


def _source(spool: SortedSpool, offset: float, place: int) -> Iterator[tuple[float, int, int, Record]]:
    """Yield a spool's records with their times by the first input's clock."""
    return ((time + offset, place, number, record) for time, number, record in spool.read())


def _given(options: Options) -> Given:
    """Return what the operator says of the network: options first, then natfix.toml."""
    settings = options.settings
    networks = tuple(map(str, settings.inside.networks)) if settings else ()
    address = settings.outside.address if settings else ""
    return Given(options.inside or networks, options.outside or address)


def _context(reading: Reading, view: NetworkView, offsets: dict[str, float]) -> Context:
    """Return what rules may look at, with sides and the first input's clock put in."""
    def shift(packets: tuple[object, ...]) -> float:
        return offsets.get(getattr(packets[0], "file", ""), 0.0)

    for stream in reading.streams:
        stream.side = side_of_copy(view, stream.source.host, stream.destination.host)
        offset = shift((stream.first_packet,))
        if offset:
            stream.start += offset
            stream.end += offset
            stream.gaps = [(start + offset, end + offset) for start, end in stream.gaps]
    errors = [
        replace(error, time=error.time + shift(error.packets),
                side=side_of_copy(view, error.source.host, error.destination.host))
        for error in reading.errors
    ]
    resets = [replace(each, time=each.time + shift(each.packets)) for each in reading.resets]
    tls = [replace(each, time=each.time + shift(each.packets),
                   side=side_of_copy(view, each.source.host, each.destination.host)) for each in reading.tls]
    times = [(file["start"], file["end"]) for file in reading.files if file["end"]]
    return Context(
        view, _stages(reading, view), _behind(reading, view), streams=reading.streams, errors=errors,
        log=reading.log,
        formats=tuple(dict.fromkeys(file["format"] for file in reading.files)),
        neighbours=reading.neighbours, unreadable=reading.unreadable, resets=resets, tls=tls,
        start=min((start for start, _ in times), default=0.0),
        end=max((end for _, end in times), default=0.0))


def _stages(reading: Reading, view: NetworkView) -> tuple[str, ...]:
    """Return the stages' names, those that see the inside first."""
    sides: dict[str, list[Side]] = {}
    for (stage, _, _), source, destination in reading.evidence.pairs:
        if stage:
            sides.setdefault(stage, []).append(side_of_copy(view, source, destination))
    order = {Side.INSIDE: 0, Side.UNKNOWN: 1, Side.OUTSIDE: 2}
    depth = {stage: sum(order[side] for side in seen) / len(seen) for stage, seen in sides.items()}
    return tuple(sorted(sides, key=lambda stage: depth[stage]))


def _behind(reading: Reading, view: NetworkView) -> frozenset[Point]:
    """Return the points at which packets were seen as they are outside of the NAT."""
    return frozenset(point for point, source, destination in reading.evidence.pairs
                     if side_of_copy(view, source, destination) is Side.OUTSIDE)


def _gateway(options: Options, reading: Reading, view: NetworkView) -> Gateway | None:
    """Return a gateway where the NAT is, None where there is none, or none for IPv4."""
    inside = [prefix for prefix in view.inside if ip_network(prefix).version == 4]
    outside = view.outside or STAND_IN
    if not inside or not is_ipv4(outside):
        return None
    if not view.outside and any(Side.OUTSIDE is view.side_of(host) for host in reading.evidence.hosts()):
        view.guesses.append(f"{STAND_IN} stands in for it in what natfix would write")
    settings = options.settings
    if settings is None:
        settings = Settings()
        ports = tuple(port for port, _ in reading.ports.most_common(MOST_SIP_PORTS - 1) if port != 5060)
        settings = replace(settings, signalling=replace(settings.signalling, ports=(5060, *sorted(ports))))
    return Gateway(settings, inside, outside, options.quirks)


def _summary(reading: Reading) -> dict[str, object]:
    """Return JSON's ``input``."""
    files = reading.files
    times = [(file["start"], file["end"]) for file in files if file["end"]]
    return {
        "files": files,
        "packets": sum(file["packets"] for file in files),
        "sip": reading.sip,
        "start": min((start for start, _ in times), default=0.0),
        "end": max((end for _, end in times), default=0.0),
        "truncated": any(file["truncated"] for file in files),
        "interrupted": reading.interrupted,
    }
