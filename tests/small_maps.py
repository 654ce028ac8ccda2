"""A kernel whose sets for natfix are small, so that a test can fill them; connections that fill its table.

``shrink`` is for the daemon's own process (what tests hand to :mod:`tests.gateway_with_natfix` as the host),
``fill_conntrack`` for a thread in a namespace (``Namespace.call``).
"""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from typing import Any, TypeVar

from natfix.address import Endpoint
from natfix.commands import Flow, Kind, OpenFlow
from natfix.kernel import netfilter
from natfix.kernel.conntrack import _creation
from natfix.kernel.netlink import CREATE, EXCL, NETLINK_NETFILTER, REQUEST

T = TypeVar("T")
SIZE = "size 1048576"
COUNT = Path("/proc/sys/net/netfilter/nf_conntrack_count")
HEADER = struct.Struct("=IHHII")    # struct nlmsghdr
BATCH = 200
SOURCE = socket.inet_aton("10.200.0.0")     # replaced by another address in each entry


def shrink(host: T, size: int) -> T:
    """Have natfix's table made with sets of *size* elements, in this process; return *host*."""
    whole: Any = netfilter.skeleton_text

    def small(*arguments: Any, **more: Any) -> str:
        text: str = whole(*arguments, **more)
        assert SIZE in text
        return text.replace(SIZE, f"size {size}")

    netfilter.skeleton_text = small
    return host


def fill_conntrack(count: int) -> int:
    """Make lasting entries of nobody's until the table has *count*, or takes no more; return how many it has.

    They are answered for ("assured"), so that the kernel does not give them up for others.
    """
    end = Endpoint("10.201.0.1", 9)
    flow = Flow(Endpoint("10.200.0.0", 9), end, end, Endpoint("10.200.0.0", 9))
    entry = _creation(OpenFlow(Kind.MEDIA, flow, 3600.0), 0)
    flags = REQUEST | CREATE | EXCL
    template = HEADER.pack(HEADER.size + len(entry.body), entry.kind, flags, 0, 0) + entry.body
    assert template.count(SOURCE) == 2
    made = has = int(COUNT.read_text())
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as line:
        while has < count:
            batch = range(made, made + min(BATCH, count - has))
            made = batch.stop
            line.send(b"".join(template.replace(SOURCE, _address(number)) for number in batch))
            before, has = has, int(COUNT.read_text())
            if has == before:
                break
    return has


def _address(number: int) -> bytes:
    return (int.from_bytes(socket.inet_aton("10.100.0.0")) + number).to_bytes(4)
