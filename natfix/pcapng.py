"""Write pcapng files: interfaces with names, packets with comments (draft-ietf-opsawg-pcapng).

scapy's writer puts a nameless interface in front, and cannot describe an interface or a section.
"""

from __future__ import annotations

import struct
from types import TracebackType
from typing import BinaryIO

ETHERNET, RAW = 1, 101  # LINKTYPE_ETHERNET, LINKTYPE_RAW (the packet begins with its IP header)
SECTION, INTERFACE, PACKET = 0x0A0D0D0A, 1, 6
COMMENT, NAME, DESCRIPTION, RESOLUTION, APPLICATION = 1, 2, 3, 9, 4
NANOSECONDS = b"\x09"                   # if_tsresol: 10 ** -9
MAX_OPTION = 0xFFFF                     # octets


class PcapngWriter:
    """A pcapng file that is being written: interfaces first, then packets, each on one of them."""

    def __init__(self, file: BinaryIO, application: str = "natfix") -> None:
        self._file = file
        self._interfaces = 0
        body = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)
        self._block(SECTION, body, _option(APPLICATION, application.encode()))

    def add_interface(self, name: str, description: str = "", link: int = ETHERNET) -> int:
        """Add an interface and return its number."""
        options = _option(NAME, name.encode()) + _option(RESOLUTION, NANOSECONDS)
        if description:
            options += _option(DESCRIPTION, description.encode())
        self._block(INTERFACE, struct.pack("<HHI", link, 0, 0), options)
        self._interfaces += 1
        return self._interfaces - 1

    def add_packet(self, interface: int, nanoseconds: int, data: bytes, length: int = 0,
                   comment: str = "") -> None:
        """Add a packet, *nanoseconds* since 1970; on the wire it had *length* octets (0: as *data* has)."""
        head = struct.pack("<IIIII", interface, nanoseconds >> 32 & 0xFFFFFFFF, nanoseconds & 0xFFFFFFFF,
                           len(data), length or len(data))
        self._block(PACKET, head + _padded(data), _option(COMMENT, comment.encode()) if comment else b"")

    def __enter__(self) -> PcapngWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._file.close()

    def _block(self, kind: int, body: bytes, options: bytes) -> None:
        content = body + (options + b"\0\0\0\0" if options else b"")
        size = len(content) + 12
        self._file.write(struct.pack("<II", kind, size) + content + struct.pack("<I", size))


def _option(code: int, value: bytes) -> bytes:
    value = value[:MAX_OPTION]
    return struct.pack("<HH", code, len(value)) + _padded(value)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
