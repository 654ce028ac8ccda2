"""Scenario 18: a proxy on each side, with Record-Route, Path and Service-Route."""

from __future__ import annotations

import pytest

from tests.lab.audio import assert_two_way, talk
from tests.lab.lab import Lab
from tests.scenarios.checks import assert_nothing_left
from tests.scenarios.crossing import Crossing
from tests.scenarios.phones import behind_two_proxies

pytestmark = pytest.mark.lab

# The phones register through the proxy, with their own Contact: natfix knows the proxy, not them.
CONFIG = '[media]\nmedia_hosts = ["192.168.1.10"]\n'


def test_calls_through_an_inside_and_an_outside_proxy(lab: Lab) -> None:
    """Calls both ways through two record-routing proxies, each hung up by the callee along the route set."""
    natfix = lab.start_natfix(CONFIG)
    crossing = Crossing(lab)
    alice, bob = behind_two_proxies(lab)
    for caller, callee in ((alice, bob), (bob, alice)):
        closed = len(caller.events)
        caller.dial(callee.uri)
        talk()
        callee.hang_up()
        caller.wait_closed(since=closed)
        assert_two_way(alice, bob)
    crossing.stop().assert_right(left_alone=("Contact:",))
    assert_routes(crossing)
    assert_nothing_left(lab, natfix)


def assert_routes(crossing: Crossing) -> None:
    """Fail unless the proxy's Path and Record-Route were shown outside, and restored for the proxy."""
    shown = "<sip:203.0.113.1:5060;lr>"
    out = crossing.went_out()
    assert [each for each in out if each.method == "REGISTER" and each.all("path")]
    for message in out:
        for value in message.all("path") + message.all("record-route"):
            assert "192.168." not in value, f"{value} outside"
    byes = [each for _, each in crossing.came_in() if each.is_request and each.method == "BYE"]
    assert byes
    assert all("192.168.1.5" in each["route"] for each in byes), [each["route"] for each in byes]
    registered = [each for _, each in crossing.came_in() if each.method == "REGISTER" and each.status == 200]
    assert any(each["service-route"] == "<sip:203.0.113.50:5060;lr>" for each in registered), shown
