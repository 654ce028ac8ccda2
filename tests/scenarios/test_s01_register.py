"""Scenario 1: a phone registers with digest, and is called long after the last packet."""

from __future__ import annotations

import pytest

from tests.lab.audio import assert_two_way, talk
from tests.lab.host import LabError, wait_until
from tests.lab.lab import Lab
from tests.lab.programs import Baresip, Kamailio
from tests.scenarios.checks import Wiretap, assert_nothing_left

pytestmark = pytest.mark.lab


def forget_flows(lab: Lab) -> None:
    """Delete every UDP entry of the gateway's conntrack table, as time does."""
    lab.gateway.run(["conntrack", "-D", "-p", "udp"])


def test_call_comes_in_long_after_the_last_packet(lab: Lab) -> None:
    """A registered phone is reached, and both hear each other, though conntrack has forgotten its flow."""
    natfix = lab.start_natfix()
    tap = Wiretap(lab)
    provider = lab.start(Kamailio(users={"alice": "secret", "bob": "hidden"}))
    alice = lab.start(Baresip("phone1", "alice", registrar=provider.address, password="secret", tone=440))
    bob = lab.start(Baresip("remote1", "bob", registrar=provider.address, password="hidden", tone=880))
    alice.register()
    bob.register()
    registration, = natfix.request("registrations")["registrations"]
    assert (registration["inside"], registration["outside"]) == ("192.168.1.10:5060", "203.0.113.1:5060")
    assert tap.seen_outside("SIP/2.0 401"), "digest was not asked for"
    forget_flows(lab)
    bob.dial(alice.uri)
    talk()
    assert_two_way(alice, bob)
    bob.hang_up()
    alice.wait_closed()
    assert_nothing_left(lab, natfix)
    tap.check()


def test_unregistered_phone_is_shut_off(lab: Lab) -> None:
    """After its un-REGISTER a phone has no binding, and nothing from outside reaches it any more."""
    natfix = lab.start_natfix()
    tap = Wiretap(lab)
    provider = lab.start(Kamailio(users={"alice": "secret", "bob": "hidden"}))
    alice = lab.start(Baresip("phone1", "alice", registrar=provider.address, password="secret"))
    bob = lab.start(Baresip("remote1", "bob", registrar=provider.address, password="hidden"))
    alice.register()
    bob.register()
    alice.unregister()
    wait_until(lambda: not natfix.request("registrations")["registrations"], 5.0, "the binding's end")
    with pytest.raises(LabError, match="404"):
        bob.dial(alice.uri)
    assert_nothing_left(lab, natfix)
    tap.check()
