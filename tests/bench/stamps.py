"""When each SIP message came to and left a gateway, by the kernel's own time stamps on both of its links."""

from __future__ import annotations

import socket
import struct
from collections import defaultdict, deque
from collections.abc import Iterator
from typing import NamedTuple

from tests.lab import namespaces
from tests.lab.compare import CALL_ID, CSEQ
from tests.lab.host import Host

ETH_P_ALL = 0x0003
PACKET_OUTGOING = 4
SO_RCVBUFFORCE, SO_TIMESTAMPNS = 33, 35
BUFFER = 256 << 20      # bytes: all of a run waits there, so that reading disturbs nothing
TIME = struct.Struct("@ll")
SNAP = 2048             # bytes of a packet that are looked at
Key = tuple[bytes, ...]


class Seen(NamedTuple):
    """One packet on one link."""

    at: float           # seconds since 1970
    leaves: bool
    key: Key


class Link:
    """Listens on one interface of a host from its making on."""

    def __init__(self, host: Host, interface: str) -> None:
        self._socket = namespaces.socket_in(host.namespace, socket.AF_PACKET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._socket.bind((interface, ETH_P_ALL))
        self._socket.setblocking(False)

    def close(self) -> list[Seen]:
        """Stop listening, and return the UDP packets of before."""
        with self._socket:
            return list(self._read())

    def _read(self) -> Iterator[Seen]:
        while True:
            try:
                data, control, _, address = self._socket.recvmsg(SNAP, 64)
            except BlockingIOError:
                return
            if len(data) > 28 and data[9] == socket.IPPROTO_UDP:
                seconds, nanoseconds = TIME.unpack(control[0][2])
                payload = data[4 * (data[0] & 15) + 8:]
                yield Seen(seconds + nanoseconds / 1e9, address[2] == PACKET_OUTGOING, _key(payload))


def transits(inside: list[Seen], outside: list[Seen]) -> list[float]:
    """Return the milliseconds between each packet's coming and leaving, in the order of their coming.

    The n-th copy of a message on one link is the n-th on the other.
    """
    found = [*_pairs(inside, outside), *_pairs(outside, inside)]
    return [1000 * (left - came) for came, left in sorted(found)]


def _pairs(come: list[Seen], gone: list[Seen]) -> Iterator[tuple[float, float]]:
    """Yield when each packet came by one link, and when it left by the other."""
    left: dict[Key, deque[float]] = defaultdict(deque)
    for seen in gone:
        if seen.leaves:
            left[seen.key].append(seen.at)
    for seen in come:
        if not seen.leaves and left[seen.key]:
            yield seen.at, left[seen.key].popleft()


def _key(payload: bytes) -> Key:
    """What no fixer changes: Call-ID, CSeq and kind of a SIP message; the bytes of anything else."""
    call_id, cseq = CALL_ID.search(payload), CSEQ.search(payload)
    if call_id is None or cseq is None:
        return (payload,)
    return (call_id[1], cseq[0], payload[:12] if payload.startswith(b"SIP/") else b"")
