"""SIP messages and sightings for the tests of replay, in few words."""

from __future__ import annotations

from natfix.address import Endpoint, is_ipv4
from natfix.replay.gateway import datagram_bytes
from natfix.replay.model import IpFacts, PacketId, Sighting
from natfix.sip.message import message_from_bytes

PHONE = Endpoint("192.168.1.10", 5060)
OTHER_PHONE = Endpoint("192.168.1.11", 5060)
OUTSIDE = Endpoint("203.0.113.1", 5060)
MAPPED = Endpoint("203.0.113.1", 40625)         # as another NAT may show the phone
PROVIDER = Endpoint("198.51.100.20", 5060)
FROM, TO = "<sip:alice@example.com>;tag=a", "<sip:bob@example.com>"


def request(
    method: str = "INVITE", via: object = PHONE, contact: object = PHONE, call_id: str = "1", cseq: int = 1,
    uri: str = "sip:bob@example.com", branch: str = "z9hG4bK1", to: str = TO, sdp: str = "",
    headers: tuple[str, ...] = (),
) -> bytes:
    """Return a request; *via* and *contact* are put into its Via and Contact ("": no Contact)."""
    lines = [f"{method} {uri} SIP/2.0", f"Via: SIP/2.0/UDP {via};branch={branch};rport", f"From: {FROM}",
             f"To: {to}", f"Call-ID: {call_id}", f"CSeq: {cseq} {method}"]
    lines += [f"Contact: <sip:alice@{contact}>"] if contact else []
    return _message([*lines, *headers], sdp)


def response(
    status: int = 200, method: str = "INVITE", via: object = PHONE, contact: str = "", call_id: str = "1",
    cseq: int = 1, branch: str = "z9hG4bK1", seen_as: Endpoint | None = None, sdp: str = "",
    to: str = TO + ";tag=b", headers: tuple[str, ...] = (), expires: int = 0,
) -> bytes:
    """Return a response to :func:`request`; *seen_as* fills ``received`` and ``rport``."""
    granted = f";expires={expires}" if expires else ""
    echo = f";received={seen_as.host};rport={seen_as.port}" if seen_as else ""
    lines = [f"SIP/2.0 {status} Reason", f"Via: SIP/2.0/UDP {via};branch={branch}{echo}", f"From: {FROM}",
             f"To: {to}", f"Call-ID: {call_id}", f"CSeq: {cseq} {method}"]
    lines += [f"Contact: <{contact}>{granted}"] if contact else []
    return _message([*lines, *headers], sdp)


def _message(lines: list[str], sdp: str) -> bytes:
    if sdp:
        lines.append("Content-Type: application/sdp")
    lines.append(f"Content-Length: {len(sdp)}")
    return "\r\n".join([*lines, "", sdp]).encode()


def audio(endpoint: Endpoint) -> str:
    """Return a session description with one audio stream."""
    return (f"v=0\r\no=- 1 1 IN IP4 {endpoint.host}\r\ns=-\r\nc=IN IP4 {endpoint.host}\r\nt=0 0\r\n"
            f"m=audio {endpoint.port} RTP/AVP 0\r\n")


def sighting(
    payload: bytes, source: Endpoint, destination: Endpoint, time: float = 1.0, number: int = 1,
    file: str = "", interface: str = "", transport: str = "udp", **facts: object,
) -> Sighting:
    """Return a sighting of a readable message in one whole datagram."""
    ip = datagram_bytes(source, destination, payload) if is_ipv4(source.host) else b""
    return Sighting(
        (PacketId(number, file),), time, file, interface, None, transport, source, destination, payload,
        message_from_bytes(payload), facts=IpFacts(**facts), ip=ip)     # type: ignore[arg-type]


def record(
    source: Endpoint, destination: Endpoint, stage: str = "", number: int = 1, interface: str = "",
    identification: int = 0, length: int = 500,
) -> Sighting:
    """Return a sighting of which only the headers are known."""
    return Sighting(
        (PacketId(number),), 0.0, stage, interface, None, "udp", source, destination, b"", None,
        facts=IpFacts(identification=identification, length=length))


def article(stages: str = "iIoO") -> list[Sighting]:
    """Return the records of the Check Point article: REGISTER out, its answer in."""
    phone, provider, nat = Endpoint("a.b.c.d", 5060), Endpoint("w.x.y.z", 5060), Endpoint("n.n.n.n", 40625)
    changed = Endpoint("a.b.c.d", 17973)
    steps = [
        (phone, provider, "i", "eth1.10", 0, 502), (changed, provider, "I", "eth1.10", 0, 502),
        (changed, provider, "o", "eth0", 0, 502), (nat, provider, "O", "eth0", 0, 510),
        (provider, nat, "i", "eth0", 5495, 404), (provider, changed, "I", "eth0", 5495, 398),
        (provider, changed, "o", "eth1.10", 5495, 398), (provider, changed, "O", "eth1.10", 5495, 398),
    ]
    return [
        record(source, destination, stage, number, interface, identification, length)
        for number, (source, destination, stage, interface, identification, length) in enumerate(steps, 1)
        if stage in stages
    ]
