"""Packets from an NFQUEUE, a batch per read, through the package netfilterqueue.

The reader interface is small so that another implementation can stand beside this one: a file
descriptor to wait on, :meth:`read`, and packets that take one verdict each.

Three faults of netfilterqueue 1.1.0 are worked around here, all through a second Python object for
the package's own netlink socket: its ``bind`` asks the kernel for at most 4016 bytes of a packet
(:func:`_ask_for_whole_packets`), its ``run`` goes on for as long as packets come in and swallows
ENOBUFS (:class:`_Receiver`).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from natfix.errors import Busy, KernelRefused
from natfix.kernel.netlink import NETLINK_NETFILTER, Inbox

HOOKS = ("prerouting", "input", "forward", "output", "postrouting")     # NF_INET_*, in the kernel's order

QUEUE_LENGTH = 8192         # packets the kernel holds for us; more are dropped, never passed unfixed
COPY_RANGE = 65531          # bytes of a packet; the most that fits one netlink attribute
RECEIVE_BUFFER = 8 << 20    # bytes of the netlink socket; a waiting packet takes about its size twice
BATCH = 16                  # packets of one read; bounds how long the first of them waits for the last
MESSAGE_SIZE = 66000        # bytes: a whole packet and its attributes

QUEUES = "/proc/thread-self/net/netfilter/nfnetlink_queue"


class QueuedPacket(Protocol):
    """A packet that waits in the kernel for its one verdict."""

    @property
    def raw(self) -> bytes: ...             # from the IP header on

    @property
    def hook(self) -> str: ...              # one of HOOKS

    @property
    def in_interface(self) -> str: ...      # "" where there is none

    @property
    def out_interface(self) -> str: ...

    @property
    def mark(self) -> int: ...              # of the packet, not of the connection

    def accept(self, packet: bytes | None = None) -> None:
        """Let it go on, as *packet* where given; a packet that arrived cut only as it came."""

    def drop(self) -> None:
        """End it here."""


class QueueReader(Protocol):
    """One NFQUEUE."""

    overflows: int      # times that the socket's buffer was full, packets were lost

    def fileno(self) -> int: ...

    def read(self) -> list[QueuedPacket]:
        """Return what waits, at most BATCH packets; never blocks."""

    def forget_interfaces(self) -> None:
        """Interface numbers may have new names."""

    def close(self) -> None:
        """Give the queue up; the kernel drops what waits in it."""


class NetfilterQueueReader:
    """A :class:`QueueReader` on the package netfilterqueue."""

    def __init__(self, number: int) -> None:
        """Bind queue *number*; raises Busy where another process has it, KernelRefused where the
        kernel has no NFQUEUE, or the package is missing."""
        package = _import_package()
        _refuse_occupied(number)
        self.overflows = 0
        self._batch: list[_QueuedPacket] = []
        self._names: dict[int, str] = {0: ""}
        self._queue: Any = None
        try:
            self._queue = package.NetfilterQueue()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)     # the buffer may be bounded by a sysctl
                self._queue.bind(number, self._take, max_len=QUEUE_LENGTH, sock_len=RECEIVE_BUFFER)
        except OSError as problem:
            raise KernelRefused(
                f"the kernel gives no NFQUEUE {number} ({problem}): is the module nfnetlink_queue there?"
            ) from None
        descriptor = os.dup(self._queue.get_fd())
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER, descriptor)
        self._inbox = Inbox(MESSAGE_SIZE)
        _ask_for_whole_packets(self._socket, number)

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> list[QueuedPacket]:
        self._queue.run_socket(_Receiver(self))
        batch, self._batch = self._batch, []
        return list(batch)

    def _take(self, packet: Any) -> None:
        """Called by the package for each packet; its payload is gone once this returns."""
        self._batch.append(_QueuedPacket(packet, self._name(packet.indev), self._name(packet.outdev)))

    def _name(self, index: int) -> str:
        name = self._names.get(index)
        if name is None:
            try:
                name = socket.if_indextoname(index)
            except OSError:
                return ""       # the interface has gone while the packet waited
            self._names[index] = name
        return name

    def forget_interfaces(self) -> None:
        self._names = {0: ""}

    def close(self) -> None:
        self._socket.close()
        self._queue.unbind()


class _QueuedPacket:
    """A :class:`QueuedPacket` of the package netfilterqueue."""

    __slots__ = ("_packet", "hook", "in_interface", "mark", "out_interface", "raw")

    def __init__(self, packet: Any, in_interface: str, out_interface: str) -> None:
        self._packet = packet
        self.raw: bytes = packet.get_payload()
        self.hook = HOOKS[packet.hook]
        self.in_interface = in_interface
        self.out_interface = out_interface
        self.mark: int = packet.mark

    def accept(self, packet: bytes | None = None) -> None:
        if packet is not None and not is_cut(self.raw):
            self._packet.set_payload(packet)
        self._packet.accept()

    def drop(self) -> None:
        self._packet.drop()


class _Receiver:
    """What the package takes for a socket: gives it at most BATCH messages and counts lost ones."""

    def __init__(self, reader: NetfilterQueueReader) -> None:
        self._reader = reader
        self._left = BATCH

    def recv(self, _size: int) -> bytes:
        if not self._left:
            raise BlockingIOError(errno.EAGAIN, "the batch is full")
        self._left -= 1
        try:
            return self._reader._inbox.receive(self._reader._socket, socket.MSG_DONTWAIT)
        except OSError as problem:
            self._reader.overflows += problem.errno == errno.ENOBUFS
            raise


def is_cut(raw: bytes) -> bool:
    """Tell whether fewer bytes arrived than the IP header announces: such a packet is never written back."""
    return len(raw) < 20 or int.from_bytes(raw[2:4]) > len(raw)


def queue_counters(number: int, text: str | None = None) -> dict[str, int]:
    """Return what the kernel counts for queue *number*: ``waiting``, and packets lost because the
    queue or the socket was full; {} where nobody has bound it. *text* is for tests."""
    for fields in _queues(text):
        if fields[0] == number:
            return {"waiting": fields[2], "queue_full": fields[5], "socket_full": fields[6]}
    return {}


def _queues(text: str | None = None) -> Iterable[list[int]]:
    """The kernel's list of bound queues: number, netlink port, waiting, mode, range, dropped, ..."""
    if text is None:
        try:
            text = Path(QUEUES).read_text()
        except OSError:
            return []       # not there, or /proc is restricted: the bind will tell
    return [[int(field) for field in line.split()] for line in text.splitlines()]


