"""D01, D02, D03, D10, D21: what shows them, and what looks like them and is none."""

from __future__ import annotations

import pytest

from natfix.address import Endpoint
from natfix.replay.model import Fixed, MediaKind, Severity, Side, Stream, Vantage
from natfix.replay.symptoms import audio as rules
from tests.replay.sip import PHONE, PROVIDER, TO, audio, request, response
from tests.replay.symptoms.capture import EXT, GATEWAY, Capture, check

RTP, RTP_OUT = Endpoint(PHONE.host, 12000), Endpoint(GATEWAY, 30000)
RTP_FAR = Endpoint("198.51.100.21", 40000)
BYE = request("BYE", branch="z9hG4bK9", cseq=2, contact="", to=TO + ";tag=b")


def call(shown: Endpoint = RTP_OUT, far: Endpoint = RTP_FAR, side: str = "both", far_sdp: str = "",
         own_sdp: str = "") -> Capture:
    """An answered call; the gateway shows the phone's audio as *shown*, the peer wants its own at *far*."""
    capture = Capture(Vantage.BOTH if side == "both" else Vantage.INSIDE)
    invite, fixed = request(sdp=own_sdp or audio(RTP)), request(via=EXT, contact=EXT, sdp=audio(shown))
    answer = response(sdp=far_sdp or audio(far), contact="sip:bob@198.51.100.20")
    if side == "both":
        capture.out(invite, fixed)
        capture.back(response(via=EXT, sdp=far_sdp or audio(far), contact="sip:bob@198.51.100.20"), answer)
    else:
        capture.sip(invite)
        capture.sip(answer, PROVIDER, PHONE)
    return capture


def talk(capture: Capture, source: Endpoint = RTP, shown: Endpoint = RTP_OUT, far: Endpoint = RTP_FAR,
         back: bool = True, seconds: float = 20.0) -> None:
    """Audio out, and in unless told otherwise; then BYE."""
    flows = [(source, far)] + ([(far, source)] if back else [])
    if capture.view.vantage is Vantage.BOTH:
        flows += [(shown, far)] + ([(far, shown)] if back else [])
    for one, other in flows:
        capture.rtp(one, other, int(seconds * 50))
    capture.sip(BYE, after=seconds)
    capture.context.end = capture.time + 1


def codes(capture: Capture) -> list[tuple[str, Severity]]:
    """Return what this module's rules find; every finding is whole."""
    found = [finding for conversation in capture.conversations() for rule in rules.CONVERSATION
             for finding in rule(conversation, capture.context)]
    for finding in found:
        check(finding)
    return [(finding.code, finding.severity) for finding in found]


def test_a_private_address_left() -> None:
    """The SDP left unchanged, audio goes out and none comes in: that call is one-way."""
    capture = call(shown=RTP)
    talk(capture, back=False)
    assert codes(capture) == [("D01", Severity.BREAKS)]


def test_a_peer_that_helps() -> None:
    """The same, but the peer sends to where the audio comes from: both are heard, nothing is wrong."""
    capture = call(shown=RTP)
    talk(capture)
    assert codes(capture) == []


def test_a_short_call_that_is_heard() -> None:
    """Ten packets in are enough: they came to a place that the SDP does not name."""
    capture = call(shown=RTP)
    talk(capture, seconds=0.2)
    assert codes(capture) == []


def test_no_audio_was_captured() -> None:
    """SIP alone does not say whether the peer, or a relay, helps: it hurts where nobody does."""
    assert codes(call(shown=RTP)) == [("D01", Severity.HURTS)]


def test_audio_that_the_gateway_drops() -> None:
    """The peer's audio reaches the gateway, and nobody inside: that is not heard."""
    capture = call(shown=RTP)
    capture.rtp(RTP_FAR, RTP_OUT, 900)
    talk(capture, back=False)
    assert codes(capture) == [("D01", Severity.BREAKS)]


@pytest.mark.parametrize(("vantage", "expected"), [
    (Vantage.OUTSIDE, [("D01", Severity.HURTS)]), (Vantage.INSIDE, [])])
def test_a_nat_between_private_networks(vantage: Vantage, expected: list[tuple[str, Severity]]) -> None:
    """As docker has it: behind the NAT the inside address means nothing; before it, it may be translated."""
    capture = Capture(vantage, outside="10.0.0.7")
    source = Endpoint("10.0.0.7", 17694) if vantage is Vantage.OUTSIDE else PHONE
    capture.sip(request(sdp=audio(RTP)), source, Endpoint("10.0.0.53", 5060))
    assert codes(capture) == expected


