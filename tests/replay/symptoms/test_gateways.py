"""D14, D20, D25, D27, D28: what shows them, and what looks like them and is none."""

from __future__ import annotations

import pytest

from natfix.address import Endpoint
from natfix.replay.model import Fixed, Severity, Vantage
from natfix.replay.symptoms import gateways
from tests.replay.sip import OTHER_PHONE, PHONE, PROVIDER, audio, request, response
from tests.replay.symptoms.capture import EXT, GATEWAY, Capture

# -- D14

CREDENTIALS = (
    'Authorization: Digest username="alice", realm="example.com", nonce="{}", uri="{}", response="0"')


def attempts(count: int, uri: str = "sip:bob@example.com", asked: str = "", final: int = 401,
             stale: str = "", realm: str = "example.com") -> Capture:
    """A REGISTER without credentials, then *count* with them, all challenged; the last answered *final*."""
    capture = Capture()
    for number in range(count + 1):
        sent = (CREDENTIALS.format(number, uri),) if number else ()
        capture.sip(request("REGISTER", uri=asked or uri, cseq=number + 1, branch=f"z9hG4bK{number}",
                            headers=sent), after=1)
        status = final if number == count else 401
        challenge = f'WWW-Authenticate: Digest realm="{realm}", nonce="{number + 1}"{stale}'
        capture.sip(response(status, "REGISTER", cseq=number + 1, branch=f"z9hG4bK{number}",
                             headers=(challenge,) if status == 401 else ()), PROVIDER, PHONE)
    return capture


def test_credentials_refused_for_ever() -> None:
    """Three challenges in a row to credentials: an honest finding, which blames nobody without proof."""
    finding = attempts(3).only("D14")
    assert finding.severity is Severity.BREAKS
    assert finding.title == "REGISTER is challenged again and again, with credentials"
    assert 'uri="sip:bob@example.com" fits the Request-URI' in finding.evidence
    assert "password are wrong, or a box behind this point" in finding.cause
    assert [packet.number for packet in finding.packets] == [3, 4, 5, 6, 7, 8]


def test_the_request_uri_was_changed() -> None:
    """The quoted uri= is not the Request-URI: the digest cannot fit, a fixer did it."""
    finding = attempts(4, asked="sip:198.51.100.20").only("D14")
    assert 'Authorization has uri="sip:bob@example.com", the Request-URI in packet 7 is sip:198.51.100.20.' \
        in finding.evidence
    assert "a fixer on the way out" in finding.cause


def test_the_realm_was_changed() -> None:
    """Credentials for another realm than was asked for."""
    finding = attempts(3, realm="sip.example.net").only("D14")
    assert 'The realm asked for is "sip.example.net"' in finding.evidence


@pytest.mark.parametrize("capture", [
    attempts(1, final=200), attempts(2, final=200), attempts(2), attempts(3, final=403),
    attempts(3, final=200),
    attempts(4, stale=", stale=TRUE"),
], ids=["registered", "at the second go", "two only", "403", "at the third go", "stale nonces"])
def test_ordinary_challenges(capture: Capture) -> None:
    """One challenge for each request, a wrong password that gets its 403, stale nonces: no loop."""
    assert capture.findings() == []


def test_refreshes_are_no_loop() -> None:
    """Each refresh is challenged once and then accepted, all day long."""
    capture = Capture()
    for number in range(0, 20, 2):
        credentials = (CREDENTIALS.format(1, "sip:x"),)
        for cseq, status, headers in ((number + 1, 401, ()), (number + 2, 200, credentials)):
            capture.sip(request("REGISTER", uri="sip:x", cseq=cseq, branch=f"z9hG4bK{cseq}", headers=headers))
            capture.sip(response(status, "REGISTER", cseq=cseq, branch=f"z9hG4bK{cseq}"), PROVIDER, PHONE)
    assert capture.findings() == []


@pytest.mark.parametrize(("one", "other", "same"), [
    ("sip:example.com", "SIP:example.com:5060", True),
    ("sip:example.com", "sip:example.com;transport=udp", True),
    ("sip:example.com", "sip:198.51.100.20", False), ("sip:bob@example.com", "sip:example.com", False),
])
def test_spellings_of_a_target(one: str, other: str, same: bool) -> None:
    """Case, the default port and parameters do not make another target."""
    assert gateways._same_target(one, other) is same


