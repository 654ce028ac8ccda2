"""Netlink to netfilter by hand: messages, attributes, and one socket that asks and is answered.

``struct`` only, since commands are encoded while a packet waits. The layout is that of linux/netlink.h
and linux/netfilter/nfnetlink.h: a message is a header, a four-byte netfilter header, and attributes
that may nest. Attribute numbers stand with those who use them.

The kernel carries out a request within the ``send`` call, so the answers are there when it returns:
nothing here ever waits.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from natfix.errors import KernelRefused, NotPermitted

NETLINK_NETFILTER = 12
SOL_NETLINK, NETLINK_CAP_ACK = 270, 10
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33

REQUEST, ACK, DUMP = 0x1, 0x4, 0x300        # NLM_F_*
EXCL, CREATE = 0x200, 0x400
DUMP_INTERRUPTED = 0x10

ERROR, DONE = 2, 3                          # NLMSG_*
BATCH_BEGIN, BATCH_END = 0x10, 0x11         # NFNL_MSG_*

NESTED = 0x8000                             # NLA_F_NESTED
TYPE_MASK = 0x3FFF

CONNTRACK, NFTABLES = 1, 10                 # NFNL_SUBSYS_*

SEND_SPACE = 256 << 10      # bytes; more is asked for when one batch needs it
RECEIVE_SPACE = 4 << 20
MESSAGE_SIZE = 32768        # bytes; the kernel makes none larger
DUMP_TRIES = 8              # a dump that a commit has interrupted starts anew

HEADER = struct.Struct("=IHHII")            # length, type, flags, sequence, port
FAMILY = struct.Struct("!BBH")              # family, version, resource
ATTRIBUTE = struct.Struct("=HH")            # length, type
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")


class Message(NamedTuple):
    """A request without its sequence number; ``kind`` is subsystem << 8 | message."""

    kind: int
    flags: int
    body: bytes


@dataclass(slots=True)
class Answers:
    """What came back, by the index of the message that it answers."""

    errors: dict[int, int] = field(default_factory=dict)            # errno, positive
    data: dict[int, list[bytes]] = field(default_factory=dict)      # bodies


def attribute(kind: int, payload: bytes) -> bytes:
    """Return one attribute, padded to four bytes."""
    length = len(payload) + 4
    return ATTRIBUTE.pack(length, kind) + payload + _PADDING[length & 3]


def nest(kind: int, *parts: bytes) -> bytes:
    """Return an attribute that holds the attributes *parts*."""
    payload = b"".join(parts)
    return ATTRIBUTE.pack(len(payload) + 4, kind | NESTED) + payload


def nested_head(outer: int, inner: int, size: int) -> bytes:
    """Return the two headers before *size* bytes (a multiple of four) of one attribute in another."""
    return ATTRIBUTE.pack(size + 8, outer | NESTED) + ATTRIBUTE.pack(size + 4, inner)


def text(kind: int, value: str) -> bytes:
    """Return an attribute that holds a zero-terminated string."""
    return attribute(kind, value.encode() + b"\0")


def number(kind: int, value: int, size: int = 4) -> bytes:
    """Return an attribute that holds *value* in network order, in *size* bytes."""
    return attribute(kind, value.to_bytes(size))


def head(family: int, resource: int = 0) -> bytes:
    """Return the netfilter header that every message's body begins with."""
    return FAMILY.pack(family, 0, resource)


def attributes(data: bytes, start: int = 0) -> dict[int, bytes]:
    """Return the attributes in *data* from *start* on; of several of one type the last."""
    return dict(each_attribute(data, start))