def test_contact_is_named_with_the_sdp() -> None:
    """Where Contact left as it was, too, the finding says what that leads to."""
    capture = Capture(Vantage.OUTSIDE)
    capture.sip(request(sdp=audio(RTP)), EXT)
    finding, = rules.private_sdp_outside(capture.conversations()[0], capture.context)
    assert "Contact names 192.168.1.10:5060, too" in finding.evidence
    capture.sip(request("BYE", via=PROVIDER, branch="z9hG4bKb"), PROVIDER, EXT)
    finding, = rules.private_sdp_outside(capture.conversations()[0], capture.context)
    assert "Contact" not in finding.evidence        # the peer has found its way


@pytest.mark.parametrize(("source", "sdp", "expected"), [
    (PROVIDER, "127.0.0.1", [("D02", Severity.BREAKS)]), (PHONE, "127.0.1.1", [("D02", Severity.BREAKS)]),
    (Endpoint("127.0.0.1", 5060), "127.0.0.1", []),
])
def test_loopback_in_the_sdp(source: Endpoint, sdp: str, expected: list[tuple[str, Severity]]) -> None:
    """A host that names its own loopback is heard by nobody else; two programs on one host may."""
    capture = Capture()
    capture.sip(request(sdp=audio(Endpoint(sdp, 6000))), source, PHONE if source == PROVIDER else PROVIDER)
    assert codes(capture) == expected


def test_nothing_comes_back() -> None:
    """From inside only: an answered call, audio out, none in."""
    capture = call(side="inside")
    talk(capture, back=False)
    assert codes(capture) == [("D01", Severity.BREAKS)]


@pytest.mark.parametrize("sdp", [
    audio(RTP) + "a=sendonly\r\n", audio(RTP) + "a=inactive\r\n", audio(Endpoint("0.0.0.0", 12000)),
    audio(Endpoint(RTP.host, 0)), audio(RTP_OUT),
])
def test_who_wants_no_audio_gets_none(sdp: str) -> None:
    """Sendonly, held, refused; and a phone that writes the public address itself."""
    capture = call(side="inside", own_sdp=sdp)
    talk(capture, back=False)
    assert codes(capture) == []


@pytest.mark.parametrize("direction", ["recvonly", "inactive"])
def test_a_peer_that_only_listens(direction: str) -> None:
    """A recorder, or one that holds, sends nothing by its own word."""
    capture = call(side="inside", far_sdp=audio(RTP_FAR) + f"a={direction}\r\n")
    talk(capture, back=False)
    assert codes(capture) == []


def test_refused_video_hides_no_missing_audio() -> None:
    """It is the audio that is judged, whatever else was offered and refused."""
    capture = call(side="inside", own_sdp=audio(RTP) + "m=video 0 RTP/AVP 96\r\n")
    talk(capture, back=False)
    assert codes(capture) == [("D01", Severity.BREAKS)]


@pytest.mark.parametrize(("seconds", "back"), [(1.5, False), (20.0, True)])
def test_a_short_call_and_a_healthy_one(seconds: float, back: bool) -> None:
    """Two seconds prove nothing; and where both are heard nothing is wrong, whatever the SDP inside says."""
    capture = call(side="inside")
    talk(capture, back=back, seconds=seconds)
    assert codes(capture) == []


def test_translated_and_heard() -> None:
    """Both sides captured, SDP translated, audio both ways from the port that was announced."""
    capture = call()
    talk(capture)
    assert codes(capture) == []


def test_the_peer_names_a_private_address() -> None:
    """Its packets come from a public address, its SDP names one of its own network: audio goes nowhere."""
    private = Endpoint("10.20.30.40", 40000)
    capture = call(far=private)
    talk(capture, far=private, back=False)
    assert ("D02", Severity.BREAKS) in codes(capture)
    finding = next(each for conversation in capture.conversations()
                   for each in rules.wrong_host_from_outside(conversation, capture.context))
    assert finding.fixed_by_natfix is Fixed.NO
    assert "c=IN IP4 10.20.30.40" in finding.evidence


@pytest.mark.parametrize(("side", "back", "expected"), [
    ("both", False, [("D01", Severity.BREAKS)]), ("inside", False, [("D01", Severity.BREAKS)]),
    ("both", True, []), ("inside", True, []),
])
def test_an_outside_address_of_yesterday(side: str, back: bool, expected: list[tuple[str, Severity]]) -> None:
    """The SDP names a public address that is not the gateway's; it matters where nobody is heard."""
    old = Endpoint("203.0.113.99", 30000)
    capture = call(shown=old, side=side, own_sdp=audio(old) if side == "inside" else "")
    talk(capture, back=back)
    assert codes(capture) == expected


