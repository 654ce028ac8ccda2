"""SIP over TCP in the kernel: what comes to natfix, what it may do to it, how it lets connections go."""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from natfix.address import Endpoint
from natfix.commands import Flow, ReleaseStream, SendSegment
from natfix.packet import checksum
from natfix.segment import ACK, PSH, SYN, Segment, rebuild, segment_from_bytes
from tests.kernel.wires import BIT, GATEWAY, PHONE, REMOTE, Queue, Wires
from tests.namespace import kernel_test

pytestmark = kernel_test
PROXY, SIP_PORT = Endpoint(REMOTE, 5060), 5060
GREETING = b"OPTIONS sip:a SIP/2.0\r\n"
LONGER = b"OPTIONS sip:somebody-else SIP/2.0\r\n"
GROWN = len(LONGER) - len(GREETING)
# What makes TCP hard to change: packets that conntrack cannot place are dropped, as many firewalls do.
DROP_INVALID = "insert rule inet firewall forward ct state invalid counter drop"
FORWARD_IN = f"""
table ip forwards {{
    chain prerouting {{
        type nat hook prerouting priority dstnat;
        iifname "outside" tcp dport 5060 dnat to {PHONE}
    }}
}}
insert rule inet firewall forward iifname "outside" ip daddr {PHONE} tcp dport 5060 accept
"""
Treat = Callable[[Segment], bytes | None]


class Pump(Queue):
    """Somebody at the queue who lets everything go, as *treat* has changed it, and remembers what it saw."""

    def __init__(self, gateway: Wires, treat: Treat) -> None:
        super().__init__(gateway)
        self.seen: list[Segment] = []
        self.problems: list[Exception] = []
        self._treat = treat
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        while not self._ended.is_set():
            for packet in self._reader.read():
                segment = segment_from_bytes(packet.raw)
                self.seen.append(segment)
                try:
                    packet.accept(self._treat(segment))
                except Exception as problem:
                    self.problems.append(problem)
            time.sleep(0.002)

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        super().close()
        assert self.problems == []


@contextmanager
def pump(gateway: Wires, treat: Treat = lambda _: None) -> Iterator[Pump]:
    """Give a pump for the time of the block."""
    made = Pump(gateway, treat)
    try:
        yield made
    finally:
        made.close()


class Opener:
    """Treats packets as they came, and opens the stream of each SYN-ACK."""

    def __init__(self, gateway: Wires, opens: bool = True) -> None:
        self.gateway = gateway
        self.opens = opens
        self.flows: list[Flow | None] = []

    def __call__(self, segment: Segment) -> bytes | None:
        if self.opens and segment.flags & (SYN | ACK) == SYN | ACK:
            self.flows.append(self.gateway.kernel.open_stream(segment.source, segment.destination))
        return self.change(segment)

    def change(self, segment: Segment) -> bytes | None:
        """Return what goes on in the segment's place."""
        return None


class Grower(Opener):
    """Puts LONGER in the place of GREETING, the first octets from inside, and moves all numbers behind it."""

    start = 0       # of the octets from inside

    def change(self, segment: Segment) -> bytes | None:
        from_inside = segment.source.host == PHONE
        if segment.flags & SYN:
            self.start = segment.sequence + 1 if from_inside else self.start
            return None
        if not from_inside:
            acknowledged = segment.acknowledgement - GROWN * (segment.acknowledgement != self.start)
            return self.moved(segment, segment.sequence, acknowledged, segment.payload)
        if segment.payload and segment.sequence == self.start:
            return self.moved(segment, self.start, segment.acknowledgement,
                              segment.payload.replace(GREETING, LONGER, 1))
        grown = GROWN * (segment.sequence != self.start)
        return self.moved(segment, segment.sequence + grown, segment.acknowledgement, segment.payload)

    def moved(self, segment: Segment, sequence: int, acknowledgement: int, payload: bytes) -> bytes:
        return rebuild(segment, sequence, acknowledgement, segment.flags, segment.window, segment.options,
                       payload, 1)


