"""pcap, conntrack and before/after readers: small inputs, known answers."""

from __future__ import annotations

import struct
from pathlib import Path

from tests.lab.compare import pair_messages
from tests.lab.counters import flow_from_line
from tests.lab.pcap import Datagram, datagrams_from_pcap, sip_messages
from tests.lab.programs.sipp import messages_from_log

INVITE = (b"INVITE sip:bob@203.0.113.50 SIP/2.0\r\nVia: SIP/2.0/UDP 192.168.1.10:5060;branch=z9hG4bK1\r\n"
          b"Call-ID: one\r\nCSeq: 1 INVITE\r\nContact: <sip:alice@192.168.1.10>\r\n\r\n")
LINE = ("udp      17 118 src=192.168.1.10 dst=203.0.113.60 sport=10000 dport=20000 packets=190 bytes=38000 "
        "src=203.0.113.60 dst=203.0.113.1 sport=20000 dport=30000 packets=188 bytes=37600 [ASSURED] mark=0")


def frame(payload: bytes, fragment: int = 0) -> bytes:
    """Return an Ethernet frame with one UDP datagram from 192.0.2.1:5060 to 192.0.2.2:5062."""
    udp = struct.pack("!HHHH", 5060, 5062, 8 + len(payload), 0) + payload
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, fragment, 64, 17, 0)
    return bytes(12) + b"\x08\x00" + head + bytes([192, 0, 2, 1]) + bytes([192, 0, 2, 2]) + udp


def write_pcap(path: Path, frames: list[bytes]) -> Path:
    """Write *frames* as a little-endian pcap, one second apart."""
    records = b"".join(struct.pack("<IIII", second, 0, len(data), len(data)) + data
                       for second, data in enumerate(frames))
    path.write_bytes(struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1) + records)
    return path


def test_pcap_gives_whole_udp_datagrams(tmp_path: Path) -> None:
    """Fragments, other protocols and a cut last record are left out."""
    arp = bytes(12) + b"\x08\x06" + bytes(40)
    frames = [frame(b"one"), frame(b"two", fragment=0x2000), arp, frame(b"last")]
    path = write_pcap(tmp_path / "x.pcap", frames)
    path.write_bytes(path.read_bytes()[:-2])
    (datagram,) = datagrams_from_pcap(path)
    assert datagram == (0.0, ("192.0.2.1", 5060), ("192.0.2.2", 5062), b"one")


def test_sip_is_told_from_the_rest(tmp_path: Path) -> None:
    """Keep-alives and RTP on the same port are no SIP messages."""
    frames = [frame(b"\r\n\r\n"), frame(INVITE), frame(b"SIP/2.0 200 OK\r\n\r\n")]
    path = write_pcap(tmp_path / "x.pcap", frames)
    assert [message.payload[:7] for message in sip_messages(path)] == [b"INVITE ", b"SIP/2.0"]


def test_a_conntrack_line_tells_both_tuples() -> None:
    """Original source and destination, what the outside sees, and both counters."""
    assert flow_from_line(LINE) == ("192.168.1.10:10000", "203.0.113.60:20000", "203.0.113.1:30000",
                                    "203.0.113.60:20000", 190, 188)
    assert flow_from_line("conntrack v1.4.7 (conntrack-tools): 1 flow entries have been shown.") is None


def test_pairs_show_what_the_gateway_changed() -> None:
    """The same message on both sides, its retransmission too, and which lines differ."""
    phone, gateway, provider = ("192.168.1.10", 5060), ("203.0.113.1", 5060), ("203.0.113.50", 5060)
    fixed = INVITE.replace(b"192.168.1.10", b"203.0.113.1")
    inside = [Datagram(0, phone, provider, INVITE), Datagram(1, phone, provider, INVITE)]
    outside = [Datagram(0, gateway, provider, fixed), Datagram(1, gateway, provider, fixed)]
    first, second = pair_messages(inside, outside, "203.0.113.1")
    assert first == second
    assert first.goes_out
    assert first.title == "INVITE sip:bob@203.0.113.50"
    assert [new for _, new in first.changes()] == [
        "Via: SIP/2.0/UDP 203.0.113.1:5060;branch=z9hG4bK1", "Contact: <sip:alice@203.0.113.1>"]


def test_a_message_lost_on_the_way_has_no_pair() -> None:
    """What only one side saw is left out."""
    assert not pair_messages([Datagram(0, ("192.168.1.10", 5060), ("203.0.113.50", 5060), INVITE)], [],
                             "203.0.113.1")


def test_a_message_that_sipp_still_writes_down_is_not_read() -> None:
    """SIPp's log names sizes: the last message is there with its last byte, and not before."""
    rule = b"-" * 47 + b" 2026-11-21 07:37:59.321286\n"
    ringing = b"SIP/2.0 180 Ringing\r\nContent-Length: 0\r\n\r\n"
    log = (b"%sUDP message received [%d] bytes :\n\n%s\n" % (rule, len(INVITE), INVITE)
           + b"%sUDP message sent (%d bytes):\n\n%s\n" % (rule, len(ringing), ringing))
    texts = [message.decode().replace("\r\n", "\n") + "\n" for message in (INVITE, ringing)]
    assert list(messages_from_log(log)) == [("received", texts[0]), ("sent", texts[1])]
    for cut in range(1, len(ringing) + len(rule)):
        assert list(messages_from_log(log[:-cut])) == [("received", texts[0])]
