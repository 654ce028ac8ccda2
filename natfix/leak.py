"""How many packets leave with an inside source address, while nobody translates them.

After `nft flush ruleset` the kernel translates nothing any more, not even the flows it knows, and tracks
nothing either: conntrack's counters stand still. So the packets are counted where they leave, by a socket
that only lives from the flush to the return of the rules; nothing is copied.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable

from natfix.address import Network
from natfix.kernel.events import BYTE, EQUAL, RETURN, Step, attach_filter

MAX_NETWORKS = 60       # as far as a jump of the filter reaches
WORD, AND = 0x20, 0x54      # linux/bpf_common.h: load a word, mask it

ETH_P_ALL, ETH_P_IP = 0x0003, 0x0800
SOL_PACKET, PACKET_STATISTICS = 263, 6
PACKET_OUTGOING = 4
# linux/filter.h: facts about the packet, loaded from beyond its end.
PROTOCOL_PLACE, TYPE_PLACE = 0xFFFFF000, 0xFFFFF000 + 4
PROTOCOL_FIELD, SOURCE_FIELD = 9, 12        # of the IPv4 header


class LeakMeter:
    """Counts the UDP packets with a source in *networks* that leave by *interface*, from now on."""

    def __init__(self, interface: str, networks: Iterable[Network]) -> None:
        """Raises OSError where the interface is gone or CAP_NET_RAW is missing."""
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        try:
            attach_filter(self._socket, _steps(tuple(networks)[:MAX_NETWORKS]))
            self._socket.bind((interface, ETH_P_ALL))
        except OSError:
            self._socket.close()
            raise

    def count(self) -> int:
        """Return the packets since the last call."""
        statistics = self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
        return int(struct.unpack("=II", statistics)[0])

    def close(self) -> None:
        """Give it up; this may take the kernel some 20 ms."""
        self._socket.close()


def _steps(networks: tuple[Network, ...]) -> tuple[Step, ...]:
    """Return the filter: an IPv4 UDP packet that leaves, from one of *networks*."""
    tests = [
        Step(WORD, TYPE_PLACE), Step(EQUAL, PACKET_OUTGOING),
        Step(WORD, PROTOCOL_PLACE), Step(EQUAL, ETH_P_IP),
        Step(BYTE, PROTOCOL_FIELD), Step(EQUAL, socket.IPPROTO_UDP),
    ]
    sources = [
        step for base, mask in networks
        for step in (Step(WORD, SOURCE_FIELD), Step(AND, mask), Step(EQUAL, base))
    ]
    take = len(tests) + len(sources) + 1    # the place of the last step; the one before takes nothing
    steps = [
        step._replace(if_false=take - 2 - place) if step.code == EQUAL else step
        for place, step in enumerate(tests)
    ]
    steps += [
        step._replace(if_true=take - 1 - place) if step.code == EQUAL else step
        for place, step in enumerate(sources, len(tests))
    ]
    return (*steps, Step(RETURN, 0), Step(RETURN, 1))


def open_meters(interfaces: Iterable[str], networks: Iterable[Network]) -> list[LeakMeter]:
    """Return a meter for each of *interfaces* where that can be had."""
    meters = []
    inside = tuple(networks)
    for interface in interfaces:
        try:
            meters.append(LeakMeter(interface, inside))
        except OSError as problem:
            if problem.errno not in (errno.ENODEV, errno.EPERM, errno.ENETDOWN, errno.EAFNOSUPPORT):
                raise
    return meters