@pytest.fixture
def strict(gateway: Wires) -> Wires:
    """A gateway whose operator drops what conntrack cannot place."""
    gateway.gateway.run(f"nft {DROP_INVALID}")
    return gateway


def streams(gateway: Wires) -> str:
    """Return the gateway's TCP entries as conntrack(8) prints them."""
    return gateway.gateway.run("conntrack -L -p tcp 2>/dev/null")


def idle_seconds(gateway: Wires) -> int:
    """Return how long the only TCP entry lives without a packet."""
    found, = re.findall(r"^tcp +6 (\d+)", streams(gateway), re.MULTILINE)
    return int(found)


class Connection:
    """One TCP connection: *near* connects to a listener of *far*'s at *port*."""

    def __init__(self, gateway: Wires, opener: str, to: Endpoint, listener: str) -> None:
        places = {PHONE: gateway.inside, REMOTE: gateway.outside, GATEWAY: gateway.gateway}
        self.listener = places[listener].call(lambda: socket.create_server((listener, to.port)))
        self.near = places[opener].call(lambda: socket.create_connection(to[:2], 3, (opener, 0)))
        self.far, _ = self.listener.accept()
        self.far.settimeout(3)
        self.here, self.seen_from = Endpoint(*self.near.getsockname()), Endpoint(*self.far.getpeername())

    def talks(self, there: bytes = b"ping", expected: bytes = b"", back: bytes = b"pong") -> bool:
        """Tell whether *there* arrives at the far end, as *expected*, and *back* at the near one."""
        expected = expected or there
        try:
            self.near.sendall(there)
            arrived = _receive(self.far, len(expected))
            self.far.sendall(back)
            return arrived == expected and _receive(self.near, len(back)) == back
        except OSError:
            return False

    def close(self) -> None:
        for end in (self.near, self.far, self.listener):
            abort(end)


def abort(end: socket.socket) -> None:
    """Close *end* by RST."""
    if end.fileno() >= 0:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.close()


