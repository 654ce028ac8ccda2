"""What others do to netfilter, by event: conntrack entries that end, nftables rules that change.

Both sockets have a filter in the kernel (classic BPF), since most events are none of natfix's business:
flows that are not UDP, and elements of sets, natfix's own some hundred times a second.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from typing import NamedTuple

from natfix.commands import Flow
from natfix.errors import KernelRefused
from natfix.kernel.conntrack import ASSURED, PROTOCOL_AT, STATUS, TUPLE, entry_from_body
from natfix.kernel.elements import DELETE_ELEMENT, NEW_ELEMENT, TABLE
from natfix.kernel.netfilter import NetfilterKernel
from natfix.kernel.netlink import (
    NETLINK_NETFILTER,
    NFTABLES,
    RECEIVE_SPACE,
    SO_RCVBUFFORCE,
    SOL_NETLINK,
    Inbox,
    attributes,
    each_message,
    force_buffer,
)

NETLINK_ADD_MEMBERSHIP = 1
SO_ATTACH_FILTER = 26
# NFNLGRP_CONNTRACK_NEW, NFNLGRP_CONNTRACK_DESTROY, NFNLGRP_NFTABLES
CONNTRACK_BEGUN, CONNTRACK_DESTROYED, NFTABLES_CHANGED = 1, 3, 7

NEW_GENERATION = NFTABLES << 8 | 15
TABLE_OF = 1                # NFTA_TABLE_NAME; in messages about chains, rules and sets, too

# Classic BPF (linux/bpf_common.h): load a byte or half-word at a fixed place; compare; return.
BYTE, HALF, WORD, RETURN = 0x30, 0x28, 0x20, 0x06
EQUAL, ABOVE, AT_LEAST, ANY_OF = 0x15, 0x25, 0x35, 0x45
TAKE_ALL, TAKE_NONE = 0xFFFFFFFF, 0
# Places in a message: its type, the address family, and the first attribute's payload (after the
# netlink header of 16 bytes, the netfilter header of 4, and an attribute header of 4).
TYPE_PLACE, FAMILY_PLACE, FIRST_PLACE = 4, 16, 24
# In conntrack events two tuples come first, then CTA_ID (8 bytes), then CTA_STATUS.
SECOND_PLACE = FIRST_PLACE + TUPLE.size + 4
STATUS_PLACE = SECOND_PLACE + TUPLE.size + 8
PORT_AT = 44                # of the destination, inside a CTA_TUPLE_*


class Step(NamedTuple):
    """One BPF instruction; the jumps count the instructions to skip."""

    code: int
    value: int
    if_true: int = 0
    if_false: int = 0


# UDP over IPv4: the original tuple is always the first attribute.
ONLY_UDP = (
    Step(BYTE, FAMILY_PLACE),
    Step(EQUAL, socket.AF_INET, 0, 3),
    Step(BYTE, FIRST_PLACE + PROTOCOL_AT),
    Step(EQUAL, socket.IPPROTO_UDP, 0, 1),
    Step(RETURN, TAKE_ALL),
    Step(RETURN, TAKE_NONE),
)


def _only_media(first: int, last: int) -> tuple[Step, ...]:
    """Return a filter for UDP entries with a NATed end at ports *first* to *last*.

    An entry that packets begin is never ASSURED, one that natfix makes always is.
    """
    return (
        Step(BYTE, FAMILY_PLACE),
        Step(EQUAL, socket.AF_INET, 0, 13),
        Step(BYTE, FIRST_PLACE + PROTOCOL_AT),
        Step(EQUAL, socket.IPPROTO_UDP, 0, 11),
        Step(HALF, FIRST_PLACE + PORT_AT),          # inward: where the first packet was sent
        Step(AT_LEAST, first, 0, 1),
        Step(ABOVE, last, 0, 3),
        Step(HALF, SECOND_PLACE + PORT_AT),         # outward: where the replies are sent
        Step(AT_LEAST, first, 0, 6),
        Step(ABOVE, last, 5, 0),
        Step(HALF, STATUS_PLACE + 2),
        Step(EQUAL, _swapped(STATUS), 0, 2),
        Step(WORD, STATUS_PLACE + 4),
        Step(ANY_OF, ASSURED, 1, 0),
        Step(RETURN, TAKE_ALL),
        Step(RETURN, TAKE_NONE),
    )


def _swapped(kind: int) -> int:
    """Return a message type as BPF, which reads network order, sees it in the host's order."""
    return int.from_bytes(struct.pack("=H", kind))


