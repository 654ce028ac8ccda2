"""The queue reader: against a real NFQUEUE in a network namespace of the test's own."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import pytest

from natfix.errors import Busy
from natfix.queue_reader import BATCH, NetfilterQueueReader, QueuedPacket, is_cut, queue_counters
from tests.namespace import kernel_test, namespace

QUEUE = 77
PORT = 9999
RULES = f"""
*filter
-A INPUT -p udp --dport {PORT} -j NFQUEUE --queue-num {QUEUE}
COMMIT
"""


def on_the_kernel(test: Callable[..., None]) -> Callable[..., None]:
    """Mark *test* as one that talks to this machine's kernel."""
    for mark in kernel_test:
        test = mark(test)
    return test


def in_new_namespace(work: Callable[[], None]) -> None:
    """Call *work* in a namespace that has nothing but loopback and RULES."""
    with namespace() as made:
        made.run("ip link set lo mtu 1500")
        made.run("iptables-restore", RULES)
        made.call(work)


class Pair:
    """A UDP receiver, a sender, and the reader of the queue between them."""

    def __init__(self) -> None:
        self.reader = NetfilterQueueReader(QUEUE)
        self.receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.receiver.bind(("127.0.0.1", PORT))
        self.receiver.settimeout(0.3)
        self.sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def send(self, *payloads: bytes) -> None:
        for payload in payloads:
            self.sender.sendto(payload, ("127.0.0.1", PORT))

    def received(self) -> bytes:
        return self.receiver.recv(65535)

    def nothing_received(self) -> bool:
        try:
            self.receiver.recv(65535)
        except TimeoutError:
            return True
        return False

    def close(self) -> None:
        self.reader.close()
        self.receiver.close()
        self.sender.close()


def with_pair(work: Callable[[Pair], None]) -> None:
    """Call *work* with a Pair in a new namespace."""
    def run() -> None:
        pair = Pair()
        try:
            work(pair)
        finally:
            pair.close()
    in_new_namespace(run)


def with_payload(packet: QueuedPacket, payload: bytes) -> bytes:
    """The packet with another UDP payload and right lengths; UDP checksum 0 means "none" in IPv4."""
    head = bytearray(packet.raw[:28])
    head[2:4] = (28 + len(payload)).to_bytes(2, "big")
    head[10:12] = bytes(2)
    total = sum(int.from_bytes(head[at:at + 2], "big") for at in range(0, 20, 2))
    total = (total & 0xFFFF) + (total >> 16)
    head[10:12] = (~(total + (total >> 16)) & 0xFFFF).to_bytes(2, "big")
    head[24:28] = (8 + len(payload)).to_bytes(2, "big") + bytes(2)
    return bytes(head) + payload


@on_the_kernel
def test_batch_verdicts_and_path() -> None:
    """One read hands over what waits, with its hook and interface; each packet takes its own verdict."""
    def work(pair: Pair) -> None:
        pair.send(b"one", b"two", b"three", b"four")
        packets = pair.reader.read()
        assert [packet.raw[28:] for packet in packets] == [b"one", b"two", b"three", b"four"]
        assert (packets[0].hook, packets[0].in_interface, packets[0].out_interface) == ("input", "lo", "")
        packets[3].accept()
        packets[0].accept(with_payload(packets[0], b"a longer one"))
        packets[1].drop()
        packets[2].accept(with_payload(packets[2], b"3"))
        assert [pair.received() for _ in range(3)] == [b"four", b"a longer one", b"3"]
        assert pair.nothing_received()
        assert pair.reader.read() == []
    with_pair(work)


@on_the_kernel
def test_packet_larger_than_the_packages_limit_arrives_whole() -> None:
    """The package asks for 4016 bytes; a reassembled packet of 9,028 arrives, and leaves, whole."""
    def work(pair: Pair) -> None:
        pair.send(b"x" * 9000)
        packet, = pair.reader.read()
        assert len(packet.raw) == 9028
        assert not is_cut(packet.raw)
        packet.accept(with_payload(packet, b"y" * 9500))
        assert pair.received() == b"y" * 9500
    with_pair(work)


