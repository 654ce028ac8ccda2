"""NAT slipstreaming: SIP inside what began as something else is nobody's SIP, wherever a segment begins."""

from __future__ import annotations

import random
import re
import socket

import pytest

from natfix.address import Endpoint
from natfix.segment import ACK, PSH, SendSegment, datagram
from tests.lab import namespaces
from tests.lab.gateway import Natfix
from tests.lab.lab import Lab
from tests.tcp.lines import OWN, Line, connect, connect_all, listener, receive

pytestmark = pytest.mark.lab
NO_PACE = "[limits]\npackets_per_host = 0\n"       # whose set remembers everybody who sends
ALIGNMENTS = 1000
TCP_HEADER = 20
MORE = 0x2000           # IP: more fragments follow
TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ = 19, 20, 21        # linux/tcp.h
RECEIVE_QUEUE, SEND_QUEUE, REPAIR_OFF = 1, 2, -1
AT_ONCE = 50
KEPT = ("calls", "registrations", "signalling_mappings", "media_mappings")     # in natfix's status
# What a web page can have a browser inside send: with its own address, and ports that it wants opened.
INVITE = """INVITE sip:evil@203.0.113.50 SIP/2.0
Via: SIP/2.0/TCP OWN;branch=z9hG4bKslip
Max-Forwards: 70
From: <sip:alice@OWN>;tag=1
To: <sip:evil@203.0.113.50>
Call-ID: slip
CSeq: 1 INVITE
Contact: <sip:alice@OWN;transport=tcp>
Content-Type: application/sdp
Content-Length: {}

"""
SDP = "v=0\r\no=- 1 1 IN IP4 {0}\r\ns=-\r\nc=IN IP4 {0}\r\nt=0 0\r\nm=audio 3389 RTP/AVP 0\r\n"
REGISTER = """REGISTER sip:203.0.113.50 SIP/2.0
Via: SIP/2.0/TCP OWN;branch=z9hG4bKslip2
From: <sip:alice@203.0.113.50>;tag=1
To: <sip:alice@203.0.113.50>
Call-ID: slip2
CSeq: 1 REGISTER
Contact: <sip:alice@OWN;transport=tcp>
Content-Length: 0

"""


def sip(line: Line) -> bytes:
    """Return what would open ports, were it taken for SIP."""
    body = SDP.format(line.near.getsockname()[0])
    text = INVITE.format(len(body)).replace("\n", "\r\n") + body + REGISTER.replace("\n", "\r\n")
    return text.encode().replace(OWN, line.inside)


def http(length: int, chance: random.Random) -> bytes:
    start = b"POST /" + chance.randbytes(8).hex().encode() + b" HTTP/1.1\r\nContent-Length: 100000\r\n\r\n"
    return (start + b"a" * length)[:max(length, len(start))]


def tls(length: int, chance: random.Random) -> bytes:
    return b"\x16\x03\x01" + chance.randbytes(max(2, length))


def stun(length: int, chance: random.Random) -> bytes:
    return b"\x00\x01\x00\x00\x21\x12\xa4\x42" + chance.randbytes(12 + length)


PROTOCOLS = [http, tls, stun]


def state(lab: Lab, natfix: Natfix) -> tuple[str, str, object]:
    """Return all that an accepted message would leave: elements, marks, registrations."""
    elements = lab.gateway.run(["nft", "-s", "list", "table", "ip", "natfix"]).stdout
    marks = re.findall(r"mark=[1-9]\d*", lab.gateway.run(["conntrack", "-L"]).stdout)
    status = natfix.json("status")
    return elements, str(marks), [status[name] for name in KEPT]


def test_a_thousand_alignments(lab: Lab) -> None:
    """SIP begins with a segment, behind 1 to 1000 octets of HTTP, TLS or STUN in one or two segments: both
    ends read what was written, and nothing is left in the kernel or in natfix."""
    natfix = lab.start_natfix(NO_PACE)
    before = state(lab, natfix)
    chance = random.Random(1)
    with listener(lab) as waiting:
        for start in range(0, ALIGNMENTS, AT_ONCE):
            lines = connect_all(lab, waiting, [0] * AT_ONCE)
            for number, line in enumerate(lines, start):
                prefix = PROTOCOLS[number % 3](number, chance)
                cut = chance.randrange(len(prefix))
                for part in (prefix[:cut], prefix[cut:], sip(line)):
                    line.near.sendall(part)
                expected = prefix + sip(line)
                assert receive(line.far, len(expected)) == expected
                line.far.sendall(prefix + b"SIP/2.0 200 OK\r\n\r\n")
                assert receive(line.near, len(prefix) + 18) == prefix + b"SIP/2.0 200 OK\r\n\r\n"
                line.close()
    assert state(lab, natfix) == before


def test_it_would_be_seen(lab: Lab) -> None:
    """The same SIP at the beginning of a connection is a call with its ports: what the others rule out."""
    natfix = lab.start_natfix(NO_PACE)
    before = state(lab, natfix)
    with listener(lab) as waiting:
        line = connect(lab, waiting)
        line.near.sendall(sip(line))
        assert line.outside in line.far.recv(2000)
        elements, _, kept = state(lab, natfix)
        assert elements != before[0]
        assert kept == [1, 0, 1, 2]
        line.close()


def test_fragments(lab: Lab) -> None:
    """The same where SIP begins with an IP fragment, as a host inside may send it."""
    natfix = lab.start_natfix(NO_PACE)
    before = state(lab, natfix)
    speaker = namespaces.socket_in(
        lab["phone1"].namespace, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    with listener(lab) as waiting, speaker:
        for number, length in enumerate(range(12, 172, 8)):
            line = connect(lab, waiting)
            prefix = PROTOCOLS[number % 3](length, random.Random(length))
            line.near.sendall(prefix)
            assert receive(line.far, len(prefix)) == prefix
            # A segment that the phone's own TCP knows nothing of: its first fragment ends before the SIP.
            octets = b"a" * length + sip(line)
            for fragment in fragments(line, octets, TCP_HEADER + length):
                speaker.sendto(fragment, (line.far.getsockname()[0], 0))
            assert receive(line.far, len(octets)) == octets
            line.close()
    assert state(lab, natfix) == before


def fragments(line: Line, octets: bytes, first: int) -> list[bytes]:
    """Return the next segment of the phone's as two IP fragments; the first has *first* octets, by eights."""
    ends = Endpoint(*line.near.getsockname()), Endpoint(*line.near.getpeername())
    sent, received = (next_number(line.near, queue) for queue in (SEND_QUEUE, RECEIVE_QUEUE))
    whole = datagram(SendSegment(*ends, sent, received, PSH | ACK, 1000, b"", octets))
    header, rest = bytearray(whole[:20]), whole[20:]
    header[4:6] = (7).to_bytes(2)       # identification
    made = []
    for part, flags in ((rest[:first], MORE), (rest[first:], first // 8)):
        header[2:4], header[6:8] = (20 + len(part)).to_bytes(2), flags.to_bytes(2)
        made.append(bytes(header) + part)
    return made


def next_number(end: socket.socket, queue: int) -> int:
    """Return the sequence number of the next octet that is sent, or that is received (tcp(7), TCP_REPAIR)."""
    end.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    end.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, queue)
    number = end.getsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ)
    end.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, 0)
    end.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, REPAIR_OFF)
    return number & 0xFFFFFFFF