# Neither the end of a transaction, nor one that begins with elements: natfix's own changes, and what
# fail2ban and its like do.
NO_ELEMENTS = (
    Step(HALF, TYPE_PLACE),
    Step(EQUAL, _swapped(NEW_GENERATION), 3),
    Step(EQUAL, _swapped(NEW_ELEMENT), 2),
    Step(EQUAL, _swapped(DELETE_ELEMENT), 1),
    Step(RETURN, TAKE_ALL),
    Step(RETURN, TAKE_NONE),
)


class _Events:
    """A netlink socket that listens to one group and never blocks."""

    def __init__(self, group: int, steps: tuple[Step, ...]) -> None:
        self.lost = 0           # times that the socket was full and events were lost
        self._inbox = Inbox()
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC,
                                         NETLINK_NETFILTER)
            self._socket.bind((0, 0))
            self._socket.setblocking(False)
            force_buffer(self._socket, SO_RCVBUFFORCE, socket.SO_RCVBUF, RECEIVE_SPACE)
            attach_filter(self._socket, steps)
            self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
        except OSError as problem:
            raise KernelRefused(f"the kernel tells no netfilter events ({problem.strerror})") from None

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def _messages(self) -> list[tuple[int, bytes]]:
        """Return type and body of every message that waits."""
        found: list[tuple[int, bytes]] = []
        while True:
            try:
                data = self._inbox.receive(self._socket)
            except BlockingIOError:
                return found
            except OSError as problem:
                if problem.errno != errno.ENOBUFS:
                    raise
                self.lost += 1
                continue
            found += [(kind, body) for kind, _, _, body in each_message(data)]


class NewMediaFlows(_Events):
    """UDP entries that begin at a port of the media pool, but for those that natfix makes itself.

    Where one is missed (``lost``), its entry ends by the kernel's timeout only.
    """

    def __init__(self, ports: tuple[int, int]) -> None:
        """*ports* are the pool's first and last."""
        super().__init__(CONNTRACK_BEGUN, _only_media(*ports))

    def follow(self, ports: tuple[int, int]) -> None:
        """Listen to another pool from now on."""
        attach_filter(self._socket, _only_media(*ports))

    def read(self) -> list[Flow]:
        """Return the flows that began since the last call, as the kernel holds them."""
        entries = [entry_from_body(body) for _, body in self._messages()]
        return [entry.state.flow for entry in entries if entry]


class ConntrackEvents(_Events):
    """UDP entries that end: their time was up, or somebody deleted them.

    Where ``lost`` grows some ends were missed. The kernel may also keep silent about entries that began
    while nobody listened, so a flow that matters is looked up now and then as well.
    """

    def __init__(self) -> None:
        super().__init__(CONNTRACK_DESTROYED, ONLY_UDP)

    def read(self) -> list[Flow]:
        """Return the flows that ended since the last call, as the kernel held them."""
        entries = [entry_from_body(body) for _, body in self._messages()]
        return [entry.state.flow for entry in entries if entry]


class NftEvents(_Events):
    """Changes of nftables tables, chains, rules and sets, but not of sets' elements."""

    def __init__(self, kernel: NetfilterKernel) -> None:
        """*kernel* is asked whether its table still is as it made it: events do not say who made them."""
        super().__init__(NFTABLES_CHANGED, NO_ELEMENTS)
        self._kernel = kernel

    def read(self) -> tuple[bool, bool]:
        """Tell whether natfix's own table is damaged, and whether anything of others has changed.

        Where events were lost both are looked at or assumed.
        """
        lost = self.lost
        tables = {attributes(body, 4).get(TABLE_OF, b"") for _, body in self._messages()}
        anything = self.lost > lost
        own = TABLE.encode() + b"\0"
        return (anything or own in tables) and not self._kernel.is_intact(), anything or bool(tables - {own})


def attach_filter(target: socket.socket, steps: tuple[Step, ...]) -> None:
    """Set *steps* as the socket's filter: a struct sock_fprog, with a pointer to sock_filter structs."""
    code = b"".join(
        struct.pack("=HBBI", step.code, step.if_true, step.if_false, step.value) for step in steps)
    memory = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("@HP", len(steps), ctypes.addressof(memory))
    target.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
