"""Where the NAT is: which networks are inside, what the outside address is, where the capture was taken.

Nothing in a capture says so; it follows from what several packets say together. The rules, best first;
the first that finds anybody inside decides:

    translated   one packet seen twice, with one end changed: that end is inside, what it became is outside
    echoed       a private host is told ``received`` with an address that it does not have
    talks        a private host talks to a public one: somebody between them must translate
    hidden       requests come from elsewhere than the private address in their Via: seen behind the NAT
    internal     private hosts among themselves: everything is inside, no NAT is crossed

What the operator says (--inside, --outside, natfix.toml) stands above all of them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from natfix.errors import MalformedMessage
from natfix.replay.model import Direction, NetworkView, PacketId, Side, Sighting, Vantage
from natfix.replay.stages import Meeting, Point, point_of
from natfix.sip.fields import address_at, split_values
from natfix.sip.message import Message

MOST = 20_000                   # entries of each table of evidence
MOST_PREFIXES = 64
HEARD = 50                      # requests of one host whose Contacts are looked at
SHOWN_HOSTS = 3                 # hosts that a sentence names before it counts
# RFC 1918, RFC 6598 (carrier-grade NAT), RFC 4193 and the site-local addresses before it, RFC 3927, RFC 4291.
# Documentation prefixes count as public: masked traces have them in the public's place.
PRIVATE = tuple(map(ip_network, (
    "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7", "fec0::/10",
    "169.254.0.0/16", "fe80::/10",
)))
NOWHERE = tuple(map(ip_network, (
    "0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3", "::1/128", "::/128", "ff00::/8")))
PREFIX_LENGTHS = {4: (24, 26, 28, 30, 32), 6: (64, 96, 128)}

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


@lru_cache(maxsize=4096)
def address_of(host: str) -> Address | None:
    """Return the address that *host* spells; None for names and masked addresses."""
    try:
        return ip_address(host.strip("[]"))
    except ValueError:
        return None


@lru_cache(maxsize=4096)
def is_private(host: str) -> bool:
    """Tell whether *host* is an address that only means something behind a NAT."""
    address = address_of(host)
    return address is not None and any(address in network for network in PRIVATE)


@lru_cache(maxsize=4096)
def is_public(host: str) -> bool:
    """Tell whether *host* is an address that everybody can reach."""
    address = address_of(host)
    return address is not None and not any(address in network for network in (*PRIVATE, *NOWHERE))


class Given(NamedTuple):
    """What the operator says, on the command line or in natfix.toml."""

    inside: tuple[str, ...] = ()
    outside: str = ""
    by: str = "as given"


NOTHING = Given()


class Shown(NamedTuple):
    """An inside host, and the address that it has outside."""

    inside: str
    outside: str


@dataclass(slots=True)
class Evidence:
    """What pass 1 keeps of all sightings: who talks to whom, and who is told or says which address."""

    pairs: dict[tuple[Point, str, str], PacketId] = field(default_factory=dict)
    echoes: Tally = field(default_factory=lambda: Tally())      # told host, ``received``
    hidden: Tally = field(default_factory=lambda: Tally())      # Via's host, IP source
    claims: Tally = field(default_factory=lambda: Tally())      # IP source, Contact's host
    heard: Counter[str] = field(default_factory=Counter)        # requests by source

    def note(self, sighting: Sighting) -> None:
        """Take one sighting."""
        source, destination = sighting.source.host, sighting.destination.host
        pair = (point_of(sighting), source, destination)
        if pair not in self.pairs and len(self.pairs) < MOST:
            self.pairs[pair] = sighting.packet
        message = sighting.message
        if message is None:
            return
        try:
            via = message.via
        except MalformedMessage:
            return
        sent_by = via.sent_by.host
        if not message.is_request:
            span = via.params.get("received")
            if span is not None:
                received = message.raw[span[0]:span[1]].decode("latin-1")
                self._note_received(sighting, sent_by, received)
        elif sent_by != source:
            self.hidden.note(sent_by, source, sighting.packet)
        if message.is_request and is_private(source) and self._is_heard(source):
            for host in contact_hosts(message):
                if is_public(host) and host != destination:
                    self.claims.note(source, host, sighting.packet)

    def _is_heard(self, source: str) -> bool:
        """Tell whether a host's Contacts are still looked at: the first few say what they all say."""
        if source not in self.heard and len(self.heard) >= MOST:
            return False
        self.heard[source] += 1
        return self.heard[source] <= HEARD

    def _note_received(self, sighting: Sighting, sent_by: str, received: str) -> None:
        told = sighting.destination.host
        if received not in (told, sighting.source.host):
            self.echoes.note(told, received, sighting.packet)
        elif received == told and sent_by != told:
            self.hidden.note(sent_by, told, sighting.packet)

    def hosts(self) -> dict[str, PacketId]:
        """Return every host that sent or received SIP, with the first packet that shows it."""
        found: dict[str, PacketId] = {}
        for (_, source, destination), packet in self.pairs.items():
            found.setdefault(source, packet)
            found.setdefault(destination, packet)
        return found


