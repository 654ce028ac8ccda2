"""Conversations: passages by Call-ID, their transactions, their media; and stations over all of them.

A transaction is named by method and branch (RFC 3261, 17.1.3 and 17.2.3), before that RFC by CSeq and
tags. The ACK to a failure belongs to its INVITE; CANCEL is a transaction of its own.

Only so many passages are held. When there are more, conversations are retired, first those that are over,
then those that have been idle longest: whoever collects them judges them, writes their rows, and forgets
them. What comes later with the same Call-ID is known to be a remainder, which says nothing by itself.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from natfix.address import Endpoint
from natfix.errors import MalformedMessage
from natfix.replay.model import (
    Context,
    Conversation,
    Direction,
    IcmpError,
    Passage,
    Registered,
    Side,
    Sighting,
    Station,
    Stream,
    Transaction,
)
from natfix.replay.symptoms.reading import sdp_of
from natfix.sdp import Session
from natfix.sip.fields import Address, address_at, split_values
from natfix.sip.message import Message

_STALE = re.compile(rb"(?i)\bstale\s*+=\s*+\"?true")

MOST_OCTETS = 32 << 20          # of held passages; with their objects some 80 MB
PASSAGE_COST = 3000             # octets of objects for each, beside its payloads
MOST_STATIONS = 4096
MOST_REGISTERED = 500           # REGISTERs that a station remembers
MOST_PEERS = 64                 # ... and peers
MOST_ENDPOINTS = 64             # media endpoints of one conversation
MOST_GONE = 200_000             # retired Call-IDs that are remembered
KEEPS_DIALOG = frozenset({"INVITE", "SUBSCRIBE", "NOTIFY", "UPDATE", "PRACK", "INFO", "REFER", "MESSAGE"})
NEAR = (Direction.OUTWARD, Direction.INWARD, Direction.INTERNAL)       # at least one end is inside
MOST_PER_CALL = 20_000          # passages of one Call-ID; a flood must not grow without bound


@dataclass(slots=True, eq=False)
class Held:
    """A conversation that is being collected."""

    conversation: Conversation
    cost: int = 0
    left_out: int = 0               # passages beyond the bound
    by_key: dict[tuple[object, ...], Transaction] = field(default_factory=dict)
    last: Transaction | None = None
    firsts: dict[tuple[object, ...], Passage] = field(default_factory=dict)     # first transmissions
    is_remainder: bool = False      # its beginning was retired


class Conversations:
    """Collects passages; gives back what is to be judged and forgotten."""

    def __init__(self, most_octets: int = MOST_OCTETS) -> None:
        self._held: OrderedDict[str, Held] = OrderedDict()      # idle longest first
        self._over: OrderedDict[str, None] = OrderedDict()      # those of them that are over, likewise
        self._gone: set[int] = set()                            # hashes of retired Call-IDs
        self._octets = 0
        self._most_octets = most_octets

    def add(self, passage: Passage) -> Held | None:
        """Take a passage; None where it is no readable SIP, or is one too many of its conversation."""
        message = passage.message
        if message is None:
            return None
        call_id = message.call_id
        held = self._held.get(call_id)
        if held is None:
            held = self._held[call_id] = Held(
                Conversation(call_id), is_remainder=hash(call_id) in self._gone)
        self._held.move_to_end(call_id)
        self._note_over(held, message)
        passages = held.conversation.passages
        if len(passages) >= MOST_PER_CALL:
            held.left_out += 1
            return None
        passages.append(passage)
        cost = 0
        for each in passage.sightings:
            cost += PASSAGE_COST + len(each.payload) + len(each.ip)
        held.cost += cost
        self._octets += cost
        _enter(held, passage, message)
        return held

    def retired(self) -> Iterator[Held]:
        """Yield what has to go, as too much is held."""
        while self._octets > self._most_octets and len(self._held) > 1:
            call_id = next(iter(self._over or self._held))
            if len(self._gone) < MOST_GONE:
                self._gone.add(hash(call_id))
            yield self._take(call_id)

    def _note_over(self, held: Held, message: Message) -> None:
        """A dialog is over when its BYE is answered, all else when it is answered or has failed."""
        is_over = message.status >= (200 if message.cseq_method not in KEEPS_DIALOG else 300)
        self._over.pop(message.call_id, None)
        if is_over or (message.is_request and message.method == "ACK" and _was_refused(held, message)):
            self._over[message.call_id] = None

    def _take(self, call_id: str) -> Held:
        held = self._held.pop(call_id)
        self._over.pop(call_id, None)
        self._octets -= held.cost
        return held

    def rest(self) -> Iterator[Held]:
        """Yield and forget all others, in the order of their first packets."""
        order = sorted(self._held.values(), key=lambda held: _beginning(held.conversation))
        for held in order:
            yield self._take(held.conversation.call_id)


def _was_refused(held: Held, message: Message) -> bool:
    invite = held.by_key.get(("INVITE", message.branch))
    return invite is not None and invite.final is not None


def _beginning(conversation: Conversation) -> tuple[float, str]:
    return conversation.passages[0].time, conversation.call_id


# -- transactions ------------------------------------------------------------------------------------------


def _enter(held: Held, passage: Passage, message: Message) -> None:
    """Put a passage into its transaction, and tell a retransmission."""
    transaction = _transaction(held, message)
    (transaction.requests if message.is_request else transaction.responses).append(passage)
    key = (hash(passage.first.payload), message.status, message.method, passage.first.source,
           passage.first.destination)
    first = held.firsts.get(key)
    if first is None:
        held.firsts[key] = passage
    else:
        passage.repeats = first


def _transaction(held: Held, message: Message) -> Transaction:
    key = _key(held, message)
    transaction = held.by_key.get(key)
    if transaction is None:
        transaction = Transaction(message.cseq_method, message.branch, message.cseq, [], [])
        held.by_key[key] = transaction
        held.conversation.transactions.append(transaction)
    return transaction


def _key(held: Held, message: Message) -> tuple[object, ...]:
    """Return a transaction's name; the ACK to a failure has its INVITE's branch (RFC 3261, 17.1.1.3)."""
    method, branch = message.cseq_method, message.branch
    if not branch.startswith("z9hG4bK"):
        branch = f"{message.from_tag} {message.cseq}"
    if method == "ACK" and ("INVITE", branch) in held.by_key:
        method = "INVITE"
    return method, branch


# -- media ---------------------------------------------------------------------------------------------------


def media_endpoints(conversation: Conversation) -> set[Endpoint]:
    """Return the media endpoints of every copy: what was sent, and what NATs and fixers made of it.

    natfix's own are not looked for: in the capture nobody was told them.
    """
    found: set[Endpoint] = set()
    for passage in conversation.passages:
        if passage.repeats is not None:
            continue
        if len(found) >= MOST_ENDPOINTS:
            break
        for sighting in passage.sightings:
            message = sighting.message
            session = sdp_of(message) if message is not None and message.body[0] < message.body[1] else None
            if session is not None:
                found.update(_endpoints(session, sighting))
    return found


def _endpoints(session: Session, sighting: Sighting) -> Iterator[Endpoint]:
    for media in session.media:
        if media.port == 0 or media.effective is None:
            continue
        # A far end's media comes from where its signalling comes from, whatever its SDP says.
        for host in {media.effective.host, sighting.source.host}:
            yield Endpoint(host, media.port)
            if media.kind != "image":
                yield Endpoint(host, media.rtcp_port or media.port + 1)
        for candidate in media.candidates:
            yield Endpoint(candidate.address, candidate.port)


class MediaIndex:
    """Streams and ICMP errors by endpoint, to be attached to the conversations that named them."""

    def __init__(self, streams: Iterable[Stream], errors: Iterable[IcmpError]) -> None:
        self._streams: dict[Endpoint, list[Stream]] = {}
        self._errors: dict[Endpoint, list[IcmpError]] = {}
        for stream in streams:
            for end in {stream.source, stream.destination}:
                self._streams.setdefault(end, []).append(stream)
        for error in errors:
            for end in {error.source, error.destination}:
                self._errors.setdefault(end, []).append(error)

    def attach(self, held: Held) -> None:
        """Give a conversation the streams at its media endpoints, in its time, and the errors about it."""
        if not self._streams and not self._errors:
            return
        conversation = held.conversation
        start, end = conversation.passages[0].time, conversation.passages[-1].time
        media = media_endpoints(conversation)
        ends = media & self._streams.keys()
        latest = end + (CLOSING if _has_ended(conversation) else AFTERWARDS)
        streams = {id(each): each for endpoint in ends for each in self._streams[endpoint]
                   if each.end >= start and each.start <= latest}
        conversation.streams = sorted(
            streams.values(), key=lambda each: (each.start, each.first_packet, each.source, each.destination))
        flows = {(copy.source, copy.destination) for passage in conversation.passages
                 for copy in passage.sightings}
        wanted = media | {source for source, _ in flows}
        errors = {id(each): each for endpoint in wanted & self._errors.keys()
                  for each in self._errors[endpoint] if self._concerns(each, media, flows, start, end)}
        conversation.errors = sorted(errors.values(), key=lambda each: (each.time, each.packets))

    @staticmethod
    def _concerns(error: IcmpError, media: set[Endpoint], flows: set[tuple[Endpoint, Endpoint]],
                  start: float, end: float) -> bool:
        is_media = error.source in media or error.destination in media
        return (is_media or (error.source, error.destination) in flows) \
            and start - 1.0 <= error.time <= end + AFTERWARDS


AFTERWARDS = 300.0      # seconds behind a call's last captured message in which its media may begin
CLOSING = 1.0           # ... where that message ended it: phones use their ports again for the next call


def _has_ended(conversation: Conversation) -> bool:
    """Tell whether a call was hung up, or never came to be."""
    if any(conversation.of("BYE")):
        return True
    finals = [invite.final.message for invite in conversation.of("INVITE") if invite.final is not None]
    return bool(finals) and all(message is not None and message.status >= 300 for message in finals)


# -- stations ------------------------------------------------------------------------------------------------


class Stations:
    """What is known of UAs' signalling endpoints over all conversations, into the context's table."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.left_out = 0

    def note(self, passage: Passage) -> None:
        """Take one passage: who sent, who heard."""
        if passage.direction not in NEAR:
            return
        first, last = passage.first, passage.last
        if self._is_ours(first.source):
            self._note_end(first, first.source, first.destination, True)
        if self._is_ours(last.destination):
            self._note_end(last, last.destination, last.source, False)

    def _note_end(self, sighting: Sighting, endpoint: Endpoint, peer: Endpoint, sent: bool) -> None:
        station = self._station(endpoint)
        if station is None:
            return
        table = station.sent_last if sent else station.heard_last
        if peer in table or len(table) < MOST_PEERS:
            table[peer] = (sighting.time, sighting.packet)
        if sent and sighting.message is not None and not station.user_agent:
            station.user_agent = sighting.message.user_agent

    def _station(self, endpoint: Endpoint) -> Station | None:
        station = self._context.stations.get(endpoint)
        if station is None:
            if len(self._context.stations) >= MOST_STATIONS:
                self.left_out += 1
                return None
            side = self._context.network.side_of(endpoint.host)
            station = self._context.stations[endpoint] = Station(endpoint, side)
        return station

    def _is_ours(self, endpoint: Endpoint) -> bool:
        """Tell an inside UA, or what is seen of one where only the outside was captured."""
        network = self._context.network
        return network.side_of(endpoint.host) is Side.INSIDE or endpoint.host == network.outside

    def note_registrations(self, conversation: Conversation) -> None:
        """Sum up the REGISTER transactions of a conversation that is complete."""
        for transaction in conversation.of("REGISTER"):
            if not transaction.requests:
                continue
            row = registered(transaction)
            station = self._station(row.source) if self._is_ours(row.source) else None
            if station is not None:
                station.registrations.append(row)
                station.registrations.sort(key=lambda each: each.time)
                del station.registrations[:-MOST_REGISTERED]


