"""The ladder diagram of a conversation: who sent what to whom, as captured and with natfix.

Columns are hosts: inside UAs, the gateway, outside peers. A rung is one transmission, and has two strips:

    captured    what the capture shows, on either side of the gateway; dotted where it was not captured
    repaired    the same up to the gateway, and from there what natfix lets go

Only geometry and text are made here; the template draws it as SVG. Across, everything is in percent, so
that a diagram is as wide as there is room.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from natfix.address import SIP_PORT, Endpoint
from natfix.commands import Note
from natfix.replay.model import (
    Conversation,
    Direction,
    IcmpError,
    MediaKind,
    NetworkView,
    PacketId,
    Passage,
    Repair,
    Side,
    Sighting,
    Stream,
)
from natfix.sdp import find_sdp

MOST_HOSTS = 3              # columns on one side; further hosts share the last one
MOST_ALIKE = 5              # columns, where there is one side only
MOST_RUNGS = 150            # messages of one ladder
MOST_MEDIA = 8              # beginnings of streams in one ladder
MOST_ERRORS = 20            # kinds of ICMP errors in one ladder
MOST_LABEL = 26             # characters on an arrow
PAUSE = 5.0                 # seconds between two rungs that are worth a word
STUB = 8.0                  # percent; of an arrow between hosts that share a column
MOST_HOPS = 6               # of one message that does not cross the gateway
USUAL = (SIP_PORT, SIP_PORT)    # ports that go without saying
SHOWN_MEDIA = frozenset({MediaKind.RTP, MediaKind.UDPTL})
NOT_SHOWN = "not-shown"     # natfix.replay.drive: natfix never saw the passage


class Column(NamedTuple):
    """A lifeline."""

    role: str               # "inside", "gateway", "outside", "host" (on which side is not known)
    names: tuple[str, ...]  # addresses; several share the last column of a side
    agent: str              # what it calls itself
    x: float                # percent


class Arrow(NamedTuple):
    """From one lifeline to another.

    ``look`` is the style: "seen" and "unseen" of a capture; "changed", "same", "aside" (natfix is not
    shown it) and "dropped" (it ends in a cross) of natfix; "icmp", "media".
    """

    start: float            # percent
    end: float
    look: str
    label: str = ""         # above the line
    note: str = ""          # below: ports
    level: int = 0          # below how many others of its rung it stands

    @property
    def middle(self) -> float:
        return (self.start + self.end) / 2


@dataclass(frozen=True, slots=True)
class Rung:
    """One line of the ladder."""

    kind: str                                   # "message", "icmp", "media", "pause"
    time: float
    packets: tuple[PacketId, ...] = ()
    label: str = ""
    captured: tuple[Arrow, ...] = ()
    repaired: tuple[Arrow, ...] = ()
    passage: Passage | None = None
    is_repeat: bool = False

    @property
    def levels(self) -> int:
        """How many arrows stand below each other."""
        return 1 + max((arrow.level for arrow in self.captured), default=0)


@dataclass(frozen=True, slots=True)
class Ladder:
    columns: tuple[Column, ...]
    rungs: tuple[Rung, ...]
    has_repairs: bool                           # natfix was shown some of it
    left_out: int                               # messages beyond the bound


def ladder_of(conversation: Conversation, network: NetworkView) -> Ladder:
    """Return the diagram of a call, with the beginnings of its media and the ICMP errors about it."""
    method = conversation.transactions[0].method if conversation.transactions else ""
    return _ladder(conversation.passages, network, conversation.streams, conversation.errors, method)


def ladder_of_records(passages: list[Passage], network: NetworkView) -> Ladder:
    """Return the diagram of packets of which only headers are known."""
    return _ladder(passages, network, (), (), "")


def _ladder(
    passages: list[Passage], network: NetworkView, streams: Iterable[Stream], errors: Iterable[IcmpError],
    method: str,
) -> Ladder:
    shown = passages[:MOST_RUNGS]
    media = [each for each in sorted(streams, key=lambda each: each.start) if each.kind in SHOWN_MEDIA]
    media = media[:MOST_MEDIA]
    hosts = Hosts(shown, network, media)
    rungs = [_message(passage, hosts, method) for passage in shown]
    end = shown[-1].time if len(shown) < len(passages) else float("inf")
    others = [*_media_rungs(media, hosts), *_icmp_rungs(errors, hosts)]
    rungs += (rung for rung in others if rung.time <= end)
    rungs.sort(key=lambda rung: rung.time)
    has_repairs = any(was_shown(rung.passage.repair) for rung in rungs if rung.passage is not None)
    return Ladder(hosts.columns, tuple(_with_pauses(rungs)), has_repairs, len(passages) - len(shown))


def was_shown(repair: Repair | None) -> bool:
    """Tell whether natfix saw the passage."""
    return repair is not None and not any(note.rule == NOT_SHOWN for note in repair.left_alone)


def _with_pauses(rungs: list[Rung]) -> Iterator[Rung]:
    yield from rungs[:1]
    for before, rung in pairwise(rungs):
        if before.time and rung.time - before.time >= PAUSE:
            yield Rung("pause", rung.time, label=f"{rung.time - before.time:,.1f} s later")
        yield rung


class Hosts:
    """The columns, and which host stands in which."""

    def __init__(self, passages: list[Passage], network: NetworkView, media: Iterable[Stream] = ()) -> None:
        self._network = network
        self._gateway = {network.outside} - {""}
        for passage in passages:
            self._gateway |= _translated(passage)
        agents: dict[str, str] = {}
        for passage in passages:
            copy = passage.first
            for each in passage.sightings:
                agents.setdefault(each.source.host, "")
                agents.setdefault(each.destination.host, "")
            if copy.message is not None and not agents[copy.source.host]:
                agents[copy.source.host] = copy.message.user_agent
        crosses = any(_crosses(passage) for passage in passages)
        for stream in media:
            self._add_side(agents, stream)
        self.columns = tuple(self._columns(agents, crosses))
        self._x = {name: column.x for column in self.columns for name in column.names}

    def _add_side(self, agents: dict[str, str], stream: Stream) -> None:
        """Give media a column where it comes from, or goes to, a side that no message does."""
        roles = {self._role(host) for host in agents}
        for host in (stream.source.host, stream.destination.host):
            if self._role(host) not in roles | {"gateway"}:
                agents[host] = ""

    def _columns(self, agents: dict[str, str], crosses: bool) -> Iterator[Column]:
        by_role: dict[str, list[str]] = {"inside": [], "host": [], "gateway": [], "outside": []}
        for host in agents:
            by_role[self._role(host)].append(host)
        if crosses:
            by_role["gateway"] = sorted(self._gateway)
        most = MOST_HOSTS if sum(map(bool, by_role.values())) > 1 else MOST_ALIKE
        groups = [group for role, hosts in by_role.items() for group in _groups(role, hosts, most)]
        if crosses and not by_role["gateway"]:
            groups.insert(sum(role != "outside" for role, _ in groups), ("gateway", ()))
        for place, (role, names) in enumerate(groups):
            agent = agents.get(names[0], "") if len(names) == 1 and role != "gateway" else ""
            yield Column(role, names, agent, round((place + 0.5) / len(groups) * 100, 2))

    def _role(self, host: str) -> str:
        if host in self._gateway:
            return "gateway"
        side = self._network.side_of(host)
        return "host" if side is Side.UNKNOWN else str(side)

    @property
    def gateway(self) -> float | None:
        """Where the gateway's column is, None without one."""
        return next((column.x for column in self.columns if column.role == "gateway"), None)

    def at(self, host: str) -> float | None:
        """Where a host's column is. A host that sends media only stands with others of its side."""
        if host in self._x:
            return self._x[host]
        if host in self._gateway:
            return self.gateway
        role = self._role(host)
        places = [column.x for column in self.columns if column.role == role]
        return places[0 if role == "inside" else -1] if places else None

    def only(self, role: str) -> float | None:
        """Where the only host of a role is, None where there are several or none."""
        places = [column.x for column in self.columns if column.role == role]
        return places[0] if len(places) == 1 else None


