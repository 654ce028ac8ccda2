"""Session descriptions as spans (RFC 8866): just the lines that say where media goes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from natfix.errors import MalformedMessage
from natfix.sip.message import Message

Span = tuple[int, int]

MAX_MEDIA = 64          # m-lines; more is an attack
MAX_CANDIDATES = 64     # per m-line
MAX_PARTS = 16          # of a multipart body

# One pass over the lines that matter; "\n" or the very beginning stands before each.
_LINE = re.compile(
    rb"^(?:(?P<kind>[vocm])=(?P<value>[^\r\n]*)"
    rb"|a=(?:rtcp:(?P<rtcp>[^\r\n]*)|(?P<mux>rtcp-mux)[ \t]*\r?$|candidate:(?P<candidate>[^\r\n]*)"
    rb"|(?P<direction>sendrecv|sendonly|recvonly|inactive)[ \t]*\r?$))",
    re.MULTILINE,
)
_CONNECTION = re.compile(rb"IN +(IP[46]) +([^\s/]{1,255})(?:/[0-9/]*)?[ \t]*")
_ORIGIN = re.compile(rb"[^ ]+ +[^ ]+ +([^ ]+) +IN +(IP[46]) +([^\s]{1,255})[ \t]*")
_MEDIA = re.compile(rb"([a-zA-Z0-9.+_-]{1,32}) +([0-9]{1,5})(?:/([0-9]{1,2}))?(?![0-9/]) +([^ ]{1,64})")
_RTCP = re.compile(rb"[ \t]*([0-9]{1,5})(?![0-9])(?: +IN +(IP[46]) +([^\s]{1,255}))?")
_CANDIDATE = re.compile(
    rb"[^ ]{1,64} +([0-9]{1,3}) +([^ ]{1,16}) +[0-9]{1,12} +([^ ]{1,255}) +([0-9]{1,5})(?![0-9])"
    rb" +typ +([a-z]{1,16})",
    re.IGNORECASE,
)
_BOUNDARY = re.compile(
    rb";[ \t\r\n]*boundary[ \t]*=[ \t]*(?:\"([^\"\r\n]{1,70})\"|([^ \t;,\"\r\n]{1,70}))", re.IGNORECASE)
_PART_TYPE = re.compile(
    rb"^content-type[ \t]*:[ \t]*([^ \t\r\n;]+)", re.IGNORECASE | re.MULTILINE)
_PART_ENCODING = re.compile(
    rb"^content-(?:transfer-)?encoding[ \t]*:[ \t]*([^ \t\r\n;]+)", re.IGNORECASE | re.MULTILINE)
PLAIN = frozenset({b"binary", b"8bit", b"7bit", b"identity"})       # encodings that leave the bytes as they are


@dataclass(slots=True, eq=False)
class Connection:
    """An address in a c=, o= or a=rtcp line; the span covers the address only."""

    start: int
    end: int
    host: str
    family: str         # "IP4" or "IP6"


@dataclass(slots=True, eq=False)
class Candidate:
    """An ICE candidate (RFC 8839, section 5.1)."""

    component: int      # 1 RTP, 2 RTCP
    transport: str
    address: str
    port: int
    type: str           # "host", "srflx", "prflx", "relay"
    address_span: Span
    port_span: Span


@dataclass(slots=True, eq=False)
class Media:
    """One m-line with the lines that belong to it."""

    index: int
    kind: str                               # "audio", "video", "image", ...
    port: int
    port_span: Span
    count: int                              # of port pairs ("port/count")
    proto: str
    direction: str                          # inherited from the session
    connection: Connection | None = None    # its own c=
    effective: Connection | None = None     # its own, else the session's
    rtcp_port: int | None = None            # RFC 3605
    rtcp_port_span: Span | None = None
    rtcp_address: Connection | None = None
    rtcp_mux: bool = False                  # RFC 5761
    candidates: list[Candidate] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Session:
    """A session description."""

    start: int
    end: int
    origin: Connection | None = None
    origin_version: str = ""
    connection: Connection | None = None
    direction: str = "sendrecv"
    media: list[Media] = field(default_factory=list)


def session_from_span(raw: bytes, start: int, end: int) -> Session:
    """Read raw[start:end] as SDP.

    Raises MalformedMessage where it does not begin with v=, or an m=, c= or a=rtcp line cannot be read:
    half of a description must not be rewritten.
    """
    if not raw.startswith(b"v=", start):
        raise MalformedMessage("SDP that does not begin with v=")
    session = Session(start, end)
    media: Media | None = None
    for line in _LINE.finditer(raw, start, end):
        kind = line["kind"]
        if kind == b"m":
            media = _media(raw, line.span("value"), session)
        elif kind == b"c":
            _take_connection(_connection(raw, line.span("value")), session, media)
        elif kind == b"o":
            _take_origin(raw, line.span("value"), session)
        elif line["direction"] is not None:
            (media or session).direction = line["direction"].decode()
        elif media is not None:
            _take_attribute(raw, line, media)
    for media in session.media:
        media.effective = media.connection or session.connection
    return session


def _media(raw: bytes, span: Span, session: Session) -> Media:
    match = _MEDIA.match(raw, *span)
    if match is None or int(match[2]) > 0xFFFF:
        raise MalformedMessage("an m= line that cannot be read")
    if len(session.media) >= MAX_MEDIA:
        raise MalformedMessage("too many m= lines")
    media = Media(
        len(session.media), match[1].decode(), int(match[2]), match.span(2), max(int(match[3] or 1), 1),
        match[4].decode("latin-1"), session.direction,
    )
    session.media.append(media)
    return media


def _connection(raw: bytes, span: Span) -> Connection:
    match = _CONNECTION.fullmatch(raw, *span)
    if match is None:
        raise MalformedMessage("a c= line that cannot be read")
    return Connection(*match.span(2), match[2].decode("latin-1"), match[1].decode())


def _take_connection(connection: Connection, session: Session, media: Media | None) -> None:
    """Of several c= lines of one m-line (RFC 8866, section 5.7: layers) the first is the stream's."""
    if media is None:
        session.connection = connection
    elif media.connection is None:
        media.connection = connection


