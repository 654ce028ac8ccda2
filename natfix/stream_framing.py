"""What one side of a TCP connection says, cut into SIP messages by Content-Length (RFC 3261, section 18.3).

What began as something else than SIP is never looked at again, and where the cut is in doubt nothing more
is cut: the far end might see other messages than natfix (NAT slipstreaming lives by that).
Heads end and lines end as in :mod:`natfix.sip.message`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from natfix.sip.message import TOKEN

LONGEST_LINE = 4096             # octets of a start line
LONGEST_HEAD = 1 << 16
LONGEST_MESSAGE = 1 << 18       # head and body: natfix holds it until it is whole

_SCHEME = rb"[A-Za-z][A-Za-z0-9+.-]{0,31}+"
_START_LINE = re.compile(
    rb"(?:(?i:SIP)/2\.0[ \t]++[1-6][0-9]{2}(?![0-9])[^\r\n]*+"
    rb"|" + TOKEN + rb"[ \t]++" + _SCHEME + rb":[^\s]++[ \t]++(?i:SIP)/2\.0[ \t]*+)(\r?\n)")
_CONTENT_LENGTH = re.compile(
    rb"^(?:content-length|l)[ \t]*+:([^\n]*+(?:\n[ \t][^\n]*+)*)", re.I | re.M)
_DIGITS = re.compile(rb"[0-9]{1,15}")
_LINE_ENDS = b"\r\n"


def _beginnings(text: str, then: bytes) -> bytes:
    """Return an expression for every beginning of *text*, or all of it and *then*."""
    pattern = then
    for character in reversed(text):
        pattern = rb"(?:" + re.escape(character.encode()) + pattern + rb")?"
    return pattern


# Every beginning of a start line: it is held only as long as it can still become one.
_STATUS = rb"(?:[ \t]++(?:[1-6](?:[0-9](?:[0-9](?:[^0-9\r\n][^\r\n]*+)?\r?)?)?)?)?"
_BEGINNING = re.compile(
    rb"(?i:" + _beginnings("SIP/2.0", _STATUS) + rb")"
    rb"|" + TOKEN + rb"(?:[ \t]++(?:" + _SCHEME + rb"(?::(?:[^\s]++(?:[ \t]++(?i:"
    + _beginnings("SIP/2.0", rb"[ \t]*+\r?") + rb"))?)?)?)?)?")


class Piece(NamedTuple):
    """A whole message, or octets that are to go on as they are."""

    octets: bytes
    is_message: bool


class Framer:
    """Cuts one direction of a connection."""

    __slots__ = ("_buffer", "_line_end", "_need", "_scanned", "began", "is_opaque", "why")

    def __init__(self) -> None:
        self.began = False          # a start line has come whole: this is SIP
        self.is_opaque = False      # nothing is cut any more
        self.why = ""               # why not, for people
        self._buffer = bytearray()
        self._line_end = b""        # of the message that has begun; "" between messages
        self._scanned = 0           # octets that hold no end of the head
        self._need = 0              # octets of the message, once its head is there

    @property
    def held(self) -> int:
        """How many octets wait for those that follow."""
        return len(self._buffer)

    def feed(self, octets: bytes) -> list[Piece]:
        """Take the next octets, at least one; return what they complete."""
        if self.is_opaque:
            return [Piece(octets, False)]
        buffer = self._buffer
        buffer += octets
        pieces = []
        while buffer and len(buffer) >= self._need:
            piece = self._next()
            if piece is None:
                break
            pieces.append(piece)
        return pieces

    def give_up(self, why: str) -> list[Piece]:
        """Cut nothing from here on; return what was held."""
        if self.is_opaque:
            return []
        self.is_opaque, self.why = True, why
        return [self._cut(len(self._buffer), False)] if self._buffer else []

    def _next(self) -> Piece | None:
        """Return the next piece, None where more octets are needed."""
        buffer = self._buffer
        if self._need:
            return self._cut(self._need, True)
        if self._line_end:
            return self._head()
        if buffer[0] in _LINE_ENDS:     # keep-alives (RFC 5626, section 3.5.1), and what ends a message badly
            return self._cut(len(buffer) - len(buffer.lstrip(_LINE_ENDS)), False)
        line = _START_LINE.match(buffer, 0, LONGEST_LINE)
        if line is not None:
            self.began = True
            self._line_end = line[1]
            self._scanned = line.end() - len(line[1])
            return self._head()
        if len(buffer) < LONGEST_LINE and _BEGINNING.fullmatch(buffer):
            return None
        return self._strange("octets of something else where a SIP message has to begin")

    def _head(self) -> Piece | None:
        """Look for the end of the head; return the message where it is whole."""
        blank = self._line_end * 2
        at = self._buffer.find(blank, self._scanned, LONGEST_HEAD)
        if at < 0:
            if len(self._buffer) >= LONGEST_HEAD:
                return self._strange(f"headers without an end within {LONGEST_HEAD} octets")
            self._scanned = max(self._scanned, len(self._buffer) - len(blank) + 1)
            return None
        head = at + len(blank)
        body = self._body_length(head)
        if body is None:
            return self._strange("a Content-Length that is no number, or two that differ")
        if head + body > LONGEST_MESSAGE:
            return self._strange(f"a message of {head + body} octets, more than {LONGEST_MESSAGE}")
        self._need = head + body
        return self._cut(self._need, True) if len(self._buffer) >= self._need else None

    def _body_length(self, head: int) -> int | None:
        """Return how long the body is: 0 where nothing is said, None where it is in doubt."""
        values = {value.strip() for value in _CONTENT_LENGTH.findall(self._buffer, 0, head)}
        if not values:
            return 0
        lengths = {int(value) for value in values if _DIGITS.fullmatch(value)}
        return lengths.pop() if len(lengths) == len(values) == 1 else None

    def _strange(self, why: str) -> Piece:
        return self.give_up(why)[0]

    def _cut(self, size: int, is_message: bool) -> Piece:
        """Take *size* octets off the buffer; what follows begins anew."""
        octets = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._line_end, self._scanned, self._need = b"", 0, 0
        return Piece(octets, is_message)