# -- D20


def registers(capture: Capture, phone: Endpoint, user: str, listed: Endpoint, ext: Endpoint) -> None:
    """One phone registers, and the registrar lists it at *listed*."""
    names = {"call_id": f"{user}{phone}", "branch": f"z9hG4bK{user}{capture.number}",
             "cseq": capture.number + 1}
    sent = request("REGISTER", contact=phone, **names).replace(b"alice", user.encode())
    got = response(200, "REGISTER", contact=f"sip:{user}@{listed}", seen_as=ext,
                   headers=("Expires: 3600",), **names).replace(b"alice", user.encode())
    capture.sip(sent, phone, after=10)
    capture.sip(got, PROVIDER, phone)


def two_phones(listed: Endpoint, other_listed: Endpoint, again: bool = True) -> Capture:
    """Two phones with port 5060, which refresh in turn."""
    capture = Capture()
    other_ext = Endpoint(GATEWAY, 40626)
    for _ in range(1 + again):
        registers(capture, PHONE, "alice", listed, EXT)
        registers(capture, OTHER_PHONE, "bob", other_listed, other_ext)
    return capture


def test_two_phones_at_one_place() -> None:
    """The registrar lists the same address and port for two phones that leave from different ports."""
    place = Endpoint(GATEWAY, 5060)
    finding = two_phones(place, place).only("D20")
    assert finding.fixed_by_natfix is Fixed.YES
    assert finding.title == f"{PHONE} and {OTHER_PHONE} are both registered at {place}"
    assert "192.168.1.10:5060 leaves from 40625; 192.168.1.11:5060 leaves from 40626." in finding.evidence


@pytest.mark.parametrize("capture", [
    two_phones(EXT, Endpoint(GATEWAY, 40626)),                          # a port for each
    two_phones(PHONE, OTHER_PHONE),                                     # a registrar that lists what was sent
    two_phones(PROVIDER, PROVIDER),                                     # an SBC that lists itself
    two_phones(Endpoint(GATEWAY, 5060), Endpoint(GATEWAY, 5060), again=False),  # one phone, moved
], ids=["correct NAT", "private", "SBC", "moved"])
def test_two_phones_that_work(capture: Capture) -> None:
    """Each phone its own port, or nobody can tell: no fault."""
    assert capture.findings() == []


def test_two_phones_with_the_same_rtp_port() -> None:
    """Two calls from the same inside RTP port through a correct NAT are no fault."""
    capture = Capture(Vantage.BOTH)
    for number, phone in enumerate((PHONE, OTHER_PHONE)):
        names = {"call_id": str(number), "branch": f"z9hG4bK{number}"}
        ext, media = Endpoint(GATEWAY, 40625 + number), Endpoint(phone.host, 10000)
        capture.out(request(via=phone, contact=phone, sdp=audio(media), **names),
                    request(via=phone, contact=ext, sdp=audio(Endpoint(GATEWAY, 10000 + 2 * number)),
                            **names),
                    phone, ext)
        capture.rtp(media, Endpoint(PROVIDER.host, 20000 + number))
        capture.rtp(Endpoint(GATEWAY, 10000 + 2 * number), Endpoint(PROVIDER.host, 20000 + number))
    assert capture.findings() == []


def called(delivered_to: Endpoint, user: str = "alice") -> Capture:
    """Both phones are registered, a call for one of them comes in."""
    capture = two_phones(EXT, Endpoint(GATEWAY, 40626))
    capture.sip(request(uri=f"sip:{user}@{EXT}", call_id="in", branch="z9hG4bKin", via=PROVIDER,
                        contact=PROVIDER), PROVIDER, delivered_to)
    return capture


def test_a_call_goes_to_the_wrong_phone() -> None:
    """The INVITE for alice comes to bob's phone."""
    finding = called(OTHER_PHONE).only("D20")
    assert finding.title == f"a call for alice at {PHONE} is delivered to {OTHER_PHONE}"


