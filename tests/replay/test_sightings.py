"""Whole inputs: what is seen in them."""

from __future__ import annotations

import csv
import os
import shutil
import struct
import subprocess
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natfix.address import Endpoint
from natfix.replay.media_seen import MediaTable
from natfix.replay.messages import INCOMPLETE
from natfix.replay.model import IcmpError, LogLine, MediaKind, PacketId, Sighting, TcpReset, TlsFlow
from natfix.replay.sightings import TICK, Reader, Seen
from natfix.replay.source import Unreadable
from tests.replay.sip import audio, request, response
from tests.replay.wire import (
    PHONE,
    PHONE6,
    PROVIDER,
    PROVIDER6,
    RTP_PHONE,
    RTP_PROVIDER,
    START,
    ethernet,
    ip,
    pcap,
    rtp,
    tcp,
    udp,
    udp_segment,
    written,
)

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("NATFIX_DATA", ROOT / "../shared/data"))
SEEDS = DATA.parent / "seeds"
INVITE, OK = request(sdp=audio(RTP_PHONE)), response(200, sdp=audio(RTP_PROVIDER))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the data folder is not here (NATFIX_DATA)")


def read(path: str, label: str = "") -> tuple[list[Seen], Reader]:
    reader = Reader(path, label)
    return list(reader), reader


def sightings(items: list[Seen]) -> list[Sighting]:
    return [item for item in items if isinstance(item, Sighting)]


def test_call(tmp_path: Path) -> None:
    """A call's messages come in order, its media goes into the table, all is counted."""
    media = [ethernet(udp(RTP_PHONE, RTP_PROVIDER, rtp(number))) for number in range(50)]
    packets = [udp(PHONE, PROVIDER, INVITE), udp(PROVIDER, PHONE, OK)]
    path = written(tmp_path, pcap([*map(ethernet, packets), *media]))
    items, reader = read(path, "lan")
    one, other = sightings(items)
    assert (one.payload, other.payload, one.packets) == (INVITE, OK, (PacketId(1, "lan"),))
    assert (one.source, one.stage, one.ip) == (PHONE, "lan", packets[0])
    (stream,) = reader.media.streams()
    assert (stream.kind, stream.packets, stream.first_packet) == (MediaKind.RTP, 50, PacketId(3, "lan"))
    counts = reader.counts
    assert (counts.packets, counts.sip, counts.media, counts.format) == (52, 2, 50, "pcap")
    assert (counts.start, counts.end) == pytest.approx((START, START + 51 * 0.02))
    assert reader.share == 1.0
    assert counts.warnings() == []


def test_any_port_and_ipv6(tmp_path: Path) -> None:
    """SIP is told by its first line, on any port, in IPv6, behind IP options and line ends."""
    high = Endpoint("10.0.0.1", 33333), Endpoint("10.0.0.2", 44444)
    packets = [
        udp(*high, INVITE), udp(PHONE6, PROVIDER6, INVITE), udp(*high, b"\r\n\r\n" + INVITE),
        ip(PHONE.host, PROVIDER.host, 17, udp_segment(PHONE, PROVIDER, INVITE), options=bytes(8)),
        udp(RTP_PROVIDER, Endpoint("10.0.0.3", 1900), b"NOTIFY * HTTP/1.1\r\n"),
        udp(PHONE, PROVIDER, b"\r\n\r\n"), udp(PHONE, PROVIDER, b"")]
    items, reader = read(written(tmp_path, pcap(map(ethernet, packets))))
    assert [item.packet.number for item in sightings(items)] == [1, 2, 3, 4]
    assert all(item.message for item in sightings(items))
    (kept_alive,) = reader.media.streams()
    assert (kept_alive.kind, kept_alive.packets) == (MediaKind.OTHER, 2)


def test_tunnelled_media(tmp_path: Path) -> None:
    """Media in a tunnel is counted by its inner ends."""
    inner = [udp(RTP_PHONE, RTP_PROVIDER, rtp(number)) for number in range(3)]
    packets = [ip("10.9.9.1", "10.9.9.2", 4, packet) for packet in inner]
    _, reader = read(written(tmp_path, pcap(packets, link=101)))
    (stream,) = reader.media.streams()
    assert (stream.source, stream.packets) == (RTP_PHONE, 3)


