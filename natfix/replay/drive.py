"""natfix driven with a capture: what it would have made of each passage, and why.

The engine sees what it would see at *forward*, had it been on the gateway instead of the NAT and the
fixers that the capture shows:

    outward     the copy nearest to the inside UA. Where there is only the one behind the NAT, the inside
                endpoint is inferred from the Via, the Contact, or an earlier message, and a note says so
    inward      the copy that the peer sent, with what it echoes put as natfix.replay.echoes says; it goes
                to the inside endpoint that the capture shows, or that sent the request

Then ``before`` is what was captured, ``after`` what natfix lets go, and ``edits`` the difference with its
reasons; what the peer would have echoed in between shows in neither. A flow that an inward message needs,
and that began before the capture did, is taken for granted, as a note says.

natfix repairs whole IPv4/UDP datagrams. All others are left alone, with a note that says why.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import lru_cache
from typing import NamedTuple

from natfix.address import Endpoint, is_ipv4
from natfix.commands import Note
from natfix.edits import EditTuple, apply_edits
from natfix.errors import MalformedMessage
from natfix.replay.echoes import Echo, Known, counterfactual
from natfix.replay.gateway import LONGEST, Carried, Gateway
from natfix.replay.model import Direction, NetworkView, Passage, Repair, Side, Sighting
from natfix.replay.parsed import moved
from natfix.sip.fields import address_at, uri_at
from natfix.sip.message import Message

MOST_REMEMBERED = 4096      # messages whose notes a retransmission shows again
NOT_SHOWN = "not-shown"     # the rule of notes that say why natfix never saw a passage
INFERRED = "inferred"       # ... what was concluded in order to show it
RULE_KINDS = frozenset({"contact", "route"})    # of notes whose new text outward is echoed inward


class Feed(NamedTuple):
    """What the gateway is given for a passage."""

    copy: Sighting
    source: Endpoint
    destination: Endpoint
    message: Message                    # with ``echoes`` in it
    inside: Endpoint                    # the UA it is about
    echoes: tuple[Echo, ...] = ()
    notes: tuple[Note, ...] = ()


class LeftAlone(Exception):
    """natfix is not shown a passage; the text says why."""


class Drive:
    """Shows passages to natfix, in the order of time."""

    def __init__(self, view: NetworkView, gateway: Gateway | None) -> None:
        """*gateway* None: there is no NAT for natfix to be at."""
        self._view = view
        self._gateway = gateway
        self._known = Known()
        self._registered: set[Endpoint] = set()
        self._notes: OrderedDict[int, list[Note]] = OrderedDict()

    def show(self, passage: Passage) -> None:
        """Give *passage* its repair."""
        copy = passage.first
        if not copy.payload:
            return
        try:
            feed = self._feed(passage)
        except LeftAlone as reason:
            note = Note(NOT_SHOWN, reason=str(reason))
            passage.repair = Repair(copy.payload, copy.payload, left_alone=(note,))
            return
        passage.repair = self._carry(passage, feed)

    # -- which copy, from where, to where ------------------------------------------------------------

    def _feed(self, passage: Passage) -> Feed:
        self._refuse(passage)
        if passage.direction is Direction.OUTWARD:
            return self._outward(passage)
        if passage.direction is Direction.INWARD:
            return self._inward(passage)
        raise LeftAlone(_ELSEWHERE[passage.direction])

    def _refuse(self, passage: Passage) -> None:
        reason = refusal(passage.first)
        if reason:
            raise LeftAlone(reason)
        if self._gateway is None:
            raise LeftAlone(_ELSEWHERE[passage.direction])

    def _outward(self, passage: Passage) -> Feed:
        inner, outer = passage.at(Side.INSIDE), passage.at(Side.OUTSIDE)
        if inner is not None:
            if outer is not None:
                self._known.translated(inner.source, outer.source)
            assert inner.message is not None
            return Feed(inner, inner.source, inner.destination, inner.message, inner.source)
        assert outer is not None
        assert outer.message is not None
        inside = self._named_by(outer.message) or self._known.behind(outer.source)
        if inside is None:
            raise LeftAlone("only the copy behind the NAT was captured, and it does not name the inside "
                            "endpoint")
        self._known.translated(inside, outer.source)
        note = Note(INFERRED, "Via", reason=f"only the copy behind the NAT was captured; the message names "
                                            f"{inside} as its sender")
        return Feed(outer, inside, outer.destination, outer.message, inside, notes=(note,))

    def _named_by(self, message: Message) -> Endpoint | None:
        """Return the inside endpoint that a message from behind the NAT names as its sender."""
        try:
            if message.is_request:
                endpoint = message.via.sent_by.endpoint()
                if endpoint is not None and self._is_inside(endpoint):
                    return endpoint
            header = message.first("contact")
            uri = address_at(message.raw, header.start, header.end).uri if header else None
        except MalformedMessage:
            return None
        endpoint = uri.hostport.endpoint() if uri else None
        return endpoint if endpoint is not None and self._is_inside(endpoint) else None

    def _inward(self, passage: Passage) -> Feed:
        inner, outer = passage.at(Side.INSIDE), passage.at(Side.OUTSIDE)
        copy = outer or inner
        assert copy is not None
        assert copy.message is not None
        message, gateway = copy.message, self._gateway
        assert gateway is not None
        inside = self._receiver(message, inner, outer)
        self._note_translation(message, inside, inner, outer)
        notes: tuple[Note, ...] = ()
        gateway.advance(copy.time)
        outside = gateway.outside_of(inside)
        if outside is None:
            outside, notes = self._open_way(gateway, inside, copy.source)
        echoes = counterfactual(message, self._known.echoed(message, inside, outside))
        if echoes:
            edits = tuple(echo[:3] for echo in echoes)
            message = moved(message, edits, apply_edits(message.raw, edits))
        return Feed(copy, copy.source, outside, message, inside, echoes, notes)

    def _transmit(self, gateway: Gateway, feed: Feed) -> tuple[Carried, tuple[Note, ...]]:
        """Carry a packet; where only what came before the capture can have opened its way, open that."""
        time, message = feed.copy.time, feed.message
        carried = gateway.transmit(feed.source, feed.destination, message.raw, time, message)
        may_open = feed.inside != feed.source and feed.inside not in self._registered
        if not carried.dropped or carried.was_shown or not may_open:
            return carried, feed.notes
        _, notes = self._open_way(gateway, feed.inside, feed.source)
        return gateway.transmit(feed.source, feed.destination, message.raw, time, message), notes

    def _note_translation(
        self, message: Message, inside: Endpoint, inner: Sighting | None, outer: Sighting | None
    ) -> None:
        """Learn what the capture's own NAT had stand for *inside*: from both copies, or from the echo."""
        if inner is not None and outer is not None and inner.destination == inside:
            self._known.translated(inside, outer.destination)
        if message.is_request or self._known.asked(message) is None:
            return
        spans = [message.via.params.get(name, (0, 0)) for name in ("received", "rport")]
        host, port = (message.raw[start:end].decode("latin-1") for start, end in spans)
        if is_ipv4(host) and port.isdigit() and len(port) <= 5:
            self._known.translated(inside, Endpoint(host, int(port)))

    def _receiver(self, message: Message, inner: Sighting | None, outer: Sighting | None) -> Endpoint:
        """Return the inside endpoint that an inward message is for."""
        asked = None if message.is_request else self._known.asked(message)
        if asked is not None:
            return asked[0]
        if inner is not None:
            return inner.destination
        assert outer is not None
        known = self._known.behind(outer.destination) or self._named_in_uri(message)
        if known is None:
            raise LeftAlone("only the copy in front of the NAT was captured, and nothing says which inside "
                            "endpoint it is for")
        return known

    def _named_in_uri(self, message: Message) -> Endpoint | None:
        try:
            hostport = uri_at(message.raw, *message.request_uri).hostport if message.is_request \
                else message.via.sent_by
        except MalformedMessage:
            return None
        endpoint = hostport.endpoint()
        return endpoint if endpoint is not None and self._is_inside(endpoint) else None

    def _open_way(
        self, gateway: Gateway, inside: Endpoint, peer: Endpoint
    ) -> tuple[Endpoint, tuple[Note, ...]]:
        """Take for granted what the capture began too late to show."""
        gateway.adopt(inside, peer)
        outside = gateway.outside_of(inside)
        if outside is None:
            raise LeftAlone(f"natfix has no outside port for {inside}")
        reason = f"what opened the way for {peer} to {inside} was not captured; natfix is taken to know it"
        return outside, (Note(INFERRED, reason=reason),)

    def _is_inside(self, endpoint: Endpoint) -> bool:
        return self._view.side_of(endpoint.host) is Side.INSIDE

    # -- what came of it ---------------------------------------------------------------------------------

    def _carry(self, passage: Passage, feed: Feed) -> Repair:
        gateway = self._gateway
        assert gateway is not None
        copy = feed.copy
        carried, inferred = self._transmit(gateway, feed)
        notes = self._notes_of(feed, carried)
        changes = [note for note in notes if note.is_edit]
        if passage.direction is Direction.OUTWARD:
            self._learn(copy, feed.inside, changes)
        edits, spans = composed(copy.payload, feed.message.raw, feed.echoes, carried, changes)
        left_alone = [*inferred]
        if len(changes) < len(notes):
            left_alone += [note for note in notes if not note.is_edit]
        if not carried.was_shown and not carried.dropped:
            left_alone.append(Note(NOT_SHOWN, reason=f"neither {feed.source} nor {feed.destination} has one "
                                                     "of [signalling] ports: it is not diverted to natfix"))
        return Repair(copy.payload, carried.payload, tuple(edits), tuple(left_alone), carried.dropped,
                      carried.source, carried.destination, tuple(spans))

    def _notes_of(self, feed: Feed, carried: Carried) -> list[Note]:
        """Return the notes of a message; a retransmission's are those of the first transmission."""
        key = hash((feed.source, feed.destination, feed.message.raw))
        for note in carried.notes:
            if note.rule == "repeated":
                first = [each for each in self._notes.get(key, []) if each.is_edit]
                return [*first, *carried.notes]
        self._notes[key] = carried.notes
        if len(self._notes) > MOST_REMEMBERED:
            self._notes.popitem(last=False)
        return carried.notes

    def _learn(self, copy: Sighting, inside: Endpoint, changes: list[Note]) -> None:
        """Remember what natfix showed, for the echoes of it."""
        message = copy.message
        if message is None:
            return
        via = next((note.new for note in changes if note.rule == "via"), "")
        self._known.sent(message, inside, via)
        if message.is_request and message.method == "REGISTER":
            self._registered.add(inside)
        for note in changes:
            if note.rule in RULE_KINDS:
                self._known.shown(inside, note.rule, note.old, note.new)


