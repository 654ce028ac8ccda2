"""Packets of natfix's own, sent as they are: past conntrack and NAT, with the outside address already.

A packet with the inside address would find its NAT only where the far UA's conntrack entry still lives.
Otherwise it would make an entry, at *output*, that no rule has marked as SIP: what the PBX sends and
receives by that entry would pass unfixed. One with the outside address would make an entry that leads to
the gateway itself. So chain ``own_words`` keeps them from conntrack, by the mark that they carry.
In a TCP connection they carry the address that each end knows the other one by, whosever it is.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

from natfix.commands import OwnPacket, SendPacket
from natfix.packet import datagram
from natfix.segment import datagram as segment_datagram

SO_MARK = getattr(socket, "SO_MARK", 36)
IP_PKTINFO = getattr(socket, "IP_PKTINFO", 8)
PKTINFO = struct.Struct("=i8x")     # struct in_pktinfo: interface, and two addresses that are not needed


class Sender:
    """A raw socket of the network namespace of the thread that sends first."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._mark = 0

    def close(self) -> None:
        """Give the socket up."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def send(self, packets: Sequence[OwnPacket], mark: int) -> int:
        """Send *packets* with *mark*; return how many the kernel has refused. Never waits, never raises."""
        try:
            speaker = self._open(mark)
        except OSError:
            return len(packets)
        failed = 0
        for packet in packets:
            try:
                _send(speaker, packet)
            except OSError:     # a firewall's drop, no route, a full queue, longer than the link takes
                failed += 1
        return failed

    def _open(self, mark: int) -> socket.socket:
        if self._socket is None:
            # IPPROTO_RAW: the header is ours, and nothing is ever received.
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
            self._socket.setblocking(False)
            self._mark = 0
        if mark != self._mark:
            self._socket.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)
            self._mark = mark
        return self._socket


def _send(speaker: socket.socket, packet: OwnPacket) -> None:
    to = (packet.destination.host, 0)
    if isinstance(packet, SendPacket):
        speaker.sendto(datagram(*packet), to)
    elif not packet.interface:
        speaker.sendto(segment_datagram(packet), to)
    else:
        way = PKTINFO.pack(socket.if_nametoindex(packet.interface))
        speaker.sendmsg([segment_datagram(packet)], [(socket.IPPROTO_IP, IP_PKTINFO, way)], 0, to)