def registered(transaction: Transaction) -> Registered:
    """Return the row of a REGISTER transaction of which a request was seen."""
    passage, final = transaction.requests[0], transaction.final
    request, response = passage.message, final.message if final is not None else None
    assert request is not None
    outer = passage.at(Side.OUTSIDE)
    received, rport = _seen_by_peer(response)
    packets = passage.first.packets + (final.last.packets if final is not None else ())
    return Registered(
        passage.time, packets, _aor(request), passage.first.source, tuple(_uris(request)),
        tuple(_uris(response)) if response is not None and response.status < 300 else (),
        response.status if response is not None else 0, _granted(response), received, rport,
        outer.source if outer is not None else None, request.call_id,
        request.first("authorization") is not None or request.first("proxy-authorization") is not None,
        response is not None and _STALE.search(response.raw, 0, response.body[0]) is not None,
        passage.first.destination, passage.first.transport, len(transaction.requests))


def addresses(message: Message, name: str) -> Iterator[Address]:
    """Yield every readable address of the headers called *name*."""
    for header in message.all(name):
        try:
            for start, end in split_values(message.raw, header.start, header.end):
                yield address_at(message.raw, start, end)
        except MalformedMessage:
            continue


def _uris(message: Message) -> Iterator[str]:
    for address in addresses(message, "contact"):
        if address.uri is not None:
            yield message.raw[address.uri.start:address.uri.end].decode("latin-1").strip()


def _aor(message: Message) -> str:
    uri = next((address.uri for address in addresses(message, "to")), None)
    return f"{uri.user}@{uri.hostport.host}" if uri is not None else ""


def _granted(response: Message | None) -> int | None:
    """Return the seconds that a 2xx grants: the longest of its Contacts, else of its Expires."""
    if response is None or not 200 <= response.status < 300:
        return None
    spans = [address.params["expires"] for address in addresses(response, "contact")
             if "expires" in address.params]
    header = response.first("expires")
    if header is not None:
        spans.append((header.start, header.end))
    found = (_number(response.raw[start:end]) for start, end in spans)
    return max((each for each in found if each is not None), default=None)


def _seen_by_peer(response: Message | None) -> tuple[str, int | None]:
    """Return received and rport of a response's topmost Via."""
    if response is None:
        return "", None
    try:
        params = response.via.params
    except MalformedMessage:
        return "", None
    values = [response.raw[slice(*params.get(name, (0, 0)))] for name in ("received", "rport")]
    return values[0].decode("latin-1"), _number(values[1])


def _number(text: bytes) -> int | None:
    text = text.strip()
    return int(text) if text.isdigit() and len(text) <= 9 else None
