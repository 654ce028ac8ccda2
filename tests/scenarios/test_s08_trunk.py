"""Scenario 8: fifty parallel calls on one trunk, which is one 5-tuple, ended in random order.

The PBX does not register; it is declared as a trunk. It is a Kamailio that hides its extensions, so that all
messages of all calls are between 192.168.1.5:5060 and the provider's 203.0.113.50:5060. Five calls are
between baresip extensions, with their audio compared; 45 between SIPp, with every RTP packet counted.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

import pytest

from tests.agent import Sip
from tests.lab.audio import assert_two_way, talk
from tests.lab.gateway import Natfix
from tests.lab.host import wait_until
from tests.lab.lab import Lab
from tests.lab.programs import Baresip, Kamailio, RtpCrowd, Sipp
from tests.scenarios.checks import Wiretap, assert_nothing_left
from tests.scenarios.script import Callee, Caller, messages_received, messages_sent, scenario, sdp, tell_call
from tests.scenarios.sipp_call import Stream, streams_of

pytestmark = pytest.mark.lab

PBX, PROVIDER = "192.168.1.5", "203.0.113.50"
TRUNK = f'[[trunk]]\ninside = "{PBX}:5060"\npeers = ["{PROVIDER}"]\n'
OUT, IN = 25, 20        # calls between SIPp, by direction
LOST = 2                # packets of a stream that may be missing
# Users by their first digits: 1 is SIPp inside, 2 baresip inside, 3 SIPp outside, 4 baresip outside.
INSIDE_ROUTES = {"^3": f"{PROVIDER}:5060", "^1": f"{PBX}:5062",
                 **{f"^2{n}": f"{PBX}:{5060 + 10 * n}" for n in range(1, 6)}}
OUTSIDE_ROUTES = {"^[12]": "203.0.113.1:5060", "^3": "203.0.113.60:5062",
                  **{f"^4{n}": f"203.0.113.61:{5060 + 10 * n}" for n in range(1, 6)}}

caller, callee = Caller(), Callee()
CALLS = scenario(
    caller.request("INVITE", 1, sdp("[field0]")), caller.receive(100, optional=True),
    caller.receive(180, optional=True), caller.receive(200, rrs=True), caller.ack(1),
    caller.told(), caller.request("BYE", 2), caller.receive(200))
ANSWERS = scenario(
    callee.invited(), callee.answer(180), callee.answer(200, sdp("[field0]")), callee.receive("ACK"),
    callee.receive("BYE"), callee.reply(200))


class Counted(NamedTuple):
    """One call between two SIPp."""

    call_id: str
    caller: Sipp
    inside_port: int
    outside_port: int
    shown: str          # where the outside end is told to send to


class Compared(NamedTuple):
    """One call between two baresip."""

    caller: Baresip
    inside: Baresip
    outside: Baresip


def test_fifty_calls_on_one_trunk(make_lab: Callable[..., Lab]) -> None:
    """Every call keeps its media, whoever else hangs up first: audio is heard, no packet is lost."""
    lab = make_lab(remotes=2)
    natfix = lab.start_natfix(TRUNK)
    tap = Wiretap(lab, f"{PBX}:5060")
    lab.start(Kamailio(routes=OUTSIDE_ROUTES))
    lab.start(Kamailio("pbx", routes=INSIDE_ROUTES, hide_topology=True))
    counted = place_counted_calls(lab)
    compared = [place_compared_call(lab, number) for number in range(1, 6)]
    wait_until(lambda: confirmed(natfix) == OUT + IN + 5, 10.0, "fifty calls")
    crowds = start_streams(lab, counted)
    talk()
    order: list[Counted | Compared] = [*counted, *compared]
    random.Random(8).shuffle(order)
    for number, call in enumerate(order):
        end(lab, call, crowds)
        if number == len(order) // 2:
            talk(1.0)
    for sipp in {id(call.caller): call.caller for call in counted}.values():
        sipp.wait()
    for call in compared:
        assert_two_way(call.inside, call.outside)
    for call in counted:
        assert_counted(call, *crowds)
    assert_nothing_left(lab, natfix)
    tap.check()


def place_counted_calls(lab: Lab) -> list[Counted]:
    """Place 25 calls out and 20 in between SIPp, and return them once all are answered."""
    inside_called = Sipp("pbx", ANSWERS, port=5062, calls=IN, rows=[(12200 + 2 * n,) for n in range(IN)])
    outside_called = Sipp("remote1", ANSWERS, port=5062, calls=OUT,
                          rows=[(14000 + 2 * n,) for n in range(OUT)])
    inside_caller = Sipp("pbx", CALLS, to=f"{PBX}:5060", port=5061, calls=OUT, service="300", rate=20,
                         rows=[(12000 + 2 * n,) for n in range(OUT)])
    outside_caller = Sipp("remote1", CALLS, to=f"{PROVIDER}:5060", port=5061, calls=IN, service="100",
                          rate=20, rows=[(14200 + 2 * n,) for n in range(IN)])
    for sipp in (inside_called, outside_called, inside_caller, outside_caller):
        lab.start(sipp)
    wait_until(lambda: answered(inside_called) == IN and answered(outside_called) == OUT, 20.0, "45 calls")
    return read_calls(inside_caller, outside_called, inside_is_caller=True) \
        + read_calls(outside_caller, inside_called, inside_is_caller=False)


def read_calls(caller: Sipp, callee: Sipp, inside_is_caller: bool) -> list[Counted]:
    """Return the calls of two SIPp, as their outside end knows them."""
    inside, outside = (caller, callee) if inside_is_caller else (callee, caller)
    said, own = by_call(messages_sent(inside)), by_call(messages_sent(outside))
    told = by_call(messages_received(outside))
    return [Counted(call_id, caller, said[call_id].port, own[call_id].port, told[call_id].rtp)
            for call_id in told]


def by_call(messages: list[Sip]) -> dict[str, Stream]:
    """Return the stream that each call's session description names, by Call-ID."""
    return {message["call-id"]: streams_of(message)[0] for message in messages if message.body.strip()}


