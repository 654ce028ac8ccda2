"""The messages of one ordinary call, as a desk phone and a provider write them."""

from __future__ import annotations

from typing import NamedTuple

from natfix.address import Endpoint
from tests.datagram import Datagram, packet_bytes

OUTSIDE = "203.0.113.1"
PROVIDER = Endpoint("203.0.113.60", 5060)
PBX, PBX_OUTSIDE = Endpoint("192.168.1.5", 5060), Endpoint(OUTSIDE, 5060)
FAR_HOST = "198.51.100.7"       # a NAT outside, with phones behind it

HEADERS = """\
Max-Forwards: 70
From: "Alice" <sip:alice@provider.example>;tag=a{serial}
To: <sip:bob@provider.example>{to_tag}
Call-ID: {serial:08x}-5a4c81@{host}
"""
ALLOWED = """\
Allow: INVITE, ACK, OPTIONS, CANCEL, BYE, SUBSCRIBE, NOTIFY, INFO, REFER, UPDATE, PRACK, MESSAGE
Supported: replaces, outbound, path, timer
User-Agent: Bench Phone 96.86.0.100 00:15:65:aa:bb:cc
"""
SDP = """\
v=0
o=- 20518 20518 IN IP4 {host}
s=Bench
c=IN IP4 {host}
t=0 0
m=audio {port} RTP/AVP 9 8 0 101
a=rtpmap:9 G722/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:0 PCMU/8000
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-16
a=ptime:20
a=sendrecv
"""


class CallPackets(NamedTuple):
    """IPv4 packets as they wait in natfix's queue, in the order of the call."""

    invite: bytes
    trying: bytes
    ringing: bytes
    ok: bytes
    ack: bytes
    bye: bytes
    bye_ok: bytes


class Path(NamedTuple):
    """The two ends of a call, as their packets and their messages name them."""

    caller: Endpoint        # where its packets come from
    written: Endpoint       # what it writes of itself
    via: Endpoint           # its Via, as the callee has it
    seen: Endpoint          # where the callee sees its packets come from
    callee: Endpoint        # where packets to it go at the queue; what it writes of itself
    target: Endpoint        # its Contact, as the caller has it


def call_packets(serial: int, phone: Endpoint, rtp_port: int) -> CallPackets:
    """Return the packets of call number *serial* from *phone*; its outside port is its own, 5060 say."""
    outside = Endpoint(OUTSIDE, phone.port)
    return _packets(serial, Path(phone, phone, outside, outside, PROVIDER, PROVIDER), rtp_port)


def far_call_packets(serial: int, phone: Endpoint, rtp_port: int) -> CallPackets:
    """Return those of a call from *phone*, as it writes itself behind a NAT outside, to a PBX inside."""
    source = Endpoint(FAR_HOST, 20000 + serial % 1000)
    return _packets(serial, Path(source, phone, phone, source, PBX, PBX_OUTSIDE), rtp_port)


def _packets(serial: int, path: Path, rtp_port: int) -> CallPackets:
    writer = _Writer(serial, path, rtp_port)
    return CallPackets(
        writer.request("INVITE", 1, sdp=True), writer.response("100 Trying", 1, "INVITE"),
        writer.response("180 Ringing", 1, "INVITE"), writer.response("200 OK", 1, "INVITE", sdp=True),
        writer.request("ACK", 1), writer.request("BYE", 2), writer.response("200 OK", 2, "BYE"),
    )


class _Writer:
    """Writes one call's packets."""

    def __init__(self, serial: int, path: Path, rtp_port: int) -> None:
        self.serial, self.path, self.rtp_port = serial, path, rtp_port

    def request(self, method: str, cseq: int, sdp: bool = False) -> bytes:
        in_dialog, path = method != "INVITE", self.path
        target = f"bob@{path.target}" if in_dialog else "bob@provider.example"
        text = (
            f"{method} sip:{target} SIP/2.0\n"
            f"Via: SIP/2.0/UDP {path.written};branch={self._branch(method, cseq)};rport\n"
            + self._headers(in_dialog) + f"CSeq: {cseq} {method}\n"
            f"Contact: <sip:alice@{path.written}>\n{ALLOWED}"
        )
        return self._packet(text, path.caller, path.callee, self._sdp(path.written.host, self.rtp_port, sdp))

    def response(self, status: str, cseq: int, method: str, sdp: bool = False) -> bytes:
        path = self.path
        text = (
            f"SIP/2.0 {status}\n"
            f"Via: SIP/2.0/UDP {path.via};branch={self._branch(method, cseq)}"
            f";rport={path.seen.port};received={path.seen.host}\n"
            + self._headers(not status.startswith("100")) + f"CSeq: {cseq} {method}\n"
        )
        if method == "INVITE":
            text += f"Contact: <sip:bob@{path.callee}>\n{ALLOWED}"
        return self._packet(text, path.callee, path.caller, self._sdp(path.callee.host, 40000, sdp))

    def _headers(self, has_to_tag: bool) -> str:
        to_tag = f";tag=b{self.serial}" if has_to_tag else ""
        return HEADERS.format(serial=self.serial, host=self.path.written.host, to_tag=to_tag)

    def _branch(self, method: str, cseq: int) -> str:
        return f"z9hG4bK-{self.serial}-{method if method == 'ACK' else ''}{cseq}"

    def _sdp(self, host: str, port: int, wanted: bool) -> str:
        return SDP.format(host=host, port=port) if wanted else ""

    def _packet(self, text: str, source: Endpoint, destination: Endpoint, sdp: str) -> bytes:
        body = sdp.replace("\n", "\r\n").encode()
        if body:
            text += "Content-Type: application/sdp\n"
        text += f"Content-Length: {len(body)}\n\n"
        return packet_bytes(Datagram(source, destination, text.replace("\n", "\r\n").encode() + body))
