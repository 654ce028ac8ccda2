"""What several rules read in messages and passages. Nothing here raises on what anybody may have sent."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from natfix.address import SIP_PORT, Endpoint
from natfix.errors import MalformedMessage
from natfix.replay.model import PacketId, Passage, Side, Sighting, Transaction
from natfix.sdp import Session, find_sdp, session_from_span
from natfix.sip.fields import Address, HostPort, Uri, Via, address_at, split_values, uri_at, via_at
from natfix.sip.message import Message

FW_STAGES = "iIoO"          # Check Point's fw monitor: before and after the firewall, inbound and outbound


@lru_cache(maxsize=256)
def sdp_of(message: Message) -> Session | None:
    """Return a message's session description, None where it has none that can be read."""
    try:
        span = find_sdp(message)
        return session_from_span(message.raw, *span) if span is not None else None
    except MalformedMessage:
        return None


def top_via(message: Message | None) -> Via | None:
    """Return the topmost Via, None where it cannot be read."""
    try:
        return message.via if message is not None else None
    except MalformedMessage:
        return None


def vias(message: Message) -> Iterator[Via]:
    """Yield every readable Via from the top."""
    for header in message.all("via"):
        try:
            for start, end in split_values(message.raw, header.start, header.end):
                yield via_at(message.raw, start, end)
        except MalformedMessage:
            continue


def addresses(message: Message, name: str) -> Iterator[Address]:
    """Yield every readable address of the headers called *name*."""
    for header in message.all(name):
        try:
            for start, end in split_values(message.raw, header.start, header.end):
                yield address_at(message.raw, start, end)
        except MalformedMessage:
            continue


@lru_cache(maxsize=256)
def contact_uris(message: Message | None) -> tuple[Uri, ...]:
    """Return the SIP URIs of all Contacts."""
    if message is None:
        return ()
    return tuple(address.uri for address in addresses(message, "contact") if address.uri is not None)


def request_uri(message: Message) -> Uri | None:
    """Return a request's target, None where it is no SIP URI."""
    try:
        return uri_at(message.raw, *message.request_uri) if message.is_request else None
    except MalformedMessage:
        return None


def place(hostport: HostPort) -> Endpoint:
    """Return host and port as they count: names in lower case, the port that is left out put in."""
    return Endpoint(hostport.host.lower().strip("[]"), hostport.port or SIP_PORT)


def text_of(message: Message, span: tuple[int, int]) -> str:
    """Return what stands in a span."""
    return message.raw[span[0]:span[1]].decode("latin-1").strip()


def parameter(message: Message, via: Via, name: str) -> str:
    """Return a Via parameter's value, "" where it has none."""
    return text_of(message, via.params[name]) if name in via.params else ""


@lru_cache(maxsize=16)
def _line(name: str) -> re.Pattern[bytes]:
    return re.compile(
        rb"(?im)^" + re.escape(name.encode()) + rb"[ \t]*+:[ \t]*+([^\r\n]*+(?:\r?\n[ \t][^\r\n]*+)*)")


def header_values(message: Message, name: str) -> list[str]:
    """Return the values of headers that natfix itself has no use for, such as WWW-Authenticate."""
    block = message.raw[:message.body[0]]
    return [found[1].decode("latin-1") for found in _line(name).finditer(block)]


def first_requests(transaction: Transaction) -> Iterator[Passage]:
    """Yield a transaction's requests that are neither retransmissions nor ACK or CANCEL."""
    for passage in transaction.requests:
        message = passage.message
        if passage.repeats is None and message is not None and message.cseq_method == transaction.method:
            yield passage


def status_line(message: Message) -> str:
    """Return what a message is, in one or two words: "INVITE", "200 to REGISTER"."""
    if message.is_request:
        return _start(message)
    return f"{message.status} to {message.cseq_method}"


def _start(message: Message) -> str:
    return message.raw.lstrip(b"\r\n").split(None, 1)[0].decode("latin-1")[:32]


def inside(passage: Passage) -> Sighting | None:
    """Return the copy that was taken inside."""
    return passage.at(Side.INSIDE)


def outside(passage: Passage) -> Sighting | None:
    """Return the copy that was taken outside."""
    return passage.at(Side.OUTSIDE)


# -- the way through a box


class Step(NamedTuple):
    """What happened to a packet between two points where it was seen."""

    before: Sighting
    after: Sighting

    @property
    def packets(self) -> tuple[PacketId, ...]:
        return self.before.packets + self.after.packets

    @property
    def source_changed(self) -> bool:
        return self.before.source != self.after.source

    @property
    def destination_changed(self) -> bool:
        return self.before.destination != self.after.destination

    @property
    def grown(self) -> int:
        """Return by how many octets the packet became longer, 0 where its length is not known."""
        before, after = length(self.before), length(self.after)
        return after - before if before and after else 0

    @property
    def is_before_routing(self) -> bool:
        """Tell whether it happened between fw monitor's i and I: before routing, and before hide NAT."""
        return (self.before.stage, self.after.stage) == ("i", "I")

    @property
    def where(self) -> str:
        return f"between {point(self.before)} and {point(self.after)}"


def steps(passage: Passage) -> Iterator[Step]:
    """Yield a passage's steps in path order."""
    return (Step(*pair) for pair in pairwise(passage.sightings))


def length(sighting: Sighting) -> int:
    """Return the length by which two copies can be compared: the payload's, else IP's."""
    return len(sighting.payload) or sighting.facts.length


def point(sighting: Sighting) -> str:
    """Return where a copy was taken, as people write it: "eth1:i", "inside", "packet 12"."""
    if sighting.stage and sighting.stage in FW_STAGES:
        return f"{sighting.interface}:{sighting.stage}" if sighting.interface else sighting.stage
    name = sighting.stage or sighting.interface
    side = "" if sighting.side is Side.UNKNOWN or str(sighting.side) in name else f"the {sighting.side}"
    named = f"({name})" if side and name else name
    return " ".join(filter(None, (side, named))) or f"packet {sighting.packet}"


def numbers(packets: Iterable[PacketId], most: int = 8) -> str:
    """Return packet numbers for a sentence: "packet 3", "packets 3, 4"."""
    shown = list(dict.fromkeys(map(str, packets)))
    rest = f" and {len(shown) - most} more" if len(shown) > most else ""
    return f"packet{'s' if len(shown) > 1 else ''} {', '.join(shown[:most])}{rest}"


def unique(packets: Iterable[PacketId], most: int = 40) -> tuple[PacketId, ...]:
    """Return packets in order, each once, at most *most* of them."""
    return tuple(dict.fromkeys(packets))[:most]
