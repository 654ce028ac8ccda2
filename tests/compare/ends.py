"""The two ends of calls: phones and SIPp, set up, talking, and done."""

from __future__ import annotations

from tests.compare.parts import hear_each_other, told
from tests.compare.worlds import World
from tests.lab.audio import talk
from tests.lab.programs import Baresip, Kamailio, RtpAgent, Sipp
from tests.scenarios.script import tell
from tests.scenarios.test_s06_unanswered import ROUTES

REMOTE, PHONE, GATEWAY = "203.0.113.60", "192.168.1.10", "203.0.113.1"
TRUNK = {"trunk": f"{PHONE}:5060", "peer": REMOTE}


def two_phones(world: World, answers: bool = True) -> tuple[Baresip, Baresip]:
    """Return alice inside and bob outside, both registered with digest."""
    provider = world.start(Kamailio(users={"alice": "secret", "bob": "hidden"}, routes=ROUTES))
    rows = (("phone1", "alice", "secret", 440), ("remote1", "bob", "hidden", 880))
    alice, bob = (world.start(Baresip(host, user, registrar=provider.address, password=password, tone=tone,
                                      auto_answer=answers)) for host, user, password, tone in rows)
    alice.register()
    bob.register()
    return alice, bob


def call(world: World, caller: Baresip, called: Baresip) -> None:
    """Place a call, talk, compare, hang up."""
    mark = len(called.events)
    caller.dial(called.uri)
    talk()
    caller.hang_up()
    called.wait_closed(since=mark)
    hear_each_other(world, caller, called)


def agents(world: World, near: Sipp, far: Sipp, near_port: int, far_port: int,
           tones: tuple[int, int] = (440, 880)) -> tuple[RtpAgent, RtpAgent]:
    """Start RTP at two SIPp, each to where it was told."""
    rows = ((near, near_port, told(near).rtp, tones[0]), (far, far_port, told(far).rtp, tones[1]))
    first, second = (world.start(RtpAgent(end.host_name, port, to=to, tone=tone))
                     for end, port, to, tone in rows)
    return first, second


def converse(world: World, near: Sipp, far: Sipp, near_port: int, far_port: int,
             tones: tuple[int, int] = (440, 880)) -> None:
    """Let two SIPp talk, each to where it was told, and fail unless both are heard."""
    pair = agents(world, near, far, near_port, far_port, tones)
    talk()
    pair[0].stop()
    hear_each_other(world, *pair)


def finish(world: World, caller: Sipp, called: Sipp) -> None:
    """Have the caller hang up, and wait until both are done."""
    tell(world, caller)
    caller.wait(10.0)
    called.wait(10.0)
