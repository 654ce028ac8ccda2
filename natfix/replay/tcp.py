"""TCP connections that carry SIP: their octets in order, their resets, and those that are TLS.

Only connections at SIP's ports, or with a segment that begins as SIP does, are followed. Memory is
bounded: what is oldest is given up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from struct import Struct

from natfix.address import Endpoint
from natfix.replay.framing import Framer, Piece
from natfix.replay.ip import packed_ends
from natfix.replay.messages import SIP_PORTS, is_sip_port, sighting_in_stream
from natfix.replay.model import Datagram, PacketId, Side, Sighting, TcpReset, TlsFlow
from natfix.sip.message import is_sip

MOST_CONNECTIONS = 4096
MOST_OCTETS = 32 << 20          # that wait, of all connections
MOST_AHEAD = 1 << 18            # octets of one direction that wait for what comes before them
FAR = 1 << 20                   # octets apart: another connection, or a large hole
MOST_SEGMENTS = 64              # the same, segments
FIN, SYN, RST, ACK = 1, 2, 4, 16
HEADER = 20                     # octets
TLS_HANDSHAKE, CLIENT_HELLO = 22, 1     # RFC 8446, section 5.1
LOST = "segments before its end are missing in the capture"
UNFINISHED = "the capture ends within it"

_HEADER = Struct("!4xIIBB")
_PORT = Struct("!H")
_SIP_PORTS = frozenset(map(_PORT.pack, SIP_PORTS))
LETTERS = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")

Place = tuple[str, str, str, frozenset[Endpoint]]
Found = Sighting | TcpReset | TlsFlow


@dataclass(slots=True)
class _Half:
    """One direction."""

    framer: Framer = field(default_factory=Framer)
    next: int | None = None             # sequence number that comes next; None: not known yet
    ahead: dict[int, tuple[bytes, PacketId]] = field(default_factory=dict)     # by sequence number
    waits: int = 0                      # octets of ``ahead``
    last: Datagram | None = None


@dataclass(slots=True)
class _Connection:
    halves: dict[tuple[Endpoint, bool | None], _Half] = field(default_factory=dict)
    opener: Endpoint | None = None
    syn: Datagram | None = None         # as long as nothing answered it
    last: Datagram | None = None        # with data, or without
    idle: float = 0.0                   # seconds before ``last``
    is_closing: bool = False
    is_tls: bool = False
    waits: int = 0                      # octets
    known: tuple[bytes, ...] = ()       # its ends, packed, where it is at no SIP port


class TcpStreams:
    """The connections of one input."""

    def __init__(self) -> None:
        self._connections: dict[Place, _Connection] = {}    # least recently used first
        self._known: set[bytes] = set()     # the ends of those that are at no SIP port, packed
        self._waits = 0

    def wants(self, data: bytes, ends: int, header: int) -> bool:
        """Tell, by as little as possible, whether a segment may matter.

        Its addresses begin at *ends*, its header, which follows them, at *header*.
        """
        if data[header:header + 2] in _SIP_PORTS or data[header + 2:header + 4] in _SIP_PORTS:
            return True
        if data[ends:header + 4] in self._known:
            return True
        if len(data) <= header + HEADER:
            return False
        payload = header + (data[header + 12] >> 4) * 4
        return len(data) > payload and data[payload] in LETTERS and is_sip(data[payload:])

    def take(self, datagram: Datagram) -> Iterator[Found]:
        """Take a segment."""
        segment = datagram.payload
        if len(segment) < HEADER:
            return
        sequence, _, offset, flags = _HEADER.unpack_from(segment)
        payload = segment[(offset >> 4) * 4:]
        place = (datagram.stage, datagram.interface, datagram.packets[0].file,
                 frozenset((datagram.source, datagram.destination)))
        connection = self._connections.pop(place, None)
        if connection is None:
            if not is_sip_port(datagram) and not is_sip(payload):
                return
            yield from self._make_room()
            connection = _Connection()
            self._remember(connection, datagram)
        if flags & RST:
            self._drop(connection)
            yield from self._reset(connection, datagram)
            return
        self._connections[place] = connection
        self._note(connection, datagram, flags)
        if flags & SYN:
            _half(connection, datagram).next = (sequence + 1) & 0xFFFFFFFF
        elif payload:
            yield from self._data(connection, datagram, sequence, payload)
        if flags & FIN:
            connection.is_closing = True

    def rest(self) -> Iterator[Found]:
        """Yield what waits for more at the end of the input."""
        while self._connections:
            yield from self._give_up(next(iter(self._connections)))

    def _remember(self, connection: _Connection, datagram: Datagram) -> None:
        """Let :meth:`wants` know a connection that is at no SIP port, in both directions."""
        if not is_sip_port(datagram):
            ends = datagram.source, datagram.destination
            connection.known = (packed_ends(*ends), packed_ends(*reversed(ends)))
            self._known.update(connection.known)

    def _note(self, connection: _Connection, datagram: Datagram, flags: int) -> None:
        """Keep what a later reset is to be judged by."""
        if flags & SYN and not flags & ACK:
            connection.opener, connection.syn = datagram.source, datagram
        elif connection.syn is not None and datagram.source != connection.opener:
            connection.syn = None
        if connection.last is not None:
            connection.idle = max(0.0, datagram.time - connection.last.time)
        connection.last = datagram

    def _reset(self, connection: _Connection, reset: Datagram) -> Iterator[Found]:
        before = connection.syn or connection.last
        yield from self._end_halves(connection, "the connection was reset within it")
        if before is None or connection.is_closing:
            return
        yield TcpReset(
            (before.packets[0], reset.packets[0]), reset.time, reset.stage, before.source, before.destination,
            refused=connection.syn is not None, idle=connection.idle)

    def _data(self, connection: _Connection, datagram: Datagram, sequence: int,
              payload: bytes) -> Iterator[Found]:
        """Take a segment's octets."""
        half = _half(connection, datagram)
        if payload[0] == TLS_HANDSHAKE and payload[1:2] == b"\x03" and not half.framer.has_messages:
            yield from _tls(connection, datagram, payload)
        apart = _signed(sequence - half.next) if half.next is not None else FAR
        if abs(apart) >= FAR:
            if not is_sip(payload):
                return
            yield from self._pieces(datagram, half.framer.end(LOST))
            half.next, apart = sequence, 0
        before = len(half.framer) + half.waits
        if apart > 0:
            self._put_aside(half, sequence, payload, datagram.packets[0])
            if half.waits > MOST_AHEAD or len(half.ahead) > MOST_SEGMENTS:
                yield from self._pieces(datagram, half.framer.end(LOST))
                half.next = min(half.ahead, key=lambda each: _signed(each - sequence))
        else:
            yield from self._pieces(datagram, _feed(half, sequence, payload, datagram.packets[0]))
        yield from self._pieces(datagram, _follow_up(half))
        gained = len(half.framer) + half.waits - before
        connection.waits += gained
        self._waits += gained

    @staticmethod
    def _put_aside(half: _Half, sequence: int, payload: bytes, packet: PacketId) -> None:
        if sequence not in half.ahead:
            half.ahead[sequence] = (payload, packet)
            half.waits += len(payload)

    @staticmethod
    def _pieces(datagram: Datagram, pieces: Iterator[Piece]) -> Iterator[Found]:
        for piece in pieces:
            packets = piece.packets or datagram.packets
            yield sighting_in_stream(datagram, packets, piece.payload, piece.problem)

    def _end_halves(self, connection: _Connection, problem: str) -> Iterator[Found]:
        for (source, _), half in connection.halves.items():
            last = half.last
            if last is not None and last.source == source:
                yield from self._pieces(last, half.framer.end(problem if not half.ahead else LOST))

    def _make_room(self) -> Iterator[Found]:
        while len(self._connections) >= MOST_CONNECTIONS or self._waits > MOST_OCTETS:
            yield from self._give_up(next(iter(self._connections)))

    def _give_up(self, place: Place) -> Iterator[Found]:
        connection = self._connections.pop(place)
        self._drop(connection)
        yield from self._end_halves(connection, UNFINISHED)

    def _drop(self, connection: _Connection) -> None:
        """Forget what the table counts of a connection that is no longer in it."""
        self._waits -= connection.waits
        self._known.difference_update(connection.known)


