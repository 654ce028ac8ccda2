"""Packets out of texts, whatever stands around them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natfix.address import Endpoint
from natfix.replay import texts
from natfix.replay.counts import Counts
from natfix.replay.link import ip_offset
from natfix.replay.model import Datagram, Frame, LogLine, PacketId
from natfix.replay.source import Source, Unreadable
from natfix.replay.texts import Record, is_text, lines, records
from natfix.sip.message import message_from_bytes
from tests.replay.sip import audio, request
from tests.replay.wire import PHONE, PROVIDER, RTP_PHONE, ethernet, udp, written

INVITE = request(sdp=audio(RTP_PHONE))
PACKET = udp(PHONE, PROVIDER, INVITE)
FW_MONITOR = """\
eth1.10:i[502]: a.b.c.d -> w.x.y.z (UDP) len=502 id=0

UDP: 5060 -> 5060

eth0:O[510]: n.n.n.n -> w.x.y.z (UDP) len=510 id=0
UDP: 40625 -> 5060
eth0:O[52]: n.n.n.n -> w.x.y.z (TCP) len=52 id=0
TCP: 40625 -> 5060 .S.... seq=1 ack=0
"""


def read(folder: Path, text: str | bytes, label: str = "") -> tuple[list[Record], Counts]:
    path = written(folder, text if isinstance(text, bytes) else text.encode())
    counts = Counts(path)
    with Source(path) as source:
        return list(records(source, counts, label)), counts


def dump(data: bytes, form: str = "\t0x{:04x}:  {:39}  {}") -> str:
    """Return a hex dump as tcpdump prints it, or in another *form*."""
    shown = []
    for at in range(0, len(data), 16):
        piece = data[at:at + 16]
        words = " ".join(piece[pair:pair + 2].hex() for pair in range(0, len(piece), 2))
        shown.append(form.format(at, words, "".join(chr(b) if 32 < b < 127 else "." for b in piece)))
    return "\n".join(shown) + "\n"


def test_fw_monitor(tmp_path: Path) -> None:
    """Header-only records, with their ports from the line below; a TCP handshake is no message."""
    got, counts = read(tmp_path, f"Fw monitor shows the following:\n\n{FW_MONITOR}\nAs it can be seen ...")
    one, other = got
    assert isinstance(one, Datagram)
    assert isinstance(other, Datagram)
    assert (one.packets, one.stage, one.interface) == ((PacketId(1),), "i", "eth1.10")
    assert (one.source, one.destination) == (Endpoint("a.b.c.d", 5060), Endpoint("w.x.y.z", 5060))
    assert (one.payload, one.ip, one.facts.length) == (b"", b"", 502)
    assert (other.stage, other.source.port, other.facts.length) == ("O", 40625, 510)
    assert counts.format == "fw monitor text"
    assert [*counts.interfaces] == ["eth1.10", "eth0"]


@pytest.mark.parametrize("spoil", [
    lambda text: text.replace("->", "-&gt;"), lambda text: text.replace("->", "\u2013>"),
    lambda text: text.replace(" ", "\xa0"), lambda text: text.replace("\n", "\r\n"),
    lambda text: "\x1b[31m" + text.replace("eth", "\x1b[0meth")])
def test_what_web_pages_and_terminals_do(tmp_path: Path, spoil) -> None:   # type: ignore[no-untyped-def]
    """Entities, typographic arrows, hard spaces and colours do not matter."""
    got, _ = read(tmp_path, spoil(FW_MONITOR))
    assert len(got) == 2


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    """What Windows' tools save is text, too."""
    data = FW_MONITOR.encode(encoding)
    assert is_text(data)
    assert len(read(tmp_path, data)[0]) == 2


