"""The lines that introduce a packet."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natfix.address import Endpoint
from natfix.replay import text_heads
from natfix.replay.text_heads import (
    Head,
    endpoint,
    fortigate_head,
    fw_monitor_head,
    tcpdump_head,
    timed_head,
    with_fw_ports,
)

ONE, OTHER = Endpoint("10.1.1.2", 5060), Endpoint("198.51.100.7", 5060)
CLOCK = 12 * 3600 + 41 * 60 + 38.5
STAMP = datetime(2017, 9, 12, tzinfo=UTC).timestamp() + CLOCK


def test_fw_monitor() -> None:
    """The article's lines: stage, interface, masked addresses, lengths, ports."""
    head = fw_monitor_head("eth1.10:i[502]: a.b.c.d -> w.x.y.z (UDP) len=502 id=5495")
    assert head is not None
    assert head[1:5] == (0.0, "eth1.10", "i", None)
    assert (head.protocol, head.length, head.identification) == ("udp", 502, 5495)
    head = with_fw_ports(head, "UDP: 5060 -> 17973")
    assert head is not None
    assert (head.source, head.destination) == (Endpoint("a.b.c.d", 5060), Endpoint("w.x.y.z", 17973))


@pytest.mark.parametrize(("line", "interface", "stage"), [
    ("[vs_0][fw_1] eth0:O[510]: 10.0.0.1 -> 10.0.0.2 (UDP) len=510 id=1", "eth0", "O"),
    ("[vs_0][fw_2] 12Sep2017 12:41:38.5 bond0.12:o[60]: 10.0.0.1 -> 10.0.0.2 (TCP) len=60 id=1",
     "bond0.12", "o"),
    ("[vs_0][fw_0] eth0:i1 (IP Options Strip (in))[84]: 10.0.0.1 -> 10.0.0.2 (UDP) len=84 id=0", "eth0", "i"),
    ("[vs_0][ppak_0] eth4:id[44]: 10.0.0.1 -> 10.0.0.2 (UDP) len=44 id=0", "eth4", "id"),
    ("   $ wrpj2:I[60]:  10.0.0.1 -> 10.0.0.2 (ICMP) len=60 id=1 ", "wrpj2", "I"),
])
def test_newer_fw_monitors(line: str, interface: str, stage: str) -> None:
    """Instances, times, names of chain modules and VPN stages in front of the same line."""
    head = fw_monitor_head(line)
    assert head is not None
    assert (head.interface, head.stage, head.source.host) == (interface, stage, "10.0.0.1")
    assert head.time == (STAMP if "2017" in line else 0.0)


def test_fw_monitor_tcp() -> None:
    """Of TCP only segments that carry something can be messages."""
    head = fw_monitor_head("eth0:i[60]: 10.0.0.1 -> 10.0.0.2 (TCP) len=60 id=1")
    assert head is not None
    syn = with_fw_ports(head, "TCP: 1050 -> 5060 .S.... seq=bf8bc98e ack=00000000")
    data = with_fw_ports(head, "TCP: 1050 -> 5060 ...PA. seq=bf8bc98e ack=941b05bc")
    assert syn is not None
    assert data is not None
    assert (syn.has_data, data.has_data) == (False, True)


@pytest.mark.parametrize(("line", "expected"), [
    ("2017-09-12 12:41:38.500000 port1 out 10.1.1.2.5060 -> 198.51.100.7.5060: udp 465",
     (STAMP, "port1", True, "udp", ONE, OTHER)),
    ("3.250000 wan1 in 198.51.100.7.5060 -> 10.1.1.2.5060: udp 465",
     (3.25, "wan1", False, "udp", OTHER, ONE)),
    ("3.250000 10.1.1.2.5060 -> 198.51.100.7.5060: psh 1 ack 2", (3.25, "", None, "tcp", ONE, OTHER)),
    ("3.250000 10.1.1.2 -> 198.51.100.7: icmp: echo request",
     (3.25, "", None, "icmp", ONE._replace(port=0), OTHER._replace(port=0))),
    ("3.250000 2001:db8::1.5060 -> 2001:db8::2.5060: udp 465",
     (3.25, "", None, "udp", Endpoint("2001:db8::1", 5060), Endpoint("2001:db8::2", 5060))),
])
def test_fortigate(line: str, expected: tuple[object, ...]) -> None:
    """Absolute and relative times, with and without interface."""
    head = fortigate_head(line)
    assert head is not None
    assert head[1:3] + head[4:8] == expected


