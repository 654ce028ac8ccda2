"""HEPv3, in which capture tools hand SIP messages to Homer, sngrep and their like (the HEP3 network protocol
specification, revision 36): a datagram of chunks, each of a vendor, a type, a length and a value."""

from __future__ import annotations

from socket import AF_INET, inet_aton
from struct import Struct

from natfix.address import Endpoint

SIP = 1                 # protocol type, section 3.1 of the specification
LONGEST = 65507         # octets of a UDP datagram's payload over IPv4
CORRELATION_ID, PAYLOAD = 0x11, 0x0F

_START = Struct("!4sH")
_HEAD = Struct("!HHH")  # vendor 0: the generic chunks
_FIXED = Struct("!HHHB HHHB HHH4s HHH4s HHHH HHHH HHHI HHHI HHHB HHHI".replace(" ", ""))


def datagram(
    octets: bytes, protocol: int, source: Endpoint, destination: Endpoint, at: float, agent: int,
    correlation: str,
) -> bytes:
    """Return the SIP message *octets*, as it went from *source* to *destination*.

    *at* is in seconds since 1970, *protocol* is IP's, *agent* tells one capturing machine from others (32
    bits); messages with the same *correlation* belong together. What does not fit a datagram is cut from the
    message's end.
    """
    seconds, microseconds = divmod(round(at * 1_000_000), 1_000_000)
    fixed = _FIXED.pack(
        0, 1, 7, AF_INET, 0, 2, 7, protocol,
        0, 3, 10, inet_aton(source.host), 0, 4, 10, inet_aton(destination.host),
        0, 7, 8, source.port, 0, 8, 8, destination.port,
        0, 9, 10, seconds & 0xFFFFFFFF, 0, 10, 10, microseconds, 0, 11, 7, SIP, 0, 12, 10, agent)
    together = _chunk(CORRELATION_ID, correlation.encode("utf-8", "replace")[:255])
    room = LONGEST - _START.size - len(fixed) - len(together) - _HEAD.size
    chunks = fixed + together + _chunk(PAYLOAD, octets[:room])
    return _START.pack(b"HEP3", _START.size + len(chunks)) + chunks


def _chunk(kind: int, value: bytes) -> bytes:
    return _HEAD.pack(0, kind, _HEAD.size + len(value)) + value