def _translated(passage: Passage) -> set[str]:
    """Return the address that an inside host has outside, where a passage shows it."""
    outer = passage.at(Side.OUTSIDE)
    if outer is None or not _crosses(passage):
        return set()
    return {outer.source.host if passage.direction is Direction.OUTWARD else outer.destination.host}


def _crosses(passage: Passage) -> bool:
    return passage.direction in (Direction.OUTWARD, Direction.INWARD)


def _groups(role: str, hosts: list[str], most: int) -> Iterator[tuple[str, tuple[str, ...]]]:
    if role == "gateway":
        if hosts:
            yield role, tuple(hosts)
        return
    room = most if len(hosts) <= most else most - 1
    for host in hosts[:room]:
        yield role, (host,)
    if hosts[room:]:
        yield role, tuple(hosts[room:])


# -- messages ------------------------------------------------------------------------------------------------


def _message(passage: Passage, hosts: Hosts, method: str) -> Rung:
    label = _label(passage.first, method)
    captured = [*_captured(passage, hosts, label)]
    return Rung("message", passage.time, passage.packets, label, tuple(captured),
                tuple(_repaired(passage, hosts, captured)), passage, passage.repeats is not None)


def _label(copy: Sighting, method: str) -> str:
    message = copy.message
    if message is None:
        return "unreadable" if copy.payload else f"{copy.transport.upper()}, {copy.facts.length} octets"
    text = message.method if message.is_request else f"{message.status} {message.reason}"
    if not message.is_request and message.cseq_method != method:
        text = f"{_cut(text, MOST_LABEL - 12)} ({message.cseq_method})"
    return _cut(text) + (" · SDP" if find_sdp(message) is not None else "")