class Tally:
    """How often an inside host and an outside address were named together, and where first."""

    def __init__(self) -> None:
        self.counts: Counter[Shown] = Counter()
        self.first: dict[Shown, PacketId] = {}

    def note(self, inside: str, outside: str, packet: PacketId) -> None:
        """Count one packet."""
        shown = Shown(inside, outside)
        if shown in self.first or len(self.first) < MOST:
            self.first.setdefault(shown, packet)
            self.counts[shown] += 1

    def best(self) -> tuple[Shown, PacketId] | None:
        """Return the pair that most packets name; of equals the first."""
        if not self.counts:
            return None
        shown = max(self.counts, key=lambda each: self.counts[each])    # insertion order breaks ties
        return shown, self.first[shown]


def contact_hosts(message: Message) -> Iterator[str]:
    """Yield the hosts of a message's Contacts."""
    header = message.first("contact")
    if header is None:
        return
    try:
        for start, end in split_values(message.raw, header.start, header.end):
            uri = address_at(message.raw, start, end).uri
            if uri is not None:
                yield uri.hostport.host
    except MalformedMessage:
        return


def inside_names(view: NetworkView) -> list[str]:
    """Return the inside as it is shown: prefixes, and inside hosts whose address was masked."""
    return [*view.inside, *(host for host, side in view.sides.items()
                            if side is Side.INSIDE and address_of(host) is None)]


def infer(evidence: Evidence, meetings: Iterable[Meeting], given: Given = NOTHING) -> NetworkView:
    """Return the view of the network that the evidence supports, with a sentence for each conclusion."""
    translations = _translations(meetings)
    view = NetworkView()
    finding = _given_inside(given) or next(filter(None, (
        rule(evidence, translations) for rule in RULES)), None)
    if finding is not None:
        view.guesses += finding.reasons
        view.inside = _prefixes(finding.inside, finding.outsiders)
        view.sides = {host: Side.INSIDE for host in finding.inside if address_of(host) is None}
        view.outside = finding.outside
    else:
        view.guesses.append("no packet shows a host behind a NAT")
    if given.inside:
        view.inside = given.inside
    _add_prefix_sentence(view, given)
    _find_outside(view, evidence, translations, given)
    _place_masked(view, evidence)
    view.vantage = _vantage(view, evidence)
    return view


class Finding(NamedTuple):
    """What one rule concludes."""

    inside: list[str]
    outside: str
    outsiders: set[str]         # hosts that no inside prefix may hold
    reasons: list[str]


Rule = Callable[[Evidence, Tally], Finding | None]


def _given_inside(given: Given) -> Finding | None:
    return Finding([], "", set(), []) if given.inside else None


def _translations(meetings: Iterable[Meeting]) -> Tally:
    """Count which host became which, where one packet was seen on both sides."""
    tally = Tally()
    for meeting in meetings:
        source, destination, other_source, other_destination = meeting.hosts
        if destination == other_destination and source != other_source:
            tally.note(*_inside_first(source, other_source, meeting.apart), meeting.packets[0])
        elif source == other_source and destination != other_destination:
            tally.note(*_inside_first(destination, other_destination, -meeting.apart), meeting.packets[0])
    return tally


def _inside_first(one: str, other: str, apart: float) -> tuple[str, str]:
    """Order two addresses of one host: the private one is inside; else the one that a request had first."""
    if is_private(one) != is_private(other):
        return (one, other) if is_private(one) else (other, one)
    return (one, other) if apart >= 0 else (other, one)


def _translated(evidence: Evidence, translations: Tally) -> Finding | None:
    best = translations.best()
    if best is None:
        return None
    shown, packet = best
    inside = [each.inside for each in translations.counts if each.outside == shown.outside]
    peers = {host for _, *ends in evidence.pairs if shown.outside in ends for host in ends}
    reason = (f"{shown.inside} became {shown.outside}: the same packet was seen on both sides "
              f"(packet {packet})")
    return Finding(inside, shown.outside, peers - set(inside), [reason])


