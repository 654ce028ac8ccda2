"""The far-end fix in headers: a UA behind a NAT of its own is shown inside as the endpoint its packets come
from, and what goes back to it names again what it wrote (design, sections 1 and 5).
"""

from __future__ import annotations

from collections.abc import Iterator

from natfix.address import SIP_PORT
from natfix.commands import Note
from natfix.config import FarEnd as FarEndSettings
from natfix.errors import MalformedMessage
from natfix.far_ends import FarEnd, FarEnds
from natfix.far_signs import CONTACT_DIFFERS, is_unreachable, signs
from natfix.sip.fields import HostPort, Uri, Via, address_at, split_values, uri_at
from natfix.sip.message import Message
from natfix.turn import Turn

RFC_CONTACT = "RFC 3261, section 8.1.1.8"
RFC_TARGET = "RFC 3261, section 12.2.1.1"
RFC_RPORT = "RFC 3581, section 3"
DEFAULT_EXPIRES = 3600      # seconds; RFC 3261, section 10.2.1.1


class FarFix:
    """Recognises far UAs, and rewrites what they say of themselves."""

    def __init__(self, ends: FarEnds, settings: FarEndSettings) -> None:
        self._ends = ends
        self.follow(settings)

    def follow(self, settings: FarEndSettings) -> None:
        """Take other settings; a far UA that is known stays one until it is gone."""
        self._chosen = settings.signs if settings.fix == "auto" else ()     # the signs that count

    def sender_of(self, turn: Turn) -> FarEnd | None:
        """Return the far UA that sent a message from outside, None where its sender is none."""
        if not self._chosen:
            return None
        message, source = turn.message, turn.packet.source
        found = signs(message, source, self._chosen)
        known = self._ends.find(source)
        if not found:
            if known is not None:
                known.seen_at = turn.now
            return known
        far = self._ends.note(source, found, message.user_agent, turn.now)
        if far is None:
            turn.leave("limit", "Contact", "[limits] registrations is reached by UAs behind far NATs")
        elif known is None:
            turn.leave("far-end", "", f"behind a NAT of its own: {', '.join(sorted(found))}", str(source))
        return far

    def receiver_of(self, turn: Turn) -> FarEnd | None:
        """Return the far UA that a message goes out to."""
        return self._ends.find(turn.packet.destination)

    # -- what the far UA says of itself -----------------------------------------------------------

    def show(self, turn: Turn, far: FarEnd) -> None:
        """Name the source of its packets where the UA names an address that nobody here can reach."""
        message = turn.message
        via = _top_via(message) if message.is_request else None
        if via is not None:
            self._ask_rport(turn, far, via)
        if 300 <= message.status < 400:
            return      # others' addresses: where the caller shall try next
        for uri in _contact_uris(message):
            if not self._names_itself(far, uri.hostport, via):
                continue
            written = _text(message, uri.hostport)
            if far.note_contact(uri.user, written):
                self._ends.changed.add(far.source)
                self._replace(turn, uri.hostport, written, far.shown, "far-contact", "Contact", RFC_CONTACT)

    def _names_itself(self, far: FarEnd, hostport: HostPort, via: Via | None) -> bool:
        if is_unreachable(hostport.host, far.source.host):
            return True
        if via is None or CONTACT_DIFFERS not in far.signs or hostport.endpoint() == far.source:
            return False
        return (hostport.host, hostport.port or SIP_PORT) == (via.sent_by.host, via.sent_by.port or SIP_PORT)

    def _ask_rport(self, turn: Turn, far: FarEnd, via: Via) -> None:
        """Responses shall come back to where the request came from (RFC 3581), whoever answers."""
        far.asks_rport = "rport" in via.params
        if not far.asks_rport:
            note = Note("far-rport", "Via", "", ";rport", "the answer must come back through the UA's NAT",
                        RFC_RPORT)
            at = _end_of(turn.message.raw, via)
            turn.edits.replace(at, at, b";rport", note)

    # -- what goes back to it ---------------------------------------------------------------------

    def restore(self, turn: Turn, far: FarEnd) -> None:
        """Name again what the UA wrote."""
        message = turn.message
        if message.is_request:
            self._restore_target(turn, far)
        else:
            if not far.asks_rport:
                self._take_rport_back(turn)
            if message.cseq_method == "REGISTER":
                self._restore_bindings(turn, far)

    def _restore_target(self, turn: Turn, far: FarEnd) -> None:
        try:
            uri = uri_at(turn.message.raw, *turn.message.request_uri)
        except MalformedMessage:
            return
        self._restore(turn, far, uri, "Request-URI", RFC_TARGET)

    def _restore_bindings(self, turn: Turn, far: FarEnd) -> None:
        """The registrar's echo; what it grants is remembered."""
        message = turn.message
        granted = {}
        for uri, seconds in _granted(message):
            if uri.hostport.endpoint() == far.source:
                granted[uri.user] = seconds
                self._restore(turn, far, uri, "Contact", RFC_CONTACT)
        if 200 <= message.status < 300:
            longest = max(granted.values(), default=0)
            self._ends.bind(far, aor_of(message), turn.now + longest if longest else 0.0, turn.now)

    def _restore(self, turn: Turn, far: FarEnd, uri: Uri, header: str, rfc: str) -> None:
        written = far.written_for(uri.user)
        if written and uri.hostport.endpoint() == far.source:
            self._replace(turn, uri.hostport, _text(turn.message, uri.hostport), written, "far-restored",
                          header, rfc)

    def _take_rport_back(self, turn: Turn) -> None:
        """A UA that did not ask for rport gets its Via without it, and without the received beside it."""
        via = _top_via(turn.message)
        if via is None:
            return
        raw = turn.message.raw
        for name in ("received", "rport"):
            span = via.params.get(name)
            if span is not None:
                start = raw.rfind(b";", via.start, span[0])
                note = Note("far-rport", "Via", raw[start:span[1]].decode("latin-1"), "",
                            "natfix had asked for it, not the UA", RFC_RPORT)
                turn.edits.replace(start, span[1], b"", note)

    def _replace(self, turn: Turn, hostport: HostPort, old: str, new: str, rule: str, header: str, rfc: str
                 ) -> None:
        note = Note(rule, header, old, new, _REASONS[rule], rfc)
        turn.edits.replace(hostport.start, hostport.end, new.encode("latin-1"), note)


