"""D15, D16, D23, D24: what goes wrong below SIP, and what only looks like it."""

from __future__ import annotations

import pytest

from natfix.address import Endpoint
from natfix.replay.model import PacketId, Severity, Side, TcpReset, TlsFlow, Vantage
from natfix.replay.symptoms import transport
from tests.replay.sip import PHONE, PROVIDER, audio, request, response
from tests.replay.symptoms.capture import EXT, GATEWAY, Capture, repeat

PROBLEM = "Content-Length is longer than the datagram"
INVITE = request(sdp=audio(PHONE), contact="phone.example.com")

# -- D15


def short(sent: int, **facts: object) -> Capture:
    """A message whose Content-Length says *sent* for 126 octets."""
    capture = Capture()
    length = INVITE.index(b"\r\n\r\n")
    capture.unreadable(INVITE.replace(f"Content-Length: {len(audio(PHONE))}".encode(),
                                      f"Content-Length: {sent}".encode()), PROBLEM, **facts)
    assert length
    return capture


def test_the_body_is_shorter() -> None:
    """Content-Length promises more than the datagram holds."""
    finding = short(999).only("D15")
    assert finding.severity is Severity.BREAKS
    assert finding.title == f"Content-Length says 999, the body has {len(audio(PHONE))} octets"


@pytest.mark.parametrize("capture", [
    short(999, cut=True), short(999, incomplete=True), short(999, fragments=2, incomplete=True),
], ids=["snap length", "first fragment", "fragments missing"])
def test_what_was_cut_by_the_capture(capture: Capture) -> None:
    """A snap length or a missing fragment is the capture's fault, not the sender's."""
    assert capture.findings() == []


def test_text_is_no_datagram() -> None:
    """In a pasted text the numbers of the transcript prove nothing."""
    capture = Capture()
    capture.unreadable(INVITE, PROBLEM, ip=b"")
    assert capture.findings() == []


def test_a_length_that_no_datagram_has() -> None:
    """Not even in a pasted text: that is no slip of the transcript."""
    capture = Capture()
    huge = INVITE.replace(b"Content-Length: ", b"Content-Length: 2147483648\r\nX: ")
    capture.unreadable(huge, "Content-Length is no number", ip=b"")
    assert "Content-Length says 2147483648" in capture.only("D15").title


def test_another_problem_is_not_a_wrong_length() -> None:
    """What is unreadable for other reasons says nothing of lengths."""
    capture = Capture()
    capture.unreadable(INVITE, "Content-Length is no number")
    assert capture.findings() == []


def longer(rest: bytes) -> Capture:
    """A message that goes on behind its body."""
    capture = Capture()
    capture.sip(INVITE + rest)
    return capture


def test_the_body_is_longer() -> None:
    """Lines behind what Content-Length counts are never read."""
    finding = longer(b"a=sendrecv\r\n").only("D15")
    assert finding.severity is Severity.HURTS
    assert f"Content-Length says {len(audio(PHONE))}, the body has {len(audio(PHONE)) + 12}" in finding.title


@pytest.mark.parametrize("rest", [b"", b"\r\n", b"\r\n\r\n", b"\0", b"   "])
def test_filling_behind_the_body(rest: bytes) -> None:
    """Line ends and zeros behind the body are common and mean nothing."""
    assert longer(rest).findings() == []


def test_the_gateway_made_it_longer() -> None:
    """Right inside and wrong outside: the gateway changed the body and not the number."""
    capture = Capture(Vantage.BOTH)
    capture.out(INVITE, INVITE + b"a=x:1\r\n")
    finding = capture.only("D15")
    assert "In packet inside:1, the same message before that box, it was right." in finding.evidence
    assert finding.where == "the gateway, between packets inside:1 and outside:2"


