"""Refreshes that natfix answers itself: the far UA registers often, so that its NAT stays open, and the
registrar hears of it only when what it has granted runs out.

The UA is told a short ``expires`` in the registrar's 200. What it sends then is answered with what the
registrar has said, as long as it asks for the same, in the same way, from the same endpoint; anything else
goes to the registrar, as does all after a restart. No binding is ever made, changed or prolonged here, so an
answer to one who only pretends to be the UA gives him nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from natfix.address import Endpoint
from natfix.commands import Note, SendPacket
from natfix.config import FarEnd as FarEndSettings
from natfix.errors import MalformedMessage
from natfix.far_ends import FarEnd, FarEnds
from natfix.keep_alives import KeepAlives
from natfix.packet import Packet
from natfix.sip.fields import Address, address_at, split_values
from natfix.sip.message import Message, message_from_bytes
from natfix.turn import Turn

IN_TIME = 30            # seconds before the registrar's word ends, in which refreshes go to it
LONGEST_ANSWER = 1300   # bytes; a longer one would not pass every link
CHALLENGES = (401, 407)
MOST_REQUESTS = 8192    # REGISTERs that wait for their answer
RFC = "RFC 3261, section 10.3"
NUMBER = re.compile(rb"[0-9]{1,9}+\Z")
RPORT = re.compile(r";\s*+rport(?=\s*(?:;|\Z))", re.IGNORECASE)
# Of the registrar's answer; everything else is repeated as it was.
OWN_LINES = frozenset({
    b"via", b"v", b"from", b"f", b"to", b"t", b"call-id", b"i", b"cseq", b"contact", b"m", b"expires",
    b"content-length", b"l", b"content-type", b"c", b"date", b"timestamp", b"authentication-info",
    b"www-authenticate",
})

Key = tuple[Endpoint, str]      # where it comes from, and its Call-ID


class Asked(NamedTuple):
    """What a REGISTER asks for."""

    contacts: tuple[bytes, ...]     # without their expires
    seconds: tuple[int, ...]        # which these are
    sender: str                     # From and
    aor: str                        # To, without their tags


@dataclass(slots=True, eq=False)
class Lease:
    """What the registrar has granted, and how natfix says it again."""

    asked: Asked
    until: float                    # the registrar's own word
    to: str                         # To with the registrar's tag
    contacts: list[tuple[bytes, float]]     # without expires, and until when; 0: the UA's own, as told
    lines: list[bytes]              # other headers
    has_expires: bool
    told: int
    cseq: int
    branch: str = ""                # of the last one that natfix has answered


class Request(NamedTuple):
    """A REGISTER that waits for the registrar's answer."""

    cseq: int
    asked: Asked
    seconds: int                    # that it had asked for before natfix told it less; 0: unknown
    told: int                       # what natfix told it