@pytest.mark.parametrize(("back", "expected"), [(False, [("D02", Severity.BREAKS)]), (True, [])])
def test_two_networks_with_the_same_numbers(back: bool, expected: list[tuple[str, Severity]]) -> None:
    """The peer's private address could be one of ours: if somebody answers there it is, else it is not."""
    twin = Endpoint("192.168.1.77", 40000)
    capture = call(side="inside", far_sdp=audio(twin))
    talk(capture, far=twin, back=back)
    assert codes(capture) == expected


def test_a_private_address_in_a_call_that_nobody_took() -> None:
    """Nobody was to be heard yet: it hurts, and breaks nothing."""
    capture = Capture()
    capture.sip(request(via=PROVIDER, sdp=audio(Endpoint("10.20.30.40", 40000))), PROVIDER, PHONE)
    assert codes(capture) == [("D02", Severity.HURTS)]


@pytest.mark.parametrize("far", ["0.0.0.0", "198.51.100.99"])
def test_a_peer_that_holds_or_has_a_media_server(far: str) -> None:
    """0.0.0.0 is hold; another public address is a media server."""
    capture = call(far=Endpoint(far, 40000))
    talk(capture)
    assert codes(capture) == []


def test_a_peer_that_latches() -> None:
    """Its SDP is wrong, but both are heard by its public address: nothing to complain of."""
    private = Endpoint("10.20.30.40", 40000)
    capture = call(far=private)
    talk(capture, far=Endpoint(PROVIDER.host, 40000))
    assert codes(capture) == []


def test_audio_leaves_from_another_port() -> None:
    """The SDP was translated to one port, the stream left from another; it matters if nobody is heard."""
    capture = call()
    talk(capture, shown=Endpoint(GATEWAY, 51234), back=False)
    assert codes(capture) == [("D03", Severity.BREAKS)]
    capture = call()
    talk(capture, shown=Endpoint(GATEWAY, 51234))
    assert codes(capture) == []         # a peer that sends to where the audio comes from


def test_another_call_of_the_same_gateway_is_not_looked_at() -> None:
    """A stream to somebody else from another port is another call's."""
    capture = call()
    capture.rtp(Endpoint(GATEWAY, 51234), Endpoint("198.51.100.77", 40000))
    talk(capture)
    assert codes(capture) == []


def test_audio_by_another_link() -> None:
    """The SDP names one outside address, the stream leaves from another."""
    capture = call()
    talk(capture, shown=Endpoint("192.0.2.77", 30000), back=False)
    assert ("D10", Severity.BREAKS) in codes(capture)
    capture = call()
    talk(capture, shown=Endpoint("192.0.2.77", 30000))
    assert codes(capture) == []         # both are heard all the same


def test_rtcp_was_forgotten() -> None:
    """c= and m= were translated, a=rtcp was not."""
    capture = Capture(Vantage.BOTH)
    forgotten = f"a=rtcp:12001 IN IP4 {RTP.host}\r\n"
    capture.out(request(sdp=audio(RTP) + forgotten),
                request(via=EXT, contact=EXT, sdp=audio(RTP_OUT) + forgotten))
    assert codes(capture) == [("D21", Severity.HURTS)]


@pytest.mark.parametrize(("times", "sender", "expected"), [
    (3, GATEWAY, [("D21", Severity.HURTS)]), (1, GATEWAY, []), (3, RTP_FAR.host, []),
])
def test_rtcp_is_refused(times: int, sender: str, expected: list[tuple[str, Severity]]) -> None:
    """A box that refuses RTCP again and again in mid-call counts; once does not, nor a UA without RTCP."""
    capture = call(side="inside")
    rtcp = Endpoint(RTP.host, 12001), Endpoint(RTP_FAR.host, 40001)
    capture.rtp(*rtcp, 4).kind = MediaKind.RTCP
    for _ in range(times):
        capture.time += 2
        capture.icmp(sender, "port-unreachable", *rtcp)
    talk(capture)
    assert codes(capture) == expected


def test_streams_are_counted_at_one_point() -> None:
    """A packet that was captured on both sides is one packet."""
    from natfix.replay.symptoms.talking import count
    capture = call()
    one, other = capture.rtp(RTP, RTP_FAR, 100), capture.rtp(RTP_OUT, RTP_FAR, 100)
    assert (one.side, other.side) == (Side.INSIDE, Side.OUTSIDE)
    assert count([one, other]) == 100
    assert isinstance(one, Stream)
