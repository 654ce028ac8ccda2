"""Hex dumps of several tools."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natfix.replay.hexdump import Dump, HexLine, hex_line

OCTETS = bytes.fromhex("4500 01d1 0000 4000 4011 b6a5 c0a8 0102")


@pytest.mark.parametrize("line", [
    "\t0x0010:  4500 01d1 0000 4000 4011 b6a5 c0a8 0102  E.....@.@.......",
    "0x0010\t 4500 01d1 0000 4000 4011 b6a5 c0a8 0102\tE.....@.@.......",
    "0x0010   4500 01d1 0000 4000 4011 b6a5 c0a8 0102        E.....@.@.......",
    "0010  45 00 01 d1 00 00 40 00  40 11 b6 a5 c0 a8 01 02   E.....@.@.......",
    "00000010: 45 00 01 d1 00 00 40 00 40 11 b6 a5 c0 a8 01 02",
])
def test_lines(line: str) -> None:
    """tcpdump, FortiGate, ASA, Wireshark, and dumps without characters."""
    assert hex_line(line) == HexLine(16, OCTETS)


@pytest.mark.parametrize(("line", "data"), [
    ("\t0x0010:  4500 01                                  E..", "450001"),
    ("0x0010\t 0d0a 0d0a                              \t....", "0d0a0d0a"),
    ("\t0x0010:  4142                                     ab cd", "4142"),
])
def test_last_lines(line: str, data: str) -> None:
    """A short last line ends where its characters begin."""
    assert hex_line(line) == HexLine(16, bytes.fromhex(data))


@pytest.mark.parametrize(
    "line", ["", "a text", "10 beans", "UDP: 5060 -> 5060", "0x0000", "0x0000: xyz", "face it"])
def test_no_lines(line: str) -> None:
    """Prose is no dump."""
    assert hex_line(line) is None


def test_dump() -> None:
    """Offset 0 begins another packet; a line that is missing ends this one."""
    dump = Dump()
    assert dump.add(HexLine(0, OCTETS))
    assert dump.add(HexLine(16, OCTETS))
    assert dump.add(HexLine(48, OCTETS))
    assert dump.is_broken
    assert dump.data == OCTETS * 2
    assert not dump.add(HexLine(0, OCTETS))


@given(st.text(max_size=100))
def test_any_text(line: str) -> None:
    """No line makes this raise."""
    hex_line(line)