def _half(connection: _Connection, datagram: Datagram) -> _Half:
    """Return a segment's direction; copies of one segment on its way through a box are kept apart."""
    key = (datagram.source, datagram.outgoing)
    half = connection.halves.get(key)
    if half is None:
        half = connection.halves[key] = _Half()
    half.last = datagram
    return half


def _signed(difference: int) -> int:
    """Return how far a sequence number is ahead of another (RFC 793, section 3.3: modulo 2**32)."""
    return ((difference + 0x80000000) & 0xFFFFFFFF) - 0x80000000


def _feed(half: _Half, sequence: int, payload: bytes, packet: PacketId) -> Iterator[Piece]:
    """Take octets that begin at, or before, the next ones; what was there already is a retransmission."""
    assert half.next is not None
    new = payload[_signed(half.next - sequence):]
    if new:
        half.next = (half.next + len(new)) & 0xFFFFFFFF
        yield from half.framer.feed(new, packet)


def _follow_up(half: _Half) -> Iterator[Piece]:
    """Take what waited, as far as its turn has come."""
    while half.ahead and half.next is not None:
        next_one = half.next
        sequence = min(half.ahead, key=lambda each: _signed(each - next_one))
        if _signed(sequence - next_one) > 0:
            return
        payload, packet = half.ahead.pop(sequence)
        half.waits -= len(payload)
        yield from _feed(half, sequence, payload, packet)


def _tls(connection: _Connection, datagram: Datagram, payload: bytes) -> Iterator[TlsFlow]:
    """Tell of a connection whose content is TLS, once."""
    if connection.is_tls:
        return
    connection.is_tls = True
    is_from_client = payload[5:6] == bytes((CLIENT_HELLO,))
    opener = connection.opener or (datagram.source if is_from_client else datagram.destination)
    other = datagram.destination if opener == datagram.source else datagram.source
    yield TlsFlow(datagram.packets, datagram.time, datagram.stage, Side.UNKNOWN, opener, other)