@pytest.mark.parametrize("facts", [{"checksum_wrong": True}, {"udp_length_wrong": True}])
def test_a_damaged_datagram(facts: dict[str, bool]) -> None:
    """One datagram is damaged, another of the same sender is right."""
    capture = Capture()
    capture.sip(request("OPTIONS"))
    capture.sip(INVITE, **facts)
    assert capture.only("D15").packets == (PacketId(2), PacketId(1))


def test_a_damaged_datagram_that_was_answered() -> None:
    """Whoever answered got it whole: the capture is wrong, not the packet."""
    capture = Capture()
    capture.sip(request("OPTIONS"))
    capture.sip(INVITE, checksum_wrong=True)
    capture.sip(response(200, seen_as=EXT), PROVIDER, PHONE)
    assert capture.findings() == []


def test_a_damaged_response() -> None:
    """A damaged response that the UA took, and one after which it asks again."""
    capture = Capture()
    capture.sip(response(100, "OPTIONS"), PROVIDER, PHONE)
    capture.sip(INVITE)
    capture.sip(response(200, seen_as=EXT), PROVIDER, PHONE, checksum_wrong=True)
    assert capture.findings() == []
    capture.sip(INVITE, after=0.5)
    assert capture.only("D15").title == "the UDP checksum is wrong in packet 3"


def test_damaged_by_the_gateway() -> None:
    """Right inside, wrong outside."""
    capture = Capture(Vantage.BOTH)
    capture.sip(INVITE, file="inside")
    capture.sip(INVITE, EXT, PROVIDER, "outside", 0.001, checksum_wrong=True)
    assert capture.only("D15").packets == (PacketId(2, "outside"), PacketId(1, "inside"))


def test_checksums_that_are_all_wrong() -> None:
    """Where every packet of a sender is so, the capture was edited: nobody's fault."""
    capture = Capture()
    capture.sip(request("OPTIONS"), checksum_wrong=True)
    capture.sip(INVITE, checksum_wrong=True)
    assert capture.findings() == []


def test_what_the_capturing_host_sends() -> None:
    """The capturing host's own packets get their checksums from the network card, behind the capture."""
    capture = Capture()
    for payload, wrong in ((request("OPTIONS"), False), (INVITE, True)):
        capture.sip(payload, checksum_wrong=wrong).outgoing = True
    assert capture.findings() == []


# -- D16

LARGE = request(sdp=audio(PHONE), contact="phone.example.com", cseq=2, branch="z9hG4bK2",
                headers=("Subject: " + "x" * 1300,))


def large(times: int = 6, payload: bytes = LARGE, answered: bool = True, **facts: object) -> Capture:
    """A small request, then a large one *times* times."""
    capture = Capture()
    capture.sip(request())
    if answered:
        capture.sip(response(407, seen_as=EXT), PROVIDER, PHONE)
        capture.sip(request("ACK"))
    capture.sip(payload, **facts)
    repeat(capture, payload, times - 1)
    return capture


def test_a_large_request_is_lost() -> None:
    """The INVITE with credentials is never answered, the small one before it was."""
    finding = large(fragments=2).only("D16")
    assert f"of {len(LARGE)} octets gets no answer, small requests do" in finding.title
    assert "in 2 fragments, is sent 6 times until packet 9" in finding.evidence
    assert "Smaller ones of this UA are answered (packet 2)." in finding.evidence


def test_a_packet_that_the_path_does_not_carry() -> None:
    """One packet, not fragmented: then it is the path's MTU, and not a rule about fragments."""
    payload = request(cseq=2, branch="z9hG4bK2", headers=("Subject: " + "x" * 1150,))
    assert 1300 < len(payload) < 1472
    assert "drops it without saying so" in large(payload=payload).only("D16").cause
    assert "IP fragments are dropped" in large(fragments=2).only("D16").cause


@pytest.mark.parametrize("capture", [
    large(3), large(answered=False), large(payload=request(cseq=2, branch="z9hG4bK2")),
], ids=["the capture ends", "nothing is answered", "it is small"])
def test_requests_that_are_lost_for_other_reasons(capture: Capture) -> None:
    """Too few transmissions, a server that is away, small requests: size is not proved to be the reason."""
    assert capture.findings() == []


