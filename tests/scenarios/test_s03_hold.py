"""Scenario 3: hold and resume by both sides: sendonly, inactive, and the old 0.0.0.0 of RFC 2543."""

from __future__ import annotations

import time

import pytest

from tests.lab.audio import assert_two_way, talk
from tests.lab.host import wait_until
from tests.lab.lab import Lab
from tests.lab.namespaces import write_sysctls
from tests.lab.programs import Capture, Linphone, RtpAgent, Sipp
from tests.scenarios.checks import Wiretap, assert_nothing_left, packets_seen
from tests.scenarios.phones import two_phones
from tests.scenarios.script import Callee, Caller, End, messages_received, scenario, sdp, tell, wait_received
from tests.scenarios.sipp_call import streams_of

pytestmark = pytest.mark.lab

FAR = ("203.0.113.60", 14000)
SHORT = 2       # seconds after which the kernel forgets a silent stream in these tests


def test_both_phones_hold_and_resume(lab: Lab) -> None:
    """After hold and resume by either phone, also while the other holds, both hear each other again.

    Linphone, since baresip 1.0.0 no longer writes down what it hears once a call was resumed.
    """
    natfix = lab.start_natfix()
    tap = Wiretap(lab)
    alice, bob = two_phones(lab, Linphone)
    call = alice.dial(bob.uri)
    for phone in (alice, bob):
        phone.wait_printed("(Media streams established)")

    def switch(phone: Linphone, holds: bool) -> None:
        """Have *phone* hold or resume, and wait until both phones say how their call is now."""
        marks = [(each, each.mark()) for each in (alice, bob)]
        if holds:
            phone.hold()
        else:
            phone.resume(call)
        for each, mark in marks:
            each.wait_printed("(is now paused|has been paused by|Media streams established)", mark)

    for phone, holds in ((alice, True), (bob, True), (bob, False), (alice, False)):
        switch(phone, holds)
    assert tap.seen_outside("a=inactive") == 1
    listen_and_compare(alice, bob)
    switch(bob, True)
    switch(bob, False)
    assert tap.seen_outside("a=sendonly") >= 3
    listen_and_compare(alice, bob)
    alice.hang_up()
    bob.wait_closed()
    assert_nothing_left(lab, natfix)
    tap.check()


def listen_and_compare(first: Linphone, second: Linphone) -> None:
    """Record from now on, and fail unless both hear each other."""
    first.record()
    second.record()
    talk()
    assert_two_way(first, second)


@pytest.mark.parametrize("style", ["inactive", "zero"])
def test_stream_outlives_a_silent_hold(lab: Lab, style: str) -> None:
    """A hold longer than the kernel keeps a silent stream: after it the far side is heard at once, though it
    is the first to send, and hold and resume by the far side work as well."""
    write_sysctls(lab.gateway.namespace, {f"net/netfilter/nf_conntrack_udp_timeout{name}": str(SHORT)
                                          for name in ("", "_stream")})
    natfix = lab.start_natfix()
    tap, call = Wiretap(lab), HeldCall(lab, style)
    rtp = lab.start(Capture("gateway", "inside", "udp and dst port 12000"))
    before = call.announced
    call.talk()
    call.step(call.alice, call.bob)
    time.sleep(SHORT + 1)
    call.step(call.alice, call.bob)
    assert call.announced == before
    heard_before = packets_seen(rtp)
    far = lab.start(RtpAgent("remote1", 14000, to=call.announced, tone=880))
    wait_until(lambda: packets_seen(rtp) > heard_before + 10, 5.0, "RTP that comes in first after the hold")
    far.stop()
    call.step(call.bob, call.alice)
    call.step(call.bob, call.alice)
    call.talk()
    call.hang_up()
    assert_nothing_left(lab, natfix)
    tap.check()