@on_the_kernel
def test_cut_packet_is_never_written_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A packet that arrived cut goes on exactly as it came, whatever the engine made of it."""
    monkeypatch.setattr("natfix.queue_reader.COPY_RANGE", 1000)

    def work(pair: Pair) -> None:
        pair.send(b"x" * 1400)
        packet, = pair.reader.read()
        assert is_cut(packet.raw)
        packet.accept(with_payload(packet, b"short"))
        assert pair.received() == b"x" * 1400
    with_pair(work)


@on_the_kernel
def test_read_is_bounded() -> None:
    """A flood does not keep a read from ending: it hands over BATCH packets, the next read goes on."""
    def work(pair: Pair) -> None:
        pair.send(*[b"x"] * (BATCH + 10))
        assert [len(pair.reader.read()), len(pair.reader.read()), len(pair.reader.read())] == [BATCH, 10, 0]
        assert queue_counters(QUEUE)["waiting"] == BATCH + 10
    with_pair(work)


@on_the_kernel
def test_occupied_queue_is_refused() -> None:
    """A queue number that another program has bound is refused as busy (exit 75), with the cure."""
    def work(_pair: Pair) -> None:
        with pytest.raises(Busy, match=r"NFQUEUE 77 .*\[signalling\] queue"):
            NetfilterQueueReader(QUEUE)
        NetfilterQueueReader(QUEUE + 1).close()
    with_pair(work)


@on_the_kernel
def test_closed_queue_can_be_bound_again() -> None:
    """close() gives the number back at once: restart is the upgrade path."""
    def work() -> None:
        for _ in range(3):
            NetfilterQueueReader(QUEUE).close()
        assert queue_counters(QUEUE) == {}
    in_new_namespace(work)


@on_the_kernel
def test_full_socket_is_counted() -> None:
    """Packets lost because the socket's buffer was full show up as overflows, and reading goes on."""
    def work(pair: Pair) -> None:
        pair.reader._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        pair.send(*[b"x" * 1000] * 50)
        deadline = time.monotonic() + 5
        while pair.reader.overflows == 0 and time.monotonic() < deadline:
            for packet in pair.reader.read():
                packet.accept()
        assert pair.reader.overflows > 0
        assert queue_counters(QUEUE)["socket_full"] > 0
        pair.send(b"after")
        assert [packet.raw[28:] for packet in pair.reader.read()] == [b"after"]
    with_pair(work)


@on_the_kernel
def test_speed_of_a_rewrite() -> None:
    """Reading and rewriting costs less than 60 us of CPU per packet (design, section 9: 84 us per call)."""
    def work(pair: Pair) -> None:
        payload = b"x" * 700
        for _ in range(10):
            pair.send(*[payload] * BATCH)
            start = time.thread_time()
            for packet in pair.reader.read():
                packet.accept(packet.raw)
            costs.append((time.thread_time() - start) / BATCH)
    costs: list[float] = []
    with_pair(work)
    assert min(costs) < 60e-6


def test_cut_is_told_by_the_ip_length() -> None:
    """Cut means: fewer bytes than the IP header announces, or not even a header."""
    head = bytes([0x45, 0, 0, 30]) + bytes(16)
    assert is_cut(b"")
    assert is_cut(head)
    assert not is_cut(head + bytes(10))
    assert not is_cut(head + bytes(12))     # link-layer padding


def test_queue_counters_read_the_kernels_list() -> None:
    """The kernel's list is read by queue number; what is not bound has no counters."""
    text = (" 77   7961     0 2  4016     0     0        0  1\n"
            " 5060   8000     3 2 65531     7     9       21  1\n")
    assert queue_counters(5060, text) == {"waiting": 3, "queue_full": 7, "socket_full": 9}
    assert queue_counters(1, text) == {}
