"""The codes of gateways, transport and abuse once more, each from files of octets by the real command."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from natfix.address import Endpoint
from natfix.errors import DONE, FINDINGS
from natfix.replay.main import main
from tests.replay import wire
from tests.replay.sip import audio, request, response
from tests.replay.wire import PHONE, PROVIDER

GATEWAY = "203.0.113.1"
EXT = Endpoint(GATEWAY, 40625)
OWN = frozenset({
    "D11", "D12", "D14", "D15", "D16", "D20", "D22", "D23", "D24", "D25", "D27", "D28", "D29", "D33", "D34"})
SYN, SYN_ACK, RST, PUSH = 0x02, 0x12, 0x14, 0x18

Ask = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Ask:
    """Return a function that runs natfix-replay and returns the findings of these codes."""
    def ask(*arguments: str) -> list[dict[str, Any]]:
        assert main([*arguments, "--inside", "192.168.1.0/24", "--outside", GATEWAY, "--format", "json"]) in (
            DONE, FINDINGS)
        findings = json.loads(capsys.readouterr().out)["findings"]
        return [finding for finding in findings if finding["code"] in OWN]
    return ask


def capture(folder: Path, *packets: bytes, name: str = "capture.pcap", step: float = 0.05) -> str:
    return wire.written(folder, wire.pcap(map(wire.ethernet, packets), step=step), name)


def out(payload: bytes, **fields: int) -> bytes:
    return wire.udp(PHONE, PROVIDER, payload, **fields)


def back(payload: bytes, **fields: int) -> bytes:
    return wire.udp(PROVIDER, PHONE, payload, **fields)


def icmp(code: int, about: bytes, mtu: int = 0) -> bytes:
    """Return a router's ICMP destination unreachable."""
    body = struct.pack("!BBHHH", 3, code, 0, 0, mtu) + about[:28]
    return wire.ip("192.168.1.1", PHONE.host, 1, body)


INVITE = request(sdp=audio(Endpoint(PHONE.host, 4000)))
LARGE = request(cseq=2, branch="z9hG4bK2", headers=("Subject: " + "x" * 1400,))
REGISTER = request("REGISTER")


def one(findings: list[dict[str, Any]], code: str, packets: list[object]) -> dict[str, Any]:
    """Return the one finding, which has this code and these packets."""
    assert [(each["code"], each["packets"]) for each in findings] == [(code, packets)], findings
    return findings[0]


def test_via_not_given_back(ask: Ask, tmp_path: Path) -> None:
    """D11 from a pcap."""
    path = capture(tmp_path, out(REGISTER), back(response(200, "REGISTER", via=EXT, seen_as=EXT)))
    one(ask(path), "D11", [1, 2])


def test_the_next_hop_is_named(ask: Ask, tmp_path: Path) -> None:
    """The MAC address that answers come from says who made the gateway."""
    answer = back(response(200, "REGISTER", via=EXT, seen_as=EXT))
    frames = [wire.ethernet(out(REGISTER)), wire.ethernet(answer)]
    frames[1] = frames[1][:6] + bytes.fromhex("d4ca6d000001") + frames[1][12:]
    path = wire.written(tmp_path, wire.pcap(frames))
    remedy = one(ask(path), "D11", [1, 2])["remedy"]
    assert "MikroTik RouterOS: /ip firewall service-port disable sip" in remedy


def test_content_length_too_large(ask: Ask, tmp_path: Path) -> None:
    """D15: a body shorter than it says; the snap length's doing is another matter."""
    bad = INVITE.replace(b"Content-Length: ", b"Content-Length: 9")
    path = capture(tmp_path, out(bad))
    one(ask(path), "D15", [1])


def test_content_length_of_a_cut_packet(ask: Ask, tmp_path: Path) -> None:
    """A packet that the snap length cut is no D15."""
    data = wire.ethernet(out(INVITE))[:300]
    record = struct.pack("<IIII", wire.START, 0, len(data), len(data) + 99) + data
    assert ask(wire.written(tmp_path, wire.pcap([]) + record)) == []


