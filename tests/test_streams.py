"""Pins the table of connections: which handshakes make one, and how many there may be."""

from __future__ import annotations

import pytest

from natfix.address import Endpoint
from natfix.errors import LimitReached
from natfix.segment import ACK, SYN, Segment, segment_from_bytes
from natfix.streams import State, Stream, Streams
from tests.segments import Wire, segment_bytes

PHONE = Endpoint("192.168.1.10", 40000)
OTHER = Endpoint("192.168.1.11", 40000)
PBX = Endpoint("198.51.100.20", 5060)
OUTSIDE = Endpoint("203.0.113.1", 61234)
OPTIONS = b"\x02\x04\x05\xb4"


def syn(source: Endpoint = PHONE, destination: Endpoint = PBX, sequence: int = 0xFFFFFFFF,
        payload: bytes = b"") -> Segment:
    """Return a SYN."""
    return segment_from_bytes(segment_bytes(
        Wire(source, destination, sequence, 0, SYN, 64000, OPTIONS, payload)))


def syn_ack(source: Endpoint = PBX, destination: Endpoint = PHONE, acknowledgement: int = 0,
            options: bytes = OPTIONS, payload: bytes = b"") -> Segment:
    """Return the answer to it."""
    return segment_from_bytes(segment_bytes(
        Wire(source, destination, 7, acknowledgement, SYN | ACK, 64000, options, payload)))


def opened(streams: Streams, inside: Endpoint = PHONE, port: int = 5060, now: float = 1.0) -> Stream:
    """Let a connection from *inside* be opened."""
    peer = PBX._replace(port=port)
    streams.note_syn(syn(inside, peer), True, now)
    stream = streams.open(syn_ack(peer, inside), False, OUTSIDE, now)
    assert stream is not None
    return stream


def test_a_handshake_makes_a_connection() -> None:
    """It is found by its segments of both directions, and by nothing else."""
    streams = Streams(10, 10)
    stream = opened(streams)
    assert stream.key == (PHONE, PBX)
    assert (stream.outside, stream.opened_by_inside, stream.state) == (OUTSIDE, True, "undecided")
    assert streams.find(syn(), True) is stream
    assert streams.find(syn_ack(), False) is stream
    assert streams.find(syn(), False) is None
    assert streams.find(syn(OTHER), True) is None
    assert list(streams) == [stream]


def test_the_peer_may_open_it() -> None:
    """The inside end is the inside end, whoever asked."""
    streams = Streams(10, 10)
    streams.note_syn(syn(PBX, PHONE), False, 1.0)
    stream = streams.open(syn_ack(PHONE, PBX), True, OUTSIDE, 1.0)
    assert stream is not None
    assert (stream.key, stream.opened_by_inside) == ((PHONE, PBX), False)


@pytest.mark.parametrize("answer", [
    syn_ack(acknowledgement=1), syn_ack(payload=b"x"), syn_ack(options=b"\x1e\x04\0\0"),
    syn_ack()._replace(flags=ACK),
])
def test_what_is_no_answer_makes_none(answer: Segment) -> None:
    """Another number, octets in it, Multipath TCP, no SYN: such a connection is left alone."""
    streams = Streams(10, 10)
    streams.note_syn(syn(), True, 1.0)
    assert streams.open(answer, False, OUTSIDE, 1.0) is None
    assert not len(streams)


def test_unseen_odd_and_old_syns_make_none() -> None:
    """No SYN, one with octets (TCP Fast Open), two that meet (simultaneous open), one long ago: never SIP."""
    streams = Streams(10, 10)
    assert streams.open(syn_ack(), False, OUTSIDE, 1.0) is None
    streams.note_syn(syn(payload=b"REGISTER"), True, 1.0)
    assert streams.open(syn_ack(), False, OUTSIDE, 1.0) is None
    streams.note_syn(syn(), True, 1.0)
    streams.note_syn(syn(PBX, PHONE), False, 1.0)
    assert streams.open(syn_ack(), False, OUTSIDE, 1.0) is None
    streams.note_syn(syn(), True, 1.0)
    assert streams.open(syn_ack(), False, OUTSIDE, 1000.0) is None
    streams.note_syn(syn(), True, 1.0)
    assert streams.open(syn_ack(PHONE, PBX), True, OUTSIDE, 1.0) is None


