"""Scenario 24: descriptions that would open the gateway, or a third host, to the world."""

from __future__ import annotations

import pytest

from tests.lab.lab import Lab
from tests.scenarios.checks import assert_nothing_left, media_elements
from tests.scenarios.crossing import Crossing, notes_of
from tests.scenarios.script import messages_sent
from tests.scenarios.sipp_call import SippCall, audio_sdp, media_lines

pytestmark = pytest.mark.lab

FORBIDDEN = {
    "the gateway, inside": ("192.168.1.1", 12000),
    "the gateway, outside": ("203.0.113.1", 12000),
    "an unregistered inside host": ("192.168.1.11", 12000),
    "loopback": ("127.0.0.1", 12000),
    "multicast": ("224.2.1.1", 12000),
    "broadcast": ("255.255.255.255", 12000),
    "link-local": ("169.254.1.1", 12000),
    "a service's port": ("192.168.1.10", 22),
}


def test_no_mapping_for_what_is_not_the_senders(lab: Lab) -> None:
    """Each c= and m= arrives as it was sent, opens nothing, and leaves a note that says why."""
    natfix = lab.start_natfix()
    crossing = Crossing(lab)
    for what, (address, port) in FORBIDDEN.items():
        call = SippCall(lab, audio_sdp(address, port), audio_sdp("203.0.113.60", 14000)).start()
        sent = messages_sent(call.caller, "INVITE ")[0]
        assert media_lines(call.offer) == media_lines(sent), what
        assert [row["streams"] for row in natfix.json("calls")["calls"]
                if row["call_id"] == sent["call-id"]] == [[]], what
        assert not media_elements(lab), what
        notes = notes_of(natfix, sent["call-id"])
        assert any(note.get("reason") and note.get("old") == f"{address}:{port}" for note in notes), what
        call.hang_up()
    crossing.stop().assert_right(left_alone=("c=", "o="))
    assert_nothing_left(lab, natfix)