@pytest.mark.parametrize(("vantage", "codes"), [(Vantage.BOTH, ["D16"]), (Vantage.INSIDE, [])])
def test_the_gateway_swallows_fragments(vantage: Vantage, codes: list[str]) -> None:
    """Seen inside in two fragments, and never outside: what was answered before is enough to compare with."""
    capture = Capture(vantage)
    small = {"method": "OPTIONS", "call_id": "2", "branch": "z9hG4bKsmall"}
    if vantage is Vantage.BOTH:
        capture.out(request(**small))       # type: ignore[arg-type]
        capture.back(response(**small))     # type: ignore[arg-type]
    else:
        capture.sip(request(**small))       # type: ignore[arg-type]
        capture.sip(response(**small), PROVIDER, PHONE)     # type: ignore[arg-type]
    for number in range(4):
        capture.sip(LARGE, after=0.5 * 2 ** number, fragments=2)
    assert capture.codes() == codes


def test_a_large_request_that_is_answered() -> None:
    """Size alone is no fault."""
    capture = large(1)
    capture.sip(response(200, cseq=2, branch="z9hG4bK2", seen_as=EXT), PROVIDER, PHONE)
    assert capture.findings() == []


def test_only_the_first_fragment_gets_out() -> None:
    """Inside the request is whole, outside only its first fragment is seen: two transmissions are enough."""
    capture = Capture(Vantage.BOTH)
    capture.sip(LARGE, file="inside", fragments=2)
    capture.unreadable(LARGE[:1400], "cut", EXT, PROVIDER, fragments=1, incomplete=True)
    capture.sip(LARGE, file="inside", fragments=2, after=0.5)
    finding = capture.only("D16")
    assert "Only its first fragment is seen outside (packet 2)." in finding.evidence


def test_fragmentation_needed() -> None:
    """A router says that the packet does not fit, and what would."""
    capture = Capture()
    capture.sip(LARGE, length=len(LARGE) + 28, dont_fragment=True)
    capture.icmp("192.168.1.1", "fragmentation-needed", PHONE, PROVIDER, 1492)
    finding = capture.only("D16")
    assert 'with DF; 192.168.1.1 answers with ICMP "fragmentation needed", whose MTU is 1492' \
        in finding.evidence


def test_other_icmp() -> None:
    """Port unreachable says nothing of size."""
    capture = Capture()
    capture.sip(LARGE)
    capture.icmp("192.168.1.1", "port-unreachable", PHONE, PROVIDER)
    assert capture.findings() == []


@pytest.mark.parametrize(("status", "codes"), [(513, ["D16"]), (413, ["D16"]), (414, []), (500, [])])
def test_the_peer_says_too_large(status: int, codes: list[str]) -> None:
    """513 and 413 are about the size."""
    capture = Capture()
    capture.sip(LARGE)
    capture.sip(response(status, cseq=2, branch="z9hG4bK2", seen_as=EXT), PROVIDER, PHONE)
    assert capture.codes() == codes


# -- D23

ON_TCP = request("REGISTER").replace(b"UDP", b"TCP")
ON_TCP_SHOWN = request("REGISTER", via=EXT, contact=EXT).replace(b"UDP", b"TCP")
LONG = request(sdp=audio(PHONE), cseq=2, branch="z9hG4bK2").replace(b"UDP", b"TCP")
LONG_SHOWN = request(sdp=audio(EXT), via=EXT, contact=EXT, cseq=2, branch="z9hG4bK2").replace(b"UDP", b"TCP")