class Refreshing:
    """Shapes what far UAs are told, and answers their refreshes."""

    def __init__(self, settings: FarEndSettings, ends: FarEnds, keep_alives: KeepAlives,
                 counters: Counter[str]) -> None:
        self.follow(settings)
        self._ends = ends
        self._keep_alives = keep_alives
        self._counters = counters
        self._leases: dict[Key, Lease] = {}
        self._requests: dict[Key, Request] = {}

    def follow(self, settings: FarEndSettings) -> None:
        """Take other settings; what a UA was granted by the old ones ends as it was told."""
        self._is_on = settings.keep_open == "refresh" and settings.fix == "auto"
        self._every, self._longest = float(settings.keep_open_every), float(settings.keep_open_longest)

    # -- a refresh --------------------------------------------------------------------------------

    def answer(self, packet: Packet, message: Message, now: float) -> tuple[SendPacket, Note] | None:
        """Return natfix's own answer to a REGISTER, None where the registrar has to answer it."""
        if not self._is_on or message.method != "REGISTER" or not message.is_request:
            return None
        far, lease = self._ends.find(packet.source), self._leases.get((packet.source, message.call_id))
        if far is None or lease is None or not far.is_registered(now):
            return None
        outside = self._keep_alives.way_to(far)
        if outside is None:
            return None
        told = int(min(far.pulse.refresh_after(self._every, self._longest), lease.until - now - IN_TIME))
        if told < min(lease.told, self._every) or not _is_refresh(message, lease):
            return None
        lease.cseq, lease.branch, lease.told, far.pulse.told = message.cseq, message.branch, told, told
        far.seen_at = now
        self._keep_alives.on_registered(far, now)
        self._counters["refreshes answered"] += 1
        return SendPacket(outside, packet.source, _response(message, packet.source, lease, now)), Note(
            "refresh", "Expires", reason="answered for the registrar, whose own word holds for "
            f"{lease.until - now:.0f} s more", rfc=RFC)

    # -- what goes through ------------------------------------------------------------------------

    def on_request(self, turn: Turn) -> None:
        """Take note of a REGISTER that goes to the registrar; it asks for as much as it did at first."""
        message, far, key = turn.message, turn.far_sender, (turn.packet.source, turn.message.call_id)
        if far is None or not self._is_on or message.method != "REGISTER" or not message.is_request:
            return
        lease, unanswered = self._leases.pop(key, None), self._requests.pop(key, None)
        asked = _asked(message)
        if asked is None:
            return
        seconds, told = far.pulse.asked, far.pulse.told     # all that a restart leaves
        if lease is not None:
            seconds, told = lease.asked.seconds[0], lease.told
        elif unanswered is not None:
            seconds, told = unanswered.seconds, unanswered.told
        if seconds and set(asked.seconds) == {told}:
            asked = self._as_before(turn, asked, seconds)
        self._requests[key] = Request(message.cseq, asked, seconds, told)
        if len(self._requests) > MOST_REQUESTS:
            del self._requests[next(iter(self._requests))]

    def _as_before(self, turn: Turn, asked: Asked, seconds: int) -> Asked:
        """Some UAs ask for what they were told: that was natfix's word, not the registrar's."""
        for start, end in _expires_spans(turn.message):
            note = Note("refresh", "Expires", str(asked.seconds[0]), str(seconds),
                        "natfix had told it so; it had asked for more", RFC)
            turn.edits.replace(start, end, b"%d" % seconds, note)
        return asked._replace(seconds=(seconds,) * len(asked.seconds))

    def on_response(self, turn: Turn, far: FarEnd) -> None:
        """Tell the UA a short time where the registrar has granted a long one."""
        message, key = turn.message, (far.source, turn.message.call_id)
        if not self._is_on or message.cseq_method != "REGISTER" or message.status < 200:
            return
        if message.status in CHALLENGES:
            return      # the next one has the credentials
        request = self._requests.pop(key, None)
        self._leases.pop(key, None)
        if not 200 <= message.status < 300:
            return
        told, far.pulse.told = far.pulse.refresh_after(self._every, self._longest), 0
        if request is None or request.cseq != message.cseq:
            return
        own = [address for address in _contacts(message)
               if address.uri and address.uri.hostport.endpoint() == far.source]
        granted = min((_seconds(message, address) for address in own), default=0)
        if granted <= told + IN_TIME or len(own) != len(set(request.asked.contacts)):
            return
        if _lease_from(turn.edits.apply(), told, turn.now) is None:
            return      # what natfix cannot say again must not be asked for often
        self._shorten_all(turn, own, told)
        lease = _lease_from(turn.edits.apply(), told, turn.now)
        if lease is not None:
            lease.asked, lease.until, lease.cseq = request.asked, turn.now + granted, message.cseq
            self._keep(key, lease)
            far.pulse.told, far.pulse.asked = told, request.asked.seconds[0]

    def _shorten_all(self, turn: Turn, own: list[Address], told: int) -> None:
        """Shorten what the 200 says of the UA's *own* Contacts."""
        message = turn.message
        header = message.first("expires")
        if len(_contacts(message)) == len(own) and header is not None:
            _shorten(turn, header.start, header.end, b"%d" % told)
        for address in own:
            start, end = address.params.get("expires", (0, 0))
            if end:
                _shorten(turn, start, end, b"%d" % told)
            elif header is None or len(_contacts(message)) != len(own):
                end = address.start + len(message.raw[address.start:address.end].rstrip())
                _shorten(turn, end, end, b";expires=%d" % told)

    def _keep(self, key: Key, lease: Lease) -> None:
        self._leases[key] = lease
        if len(self._leases) > 2 * len(self._ends) + MOST_REQUESTS:
            self._leases = {each: kept for each, kept in self._leases.items() if self._ends.find(each[0])}


def _shorten(turn: Turn, start: int, end: int, new: bytes) -> None:
    old = turn.message.raw[start:end].decode("latin-1")
    turn.edits.replace(start, end, new, Note(
        "refresh", "Contact", old, new.decode(), "so often that its NAT stays open", RFC))