def _refuse_occupied(number: int) -> None:
    for fields in _queues():
        if fields[0] == number:
            raise Busy(
                f"NFQUEUE {number} is taken by another program (netlink port {fields[1]}, as a rule its "
                f"process id): end that one, or choose another number with [signalling] queue"
            )


def _import_package() -> Any:
    try:
        import netfilterqueue
    except ImportError as problem:
        raise KernelRefused(
            f"the Python package netfilterqueue cannot be loaded ({problem}): pip install 'natfix[live]'"
        ) from None
    return netfilterqueue


def _ask_for_whole_packets(connection: socket.socket, number: int) -> None:
    """Set the queue's copy range by hand: NFQNL_MSG_CONFIG with NFQA_CFG_PARAMS (linux/nfnetlink_queue.h).

    No answer is asked for, since it would stand in the way of packets. Where the kernel does not take
    it the package's 4016 bytes stay, and larger packets arrive cut.
    """
    copy_packet, config_params, config_message, netlink_request = 2, 2, 3 << 8 | 2, 1
    params = struct.pack("=HH", 9, config_params) + struct.pack("!IB3x", COPY_RANGE, copy_packet)
    body = struct.pack("!BBH", socket.AF_UNSPEC, 0, number) + params
    connection.send(struct.pack("=IHHII", 16 + len(body), config_message, netlink_request, 0, 0) + body)