_ELSEWHERE = {
    Direction.OUTWARD: "no outside address is known",
    Direction.INWARD: "no outside address is known",
    Direction.INTERNAL: "both ends are inside: it does not cross the NAT",
    Direction.EXTERNAL: "both ends are outside: it does not cross the NAT",
    Direction.UNKNOWN: "nothing says which end is inside",
}
_is_ipv4 = lru_cache(maxsize=8192)(is_ipv4)


def refusal(copy: Sighting) -> str:
    """Return why natfix is not shown such a packet, "" where it is."""
    facts = copy.facts
    if copy.transport != "udp":
        return "natfix repairs SIP over UDP only, as yet: this is TCP"
    if not (_is_ipv4(copy.source.host) and _is_ipv4(copy.destination.host)):
        return "natfix repairs IPv4 only"
    if facts.cut:
        return "the capture cut the packet: what is not there cannot be repaired"
    if facts.incomplete:
        return "fragments of the packet are missing"
    if len(copy.payload) > LONGEST:
        return "it is longer than an IPv4 packet"
    return "it is not readable as SIP" if copy.message is None else ""


def composed(
    captured: bytes, shown: bytes, echoes: tuple[Echo, ...], carried: Carried, changes: list[Note],
) -> tuple[list[Note], list[tuple[int, int]]]:
    """Return what changed between the captured payload and natfix's, and where in the captured one.

    *echoes* led from the captured payload to the one that natfix was *shown*; what it put back is no change.
    """
    by_text: dict[tuple[str, str], list[Note]] = {}
    for note in changes:
        by_text.setdefault((note.old, note.new), []).append(note)
    if not echoes:
        return _direct(captured, carried.edits, by_text)
    edits: list[Note] = []
    spans: list[tuple[int, int]] = []
    for (start, end), (shown_start, shown_end), inner in _groups(echoes, carried.edits):
        old, new = captured[start:end], _applied(shown, shown_start, shown_end, inner)
        if old == new:
            continue
        header = next((echo.header for echo in echoes if start <= echo.start < end), "")
        note = _note_for(shown, header, inner, by_text)
        edits.append(note._replace(old=old.decode("latin-1"), new=new.decode("latin-1")))
        spans.append((start, end))
    return edits, spans


