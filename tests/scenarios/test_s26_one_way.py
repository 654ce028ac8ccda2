"""Scenario 26: one-way audio is told within five seconds, with its cause; a healthy call never is."""

from __future__ import annotations

import json
import time
from datetime import datetime
from functools import partial
from typing import Any

import pytest

from tests.lab.host import wait_until
from tests.lab.lab import Lab
from tests.lab.programs import RtpAgent
from tests.scenarios.phones import two_phones
from tests.scenarios.sipp_call import SippCall, audio_sdp, streams_of

pytestmark = pytest.mark.lab

IN_TIME = 5.0       # seconds on natfix's clock; issue 8.1
BLOCK = """
table ip blocked {
    chain out { type filter hook output priority 0; udp sport 10000-10099 drop; }
}
"""


def alarms(natfix: Any) -> list[tuple[str, str]]:
    """Return direction and cause of all alarms that stand."""
    return [(alarm["direction"], alarm["cause"]) for call in natfix.json("calls")["calls"]
            for alarm in call.get("audio", {}).get("alarms", ())]


def assert_told(natfix: Any, expected: tuple[str, str]) -> None:
    """Fail unless there is the alarm *expected*, and natfix has told it within five seconds of the answer."""
    wait_until(lambda: expected in alarms(natfix), 15.0, f"the alarm {expected}")
    call_id = natfix.json("calls")["calls"][0]["call_id"]
    events = json.loads(natfix.run("explain", call_id, "--json"))["events"]
    answered, told = (datetime.fromisoformat(next(each["at"] for each in events if is_it(each)))
                      for is_it in (is_answer, partial(is_alarm, expected)))
    assert (told - answered).total_seconds() <= IN_TIME


def is_answer(event: dict[str, Any]) -> bool:
    return event["event"] == "answered"


def is_alarm(expected: tuple[str, str], event: dict[str, Any]) -> bool:
    return event["event"] == "alarm" and (event["direction"], event["cause"]) == expected


def assert_healthy(natfix: Any, seconds: float) -> None:
    """Fail if there is any alarm in the time that comes."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert alarms(natfix) == []
        time.sleep(0.5)


def test_real_phones(lab: Lab) -> None:
    """One phone's RTP is blocked on its way: alarm, and it is over when the way is open. Talking on, and
    holding and resuming, is no alarm; `natfix explain` has all of it."""
    natfix = lab.start_natfix()
    alice, bob = two_phones(lab)
    lab["remote1"].run(["nft", "-f", "-"], input=BLOCK)
    call_id = alice.dial(bob.uri)
    assert_told(natfix, ("in", "nothing-arrives"))
    assert "ONE-WAY: nothing arrives from outside" in natfix.run("explain", call_id)
    lab["remote1"].run(["nft", "delete", "table", "ip", "blocked"])
    wait_until(lambda: alarms(natfix) == [], 10.0, "the end of the alarm")
    assert_healthy(natfix, 4.0)
    assert "RTP flows both ways: " in natfix.run("explain", call_id)
    alice.hold()
    wait_until(lambda: natfix.json("calls")["calls"][0]["audio"]["state"] == "held", 10.0, "the hold")
    assert_healthy(natfix, 4.0)
    alice.resume()
    assert_healthy(natfix, 4.0)
    assert natfix.log().count("no audio ") == 1
    alice.hang_up()


def place(lab: Lab, answer: str) -> tuple[Any, SippCall]:
    natfix = lab.start_natfix()
    return natfix, SippCall(lab, audio_sdp("192.168.1.10", 12000), answer).start()


def test_from_elsewhere(lab: Lab) -> None:
    """What should come from the far side comes from another host: refused, and told as that."""
    natfix, call = place(lab, audio_sdp("203.0.113.60", 14000))
    lab.start(RtpAgent("phone1", 12000, to=streams_of(call.answer)[0].rtp, tone=440))
    lab.start(RtpAgent("stranger", 15000, to=streams_of(call.offer)[0].rtp, tone=880))
    assert_told(natfix, ("in", "refused"))
    assert "refused" in natfix.run("calls")
    call.hang_up()


def test_to_a_private_address(lab: Lab) -> None:
    """The far side, behind a NAT that nobody helps, wants its audio at a private address."""
    natfix, call = place(lab, audio_sdp("10.9.9.9", 14000))
    lab.start(RtpAgent("phone1", 12000, to=streams_of(call.answer)[0].rtp, tone=440))
    assert_told(natfix, ("out", "private-address"))
    call.hang_up()
