"""The real programs: that they do through plain masquerade what the scenarios rely on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.audio import assert_silent, assert_two_way, talk
from tests.lab.counters import media_flows
from tests.lab.host import LabError, wait_until
from tests.lab.lab import Lab
from tests.lab.pcap import sip_messages
from tests.lab.programs import Baresip, Capture, Kamailio, Linphone, RtpAgent, RtpCrowd, Sipp

pytestmark = pytest.mark.lab


def phone(lab: Lab, host: str, user: str, provider: Kamailio, tone: int, **options: object) -> Baresip:
    """Return a started, registered phone whose password is its name backwards."""
    made = lab.start(Baresip(host, user, registrar=provider.address, password=user[::-1], tone=tone,
                             **options))    # type: ignore[arg-type]
    made.register()
    return made


def test_phones_on_one_subnet_hear_each_other(lab: Lab) -> None:
    """Two phones that need no NAT: audio is played, recorded and recognised in both directions."""
    provider = lab.start(Kamailio(users={"alice": "ecila", "carol": "lorac"}))
    alice = phone(lab, "phone1", "alice", provider, 440)
    direct = lab.start(Baresip("phone2", "dave", tone=880))
    alice.dial(direct.uri)
    talk()
    assert_two_way(alice, direct)
    assert not alice.heard(440, 880).recognised


def test_plain_masquerade_gives_one_way_audio(lab: Lab) -> None:
    """The fault that natfix is for: outgoing calls are half deaf, and incoming ones never ring."""
    provider = lab.start(Kamailio(users={"alice": "ecila", "bob": "bob"[::-1]}))
    alice, bob = phone(lab, "phone1", "alice", provider, 440), phone(lab, "remote1", "bob", provider, 880)
    alice.dial(bob.uri)
    talk()
    flows = media_flows(lab.gateway, minimum=100)
    assert [flow.answers for flow in flows] == [0]
    alice.hang_up()
    bob.wait_closed()
    assert bob.heard(440).recognised
    assert_silent(alice, bob)
    with pytest.raises(LabError, match="408"):
        bob.dial(alice.uri)


def test_wrong_password_is_refused(lab: Lab) -> None:
    """Digest is really checked."""
    provider = lab.start(Kamailio(users={"alice": "secret"}))
    alice = lab.start(Baresip("phone1", "alice", registrar=provider.address, password="wrong"))
    with pytest.raises(LabError, match="could not register"):
        alice.register()


def test_refused_and_cancelled_calls_end(lab: Lab) -> None:
    """A phone that is rung by hand can refuse, and a caller can give up."""
    callee = lab.start(Baresip("phone2", "bob", auto_answer=False))
    caller = lab.start(Baresip("phone1", "alice"))
    caller.dial(callee.uri, timeout=0)
    callee.wait_incoming()
    callee.hang_up()
    assert "CALL_CLOSED" in caller.wait_closed()["type"]
    seen, ended = len(callee.events), len(caller.events)
    caller.dial(callee.uri, timeout=0)
    callee.wait_incoming(since=seen)
    caller.hang_up()
    callee.wait_closed(since=seen)
    caller.wait_closed(since=ended)


def test_hold_resume_and_transfer(make_lab: type[Lab]) -> None:
    """The in-call commands that scenarios use reach baresip."""
    lab = make_lab(phones=3)
    alice = lab.start(Baresip("phone1", "alice", tone=440))
    bob = lab.start(Baresip("phone2", "bob", tone=880))
    carol = lab.start(Baresip("phone3", "carol", tone=660))
    capture = lab.start(Capture("phone2"))
    alice.dial(bob.uri)
    alice.hold()
    wait_until(lambda: b"a=sendonly" in _sip_text(capture), 3.0, "hold")
    alice.resume()
    wait_until(lambda: _sip_text(capture).count(b"INVITE sip:bob") >= 3, 3.0, "resume")
    alice.transfer(carol.uri)
    carol.wait_incoming()
    wait_until(lambda: b"REFER sip:" in _sip_text(capture), 3.0, "a REFER")


def test_attended_transfer_by_linphone(make_lab: type[Lab]) -> None:
    """Linphone calls two phones and connects them (REFER with Replaces); they hear each other."""
    lab = make_lab(remotes=3)
    provider = lab.start(Kamailio(users={"alice": "ecila", "bob": "bob", "carol": "lorac"}))
    rows = (("remote1", "alice", 440), ("remote2", "bob", 880), ("remote3", "carol", 660))
    alice, bob, carol = (lab.start(Linphone(host, user, registrar=provider.address, password=user[::-1],
                                            tone=tone)) for host, user, tone in rows)
    for user in (alice, bob, carol):
        user.register()
    first = alice.dial(bob.uri)
    talk(1.0)
    assert alice.heard(880).seconds > 0.5
    alice.hold()
    alice.wait_printed("is now (paused)")
    second = alice.dial(carol.uri)
    bob.record()
    carol.record()
    mark = carol.mark()
    alice.transfer_to_call(first, second)
    carol.wait_printed(r"Call 2 with \S+ (connected)", mark)
    talk()
    assert_two_way(bob, carol)


def test_two_calls_of_one_second_apart_have_their_own_recordings(lab: Lab) -> None:
    """Each call has its own file, so that a later silent call is not saved by an earlier loud one."""
    alice = lab.start(Baresip("phone1", "alice", tone=440))
    bob = lab.start(Baresip("phone2", "bob", tone=880))
    for _ in range(2):
        since = len(bob.events)
        alice.dial(bob.uri)
        talk(1.2)
        alice.hang_up()
        bob.wait_closed(since=since)
    assert len(alice.recordings()) == len(bob.recordings()) == 2
    assert not alice.heard(880, index=2).length


def test_path_and_service_route_through_an_inside_proxy(lab: Lab) -> None:
    """A proxy adds Path to REGISTER, the registrar keeps it and answers with Service-Route."""
    provider = lab.start(Kamailio(users={"alice": "ecila"}, service_route=True))
    proxy = lab.start(Kamailio("remote1", next_hop=f"{provider.address}:5060"))
    capture = lab.start(Capture("provider"))
    alice = lab.start(Baresip("phone1", "alice", registrar=provider.address, password="ecila",
                              account=f'outbound="sip:{proxy.address};lr"'))
    alice.register()
    text = _sip_text(capture)
    assert f"Path: <sip:{proxy.address}:5060;lr>".encode() in text or b"Path: <sip:" in text
    assert b"Service-Route: <sip:203.0.113.50:5060;lr>" in text


def test_a_user_with_two_contacts_rings_twice(lab: Lab) -> None:
    """The provider forks in parallel."""
    provider = lab.start(Kamailio())
    first = lab.start(Baresip("remote1", "bob", registrar=provider.address, auto_answer=False))
    second = lab.start(Baresip("stranger", "bob", registrar=provider.address, auto_answer=False))
    for callee in (first, second):
        callee.register()
    alice = lab.start(Baresip("phone1", "alice", registrar=provider.address))
    alice.register()
    alice.dial(f"sip:bob@{provider.address}", timeout=0)
    first.wait_incoming()
    second.wait_incoming()


def test_sipp_calls_sipp(lab: Lab) -> None:
    """A scenario with ports from variables and rows; messages are read back from SIPp's trace."""
    callee = lab.start(Sipp("remote1", "answer.xml", rtp_port=14000))
    caller = lab.start(Sipp("phone1", "call.xml", to="203.0.113.60:5060", rtp_port=12000))
    result, answered = caller.wait(), callee.wait()
    assert [text.split("\n")[0] for text in result.received()] == [
        "SIP/2.0 180 Ringing", "SIP/2.0 200 OK", "SIP/2.0 200 OK"]
    assert "m=audio 12000 RTP/AVP 0" in answered.received("INVITE")[0]
    assert "m=audio 14000 RTP/AVP 0" in result.received("SIP/2.0 200")[0]


