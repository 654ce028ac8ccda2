"""What was read, on disk between the passes: memory stays bounded whatever the size of the captures.

Both spools are files without a name: nothing of a capture is left behind, however the program ends.
Records are plain tuples in :mod:`marshal`'s format, which only the process that wrote them reads.
"""

from __future__ import annotations

import heapq
import marshal
import struct
import tempfile
from collections.abc import Iterator
from itertools import count
from typing import Any, NamedTuple

from natfix.address import Endpoint
from natfix.commands import Note
from natfix.replay.model import Direction, IpFacts, PacketId, Sighting
from natfix.replay.parsed import message_from_parts, parts_of

LOOKAHEAD = 1024            # records that are sorted in memory before they are written
BUFFER = 1 << 16            # octets
SIZE = struct.Struct("<I")

Record = tuple[Any, ...]


class Row(NamedTuple):
    """All that the outputs need of one passage, once nobody thinks about it any more.

    ``datagram`` is the IP packet that ``before`` came in (b"" for TCP, text and what was cut). ``source``
    and ``destination`` are where it came out, behind natfix's NAT: None where natfix was not shown it;
    with ``dropped``, a reason, it did not go on.
    """

    time: float
    packets: tuple[PacketId, ...]       # of all its sightings, in path order
    summary: str                        # "INVITE sip:bob@example.com", "200 OK (INVITE)"
    call_id: str
    direction: Direction
    transport: str
    seen_source: Endpoint               # of the copy that is ``before``
    seen_destination: Endpoint
    before: bytes
    after: bytes
    edits: tuple[Note, ...]
    left_alone: tuple[Note, ...]
    dropped: str = ""
    source: Endpoint | None = None
    destination: Endpoint | None = None
    datagram: bytes = b""
    is_repeat: bool = False


class Spool:
    """A sequence of records on disk, to be read as often as one likes once it is written."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=BUFFER)       # noqa: SIM115 (it lives as long as this)
        self._unwritten: list[bytes] = []
        self._size = self._written = 0
        self.count = 0

    def append(self, record: Record) -> int:
        """Add a record; return where it stands."""
        data = marshal.dumps(record)
        place = self._size
        self._unwritten += (SIZE.pack(len(data)), data)
        self._size += SIZE.size + len(data)
        self.count += 1
        if self._size - self._written > BUFFER:
            self._write()
        return place

    def _write(self) -> None:
        self._file.write(b"".join(self._unwritten))
        self._unwritten.clear()
        self._written = self._size

    def read(self, start: int = 0, end: int | None = None) -> Iterator[Record]:
        """Yield the records between two places; several readers may take turns."""
        self._write()
        self._file.flush()
        end = self._size if end is None else end
        buffer, at = b"", 0
        while start < end:
            if len(buffer) - at < SIZE.size:
                buffer, at = self._load(start, SIZE.size), 0
            (size,) = SIZE.unpack_from(buffer, at)
            if len(buffer) - at < SIZE.size + size:
                buffer, at = self._load(start, SIZE.size + size), 0
            yield marshal.loads(buffer[at + SIZE.size:at + SIZE.size + size])
            at += SIZE.size + size
            start += SIZE.size + size

    def _load(self, start: int, least: int) -> bytes:
        position = self._file.tell()
        self._file.seek(start)
        data: bytes = self._file.read(max(BUFFER, least))
        self._file.seek(position)
        return data

    def close(self) -> None:
        """Give the disk space back."""
        self._file.close()


class SortedSpool:
    """Records in the order of time, whatever order they come in.

    Replacement selection: what comes out of order by no more than LOOKAHEAD records costs nothing; a
    capture that was put together from others makes a few runs, which are merged when they are read.
    """

    def __init__(self) -> None:
        self._spool = Spool()
        self._heap: list[tuple[int, float, int, Record]] = []
        self._number = count()
        self._runs: list[int] = [0]         # where each begins
        self._run, self._last = 0, float("-inf")

    @property
    def count(self) -> int:
        """How many records there are."""
        return self._spool.count + len(self._heap)

    def append(self, time: float, record: Record) -> None:
        """Add a record of *time*."""
        run = self._run + (time < self._last)
        heapq.heappush(self._heap, (run, time, next(self._number), record))
        if len(self._heap) > LOOKAHEAD:
            self._write()

    def _write(self) -> None:
        run, time, number, record = heapq.heappop(self._heap)
        place = self._spool.append((time, number, record))
        if run != self._run:
            self._run = run
            self._runs.append(place)
        self._last = time

    def read(self) -> Iterator[Record]:
        """Yield (time, number in the order of arrival, record), sorted."""
        while self._heap:
            self._write()
        ends = [*self._runs[1:], None]
        runs = [self._spool.read(start, end) for start, end in zip(self._runs, ends, strict=True)]
        return heapq.merge(*runs)

    def close(self) -> None:
        self._spool.close()


def record_from_sighting(sighting: Sighting) -> Record:
    """Return *sighting* as plain data."""
    ip, payload, message = sighting.ip, sighting.payload, sighting.message
    kept: bytes | int = payload
    if payload and ip.endswith(payload):
        kept = len(ip) - len(payload)       # as it is there already
    return (
        tuple(map(tuple, sighting.packets)), sighting.stage, sighting.interface, sighting.outgoing,
        sighting.transport, tuple(sighting.source), tuple(sighting.destination), kept, sighting.problem,
        tuple(sighting.facts), ip, parts_of(message) if message is not None else None,
    )


def sighting_from_record(time: float, record: Record) -> Sighting:
    """Return the sighting that :func:`record_from_sighting` took apart."""
    (packets, stage, interface, outgoing, transport, source, destination, payload, problem, facts, ip,
     parts) = record
    if isinstance(payload, int):
        payload = ip[payload:]
    new = tuple.__new__         # of a named tuple: three times as fast as calling it
    return Sighting(
        tuple([new(PacketId, packet) for packet in packets]), time, stage, interface, outgoing, transport,
        new(Endpoint, source), new(Endpoint, destination), payload,
        message_from_parts(payload, parts) if parts is not None else None, problem, new(IpFacts, facts), ip)


def record_from_row(row: Row) -> Record:
    """Return *row* as plain data."""
    return (
        row.time, tuple(map(tuple, row.packets)), row.summary, row.call_id, str(row.direction), row.transport,
        tuple(row.seen_source), tuple(row.seen_destination), row.before,
        row.after if row.after != row.before else None, tuple(map(tuple, row.edits)),
        tuple(map(tuple, row.left_alone)), row.dropped, row.source and tuple(row.source),
        row.destination and tuple(row.destination), row.datagram, row.is_repeat,
    )


def row_from_record(record: Record) -> Row:
    """Return the row that :func:`record_from_row` took apart."""
    (time, packets, summary, call_id, direction, transport, seen_source, seen_destination, before, after,
     edits, left_alone, dropped, source, destination, datagram, is_repeat) = record
    return Row(
        time, tuple(PacketId(*packet) for packet in packets), summary, call_id, Direction(direction),
        transport, Endpoint(*seen_source), Endpoint(*seen_destination), before,
        before if after is None else after, tuple(Note(*note) for note in edits),
        tuple(Note(*note) for note in left_alone), dropped, source and Endpoint(*source),
        destination and Endpoint(*destination), datagram, is_repeat)
