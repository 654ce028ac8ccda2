"""D04, D17, D18, D19: what shows them, and what looks like them and is none.

With real audio they are in pcaps/faults, each with a near miss (tests/captures/test_faults.py).
"""

from __future__ import annotations

import pytest

from natfix.address import Endpoint
from natfix.replay.model import Finding, Severity, Stream, Vantage
from natfix.replay.symptoms import audio, media_changes
from tests.replay.sip import PHONE, PROVIDER, TO, request, response
from tests.replay.sip import audio as sdp_of
from tests.replay.symptoms.capture import GATEWAY, Capture, check

TAGGED = TO + ";tag=b"
RTP, PEER = Endpoint(PHONE.host, 4000), Endpoint("198.51.100.21", 20000)
SHOWN = Endpoint(GATEWAY, 4000)
EXT = Endpoint(GATEWAY, 5060)


def found(capture: Capture) -> list[Finding]:
    """Return what these rules and those about audio find; every finding is whole."""
    conversations = capture.conversations()
    capture.context.end = capture.time + 1
    findings = [finding for conversation in conversations for module in (audio, media_changes)
                for rule in module.CONVERSATION for finding in rule(conversation, capture.context)]
    for finding in findings:
        check(finding)
    return findings


def codes(capture: Capture) -> list[str]:
    return [finding.code for finding in found(capture)]


def stream(capture: Capture, source: Endpoint, destination: Endpoint, seconds: float) -> Stream:
    """Add audio that begins now; time goes on by itself."""
    return capture.rtp(source, destination, int(seconds * 50))


# -- D18


def fax(inside: str = "udptl t38", shown: str = "", status: int = 200) -> Capture:
    """A call that one side wants to switch to fax."""
    capture = Capture(Vantage.BOTH)

    def image(endpoint: Endpoint, token: str) -> str:
        return sdp_of(endpoint).replace("audio", "image").replace("RTP/AVP 0", token)

    capture.out(request(sdp=sdp_of(RTP)), request(sdp=sdp_of(SHOWN), via=EXT, contact=EXT), ext=EXT)
    capture.back(response(sdp=sdp_of(PEER)), ext=EXT)
    again = {"cseq": 2, "branch": "z9hG4bKf", "to": TAGGED}
    capture.out(request(sdp=image(RTP, inside), **again),    # type: ignore[arg-type]
                request(sdp=image(SHOWN, shown or inside), via=EXT, contact=EXT, **again),   # type: ignore[arg-type]
                ext=EXT)
    answer = image(PEER, "udptl t38") if status == 200 else ""
    capture.back(response(status, cseq=2, branch="z9hG4bKf", sdp=answer), ext=EXT)
    return capture


def test_the_token_is_changed() -> None:
    """D18: an ALG makes audio of the fax, and the 488 that follows is of that."""
    finding, = found(fax(shown="RTP/AVP 0", status=488))
    assert (finding.code, finding.severity) == ("D18", Severity.BREAKS)
    assert "m=image 4000 udptl" in finding.evidence


def test_the_fax_is_refused() -> None:
    """D18: refused, and nobody has changed it: the fax may go on as audio."""
    finding, = found(fax(status=488))
    assert (finding.code, finding.severity) == ("D18", Severity.WARNS)


def falls_back() -> Capture:
    capture = fax(status=488)
    again = {"cseq": 3, "branch": "z9hG4bKg"}
    capture.out(request(sdp=sdp_of(RTP), to=TAGGED, **again),   # type: ignore[arg-type]
                request(sdp=sdp_of(SHOWN), via=EXT, contact=EXT, to=TAGGED, **again), ext=EXT)   # type: ignore[arg-type]
    capture.back(response(sdp=sdp_of(PEER), **again), ext=EXT)      # type: ignore[arg-type]
    return capture


@pytest.mark.parametrize("capture", [falls_back(), fax(), fax("UDPTL t38", "udptl t38"), fax(status=491)],
                         ids=["as audio", "accepted", "case", "later"])
def test_a_fax_that_works(capture: Capture) -> None:
    """It goes on as audio; accepted; a token in another case; a re-INVITE that has to be tried again."""
    assert codes(capture) == []


# -- D19