def _direct(
    captured: bytes, edits: EditTuple, by_text: dict[tuple[str, str], list[Note]]
) -> tuple[list[Note], list[tuple[int, int]]]:
    """Return natfix's edits as they are: what it was shown is what was captured."""
    notes = []
    for start, end, new in edits:
        old, text = captured[start:end].decode("latin-1"), new.decode("latin-1")
        found = _taken(by_text, old, text, captured, start)
        notes.append(found if found is not None else Note("edit", "", old, text, "natfix changed it"))
    return notes, [(start, end) for start, end, _ in edits]


def _taken(
    by_text: dict[tuple[str, str], list[Note]], old: str, new: str, payload: bytes, start: int
) -> Note | None:
    """Return the next note about such an edit; of several with the same text that of the line, else in order.

    The engine does not tell them in the order in which they stand: c= comes before o=.
    """
    found = by_text.get((old, new))
    if not found:
        return None
    if len(found) == 1:
        return found[0]
    line = _before(payload, start)
    place = next((place for place, note in enumerate(found) if note.header and line.startswith(
        note.header.lower())), 0)
    return found.pop(place)


def _before(payload: bytes, start: int) -> str:
    """Return what stands before an edit on its line, in small letters: the header's name is there."""
    return payload[payload.rfind(b"\n", 0, start) + 1:start].decode("latin-1").lower()