def _receive(end: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (part := end.recv(size - len(data))):
        data += part
    return data


@contextmanager
def connection(
    gateway: Wires, opener: str = PHONE, to: Endpoint = PROXY, listener: str = REMOTE,
) -> Iterator[Connection]:
    """Give a connection for the time of the block; it ends by RST, without any wait."""
    made = Connection(gateway, opener, to, listener)
    try:
        yield made
    finally:
        made.close()


def test_both_directions_come_to_natfix(gateway: Wires) -> None:
    """With inside addresses, from SYN on, whoever speaks."""
    with pump(gateway) as queue, connection(gateway) as line:
        assert line.talks()
        ends = {(segment.source, segment.destination) for segment in queue.seen}
        assert ends == {(line.here, PROXY), (PROXY, line.here)}
        assert queue.seen[0].flags & (SYN | ACK) == SYN
        assert [segment.payload for segment in queue.seen if segment.payload] == [b"ping", b"pong"]


def test_what_began_before_is_left_alone(bare: Wires) -> None:
    """A connection that runs when natfix comes never waits in its queue."""
    bare.firewall()
    with connection(bare) as line:
        assert line.talks()
        bare.install()
        with pump(bare) as queue:
            assert line.talks()
            assert queue.seen == []


def test_other_ports_are_left_alone(gateway: Wires) -> None:
    """SIP's port is looked for in the destination only: what a web server answers to port 5060 is no SIP."""
    with pump(gateway) as queue, connection(gateway, to=Endpoint(REMOTE, 8080)) as line:
        assert line.talks()
        assert queue.seen == []


def test_an_outgoing_connection_is_opened(gateway: Wires) -> None:
    """At the SYN-ACK its NAT can be read: the outside endpoint is the one that the server sees."""
    opener = Opener(gateway)
    with pump(gateway, opener), connection(gateway) as line:
        assert line.talks()
        assert opener.flows == [Flow(line.here, PROXY, PROXY, line.seen_from)]
        assert line.seen_from.host == GATEWAY


def test_an_incoming_connection_is_opened(gateway: Wires) -> None:
    """Through a forward of the operator's, it is written from inside as well."""
    gateway.gateway.run("nft -f -", FORWARD_IN)
    opener = Opener(gateway)
    outside = Endpoint(GATEWAY, SIP_PORT)
    with pump(gateway, opener), connection(gateway, REMOTE, outside, PHONE) as line:
        assert line.talks()
        assert opener.flows == [Flow(Endpoint(PHONE, SIP_PORT), line.here, line.here, outside)]


def test_a_syn_cannot_be_opened(gateway: Wires) -> None:
    """Its entry does not exist yet; asked for it, the kernel says so and nothing is changed."""
    found: list[Flow | None] = []

    def treat(segment: Segment) -> None:
        if segment.flags & (SYN | ACK) == SYN:
            found.append(gateway.kernel.open_stream(segment.source, segment.destination))

    with pump(gateway, treat), connection(gateway) as line:
        assert line.talks()
    assert found == [None]


def test_without_nat_it_is_let_go(gateway: Wires) -> None:
    """There is nothing to mend in it: it is not opened, and its packets come to natfix no more."""
    gateway.gateway.run("nft flush table ip nat")
    gateway.outside.run("ip route add 192.168.1.0/24 via " + GATEWAY)
    opener = Opener(gateway)
    with pump(gateway, opener) as queue, connection(gateway) as line:
        assert line.talks()
        assert opener.flows == [None]
        assert [segment for segment in queue.seen if segment.payload] == []


@pytest.mark.parametrize("opens", [True, False])
def test_numbers_may_move(strict: Wires, opens: bool) -> None:
    """An opened connection goes on after a message grew, one that is not opened is dead: why it is done."""
    with pump(strict, Grower(strict, opens)), connection(strict) as line:
        line.near.settimeout(0.7)
        line.far.settimeout(0.7)
        line.talks(GREETING, LONGER, b"200")
        assert line.talks() == opens


def test_its_end_comes_through(strict: Wires) -> None:
    """FIN with moved numbers passes in both directions."""
    with pump(strict, Grower(strict)), connection(strict) as line:
        assert line.talks(GREETING, LONGER)
        line.near.shutdown(socket.SHUT_WR)
        assert line.far.recv(10) == b""
        line.far.close()
        assert line.near.recv(10) == b""


@pytest.mark.parametrize("from_inside", [True, False])
def test_a_reset_comes_through(strict: Wires, from_inside: bool) -> None:
    """RST with moved numbers passes, too: neither end is left waiting."""
    with pump(strict, Grower(strict)), connection(strict) as line:
        assert line.talks(GREETING, LONGER)
        assert line.talks()
        ends = (line.near, line.far) if from_inside else (line.far, line.near)
        abort(ends[0])
        with pytest.raises(ConnectionResetError):
            ends[1].recv(10)


def test_silence_is_allowed_for_two_hours(gateway: Wires) -> None:
    """Conntrack takes moved numbers for data that nobody acknowledges; the policy has room for silence all
    the same, as long as the refresh of no registration is away."""
    with pump(gateway, Grower(gateway)), connection(gateway) as line:
        assert line.talks(GREETING, LONGER)
        assert line.talks()
        time.sleep(0.1)
        assert 7190 < idle_seconds(gateway) <= 7200


def test_a_kernel_without_the_timeout(bare: Wires, monkeypatch: pytest.MonkeyPatch) -> None:
    """natfix works there as well, and conntrack's own five minutes count."""
    monkeypatch.setattr("natfix.kernel.probe._has_timeouts", lambda _: False)
    bare.firewall()
    bare.install()
    assert "ct timeout" not in bare.rules()
    with pump(bare, Grower(bare)), connection(bare) as line:
        assert line.talks(GREETING, LONGER)
        assert line.talks()
        time.sleep(0.1)
        assert idle_seconds(bare) <= 300


def test_a_released_connection_is_the_kernels(gateway: Wires) -> None:
    """natfix sees no further packet of it, other marks of the entry stay, and it talks on."""
    gateway.gateway.run("nft add rule ip nat postrouting ct mark set ct mark or 0x1")
    opener = Opener(gateway)
    with pump(gateway, opener) as queue, connection(gateway) as line:
        assert line.talks()
        flow, = opener.flows
        assert flow is not None
        gateway.kernel.apply([ReleaseStream(flow)])
        time.sleep(0.1)
        queue.seen.clear()
        assert line.talks()
        assert queue.seen == []
        assert not int(re.findall(r"mark=(\d+)", streams(gateway))[0]) & BIT
        gateway.kernel.apply([ReleaseStream(flow._replace(source=Endpoint(PHONE, 1)))])     # no such entry


def test_removal_lets_streams_go(gateway: Wires) -> None:
    """After `natfix down` no TCP entry has natfix's mark, and the connection talks on."""
    with pump(gateway), connection(gateway) as line:
        assert line.talks()
        assert f"mark={BIT}" in streams(gateway)
        gateway.remove()
        assert f"mark={BIT}" not in streams(gateway)
        assert line.talks()


def test_natfix_speaks_in_a_connection(gateway: Wires) -> None:
    """Segments of its own reach both ends past conntrack and NAT, as data of the other end."""
    opener = Opener(gateway)
    with pump(gateway, opener) as queue, connection(gateway) as line:
        assert line.talks()
        time.sleep(0.1)
        there = [segment for segment in queue.seen if segment.source == line.here][-1]
        back = [segment for segment in queue.seen if segment.source == PROXY][-1]
        out = SendSegment(line.seen_from, PROXY, there.sequence, there.acknowledgement, PSH | ACK, 500,
                          b"", b"to outside", "outside")
        # The phone's last segment was an ACK, which has the next number; the proxy's had data.
        inward = SendSegment(PROXY, line.here, back.sequence + len(back.payload), back.acknowledgement,
                             PSH | ACK, 500, b"", b"to inside")
        assert gateway.gateway.call(lambda: gateway.kernel.send([out, inward])) == 0
        assert line.far.recv(100) == b"to outside"
        assert line.near.recv(100) == b"to inside"
        assert len(streams(gateway).splitlines()) == 1
        assert line.seen_from.port == line.here.port


def test_a_segment_that_cannot_leave_is_counted(gateway: Wires) -> None:
    """By an interface that is not there: only that one is lost."""
    lost = SendSegment(PROXY, Endpoint(PHONE, 1), 1, 1, ACK, 1, b"", b"", "nowhere")
    assert gateway.gateway.call(lambda: gateway.kernel.send([lost, lost._replace(interface="inside")])) == 1


def test_large_packets_come_in_segments(gateway: Wires) -> None:
    """What the sender's offload leaves whole comes cut to size, with right numbers and checksums."""
    data = bytes(range(256)) * 800
    sums: list[int] = []

    def treat(segment: Segment) -> bytes:
        pseudo = segment.raw[12:20] + struct.pack("!HH", 6, len(segment.raw) - segment.header_length)
        sums.append(checksum(pseudo + segment.raw[segment.header_length:]))
        return rebuild(segment, segment.sequence, segment.acknowledgement, segment.flags, segment.window,
                       segment.options, segment.payload, 1)

    with pump(gateway, treat) as queue, connection(gateway) as line:
        sender = threading.Thread(target=line.near.sendall, args=(data,))
        sender.start()
        assert _receive(line.far, len(data)) == data
        sender.join()
        assert max(len(segment.raw) for segment in queue.seen) <= 1500
        assert set(sums) == {0}
