"""Copies of packets from the kernel's log (NFLOG), for an observer: nothing waits for an answer to them.

A :class:`natfix.queue_reader.QueueReader` whose verdicts say nothing to the kernel.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import NamedTuple

from natfix.errors import Busy, KernelRefused, NotPermitted
from natfix.kernel.netlink import (
    ACK,
    ERROR,
    HEADER,
    NETLINK_NETFILTER,
    REQUEST,
    SO_RCVBUFFORCE,
    Inbox,
    attribute,
    attributes,
    each_message,
    error_number,
    force_buffer,
    has_net_admin,
    head,
    number,
)
from natfix.queue_reader import BATCH, HOOKS, QueuedPacket

# linux/netfilter/nfnetlink_log.h
LOG_PACKET, LOG_CONFIG = 4 << 8, 4 << 8 | 1                 # NFNL_SUBSYS_ULOG, NFULNL_MSG_*
COMMAND, COPY_MODE, WAIT, AT_ONCE = 1, 2, 4, 5              # NFULA_CFG_*
BIND, COPY_PACKET = 1, 2                                    # NFULNL_CFG_CMD_BIND, NFULNL_COPY_PACKET
PACKET_HEADER, MARK, IN_DEVICE, OUT_DEVICE, PAYLOAD = 1, 2, 4, 5, 9     # NFULA_*

RECEIVE_BUFFER = 8 << 20    # bytes
MESSAGE_SIZE = 1 << 17      # bytes: a whole packet and its attributes, or several small ones


class LoggedPacket(NamedTuple):
    """The copy of a packet, which has gone on already."""

    raw: bytes
    hook: str
    in_interface: str
    out_interface: str
    mark: int

    def accept(self, packet: bytes | None = None) -> None:
        """Say nothing."""

    def drop(self) -> None:
        """Say nothing."""


class LogReader:
    """One NFLOG group."""

    def __init__(self, group: int) -> None:
        """Bind *group*; raises Busy where another process has it, KernelRefused where the kernel has no
        NFLOG, NotPermitted without CAP_NET_ADMIN."""
        self.overflows = 0
        self._names: dict[int, str] = {0: ""}
        self._inbox = Inbox(MESSAGE_SIZE)
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, NETLINK_NETFILTER)
        try:
            self._socket.bind((0, 0))
            force_buffer(self._socket, SO_RCVBUFFORCE, socket.SO_RCVBUF, RECEIVE_BUFFER)
            self._configure(group, attribute(COMMAND, bytes([BIND])))
            # A length of 0 is the most there can be. Each packet is sent at once.
            self._configure(group, attribute(COPY_MODE, struct.pack("!IBx", 0, COPY_PACKET))
                            + number(WAIT, 1) + number(AT_ONCE, 1))
        except OSError as problem:
            self._socket.close()
            raise _refusal(problem, group) from None
        self._socket.setblocking(False)

    def _configure(self, group: int, parts: bytes) -> None:
        body = head(socket.AF_UNSPEC, group) + parts
        self._socket.send(HEADER.pack(16 + len(body), LOG_CONFIG, REQUEST | ACK, 1, 0) + body)
        for kind, _, _, answer in each_message(self._inbox.receive(self._socket)):
            if kind == ERROR and (code := error_number(answer)):
                raise OSError(code, "")

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> list[QueuedPacket]:
        """Return what waits, at most BATCH datagrams; never blocks."""
        found: list[QueuedPacket] = []
        while len(found) < BATCH:
            try:
                data = self._inbox.receive(self._socket)
            except BlockingIOError:
                break
            except OSError as problem:
                if problem.errno != errno.ENOBUFS:
                    raise
                self.overflows += 1
                continue
            found += [self._packet(body) for kind, _, _, body in each_message(data) if kind == LOG_PACKET]
        return found

    def _packet(self, body: bytes) -> QueuedPacket:
        parts = attributes(body, 4)
        hook = parts.get(PACKET_HEADER, b"\0\0\0")[2]
        return LoggedPacket(
            parts.get(PAYLOAD, b""), HOOKS[hook] if hook < len(HOOKS) else "",
            self._name(parts.get(IN_DEVICE)), self._name(parts.get(OUT_DEVICE)),
            int.from_bytes(parts.get(MARK, b"\0")))

    def _name(self, index: bytes | None) -> str:
        place = int.from_bytes(index or b"\0")
        if place not in self._names:
            try:
                self._names[place] = socket.if_indextoname(place)
            except OSError:
                return ""       # it has gone meanwhile
        return self._names[place]

    def forget_interfaces(self) -> None:
        """Interface numbers may have new names."""
        self._names = {0: ""}

    def close(self) -> None:
        """Give the group up."""
        self._socket.close()


def _refusal(problem: OSError, group: int) -> Busy | KernelRefused | NotPermitted:
    # The kernel says EPERM to a second process, too, whatever its rights.
    if problem.errno in (errno.EBUSY, errno.EPERM) and has_net_admin():
        return Busy(f"the log group {group} is in use: is another natfix observing? In natfix.toml, "
                    "[signalling] queue chooses another number")
    if problem.errno == errno.EPERM:
        return NotPermitted("natfix needs CAP_NET_ADMIN to see packets: run it as root")
    return KernelRefused(f"the kernel gives no copies of packets ({problem.strerror or problem}): "
                         "modprobe nfnetlink_log nft_log")