@pytest.mark.parametrize("capture", [
    called(PHONE), called(OTHER_PHONE, "bob"), called(OTHER_PHONE, "15551234"),
    called(Endpoint("192.168.1.12", 5060)),
], ids=["alice", "bob", "a number", "to a PBX that registers nobody"])
def test_calls_that_go_where_they_should(capture: Capture) -> None:
    """A call for its own phone, for a number that nobody registered, or to a PBX: no fault."""
    assert capture.findings() == []


# -- D25

AT_GATEWAY = Endpoint(GATEWAY, 30000)


def hairpin(back: bool = False, told: Endpoint = AT_GATEWAY, packets: int = 500,
            by: Endpoint = PROVIDER) -> Capture:
    """A phone is told to send its audio to the outside address, and does."""
    capture = Capture()
    capture.sip(request(sdp=audio(Endpoint(PHONE.host, 10000))))
    capture.sip(response(200, sdp=audio(told), seen_as=EXT), by, PHONE)
    capture.rtp(Endpoint(PHONE.host, 10000), told, packets)
    if back:
        capture.rtp(told, Endpoint(PHONE.host, 10000))
    return capture


def test_hairpin() -> None:
    """RTP from inside to the outside address, nothing back: no hairpinning."""
    finding = hairpin().only("D25")
    assert finding.severity is Severity.BREAKS
    assert "500 RTP packets went there from inside" in finding.evidence


@pytest.mark.parametrize("capture", [
    hairpin(back=True), hairpin(told=Endpoint(PROVIDER.host, 20000)), hairpin(packets=3),
    hairpin(by=Endpoint(GATEWAY, 5060)),
], ids=["turned round", "to the provider", "a few packets", "a PBX on the gateway"])
def test_media_that_is_no_hairpin(capture: Capture) -> None:
    """Hairpinning that works, media that goes elsewhere, and three packets are no fault."""
    assert capture.findings() == []


# -- D27

FULL = "kernel: [1.0] nf_ct_sip: dropping packet: all ports in use for SDP media IN= OUT= SRC=10.0.0.1"


@pytest.mark.parametrize("line", [
    FULL, "nf_ct_sip: dropping packet: cannot add expectation for voice",
    "nf_nat_sip: dropping packet: all ports in use for SIP",
])
def test_the_helper_ran_out(line: str) -> None:
    """The kernel's own lines, with the command that takes its helper away."""
    capture = Capture(log=["boot", line, line])
    finding = capture.only("D27")
    assert [packet.number for packet in finding.packets] == [2, 3]
    assert "2 times" in finding.evidence
    assert "modprobe -r nf_nat_sip nf_conntrack_sip" in finding.remedy


@pytest.mark.parametrize("line", [
    "nf_conntrack: nf_conntrack: table full, dropping packet", "nf_conntrack: expectation table full",
    "asterisk: all ports in use for SDP media",
    "nf_ct_sip: dropping packet: invalid SDP", "",
])
def test_other_lines(line: str) -> None:
    """A full connection table, and others who use the same words, are something else."""
    assert Capture(log=[line]).findings() == []


# -- D28


def vanishes(sdp: str, crossed: bool = True, arrives: bool = False, cut: bytes = b"") -> Capture:
    """An INVITE is seen inside, three times; before it an OPTIONS crossed."""
    capture = Capture(Vantage.BOTH)
    if crossed:
        capture.out(request("OPTIONS", branch="z9hG4bK0"))
    invite = request(sdp=sdp, cseq=2).replace(cut, b"") if cut else request(sdp=sdp, cseq=2)
    for _ in range(3):
        capture.sip(invite, file="inside", after=1)
    if arrives:
        capture.sip(invite, EXT, PROVIDER, "outside", after=0.01)
    return capture


NAME = audio(PHONE).replace("c=IN IP4 192.168.1.10", "c=IN IP4 pbx.local")


@pytest.mark.parametrize(("sdp", "reason"), [
    (NAME, 'its c= names "pbx.local", which is no address'),
    (audio(PHONE).replace("o=- 1 1 IN IP4 192.168.1.10", "o=- 1 1 IN IP4 pbx"), 'its o= names "pbx"'),
    (audio(PHONE).replace("c=IN IP4 192.168.1.10", "c=IN IP6 2001:db8::1"), "IN IP6"),
    (audio(PHONE).replace("m=audio 5060", "m=audio 9"), "its m=audio names port 9, below 1024"),
])
def test_the_helper_drops(sdp: str, reason: str) -> None:
    """Each case in which nf_conntrack_sip drops a message is told with its reason."""
    finding = vanishes(sdp).only("D28")
    assert reason in finding.evidence
    assert "never goes out, nor do 2 repetitions" in finding.evidence
    assert "of the same UA did cross (as packet outside:2)" in finding.evidence


