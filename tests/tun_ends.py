"""Two real TCP stacks with a gateway between them: the kernel's, in two namespaces, each behind a TUN device.

Packets pass through this process, which loses and reorders them in real time.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import random
import select
import socket
import struct
import time
from collections.abc import Callable

from natfix.address import Endpoint
from tests.namespace import Namespace
from tests.segments import Wire, read_segment, segment_bytes
from tests.tcp_ends import Link

TUN = "/dev/net/tun"
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
STEP = 65536            # octets of one read
CALLS = 20              # writes before packets are looked after


class TunEnd:
    """A namespace whose only way out is this process, and one TCP socket in it."""

    def __init__(self, own: Endpoint, other: Endpoint, settings: str = "true") -> None:
        self.own, self.other = own, other
        self.namespace = Namespace()
        self.device = self.namespace.call(_open_tun)
        self.namespace.run(f"ip address add {own.host}/32 dev tun0; ip link set tun0 up mtu 1500; "
                           f"ip route add default dev tun0; {settings}")
        self.transmit: Callable[[Wire], None] = lambda wire: None
        self.socket = self.namespace.call(self._make_socket)
        self.listener: socket.socket | None = None
        self.received = bytearray()
        self.has_finished = False
        self.is_reading = True
        self._writes: list[bytes] = []

    def _make_socket(self) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(self.own[:2])
        made.setblocking(False)
        return made

    def listen(self) -> None:
        self.listener = self.socket
        self.listener.listen(1)

    def connect(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect_ex(self.other[:2])

    def write(self, octets: bytes, *sizes: int) -> None:
        """Write *octets* by calls of *sizes*, the last one as long as there are octets."""
        left = list(sizes or (1460,))
        while octets:
            size = left[0] if len(left) == 1 else left.pop(0)
            self._writes.append(octets[:size])
            octets = octets[size:]

    def receive(self, wire: Wire) -> None:
        """A packet reaches the namespace."""
        os.write(self.device, segment_bytes(wire))

    def emit(self) -> None:
        """Packets leave the namespace."""
        while True:
            try:
                raw = os.read(self.device, STEP)
            except BlockingIOError:
                return
            if raw[0] >> 4 == 4 and raw[9] == socket.IPPROTO_TCP:
                self.transmit(read_segment(raw))

    def pump(self) -> None:
        """Let the socket take and give what it can."""
        if self.socket.fileno() < 0:
            return
        if self.listener is self.socket:
            try:
                self.socket, _ = self.listener.accept()
            except BlockingIOError:
                return
            self.socket.setblocking(False)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while self.is_reading and (octets := self.socket.recv(STEP)):
                self.received += octets
            self.has_finished = self.is_reading
        except BlockingIOError:
            pass
        try:
            for _ in range(CALLS):
                if not self._writes:
                    break
                octets = self._writes[0]
                sent = self.socket.send(octets)
                self._writes[:1] = [octets[sent:]] if sent < len(octets) else []
        except BlockingIOError:
            pass

    @property
    def unwritten(self) -> int:
        """How many calls are left; the first may have been taken in part."""
        return len(self._writes)

    @property
    def is_written(self) -> bool:
        return not self._writes

    def close(self) -> None:
        for each in {self.socket, self.listener} - {None}:
            each.close()
        os.close(self.device)


class RealWorld:
    """The clock, and what is on its way; takes the place of :class:`tests.tcp_ends.World`."""

    def __init__(self, seed: int, link: Link) -> None:
        self.chance = random.Random(seed)
        self.link = link
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = 0

    @property
    def now(self) -> float:
        return time.monotonic()

    def after(self, pause: float, event: Callable[[], None]) -> None:
        self._serial += 1
        heapq.heappush(self._events, (self.now + pause, self._serial, event))

    def transport(self, deliver: Callable[[], None]) -> None:
        if self.chance.random() >= self.link.loss:
            self.after(self.chance.random() * self.link.jitter, deliver)

    def run(self, ends: tuple[TunEnd, TunEnd], until: Callable[[], bool], limit: float) -> None:
        """Let time pass; AssertionError where the end does not come."""
        end = self.now + limit
        while not until():
            assert self.now < end, "it takes too long"
            pause = min(0.01, max(0.0, self._events[0][0] - self.now)) if self._events else 0.01
            select.select([each.device for each in ends], [], [], pause)
            for each in ends:
                each.emit()
            while self._events and self._events[0][0] <= self.now:
                heapq.heappop(self._events)[2]()
            for each in ends:
                each.pump()


def _open_tun() -> int:
    device = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"tun0", IFF_TUN | IFF_NO_PI))
    return device