def each_attribute(data: bytes, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield type and payload of every attribute in *data*, in order; stops at what is no attribute."""
    end = len(data)
    while start + 4 <= end:
        length, kind = ATTRIBUTE.unpack_from(data, start)
        if length < 4 or start + length > end:
            return
        yield kind & TYPE_MASK, data[start + 4:start + length]
        start += (length + 3) & ~3


def each_message(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield type, flags, sequence number and body of every message in *data*."""
    start, end = 0, len(data)
    while start + 16 <= end:
        length, kind, flags, sequence, _ = HEADER.unpack_from(data, start)
        if length < 16 or start + length > end:
            return
        yield kind, flags, sequence, data[start + 16:start + length]
        start += (length + 3) & ~3


def batch(messages: Iterable[Message], commit: bool = True) -> list[Message]:
    """Return *messages* as one nftables transaction; without *commit* the kernel checks and forgets it."""
    return [_BEGIN, *messages, _END] if commit else [_BEGIN, *messages]


class Inbox:
    """What all messages of a netlink socket are received into, one after the other.

    recv() would take as much as the longest needs for each, and leave what it does not use as a hole in the
    heap: in a flood of broken messages (tools/flood) that grew to three times what was used of it.
    """

    def __init__(self, size: int = MESSAGE_SIZE) -> None:
        """*size* is in bytes; of a longer message the rest is lost."""
        self._memory = memoryview(bytearray(size))

    def receive(self, connection: socket.socket, flags: int = 0) -> bytes:
        """Return the next datagram of *connection*; raises OSError as its recv() does."""
        return bytes(self._memory[:connection.recv_into(self._memory, 0, flags)])


_BEGIN = Message(BATCH_BEGIN, REQUEST, head(socket.AF_UNSPEC, NFTABLES))
_END = Message(BATCH_END, REQUEST, head(socket.AF_UNSPEC, NFTABLES))


class Connection:
    """One netlink socket, bound to the network namespace of the thread that opens it."""

    def __init__(self) -> None:
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC,
                                         NETLINK_NETFILTER)
        except OSError as problem:
            raise KernelRefused(f"the kernel has no netfilter netlink: {problem.strerror}") from None
        self._socket.bind((0, 0))
        self._socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        self._send_space = 0
        self._grow(SEND_SPACE)
        force_buffer(self._socket, SO_RCVBUFFORCE, socket.SO_RCVBUF, RECEIVE_SPACE)
        self._sequence = 0
        self._inbox = Inbox()

    def close(self) -> None:
        self._socket.close()

    def exchange(self, messages: Sequence[Message]) -> Answers:
        """Send *messages* in one go and return the answers to them.

        The last one but a batch's end is acknowledged, so silence is never taken for success. Raises
        KernelRefused where the kernel does not answer, NotPermitted without CAP_NET_ADMIN.
        """
        first = self._take_numbers(len(messages))
        last = self._sequence
        acknowledged = last - (messages[-1].kind == BATCH_END)
        self._send(b"".join(
            HEADER.pack(16 + len(body), kind, flags | ACK if sequence == acknowledged else flags, sequence, 0)
            + body for sequence, (kind, flags, body) in enumerate(messages, first)
        ))
        answers = Answers()
        while not self._receive(first, acknowledged, answers):
            pass
        if errno.EPERM in answers.errors.values() and not has_net_admin():
            raise NotPermitted("netfilter needs the capability CAP_NET_ADMIN: run natfix as root")
        return answers

    def transact(self, messages: Iterable[Message]) -> None:
        """Carry out *messages* as one nftables transaction: all or nothing.

        Raises OSError with the kernel's first error.
        """
        answers = self.exchange(batch(messages))
        if answers.errors:
            number = next(iter(answers.errors.values()))
            raise OSError(number, os.strerror(number))

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """Return the bodies of everything that the kernel lists; starts anew where a change came between.

        Raises OSError with the kernel's error, KernelRefused where changes never cease.
        """
        for _ in range(DUMP_TRIES):
            found, whole = self._dump_once(kind, body)
            if whole:
                return found
        raise KernelRefused("the kernel's tables change too fast to be read: try again")

    def _dump_once(self, kind: int, body: bytes) -> tuple[list[bytes], bool]:
        mine = self._take_numbers(1)
        self._send(HEADER.pack(16 + len(body), kind, REQUEST | DUMP, mine, 0) + body)
        found: list[bytes] = []
        whole = True
        while True:
            data = self._recv()
            if not data:
                raise KernelRefused("the kernel ended a list without saying so")
            for answer, flags, sequence, payload in each_message(data):
                if sequence != mine:
                    continue
                whole = whole and not flags & DUMP_INTERRUPTED
                if answer in (ERROR, DONE):
                    _raise_error(payload)
                    return found, whole
                found.append(payload)

    def _take_numbers(self, count: int) -> int:
        """Return the first of *count* sequence numbers; they have 32 bits, some weeks of a busy gateway."""
        if self._sequence + count >= 1 << 32:
            self._sequence = 0
        self._sequence += count
        return self._sequence - count + 1

    def _receive(self, first: int, acknowledged: int, answers: Answers) -> bool:
        """Take one datagram of answers; True once the last one is there."""
        data = self._recv()
        if not data and not answers.errors:
            raise KernelRefused("the kernel did not answer a netlink request")
        finished = not data     # a request that fails as a whole gets one error and nothing more
        for kind, _, sequence, payload in each_message(data):
            if sequence < first:
                continue        # left over from an exchange that failed half-way
            if kind != ERROR:
                answers.data.setdefault(sequence - first, []).append(payload)
                continue
            if problem := error_number(payload):
                answers.errors[sequence - first] = problem
            finished = finished or sequence == acknowledged
        return finished

    def _send(self, data: bytes) -> None:
        if len(data) > self._send_space // 2:
            self._grow(2 * len(data))
        try:
            self._socket.send(data)
        except OSError as problem:
            raise KernelRefused(f"the kernel takes no request of {len(data)} bytes: {problem}") from None

    def _recv(self) -> bytes:
        try:
            return self._inbox.receive(self._socket, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return b""
        except OSError as problem:
            raise KernelRefused(f"the kernel's answer to a netlink request was lost: {problem}") from None

    def _grow(self, space: int) -> None:
        force_buffer(self._socket, SO_SNDBUFFORCE, socket.SO_SNDBUF, space)
        self._send_space = space


def force_buffer(connection: socket.socket, option: int, otherwise: int, value: int) -> None:
    """Set a buffer size beyond the sysctl's limit where we may, up to it where not."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, option, value)
    except PermissionError:
        connection.setsockopt(socket.SOL_SOCKET, otherwise, value)


def error_number(payload: bytes) -> int:
    """Return the errno (positive) that the body of an ERROR or DONE message carries; 0 is success."""
    return -int.from_bytes(payload[:4], sys.byteorder, signed=True)


def _raise_error(payload: bytes) -> None:
    if problem := error_number(payload):
        raise OSError(problem, os.strerror(problem))


def has_net_admin() -> bool:
    """Tell whether this thread holds CAP_NET_ADMIN (capability 12)."""
    status = Path("/proc/thread-self/status").read_text()
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> 12 & 1)