def _is_refresh(message: Message, lease: Lease) -> bool:
    """Tell whether a REGISTER asks for what *lease* grants, as the one that got it did."""
    is_next = message.cseq > lease.cseq or (message.cseq == lease.cseq and message.branch == lease.branch)
    start, end = message.body
    if not is_next or start != end or message.first("require") or len(message.all("via")) != 1:
        return False
    asked = _asked(message)
    if asked is None or asked._replace(seconds=()) != lease.asked._replace(seconds=()):
        return False
    return asked.seconds == lease.asked.seconds or set(asked.seconds) == {lease.told}


def _asked(message: Message) -> Asked | None:
    """Return what a REGISTER asks for; None where that is an end, a query, or not understood."""
    contacts = _contacts(message)
    seconds = tuple(_seconds(message, address) for address in contacts)
    if not contacts or not all(seconds) or any(address.uri is None for address in contacts):
        return None
    raw = message.raw
    bare = tuple(_without_expires(raw, address) for address in contacts)
    return Asked(bare, seconds, *(message.text(name).partition(";tag=")[0] for name in ("from", "to")))


def _contacts(message: Message) -> list[Address]:
    """Return all Contacts; none where one of them cannot be read."""
    try:
        return [address_at(message.raw, start, end) for header in message.all("contact")
                for start, end in split_values(message.raw, header.start, header.end)]
    except MalformedMessage:
        return []


def _expires_spans(message: Message) -> list[tuple[int, int]]:
    spans = [address.params["expires"] for address in _contacts(message) if "expires" in address.params]
    header = message.first("expires")
    return spans + ([(header.start, header.end)] if header else [])


def _seconds(message: Message, address: Address) -> int:
    """Return the seconds of a Contact, 0 where they are 0, or not said, or not understood."""
    header = message.first("expires")
    span = address.params.get("expires") or (header and (header.start, header.end)) or (0, 0)
    text = message.raw[span[0]:span[1]].strip()
    return int(text) if NUMBER.match(text) else 0


def _without_expires(raw: bytes, address: Address) -> bytes:
    text = raw[address.start:address.end].strip()
    start, end = address.params.get("expires", (0, 0))
    if not end:
        return text
    return raw[address.start:raw.rfind(b";", address.start, start)].strip() + raw[end:address.end].strip()


def _lease_from(response: bytes, told: int, now: float) -> Lease | None:
    """Take a 200, as the UA gets it, apart into what is said again; None where that is not safe."""
    try:
        message = message_from_bytes(response)
    except MalformedMessage:
        return None
    start, end = message.body
    head = response[:start].removesuffix(b"\r\n\r\n").split(b"\r\n")
    if start != end or len(response) > LONGEST_ANSWER or b"\n" in b"".join(head):
        return None
    if any(line[:1] in b" \t" for line in head):
        return None     # folded
    lines = [line for line in head[1:] if line.partition(b":")[0].strip().lower() not in OWN_LINES]
    contacts = [(_without_expires(response, address), _end_of(message, address, told, now))
                for address in _contacts(message)]
    return Lease(Asked((), (), "", ""), 0.0, message.text("to"), contacts, lines,
                 message.first("expires") is not None, told, 0)


def _end_of(message: Message, address: Address, told: int, now: float) -> float:
    """Return when another UA's Contact ends; 0 for the UA's own, which was told as much as *told*."""
    seconds = _seconds(message, address)
    return 0.0 if seconds == told else now + seconds


def _response(request: Message, source: Endpoint, lease: Lease, now: float) -> bytes:
    via = RPORT.sub(f";rport={source.port};received={source.host}", request.text("via"))
    to = request.text("to") if request.to_tag else lease.to
    lines = [
        b"SIP/2.0 200 OK", b"Via: " + via.encode("latin-1"),
        b"From: " + request.text("from").encode("latin-1"), b"To: " + to.encode("latin-1"),
        b"Call-ID: " + request.call_id.encode("latin-1"), b"CSeq: %d REGISTER" % request.cseq,
    ]
    for contact, until in lease.contacts:
        seconds = int(until - now) if until else lease.told
        if seconds > 0:
            lines.append(b"Contact: %b;expires=%d" % (contact, seconds))
    if lease.has_expires:
        lines.append(b"Expires: %d" % lease.told)
    return b"\r\n".join((*lines, *lease.lines, b"Content-Length: 0", b"", b""))
