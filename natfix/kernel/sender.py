"""Datagrams of natfix's own, sent as they are: past conntrack and NAT, with the outside address already.

A packet with the inside address would find its NAT only where the far UA's conntrack entry still lives.
Otherwise it would make an entry, at *output*, that no rule has marked as SIP: what the PBX sends and
receives by that entry would pass unfixed. One with the outside address would make an entry that leads to
the gateway itself. So chain ``own_words`` keeps them from conntrack, by the mark that they carry.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from natfix.commands import OwnPacket, SendPacket
from natfix.packet import datagram

SO_MARK = getattr(socket, "SO_MARK", 36)


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
                if isinstance(packet, SendPacket):
                    speaker.sendto(datagram(*packet), (packet.destination.host, 0))
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