def test_fragments_and_tcp(tmp_path: Path) -> None:
    """A fragmented message, one over TCP, a refused connection, TLS and an ICMP error, in one capture."""
    whole = udp_segment(PHONE, PROVIDER, INVITE)
    secure = PROVIDER._replace(port=5061)
    about = udp(PROVIDER, PHONE, OK)
    packets = [
        ip(PHONE.host, PROVIDER.host, 17, whole[:200], fragment=0x2000),
        ip(PHONE.host, PROVIDER.host, 17, whole[200:], fragment=25),
        tcp(PHONE, PROVIDER, 1, INVITE[:100]), tcp(PHONE, PROVIDER, 101, INVITE[100:]),
        tcp(PHONE, secure, 1, b"\x16\x03\x01\x00\x50\x01" + bytes(80)),
        tcp(PHONE._replace(port=9), PROVIDER, 1, flags=2), tcp(PROVIDER, PHONE._replace(port=9), 1, flags=4),
        ip(PHONE.host, PROVIDER.host, 1, struct.pack("!BBHI", 3, 3, 0, 0) + about[:28]),
        ip(PHONE.host, PROVIDER.host, 17, whole[:200], fragment=0x2000, identification=99)]
    items, _ = read(written(tmp_path, pcap(map(ethernet, packets))))
    assert [type(item) for item in items] == [Sighting, Sighting, TlsFlow, TcpReset, IcmpError, Sighting]
    packets_of = [[*map(str, item.packets)] for item in items if not isinstance(item, LogLine)]
    assert packets_of == [["1", "2"], ["3", "4"], ["5"], ["6", "7"], ["8"], ["9"]]
    assert [item.problem for item in sightings(items)] == ["", "", INCOMPLETE]


def test_fax(tmp_path: Path) -> None:
    """An SDP with an image makes what comes there UDPTL."""
    sdp = audio(RTP_PROVIDER).replace("audio", "image").replace("RTP/AVP 0", "udptl t38")
    packets = [udp(PHONE, PROVIDER, request(sdp=sdp))]
    packets += [udp(RTP_PHONE, RTP_PROVIDER, struct.pack("!H", number) + bytes(20)) for number in range(4)]
    _, reader = read(written(tmp_path, pcap(map(ethernet, packets))))
    (stream,) = reader.media.streams()
    assert (stream.kind, stream.packets) == (MediaKind.UDPTL, 4)


def test_unknown_link_type(tmp_path: Path) -> None:
    """A link type that nobody knows is told, not silently skipped."""
    _, reader = read(written(tmp_path, pcap([bytes(100)] * 3, link=147)))
    (warning,) = reader.counts.warnings()
    assert warning.endswith("3 packets were left out: link type 147 is not known.")


def test_snap_length(tmp_path: Path) -> None:
    """A message that was cut when it was captured says so, and so does the input."""
    data = ethernet(udp(PHONE, PROVIDER, INVITE))
    record = struct.pack("<IIII", START, 0, 150, len(data)) + data[:150]
    items, reader = read(written(tmp_path, pcap([]) + record))
    assert sightings(items)[0].problem == "it was cut short when it was captured"
    assert reader.counts.cut == 1


def test_stops_when_told(tmp_path: Path) -> None:
    """A capture of nothing but media can be ended, and what was read until then counts."""
    path = written(tmp_path, pcap([udp(RTP_PHONE, RTP_PROVIDER, rtp(1))] * (3 * TICK), link=101))
    answers = iter((True, True, False))
    reader = Reader(path, goes_on=lambda: next(answers))
    assert list(reader) == []
    assert reader.counts.packets == 2 * TICK


def test_several_inputs_share_a_table(tmp_path: Path) -> None:
    """One table takes the media of all inputs, by their labels."""
    path = written(tmp_path, pcap(ethernet(udp(RTP_PHONE, RTP_PROVIDER, rtp(number))) for number in range(3)))
    table = MediaTable()
    for label in ("inside", "outside"):
        list(Reader(path, label, table))
    assert [(stream.stage, stream.first_packet.file) for stream in table.streams()] == [
        ("inside", "inside"), ("outside", "outside")]


@given(st.binary(max_size=150), st.sampled_from([0, 1, 101, 113, 239, 276]), st.integers(0, 600),
       st.integers(0, 7))
