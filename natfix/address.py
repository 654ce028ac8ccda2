"""Endpoints and networks: the words every other module speaks in.

An *endpoint* is an IPv4 address and a port. Addresses stay dotted text, as they stand in SIP;
only the kernel modules pack them.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterable
from typing import NamedTuple

SIP_PORT = 5060     # RFC 3261, section 19.1.2: the port of a sip: URI or sent-by that names none


class Endpoint(NamedTuple):
    """A transport address: of UDP, or of one TCP connection.

    The kernel may give several connections the same outside port, to different servers (RFC 5382,
    section 4.1 asks for another behaviour, Linux has this one): so a connection's ends are told apart by
    *stream*, its other end's text. It is "" for UDP.

    An inside endpoint of SIP has one outside endpoint for each outside link that it uses. *link* tells them
    apart: the link's name, "" for the first one ([outside] interface), and wherever it does not matter.
    """

    host: str
    port: int
    stream: str = ""
    link: str = ""

    @property
    def on_wire(self) -> Endpoint:
        """The same without the link, as packets and conntrack have it."""
        return self._replace(link="") if self.link else self

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Network(NamedTuple):
    """An IPv4 prefix, kept as two integers so that membership is one AND and one comparison."""

    base: int
    mask: int

    def __str__(self) -> str:
        address = socket.inet_ntoa(struct.pack("!I", self.base))
        return f"{address}/{self.mask.bit_count()}"


_BYTE = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = re.compile(rf"{_BYTE}(?:\.{_BYTE}){{3}}")


def is_ipv4(host: str) -> bool:
    """Tell whether *host* is an IPv4 address in its one unambiguous spelling: four decimals.

    Leading zeros, which RFC 3261 would allow, mean octal to inet_aton(3) and nothing to others (RFC 6943,
    section 3.1.1): what was checked could be another address than the one that is opened.
    """
    return _IPV4.fullmatch(host) is not None


def host_to_int(host: str) -> int:
    """Return dotted *host* as a 32-bit integer; raises ValueError where it is none."""
    if not is_ipv4(host):
        raise ValueError(f"not an IPv4 address: {host!r}")
    first, second, third, fourth = host.split(".")
    return int(first) << 24 | int(second) << 16 | int(third) << 8 | int(fourth)


def network_from_text(text: str) -> Network:
    """Return the network that *text* ("192.168.1.0/24", or a bare address) names.

    Raises ValueError where the address, the length, or host bits below the prefix are wrong.
    """
    address, _, length = text.partition("/")
    if length and not (length.isascii() and length.isdigit() and len(length) <= 2 and int(length) <= 32):
        raise ValueError(f"not a prefix length: {length!r}")
    mask = (0xFFFFFFFF << (32 - int(length or 32))) & 0xFFFFFFFF
    base = host_to_int(address)
    if base & ~mask & 0xFFFFFFFF:
        raise ValueError(f"{text} has bits set beyond its prefix length")
    return Network(base, mask)


def contains(networks: Iterable[Network], host: str) -> bool:
    """Tell whether any of *networks* covers *host*; False for host names."""
    if not is_ipv4(host):
        return False
    number = host_to_int(host)
    return any(number & mask == base for base, mask in networks)


# Addresses that no other host can be reached at: "this network", loopback, link-local, multicast,
# reserved and broadcast (RFC 6890). No mapping is ever made for them.
UNUSABLE = tuple(map(network_from_text, (
    "0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4",
)))