def _echoed(evidence: Evidence, translations: Tally) -> Finding | None:
    private = Tally()
    for shown, count in evidence.echoes.counts.items():
        if is_private(shown.inside):
            private.counts[shown], private.first[shown] = count, evidence.echoes.first[shown]
    best = private.best()
    if best is None:
        return None
    shown, packet = best
    inside = [each.inside for each in private.counts]
    outsiders = {each.outside for each in private.counts}
    outsiders |= {source for _, source, destination in evidence.pairs
                  if destination in inside and is_public(source)}
    talkers = _private_talkers(evidence)
    reason = f"{shown.inside} was told received={shown.outside} (packet {packet})"
    return Finding([*dict.fromkeys([*inside, *talkers])], shown.outside, outsiders, [reason])


def _private_talkers(evidence: Evidence) -> dict[str, tuple[str, PacketId]]:
    """Return the private hosts that talk to public ones, each with one of those and a packet."""
    found: dict[str, tuple[str, PacketId]] = {}
    for (_, source, destination), packet in evidence.pairs.items():
        for host, peer in ((source, destination), (destination, source)):
            if is_private(host) and is_public(peer):
                found.setdefault(host, (peer, packet))
    return found


def _talks(evidence: Evidence, translations: Tally) -> Finding | None:
    talkers = _private_talkers(evidence)
    if not talkers:
        return None
    host, (peer, packet) = next(iter(talkers.items()))
    also = [each for each in evidence.hosts() if is_private(each) and each not in talkers]
    reason = f"{host} is a private address and talks to {peer}, which is public (packet {packet})"
    return Finding([*talkers, *also], "", {peer for peer, _ in talkers.values()}, [reason])


def _hidden(evidence: Evidence, translations: Tally) -> Finding | None:
    hosts = evidence.hosts()
    hidden = Tally()
    for shown, count in evidence.hidden.counts.items():
        is_elsewhere = is_public(shown.outside) or not _same_site(shown.inside, shown.outside)
        if is_private(shown.inside) and shown.inside not in hosts and is_elsewhere:
            hidden.counts[shown], hidden.first[shown] = count, evidence.hidden.first[shown]
    best = hidden.best()
    if best is None:
        return None
    shown, packet = best
    inside = [each.inside for each in hidden.counts if each.outside == shown.outside]
    reasons = [f"{shown.inside} in Via came from {shown.outside}: it is behind a NAT, and the capture was "
               f"taken in front of that (packet {packet})"]
    others = {each.outside for each in hidden.counts} - {shown.outside}
    if others:
        reasons.append(f"{_several(sorted(others))} may be NATs of other sites; --inside and --outside say "
                       "which one it is about")
    return Finding(inside, shown.outside, set(hosts), reasons)


def _internal(evidence: Evidence, translations: Tally) -> Finding | None:
    private = {host: packet for host, packet in evidence.hosts().items() if is_private(host)}
    if not private:
        return None
    return Finding([*private], "", set(), ["only private addresses talk to each other: no NAT is crossed"])


RULES: tuple[Rule, ...] = (_translated, _echoed, _talks, _hidden, _internal)


def _same_site(host: str, other: str) -> bool:
    """Tell whether two addresses can well be of one host with two interfaces: the first 16 bits agree."""
    one, two = address_of(host), address_of(other)
    if one is None or two is None or one.version != two.version:
        return False
    bits = 16 if one.version == 4 else 48
    return two in ip_network(f"{one}/{bits}", strict=False)


def _prefixes(inside: Iterable[str], outsiders: set[str]) -> tuple[str, ...]:
    """Return a network for each inside host: as large as site networks are, without any outside host."""
    others = [address for host in outsiders if (address := address_of(host)) is not None]
    found: dict[str, None] = {}
    for host in inside:
        address = address_of(host)
        if address is None or any(address in ip_network(prefix) for prefix in found):
            continue
        networks = (ip_network(f"{address}/{length}", strict=False)
                    for length in PREFIX_LENGTHS[address.version])
        network = next((each for each in networks if not any(other in each for other in others)), None)
        if network is not None and len(found) < MOST_PREFIXES:
            found[str(network)] = None
    return tuple(found)