def _cut(text: str, most: int = MOST_LABEL) -> str:
    return text if len(text) <= most else f"{text[:most - 1]}…"


def _captured(passage: Passage, hosts: Hosts, label: str) -> Iterator[Arrow]:
    """Yield what was captured of a passage, the sender's half first."""
    if not _crosses(passage) or hosts.gateway is None:
        yield from _direct(passage, hosts, label)
        return
    for side in _sides(passage):
        copies = [each for each in passage.sightings if each.side is side]
        # Where both halves were captured, the sender's has the label.
        is_labelled = bool(copies) and copies[0] is passage.first
        yield from _half(passage, side, hosts, "seen" if copies else "unseen", label if is_labelled else "",
                         _ports(copies))


def _direct(passage: Passage, hosts: Hosts, label: str) -> Iterator[Arrow]:
    """Yield the way of a passage that does not cross the gateway, hop by hop where proxies pass it on."""
    hops: dict[tuple[str, str], list[Sighting]] = {}
    for copy in passage.sightings:
        hops.setdefault((copy.source.host, copy.destination.host), []).append(copy)
    for level, (hop, copies) in enumerate([*hops.items()][:MOST_HOPS]):
        start, end = map(hosts.at, hop)
        if start is not None and start == end:
            end = start + STUB
        for arrow in _arrows(start, end, "seen", "" if level else label, _ports(copies)):
            yield arrow._replace(level=level)


def _sides(passage: Passage) -> tuple[Side, Side]:
    """The two sides, in path order."""
    if passage.direction is Direction.OUTWARD:
        return Side.INSIDE, Side.OUTSIDE
    return Side.OUTSIDE, Side.INSIDE


def _half(
    passage: Passage, side: Side, hosts: Hosts, look: str, label: str = "", note: str = "",
    inside: Endpoint | None = None,
) -> Iterator[Arrow]:
    """Yield the arrow between a passage's end on one side and the gateway."""
    is_outward = passage.direction is Direction.OUTWARD
    end = _end(passage, side, hosts, inside)
    if (side is Side.INSIDE) is is_outward:
        yield from _arrows(end, hosts.gateway, look, label, note)
    else:
        yield from _arrows(hosts.gateway, end, look, label, note)


def _end(passage: Passage, side: Side, hosts: Hosts, inside: Endpoint | None) -> float | None:
    is_source = (side is Side.INSIDE) is (passage.direction is Direction.OUTWARD)
    copy = passage.at(side)
    if side is Side.INSIDE and copy is None:
        return hosts.at(inside.host) if inside is not None else hosts.only("inside")
    copy = copy or (passage.first if is_source else passage.last)
    return hosts.at((copy.source if is_source else copy.destination).host)


def _arrows(start: float | None, end: float | None, look: str, label: str, note: str) -> Iterator[Arrow]:
    if start is not None and end is not None and start != end:
        yield Arrow(start, end, look, label, note)