def answered(sipp: Sipp) -> int:
    """Return how many calls *sipp* has answered and seen acknowledged."""
    return len({message["call-id"] for message in messages_received(sipp, "ACK")})


def place_compared_call(lab: Lab, number: int) -> Compared:
    """Place a call between the baresip extension 2N inside and 4N outside; the odd ones go out."""
    inside = lab.start(Baresip("pbx", f"2{number}", tone=400 + 40 * number, sip_port=5060 + 10 * number,
                               rtp_ports=(12300 + 10 * number, 12309 + 10 * number),
                               account=f'outbound="sip:{PBX};lr"'))
    outside = lab.start(Baresip("remote2", f"4{number}", tone=1000 + 40 * number, sip_port=5060 + 10 * number,
                                rtp_ports=(14300 + 10 * number, 14309 + 10 * number),
                                account=f'outbound="sip:{PROVIDER};lr"'))
    caller, called = (inside, outside) if number % 2 else (outside, inside)
    caller.dial(f"sip:{called.user}@{PROVIDER}")
    return Compared(caller, inside, outside)


def confirmed(natfix: Natfix) -> int:
    """Return how many calls are answered."""
    return sum(call["state"] == "confirmed" for call in natfix.request("calls")["calls"])


def start_streams(lab: Lab, calls: list[Counted]) -> tuple[RtpCrowd, RtpCrowd]:
    """Start RTP of every counted call in both directions; return the crowds inside and outside."""
    inside = lab.start(RtpCrowd("pbx", [
        (call.inside_port, f"203.0.113.60:{call.outside_port}") for call in calls]))
    outside = lab.start(RtpCrowd("remote1", [(call.outside_port, call.shown) for call in calls]))
    inside.go()
    outside.go()
    return inside, outside


def end(lab: Lab, call: Counted | Compared, crowds: tuple[RtpCrowd, RtpCrowd]) -> None:
    """Hang up; a counted call's streams are silent before."""
    if isinstance(call, Compared):
        call.caller.hang_up()
        return
    crowds[0].silence(call.inside_port)
    crowds[1].silence(call.outside_port)
    tell_call(lab, call.caller, call.call_id)


def assert_counted(call: Counted, inside: RtpCrowd, outside: RtpCrowd) -> None:
    """Each end got all that the other sent, from where it was announced, and nothing else."""
    came_in, went_out = inside.received(call.inside_port), outside.received(call.outside_port)
    assert set(came_in) == {f"203.0.113.60:{call.outside_port} {call.outside_port}"}, came_in
    assert set(went_out) == {f"{call.shown} {call.inside_port}"}, went_out
    assert sum(came_in.values()) >= outside.sent(call.outside_port) - LOST
    assert sum(went_out.values()) >= inside.sent(call.inside_port) - LOST
    assert min(inside.sent(call.inside_port), outside.sent(call.outside_port)) >= 30
