"""STUN's Binding request and its answer (RFC 8489), as octets: what is our address, seen from outside?"""

from __future__ import annotations

import struct

from natfix.address import Endpoint

PORT = 3478                 # RFC 8489, section 18.6
TRANSACTION_SIZE = 12       # octets
COOKIE = 0x2112A442
REQUEST, SUCCESS = 0x0001, 0x0101
MAPPED, XOR_MAPPED = 0x0001, 0x0020
IPV4 = 0x01

HEADER = struct.Struct("!HHI12s")
ATTRIBUTE = struct.Struct("!HH")
ADDRESS = struct.Struct("!xBHI")


def binding_request(transaction: bytes) -> bytes:
    """Return a Binding request with the *transaction* ID, which nobody must be able to guess."""
    return HEADER.pack(REQUEST, 0, COOKIE, transaction)


def mapped_endpoint(answer: bytes, transaction: bytes) -> Endpoint | None:
    """Return the endpoint that a success response to *transaction* names, None for anything else.

    Servers from before RFC 5389 say it in MAPPED-ADDRESS, which some NATs rewrite: XOR-MAPPED-ADDRESS counts.
    """
    if len(answer) < HEADER.size:
        return None
    kind, length, cookie, answered = HEADER.unpack_from(answer)
    if kind != SUCCESS or answered != transaction or cookie != COOKIE or HEADER.size + length != len(answer):
        return None
    found = _attributes(answer)
    if XOR_MAPPED in found:
        return _endpoint(found[XOR_MAPPED], COOKIE)
    return _endpoint(found.get(MAPPED, b""), 0)


def _attributes(message: bytes) -> dict[int, bytes]:
    """Return the attributes by type; of several alike the first counts (section 14)."""
    found: dict[int, bytes] = {}
    start = HEADER.size
    while start + ATTRIBUTE.size <= len(message):
        kind, length = ATTRIBUTE.unpack_from(message, start)
        start += ATTRIBUTE.size
        found.setdefault(kind, message[start:start + length])
        start += length + -length % 4
    return found


def _endpoint(value: bytes, mask: int) -> Endpoint | None:
    if len(value) != ADDRESS.size:
        return None
    family, port, host = ADDRESS.unpack(value)
    if family != IPV4:
        return None
    host ^= mask
    return Endpoint(".".join(str(octet) for octet in host.to_bytes(4)), port ^ mask >> 16)