def _ports(copies: list[Sighting]) -> str:
    """Return the ports of one half, and what became of them from stage to stage."""
    if not copies:
        return ""
    if {(copy.source.port, copy.destination.port) for copy in copies} == {USUAL}:
        return ""
    sources = dict.fromkeys(str(copy.source.port) for copy in copies)
    destinations = dict.fromkeys(str(copy.destination.port) for copy in copies)
    return f"{', then '.join(sources)} → {', then '.join(destinations)}"


# -- with natfix ------------------------------------------------------------------------------------------


def _repaired(passage: Passage, hosts: Hosts, captured: list[Arrow]) -> Iterator[Arrow]:
    repair = passage.repair
    if not was_shown(repair) or not _crosses(passage) or hosts.gateway is None:
        yield from (arrow._replace(look="aside", label="", note="") for arrow in captured)
        return
    assert repair is not None
    near, far = _sides(passage)
    # What comes in came to the port that the capture's own NAT had opened.
    copies = passage.sightings if passage.direction is Direction.OUTWARD else []
    yield from _half(passage, near, hosts, "dropped" if repair.dropped else "seen",
                     label="not let through" if repair.dropped else "",
                     note=_ports([each for each in copies if each.side is near]))
    if repair.dropped:
        return
    inside = repair.destination if passage.direction is Direction.INWARD else None
    yield from _half(passage, far, hosts, "changed" if repair.edits else "same", changed(repair.edits),
                     _translated_ports(repair), inside)


def changed(edits: Iterable[Note]) -> str:
    """Return the names of the headers that natfix changed, and how many there is no room for."""
    names = [*dict.fromkeys("SDP" if "=" in note.header else note.header or "message" for note in edits
                            if note.header != "Content-Length")]
    shown = names
    while len(shown) > 1 and len(", ".join(shown)) > MOST_LABEL:
        shown = shown[:-1]
    more = f" +{len(names) - len(shown)}" if len(shown) < len(names) else ""
    return _cut(", ".join(shown)) + more


def _translated_ports(repair: Repair) -> str:
    if repair.source is None or repair.destination is None:
        return ""
    if (repair.source.port, repair.destination.port) == USUAL:
        return ""
    return f"{repair.source.port} → {repair.destination.port}"


# -- media, ICMP -------------------------------------------------------------------------------------------


def _media_rungs(streams: Iterable[Stream], hosts: Hosts) -> Iterator[Rung]:
    for stream in streams:
        start, end = hosts.at(stream.source.host), hosts.at(stream.destination.host)
        if hosts.gateway is not None:
            # Seen inside it has not crossed the gateway yet, or has done so already.
            start, end = _on_side(stream.side, start, end, hosts.gateway)
        label = f"{stream.kind.upper()} begins"
        note = f"{stream.source.port} → {stream.destination.port}"
        yield Rung("media", stream.start, (stream.first_packet,), label,
                   tuple(_arrows(start, end, "media", label, note)))


def _on_side(
    side: Side, start: float | None, end: float | None, gateway: float,
) -> tuple[float | None, float | None]:
    def is_beyond(place: float | None) -> bool:
        return place is not None and (place > gateway if side is Side.INSIDE else place < gateway)

    return (gateway if is_beyond(start) else start), (gateway if is_beyond(end) else end)


def _icmp_rungs(errors: Iterable[IcmpError], hosts: Hosts) -> Iterator[Rung]:
    """Yield a rung per kind of error: a host complains of each packet of a stream."""
    alike: dict[tuple[object, ...], list[IcmpError]] = {}
    for error in errors:
        ends = (error.protocol, error.source, error.destination)
        key = (error.sender, error.code, *ends, error.side, error.stage)
        alike.setdefault(key, []).append(error)
    for group in [*alike.values()][:MOST_ERRORS]:
        error = group[0]
        times = f" ({len(group):,} times)" if len(group) > 1 else ""
        start, end = hosts.at(error.sender), hosts.at(error.source.host)
        if hosts.gateway is not None:
            start, end = _on_side(error.side, start, end, hosts.gateway)
        arrows = tuple(_arrows(start, end, "icmp", f"{_cut(f'ICMP {error.code}')}{times}", ""))
        yield Rung("icmp", error.time, error.packets, f"ICMP {error.code}{times} from {error.sender}, about "
                   f"{error.protocol} {error.source} → {error.destination}", arrows)
