"""A gateway between an inside and an outside network, as three namespaces and two cables."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from natfix.address import Endpoint
from natfix.commands import AddMapping, Flow, Kind
from natfix.kernel.base import Skeleton
from natfix.kernel.netfilter import NetfilterKernel
from natfix.queue_reader import NetfilterQueueReader, QueuedPacket
from tests.namespace import Namespace

PHONE, PHONE_2 = "192.168.1.10", "192.168.1.11"
GATEWAY, GATEWAY_INSIDE = "203.0.113.1", "192.168.1.1"
REMOTE, STRANGER = "203.0.113.50", "203.0.113.66"
BIT = 0x04000000

MEDIA, SIGNALLING = Kind.MEDIA, Kind.SIGNALLING
RTP, RTP_OUT, RTP_REMOTE = Endpoint(PHONE, 12000), Endpoint(GATEWAY, 30000), Endpoint(REMOTE, 40000)
RTP_2, RTP_OUT_2 = Endpoint(PHONE_2, 12000), Endpoint(GATEWAY, 30002)
SIP, SIP_OUT, SIP_REMOTE = Endpoint(PHONE, 5060), Endpoint(GATEWAY, 15060), Endpoint(REMOTE, 5060)

SKELETON = Skeleton(("outside",), (5060,), (30000, 39999), BIT, 5060, bypass=True)

# What an operator has: new flows from inside only, and a masquerade after natfix's own chains.
FIREWALL = """
table inet firewall {
    chain input {
        type filter hook input priority filter; policy accept;
    }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        %s
        iifname "inside" accept
    }
}
table ip nat {
    chain postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        oifname "outside" masquerade
    }
}
"""
DNAT_LINE = "ct status dnat accept"


class Wires:
    """The three namespaces; two phones inside, a remote and a stranger outside."""

    def __init__(self) -> None:
        self.inside, self.gateway, self.outside = Namespace(), Namespace(), Namespace()
        self.inside.connect(self.gateway, "eth0", "inside")
        self.outside.connect(self.gateway, "eth0", "outside")
        self.inside.run(f"ip addr add {PHONE}/24 dev eth0; ip addr add {PHONE_2}/24 dev eth0;"
                        "ip link set eth0 up; ip route add default via 192.168.1.1")
        self.outside.run(f"ip addr add {REMOTE}/24 dev eth0; ip addr add {STRANGER}/24 dev eth0;"
                         "ip link set eth0 up")
        self.gateway.run(f"ip addr add 192.168.1.1/24 dev inside; ip addr add {GATEWAY}/24 dev outside;"
                         "ip link set inside up; ip link set outside up; sysctl -qw net.ipv4.ip_forward=1")
        self.sockets: list[socket.socket] = []
        self.kernel = self.gateway.call(NetfilterKernel)

    def firewall(self, dnat_line: bool = False) -> None:
        """Load the operator's rules."""
        self.gateway.run("nft -f -", FIREWALL % (DNAT_LINE if dnat_line else ""))

    def install(self, skeleton: Skeleton = SKELETON) -> None:
        """Install natfix's table."""
        self.gateway.call(lambda: self.kernel.install(skeleton))

    def remove(self) -> None:
        """Remove natfix's table."""
        self.gateway.call(self.kernel.remove)

    def rules(self) -> str:
        """Return all rules of the gateway, as both tools print them, without counters."""
        return self.gateway.run("nft -s list ruleset 2>&1; iptables-save 2>&1 | sed /^#/d")

    def entries(self, what: str = "") -> list[str]:
        """Return the gateway's UDP conntrack entries, as conntrack(8) prints them, with *what* in them."""
        listing = self.gateway.run("conntrack -L -p udp 2>/dev/null")
        return [line for line in listing.splitlines() if what in line]

    def bind(self, host: str, port: int) -> socket.socket:
        """Return a UDP socket of the host that has the address *host*."""
        places = {PHONE: self.inside, PHONE_2: self.inside,
                  GATEWAY: self.gateway, GATEWAY_INSIDE: self.gateway}
        made = places.get(host, self.outside).bind(host, port)
        self.sockets.append(made)
        return made

    def close(self) -> None:
        for made in self.sockets:
            made.close()
        self.kernel.close()
        for space in (self.inside, self.gateway, self.outside):
            space.close()


@contextmanager
def wires() -> Iterator[Wires]:
    """Give the wires for the time of the block."""
    made = Wires()
    try:
        yield made
    finally:
        made.close()


def is_lost(source: socket.socket, to: Endpoint, receiver: socket.socket) -> bool:
    """Tell whether a datagram from *source* fails to reach *receiver*."""
    return sent(source, to, receiver) is None


def sent(source: socket.socket, to: Endpoint, receiver: socket.socket, text: bytes = b"x") -> Endpoint | None:
    """Send a datagram from *source* to *to*; return where *receiver* saw it come from, None if it did not."""
    source.sendto(text, to[:2])
    try:
        data, address = receiver.recvfrom(2048)
    except TimeoutError:
        return None
    assert data == text
    return Endpoint(*address)


def flow_out(inside: Endpoint, remote: Endpoint, outside: Endpoint) -> Flow:
    """Return the flow of a mapping towards *remote*."""
    return Flow(inside, remote, remote, outside)


FLOW = flow_out(RTP, RTP_REMOTE, RTP_OUT)


class Queue:
    """The gateway's NFQUEUE, read by hand."""

    def __init__(self, gateway: Wires) -> None:
        self._space = gateway.gateway
        self._reader = self._space.call(lambda: NetfilterQueueReader(SKELETON.queue))

    def accept(self, count: int, before: Callable[[], object] = lambda: None) -> list[bytes]:
        """Wait for *count* packets, call *before*, let them go; return their UDP ports and payloads."""
        packets = self._wait(count)
        before()
        for packet in packets:
            packet.accept()
        return [packet.raw[20:24] + packet.raw[28:] for packet in packets]

    def drop(self, count: int) -> list[bytes]:
        """The same, but let none of them go."""
        packets = self._wait(count)
        for packet in packets:
            packet.drop()
        return [packet.raw[20:24] + packet.raw[28:] for packet in packets]

    def _wait(self, count: int) -> list[QueuedPacket]:
        packets: list[QueuedPacket] = []
        deadline = time.monotonic() + 1
        while len(packets) < count and time.monotonic() < deadline:
            packets += self._space.call(self._reader.read)
            time.sleep(0.005)
        return packets

    def close(self) -> None:
        self._reader.close()


def ports(source: int, destination: int) -> bytes:
    """Return what :meth:`Queue.accept` shows before a payload."""
    return source.to_bytes(2) + destination.to_bytes(2)


def media(inside: Endpoint = RTP, outside: Endpoint = RTP_OUT, lifetime: float = 60, inward: bool = True,
          owner: str = "call 1") -> AddMapping:
    """Return a media mapping, with the first phone's endpoints unless told otherwise."""
    return AddMapping(MEDIA, inside, outside, lifetime, inward, owner)
