"""Link layers: where in a captured frame the IP packet begins, and what the frame says of its interface.

Numbers are LINKTYPE_* of https://www.tcpdump.org/linktypes.html.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from struct import Struct

NULL, ETHERNET, PPP, LOOP, RAW, SLL = 0, 1, 9, 108, 101, 113
PPP_SERIAL, PPP_ETHER, IPV4, IPV6, NFLOG, SLL2 = 50, 51, 228, 229, 239, 276
RAW_BSD, RAW_OPENBSD = 12, 14       # what DLT_RAW is elsewhere; old files have it

NAMES = {
    NULL: "NULL", ETHERNET: "Ethernet", PPP: "PPP", LOOP: "LOOP", RAW: "RAW", RAW_BSD: "RAW",
    RAW_OPENBSD: "RAW", SLL: "SLL", SLL2: "SLL2", PPP_SERIAL: "PPP", PPP_ETHER: "PPPoE", IPV4: "IPv4",
    IPV6: "IPv6", NFLOG: "NFLOG",
}

TYPE_IPV4, TYPE_IPV6 = b"\x08\x00", b"\x86\xdd"
IP_TYPES = (TYPE_IPV4, TYPE_IPV6)
TAGS = frozenset((b"\x81\x00", b"\x88\xa8", b"\x91\x00", b"\x92\x00"))      # IEEE 802.1Q, 802.1ad
PPPOE_SESSION = b"\x88\x64"
MPLS = (b"\x88\x47", b"\x88\x48")
SNAP = b"\xaa\xaa\x03\x00\x00\x00"
PPP_IP = (b"\x00\x21", b"\x00\x57")
LOWEST_TYPE = b"\x06\x00"           # below that it is a length (IEEE 802.3)
MOST_TAGS = 8

PAYLOAD, IN_DEVICE, OUT_DEVICE = 9, 4, 5    # NFULA_*, linux/netfilter/nfnetlink_log.h
MOST_ATTRIBUTES = 32
OUTGOING = 4                        # packet type of SLL: sent by the capturing host

Place = tuple[str, bool | None]     # interface, outgoing

_U16_LE, _U16_BE = Struct("<H"), Struct(">H")
_U32 = Struct("!I")


def ip_offset(link: int, data: bytes) -> int:
    """Return where the IP header begins in a frame of link type *link*; -1 where there is none."""
    finder = _FINDERS.get(link)
    return -1 if finder is None else finder(data)


def after_type(data: bytes, at: int) -> int:
    """Return where the IP header begins behind an EtherType at *at*, and behind tags, PPPoE and MPLS."""
    for _ in range(MOST_TAGS):
        kind = data[at:at + 2]
        if kind in IP_TYPES:
            return at + 2
        if kind in TAGS:
            at += 4
        elif kind == PPPOE_SESSION:
            return _after_ppp(data, at + 8)
        elif kind in MPLS:
            return _after_labels(data, at + 2)
        elif kind < LOWEST_TYPE and data[at + 2:at + 8] == SNAP:
            at += 8
        else:
            return -1
    return -1


def ethernet(data: bytes, start: int = 0) -> int:
    """Return where the IP header begins in an Ethernet frame that begins at *start*; -1 for none."""
    return after_type(data, start + 12)


def _after_ppp(data: bytes, at: int) -> int:
    """Return where the IP header begins behind a PPP protocol number, which may be compressed (RFC 1661)."""
    if data[at:at + 2] in PPP_IP:
        return at + 2
    return at + 1 if data[at:at + 1] in (b"\x21", b"\x57") else -1


def _after_labels(data: bytes, at: int) -> int:
    for _ in range(MOST_TAGS):
        if len(data) < at + 5:
            return -1
        at += 4
        if data[at - 2] & 1:
            return at if data[at] >> 4 in (4, 6) else -1
    return -1


def _null(data: bytes) -> int:
    # The four octets are an address family, whose numbers and octet order are the capturing system's own.
    return 4 if data[4:5] and data[4] >> 4 in (4, 6) else -1


def _raw(data: bytes) -> int:
    return 0 if data and data[0] >> 4 in (4, 6) else -1


def ppp(data: bytes, start: int = 0) -> int:
    """Return where the IP header begins in a PPP frame that begins at *start*; -1 for none."""
    return _after_ppp(data, start + 2 if data[start:start + 2] == b"\xff\x03" else start)


def _sll2(data: bytes) -> int:
    if data[:2] in IP_TYPES:
        return 20
    return after_type(data, 22) if data[:2] in TAGS else -1


def _nflog(data: bytes) -> int:
    return _attributes(data).get(PAYLOAD, -1)


def _attributes(data: bytes) -> dict[int, int]:
    """Return where the value of each attribute of an NFLOG record begins.

    Lengths and types are in the capturing host's octet order, which nothing says; a length tells.
    """
    found: dict[int, int] = {}
    at = 4
    for _ in range(MOST_ATTRIBUTES):
        if at + 4 > len(data):
            break
        order = _U16_LE if 4 <= _U16_LE.unpack_from(data, at)[0] <= len(data) - at else _U16_BE
        (size,) = order.unpack_from(data, at)
        (kind,) = order.unpack_from(data, at + 2)
        if size < 4:
            break
        found[kind & 0x7FFF] = at + 4
        at += (size + 3) & ~3
    return found


_FINDERS: dict[int, Callable[[bytes], int]] = {
    ETHERNET: ethernet,
    NULL: _null, LOOP: _null,
    RAW: _raw, RAW_BSD: _raw, RAW_OPENBSD: _raw, IPV4: _raw, IPV6: _raw,
    PPP: ppp, PPP_SERIAL: ppp,
    PPP_ETHER: lambda data: _after_ppp(data, 6),
    SLL: lambda data: after_type(data, 14),
    SLL2: _sll2,
    NFLOG: _nflog,
}


def _sll_place(data: bytes) -> Place:
    return "", _direction(data[1]) if len(data) > 1 else None


def _sll2_place(data: bytes) -> Place:
    if len(data) < 20:
        return "", None
    return _interface(_U32.unpack_from(data, 4)[0]), _direction(data[10])


def _nflog_place(data: bytes) -> Place:
    attributes = _attributes(data)
    for kind, outgoing in ((OUT_DEVICE, True), (IN_DEVICE, False)):
        at = attributes.get(kind)
        if at is not None and at + 4 <= len(data):
            return _interface(_U32.unpack_from(data, at)[0]), outgoing
    return "", None


@lru_cache(maxsize=256)
def _interface(index: int) -> str:
    return f"interface {index}"


def _direction(kind: int) -> bool | None:
    return True if kind == OUTGOING else False if kind == 0 else None


# Link types whose frames say where they were captured.
PLACES: dict[int, Callable[[bytes], Place]] = {SLL: _sll_place, SLL2: _sll2_place, NFLOG: _nflog_place}


def guess(data: bytes, length: int = 0) -> int:
    """Return the link type of octets that a text shows: where an IP header is whose length fits.

    *length* is the IP packet's, where the text says it.
    """
    for link, at in ((RAW, 0), (ETHERNET, ethernet(data)), (SLL, after_type(data, 14)), (SLL2, _sll2(data))):
        if at >= 0 and _is_ip(data, at, length):
            return link
    return ETHERNET


def _is_ip(data: bytes, at: int, length: int) -> bool:
    if len(data) < at + 20:
        return False
    version = data[at] >> 4
    total: int = _U16_BE.unpack_from(data, at + (2 if version == 4 else 4))[0]
    if version == 6:
        return total + 40 >= len(data) - at - 64
    is_long_enough = total >= (data[at] & 15) * 4 >= 20 and total + 64 >= len(data) - at
    return version == 4 and is_long_enough and length in (0, total)
