"""Scenario 6: calls that come to nothing: CANCEL, busy, 503, no answer; and one that works afterwards."""

from __future__ import annotations

import pytest

from tests.lab.audio import assert_two_way, talk
from tests.lab.gateway import Natfix
from tests.lab.host import LabError, wait_until
from tests.lab.lab import Lab
from tests.lab.programs import Baresip, Sipp
from tests.scenarios.checks import Wiretap, assert_nothing_left, media_elements
from tests.scenarios.phones import two_phones
from tests.scenarios.script import Callee, scenario

pytestmark = pytest.mark.lab

callee = Callee()
OUT_OF_ORDER = scenario(callee.invited(), callee.answer(180), callee.answer(503), callee.receive("ACK"))
ROUTES = {"^503": "203.0.113.60:5070", "^nobody": "203.0.113.61:5060"}


class Phones:
    """alice inside and bob outside, both registered, both answered by hand."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.natfix, self.tap = lab, lab.start_natfix(), Wiretap(lab)
        self.alice, self.bob = two_phones(lab, routes=ROUTES, auto_answer=False)

    def ring(self, caller: Baresip, called: Baresip) -> tuple[int, int]:
        """Have *caller* call until *called* rings; return the marks of their events before the call."""
        marks = len(caller.events), len(called.events)
        caller.dial(called.uri, timeout=0)
        called.wait_incoming(since=marks[1])
        assert_rings(self.natfix)
        return marks

    def call(self, caller: Baresip, called: Baresip) -> None:
        """Place a call that is answered, talk, compare, hang up."""
        marks = self.ring(caller, called)
        called.accept()
        caller.wait_event("CALL_ESTABLISHED", since=marks[0])
        talk()
        assert_two_way(caller, called)
        caller.hang_up()
        called.wait_closed(since=marks[1])


def assert_rings(natfix: Natfix) -> None:
    """One call is in the making, with RTP and RTCP."""
    call, = natfix.request("calls")["calls"]
    assert call["state"] == "early"


@pytest.mark.parametrize("direction", ["out", "in"])
def test_busy_and_cancelled(lab: Lab, direction: str) -> None:
    """A refused call, then one that is given up while it rings: nothing stays, and the next is heard."""
    phones = Phones(lab)
    caller, called = (phones.alice, phones.bob) if direction == "out" else (phones.bob, phones.alice)
    marks = phones.ring(caller, called)
    called.hang_up()
    assert "486" in caller.wait_closed(since=marks[0])["param"]
    assert_nothing_left(lab, phones.natfix)
    marks = phones.ring(caller, called)
    caller.hang_up()
    called.wait_closed(since=marks[1])
    caller.wait_closed(since=marks[0])
    assert_nothing_left(lab, phones.natfix)
    phones.call(caller, called)
    assert_nothing_left(lab, phones.natfix)
    phones.tap.check()


def test_out_of_order_and_nobody_there(lab: Lab) -> None:
    """503 from the far side, then the provider's own 408 since nobody answers: nothing stays, and the next
    call is heard."""
    phones = Phones(lab)
    refusing = lab.start(Sipp("remote1", OUT_OF_ORDER, port=5070))
    with pytest.raises(LabError, match="503"):
        phones.alice.dial(f"sip:503@{phones.alice.registrar}")
    refusing.wait()
    assert_nothing_left(lab, phones.natfix)
    mark = len(phones.alice.events)
    phones.alice.dial(f"sip:nobody@{phones.alice.registrar}", timeout=0)
    wait_until(lambda: media_elements(lab), 3.0, "the mappings of an offer")
    assert "408" in phones.alice.wait_closed(since=mark)["param"]
    assert_nothing_left(lab, phones.natfix)
    phones.call(phones.alice, phones.bob)
    assert_nothing_left(lab, phones.natfix)
    phones.tap.check()
