"""What changes around natfix: interfaces, addresses and routes by event, ports of others by looking.

The events of conntrack and nftables come from :mod:`natfix.kernel`; those of the links are here, since
an rtnetlink socket only has to say *that* something changed: what there is now is read afresh each time.
"""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path

from natfix.address import Endpoint
from natfix.errors import KernelRefused, NatfixError
from natfix.firewall import Ruleset
from natfix.firewall_now import forwarded_udp_ports, ruleset_now
from natfix.message_ids import kind
from natfix.reports import AddressesChanged, PortsInUse

# linux/rtnetlink.h: RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE
LINK_GROUPS = 0x1 | 0x10 | 0x40
RECEIVE_SIZE = 65536        # bytes; longer messages are cut, and nothing in them is read anyway

PROC_NET = Path("/proc/thread-self/net")
ANY_HOST = "0.0.0.0"
IPV6_ANY = "0" * 32
IPV4_MAPPED = socket.htonl(0xFFFF).to_bytes(4).hex().upper().rjust(24, "0")     # ::ffff:a.b.c.d, by words

log = logging.getLogger("natfix")


class LinkEvents:
    """Tells when an interface, an IPv4 address or an IPv4 route has changed."""

    def __init__(self) -> None:
        """Raises KernelRefused where the kernel gives no rtnetlink socket."""
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
            self._socket.bind((0, LINK_GROUPS))
        except OSError as problem:
            raise KernelRefused(f"the kernel tells no changes of addresses ({problem.strerror})") from None
        self._socket.setblocking(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    def drain(self) -> bool:
        """Take all that waits; True where there was anything. A full buffer (ENOBUFS) is a change, too."""
        changed = False
        while True:
            try:
                self._socket.recv(RECEIVE_SIZE)
            except BlockingIOError:
                return changed
            except OSError:
                pass
            changed = True

    def close(self) -> None:
        self._socket.close()


def ports_in_use(
    addresses: AddressesChanged, ruleset: Callable[[], Ruleset] = ruleset_now,
) -> PortsInUse:
    """Return the UDP ports of the outside addresses that local programs or the operator's forwards have.

    Where the operator's rules cannot be read, the forwards are missing, and the log says so.
    """
    hosts = tuple(filter(None, addresses.outside.values()))
    local = local_udp_ports(hosts)
    try:
        rules = ruleset()
    except NatfixError as problem:
        _warn_once(f"the operator's own port forwards cannot be seen: {problem}")
        return PortsInUse(local)
    forwards: dict[int, Endpoint | None] = {}
    for name in addresses.outside:
        forwards |= forwarded_udp_ports(rules, name, hosts)
    return PortsInUse(local, forwards)


@lru_cache(maxsize=16)
def _warn_once(text: str) -> None:
    """Log *text*; what is looked at again and again is not complained of each time."""
    log.warning("%s", text, extra=kind("cannot-see"))


def local_udp_ports(hosts: Iterable[str], folder: Path = PROC_NET) -> frozenset[int]:
    """Return the UDP ports on which this machine's programs have sockets for any of *hosts*, or for all
    addresses: what natfix must not choose there."""
    wanted = {ANY_HOST, *hosts}
    return frozenset(
        port for name in ("udp", "udp6") for host, port in _sockets(folder / name) if host in wanted
    )


def _sockets(file: Path) -> list[tuple[str, int]]:
    """Read one of the kernel's socket tables (proc(5)): local address and port of each socket."""
    try:
        lines = file.read_text().splitlines()[1:]
    except OSError:
        return []       # no IPv6 in this kernel
    return [_address_and_port(line.split()[1]) for line in lines]


def _address_and_port(text: str) -> tuple[str, int]:
    """Return what "0100007F:13C4" means; "" as the host where the socket does not serve IPv4."""
    address, _, port = text.partition(":")
    if address == IPV6_ANY:
        return ANY_HOST, int(port, 16)      # as a rule it serves IPv4 as well
    if len(address) == 8 or address.startswith(IPV4_MAPPED):
        return socket.inet_ntoa(struct.pack("=I", int(address[-8:], 16))), int(port, 16)
    return "", int(port, 16)