def _take_origin(raw: bytes, span: Span, session: Session) -> None:
    match = _ORIGIN.fullmatch(raw, *span)
    if match is not None and session.origin is None:
        session.origin = Connection(*match.span(3), match[3].decode("latin-1"), match[2].decode())
        session.origin_version = match[1].decode("latin-1")


def _take_attribute(raw: bytes, line: re.Match[bytes], media: Media) -> None:
    if line["mux"] is not None:
        media.rtcp_mux = True
    elif line["rtcp"] is not None:
        _take_rtcp(raw, line.span("rtcp"), media)
    elif line["candidate"] is not None and len(media.candidates) < MAX_CANDIDATES:
        _take_candidate(raw, line.span("candidate"), media)


def _take_rtcp(raw: bytes, span: Span, media: Media) -> None:
    match = _RTCP.match(raw, *span)
    if match is None or int(match[1]) > 0xFFFF:
        raise MalformedMessage("an a=rtcp line that cannot be read")
    media.rtcp_port, media.rtcp_port_span = int(match[1]), match.span(1)
    if match[3] is not None:
        media.rtcp_address = Connection(*match.span(3), match[3].decode("latin-1"), match[2].decode())


def _take_candidate(raw: bytes, span: Span, media: Media) -> None:
    match = _CANDIDATE.match(raw, *span)
    if match is not None and int(match[4]) <= 0xFFFF:
        media.candidates.append(Candidate(
            int(match[1]), match[2].decode("latin-1").lower(), match[3].decode("latin-1"), int(match[4]),
            match[5].decode().lower(), match.span(3), match.span(4),
        ))


def find_sdp(message: Message) -> Span | None:
    """Return where the SDP of *message* is: its body, or the one SDP part of a multipart body.

    None where there is none, more than one, or it is encoded.
    """
    start, end = message.body
    header = message.first("content-type")
    if start == end or header is None or message.first("content-encoding") is not None:
        return None
    value = message.raw[header.start:header.end]
    kind = value.partition(b";")[0].strip().lower()
    if kind == b"application/sdp":
        return start, end
    if kind.startswith(b"multipart/"):
        return _sdp_part(message.raw, start, end, value)
    return None


def _sdp_part(raw: bytes, start: int, end: int, content_type: bytes) -> Span | None:
    parts = [span for span in _parts(raw, start, end, content_type) if _is_plain_sdp(raw, *span)]
    if len(parts) != 1:
        return None
    body = _part_body(raw, *parts[0])
    return (body, parts[0][1]) if body < parts[0][1] else None


def _parts(raw: bytes, start: int, end: int, content_type: bytes) -> list[Span]:
    """Return the parts between the boundaries (RFC 2046, section 5.1.1), headers included."""
    match = _BOUNDARY.search(content_type)
    if match is None:
        return []
    delimiter = b"--" + (match[1] or match[2])
    found: list[Span] = []
    at = raw.find(delimiter, start, end)
    while at >= 0 and len(found) < MAX_PARTS:
        begun = at + len(delimiter)
        at = raw.find(b"\n" + delimiter, begun, end)
        if at >= 0:
            stop = at - 1 if raw[at - 1:at] == b"\r" else at
            found.append((begun, stop))
            at += 1
    return found


def _part_body(raw: bytes, start: int, end: int) -> int:
    positions = [raw.find(empty, start, end) + len(empty) for empty in (b"\r\n\r\n", b"\n\n")
                 if raw.find(empty, start, end) >= 0]
    return min(positions, default=end)


def _is_plain_sdp(raw: bytes, start: int, end: int) -> bool:
    headers_end = _part_body(raw, start, end)
    kind = _PART_TYPE.search(raw, start, headers_end)
    encoding = _PART_ENCODING.search(raw, start, headers_end)
    return (
        kind is not None and kind[1].lower() == b"application/sdp"
        and (encoding is None or encoding[1].lower() in PLAIN)
    )
