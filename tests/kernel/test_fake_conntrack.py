"""The fake conntrack table keeps entries, and ends them, as the kernel does."""

from __future__ import annotations

import pytest

from natfix.address import Endpoint
from natfix.commands import Flow, Kind, OpenFlow
from natfix.kernel.fake_conntrack import STREAM, UNREPLIED, ConntrackTable, Entry, state_of, turned

PHONE = Endpoint("192.168.1.10", 12000)
PROVIDER = Endpoint("198.51.100.20", 40000)
MAPPED = Endpoint("203.0.113.1", 30000)
OTHER_MAPPED = Endpoint("203.0.113.1", 30002)
FLOW = Flow(PHONE, PROVIDER, PROVIDER, MAPPED)


@pytest.fixture
def table() -> ConntrackTable:
    return ConntrackTable()


def packet_made(table: ConntrackTable, flow: Flow = FLOW, now: float = 0.0) -> Entry:
    """Enter *flow* as its first packet does."""
    entry = Entry(flow, now)
    table.count(entry, is_reply=False, now=now)
    table.insert(entry)
    return entry


def test_an_entry_is_found_by_the_packets_of_both_directions(table: ConntrackTable) -> None:
    """By what the sender sends, and by what the receiver answers; as a flow in either orientation."""
    entry = packet_made(table)
    assert table.find((PHONE, PROVIDER)) is table.find((PROVIDER, MAPPED)) is entry
    assert table.find_flow(FLOW) is table.find_flow(turned(FLOW)) is entry
    assert table.find_flow(FLOW._replace(reply_destination=OTHER_MAPPED)) is None
    assert list(table) == [entry]


def test_without_an_answer_an_entry_lives_30_seconds(table: ConntrackTable) -> None:
    """Each packet sets that anew; an answer within two seconds does not make a stream yet."""
    entry = packet_made(table)
    table.count(entry, is_reply=True, now=1.0)
    assert state_of(entry, 1.0).lifetime == UNREPLIED
    table.expire(now=30.9)
    assert list(table) == [entry]
    table.expire(now=31.0)
    assert list(table) == []


def test_a_stream_lives_120_seconds(table: ConntrackTable) -> None:
    """Traffic both ways, for more than two seconds."""
    entry = packet_made(table)
    table.count(entry, is_reply=True, now=3.0)
    assert state_of(entry, 3.0) == (FLOW, STREAM, 1, 1, 0, True)


def test_a_made_entry_takes_the_kernels_time_with_its_first_packet(table: ConntrackTable) -> None:
    """natfix's own lifetime counts until there is traffic; a fixed one is not changed by any."""
    table.open(OpenFlow(Kind.MEDIA, FLOW, 300.0), mark=0, now=0.0)
    entry = table.find_flow(FLOW)
    assert entry is not None
    table.count(entry, is_reply=True, now=1.0)
    assert entry.ends_at == 1.0 + STREAM
    table.open(OpenFlow(Kind.MEDIA, FLOW, 300.0, fixed=True), mark=0, now=2.0)
    table.count(entry, is_reply=False, now=3.0)
    assert entry.ends_at == 302.0


def test_opening_refreshes_and_marks_the_same_flow(table: ConntrackTable) -> None:
    """Its counters go on, whichever side began it."""
    entry = packet_made(table, turned(FLOW))
    table.open(OpenFlow(Kind.SIGNALLING, FLOW, 300.0), mark=4, now=1.0)
    assert state_of(entry, 1.0) == (turned(FLOW), 300.0, 1, 0, 4, True)


def test_opening_replaces_a_fixed_entry(table: ConntrackTable) -> None:
    """Nobody may change a fixed timeout: the entry is made anew, from nought, and its end is told."""
    command = OpenFlow(Kind.SIGNALLING, FLOW, 300.0, fixed=True)
    table.open(command, mark=4, now=0.0)
    entry = table.find_flow(FLOW)
    assert entry is not None
    table.count(entry, is_reply=False, now=1.0)
    table.open(command, mark=4, now=2.0)
    assert [state_of(entry, 2.0).packets for entry in table] == [0]
    assert table.ended == [FLOW]


def test_opening_ends_what_stands_in_the_way(table: ConntrackTable) -> None:
    """One entry with the inside tuple, another with the outside one."""
    first = FLOW._replace(reply_destination=OTHER_MAPPED)
    second = FLOW._replace(source=Endpoint("192.168.1.11", 12000))
    packet_made(table, first)
    packet_made(table, second)
    table.open(OpenFlow(Kind.MEDIA, FLOW, 300.0), mark=0, now=0.0)
    assert [entry.flow for entry in table] == [FLOW]
    assert table.ended == [first, second]


def test_closing_spares_a_successor(table: ConntrackTable) -> None:
    """The flow is found by its outside tuple: its inside one may be another entry's by now."""
    packet_made(table)
    table.close(FLOW._replace(reply_destination=OTHER_MAPPED))
    assert len(list(table)) == 1
    table.close(FLOW)
    table.close(FLOW)
    assert list(table) == []


def test_masquerade_prefers_the_senders_port(table: ConntrackTable) -> None:
    """Then a port that its other flows have, then the next free one."""
    host = MAPPED.host
    assert table.free_port(PHONE, host, PROVIDER) == Endpoint(host, PHONE.port)
    packet_made(table, Flow(Endpoint("192.168.1.11", 12000), PROVIDER, PROVIDER, Endpoint(host, 12000)))
    assert table.free_port(PHONE, host, PROVIDER) == Endpoint(host, 1024)
    elsewhere = Endpoint("198.51.100.21", 40000)
    packet_made(table, Flow(PHONE, elsewhere, elsewhere, OTHER_MAPPED))
    assert table.free_port(PHONE, host, PROVIDER) == OTHER_MAPPED
