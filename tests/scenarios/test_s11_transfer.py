"""Scenario 11: blind and attended transfer, across the gateway.

Baresip 1.0.0 has no attended transfer; there the phones are Linphone's.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.lab.audio import assert_two_way, talk
from tests.lab.lab import Lab
from tests.lab.programs import Baresip, Kamailio, Linphone
from tests.scenarios.checks import assert_nothing_left
from tests.scenarios.crossing import Crossing

pytestmark = pytest.mark.lab


def test_an_inside_phone_transfers_its_caller_to_another_one(lab: Lab) -> None:
    """Blind: bob calls alice, she sends him on to carol, inside as well; bob and carol hear each other."""
    natfix = lab.start_natfix()
    provider = lab.start(Kamailio())
    crossing = Crossing(lab)
    alice = lab.start(Baresip("phone1", "alice", registrar=provider.address, tone=660))
    carol = lab.start(Baresip("phone2", "carol", registrar=provider.address, tone=440))
    bob = lab.start(Baresip("remote1", "bob", registrar=provider.address, tone=880))
    for phone in (alice, carol, bob):
        phone.register()
    bob.dial(alice.uri)
    alice.transfer(carol.uri)
    carol.wait_event("CALL_ESTABLISHED")
    alice.wait_closed()
    established = len(bob.events)
    talk()
    assert_two_way(bob, carol)
    carol.hang_up()
    bob.wait_closed(since=established)
    crossing.stop().assert_right()
    assert_nothing_left(lab, natfix)


def test_an_outside_phone_transfers_an_inside_one(make_lab: Callable[..., Lab]) -> None:
    """Blind: alice calls bob, he sends her on to dave, who is outside too; alice and dave hear each other."""
    lab = make_lab(remotes=2)
    natfix = lab.start_natfix()
    provider = lab.start(Kamailio())
    crossing = Crossing(lab)
    alice = lab.start(Baresip("phone1", "alice", registrar=provider.address, tone=440))
    bob = lab.start(Baresip("remote1", "bob", registrar=provider.address, tone=660))
    dave = lab.start(Baresip("remote2", "dave", registrar=provider.address, tone=880))
    for phone in (alice, bob, dave):
        phone.register()
    alice.dial(bob.uri)
    bob.transfer(dave.uri)
    dave.wait_event("CALL_ESTABLISHED")
    bob.wait_closed()
    talk()
    assert_two_way(alice, dave)
    dave.hang_up()
    dave.wait_closed()
    crossing.stop().assert_right()
    assert_nothing_left(lab, natfix)


def test_attended_transfer_connects_two_callees(lab: Lab) -> None:
    """Alice, inside, has bob on hold and carol on the line, and connects them (REFER with Replaces)."""
    natfix = lab.start_natfix()
    provider = lab.start(Kamailio())
    crossing = Crossing(lab)
    rows = (("phone1", "alice", 660), ("remote1", "bob", 880), ("phone2", "carol", 440))
    alice, bob, carol = (lab.start(Linphone(host, user, registrar=provider.address, tone=tone))
                         for host, user, tone in rows)
    for phone in (alice, bob, carol):
        phone.register()
    first = alice.dial(bob.uri)
    alice.hold()
    alice.wait_printed("is now (paused)")
    second = alice.dial(carol.uri)
    for phone in (bob, carol):
        phone.record()
    mark = carol.mark()
    alice.transfer_to_call(first, second)
    carol.wait_printed(r"Call 2 with \S+ (connected)", mark)
    talk()
    assert_two_way(bob, carol)
    carol.hang_up(2)
    carol.wait_closed(mark)
    crossing.stop().assert_right(between_inside=True)
    assert_nothing_left(lab, natfix)