def test_a_repeated_syn_is_the_same() -> None:
    """Its answer opens one connection; the answer's repetition opens none anew."""
    streams = Streams(10, 10)
    streams.note_syn(syn(), True, 1.0)
    stream = opened(streams, now=2.0)
    assert streams.open(syn_ack(), False, OUTSIDE, 2.0) is None
    assert list(streams) == [stream]


def test_a_new_connection_of_the_same_ends_replaces_the_old_one() -> None:
    """Ports are used again; what is left of the old one's handshake and octets does not matter."""
    streams = Streams(1, 1)
    first = opened(streams)
    second = opened(streams)
    assert list(streams) == [second]
    streams.remove(first)
    assert list(streams) == [second]
    streams.remove(second)
    assert not len(streams)


def test_connections_are_bounded() -> None:
    """In all and for each host that opens them; one that ends makes room."""
    streams = Streams(3, 2)
    busy = [opened(streams, PHONE, 5060), opened(streams, PHONE, 5061)]
    with pytest.raises(LimitReached, match=r"192\.168\.1\.10"):
        opened(streams, PHONE, 5062)
    busy.append(opened(streams, OTHER))
    for stream in busy:
        stream.state = State.SIP
    with pytest.raises(LimitReached, match="streams is reached"):
        opened(streams, OTHER, 5061)
    streams.remove(busy[0])
    opened(streams, OTHER, 5061)


def test_who_opens_is_counted() -> None:
    """A stranger's idle connections to a PBX inside are the stranger's; another peer still reaches it."""
    streams = Streams(10, 2)

    def from_outside(host: str, port: int) -> Stream | None:
        peer = Endpoint(host, port)
        streams.note_syn(syn(peer, PHONE), False, 1.0)
        return streams.open(syn_ack(PHONE, peer), True, OUTSIDE, 1.0)

    assert from_outside("198.51.100.66", 1)
    kept = from_outside("198.51.100.66", 2)
    with pytest.raises(LimitReached, match=r"198\.51\.100\.66"):
        from_outside("198.51.100.66", 3)
    assert from_outside("198.51.100.20", 1)
    opened(streams)
    assert kept is not None
    streams.remove(kept)
    assert from_outside("198.51.100.66", 3)


def test_silent_connections_make_room() -> None:
    """Where all places are taken, the oldest one that has said nothing goes, never one that speaks SIP."""
    streams = Streams(3, 10)
    first, second, third = (opened(streams, PHONE, port) for port in (5060, 5061, 5062))
    register = Wire(PHONE, PBX, 0, 8, ACK, 500, payload=b"REGISTER sip:x SIP/2.0\r\n")
    first.receive(segment_from_bytes(segment_bytes(register)), True, 1.0, lambda _from_inside, octets: octets)
    assert first.state == "sip"
    fourth = opened(streams, OTHER)
    assert list(streams) == [first, third, fourth]
    fifth = opened(streams, OTHER, 5061)
    assert list(streams) == [first, fourth, fifth]
    streams.remove(second)
    opened(streams, OTHER, 5062)
    opened(streams, OTHER, 5063)
    assert first in streams
    assert len(streams) == 3


def test_syns_without_an_answer_are_forgotten() -> None:
    """A flood of them takes bounded memory; the oldest goes first."""
    streams = Streams(10, 10)
    streams.note_syn(syn(), True, 1.0)
    for port in range(1, 1025):
        streams.note_syn(syn(OTHER, PBX._replace(port=port)), True, 1.0)
    assert streams.open(syn_ack(), False, OUTSIDE, 1.0) is None
    assert opened(streams, OTHER, 1024)
