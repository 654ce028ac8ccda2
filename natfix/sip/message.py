"""SIP messages as spans: the start line, the headers natfix reads, the body.

Nothing is copied or decoded but the few texts that every message is looked up by. Offsets are those of
the UDP payload. A message that two readers could take apart differently is refused: what natfix sees
must be what the user agents see.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from natfix.errors import MalformedMessage
from natfix.sip.fields import QUOTED_STRING, Via, via_at

Span = tuple[int, int]

# The headers natfix reads, as they are usually written, with their compact forms (RFC 3261, 7.3.3).
HEADERS = (
    "Via v", "From f", "To t", "Call-ID i", "CSeq", "Contact m", "Route", "Record-Route", "Path",
    "Service-Route", "Content-Length l", "Content-Type c", "Content-Encoding e", "Content-Disposition",
    "Expires", "User-Agent", "Server", "P-Asserted-Identity", "P-Preferred-Identity", "Diversion",
    "History-Info", "Remote-Party-ID", "Reply-To", "Refer-To r", "Referred-By b", "Replaces", "Warning",
    "Call-Info", "Require", "Supported k", "RSeq", "RAck", "Session-Expires x", "Authorization",
    "Proxy-Authorization", "Event o", "Subscription-State",
)
# Others that are common: listed so that they are skipped at the first look.
SKIPPED = (
    "Accept", "Accept-Encoding", "Accept-Language", "Allow", "Allow-Events", "u", "Date", "Max-Forwards",
    "MIME-Version", "Min-SE", "Organization", "Privacy", "Proxy-Authenticate", "Subject", "s", "Timestamp",
    "WWW-Authenticate",
)
# RFC 3261, section 8.1.1 asks for From and To as well; nothing is found by these alone.
MANDATORY = ("via", "call-id", "cseq")
# A second one that says otherwise makes the message mean different things to different readers.
SINGLE = frozenset({"from", "to", "call-id", "cseq", "content-length", "content-type", "content-encoding"})

MAX_HEADERS = 512               # of those that natfix reads
MAX_CSEQ = 2**32 - 1            # RFC 3261 has 2**31 - 1; some user agents start anywhere

TOKEN = rb"[A-Za-z0-9.!%*_+`'~-]{1,64}+"
_START_LINE = re.compile(
    rb"[\r\n]*+(?:(?i:SIP)/2\.0[ \t]++([1-6][0-9]{2})(?![0-9])[ \t]*+([^\r\n]*+)"
    rb"|(" + TOKEN + rb")[ \t]++([^\s]++)[ \t]++(?i:SIP)/2\.0[ \t]*+)(\r?\n)")
_FOLD = re.compile(rb"\n[ \t]")
_CSEQ = re.compile(rb"([0-9]{1,10}+)\s++(" + TOKEN + rb")\Z")
# The tag among the header's parameters: behind the name-addr, or the bare URI, and not in quotes.
_TAG = re.compile(
    rb"(?:[^\"<;]++|" + QUOTED_STRING + rb")*(?:<[^<>]*+>\s*+)?"
    rb"(?:;(?!\s*+(?i:tag)\s*+=)(?:[^;\"]++|" + QUOTED_STRING + rb")*)*"
    rb";\s*+(?i:tag)\s*+=\s*+([^\s;,\"]++)", re.S)


def _names(headers: tuple[str, ...], skipped: tuple[str, ...]) -> dict[bytes, str]:
    """Return the canonical name by each usual spelling; "" for what is skipped."""
    table = {}
    for entry in headers:
        canonical = entry.split()[0].lower()
        for name in entry.split():
            table.update({spelling.encode(): canonical for spelling in (name, name.lower(), name.upper())})
    for name in skipped:
        table.update({spelling.encode(): "" for spelling in (name, name.lower(), name.upper())})
    return table


_NAMES = _names(HEADERS, SKIPPED)


class Header(NamedTuple):
    """One header that natfix reads; the span is its value, continuation lines included."""

    name: str                   # canonical: lower case, long form
    start: int
    end: int                    # without white space at either end


@dataclass(slots=True, eq=False)
class Message:
    """A SIP request or response."""

    raw: bytes
    is_request: bool
    method: str                 # of a response: CSeq's
    status: int                 # 100 to 699; 0 for requests
    reason: str                 # "" for requests
    request_uri: Span           # (0, 0) for responses
    headers: list[Header]       # in the message's order
    body: Span
    call_id: str
    from_tag: str               # "" where there is none
    to_tag: str
    cseq: int
    cseq_method: str
    _first: dict[str, Header]
    _via: Via | None = None     # once it was asked for
    _branch: str | None = None  # likewise

    def first(self, name: str) -> Header | None:
        """Return the topmost header called *name* (canonical), None where there is none."""
        return self._first.get(name)

    def all(self, name: str) -> list[Header]:
        """Return all headers called *name* (canonical), from the top."""
        return [header for header in self.headers if header.name == name]

    def text(self, name: str) -> str:
        """Return the value of the topmost header called *name* as written, "" where there is none."""
        header = self._first.get(name)
        return "" if header is None else self.raw[header.start:header.end].decode("latin-1")

    @property
    def via(self) -> Via:
        """The topmost Via; raises MalformedMessage where it cannot be read."""
        if self._via is None:
            header = self._first["via"]
            self._via = via_at(self.raw, header.start, header.end)
        return self._via

    @property
    def branch(self) -> str:
        """The topmost Via's branch: with the method it names the transaction (RFC 3261, 17.1.3)."""
        if self._branch is None:
            try:
                start, end = self.via.params.get("branch", (0, 0))
            except MalformedMessage:
                start, end = 0, 0
            self._branch = self.raw[start:end].decode("latin-1")
        return self._branch

    @property
    def user_agent(self) -> str:
        """What the sender calls itself: User-Agent, or Server in responses; "" where it does not."""
        return self.text("user-agent") or self.text("server")