def test_the_helper_drops_without_content_length() -> None:
    """SDP to be changed and no Content-Length is such a case, too."""
    sdp = audio(Endpoint(PHONE.host, 4000))
    finding = vanishes(sdp, cut=f"Content-Length: {len(sdp)}\r\n".encode()).only("D28")
    assert "SDP and no Content-Length" in finding.evidence


@pytest.mark.parametrize("capture", [
    vanishes(audio(Endpoint(PHONE.host, 4000))), vanishes(NAME, crossed=False), vanishes(NAME, arrives=True),
    vanishes(audio(PHONE).replace("m=audio 5060", "m=audio 0")),
], ids=["an ordinary one", "nothing crosses", "it does arrive", "a rejected stream"])
def test_messages_that_the_helper_does_not_drop(capture: Capture) -> None:
    """What vanishes for other reasons, or arrives, is not the helper's fault."""
    assert "D28" not in capture.codes()


def test_a_call_of_its_own() -> None:
    """An INVITE has a Call-ID of its own: that its UA registered, and got its answer, shows the open path."""
    capture = Capture(Vantage.BOTH)
    names = {"call_id": "r", "branch": "z9hG4bKr"}
    capture.out(request("REGISTER", **names))
    capture.back(response(200, "REGISTER", **names))
    capture.sip(request(sdp=NAME), file="inside", after=1)
    assert "The same UA does hear from 198.51.100.20:5060 (packet inside:4)." in capture.only("D28").evidence


@pytest.mark.parametrize("sdp", [
    NAME.replace("m=audio", "m=text"),
    audio(PHONE).replace("m=audio 5060 RTP/AVP 0", "m=application 9 TCP x"),
])
def test_media_that_the_helper_does_not_know(sdp: str) -> None:
    """A real kernel lets these pass: it looks at audio, video and image only."""
    assert vanishes(sdp).findings() == []


def test_one_side_alone_proves_nothing() -> None:
    """Inside only, nobody knows whether the message left."""
    capture = Capture()
    capture.sip(request("OPTIONS", branch="z9hG4bK0"))
    capture.sip(request(sdp=NAME, cseq=2))
    assert capture.findings() == []


def anew(count: int, last: int = 407, stale: bool = False, per_call: int = 1) -> Capture:
    """A UA that registers with a new Call-ID each time; each time its credentials are challenged again."""
    capture = Capture()
    for number in range(count):
        status = last if number == count - 1 else 407
        credentials = ("Proxy-" + CREDENTIALS.format(number, "sip:bob@example.com"),)
        for cseq, sent in ((1, ()), *((2 + each, credentials) for each in range(per_call))):
            names = {"call_id": f"call{number}", "cseq": cseq, "branch": f"z9hG4bK{number}.{cseq}"}
            challenge = ("Proxy-Authenticate: Digest realm=\"x\", nonce=\"1\"" + ", stale=true" * stale,)
            capture.sip(request("REGISTER", headers=sent, **names), after=30)
            capture.sip(response(status if sent else 407, "REGISTER", headers=challenge, **names),
                        PROVIDER, PHONE)
    return capture


def test_a_ua_that_begins_anew_every_time() -> None:
    """The same loop, spread over several Call-IDs, and with a nonce that the server uses twice."""
    finding = anew(4).only("D14")
    assert finding.call_id == ""
    assert "4 attempts of 192.168.1.10:5060 to register bob@example.com with credentials" in finding.evidence


@pytest.mark.parametrize("capture", [anew(2), anew(3, last=200), anew(4, stale=True)],
                         ids=["two", "registered at last", "stale"])
def test_attempts_that_are_no_loop(capture: Capture) -> None:
    """Two refusals, one that ends well, stale nonces: no loop."""
    assert capture.findings() == []


def test_a_loop_is_told_of_once() -> None:
    """What one Call-ID shows already is not told of again for its station."""
    assert anew(1, per_call=4).codes() == ["D14"]
