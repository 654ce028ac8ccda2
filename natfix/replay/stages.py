"""Several views of one box: which sightings are of one packet, and how far the clocks are apart.

A *point* is where a copy was taken: a file, an interface, a stage of Check Point's ``fw monitor``. Copies
of one message are told by what no box on the way may change (RFC 3261, 17.1.3 and 17.2.3): method or
status, CSeq, tags, the topmost branch. A fixer that rewrites addresses, ports and Call-IDs leaves those.
Records without a payload pair up by IP identification, length, order and the end that did not change.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

from natfix.address import Endpoint
from natfix.errors import MalformedMessage
from natfix.replay.model import PacketId, Sighting
from natfix.sip.message import Message

FW_STAGES = "iIoO"              # before and after the firewall inbound, then outbound
MAGIC = "z9hG4bK"               # RFC 3261, 8.1.1.7: such a branch is unique
MOST_REMEMBERED = 50_000        # messages of one file that others are looked up among
MOST_MEETINGS = 20_000
OPEN_RECORDS = 256              # header-only packets that a later stage may still show
LENGTHS_APART = 0.25            # of one packet's length, before and after a fixer

Point = tuple[str, str, bool | None]        # stage, interface, outgoing


def point_of(sighting: Sighting) -> Point:
    """Return where a copy was taken."""
    return sighting.stage, sighting.interface, sighting.outgoing


def file_of(sighting: Sighting) -> str:
    """Return whose clock stamped a sighting: fw monitor's stages and a file's interfaces share one."""
    return sighting.packets[0].file


def identity(message: Message) -> Hashable:
    """Return what all copies of a message, and its retransmissions, have in common."""
    try:
        branch = message.branch
    except MalformedMessage:
        branch = ""
    call_id = "" if branch.startswith(MAGIC) else message.call_id
    return (message.status or message.method, message.cseq, message.cseq_method, branch, message.from_tag,
            message.to_tag, call_id)


class Meeting(NamedTuple):
    """One packet, seen at two points."""

    source: Endpoint            # at the point where it was read first
    destination: Endpoint
    other_source: Endpoint
    other_destination: Endpoint
    file: str
    other_file: str
    apart: float                # seconds that the other one is later, by the two clocks
    packets: tuple[PacketId, PacketId]

    @property
    def hosts(self) -> tuple[str, str, str, str]:
        return (self.source.host, self.destination.host, self.other_source.host, self.other_destination.host)


@dataclass(slots=True)
class _First:
    time: float
    source: Endpoint
    destination: Endpoint
    point: Point
    packet: PacketId
    seen: set[tuple[str, Endpoint, Endpoint]]     # files, and the ends there


@dataclass(slots=True)
class Meetings:
    """Finds packets that were seen at several points, while the inputs are read one after another."""

    found: list[Meeting] = field(default_factory=list)
    _first: dict[int, _First] = field(default_factory=dict)
    _remembered: Counter[str] = field(default_factory=Counter)
    _chain: Chain = field(default_factory=lambda: Chain())

    def note(self, sighting: Sighting) -> None:
        """Take a sighting, in the order of its file."""
        if sighting.message is None:
            before = self._chain.follow(sighting)
            if before is not None:
                self._meet(_first_of(before), sighting)
            return
        key = hash((identity(sighting.message), sighting.transport))
        first = self._first.get(key)
        file = file_of(sighting)
        if first is None:
            if self._remembered[file] < MOST_REMEMBERED:
                self._remembered[file] += 1
                self._first[key] = _first_of(sighting)
            return
        seen = (file, sighting.source, sighting.destination)
        if seen not in first.seen:
            first.seen.add(seen)
            self._meet(first, sighting)

    def _meet(self, first: _First, sighting: Sighting) -> None:
        if len(self.found) < MOST_MEETINGS:
            self.found.append(Meeting(
                first.source, first.destination, sighting.source, sighting.destination, first.packet.file,
                file_of(sighting), sighting.time - first.time, (first.packet, sighting.packet)))


def _first_of(sighting: Sighting) -> _First:
    return _First(sighting.time, sighting.source, sighting.destination, point_of(sighting), sighting.packet,
                  {(file_of(sighting), sighting.source, sighting.destination)})


class Chain:
    """Follows packets without a payload from stage to stage, as fw monitor's text shows them."""

    def __init__(self) -> None:
        self._open: deque[Sighting] = deque(maxlen=OPEN_RECORDS)     # the latest sighting of each

    def follow(self, sighting: Sighting) -> Sighting | None:
        """Return the sighting that *sighting* goes on from, None where it is the first of its packet."""
        before = next((each for each in self._open if _goes_on(each, sighting)), None)
        if before is not None:
            self._open.remove(before)
        self._open.append(sighting)
        return before


def _goes_on(before: Sighting, after: Sighting) -> bool:
    """Tell whether *after* can be the same packet at a later stage, with at most one end translated."""
    if before.payload or before.stage == after.stage or not _is_later_stage(before.stage, after.stage):
        return False
    same_ends = (before.source == after.source) + (before.destination == after.destination)
    lengths = before.facts.length, after.facts.length
    return (
        same_ends >= 1 and before.transport == after.transport
        and before.facts.identification == after.facts.identification
        and abs(lengths[0] - lengths[1]) <= LENGTHS_APART * max(lengths)
    )


def _is_later_stage(before: str, after: str) -> bool:
    places = FW_STAGES.find(before[-1:]), FW_STAGES.find(after[-1:])
    return 0 <= places[0] < places[1] if min(places) >= 0 else True


def stage_place(sighting: Sighting) -> int:
    """Return a stage's place on the way of any packet; -1 where its name does not say."""
    return FW_STAGES.find(sighting.stage) if len(sighting.stage) == 1 else -1


def clock_offsets(meetings: Iterable[Meeting], files: Iterable[str]) -> dict[str, float]:
    """Return what has to be added to each file's times to have the first file's clock.

    A packet takes a while from one point to the other, so the median of the differences is wrong by
    that; between both directions it cancels out. Files that share no packet with the others keep their time.
    """
    apart: dict[tuple[str, str], dict[bool, list[float]]] = {}
    for meeting in meetings:
        if meeting.file != meeting.other_file:
            by_way = apart.setdefault((meeting.file, meeting.other_file), {True: [], False: []})
            by_way[_way(meeting)].append(meeting.apart)
    differences = {pair: _middle(by_way) for pair, by_way in apart.items()}
    return _from_first([*files], differences)


def _way(meeting: Meeting) -> bool:
    """Tell the two directions apart: the end that no NAT changed sends, or receives; else by their names."""
    if meeting.source == meeting.other_source and meeting.destination != meeting.other_destination:
        return True
    if meeting.destination == meeting.other_destination and meeting.source != meeting.other_source:
        return False
    return meeting.source < meeting.destination


def _middle(by_way: dict[bool, list[float]]) -> float:
    medians = [median(values) for values in by_way.values() if values]
    return sum(medians) / len(medians)


def _from_first(files: list[str], differences: dict[tuple[str, str], float]) -> dict[str, float]:
    offsets = {files[0]: 0.0} if files else {}
    for _ in files:
        for (one, other), apart in differences.items():
            if one in offsets and other not in offsets:
                offsets[other] = offsets[one] - apart
            elif other in offsets and one not in offsets:
                offsets[one] = offsets[other] + apart
    return {file: offsets.get(file, 0.0) for file in files}