def early(shown: Endpoint, final: Endpoint = SHOWN) -> Capture:
    """The inside phone is called; outside its 183 names *shown*, its 200 *final*."""
    capture = Capture(Vantage.BOTH)
    capture.back(request(via=PROVIDER, contact=PROVIDER, sdp=sdp_of(PEER), uri=f"sip:alice@{EXT}"), ext=EXT)
    for status, place in ((183, shown), (200, final)):
        capture.out(response(status, via=PROVIDER, contact=f"sip:alice@{PHONE}", sdp=sdp_of(RTP)),
                    response(status, via=PROVIDER, contact=f"sip:alice@{EXT}", sdp=sdp_of(place)), ext=EXT)
    return capture


def test_early_media_is_forgotten() -> None:
    """D19, and D01 has nothing to add: the 200 is right, the 183 is not."""
    finding, = found(early(RTP))
    assert finding.code == "D19"
    assert "(183 to INVITE) leaves with 192.168.1.10:4000" in finding.evidence


def test_nothing_is_translated_at_all() -> None:
    """That is D01's story: no description of the call was right."""
    assert codes(early(RTP, RTP)) == ["D01"]


def test_early_media_that_is_translated() -> None:
    """The same place in 183 and 200."""
    assert codes(early(SHOWN)) == []


def forked(seconds_after: float, heard_after: bool) -> Capture:
    """A fork rings with media of its own, another one answers elsewhere."""
    capture = Capture()
    other = Endpoint("198.51.100.22", 30000)
    capture.sip(request(sdp=sdp_of(RTP)))
    capture.sip(response(183, sdp=sdp_of(PEER)), PROVIDER, PHONE)
    stream(capture, PEER, RTP, 4)
    stream(capture, RTP, PEER, 4)
    capture.time += 4
    capture.sip(response(sdp=sdp_of(other), to=TO + ";tag=c"), PROVIDER, PHONE)
    stream(capture, RTP, other, seconds_after)
    if heard_after:
        stream(capture, other, RTP, seconds_after)
    capture.time += seconds_after
    capture.sip(request("BYE", cseq=2, branch="z9hG4bKb", to=TO + ";tag=c"))
    return capture


def test_nothing_is_heard_after_the_answer() -> None:
    """D19: the early fork was heard, the one that answers is not."""
    finding, = found(forked(6, heard_after=False))
    assert finding.code == "D19"
    assert "of another fork branch" in finding.evidence


def test_forks_that_are_heard() -> None:
    """Whoever answers is heard; or the call was too short to tell."""
    assert codes(forked(6, heard_after=True)) == []
    assert "D19" not in codes(forked(1.5, heard_after=False))


# -- D04


def silent(pause: float, port: int, announced: bool = False) -> Capture:
    """Audio that leaves the NAT, *pause* seconds of nothing, and again, from *port*."""
    capture = Capture(Vantage.BOTH)
    capture.out(request(sdp=sdp_of(RTP)), request(sdp=sdp_of(SHOWN), via=EXT, contact=EXT), ext=EXT)
    capture.back(response(sdp=sdp_of(PEER)), ext=EXT)
    stream(capture, SHOWN, PEER, 4)
    stream(capture, PEER, SHOWN, 4)
    stream(capture, PEER, RTP, 4)
    capture.time += 4 + pause
    if announced:
        again = {"cseq": 2, "branch": "z9hG4bKm", "to": TAGGED}
        capture.out(request(sdp=sdp_of(RTP), **again),      # type: ignore[arg-type]
                    request(sdp=sdp_of(Endpoint(GATEWAY, port)), via=EXT, contact=EXT, **again),  # type: ignore[arg-type]
                    ext=EXT)
        capture.back(response(sdp=sdp_of(PEER), cseq=2, branch="z9hG4bKm"), ext=EXT)
    stream(capture, Endpoint(GATEWAY, port), PEER, 4)
    capture.time += 5
    return capture


def test_the_stream_comes_from_another_port() -> None:
    """D04: after 30 s of silence the NAT has another port for it."""
    assert "D04" in codes(silent(30, 4711))


@pytest.mark.parametrize("capture", [silent(30, 4000), silent(5, 4711), silent(30, 4711, announced=True)],
                         ids=["same port", "short", "announced"])
def test_silence_that_does_no_harm(capture: Capture) -> None:
    """The same port; a silence that no NAT is that quick for; a port that a re-INVITE has announced."""
    assert "D04" not in codes(capture)
