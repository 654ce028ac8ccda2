"""IP fragments, put together again (RFC 791, section 3.2; RFC 8200, section 4.5), in bounded memory."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import NamedTuple

from natfix.replay.model import Frame, PacketId

LIFETIME = 30.0                 # seconds; RFC 791 says 15, RFC 8200 says 60
MOST_DATAGRAMS = 512            # that wait for a piece
MOST_PIECES = 128               # of one datagram: 65,535 octets over an MTU of 576
MOST_OCTETS = 16 << 20          # in all that wait
LONGEST = 0xFFFF                # octets of a datagram


class Whole(NamedTuple):
    """A datagram's pieces, joined."""

    head: bytes                 # the first fragment's headers, as they were
    body: bytes
    packets: tuple[PacketId, ...]
    frame: Frame                # that the last piece came in
    incomplete: bool            # something behind ``body`` is missing


@dataclass(slots=True)
class _Waiting:
    born: float
    frame: Frame
    head: bytes = b""           # of the piece with offset 0
    size: int = 0               # of the whole body; 0: the last piece was not seen
    have: int = 0               # octets
    pieces: dict[int, bytes] = field(default_factory=dict)      # by offset
    packets: list[PacketId] = field(default_factory=list)


class Fragments:
    """The datagrams of which pieces are missing."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, _Waiting] = {}    # oldest first
        self._octets = 0
        self.given_up: list[Whole] = []     # what will never be whole, but began; for the caller to take

    def add(self, key: Hashable, head: bytes, offset: int, is_last: bool, body: bytes,
            frame: Frame) -> Whole | None:
        """Take a fragment; return the datagram where that made it whole.

        Of octets that come twice, those that came first are taken, as most receivers do.
        """
        waiting = self._waiting.get(key)
        if waiting is not None and abs(frame.time - waiting.born) > LIFETIME:
            self._give_up(key)
            waiting = None
        if waiting is None:
            self._make_room()
            waiting = self._waiting[key] = _Waiting(frame.time, frame)
        if offset + len(body) > LONGEST or len(waiting.pieces) >= MOST_PIECES:
            self._give_up(key)
            return None
        self._put(waiting, head, offset, is_last, body)
        waiting.packets.append(PacketId(frame.number, frame.file))
        waiting.frame = frame
        if not waiting.size or not waiting.head or waiting.have < waiting.size:
            return None
        whole = _joined(waiting)
        if whole.incomplete:
            return None
        self._forget(key)
        return whole

    def rest(self) -> list[Whole]:
        """Return what never became whole, but began; nothing is waited for any more."""
        for key in [*self._waiting]:
            self._give_up(key)
        return self.take_given_up()

    def take_given_up(self) -> list[Whole]:
        """Return what was given up since the last time."""
        given_up, self.given_up = self.given_up, []
        return given_up

    def _put(self, waiting: _Waiting, head: bytes, offset: int, is_last: bool, body: bytes) -> None:
        if offset == 0 and not waiting.head:
            waiting.head = head
        if is_last:
            waiting.size = offset + len(body)
        if offset not in waiting.pieces:
            waiting.pieces[offset] = body
            waiting.have += len(body)
            self._octets += len(body)

    def _make_room(self) -> None:
        while len(self._waiting) >= MOST_DATAGRAMS or self._octets > MOST_OCTETS:
            self._give_up(next(iter(self._waiting)))

    def _give_up(self, key: Hashable) -> None:
        waiting = self._waiting[key]
        self._forget(key)
        if waiting.head:
            self.given_up.append(_joined(waiting)._replace(incomplete=True))

    def _forget(self, key: Hashable) -> None:
        self._octets -= self._waiting.pop(key).have


def _joined(waiting: _Waiting) -> Whole:
    """Join the pieces from the first one on, as far as there is no hole."""
    body = bytearray()
    for offset, piece in sorted(waiting.pieces.items()):
        if offset > len(body):
            break
        body += piece[len(body) - offset:]
    is_whole = 0 < waiting.size <= len(body)
    return Whole(waiting.head, bytes(body[:waiting.size] if is_whole else body), tuple(waiting.packets),
                 waiting.frame, not is_whole)