def is_sip(payload: bytes) -> bool:
    """Tell, by its first line only, whether a payload is a SIP message; keep-alives and STUN are not."""
    return _START_LINE.match(payload) is not None


def message_from_bytes(payload: bytes) -> Message:
    """Take a SIP message apart; raises MalformedMessage where it is none, or is not safely understood."""
    start_line = _START_LINE.match(payload)
    if start_line is None:
        raise MalformedMessage("no SIP start line")
    status, reason, method, _, line_end = start_line.groups()
    at = start_line.end()
    stop, body_start = _header_block(payload, at, line_end)
    headers, first = _headers(payload, at, stop, line_end)
    for name in MANDATORY:
        if name not in first:
            raise MalformedMessage(f"no {name} header")
    cseq, cseq_method = _cseq(payload, first["cseq"])
    if method is not None and method.decode() != cseq_method:
        raise MalformedMessage("CSeq names another method")
    return Message(
        payload,
        method is not None,
        cseq_method,
        int(status or 0),
        reason.decode("latin-1") if reason else "",
        start_line.span(4) if method is not None else (0, 0),
        headers,
        (body_start, _body_end(payload, body_start, first.get("content-length"))),
        payload[first["call-id"].start:first["call-id"].end].decode("latin-1"),
        _tag(payload, first.get("from")),
        _tag(payload, first.get("to")),
        cseq,
        cseq_method,
        first,
    )


def _header_block(payload: bytes, at: int, line_end: bytes) -> Span:
    """Return where the headers end and where the body starts."""
    if payload[at:at + 1] in (b" ", b"\t"):
        raise MalformedMessage("the start line is folded")
    blank = payload.find(line_end + line_end, at - len(line_end))
    if blank < 0:
        return len(payload), len(payload)       # the datagram ends with the headers
    return max(blank, at), blank + 2 * len(line_end)


def _headers(
    payload: bytes, at: int, stop: int, line_end: bytes
) -> tuple[list[Header], dict[str, Header]]:
    """Return the headers that natfix reads, in order, and the first of each name."""
    headers: list[Header] = []
    first: dict[str, Header] = {}
    for line in _lines(payload[at:stop], line_end):
        written, colon, value = line.partition(b":")
        name = _NAMES.get(written)
        if name is None:
            name = _NAMES.get(written.rstrip().lower(), "")
        end = at + len(line)
        if name and colon:
            start = end - len(value.lstrip())
            # Header(...) takes twice as long, and each message has a dozen.
            header = tuple.__new__(Header, (name, start, start + len(value.strip())))
            headers.append(header)
            if name not in first:
                first[name] = header
            elif name in SINGLE:
                _refuse_contradiction(payload, first[name], header)
        at = end + len(line_end)
    if len(headers) > MAX_HEADERS:
        raise MalformedMessage(f"more than {MAX_HEADERS} headers")
    return headers, first


def _lines(block: bytes, line_end: bytes) -> list[bytes]:
    """Split the headers into lines; continuation lines (RFC 3261, 7.3.1) are joined to those before.

    Lengths stay: a fold becomes as many spaces. Raises where a line could be seen to end elsewhere.
    """
    if _FOLD.search(block) is not None:
        for blank in (b" ", b"\t"):
            block = block.replace(line_end + blank, b" " * (len(line_end) + 1))
    lines = block.split(line_end)
    joined = b"".join(lines)
    if b"\n" in joined or b"\r" in joined:
        raise MalformedMessage("header lines end in more than one way")
    return lines


def _refuse_contradiction(payload: bytes, one: Header, other: Header) -> None:
    if payload[one.start:one.end] != payload[other.start:other.end]:
        raise MalformedMessage(f"two {one.name} headers contradict each other")


def _cseq(payload: bytes, header: Header) -> tuple[int, str]:
    found = _CSEQ.match(payload, header.start, header.end)
    if found is None or (number := int(found[1])) > MAX_CSEQ:
        raise MalformedMessage("CSeq cannot be read")
    return number, found[2].decode()


def _tag(payload: bytes, header: Header | None) -> str:
    if header is None:
        return ""
    found = _TAG.match(payload, header.start, header.end)
    return found[1].decode("latin-1") if found is not None else ""


def _body_end(payload: bytes, start: int, header: Header | None) -> int:
    """Return where the body ends: what follows Content-Length's bytes is none of it (RFC 3261, 18.3)."""
    if header is None:
        return len(payload)
    digits = payload[header.start:header.end]
    if not digits.isdigit() or len(digits) > 9:
        raise MalformedMessage("Content-Length is no number")
    end = start + int(digits)
    if end > len(payload):
        raise MalformedMessage("Content-Length is longer than the datagram")
    return end