Group = tuple[tuple[int, int], tuple[int, int], list[tuple[int, int, bytes]]]


def _groups(echoes: tuple[Echo, ...], edits: EditTuple) -> list[Group]:
    """Return the spans that were touched: in the captured payload, in the shown one, with natfix's edits."""
    shift = 0
    pieces: list[tuple[int, int, int, tuple[int, int, bytes] | None]] = []
    for start, end, new, _ in echoes:
        pieces.append((start + shift, start + shift + len(new), len(new) - (end - start), None))
        shift += len(new) - (end - start)
    pieces += [(start, end, 0, (start, end, new)) for start, end, new in edits]
    pieces.sort(key=lambda piece: piece[:2])
    groups: list[Group] = []
    shift = 0                   # shown offset minus captured offset, at the end of the last group
    for start, end, grown, edit in pieces:
        inner = [edit] if edit is not None else []
        if groups and start < groups[-1][1][1]:
            (old_start, _), (shown_start, shown_end), before = groups.pop()
            end = max(end, shown_end)
            groups.append(((old_start, end - shift - grown), (shown_start, end), [*before, *inner]))
        else:
            groups.append(((start - shift, end - shift - grown), (start, end), inner))
        shift += grown
    return groups


def _applied(shown: bytes, start: int, end: int, inner: list[tuple[int, int, bytes]]) -> bytes:
    if not inner:
        return shown[start:end]
    return apply_edits(shown[start:end], tuple([
        (edit_start - start, edit_end - start, new) for edit_start, edit_end, new in inner]))


def _note_for(
    shown: bytes, header: str, inner: list[tuple[int, int, bytes]], by_text: dict[tuple[str, str], list[Note]]
) -> Note:
    """Return the note of natfix's edit; of an echo that it did not touch, one that says so."""
    for start, end, new in inner:
        old, text = shown[start:end].decode("latin-1"), new.decode("latin-1")
        found = _taken(by_text, old, text, shown, start)
        if found is not None:
            return found
    if inner:
        return Note("edit", header, reason="natfix changed it")
    return Note("echo", header, reason="the peer echoes the outside endpoint that natfix shows it")
