"""Hex dumps, as tcpdump, FortiGate, ASA, fw monitor and Wireshark print them, one line at a time."""

from __future__ import annotations

import re
from typing import NamedTuple

PER_LINE = 16                   # octets
LONGEST = 1 << 18               # octets of one dump

_LINE = re.compile(r"\s*+(0x)?([0-9A-Fa-f]{1,8}+)(:?)[ \t]++(.*)")
# Where the characters begin; two spaces do not tell, they may also stand in the middle.
_CHARACTERS = re.compile(r"\t++|[ ]{3,}+")
_OCTETS = re.compile(r"(?:[0-9A-Fa-f]{2}){1,4}")


class HexLine(NamedTuple):
    """One line of a dump."""

    offset: int
    data: bytes


def hex_line(line: str) -> HexLine | None:
    """Return what a line of a dump holds; None where it is none."""
    found = _LINE.match(line)
    if found is None:
        return None
    prefix, offset, colon, rest = found.groups()
    if not prefix and not colon and len(offset) < 4:
        return None
    data = bytearray()
    for word in _CHARACTERS.split(rest.strip(), maxsplit=1)[0].split():
        if _OCTETS.fullmatch(word) is None or len(data) + len(word) // 2 > PER_LINE:
            break
        data += bytes.fromhex(word)
    return HexLine(int(offset, 16), bytes(data)) if data else None


class Dump:
    """A packet's octets, while its lines come."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.is_broken = False      # a line was missing; what came behind it is left out

    def add(self, line: HexLine) -> bool:
        """Take a line; return False where it begins another packet."""
        if line.offset == 0 and self.data:
            return False
        if line.offset != len(self.data) or len(self.data) > LONGEST:
            self.is_broken = True
        elif not self.is_broken:
            self.data += line.data
        return True
