"""What rtnetlink tells of this host: interfaces, IPv4 addresses, IPv4 routes (rtnetlink(7)).

Three dumps, over the netlink of :mod:`natfix.kernel.netlink`. A package for all of rtnetlink would take a
tenth of the daemon's memory for them.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

from natfix.errors import NatfixError
from natfix.kernel.netlink import Connection, attributes

GET_LINK, GET_ADDRESS, GET_ROUTE = 18, 22, 26       # RTM_GET*
NAME = 3                                            # IFLA_IFNAME
PEER, LOCAL = 1, 2                                  # IFA_ADDRESS (the peer's, on a tunnel), IFA_LOCAL
DESTINATION, OUT, MULTIPATH, TABLE = 1, 4, 9, 15    # RTA_DST, RTA_OIF, RTA_MULTIPATH, RTA_TABLE
MAIN_TABLE, UNICAST = 254, 1                        # RT_TABLE_MAIN, RTN_UNICAST

LINK = struct.Struct("=BxHiII")         # ifinfomsg: family, type, index, flags, change
ADDRESS = struct.Struct("=BBBBI")       # ifaddrmsg: family, prefix length, flags, scope, index
# rtmsg: family, lengths of destination and source, TOS, table, protocol, scope, type, flags
ROUTE = struct.Struct("=BBBBBBBBI")
HOP = struct.Struct("=HBBi")            # rtnexthop: length, flags, hops, interface; attributes follow
NUMBER = struct.Struct("=I")


class HostAddress(NamedTuple):
    """An IPv4 address of this host."""

    interface: int          # its number
    host: str


class HostRoute(NamedTuple):
    """A unicast route of the main table."""

    host: str               # the network's address
    length: int             # of its prefix
    interfaces: tuple[int, ...]     # their numbers; several where it is multipath, 0 for none


class Told(NamedTuple):
    """All three lists, in the kernel's order."""

    names: dict[int, str]   # of the interfaces, by number
    addresses: tuple[HostAddress, ...]
    routes: tuple[HostRoute, ...]


def ask_rtnetlink() -> Told:
    """Return what there is now; raises NatfixError where rtnetlink cannot say."""
    family = socket.AF_INET
    try:
        with closing(Connection(socket.NETLINK_ROUTE)) as connection:
            links = connection.dump(GET_LINK, bytes(LINK.size))
            addresses = connection.dump(GET_ADDRESS, ADDRESS.pack(family, 0, 0, 0, 0))
            routes = connection.dump(GET_ROUTE, ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))
    except OSError as problem:
        raise NatfixError(f"rtnetlink does not tell the links ({problem.strerror})") from None
    return Told(
        dict(map(link_from_body, links)), tuple(map(address_from_body, addresses)),
        tuple(route for body in routes if (route := route_from_body(body)) is not None),
    )


def link_from_body(body: bytes) -> tuple[int, str]:
    """Return number and name of the interface that a message describes."""
    return LINK.unpack_from(body)[2], attributes(body, LINK.size)[NAME].rstrip(b"\0").decode()


def address_from_body(body: bytes) -> HostAddress:
    """Return the address that a message describes."""
    found = attributes(body, ADDRESS.size)
    return HostAddress(ADDRESS.unpack_from(body)[4], socket.inet_ntoa(found.get(LOCAL) or found[PEER]))


def route_from_body(body: bytes) -> HostRoute | None:
    """Return the route that a message describes; None where it leads nowhere or is of another table."""
    _, length, _, _, table, _, _, kind, _ = ROUTE.unpack_from(body)
    found = attributes(body, ROUTE.size)
    if TABLE in found:      # the header's has a byte, and tables have 32 bits
        table, = NUMBER.unpack(found[TABLE])
    if table != MAIN_TABLE or kind != UNICAST:
        return None         # blackhole, unreachable, prohibit
    hops = tuple(_hops(found[MULTIPATH])) if MULTIPATH in found else NUMBER.unpack(found.get(OUT, bytes(4)))
    return HostRoute(socket.inet_ntoa(found.get(DESTINATION, bytes(4))), length, hops)


def _hops(data: bytes) -> Iterator[int]:
    """Yield the interface of each hop of a multipath route."""
    while len(data) >= HOP.size:
        length, _, _, interface = HOP.unpack_from(data)
        if length < HOP.size:
            return
        yield interface
        data = data[(length + 3) & ~3:]
