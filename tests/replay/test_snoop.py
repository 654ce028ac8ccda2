"""snoop files, and Check Point's fw monitor files."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natfix.replay.counts import Counts
from natfix.replay.model import Frame
from natfix.replay.snoop import frames
from natfix.replay.source import Source, Unreadable
from tests.replay.wire import PHONE, PROVIDER, START, ethernet, udp, written

PACKET = udp(PHONE, PROVIDER, b"hello")


def snoop(packets: list[bytes], version: int = 2, link: int = 4) -> bytes:
    """Return a snoop file."""
    records = (
        struct.pack("!IIIIII", len(data), len(data), 24 + len(data) + -len(data) % 4, 0, START + number,
                    500_000) + data + bytes(-len(data) % 4) for number, data in enumerate(packets))
    return b"snoop\0\0\0" + struct.pack("!II", version, link) + b"".join(records)


def fw(stage: str, interface: bytes, packet: bytes = PACKET, uuid: bytes = b"") -> bytes:
    """Return a record of fw monitor: stage, place in the chain, name, EtherType, IP packet."""
    name = interface.ljust(6, b"\0") + uuid if uuid else interface.ljust(10, b"\0")
    return stage.encode() + b"\x05" + name + b"\x08\x00" + packet


def read(folder: Path, data: bytes, label: str = "") -> tuple[list[Frame], Counts]:
    path = written(folder, data)
    counts = Counts(path)
    with Source(path) as source:
        return list(frames(source, counts, label)), counts


def test_snoop(tmp_path: Path) -> None:
    """A plain snoop file has Ethernet frames, and times to the microsecond."""
    data = ethernet(PACKET)
    (one, other), counts = read(tmp_path, snoop([data, data]), "wan")
    assert (one.data, one.time, one.stage, other.number) == (data, START + 0.5, "wan", 2)
    assert counts.format == "snoop"


def test_fw_monitor(tmp_path: Path) -> None:
    """Stages and interface names come out of the place where Ethernet has its addresses."""
    records = [fw("i", b"eth1.10"), fw("I", b"eth1.10"), fw("o", b"bond0.1234"), fw("O", b"eth0")]
    got, counts = read(tmp_path, snoop(records))
    assert [(frame.stage, frame.interface) for frame in got] == [
        ("i", "eth1.10"), ("I", "eth1.10"), ("o", "bond0.1234"), ("O", "eth0")]
    assert counts.format == "fw monitor"
    assert [*counts.interfaces] == ["eth1.10", "bond0.1234", "eth0"]


def test_fw_monitor_with_uuid(tmp_path: Path) -> None:
    """fw monitor -u has four octets of a UUID behind a shorter name."""
    (frame,), counts = read(tmp_path, snoop([fw("i", b"eth0", uuid=b"\x01\xfe\0\x99")]))
    assert (frame.interface, counts.format) == ("eth0", "fw monitor")


def test_one_record_that_does_not_fit(tmp_path: Path) -> None:
    """An Ethernet address may look like a stage once; every record must."""
    got, counts = read(tmp_path, snoop([fw("i", b"eth0"), ethernet(PACKET)]))
    assert (counts.format, got[0].stage) == ("snoop", "")


@pytest.mark.parametrize(("version", "link"), [(1, 4), (2, 8)])
def test_other_snoops(tmp_path: Path, version: int, link: int) -> None:
    """Other versions and link types are named, not guessed."""
    with pytest.raises(Unreadable, match="natfix reads version 2"):
        read(tmp_path, snoop([], version, link))


def test_hostile_record(tmp_path: Path) -> None:
    """A record that contradicts itself ends the reading."""
    data = snoop([ethernet(PACKET)]) + struct.pack("!IIIIII", 9, 0xFFFFFFFF, 0xFFFFFFFF, 0, 0, 0)
    got, counts = read(tmp_path, data)
    assert (len(got), counts.truncated) == (1, True)


@given(st.binary(max_size=200), st.integers(16, 300))
def test_any_octets(tmp_path_factory: pytest.TempPathFactory, end: bytes, cut: int) -> None:
    """Whatever a file holds, reading ends without an exception."""
    read(tmp_path_factory.getbasetemp(), snoop([fw("i", b"eth0"), ethernet(PACKET)])[:cut] + end)