def over_tcp(shown: bytes, segments: int = 2, first_shown: bytes = ON_TCP_SHOWN) -> Capture:
    """A REGISTER in one segment, then an INVITE in several."""
    capture = Capture(Vantage.BOTH)
    for payload, outer, count in ((ON_TCP, first_shown, 1), (LONG, shown, segments)):
        for source, file, content in ((PHONE, "inside", payload), (EXT, "outside", outer)):
            capture.sip(content, source, PROVIDER, file)
            copy = capture.sightings[-1]
            capture.number += count - 1
            copy.transport = "tcp"
            copy.packets = tuple(PacketId(capture.number - count + 1 + each, file) for each in range(count))
    return capture


def test_a_long_message_passes_unfixed() -> None:
    """One segment is rewritten, two are not."""
    finding = over_tcp(LONG).only("D23")
    assert finding.severity is Severity.BREAKS
    assert "with Contact and c= unchanged" in finding.evidence


def test_a_long_message_is_fixed_by_half() -> None:
    """Contact is rewritten, the SDP in the second segment is not; that the mixture is D11, too, is the same
    fault seen from another place."""
    half = request(sdp=audio(PHONE), via=EXT, contact=EXT, cseq=2, branch="z9hG4bK2").replace(b"UDP", b"TCP")
    findings = over_tcp(half).findings()
    assert [each.code for each in findings] == ["D11", "D23"]
    assert "with c= unchanged" in findings[1].evidence


@pytest.mark.parametrize("capture", [
    over_tcp(LONG_SHOWN), over_tcp(LONG, segments=1), over_tcp(LONG, first_shown=ON_TCP),
], ids=["rewritten", "in one segment", "nothing is rewritten at all"])
def test_streams_that_are_not_half_fixed(capture: Capture) -> None:
    """Rewritten throughout, or nowhere: no half-blind ALG."""
    assert "D23" not in capture.codes()


def reset(source: Endpoint, destination: Endpoint, refused: bool, idle: float = 0.0,
          peer: bool = True) -> Capture:
    """A connection is refused, or cut."""
    capture = Capture()
    if peer:
        capture.sip(request("REGISTER"))
    capture.context.resets.append(TcpReset(
        (PacketId(7), PacketId(8)), 5.0, "", source, destination, refused, idle))
    return capture


def test_a_connection_to_the_ua_is_refused() -> None:
    """The server wants to reach the UA at its Contact."""
    assert "packet 8 is RST" in reset(PROVIDER, PHONE, True).only("D23").evidence
    assert reset(PROVIDER, Endpoint(GATEWAY, 5060), True).codes() == ["D23"]


def test_an_idle_connection_was_forgotten() -> None:
    """RST to the first data after a long silence."""
    assert "after 900 s of silence" in reset(PHONE, PROVIDER, False, 900.0).only("D23").title


@pytest.mark.parametrize("capture", [
    reset(PHONE, PROVIDER, True), reset(PHONE, PROVIDER, False, 2.0),
    reset(Endpoint("192.0.2.66", 4444), Endpoint(GATEWAY, 5060), True, peer=False),
], ids=["a server that is off", "an ordinary end", "a stranger knocks"])
def test_other_resets(capture: Capture) -> None:
    """A server without TCP, and a connection that ends by RST in the middle of things, are something else."""
    assert capture.findings() == []


# -- D24


def test_tls() -> None:
    """TLS is told of once, for information."""
    capture = Capture()
    for number in (3, 9):
        capture.context.tls.append(TlsFlow(
            (PacketId(number),), 1.0, "", Side.INSIDE, PHONE, Endpoint(PROVIDER.host, 5061)))
    finding = capture.only("D24")
    assert finding.severity is Severity.INFORMS
    assert finding.title == "SIP to 198.51.100.20:5061 is encrypted"
    assert "2 connections in this capture" in finding.evidence


def test_no_tls() -> None:
    """An ordinary call over UDP is none."""
    capture = Capture()
    capture.sip(request())
    assert capture.findings() == []


def test_exports() -> None:
    """Rules about the capture are told of as such."""
    assert transport.encrypted_signalling in transport.CAPTURE
