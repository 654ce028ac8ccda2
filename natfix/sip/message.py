"""A SIP message as spans into its datagram (RFC 3261, section 7): nothing is copied or normalised.

One linear regular expression finds the headers that natfix reads; all others are never looked at.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from natfix.errors import MalformedMessage

MAX_HEADERS = 512           # of those that natfix reads; more is an attack, not a message

# Header names that natfix reads, with their compact form (RFC 3261, section 7.3.3, and the IANA registry).
NAMES = {
    "Via": "v", "From": "f", "To": "t", "Call-ID": "i", "CSeq": "", "Contact": "m", "Route": "",
    "Record-Route": "", "Path": "", "Service-Route": "", "Content-Length": "l", "Content-Type": "c",
    "Content-Encoding": "e", "Expires": "", "User-Agent": "", "Server": "", "P-Asserted-Identity": "",
    "P-Preferred-Identity": "", "Diversion": "", "History-Info": "", "Remote-Party-ID": "",
    "Reply-To": "", "Refer-To": "r", "Referred-By": "b", "Warning": "", "Call-Info": "",
    "Authorization": "", "Proxy-Authorization": "", "Subscription-State": "",
}
_CANONICAL = {
    spelling.lower().encode(): name.lower()
    for name, compact in NAMES.items() for spelling in (name, compact) if spelling
}

_TOKEN = rb"[A-Za-z0-9.!%*_+`'~-]"
_START_LINE = re.compile(
    rb"SIP/2\.0 +(?P<status>[1-6][0-9]{2})(?=[ \r\n])[^\r\n]*\r?\n"
    rb"|(?P<method>" + _TOKEN + rb"{1,64}) +(?P<uri>[^ \r\n]+) +SIP/2\.0 *\r?\n",
    re.IGNORECASE,
)
# The lookahead keeps the empty line that ends the headers for the next match to see. A value goes on over
# lines that begin with white space (RFC 3261, section 7.3.1).
_HEADER = re.compile(
    rb"^(" + b"|".join(re.escape(spelling) for spelling in _CANONICAL) + rb")[ \t]*:[ \t]*"
    rb"([^\r\n]*(?:\r?\n[ \t][^\r\n]*)*)",
    re.IGNORECASE | re.MULTILINE,
)
_TAG = re.compile(rb";[ \t\r\n]*tag[ \t\r\n]*=[ \t\r\n]*([^ \t\r\n;,>]+)", re.IGNORECASE)
_BRANCH = re.compile(rb";[ \t\r\n]*branch[ \t\r\n]*=[ \t\r\n]*([^ \t\r\n;,]+)", re.IGNORECASE)
_CSEQ = re.compile(rb"([0-9]{1,10})[ \t\r\n]+(" + _TOKEN + rb"{1,64})[ \t\r\n]*")
_LENGTH = re.compile(rb"[0-9]{1,9}[ \t\r\n]*")


class Header(NamedTuple):
    """One header line: its long name in lower case, and the span of its value."""

    name: str
    start: int
    end: int


class Message:
    """A request or response; spans are offsets into ``raw``."""

    __slots__ = (
        "_first", "body", "branch", "call_id", "cseq", "cseq_method", "from_tag", "headers", "is_request",
        "method", "raw", "request_uri", "status", "to_tag",
    )

    def __init__(self, raw: bytes, start: re.Match[bytes]) -> None:
        self.raw = raw
        self.is_request = start["method"] is not None
        self.status = 0 if self.is_request else int(start["status"])
        self.request_uri = start.span("uri") if self.is_request else (0, 0)
        head_end, body_start = _end_of_headers(raw, start.end())
        self.headers = _headers(raw, start.end(), head_end)
        self._first: dict[str, Header] = {}
        for header in self.headers:
            self._first.setdefault(header.name, header)
        self.body = (body_start, self._body_end(body_start))
        self.call_id = self.text("call-id")
        self.cseq, self.cseq_method = self._cseq()
        self.method = start["method"].decode() if self.is_request else self.cseq_method
        self.from_tag = self._tag("from")
        self.to_tag = self._tag("to")
        self.branch = self._parameter("via", _BRANCH)

    def first(self, name: str) -> Header | None:
        """Return the first header called *name* (long form, lower case)."""
        return self._first.get(name)

    def all(self, name: str) -> list[Header]:
        """Return every header called *name*."""
        return [header for header in self.headers if header.name == name] if name in self._first else []

    def text(self, name: str) -> str:
        """Return the value of the first header called *name*, "" where there is none."""
        header = self._first.get(name)
        return self.raw[header.start:header.end].decode("latin-1").strip() if header else ""

    @property
    def user_agent(self) -> str:
        """How the sender calls itself."""
        return self.text("user-agent") or self.text("server")

    def _body_end(self, start: int) -> int:
        """Return where the body ends: bytes after Content-Length are not part of it (RFC 3261, 18.3)."""
        lengths = {self.raw[h.start:h.end].strip() for h in self.all("content-length")}
        if not lengths:
            return len(self.raw)
        if len(lengths) > 1:
            raise MalformedMessage("two Content-Length headers contradict each other")
        text = lengths.pop()
        if _LENGTH.fullmatch(text) is None:
            raise MalformedMessage("Content-Length is not a number")
        end = start + int(text)
        if end > len(self.raw):
            raise MalformedMessage("the body is shorter than Content-Length says")
        return end

    def _cseq(self) -> tuple[int, str]:
        header = self._first.get("cseq")
        match = _CSEQ.fullmatch(self.raw, header.start, header.end) if header else None
        if match is None:
            raise MalformedMessage("no CSeq that can be read")
        return int(match[1]), match[2].decode()

    def _tag(self, name: str) -> str:
        header = self._first.get(name)
        if header is None:
            return ""
        after_uri = self.raw.rfind(b">", header.start, header.end)
        match = _TAG.search(self.raw, max(after_uri, header.start), header.end)
        return match[1].decode("latin-1") if match else ""

    def _parameter(self, name: str, pattern: re.Pattern[bytes]) -> str:
        header = self._first.get(name)
        match = pattern.search(self.raw, header.start, header.end) if header else None
        return match[1].decode("latin-1") if match else ""


def is_sip(payload: bytes) -> bool:
    """Tell SIP from keep-alives, STUN and the rest by its first line, cheaply."""
    start = 0
    while payload[start:start + 1] in (b"\r", b"\n") and start < 8:
        start += 1
    end = payload.find(b"\n", start)
    return end >= 0 and payload.upper().find(b"SIP/2.0", start, end) >= 0 if start < len(payload) else False


def message_from_bytes(payload: bytes) -> Message:
    """Read the headers of a message.

    Leading empty lines are skipped (RFC 3261, section 7.5). Raises MalformedMessage where the start line,
    CSeq or Content-Length cannot be trusted.
    """
    start = 0
    while payload.startswith((b"\r\n", b"\n"), start):
        start += 1
    match = _START_LINE.match(payload, start)
    if match is None:
        raise MalformedMessage("no SIP/2.0 start line")
    return Message(payload, match)


def _end_of_headers(raw: bytes, start: int) -> tuple[int, int]:
    """Return where the last header ends, and where the body begins."""
    start -= 2 if raw.startswith(b"\r\n", start - 2) else 1
    for empty_line in (b"\r\n\r\n", b"\n\n", b"\n\r\n"):
        end = raw.find(empty_line, start)
        if end >= 0:
            return end + 1, end + len(empty_line)
    return len(raw), len(raw)


def _headers(raw: bytes, start: int, end: int) -> list[Header]:
    headers = [
        Header(_CANONICAL[match[1].lower()], *match.span(2)) for match in _HEADER.finditer(raw, start, end)
    ]
    if len(headers) > MAX_HEADERS:
        raise MalformedMessage("too many headers")
    return headers
