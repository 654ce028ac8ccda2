"""Scenario 11: blind and attended transfer, across the gateway.

Baresip 1.0.0 has no attended transfer; there the phones are Linphone's.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.lab.audio import assert_two_way
from tests.lab.lab import Lab
from tests.lab.programs import Kamailio
from tests.scenarios.checks import assert_nothing_left
from tests.scenarios.crossing import Crossing
from tests.scenarios.phones import attended_transfer, blind_transfer

pytestmark = pytest.mark.lab


def test_an_inside_phone_transfers_its_caller_to_another_one(lab: Lab) -> None:
    """Blind: bob calls alice, she sends him on to carol, inside as well; bob and carol hear each other."""
    natfix = lab.start_natfix()
    lab.start(Kamailio())
    crossing = Crossing(lab)
    rows = (("remote1", "bob", 880), ("phone1", "alice", 660), ("phone2", "carol", 440))
    bob, carol = blind_transfer(lab, rows)
    assert_two_way(bob, carol)
    established = len(bob.events)
    carol.hang_up()
    bob.wait_closed(since=established)
    crossing.stop().assert_right()
    assert_nothing_left(lab, natfix)


def test_an_outside_phone_transfers_an_inside_one(make_lab: Callable[..., Lab]) -> None:
    """Blind: alice calls bob, he sends her on to dave, who is outside too; alice and dave hear each other."""
    lab = make_lab(remotes=2)
    natfix = lab.start_natfix()
    lab.start(Kamailio())
    crossing = Crossing(lab)
    rows = (("phone1", "alice", 440), ("remote1", "bob", 660), ("remote2", "dave", 880))
    alice, dave = blind_transfer(lab, rows)
    assert_two_way(alice, dave)
    dave.hang_up()
    dave.wait_closed()
    crossing.stop().assert_right()
    assert_nothing_left(lab, natfix)


def test_attended_transfer_connects_two_callees(lab: Lab) -> None:
    """Alice, inside, has bob on hold and carol on the line, and connects them (REFER with Replaces)."""
    natfix = lab.start_natfix()
    lab.start(Kamailio())
    crossing = Crossing(lab)
    bob, carol, mark = attended_transfer(lab)
    assert_two_way(bob, carol)
    carol.hang_up(2)
    carol.wait_closed(mark)
    crossing.stop().assert_right(between_inside=True)
    assert_nothing_left(lab, natfix)