def test_music_on_hold_leaves_from_the_announced_port(lab: Lab) -> None:
    """Who holds with the old 0.0.0.0 wants to hear nothing, but may play music: it still comes from the
    port that was announced (RFC 4961), where the other side expects it."""
    natfix = lab.start_natfix()
    tap, call = Wiretap(lab), HeldCall(lab, "zero")
    host, _, port = call.announced.partition(":")
    call.step(call.alice, call.bob)
    assert call.announced == "0.0.0.0:12000"
    near = lab.start(RtpAgent("phone1", 12000, to="203.0.113.60:14000", tone=440))
    far = lab.start(RtpAgent("remote1", 14000, tone=880))
    talk()
    near.stop()
    assert far.heard(440).recognised
    assert set(far.sources()) == {(host, int(port))}
    call.step(call.alice, call.bob)
    call.step(call.bob, call.alice)
    call.step(call.bob, call.alice)
    call.hang_up()
    assert_nothing_left(lab, natfix)
    tap.check()


def hold_sdp(port: int, style: str) -> str:
    """Return a description that puts the peer on hold: "inactive", or "zero" (RFC 2543, appendix B.5)."""
    if style == "zero":
        return sdp(port, address="0.0.0.0", origin="[local_ip]", version=2)
    return sdp(port, style, version=2)


def holds(end: End, first: int, port: int, style: str) -> list[str]:
    """Return the steps of an end that holds and resumes when told, in INVITEs numbered from *first*."""
    steps = []
    for cseq, body in ((first, hold_sdp(port, style)), (first + 1, sdp(port, "sendrecv", version=3))):
        steps += [end.told(), end.request("INVITE", cseq, body), end.receive(100, optional=True),
                  end.receive(200), end.ack(cseq)]
    return steps


def is_held(end: End, port: int, style: str) -> list[str]:
    """Return the steps of the other end, that answers."""
    answer = "inactive" if style == "inactive" else ""
    return [end.receive("INVITE"), end.reply(200, sdp(port, answer, version=2)), end.receive("ACK"),
            end.receive("INVITE"), end.reply(200, sdp(port, "sendrecv", version=3)), end.receive("ACK")]


class HeldCall:
    """alice at phone1 calls bob at remote1; first she holds and resumes, then he, and she hangs up."""

    def __init__(self, lab: Lab, style: str) -> None:
        self.lab = lab
        caller, callee = Caller(), Callee()
        calls = scenario(
            caller.request("INVITE", 1, sdp(12000)), caller.receive(100, optional=True),
            caller.receive(200, rrs=True), caller.ack(1),
            *holds(caller, 2, 12000, style), *is_held(caller, 12000, style),
            caller.told(), caller.request("BYE", 9), caller.receive(200))
        answers = scenario(
            callee.invited(), callee.answer(200, sdp(14000)), callee.receive("ACK"),
            *is_held(callee, 14000, style), *holds(callee, 1, 14000, style),
            callee.receive("BYE"), callee.reply(200))
        self.bob = lab.start(Sipp("remote1", answers, timeout=60))
        self.alice = lab.start(Sipp("phone1", calls, to="203.0.113.60:5060", timeout=60))
        wait_received(self.bob, "ACK")

    @property
    def announced(self) -> str:
        """Where alice wants media, as bob has read it last ("address:port")."""
        bodies = [stream for message in messages_received(self.bob) for stream in streams_of(message)]
        return bodies[-1].rtp

    def step(self, holder: Sipp, held: Sipp) -> None:
        """Have *holder* send its next re-INVITE and wait until the transaction is over."""
        acknowledged = len(messages_received(held, "ACK"))
        tell(self.lab, holder)
        wait_received(held, "ACK", count=acknowledged + 1)

    def talk(self) -> None:
        """Let both talk, and fail unless both are heard, from where they were announced."""
        near = self.lab.start(RtpAgent("phone1", 12000, to="203.0.113.60:14000", tone=440))
        far = self.lab.start(RtpAgent("remote1", 14000, to=self.announced, tone=880))
        talk()
        near.stop()
        assert_two_way(near, far)
        host, _, port = self.announced.partition(":")
        assert set(far.sources()) == {(host, int(port))}
        assert set(near.sources()) == {FAR}

    def hang_up(self) -> None:
        """Have alice hang up, and wait for the end of both."""
        tell(self.lab, self.alice)
        self.alice.wait()
        self.bob.wait()
