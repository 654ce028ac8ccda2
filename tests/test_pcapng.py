"""natfix.pcapng: others read what it writes."""

from __future__ import annotations

import io
from pathlib import Path

from scapy.utils import RawPcapNgReader

from natfix.pcapng import ETHERNET, RAW, PcapngWriter

TIME = 1_700_000_000_123_456_789


def test_scapy_reads_it(tmp_path: Path) -> None:
    """Interfaces, link types, times to the nanosecond, lengths and comments come back as they were given."""
    path = tmp_path / "x.pcapng"
    with PcapngWriter(path.open("wb")) as writer:
        first = writer.add_interface("inside", "before natfix")
        second = writer.add_interface("outside", link=RAW)
        writer.add_packet(first, TIME, b"abcde", comment="Contact: é")
        writer.add_packet(second, TIME + 1, b"1234", length=90)
    (data, facts), (other, other_facts) = list(RawPcapNgReader(str(path)))
    assert (data, facts.ifname, facts.linktype) == (b"abcde", b"inside", ETHERNET)
    assert (facts.tshigh << 32) + facts.tslow == TIME
    assert facts.comments == ["Contact: é".encode()]
    assert (other, other_facts.ifname) == (b"1234", b"outside")
    assert (other_facts.linktype, other_facts.wirelen) == (RAW, 90)


def test_blocks_are_whole_words() -> None:
    """Every block's length is a multiple of four and stands at both of its ends, whatever is in it."""
    for size in range(5):
        file = io.BytesIO()
        writer = PcapngWriter(file, "a" * size)
        writer.add_packet(writer.add_interface("i" * (size + 1)), TIME, bytes(size), comment="c" * size)
        raw, offset = file.getvalue(), 0
        while offset < len(raw):
            length = int.from_bytes(raw[offset + 4:offset + 8], "little")
            assert length % 4 == 0
            assert raw[offset + length - 4:offset + length] == raw[offset + 4:offset + 8]
            offset += length
        assert offset == len(raw)