def test_bad_checksum(ask: Ask, tmp_path: Path) -> None:
    """D15: one datagram whose checksum is wrong, where another is right; and what offload leaves."""
    good = out(request("OPTIONS"))
    wrong = bytearray(out(INVITE))
    wrong[26:28] = bytes(octet ^ 0x55 for octet in wrong[26:28])
    one(ask(capture(tmp_path, good, bytes(wrong))), "D15", [2, 1])
    pseudo = bytes(wrong[12:20]) + struct.pack("!HH", 17, len(wrong) - 20)
    wrong[26:28] = struct.pack("!H", wire.sum16(pseudo))
    assert ask(capture(tmp_path, good, bytes(wrong))) == []


def test_fragmentation_needed(ask: Ask, tmp_path: Path) -> None:
    """D16: the router says what it can carry."""
    large = out(LARGE)
    found = one(ask(capture(tmp_path, large, icmp(4, large, 1492))), "D16", [1, 2])
    assert "whose MTU is 1492" in found["evidence"]


def fragments(payload: bytes, source: Endpoint = PHONE) -> list[bytes]:
    """Return a datagram in two pieces."""
    segment = wire.udp_segment(source, PROVIDER, payload)
    return [wire.ip(source.host, PROVIDER.host, 17, segment[:1400], 77, 0x2000),
            wire.ip(source.host, PROVIDER.host, 17, segment[1400:], 77, 1400 // 8)]


def test_only_the_first_fragment_gets_out(ask: Ask, tmp_path: Path) -> None:
    """D16 from two pcaps: both pieces inside, the first one alone outside."""
    small = request("OPTIONS", branch="z9hG4bK0")
    inside = capture(tmp_path, out(small), *fragments(LARGE), *fragments(LARGE), name="inside.pcap", step=0.5)
    outside = capture(tmp_path, wire.udp(EXT, PROVIDER, small), fragments(LARGE, EXT)[0], name="outside.pcap",
                      step=0.5)
    found = [each for each in ask(inside, outside) if each["code"] == "D16"]
    assert len(found) == 1
    assert "Only its first fragment is seen outside (packet outside:2)." in found[0]["evidence"]


def test_ice_mismatch(ask: Ask, tmp_path: Path) -> None:
    """D22 from a pcap."""
    sdp = audio(Endpoint(GATEWAY, 40000)) + "a=candidate:1 1 UDP 1 192.168.1.10 4000 typ host\r\n"
    one(ask(capture(tmp_path, out(request(contact=EXT, sdp=sdp)))), "D22", [1])


def test_half_fixed_tcp(ask: Ask, tmp_path: Path) -> None:
    """D23 from two pcaps: one segment is rewritten, a message in two is not."""
    files = []
    short = request("REGISTER").replace(b"UDP", b"TCP")
    long = request(sdp=audio(Endpoint(PHONE.host, 4000)), cseq=2, branch="z9hG4bK2").replace(
        b"UDP", b"TCP")
    shown = request("REGISTER", via=EXT, contact=EXT).replace(b"UDP", b"TCP")
    for name, source, first in (("inside", PHONE, short), ("outside", EXT, shown)):
        pieces, sequence = [wire.tcp(source, PROVIDER, 99, flags=SYN)], 100
        for payload in (first, long[:200], long[200:]):
            pieces.append(wire.tcp(source, PROVIDER, sequence, payload, PUSH))
            sequence += len(payload)
        files.append(capture(tmp_path, *pieces, name=f"{name}.pcap", step=0.1))
    found = [each for each in ask(*files) if each["code"] == "D23"]
    assert len(found) == 1
    assert "with Contact and c= unchanged" in found[0]["evidence"]


def test_connections_that_fail(ask: Ask, tmp_path: Path) -> None:
    """D23: the registrar is refused at the UA's Contact; later an idle connection turns out to be gone."""
    refused = capture(
        tmp_path, out(REGISTER), back(response(200, "REGISTER", seen_as=EXT)),
        wire.tcp(Endpoint(PROVIDER.host, 50000), PHONE, 1, flags=SYN),
        wire.tcp(PHONE, Endpoint(PROVIDER.host, 50000), 1, flags=RST))
    one(ask(refused), "D23", [3, 4])
    client = Endpoint(PHONE.host, 40000)
    message = request("OPTIONS", via=client).replace(b"UDP", b"TCP")
    again = message.replace(b"CSeq: 1", b"CSeq: 2").replace(b"z9hG4bK1", b"z9hG4bK2")
    idle = capture(
        tmp_path, wire.tcp(client, PROVIDER, 9, flags=SYN), wire.tcp(PROVIDER, client, 9, flags=SYN_ACK),
        wire.tcp(client, PROVIDER, 10, message, PUSH),
        wire.tcp(client, PROVIDER, 10 + len(message), again, PUSH),
        wire.tcp(PROVIDER, client, 10, flags=RST), step=200.0)
    assert "after 200 s of silence" in one(ask(idle), "D23", [4, 5])["title"]


def test_tls(ask: Ask, tmp_path: Path) -> None:
    """D24: a client hello to 5061."""
    server = Endpoint(PROVIDER.host, 5061)
    hello = b"\x16\x03\x01\x00\x40\x01\x00\x00\x3c\x03\x03" + bytes(58)
    path = capture(tmp_path, wire.tcp(PHONE, server, 9, flags=SYN), wire.tcp(PHONE, server, 10, hello, PUSH))
    assert one(ask(path), "D24", [2])["severity"] == "informs"


def test_kernel_log(ask: Ask, tmp_path: Path) -> None:
    """D27: the kernel's log is an input like any other."""
    line = "[12.5] nf_ct_sip: dropping packet: all ports in use for SDP media IN= OUT=eth0\n"
    path = wire.written(tmp_path, f"[1.0] boot\n{line}{line}".encode(), "dmesg.txt")
    assert "all ports in use for SDP media" in one(ask(path), "D27", [2, 3])["evidence"]


def test_dropped_by_the_helper(ask: Ask, tmp_path: Path) -> None:
    """D28 from two pcaps: an OPTIONS crosses, an INVITE with a name in c= does not."""
    ping = request("OPTIONS", branch="z9hG4bK0")
    sdp = audio(Endpoint(PHONE.host, 4000)).replace("c=IN IP4 192.168.1.10", "c=IN IP4 pbx.local")
    invite = request(sdp=sdp, cseq=2, branch="z9hG4bK2")
    inside = capture(tmp_path, out(ping), out(invite), out(invite), name="inside.pcap", step=1.0)
    outside = capture(tmp_path, wire.udp(EXT, PROVIDER, ping), name="outside.pcap")
    found = [each for each in ask(inside, outside) if each["code"] == "D28"]
    assert len(found) == 1
    assert found[0]["packets"] == ["inside:2", "inside:3", "inside:1", "outside:1"]
    assert found[0]["fixed_by_natfix"] is True


def test_asymmetric_signalling(ask: Ask, tmp_path: Path) -> None:
    """D29 from a pcap."""
    sender = Endpoint(PHONE.host, 33333)
    asked = REGISTER.replace(b";rport", b"")
    there = wire.udp(sender, PROVIDER, asked)
    path = capture(tmp_path, there, wire.udp(PROVIDER, sender, response(401, "REGISTER")), there, step=0.5)
    one(ask(path), "D29", [1, 2, 3])


def test_ipv6_for_an_ipv4_peer(ask: Ask, tmp_path: Path) -> None:
    """D33 from a pcap."""
    sdp = audio(Endpoint(PHONE.host, 4000)).replace("c=IN IP4 192.168.1.10", "c=IN IP6 2001:db8::10")
    path = capture(tmp_path, out(request(sdp=sdp)), back(response(488, seen_as=EXT)))
    one(ask(path), "D33", [1, 2])


def test_scanner(ask: Ask, tmp_path: Path) -> None:
    """D34 from a pcap: a scanner is one finding, however many Call-IDs it has."""
    stranger = Endpoint("192.0.2.66", 5090)
    packets = [
        wire.udp(stranger, PHONE, request(
            "OPTIONS", via=stranger, call_id=f"{number}", branch=f"z9hG4bK{number}", uri=f"sip:{number}@x",
            headers=("User-Agent: friendly-scanner",)))
        for number in range(20)]
    found = ask(capture(tmp_path, *packets))
    assert [each["code"] for each in found] == ["D34"]
    assert found[0]["title"] == "192.0.2.66 scans: 20 OPTIONS"