_REASONS = {
    "far-contact": "the UA is reached where its packets come from",
    "far-restored": "the UA wrote itself so",
}


def _top_via(message: Message) -> Via | None:
    try:
        return message.via
    except MalformedMessage:
        return None


def _end_of(raw: bytes, via: Via) -> int:
    """Return where a Via's last parameter ends; white space behind it is none of it."""
    return via.start + len(raw[via.start:via.end].rstrip())


def _contact_uris(message: Message) -> Iterator[Uri]:
    yield from (uri for uri, _ in _granted(message))


def _granted(message: Message) -> Iterator[tuple[Uri, int]]:
    """Yield each SIP Contact with the seconds it is good for."""
    default = _number(message.text("expires"), DEFAULT_EXPIRES)
    for header in message.all("contact"):
        try:
            for start, end in split_values(message.raw, header.start, header.end):
                address = address_at(message.raw, start, end)
                if address.uri is not None:
                    span = address.params.get("expires", (0, 0))
                    yield address.uri, _number(message.raw[span[0]:span[1]].decode("latin-1"), default)
        except MalformedMessage:
            continue


def _number(text: str, default: int) -> int:
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else default


def aor_of(message: Message) -> str:
    """Return To's address-of-record, "" where there is none."""
    header = message.first("to")
    if header is None:
        return ""
    try:
        uri = address_at(message.raw, header.start, header.end).uri
    except MalformedMessage:
        return ""
    return f"{uri.user}@{uri.hostport.host}" if uri else ""


def _text(message: Message, hostport: HostPort) -> str:
    return message.raw[hostport.start:hostport.end].decode("latin-1")
