"""pcap files: octet orders, fractions, and what is cut, corrupt or hostile."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natfix.replay.counts import Counts
from natfix.replay.link import SLL2
from natfix.replay.pcap_reader import frames
from natfix.replay.source import CHUNK, Source, Unreadable
from tests.replay.wire import START, pcap, written

PACKETS = [b"first", b"", b"third" * 100]


def read(path: str, label: str = "") -> tuple[list[bytes], list[float], Counts]:
    counts = Counts(path)
    with Source(path) as source:
        got = list(frames(source, counts, label))
    return [frame.data for frame in got], [frame.time for frame in got], counts


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("magic", [0xA1B2C3D4, 0xA1B23C4D])
def test_orders_and_fractions(tmp_path: Path, order: str, magic: int) -> None:
    """Both octet orders and both fractions give the same packets and times."""
    data, times, counts = read(written(tmp_path, pcap(PACKETS, order=order, magic=magic, step=0.75)))
    assert data == PACKETS
    assert times == pytest.approx([START, START + 0.75, START + 1.5])
    assert (counts.links, counts.truncated) == ({"Ethernet"}, False)


def test_kuznetsov_records(tmp_path: Path) -> None:
    """The records of old patched libpcaps are eight octets longer."""
    head = struct.pack("<IHHiIII", 0xA1B2CD34, 2, 4, 0, 0, 65535, 1)
    record = struct.pack("<IIIIIHBB", START, 0, 3, 3, 1, 8, 0, 0) + b"abc"
    assert read(written(tmp_path, head + record * 2))[0] == [b"abc", b"abc"]


def test_every_cut_is_told(tmp_path: Path) -> None:
    """Wherever a file is cut, whole records are read, and the cut is named unless it is between two."""
    whole = pcap(PACKETS)
    ends = {24, 24 + 21, 24 + 21 + 16, len(whole)}
    for end in range(24, len(whole) + 1):
        data, _, counts = read(written(tmp_path, whole[:end]))
        assert data == PACKETS[:len(data)]
        assert counts.truncated == (end not in ends)


def test_cut_within_the_header(tmp_path: Path) -> None:
    """A file that is not even a header is no capture."""
    with pytest.raises(Unreadable, match="ends within its header"):
        read(written(tmp_path, pcap([])[:20]))


def test_record_that_claims_4_gb(tmp_path: Path) -> None:
    """A record's length is not believed beyond what captures have."""
    hostile = pcap([b"good"]) + struct.pack("<IIII", 0, 0, 0xFFFFFFFF, 0xFFFFFFFF) + b"x" * 100
    data, _, counts = read(written(tmp_path, hostile))
    assert data == [b"good"]
    assert "4,294,967,295" in counts.problem


def test_records_across_chunks(tmp_path: Path) -> None:
    """Records do not care where a read ended."""
    packets = [bytes([number % 251]) * 1500 for number in range(3 * CHUNK // 1500)]
    assert read(written(tmp_path, pcap(packets)))[0] == packets


def test_cooked_frames_say_their_interface(tmp_path: Path) -> None:
    """SLL2 frames name an interface by its number, and the direction."""
    head = struct.pack("!HHIHBB8s", 0x0800, 0, 3, 1, 4, 6, b"")
    path = written(tmp_path, pcap([head], link=SLL2))
    counts = Counts(path)
    with Source(path) as source:
        (frame,) = frames(source, counts, "wan")
    assert (frame.interface, frame.outgoing, frame.stage, frame.file) == ("interface 3", True, "wan", "wan")
    assert [*counts.interfaces] == ["interface 3"]


@given(st.binary(max_size=300))
def test_any_octets(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """Whatever follows the header, reading ends without an exception."""
    read(written(tmp_path_factory.getbasetemp(), pcap([b"x"]) + data, "any.pcap"))