HEADS = {
    "FortiGate sniffer text": (
        "interfaces=[any]\nfilters=[udp port 5060]\n"
        "2017-09-12 12:41:38.676846 port1 out {0} -> {1}: udp 465\n",
        "0x{:04x}\t {:39}\t{}", ethernet(PACKET)),
    "tcpdump text": (
        "12:41:38.676846 IP {0} > {1}: SIP: INVITE sip:bob SIP/2.0\n", "\t0x{:04x}:  {:39}  {}", PACKET),
    "ASA capture text": ("1 packet captured\n   1: 12:41:38.676846       {0} > {1}:  udp 465\n",
                         "0x{:04x}   {:39}        {}", PACKET),
    "fw monitor text": (
        f"eth1:i[99]: {{0.host}} -> {{1.host}} (UDP) len={len(PACKET)} id=7\nUDP: {{0.port}} -> {{1.port}}\n",
        "{:08x} {:39}   {}", PACKET),
}


@pytest.mark.parametrize("name", HEADS)
def test_dumps(tmp_path: Path, name: str) -> None:
    """A head with a hex dump gives the packet's octets, from the link layer or from IP on."""
    head, form, data = HEADS[name]
    if not name.startswith("fw"):
        ends = [f"{end.host}.{end.port}" for end in (PHONE, PROVIDER)]
    head = head.format(PHONE, PROVIDER) if name.startswith("fw") else head.format(*ends)
    text = f"$ the command\n{(head + dump(data, form)) * 2}3 packets\n"
    got, counts = read(tmp_path, text, "wan")
    assert counts.format == name
    for number, frame in enumerate(got, 1):
        assert isinstance(frame, Frame)
        assert (frame.number, frame.data, frame.file) == (number, data, "wan")
        assert frame.data[ip_offset(frame.link, frame.data):] == PACKET
    assert len(got) == 2


def test_dumps_without_heads(tmp_path: Path) -> None:
    """A bare dump is a packet; offset 0 begins the next one."""
    got, counts = read(tmp_path, "Look:\n" + dump(ethernet(PACKET)) + dump(PACKET))
    assert [frame.link for frame in got if isinstance(frame, Frame)] == [1, 101]
    assert counts.format == "hex dump"


def test_fw_monitor_dump_without_headers(tmp_path: Path) -> None:
    """fw monitor -x 28 shows what comes behind the headers: the message goes with the line's ends."""
    (got,), _ = read(tmp_path, "eth1:i[9]: 10.0.0.1 -> 10.0.0.2 (UDP) len=9 id=7\nUDP: 5060 -> 5060\n"
                     + dump(INVITE, "{:04x} {:39}   {}"))
    assert isinstance(got, Datagram)
    assert (got.payload, got.source) == (INVITE, Endpoint("10.0.0.1", 5060))


@pytest.mark.parametrize("form", ["E..~..@.@.......X{}", "\t{}"])
def test_messages_as_characters(tmp_path: Path, form: str) -> None:
    """tcpdump -A and -v print the message itself."""
    head = "12:41:38.676846 IP 10.1.1.2.5060 > 198.51.100.7.5060: UDP, length 465\n"
    shown = INVITE.decode().replace("\r\n", "\n\t" if form.startswith("\t") else "\n")
    text = head + form.format(shown)
    got, counts = read(tmp_path, text + "\n" + text)
    assert counts.format == "tcpdump text"
    for datagram in got:
        assert isinstance(datagram, Datagram)
        assert (datagram.payload, datagram.source) == (INVITE, Endpoint("10.1.1.2", 5060))


def test_tcpdump_verbose(tmp_path: Path) -> None:
    """The two lines of tcpdump -v are one packet."""
    text = ("12:41:38.5 IP (tos 0x0, ttl 64, id 99, offset 0, flags [DF], proto UDP (17), length 493)\n"
            "    10.1.1.2.5060 > 198.51.100.7.5060: [udp sum ok] SIP, length: 465\n")
    got, _ = read(tmp_path, text * 3)
    assert [datagram.facts.identification for datagram in got if isinstance(datagram, Datagram)] == [99] * 3


