"""A gateway between an inside and an outside network, as three namespaces and two cables."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from natfix.address import Endpoint
from natfix.commands import Flow
from natfix.kernel.base import Skeleton
from natfix.kernel.netfilter import NetfilterKernel
from tests.namespace import Namespace

PHONE, PHONE_2 = "192.168.1.10", "192.168.1.11"
GATEWAY = "203.0.113.1"
REMOTE, STRANGER = "203.0.113.50", "203.0.113.66"
BIT = 0x04000000

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

    def bind(self, host: str, port: int) -> socket.socket:
        """Return a UDP socket of the host that has the address *host*."""
        places = {PHONE: self.inside, PHONE_2: self.inside, GATEWAY: self.gateway}
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


def sent(source: socket.socket, to: Endpoint, receiver: socket.socket, text: bytes = b"x") -> Endpoint | None:
    """Send a datagram from *source* to *to*; return where *receiver* saw it come from, None if it did not."""
    source.sendto(text, to)
    try:
        data, address = receiver.recvfrom(2048)
    except TimeoutError:
        return None
    assert data == text
    return Endpoint(*address)


def flow_out(inside: Endpoint, remote: Endpoint, outside: Endpoint) -> Flow:
    """Return the flow of a mapping towards *remote*."""
    return Flow(inside, remote, remote, outside)