def _add_prefix_sentence(view: NetworkView, given: Given) -> None:
    if given.inside:
        view.guesses.append(f"inside is {_several(given.inside)}, {given.by}")
    elif view.inside:
        view.guesses.append(f"inside is taken to be {_several(view.inside)}; a capture does not say how "
                            "large the networks are")


def _find_outside(view: NetworkView, evidence: Evidence, translations: Tally, given: Given) -> None:
    """Find the outside address, where the rule that found the inside did not see it."""
    if given.outside:
        view.outside = given.outside
        view.guesses.append(f"the outside address is {given.outside}, {given.by}")
        return
    sources = (
        (translations, "became"), (evidence.echoes, "was told received="),
        (evidence.hidden, "in Via came from"), (evidence.claims, "names itself"))
    for tally, what in sources:
        if view.outside:
            return
        counted = Tally()
        counted.counts = Counter({
            shown: count for shown, count in tally.counts.items()
            if view.side_of(shown.inside) is Side.INSIDE and view.side_of(shown.outside) is Side.OUTSIDE})
        counted.first = tally.first
        best = counted.best()
        if best is not None:
            shown, packet = best
            space = "" if what.endswith("=") else " "
            view.outside = shown.outside
            view.guesses.append(f"{shown.inside} {what}{space}{shown.outside} (packet {packet}): that is the "
                                "outside address")
    peers = (host for host in evidence.hosts() if view.side_of(host) is Side.OUTSIDE)
    if view.inside and not view.outside and any(peers):
        view.guesses.append("no packet shows the outside address; --outside says it")


def _place_masked(view: NetworkView, evidence: Evidence) -> None:
    """Whoever talks to a masked inside host, or to the outside address, is outside."""
    if view.outside and address_of(view.outside) is None:
        view.sides[view.outside] = Side.OUTSIDE
    masked = {host for host in evidence.hosts() if address_of(host) is None and host not in view.sides}
    inside = {host for host, side in view.sides.items() if side is Side.INSIDE}
    for _, source, destination in evidence.pairs:
        for host, peer in ((source, destination), (destination, source)):
            if host in masked and (peer in inside or peer == view.outside):
                view.sides[host] = Side.OUTSIDE


def _vantage(view: NetworkView, evidence: Evidence) -> Vantage:
    """Tell where copies were taken from the addresses that each point shows."""
    seen: dict[Side, set[Point]] = defaultdict(set)
    for point, source, destination in evidence.pairs:
        side = side_of_copy(view, source, destination)
        is_ours = side is Side.INSIDE or view.outside in (source, destination) or not view.inside
        if is_ours:
            seen[side].add(point)
    inside, outside = seen[Side.INSIDE], seen[Side.OUTSIDE]
    if inside and outside:
        # Linux's pseudo interface "any" says of each packet whether it came or left.
        is_any = inside & outside or all(outgoing is not None for *_, outgoing in inside | outside)
        return Vantage.ANY if is_any else Vantage.BOTH
    if inside:
        return Vantage.INSIDE
    if outside:
        return Vantage.OUTSIDE
    return Vantage.UNKNOWN


def side_of_copy(view: NetworkView, source: str, destination: str) -> Side:
    """Tell on which side of the NAT a copy with these addresses was seen: before or behind translation."""
    sides = view.side_of(source), view.side_of(destination)
    if Side.INSIDE in sides:
        return Side.INSIDE
    if view.outside in (source, destination) or sides == (Side.OUTSIDE, Side.OUTSIDE):
        return Side.OUTSIDE
    return Side.UNKNOWN


_DIRECTIONS = {
    (True, False): Direction.OUTWARD, (False, True): Direction.INWARD,
    (True, True): Direction.INTERNAL, (False, False): Direction.EXTERNAL,
}


def direction_of(view: NetworkView, sender: str, receiver: str) -> Direction:
    """Tell how a packet goes, by the hosts that sent and received it; the outside address is the inside's."""
    if Side.UNKNOWN in (view.side_of(sender), view.side_of(receiver)):
        return Direction.UNKNOWN
    return _DIRECTIONS[_is_ours(view, sender), _is_ours(view, receiver)]


def _is_ours(view: NetworkView, host: str) -> bool:
    return view.side_of(host) is Side.INSIDE or (bool(host) and host == view.outside)


def _several(items: Iterable[str]) -> str:
    """Name a few, and count the others."""
    names = [*items]
    if len(names) <= SHOWN_HOSTS + 1:
        return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    return f"{', '.join(names[:SHOWN_HOSTS])} and {len(names) - SHOWN_HOSTS} others"
