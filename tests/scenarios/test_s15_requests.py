"""Scenario 15: what is not a call. SUBSCRIBE and NOTIFY, MESSAGE, OPTIONS and PUBLISH."""

from __future__ import annotations

import pytest

from tests.lab.lab import Lab
from tests.lab.programs import Kamailio, Sipp
from tests.lab.programs.sipp import SCENARIOS
from tests.scenarios.checks import assert_nothing_left
from tests.scenarios.crossing import Crossing
from tests.scenarios.script import messages_received, wait_received
from tests.scenarios.sipp_call import SippCall

pytestmark = pytest.mark.lab

PRESENCE = '<?xml version="1.0"?>\r\n<presence entity="pres:alice@203.0.113.50"/>\r\n'
HOSTS = {"alice": "phone1", "bob": "remote1"}
ONE_REQUEST = (
    ("MESSAGE", "alice", "bob", "text/plain", "Call me at 192.168.1.10:5060, or 203.0.113.1."),
    ("MESSAGE", "bob", "alice", "text/plain", "Call me at 192.168.1.10:5060, or not."),
    ("OPTIONS", "alice", "bob", "text/plain", ""),
    ("OPTIONS", "bob", "alice", "text/plain", ""),
    ("PUBLISH", "alice", "bob", "application/pidf+xml", PRESENCE),
)


def register(lab: Lab, *users: str) -> None:
    """Register users at the provider."""
    for user in users:
        lab.start(Sipp(HOSTS[user], "s15_register.xml", to="203.0.113.50:5060", keys={"user": user})).wait()


def test_requests_outside_of_dialogs_are_answered(lab: Lab) -> None:
    """MESSAGE, OPTIONS and PUBLISH reach their receivers in both directions, bodies untouched."""
    natfix = lab.start_natfix()
    provider = lab.start(Kamailio())
    crossing = Crossing(lab)
    register(lab, "alice", "bob")
    for method, sender, receiver, kind, body in ONE_REQUEST:
        keys = {"user": sender, "domain": provider.address, "type": kind, "body": body}
        request = (SCENARIOS / "s15_request.xml").read_text().replace("[method]", method)
        waiting = lab.start(Sipp(HOSTS[receiver], "s15_reply.xml", keys={"user": receiver}))
        lab.start(Sipp(HOSTS[sender], request, to=f"{provider.address}:5060", service=receiver,
                       keys=keys)).wait()
        waiting.wait()
        [received] = messages_received(waiting)
        assert received.method == method
        assert received.body.decode().strip() == body.strip()
        if receiver == "alice":
            assert received.uri == "sip:alice@192.168.1.10:5060"
    crossing.stop().assert_right()
    assert_nothing_left(lab, natfix)


def test_notifications_arrive_for_as_long_as_the_subscription_lasts(lab: Lab) -> None:
    """NOTIFY reaches the subscriber even after the gateway's conntrack entries are gone, until it ends."""
    natfix = lab.start_natfix()
    provider = lab.start(Kamailio())
    crossing = Crossing(lab)
    register(lab, "bob")
    call = SippCall(lab, "", "", files=("s15_subscriber.xml", "s15_notifier.xml"), to="203.0.113.50:5060",
                    keys=({"domain": provider.address}, {"domain": provider.address}))
    lab.start(call.callee)
    lab.start(call.caller)
    wait_received(call.callee, "SIP/2.0 200", 1)
    assert [row["method"] for row in natfix.json("calls")["calls"]] == ["SUBSCRIBE"]
    lab.gateway.run(["conntrack", "-D", "-p", "udp"])
    call.tell(call.callee)
    wait_received(call.callee, "SIP/2.0 200", 2)
    call.tell(call.caller)
    call.caller.wait()
    call.callee.wait()
    crossing.stop().assert_right()
    assert_nothing_left(lab, natfix)
