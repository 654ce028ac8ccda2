"""SIP messages in a stream of octets, cut by Content-Length (RFC 3261, section 18.3)."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from natfix.replay.model import PacketId
from natfix.sip.message import is_sip

LONGEST_HEAD = 1 << 16          # octets
LONGEST_BODY = 1 << 18
LONGEST_LINE = 4096             # of what may become a start line

_CONTENT_LENGTH = re.compile(rb"^(?:content-length|l)[ \t]*+:[ \t]*+([0-9]{1,15}+)[ \t\r]*+$", re.I | re.M)
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_NEXT_START = re.compile(
    rb"\n(?=SIP/2\.0[ ][1-6][0-9][0-9]|[A-Z]{2,20}+[ ][^\s]{1,2000}+[ ]SIP/2\.0\r?\n)")


class Piece(NamedTuple):
    """A message, or octets between messages."""

    payload: bytes
    packets: tuple[PacketId, ...]
    problem: str = ""


class Framer:
    """Cuts one direction of a connection into messages."""

    def __init__(self) -> None:
        self.has_messages = False
        self._buffer = b""
        self._parts: list[bytes] = []       # of a long body, that come behind the buffer
        self._size = 0              # octets of the buffer and the parts
        self._need = 0              # octets of the message that is being waited for, once its head is there
        self._head = 0              # octets of that head
        self._marks: deque[tuple[int, PacketId]] = deque()      # where in the buffer each packet's octets end

    def __len__(self) -> int:
        return self._size

    def feed(self, data: bytes, packet: PacketId) -> Iterator[Piece]:
        """Take the next octets; yield what they complete."""
        if self._need and data[0] not in b"\r\n" and is_sip(data):
            came = self._size - self._head
            self._join()
            claimed = self._need - self._head
            problem = f"Content-Length is {claimed}, but {came} octets come before the next message"
            yield self._cut(len(self._buffer), problem)
        self._parts.append(data)
        self._size += len(data)
        self._marks.append((self._size, packet))
        if self._size < self._need:
            return                  # and joined once: a body may come octet by octet
        self._join()
        while self._buffer:
            piece = self._next()
            if piece is None:
                break
            if piece.payload:
                yield piece

    def end(self, problem: str) -> Iterator[Piece]:
        """Give up what waits for its end, because of *problem*."""
        self._join()
        if self._buffer and self.has_messages:
            yield self._cut(len(self._buffer), problem)
        self._buffer, self._size, self._need = b"", 0, 0
        self._marks.clear()

    def _join(self) -> None:
        self._buffer = b"".join((self._buffer, *self._parts))
        self._parts.clear()

    def _next(self) -> Piece | None:
        """Return the next piece; an empty one for keep-alives, None where more octets are needed."""
        buffer = self._buffer
        if buffer[0] in b"\r\n":
            self._cut(len(buffer) - len(buffer.lstrip(b"\r\n")))
            return Piece(b"", ())
        if self._need:
            return self._cut(self._need) if len(buffer) >= self._need else None
        if not is_sip(buffer):
            return self._strange()
        self.has_messages = True
        head_end = _HEAD_END.search(buffer)
        if head_end is None:
            too_long = len(buffer) > LONGEST_HEAD
            return self._cut(len(buffer), f"no end of its headers within {LONGEST_HEAD} octets") \
                if too_long else None
        return self._whole(head_end.end())

    def _whole(self, head: int) -> Piece | None:
        """Return the message whose head has *head* octets."""
        buffer = self._buffer
        length = _CONTENT_LENGTH.search(buffer, 0, head)
        if length is None:
            start = _NEXT_START.search(buffer, head - 1)
            return self._cut(start.end() if start is not None else len(buffer))
        size = int(length[1])
        if size > LONGEST_BODY:
            return self._cut(len(buffer), f"Content-Length claims {size} octets")
        self._head, self._need = head, head + size
        return self._cut(self._need) if len(buffer) >= self._need else None

    def _strange(self) -> Piece | None:
        """Cut what is no beginning of a message, up to the next one that begins on a line of its own."""
        buffer = self._buffer
        if b"\n" not in buffer and len(buffer) < LONGEST_LINE:
            return None
        start = _NEXT_START.search(buffer)
        end = start.end() if start is not None else len(buffer)
        piece = self._cut(end, f"{end} octets between messages that belong to none: a Content-Length before "
                               "them is too small")
        return piece if self.has_messages else Piece(b"", ())

    def _cut(self, size: int, problem: str = "") -> Piece:
        """Take *size* octets off the buffer, with the packets that they came in."""
        payload, self._buffer = self._buffer[:size], self._buffer[size:]
        self._size = len(self._buffer)
        self._need = self._head = 0
        packets = []
        marks = self._marks
        while marks:
            end, packet = marks[0]
            packets.append(packet)
            if end > size:
                break
            marks.popleft()
            if end == size:
                break
        self._marks = deque((end - size, packet) for end, packet in marks)
        return Piece(payload, tuple(dict.fromkeys(packets)), problem)
