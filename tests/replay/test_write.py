"""natfix.replay.write: the repaired capture can be read by others, checksums and all."""

from __future__ import annotations

from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.utils import RawPcapNgReader

from natfix.errors import ConfigError
from natfix.replay.model import Sighting
from natfix.replay.result import Result
from natfix.replay.write import write_repaired
from tests.replay.sip import OTHER_PHONE, PHONE, PROVIDER, request, sighting
from tests.replay.small import call, result_of

Records = list[tuple[str, IP, str]]


def written(tmp_path: Path, *sightings: Sighting) -> Records:
    """Return interface, packet and comment of every record."""
    path = tmp_path / "fixed.pcapng"
    write_repaired(str(path), result_of(*sightings))
    return [(facts.ifname.decode(), IP(data), "\n".join(c.decode() for c in facts.comments or ()))
            for data, facts in RawPcapNgReader(str(path))]


def test_before_and_after(tmp_path: Path) -> None:
    """Each message stands there as it came and as it goes on, on the side that it is seen at."""
    records = written(tmp_path, *call())
    assert [name for name, _, _ in records[:2]] == ["inside:before", "outside:after"]
    assert {name for name, _, _ in records} == {"inside:before", "outside:after", "outside:before",
                                               "inside:after"}
    before, after = records[0][1], records[1][1]
    assert (before.src, after.src, after.dst) == (PHONE.host, "203.0.113.1", PROVIDER.host)
    assert b"c=IN IP4 192.168.1.10" in bytes(before)
    assert b"c=IN IP4 203.0.113.1" in bytes(after)


def test_reasons_are_comments(tmp_path: Path) -> None:
    """Wireshark shows, with each packet, what was changed, from what to what, why, and by which RFC."""
    comments = [comment for name, _, comment in written(tmp_path, *call()) if name == "outside:after"]
    assert "natfix sdp-connection: c= '192.168.1.10' -> '203.0.113.1' (media is sent here; RFC" in comments[0]
    assert "RFC 3261, section 8.1.1.8" in comments[0]


def test_checksums_are_right(tmp_path: Path) -> None:
    """Also of packets whose sender left them to its network card."""
    for _, packet, _ in written(tmp_path, *call()):
        sums = packet.chksum, packet[UDP].chksum
        assert 0 not in sums
        del packet.chksum, packet[UDP].chksum
        again = IP(bytes(packet))
        assert (again.chksum, again[UDP].chksum) == sums


def test_what_is_left_alone_says_why(tmp_path: Path) -> None:
    """A message between inside phones is there once, with the reason."""
    inside = sighting(request("OPTIONS"), PHONE, OTHER_PHONE, 1_700_000_000.0, 99)
    records = written(tmp_path, *call(), inside)
    (name, _, comment), = [each for each in records if b"OPTIONS" in bytes(each[1])]
    assert name == "other"
    assert "packet 99 of the capture" in comment
    assert "both ends are inside" in comment


def test_the_capture_itself_is_never_overwritten(tmp_path: Path) -> None:
    """Whoever names the capture for the result keeps it, and is told."""
    path = tmp_path / "call.pcap"
    path.write_bytes(b"precious")
    result: Result = result_of(*call())
    result.input["files"] = [{**result.input["files"][0], "name": str(path)}]
    with pytest.raises(ConfigError, match="name another file"):
        write_repaired(str(path), result)
    assert path.read_bytes() == b"precious"


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    """A folder that is not there: an error, and no half of a file."""
    with pytest.raises(OSError, match="No such file"):
        write_repaired(str(tmp_path / "no" / "x.pcapng"), result_of(*call()))
    assert list(tmp_path.iterdir()) == []