@pytest.mark.parametrize(("line", "time", "interface", "outgoing"), [
    ("12:41:38.500000 IP 10.1.1.2.5060 > 198.51.100.7.5060: UDP, length 465", CLOCK, "", None),
    ("12:41:38.500000 IP 10.1.1.2.sip > 198.51.100.7.sip: SIP: REGISTER sip:a SIP/2.0", CLOCK, "", None),
    ("2017-09-12 12:41:38.500000 eth0 Out IP 10.1.1.2.5060 > 198.51.100.7.5060: SIP: x", STAMP, "eth0", True),
    ("1505220098.500000 ppp0  In  IP 10.1.1.2.5060 > 198.51.100.7.5060: UDP, length 4", STAMP, "ppp0", False),
    ("12:41:38.500000 00:11:22:33:44:55 > 66:77:88:99:aa:bb, ethertype IPv4 (0x0800), length 507: "
     "10.1.1.2.5060 > 198.51.100.7.5060: UDP, length 465", CLOCK, "", None),
    ("   1: 12:41:38.500000       10.1.1.2.5060 > 198.51.100.7.5060:  udp 465", CLOCK, "", None),
    ("  12: 12:41:38.500000 802.1Q vlan#10 P0 10.1.1.2.5060 > 198.51.100.7.5060:  udp 465 ", CLOCK, "", None),
])
def test_tcpdump_and_asa(line: str, time: float, interface: str, outgoing: bool | None) -> None:
    """tcpdump's times and interfaces, its -e, and ASA's numbered lines."""
    head = tcpdump_head(line, None)
    assert head is not None
    assert (head.source, head.destination, head.protocol) == (ONE, OTHER, "udp")
    assert (head.time, head.interface, head.outgoing) == (pytest.approx(time), interface, outgoing)
    assert head.format == (text_heads.ASA if line.startswith(" ") else text_heads.TCPDUMP)


def test_tcpdump_verbose() -> None:
    """tcpdump -v breaks the line behind what it says of the IP header."""
    before = timed_head("12:41:38.500000 IP (tos 0x0, ttl 64, id 1234, offset 0, flags [DF], "
                          "proto UDP (17), length 493)")
    assert before is not None
    head = tcpdump_head("    10.1.1.2.5060 > 198.51.100.7.5060: [udp sum ok] SIP, length: 465", before)
    assert head is not None
    assert (head.time, head.identification, head.length) == (CLOCK, 1234, 493)
    assert (head.source, head.protocol) == (ONE, "udp")


@pytest.mark.parametrize("line", [
    "12:41:38.500000 ARP, Request who-has 10.0.0.1 tell 10.0.0.2, length 46",
    "12:41:38.500000 eth0  B   ARP, Request who-has 10.0.0.1 tell 10.0.0.2, length 46",
    "12:41:38.500000 00:11:22:33:44:55 > ff:ff:ff:ff:ff:ff, 802.3, length 119: LLC",
])
def test_other_protocols(line: str) -> None:
    """A line about something else has its time, so that its dump, and its number, are its own."""
    assert tcpdump_head(line, None) is None
    head = timed_head(line)
    assert head is not None
    assert (head.time, head.source.host) == (CLOCK, "")


@pytest.mark.parametrize(("length", "expected"), [("465", True), ("4", False)])
def test_keep_alives(length: str, expected: bool) -> None:
    """A payload that is too short for a message is none, where the line says so."""
    fortigate = fortigate_head(f"3.250000 10.1.1.2.5060 -> 198.51.100.7.5060: udp {length}")
    tcpdump = tcpdump_head(f"12:41:38.5 IP 10.1.1.2.5060 > 198.51.100.7.5060: SIP, length: {length}", None)
    assert fortigate is not None
    assert tcpdump is not None
    assert fortigate.has_data is tcpdump.has_data is expected


@pytest.mark.parametrize("line", [
    "So a > b: that is udp", "-I only get audio in one direction", "SIP < -----", "12:41:38 nothing > here",
    "10.1.1.2 -> 10.1.1.3 (UDP)", "eth0:x[5]: a -> b (UDP) len=1 id=1", ""])
def test_prose(line: str) -> None:
    """Prose introduces no packet."""
    assert fw_monitor_head(line) is fortigate_head(line) is None
    assert tcpdump_head(line, None) is timed_head(line) is None


@pytest.mark.parametrize("date", ["9999-12-31", "1969-01-01", "2017-13-01", "0000-00-00"])
def test_times_that_cannot_be(date: str) -> None:
    """A date that is none, or that no calendar function would take, is left out."""
    head = fortigate_head(f"{date} 99:41:38.5 10.1.1.2.5060 -> 198.51.100.7.5060: udp 465")
    assert head is not None
    assert head.time == 0.0


def test_endpoints() -> None:
    """Ports are told from the last octet of an address, names of services are ports."""
    assert endpoint("10.0.0.1") == Endpoint("10.0.0.1", 0)
    assert endpoint("a.b.c.d.5060") == Endpoint("a.b.c.d", 5060)
    assert endpoint("phone.example.com.sip") == Endpoint("phone.example.com", 5060)
    assert endpoint("10.0.0.1.65536") == Endpoint("10.0.0.1.65536", 0)
    assert endpoint("2001:db8::1") == Endpoint("2001:db8::1", 0)


@given(st.text(max_size=200), st.booleans())
def test_any_text(line: str, with_arrow: bool) -> None:
    """No line makes these raise."""
    line = f"12:41:38.5 {line} -> x: > y: " if with_arrow else line
    head = Head(text_heads.FW_MONITOR)
    for reader in (fw_monitor_head, fortigate_head, timed_head):
        reader(line)
    tcpdump_head(line, None)
    with_fw_ports(head, line)