def test_any_frames(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, link: int, place: int, bit: int
) -> None:
    """Random frames, and good ones with one bit turned, never make this raise."""
    good = bytearray(ethernet(udp(PHONE, PROVIDER, INVITE)) if link == 1 else udp(PHONE, PROVIDER, INVITE))
    good[place % len(good)] ^= 1 << bit
    frames = [data, bytes(good), ip("10.0.0.1", "10.0.0.2", 47, data), tcp(PHONE, PROVIDER, 1, data)]
    read(written(tmp_path_factory.getbasetemp(), pcap(frames, link=link), "any.pcap"))


@needs_data
def test_article() -> None:
    """Check Point's case is read straight out of the article: eight records, stages and ports."""
    (path,) = SEEDS.glob("004_*.txt")
    items, reader = read(str(path))
    shown = [(item.stage, item.interface, item.source.port, item.destination.port, item.facts.length)
             for item in sightings(items)]
    assert shown == [
        ("i", "eth1.10", 5060, 5060, 502), ("I", "eth1.10", 17973, 5060, 502),
        ("o", "eth0", 17973, 5060, 502), ("O", "eth0", 40625, 5060, 510),
        ("i", "eth0", 5060, 40625, 404), ("I", "eth0", 5060, 17973, 398),
        ("o", "eth1.10", 5060, 17973, 398), ("O", "eth1.10", 5060, 17973, 398)]
    assert {item.source.host for item in sightings(items)} == {"a.b.c.d", "n.n.n.n", "w.x.y.z"}
    assert reader.counts.format == "fw monitor text"


# What PCAPS.tsv counts otherwise: SIP quoted in ICMP errors, and HTTP at SIP's port.
OTHER_COUNTS = {"goffinet-sip-captures/private-test-sip.pcapng": 276,
                "ndpi-tests/tests/cfgs/default/pcap/http_on_sip_port.pcap": 0}


@needs_data
def test_counts_of_the_data_folder() -> None:
    """Every capture of the data folder has as many SIP messages as was counted by other means."""
    with (DATA / "PCAPS.tsv").open() as table:
        expected = {row["file"]: int(row["sip"]) for row in csv.DictReader(table, delimiter="\t")}
    expected |= OTHER_COUNTS
    got = {}
    for file in expected:
        reader = Reader(str(DATA / file))
        got[file] = len(sightings(list(reader)))
        assert not reader.counts.truncated
    assert got == expected


@needs_data
def test_three_framings() -> None:
    """The same 81 SIP packets in three captures give the same messages."""
    names = ("sngrep-tests/tests/aaa.pcap", "ndpi-tests/tests/cfgs/default/pcap/sip.pcap",
             "zeek-traces/testing/btest/Traces/sip/wireshark.pcap")
    inputs = [sightings(read(str(DATA / name))[0]) for name in names]
    seen = [sorted((item.payload, item.source, item.destination) for item in items) for items in inputs]
    assert len(seen[0]) == 81
    assert all(one == other for one, other in pairwise(seen))


@needs_data
@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="tcpdump is not here")
@pytest.mark.parametrize("options", ["-X", "-XX -e -tttt", "-x -v", "-A", "-A -v", ""])
def test_what_tcpdump_prints(tmp_path: Path, options: str) -> None:
    """A text of tcpdump shows the same messages as the capture, by the same numbers."""
    path = DATA / "sngrep-tests/tests/aaa.pcap"
    printed = subprocess.run(["tcpdump", "-n", *options.split(), "-r", path], capture_output=True, check=True)
    items, reader = read(written(tmp_path, printed.stdout, "text"))
    expected, whole = read(str(path))
    assert [item.packet for item in sightings(items)] == [item.packet for item in sightings(expected)]
    assert reader.counts.packets == whole.counts.packets
    assert reader.counts.format == "tcpdump text"
    for item, other in zip(sightings(items), sightings(expected), strict=True):
        assert (item.source, item.destination) == (other.source, other.destination)
        assert (item.message is None) == (not options)


@needs_data
def test_issue_traces() -> None:
    """Every issue trace with a message is read; those that are only an SDP say that there is none."""
    outcomes: Counter[str] = Counter()
    for path in sorted(DATA.glob("issue-traces/*.txt")):
        is_sdp_only = "-> - sdp" in path.read_text()
        try:
            items, _ = read(str(path))
        except Unreadable:
            outcomes["SDP only" if is_sdp_only else path.name] += 1
        else:
            outcomes["message"] += bool(sightings(items))
    assert outcomes == {"message": 20, "SDP only": 5}
