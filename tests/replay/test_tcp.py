"""TCP connections: reassembly, resets, TLS, and bounded memory."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from natfix.address import Endpoint
from natfix.replay import tcp as module
from natfix.replay.datagrams import Datagrams
from natfix.replay.model import PacketId, Sighting, TcpReset, TlsFlow
from natfix.replay.tcp import ACK, FIN, RST, SYN, Found, TcpStreams
from tests.replay.sip import audio, request, response
from tests.replay.wire import PHONE, PROVIDER, RTP_PHONE, START, frame, tcp

INVITE, OK, BYE = request(sdp=audio(RTP_PHONE)), response(200), request("BYE", cseq=2)
STREAM = INVITE + OK + BYE


class Wire:
    """Feeds a table with segments."""

    def __init__(self) -> None:
        self.table, self.found, self.number = TcpStreams(), list[Found](), 0

    def send(self, sequence: int, payload: bytes = b"", flags: int = ACK, source: Endpoint = PHONE,
             destination: Endpoint = PROVIDER, time: float = START, **fields: object) -> None:
        self.number += 1
        data = tcp(source, destination, sequence, payload, flags)
        if not self.table.wants(data, 12, 20):
            return
        datagram = Datagrams().take(frame(data, self.number, time, 101, **fields), 0)
        assert datagram is not None
        self.found += self.table.take(datagram)

    def payloads(self) -> list[bytes]:
        return [item.payload for item in self.found if isinstance(item, Sighting)]


def test_in_order() -> None:
    """Messages come out with their packets, the sequence numbers may wrap."""
    wire = Wire()
    start = 0xFFFFFF00
    wire.send(start - 1, flags=SYN)
    for at in range(0, len(STREAM), 300):
        wire.send(start + at, STREAM[at:at + 300])
    assert wire.payloads() == [INVITE, OK, BYE]
    first = wire.found[0]
    assert isinstance(first, Sighting)
    assert (first.transport, first.packets[0]) == ("tcp", PacketId(2))
    assert len(first.packets) == 2


@given(st.integers(0, 10_000))
@settings(max_examples=50)
def test_any_order_and_twice(seed: int) -> None:
    """Reordered, repeated and overlapping segments give the same messages."""
    chance = random.Random(seed)
    segments = [(at, STREAM[at:at + 200 + chance.randrange(100)]) for at in range(0, len(STREAM), 200)] * 2
    chance.shuffle(segments)
    wire = Wire()
    wire.send(999, flags=SYN)
    for at, payload in segments:
        wire.send(1000 + at, payload)
    assert wire.payloads() == [INVITE, OK, BYE]


def test_from_the_middle() -> None:
    """A capture that begins within a connection goes in with the next message that begins a segment."""
    wire = Wire()
    wire.send(5000, INVITE[200:])
    wire.send(9000, OK)
    assert wire.payloads() == [OK]


def test_any_port() -> None:
    """SIP is followed on any port once a segment begins with it; other connections cost nothing."""
    wire = Wire()
    ends = {"source": Endpoint("10.0.0.1", 40000), "destination": Endpoint("10.0.0.2", 8080)}
    wire.send(1, b"GET / HTTP/1.1\r\n\r\n", **ends)
    assert not wire.table._connections
    wire.send(100, INVITE[:300], **ends)
    wire.send(400, INVITE[300:], **ends)
    assert wire.payloads() == [INVITE]


def test_lost_segment() -> None:
    """A hole that is never filled costs the message around it, not those behind."""
    wire = Wire()
    wire.send(0, flags=SYN)
    wire.send(1, INVITE[:200])
    at = 1 + len(INVITE)
    for _ in range(100):
        wire.send(at, OK)
        at += len(OK)
    wire.found += wire.table.rest()
    assert wire.payloads()[0] == INVITE[:200]
    assert wire.payloads()[1:] == [OK] * 100
    first = wire.found[0]
    assert isinstance(first, Sighting)
    assert first.problem == module.LOST


def test_refused() -> None:
    """RST to SYN is a refused connection."""
    wire = Wire()
    wire.send(1, flags=SYN)
    wire.send(0, flags=RST | ACK, source=PROVIDER, destination=PHONE, time=START + 1)
    assert wire.found == [TcpReset((PacketId(1), PacketId(2)), START + 1, "", PHONE, PROVIDER, refused=True)]


def test_cut_after_silence() -> None:
    """RST to data on a connection that was idle tells for how long; one behind FIN is no trouble."""
    wire = Wire()
    wire.send(0, flags=SYN)
    wire.send(50, flags=SYN | ACK, source=PROVIDER, destination=PHONE)
    wire.send(1, OK, time=START + 1)
    wire.send(1 + len(OK), OK, time=START + 901)
    wire.send(51, flags=RST, source=PROVIDER, destination=PHONE, time=START + 902)
    reset = wire.found[-1]
    assert isinstance(reset, TcpReset)
    assert (reset.refused, reset.idle, reset.source) == (False, 900.0, PHONE)
    assert reset.packets == (PacketId(4), PacketId(5))
    wire.send(0, flags=SYN)
    wire.send(1, flags=FIN | ACK)
    wire.send(2, flags=RST)
    assert sum(isinstance(item, TcpReset) for item in wire.found) == 1


def test_tls() -> None:
    """A connection whose content is TLS is told once, by who opened it."""
    hello = b"\x16\x03\x01\x02\x00\x01" + bytes(100)
    wire = Wire()
    secure = PROVIDER._replace(port=5061)
    wire.send(1, hello, destination=secure)
    wire.send(1, b"\x16\x03\x03\x00\x50\x02" + bytes(80), source=secure, destination=PHONE)
    (flow,) = wire.found
    assert isinstance(flow, TlsFlow)
    assert (flow.source, flow.destination, flow.packets) == (PHONE, secure, (PacketId(1),))


def test_two_views() -> None:
    """One segment that was captured on two interfaces is two sightings, not a retransmission."""
    wire = Wire()
    wire.send(1, INVITE, interface="eth0")
    wire.send(1, INVITE, interface="eth1")
    assert wire.payloads() == [INVITE, INVITE]


def test_unfinished() -> None:
    """What the capture ends within is told."""
    wire = Wire()
    wire.send(1, INVITE[:300])
    wire.found += wire.table.rest()
    (sighting,) = wire.found
    assert isinstance(sighting, Sighting)
    assert (sighting.payload, sighting.problem, sighting.message) == (INVITE[:300], module.UNFINISHED, None)


def test_memory_is_bounded() -> None:
    """Neither connections, nor what waits in them, grow without end."""
    wire = Wire()
    for number in range(module.MOST_CONNECTIONS + 500):
        wire.send(1, flags=SYN, source=Endpoint(f"10.{number >> 8}.{number & 255}.1", 5060))
    assert len(wire.table._connections) <= module.MOST_CONNECTIONS
    wire = Wire()
    wire.send(0, flags=SYN)
    wire.send(1, INVITE[:100])
    for number in range(1000):
        wire.send(1000 + number * 1000, bytes(1000))
    (connection,) = wire.table._connections.values()
    assert sum(half.waits for half in connection.halves.values()) <= module.MOST_AHEAD + 1000
    list(wire.table.rest())
    assert wire.table._waits == 0


@given(st.lists(max_size=12, elements=st.tuples(
    st.integers(0, 2**32 - 1) | st.integers(0, 50), st.binary(max_size=30), st.integers(0, 63))))
def test_any_segments(segments: list[tuple[int, bytes, int]]) -> None:
    """No segments make this raise."""
    wire = Wire()
    for sequence, payload, flags in segments:
        wire.send(sequence, payload, flags)
    list(wire.table.rest())
