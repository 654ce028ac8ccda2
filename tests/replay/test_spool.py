"""Spools: records go to disk and come back, in the order of time."""

from __future__ import annotations

import random

from natfix.address import Endpoint
from natfix.commands import Note
from natfix.replay.model import Direction, IpFacts, PacketId, Sighting
from natfix.replay.spool import (
    LOOKAHEAD,
    Row,
    SortedSpool,
    Spool,
    record_from_row,
    record_from_sighting,
    row_from_record,
    sighting_from_record,
)
from natfix.sip.message import message_from_bytes

OPTIONS = (b"OPTIONS sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.168.1.10;branch=z9hG4bK1\r\n"
           b"From: <sip:a@example.com>;tag=1\r\nTo: <sip:bob@example.com>\r\nCall-ID: 1\r\n"
           b"CSeq: 1 OPTIONS\r\n\r\n")
SAME = ("packets", "time", "stage", "interface", "outgoing", "transport", "source", "destination", "payload",
        "problem", "facts", "ip")
PHONE, PROVIDER = Endpoint("192.168.1.10", 5060), Endpoint("198.51.100.20", 5060)


def sighting(payload: bytes = OPTIONS, ip: bytes = b"", problem: str = "") -> Sighting:
    return Sighting(
        (PacketId(7, "lan"), PacketId(8, "lan")), 5.0, "lan", "eth0", True, "udp", PHONE, PROVIDER,
        payload, message_from_bytes(payload) if payload == OPTIONS and not problem else None, problem,
        IpFacts(ttl=64, identification=9), ip)


def test_records_come_back() -> None:
    """What was appended is read as it was, also records larger than a buffer, and by several readers."""
    spool = Spool()
    records = [(number, b"x" * size, None) for number, size in enumerate((1, 100_000, 0, 70_000))]
    places = [spool.append(record) for record in records]
    one, other = spool.read(), spool.read(places[1], places[3])
    assert [next(one), next(other), next(one)] == [records[0], records[1], records[1]]
    spool.append((4,))
    assert [*spool.read()] == [*records, (4,)]
    assert [*other] == [records[2]]


def test_any_order_becomes_the_order_of_time() -> None:
    """Records are sorted by time, whether shuffled or backwards; equal times stay as they came."""
    chance = random.Random(4)
    times = [float(number // 2) for number in range(4 * LOOKAHEAD)]
    shuffled = chance.sample(times, len(times))
    for order in (times, times[::-1], shuffled, [0.0] * 10):
        spool = SortedSpool()
        for number, time in enumerate(order):
            spool.append(time, (number,))
        read = [*spool.read()]
        expected = sorted((time, number) for number, time in enumerate(order))
        assert [(time, number) for time, number, _ in read] == expected
        assert all(record == (number,) for _, number, record in read)


def test_sightings_come_back() -> None:
    """A sighting is the same after the spool, with its message; its payload is kept once."""
    for ip in (b"", b"an IP header" + OPTIONS):
        before = sighting(ip=ip)
        record = record_from_sighting(before)
        after = sighting_from_record(5.0, record)
        assert after.message is not None
        assert after.message.call_id == "1"
        for name in SAME:
            assert getattr(after, name) == getattr(before, name)
        assert sum(OPTIONS in part for part in record if isinstance(part, bytes)) == 1


def test_unreadable_sightings_keep_their_problem() -> None:
    """What was no readable SIP in pass 1 stays so; header-only records have no message."""
    for before in (sighting(problem="two CSeqs"), sighting(b"")):
        after = sighting_from_record(5.0, record_from_sighting(before))
        assert (after.message, after.problem) == (None, before.problem)


def test_rows_come_back() -> None:
    """A row is the same after the spool, changed or not."""
    note = Note("via", "Via", "192.168.1.10", "203.0.113.1", "responses are sent here", "RFC 3261")
    row = Row(
        1.5, (PacketId(1), PacketId(2, "wan")), "OPTIONS sip:bob@example.com", "1", Direction.OUTWARD,
        "udp", PHONE, PROVIDER, OPTIONS, OPTIONS.upper(), (note,), (), "", PHONE, PROVIDER, b"ip")
    other = row._replace(after=OPTIONS, edits=(), left_alone=(note,), source=None, destination=None)
    for each in (row, other):
        spool = Spool()
        spool.append(record_from_row(each))
        assert [row_from_record(record) for record in spool.read()] == [each]