def test_every_packet_has_its_number(tmp_path: Path) -> None:
    """Lines about other packets are counted, so that numbers are those of the capture."""
    text = ("12:41:38.1 ARP, Request who-has 10.0.0.1 tell 10.0.0.2, length 46\n"
            "12:41:38.2 IP 10.1.1.2.5060 > 198.51.100.7.5060: SIP\n"
            "12:41:38.3 IP 10.1.1.2.999 > 198.51.100.7.53: 1+ A? example.com. (9)\n"
            "12:41:38.4 IP 10.1.1.2.5060 > 198.51.100.7.5060: SIP: OPTIONS sip:a SIP/2.0\n")
    (datagram,), _ = read(tmp_path, text)
    assert isinstance(datagram, Datagram)
    assert datagram.packets == (PacketId(4),)


def test_midnight(tmp_path: Path) -> None:
    """Clocks without a date go on behind midnight."""
    got, _ = read(tmp_path, "".join(
        f"{clock} IP 10.1.1.2.5060 > 198.51.100.7.5060: UDP, length 4\n"
        for clock in ("23:59:59.5", "00:00:00.5", "00:00:01.5")).replace("length 4", "length 400"))
    times = [record.time for record in got]
    assert [time - times[0] for time in times] == [0, 1, 2]


def test_traces(tmp_path: Path) -> None:
    """Messages under headings are datagrams; an SDP alone is none, and nothing is what is left out."""
    text = (f"# SYMPTOM: x\n## 10.0.0.1:5060 -> 192.0.2.1:5060 udp\n{INVITE.decode()}\n"
            "## 192.0.2.1:5060 -> 10.0.0.1:9 tls (truncated in the source)\nSIP/2.0 200 OK\n"
            "## - -> - sdp\nv=0\n")
    (one, other), counts = read(tmp_path, text)
    assert isinstance(one, Datagram)
    assert isinstance(other, Datagram)
    assert message_from_bytes(one.payload).method == "INVITE"
    assert (other.protocol, other.facts.cut, other.packets) == ("tcp", True, (PacketId(2),))
    assert counts.format == "SIP text"


def test_kernel_log(tmp_path: Path) -> None:
    """Lines of the kernel's SIP helper are log lines, by their number in the file."""
    text = ("Nov 21 05:05:01 gw kernel: eth0: link up\n"
            "2026-11-21T05:05:02.5 gw kernel: nf_ct_sip: dropping packet: cannot add expectation\n")
    (line,), counts = read(tmp_path, text)
    assert isinstance(line, LogLine)
    assert (line.packet, line.time > 1.7e9, counts.format) == (PacketId(2), True, "kernel log")


def test_prose(tmp_path: Path) -> None:
    """A text without packets is named as such."""
    with pytest.raises(Unreadable, match="finds no packets"):
        read(tmp_path, "Dear all,\nplease find attached nothing.\n")


def test_long_lines(tmp_path: Path) -> None:
    """A line without end comes in pieces."""
    with Source(written(tmp_path, b"x" * (5 * texts.LONGEST_LINE) + b"\nend")) as source:
        got = list(lines(source))
    assert max(map(len, got)) <= texts.LONGEST_LINE
    assert got[-1] == "end"


@pytest.mark.parametrize(("start", "expected"), [
    (b"a text\n\tof two lines\r\n", True), (b"", True), (bytes(100), False),
    (b"\xd4\xc3\xb2\xa1\2\0\4\0", False)])
def test_is_text(start: bytes, expected: bool) -> None:
    """Texts have hardly any control characters."""
    assert is_text(start) is expected


LINES = [*FW_MONITOR.splitlines(), *dump(PACKET).splitlines(), "## a -> b udp", "INVITE x SIP/2.0",
         "12:41:38 IP (tos", "  1.2.3.4.5 > 6.7.8.9.1: UDP"]


@given(st.lists(st.sampled_from(LINES) | st.text(max_size=40), max_size=20))
def test_any_lines(tmp_path_factory: pytest.TempPathFactory, some: list[str]) -> None:
    """Lines in any order never make this raise anything but Unreadable."""
    with suppress(Unreadable):
        read(tmp_path_factory.getbasetemp(), "\n".join(some).encode("utf-8", "replace"))
