"""Scenario 27: natfix only looks on, at calls of real phones."""

from __future__ import annotations

import re

import pytest

from tests.lab.audio import talk
from tests.lab.gateway import Natfix
from tests.lab.lab import Lab
from tests.lab.pcap import sip_messages
from tests.lab.programs import Capture
from tests.scenarios.phones import two_phones

pytestmark = pytest.mark.lab

POOL = re.compile(r"port=3\d{4}\b")        # natfix's media ports


def ruleset(lab: Lab) -> str:
    return lab.gateway.run(["nft", "-s", "list", "ruleset"]).stdout


def test_a_call_is_explained_and_nothing_is_touched(lab: Lab) -> None:
    """Every SIP packet leaves as it came, no connection is marked or made, natfix tells what it would do."""
    before = ruleset(lab)
    natfix = Natfix(lab, args=("--observe",)).start()
    inside = lab.start(Capture("gateway", "inside", "udp port 5060"))
    outside = lab.start(Capture("gateway", "outside", "udp port 5060"))
    alice, bob = two_phones(lab)
    alice.dial(bob.uri)
    talk()
    call, = natfix.request("calls")["calls"]
    assert call["state"] == "confirmed"
    assert call["streams"][0]["outside"] == "203.0.113.1:30000"
    entries = lab.gateway.run(["conntrack", "-L", "-p", "udp"]).stdout.splitlines()
    assert entries
    assert all(" mark=0 " in entry and not POOL.search(entry) for entry in entries)
    binding, = natfix.request("registrations")["registrations"]
    assert binding["inside"] == "192.168.1.10:5060"
    alice.hang_up()
    bob.wait_closed()
    came, left = ([each.payload for each in sip_messages(capture.stop())] for capture in (inside, outside))
    assert len(came) > 8
    assert set(came) == set(left)
    decisions = natfix.request("notes", count=100)["decisions"]
    notes = {note["rule"] for each in decisions for note in each["notes"]}
    assert {"contact", "via", "sdp-connection", "sdp-media"} <= notes
    rules = lab.gateway.run(["nft", "list", "table", "ip", "natfix"]).stdout
    assert not {"map", "set", "elements", "mark", "snat", "queue"} & set(rules.split())
    natfix.down()
    assert ruleset(lab) == before
