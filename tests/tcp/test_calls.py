"""Real phones over TCP, with a provider that knows nothing of NAT: calls out and in, by one connection."""

from __future__ import annotations

import re
from typing import TypeVar

import pytest

from tests.lab.audio import assert_two_way, talk
from tests.lab.gateway import Natfix
from tests.lab.host import wait_until
from tests.lab.lab import Lab
from tests.lab.programs import Baresip, Capture, Kamailio, Linphone, RtpAgent, Sipp
from tests.lab.programs.sipp import SCENARIOS
from tests.scenarios.checks import UNTOUCHED, assert_nothing_left
from tests.scenarios.phones import ALICE_AND_BOB, PASSWORDS
from tests.scenarios.script import wait_received
from tests.scenarios.sipp_call import streams_of

pytestmark = pytest.mark.lab
Phone = TypeVar("Phone", Baresip, Linphone)
INSIDE, OUTSIDE = re.compile(rb"192\.168\.1\.10\b"), re.compile(rb"203\.0\.113\.1\b")
NAMES = tuple(f"{header}:".encode() for header in UNTOUCHED)


class Wiretap:
    """Records SIP over TCP on both sides of the gateway."""

    def __init__(self, lab: Lab) -> None:
        self.outside, self.inside = (lab.start(Capture("gateway", side, "tcp port 5060"))
                                     for side in ("outside", "inside"))

    def check(self) -> None:
        """Fail where an inside address was said outside, or the gateway's outside one inside."""
        for tap, hidden in ((self.outside, INSIDE), (self.inside, OUTSIDE)):
            seen = tap.stop().read_bytes()
            assert b"INVITE sip:" in seen
            lines = [line for line in seen.splitlines() if hidden.search(line)]
            assert [line for line in lines if not line.lower().startswith(NAMES)] == []


def two_phones(lab: Lab, kind: type[Phone], **options: int) -> tuple[Phone, Phone]:
    """Return alice inside and bob outside, registered over TCP with digest."""
    provider = lab.start(Kamailio(users=PASSWORDS, tcp=True))
    alice, bob = (lab.start(kind(host, user, registrar=provider.address, password=PASSWORDS[user], tone=tone,
                                 transport="tcp", **options))
                  for host, user, tone in ALICE_AND_BOB)
    alice.register()
    bob.register()
    return alice, bob


def connections(natfix: Natfix) -> int:
    """Return how many connections natfix relays as SIP."""
    return int(natfix.json("status")["streams"].get("sip", 0))


def test_baresip(lab: Lab) -> None:
    """It registers again and again, calls out and is called, all by the one connection that it opened."""
    natfix = lab.start_natfix()
    tap = Wiretap(lab)
    alice, bob = two_phones(lab, Baresip, expires=4)
    alice.dial(bob.uri)
    talk()
    assert_two_way(alice, bob)
    alice.hang_up()
    bob.wait_closed()
    alice.wait_event("REGISTER_OK", since=len(alice.events))
    bob.dial(alice.uri)
    talk()
    assert_two_way(alice, bob)
    assert connections(natfix) == 1
    bob.hang_up()
    assert_nothing_left(lab, natfix)
    tap.check()


def test_linphone_holds(lab: Lab) -> None:
    """It is called, holds and resumes, is held and resumed; both hear each other again."""
    natfix = lab.start_natfix()
    tap = Wiretap(lab)
    alice, bob = two_phones(lab, Linphone)
    call = bob.dial(alice.uri)
    for phone in (alice, bob):
        phone.wait_printed("(Media streams established)")
    for phone, number in ((alice, 1), (bob, call)):
        for action in (phone.hold, lambda phone=phone, number=number: phone.resume(number)):
            marks = [(each, each.mark()) for each in (alice, bob)]
            action()
            for each, mark in marks:
                each.wait_printed("(is now paused|has been paused by|Media streams established)", mark)
    alice.record()
    bob.record()
    talk()
    assert_two_way(alice, bob)
    bob.hang_up(call)
    assert_nothing_left(lab, natfix)
    tap.check()


def test_sipp(lab: Lab) -> None:
    """A SIPp inside calls over TCP, through the provider, one that speaks UDP; audio goes both ways."""
    natfix = lab.start_natfix()
    tap = Wiretap(lab)
    callee = lab.start(Sipp("remote1", "answer.xml"))
    provider = lab.start(Kamailio(routes={"^service": "203.0.113.60:5060"}, tcp=True))
    lasting = (SCENARIOS / "call.xml").read_text().replace('milliseconds="100"', 'milliseconds="5500"')
    caller = lab.start(Sipp("phone1", lasting, to=f"{provider.address}:5060", transport="tcp"))
    offer, answer = (streams_of(message)[0] for message in (
        wait_received(callee, "INVITE "), wait_received(caller, "SIP/2.0 200")))
    alice = lab.start(RtpAgent("phone1", 12000, to=answer.rtp, tone=440))
    bob = lab.start(RtpAgent("remote1", 12000, to=offer.rtp, tone=880))
    talk(4.0)
    caller.wait()
    callee.wait()
    assert_two_way(alice, bob)
    assert_nothing_left(lab, natfix)
    tap.check()


def test_a_phone_comes_back_after_a_crash(lab: Lab) -> None:
    """After natfix was killed and started the phone's connection is reset, it registers anew by itself, and
    is called."""
    natfix = lab.start_natfix()
    alice, bob = two_phones(lab, Linphone)
    wait_until(lambda: connections(natfix), 5.0, "the connection")
    natfix.kill()
    natfix.start()
    wait_until(lambda: connections(natfix), 15.0, "the phone's new connection")
    wait_until(lambda: natfix.json("registrations")["registrations"], 10.0, "its registration")
    call = bob.dial(alice.uri)
    talk()
    assert_two_way(alice, bob)
    bob.hang_up(call)
    assert_nothing_left(lab, natfix)
