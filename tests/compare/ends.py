"""The two ends of calls: phones and SIPp, set up, talking, and done."""

from __future__ import annotations

from tests.compare.parts import hear_each_other, told
from tests.compare.worlds import World
from tests.lab.audio import talk
from tests.lab.programs import Baresip, RtpAgent, Sipp
from tests.scenarios.script import tell

REMOTE, PHONE, GATEWAY = "203.0.113.60", "192.168.1.10", "203.0.113.1"
TRUNK = {"trunk": f"{PHONE}:5060", "peer": REMOTE}


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
