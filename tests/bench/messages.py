"""The messages of one ordinary call, as a desk phone and a provider write them."""

from __future__ import annotations

from typing import NamedTuple

from natfix.address import Endpoint
from tests.datagram import Datagram, packet_bytes

OUTSIDE = "203.0.113.1"
PROVIDER = Endpoint("203.0.113.60", 5060)

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


def call_packets(serial: int, phone: Endpoint, rtp_port: int) -> CallPackets:
    """Return the packets of call number *serial* from *phone*; its outside port is its own, 5060 say."""
    writer = _Writer(serial, phone, rtp_port)
    return CallPackets(
        writer.request("INVITE", 1, sdp=True), writer.response("100 Trying", 1, "INVITE"),
        writer.response("180 Ringing", 1, "INVITE"), writer.response("200 OK", 1, "INVITE", sdp=True),
        writer.request("ACK", 1), writer.request("BYE", 2), writer.response("200 OK", 2, "BYE"),
    )


class _Writer:
    """Writes one call's packets."""

    def __init__(self, serial: int, phone: Endpoint, rtp_port: int) -> None:
        self.serial, self.phone, self.rtp_port = serial, phone, rtp_port

    def request(self, method: str, cseq: int, sdp: bool = False) -> bytes:
        in_dialog = method != "INVITE"
        target = f"bob@{PROVIDER}" if in_dialog else "bob@provider.example"
        text = (
            f"{method} sip:{target} SIP/2.0\n"
            f"Via: SIP/2.0/UDP {self.phone};branch={self._branch(method, cseq)};rport\n"
            + self._headers(in_dialog) + f"CSeq: {cseq} {method}\n"
            f"Contact: <sip:alice@{self.phone}>\n{ALLOWED}"
        )
        return self._packet(text, self.phone, PROVIDER, self._sdp(self.phone.host, self.rtp_port, sdp))

    def response(self, status: str, cseq: int, method: str, sdp: bool = False) -> bytes:
        text = (
            f"SIP/2.0 {status}\n"
            f"Via: SIP/2.0/UDP {OUTSIDE}:{self.phone.port};branch={self._branch(method, cseq)}"
            f";rport={self.phone.port};received={OUTSIDE}\n"
            + self._headers(not status.startswith("100")) + f"CSeq: {cseq} {method}\n"
        )
        if method == "INVITE":
            text += f"Contact: <sip:bob@{PROVIDER}>\n{ALLOWED}"
        return self._packet(text, PROVIDER, self.phone, self._sdp(PROVIDER.host, 40000, sdp))

    def _headers(self, has_to_tag: bool) -> str:
        to_tag = f";tag=b{self.serial}" if has_to_tag else ""
        return HEADERS.format(serial=self.serial, host=self.phone.host, to_tag=to_tag)

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
