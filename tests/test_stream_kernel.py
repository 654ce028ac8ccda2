"""Pins relayed connections between real TCP stacks, whose packets are lost and reordered on the way."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

import pytest

from natfix.stream import State
from tests.namespace import kernel_test
from tests.tcp_ends import INSIDE, OUTSIDE, PEER, Gateway, Link
from tests.test_stream_network import message, sizes, treat
from tests.tun_ends import TUN, RealWorld, TunEnd

pytestmark = [*kernel_test, pytest.mark.skipif(not os.path.exists(TUN), reason=f"needs {TUN}")]

PATIENCE = 30.0         # seconds; all is over within five as a rule
KINDS = (
    "true", "sysctl -qw net.ipv4.tcp_timestamps=0", "sysctl -qw net.ipv4.tcp_sack=0",
    "sysctl -qw net.ipv4.tcp_window_scaling=0", "sysctl -qw net.ipv4.tcp_ecn=1",
    "sysctl -qw net.ipv4.tcp_rmem='4096 8192 8192'", "ip link set tun0 mtu 576",
)


class Pair:
    """A connection from a phone to a PBX on which a first message has gone."""

    def __init__(self, seed: int, phone_settings: str = "true", pbx_settings: str = "true") -> None:
        self.link = Link()
        self.world = RealWorld(seed, self.link)
        self.phone = TunEnd(INSIDE, PEER, phone_settings)
        self.pbx = TunEnd(PEER, OUTSIDE, pbx_settings)
        self.ends = self.phone, self.pbx
        self.gateway = Gateway(self.world, self.phone, self.pbx, treat)
        self.pbx.listen()
        self.phone.connect()
        self.first = message(1, b"")
        self.phone.write(self.first)
        self.until_received(self.pbx, treat(True, self.first) or b"")
        self.pbx.received.clear()

    def until_received(self, end: TunEnd, octets: bytes) -> None:
        self.world.run(self.ends, lambda: len(end.received) >= len(octets), PATIENCE)
        assert bytes(end.received) == octets

    def talk(self, end: TunEnd, count: int) -> bytes:
        """Let *end* write so many messages; return what has to arrive."""
        arrives = []
        chance = self.world.chance
        for number in range(count):
            octets = message(number, bytes(chance.choices(b"\r\n abc", k=chance.choice((0, 9, 700, 3000)))))
            end.write(octets, *sizes(chance, len(octets)))
            arrives.append(treat(True, octets) or b"")
        return b"".join(arrives)

    def close(self) -> None:
        self.phone.close()
        self.pbx.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A connection on a good network."""
    made = Pair(1)
    yield made
    made.close()


@pytest.mark.parametrize(("phone", "pbx"), [
    (0, 0), (1, 4), (0, 2), (5, 3), (6, 0),
])
def test_both_streams_arrive(phone: int, pbx: int) -> None:
    """Over loss and reordering, in calls of 1 octet and more, between stacks with and without each option."""
    pair = Pair(phone * 10 + pbx, KINDS[phone], KINDS[pbx])
    try:
        pair.link.loss, pair.link.jitter = 0.03, 0.01
        to_pbx, to_phone = pair.talk(pair.phone, 40), pair.talk(pair.pbx, 40)
        pair.world.run(pair.ends, lambda: all(end.is_written for end in pair.ends), PATIENCE)
        for end in pair.ends:
            end.socket.shutdown(socket.SHUT_WR)
        pair.world.run(pair.ends, lambda: all(end.has_finished for end in pair.ends), PATIENCE)
        assert bytes(pair.pbx.received) == to_pbx
        assert bytes(pair.phone.received) == to_phone
        stream = pair.gateway.stream
        pair.world.run(pair.ends, lambda: stream is not None and stream.state is State.CLOSED, PATIENCE)
    finally:
        pair.close()


def test_one_direction_may_end(pair: Pair) -> None:
    """After the phone's FIN the PBX goes on sending, and the phone receives it all."""
    pair.phone.socket.shutdown(socket.SHUT_WR)
    pair.world.run(pair.ends, lambda: pair.pbx.has_finished, PATIENCE)
    pair.until_received(pair.phone, pair.talk(pair.pbx, 20))


def test_a_reset_arrives(pair: Pair) -> None:
    """An end that aborts resets the other one, although their numbers differ."""
    pair.pbx.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    pair.pbx.socket.close()
    with pytest.raises(ConnectionResetError):
        pair.world.run(pair.ends, lambda: False, PATIENCE)


def test_keep_alive_probes_find_out(pair: Pair) -> None:
    """A connection that is quiet stays, and one whose other end is gone does not."""
    for option, value in ((socket.TCP_KEEPIDLE, 1), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 2)):
        pair.phone.socket.setsockopt(socket.IPPROTO_TCP, option, value)
    pair.phone.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    until = pair.world.now + 2.5
    pair.world.run(pair.ends, lambda: pair.world.now > until, PATIENCE)
    pair.phone.write(pair.first)
    pair.until_received(pair.pbx, treat(True, pair.first) or b"")
    stream = pair.gateway.stream
    pair.world.run(pair.ends, lambda: stream is not None and not stream.held, PATIENCE)
    pair.pbx.transmit = lambda wire: None
    with pytest.raises(TimeoutError):
        pair.world.run(pair.ends, lambda: False, PATIENCE)


def test_a_slow_reader_slows_its_sender_down() -> None:
    """A full receiver's closed window reaches the sender, natfix holds little, and then all goes on."""
    small = "sysctl -qw net.ipv4.tcp_rmem='4096 65536 65536' net.ipv4.tcp_wmem='4096 65536 65536'"
    pair = Pair(1, small, small)
    try:
        fill_and_read(pair)
    finally:
        pair.close()


def fill_and_read(pair: Pair) -> None:
    pair.pbx.is_reading = False
    octets = message(4, bytes(200_000))
    pair.phone.write(octets * 8)
    stream = pair.gateway.stream
    assert stream is not None
    before = [0]

    def is_stuck() -> bool:
        left, before[0] = before[0], pair.phone.unwritten
        return left == before[0] and pair.world.now > until

    until = pair.world.now + 1.0
    pair.world.run(pair.ends, is_stuck, PATIENCE)
    assert not pair.phone.is_written
    assert stream.held < 1 << 20
    pair.pbx.is_reading = True
    pair.until_received(pair.pbx, (treat(True, octets) or b"") * 8)
