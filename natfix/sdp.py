"""SDP (RFC 8866) as spans: where media is wanted, and nothing else.

Offsets are absolute in the message's bytes. Lines that say nothing about addresses and ports are never
looked at, in the order or out of it. What an unreadable line would mean is never guessed: c= and m= make
the whole body malformed, an attribute counts as unknown (RFC 8866, section 5.13).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from natfix.errors import MalformedMessage
from natfix.sip.message import Message

Span = tuple[int, int]

MAX_MEDIA = 64                  # m-lines of one description
MAX_CANDIDATES = 256            # of one m-line; more are left unread

NUMBER = rb"([0-9]{1,5}+)(?![0-9])"
LINE_END = rb"[ \t]*+(?=[\r\n]|\Z)"
_LINE = re.compile(
    rb"\n(?:([cmo])=|a=(?:(rtcp|candidate):|(rtcp-mux|sendrecv|sendonly|recvonly|inactive)"
    + LINE_END + rb"))([^\r\n]*+)")
# "/ttl" and "/number of addresses" belong to multicast (RFC 8866, section 5.7), not to the address.
_CONNECTION = re.compile(
    rb"[ \t]*+([^\s/]++)[ \t]++([^\s/]++)[ \t]++([^\s/]{1,255}+)(?:/[0-9/]{1,10}+)?" + LINE_END)
_MEDIA = re.compile(
    rb"[ \t]*+([^\s/]{1,64}+)[ \t]++" + NUMBER + rb"(?:/([0-9]{1,3}+))?[ \t]++(\S{1,64}+)")
_RTCP = re.compile(
    rb"[ \t]*+" + NUMBER + rb"(?:[ \t]++IN[ \t]++(IP[46])[ \t]++([^\s/]{1,255}+))?" + LINE_END)
_CANDIDATE = re.compile(
    rb"[ \t]*+\S{1,64}+[ \t]++([0-9]{1,3}+)[ \t]++(\S{1,32}+)[ \t]++[0-9]{1,10}+[ \t]++(\S{1,255}+)[ \t]++"
    + NUMBER + rb"[ \t]++typ[ \t]++(\S{1,32}+)")

_CONTENT_TYPE = re.compile(rb"([^\s/;]{1,64}+)\s*+/\s*+([^\s;]{1,64}+)\s*+(?=;|\Z)")
# RFC 2046, section 5.1.1: 1 to 70 characters; quoted where it has any that a token has not.
_BOUNDARY = re.compile(rb';\s*+(?i:boundary)\s*+=\s*+(?:"([^"\r\n]{1,70}+)"|([^\s;"]{1,70}+))')
_PART_HEADER = re.compile(rb"^([A-Za-z-]{1,64}+)[ \t]*+:[ \t]*+([^\r\n]*+(?:\r?\n[ \t][^\r\n]*+)*)", re.M)
_PART_START = re.compile(rb"\r?\n\r?\n")

SDP = b"application/sdp"
# What is signed, sealed or only quoted is not ours to change.
OPAQUE_MULTIPARTS = frozenset({b"multipart/signed", b"multipart/encrypted", b"multipart/report"})
PLAIN_ENCODINGS = frozenset({b"", b"identity", b"7bit", b"8bit", b"binary"})
MAX_PARTS = 32
DEEPEST = 2                     # a multipart inside of a multipart


@dataclass(slots=True)
class Connection:
    """An address with the span of its text, from c=, o= or a=rtcp."""

    start: int
    end: int
    host: str
    family: str                 # "IP4" or "IP6"; "" where the network is not the Internet


@dataclass(slots=True)
class Candidate:
    """One a=candidate line (RFC 8839, section 5.1)."""

    component: int              # 1 RTP, 2 RTCP
    transport: str              # lower case: "udp", "tcp"
    address: str
    port: int
    type: str                   # lower case: "host", "srflx", "prflx", "relay"
    address_span: Span
    port_span: Span


@dataclass(slots=True)
class Media:
    """One m-line with the lines below it."""

    index: int                  # 0 for the topmost
    kind: str                   # "audio", "video", "image" ...
    port: int
    port_span: Span
    count: int                  # 1, or what follows "port/"
    proto: str
    direction: str              # "sendrecv", "sendonly", "recvonly", "inactive"
    connection: Connection | None = None    # the first of its own c= lines
    effective: Connection | None = None     # its own, else the session's
    rtcp_port: int | None = None            # a=rtcp (RFC 3605)
    rtcp_port_span: Span | None = None
    rtcp_address: Connection | None = None
    rtcp_mux: bool = False
    candidates: list[Candidate] = field(default_factory=list)


@dataclass(slots=True)
class Session:
    """A session description."""

    start: int
    end: int
    origin: Connection | None = None        # the address of o=; None where o= cannot be read
    origin_version: str = ""
    connection: Connection | None = None    # the session's own c=
    media: list[Media] = field(default_factory=list)


def session_from_span(raw: bytes, start: int, end: int) -> Session:
    """Read the SDP between two offsets; raises MalformedMessage where it is none, or an address or port
    in it cannot be read."""
    if not raw.startswith(b"v=", start, end):
        raise MalformedMessage("no SDP: it does not begin with v=")
    session = Session(start, end)
    media: Media | None = None
    direction = "sendrecv"          # RFC 8866, section 6.7
    for line in _LINE.finditer(raw, start, end):
        letter, attribute, flag, _ = line.groups()
        value_start, value_end = line.span(4)
        if letter == b"m":
            media = _media(raw, value_start, value_end, len(session.media), direction)
            session.media.append(media)
        elif letter == b"c":
            _take_connection(media or session, _connection(raw, value_start, value_end))
        elif letter == b"o":
            _take_origin(session, raw, value_start, value_end)
        elif media is None:
            if flag is not None and flag != b"rtcp-mux":
                direction = flag.decode()
        elif flag == b"rtcp-mux":
            media.rtcp_mux = True
        elif flag is not None:
            media.direction = flag.decode()
        elif attribute == b"rtcp":
            _take_rtcp(media, raw, value_start, value_end)
        else:
            _take_candidate(media, raw, value_start, value_end)
    for media in session.media:
        media.effective = media.connection or session.connection
    return session


def _media(raw: bytes, start: int, end: int, index: int, direction: str) -> Media:
    found = _MEDIA.match(raw, start, end)
    if found is None:
        raise MalformedMessage("an m= line cannot be read")
    kind, port_text, count_text, proto = found.groups()
    port, count = int(port_text), int(count_text or 1)
    if port > 65535 or not count:
        raise MalformedMessage("an m= line's port is out of range")
    if index == MAX_MEDIA:
        raise MalformedMessage(f"more than {MAX_MEDIA} m= lines")
    return Media(
        index, kind.decode("latin-1"), port, found.span(2), count, proto.decode("latin-1"), direction)


def _connection(raw: bytes, start: int, end: int) -> Connection:
    found = _CONNECTION.match(raw, start, end)
    if found is None:
        raise MalformedMessage("a c= line cannot be read")
    network, family, host = found.groups()
    return Connection(*found.span(3), host.decode("latin-1"), _family(network, family))


def _family(network: bytes, family: bytes) -> str:
    return family.decode("latin-1").upper() if network.upper() == b"IN" else ""


def _take_connection(owner: Media | Session, connection: Connection) -> None:
    """Several c= lines in one m-line are layers of one multicast (RFC 8866, section 5.7)."""
    if owner.connection is None:
        owner.connection = connection


def _take_origin(session: Session, raw: bytes, start: int, end: int) -> None:
    """Read o= from its end: user names with spaces are wrong, and in use."""
    fields = raw[start:end].rsplit(None, 4)
    if len(fields) != 5 or session.origin is not None:
        return
    _, version, network, family, host = fields
    host_start = raw.rfind(host, start, end)
    session.origin_version = version.decode("latin-1")
    session.origin = Connection(
        host_start, host_start + len(host), host.decode("latin-1"), _family(network, family))


def _take_rtcp(media: Media, raw: bytes, start: int, end: int) -> None:
    found = _RTCP.match(raw, start, end)
    if found is None or (port := int(found[1])) > 65535 or media.rtcp_port is not None:
        return
    media.rtcp_port = port
    media.rtcp_port_span = found.span(1)
    if found[3] is not None:
        media.rtcp_address = Connection(*found.span(3), found[3].decode("latin-1"), found[2].decode())


def _take_candidate(media: Media, raw: bytes, start: int, end: int) -> None:
    found = _CANDIDATE.match(raw, start, end)
    if found is None or len(media.candidates) == MAX_CANDIDATES or (port := int(found[4])) > 65535:
        return
    media.candidates.append(Candidate(
        int(found[1]), found[2].decode("latin-1").lower(), found[3].decode("latin-1"), port,
        found[5].decode("latin-1").lower(), found.span(3), found.span(4),
    ))


# Bodies


def find_sdp(message: Message) -> Span | None:
    """Return the span of a message's SDP: the whole body, or the only such part of a multipart body.

    None where there is none, where it is encoded, signed or encrypted, and where there are several:
    nothing says which one counts.
    """
    start, end = message.body
    if start == end:
        return None
    raw = message.raw
    content_type = message.first("content-type")
    if content_type is None or not _is_plain(message.text("content-encoding").encode("latin-1")):
        return None
    value = raw[content_type.start:content_type.end]
    if value.lower() == SDP:
        return start, end
    found = list(_descriptions(raw, start, end, value, 0))
    return found[0] if len(found) == 1 else None


def _descriptions(raw: bytes, start: int, end: int, content_type: bytes, depth: int) -> Iterator[Span]:
    """Yield the SDP of a body of this type, or of its parts."""
    kind = _kind(content_type)
    if kind == SDP:
        yield start, end
    elif kind.startswith(b"multipart/") and kind not in OPAQUE_MULTIPARTS and depth < DEEPEST:
        boundary = _BOUNDARY.search(content_type)
        if boundary is not None:
            for part_start, part_end in _parts(raw, start, end, boundary[1] or boundary[2]):
                yield from _in_part(raw, part_start, part_end, depth + 1)


def _in_part(raw: bytes, start: int, end: int, depth: int) -> Iterator[Span]:
    blank = _PART_START.search(raw, start, end)
    if blank is None:
        return
    headers = {
        header[1].lower(): header[2].strip()
        for header in _PART_HEADER.finditer(raw[start:blank.start()].lstrip(b"\r\n"))
    }
    if _is_plain(headers.get(b"content-transfer-encoding", b"")) \
            and _is_plain(headers.get(b"content-encoding", b"")):
        yield from _descriptions(raw, blank.end(), end, headers.get(b"content-type", b""), depth)


def _parts(raw: bytes, start: int, end: int, boundary: bytes) -> Iterator[Span]:
    """Yield the spans between delimiter lines (RFC 2046, section 5.1.1), each from the line end that
    its delimiter has on; the line end before the next delimiter belongs to that one."""
    delimiter = re.compile(rb"(?:\A|\r?\n)--" + re.escape(boundary) + rb"(--)?[ \t]*+(?=\r?\n|\Z)")
    body = raw[start:end]
    part_start = None
    for count, found in enumerate(delimiter.finditer(body)):
        if part_start is not None:
            yield part_start, start + found.start()
        if found[1] is not None or count == MAX_PARTS:
            return
        part_start = start + found.end()


def _kind(content_type: bytes) -> bytes:
    """Return "type/subtype" in lower case, b"" where the text is none."""
    found = _CONTENT_TYPE.match(content_type)
    return b"/".join(found.groups()).lower() if found is not None else b""


def _is_plain(encoding: bytes) -> bool:
    return encoding.strip().lower() in PLAIN_ENCODINGS
