"""The captures of pcaps/ are what they say, and can be made anew."""

from __future__ import annotations

from pathlib import Path

import pytest
from scapy.utils import RawPcapNgReader

from tests.captures.__main__ import FOLDER, record
from tests.captures.recording import HEADERS, shorten
from tests.captures.scenes import SCENES


@pytest.mark.lab
def test_both_sides_are_recorded(tmp_path: Path) -> None:
    """A call is recorded on both sides of the gateway, in order of time, media without what it says."""
    path = tmp_path / "busy.pcapng"
    record(SCENES["busy-natfix"], path)
    records = list(RawPcapNgReader(str(path)))
    sides = {name: b"".join(data for data, facts in records if facts.ifname == name)
             for name in (b"inside", b"outside")}
    assert all(b"SIP/2.0 486 " in seen for seen in sides.values())
    assert b"Contact: <sip:alice-" in sides[b"inside"]
    assert b"@192.168.1.10:" in sides[b"inside"]
    assert b"@192.168.1.10:" not in sides[b"outside"]
    times = [(facts.tshigh << 32) + facts.tslow for _, facts in records]
    assert times == sorted(times)


def test_all_are_there() -> None:
    """Every scene has its file, and the folder's README names each file."""
    readme = (FOLDER / "README.md").read_text()
    names = {path.name for path in FOLDER.glob("*.pcap*")}
    assert {f"{name}.pcapng" for name in SCENES} <= names
    assert all(f"`{name}`" in readme for name in names)


def test_media_is_cut_and_nothing_else(tmp_path: Path) -> None:
    """What is written again stays as it is: SIP whole, of media only the headers."""
    source = FOLDER / "call-natfix.pcapng"
    shorten(source, tmp_path / "again.pcapng")
    before, after = (list(RawPcapNgReader(str(path))) for path in (source, tmp_path / "again.pcapng"))
    assert before == after
    assert {len(data) for data, facts in before if facts.wirelen > len(data)} == {HEADERS}
