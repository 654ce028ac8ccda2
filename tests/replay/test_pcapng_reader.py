"""pcapng files: sections, interfaces, options, and what is cut, corrupt or hostile."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natfix.pcapng import PcapngWriter
from natfix.replay.counts import Counts
from natfix.replay.link import RAW
from natfix.replay.model import Frame
from natfix.replay.pcapng_reader import frames
from natfix.replay.source import Source, Unreadable
from tests.replay.wire import START, written


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    body += bytes(-len(body) % 4)
    size = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + size + body + size


def option(code: int, value: bytes, order: str = "<") -> bytes:
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def section(order: str = "<") -> bytes:
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(link: int = 1, options: bytes = b"", order: str = "<") -> bytes:
    return block(1, struct.pack(order + "HHI", link, 0, 0) + options, order)


def packet(data: bytes, number: int = 0, ticks: int = START * 10**6, options: bytes = b"",
           order: str = "<") -> bytes:
    head = struct.pack(order + "IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data))
    return block(6, head + data + bytes(-len(data) % 4) + options, order)


def read(folder: Path, data: bytes, label: str = "") -> tuple[list[Frame], Counts]:
    path = written(folder, data)
    counts = Counts(path)
    with Source(path) as source:
        return list(frames(source, counts, label)), counts


def test_own_writer(tmp_path: Path) -> None:
    """What natfix writes, it reads: names, link types, times and comments."""
    file = io.BytesIO()
    writer = PcapngWriter(file)
    inside, outside = writer.add_interface("inside"), writer.add_interface("outside", link=RAW)
    writer.add_packet(inside, START * 10**9 + 500_000_000, b"abc", comment="why")
    writer.add_packet(outside, START * 10**9, b"defgh", length=100)
    (one, other), counts = read(tmp_path, file.getvalue(), "wan")
    assert one[:6] == (1, START + 0.5, 1, b"abc", 3, "inside")
    assert (one.comment, one.stage) == ("why", "wan")
    assert other[:6] == (2, START, RAW, b"defgh", 100, "outside")
    assert [*counts.interfaces] == ["inside", "outside"]
    assert counts.links == {"Ethernet", "RAW"}


@pytest.mark.parametrize("order", "<>")
def test_sections_have_their_own_interfaces(tmp_path: Path, order: str) -> None:
    """A second section's first interface is none of the first's, and may have the other octet order."""
    data = section() + interface(1, option(2, b"eth0")) + packet(b"a") \
        + section(order) + interface(101, option(2, b"ppp0", order), order) + packet(b"b", order=order)
    (one, other), _ = read(tmp_path, data)
    assert [(frame.link, frame.interface, frame.data) for frame in (one, other)] == [
        (1, "eth0", b"a"), (101, "ppp0", b"b")]


def test_resolutions_and_offset(tmp_path: Path) -> None:
    """Times count in powers of ten or two, and may have an offset."""
    interfaces = interface(1, option(9, b"\x09")) + interface(1, option(9, b"\x8a")) \
        + interface(1, option(14, struct.pack("<q", 1000)))
    data = section() + interfaces + packet(b"", 0, 1_500_000_000) + packet(b"", 1, 1536) \
        + packet(b"", 2, 1_500_000)
    got, _ = read(tmp_path, data)
    assert [frame.time for frame in got] == pytest.approx([1.5, 1.5, 1001.5])


@pytest.mark.parametrize(("options", "ticks"), [
    (option(9, b"\x00"), 2**64 - 1), (option(14, struct.pack("<q", -2**62)), 5),
    (option(9, b"\xff"), 2**64 - 1)])
def test_times_that_cannot_be(tmp_path: Path, options: bytes, ticks: int) -> None:
    """A time before 1970, or in the year 600 billion, is none."""
    ((frame,), _) = read(tmp_path, section() + interface(1, options) + packet(b"x", ticks=ticks))
    assert 0.0 <= frame.time < 1.0


@pytest.mark.parametrize(("flags", "outgoing"), [(1, False), (2, True), (0, None), (3, None)])
def test_directions(tmp_path: Path, flags: int, outgoing: bool | None) -> None:
    """A packet's flags say whether it went out."""
    options = option(2, struct.pack("<I", flags)) + option(0, b"")
    ((frame,), _) = read(tmp_path, section() + interface() + packet(b"x", options=options))
    assert frame.outgoing is outgoing


def test_simple_and_old_packets(tmp_path: Path) -> None:
    """Blocks without a time, and those of the first draft, are packets, too."""
    old = block(2, struct.pack("<HHIIII", 0, 0, 0, 2_000_000, 3, 3) + b"abc")
    simple = block(3, struct.pack("<I", 5) + b"defgh")
    got, _ = read(tmp_path, section() + interface() + block(5, bytes(20)) + old + simple)
    assert [(frame.number, frame.time, frame.data) for frame in got] == [(1, 2.0, b"abc"), (2, 0.0, b"defgh")]


def test_packet_of_no_interface(tmp_path: Path) -> None:
    """A packet of an interface that nobody described is left out, and counted as Wireshark would."""
    got, counts = read(tmp_path, section() + interface() + packet(b"x", number=7) + packet(b"y"))
    assert [(frame.number, frame.data) for frame in got] == [(2, b"y")]
    assert sum(counts.left_out.values()) == 1


def test_every_cut_is_told(tmp_path: Path) -> None:
    """Wherever a file is cut, whole blocks are read."""
    parts = [section(), interface(), packet(b"abc"), packet(b"defg")]
    whole = b"".join(parts)
    ends = {sum(map(len, parts[:count])) for count in range(1, 5)}
    for end in range(12, len(whole) + 1):
        got, counts = read(tmp_path, whole[:end])
        assert [frame.data for frame in got] == [b"abc", b"defg"][:len(got)]
        assert counts.truncated == (end not in ends)


@pytest.mark.parametrize("size", [0, 8, 13, 0xFFFFFFFC])
def test_impossible_sizes(tmp_path: Path, size: int) -> None:
    """A block that claims an impossible size ends the reading, with what came before."""
    data = section() + interface() + packet(b"x") + struct.pack("<II", 6, size) + bytes(50)
    got, counts = read(tmp_path, data)
    assert len(got) == 1
    assert counts.truncated


def test_no_header(tmp_path: Path) -> None:
    """The first four octets alone make no pcapng file."""
    with pytest.raises(Unreadable):
        read(tmp_path, b"\x0a\x0d\x0d\x0a" + bytes(30))


@given(st.lists(st.binary(max_size=60), max_size=6), st.binary(max_size=80), st.integers(0, 400))
def test_any_octets(
    tmp_path_factory: pytest.TempPathFactory, bodies: list[bytes], end: bytes, flip: int
) -> None:
    """Whatever blocks hold, reading ends without an exception."""
    data = bytearray(section() + interface(1, option(2, b"eth0")) + packet(b"abc", options=option(1, b"hi"))
                     + b"".join(block(number % 8, body) for number, body in enumerate(bodies)) + end)
    data[28 + flip % (len(data) - 28)] ^= 1 << flip % 8
    read(tmp_path_factory.getbasetemp(), bytes(data))