def test_failed_sipp_scenario_is_an_error(lab: Lab) -> None:
    """Nobody answers: the error names SIPp's reason."""
    caller = lab.start(Sipp("phone1", "call.xml", to="203.0.113.60:5060", timeout=2))
    with pytest.raises(LabError, match="SIPp on phone1 ended with"):
        caller.wait()


def test_rtp_agents_hear_each_other_and_count(lab: Lab) -> None:
    """RTP and RTCP through masquerade, the outside one latching: nothing lost, all accounted for."""
    capture = lab.start(Capture("gateway", "outside", "udp portrange 12000-12001"))
    inside = lab.start(RtpAgent("phone1", 12000, to="203.0.113.60:14000", tone=440))
    outside = lab.start(RtpAgent("remote1", 14000, tone=880, latch=True))
    talk()
    assert_two_way(inside, outside)
    assert set(outside.sources()) == {("203.0.113.1", 12000)}
    assert set(outside.rtcp_sources()) == {("203.0.113.1", 12001)}
    assert inside.missing() == outside.missing() == 0
    assert inside.longest_gap() < 0.5
    assert inside.received >= 150
    capture.stop()
    assert len(capture.messages("udp")) >= 300


def test_crowds_count_each_stream_by_its_sender(lab: Lab) -> None:
    """Two streams between two hosts: one that is silenced stops, the other goes on, none strays."""
    first = lab.start(RtpCrowd("phone1", [(12000, "192.168.1.11:14000"), (12002, "192.168.1.11:14002")]))
    second = lab.start(RtpCrowd("phone2", [(14000, "192.168.1.10:12000"), (14002, "192.168.1.10:12002")]))
    first.go()
    talk(0.5)
    first.silence(12000)
    talk(0.5)
    first.stop()
    assert 3 <= first.sent(12000) < first.sent(12002)
    assert second.received(14000) == {"192.168.1.10:12000 12000": first.sent(12000)}
    assert second.received(14002) == {"192.168.1.10:12002 12002": first.sent(12002)}
    assert second.sent(14000) == 0


def _sip_text(capture: Capture) -> bytes:
    return b"".join(message.payload for message in sip_messages(Path(capture.path)))
