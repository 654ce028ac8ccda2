"""Streams that the answer refuses (RFC 3264, section 6): their ports go back, and return with the stream."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from natfix.address import Endpoint
from tests.agent import Agent, Leg
from tests.playbook import PROVIDER, Call, World, told
from tests.streams import streams_of

LATE_ANSWERS = 33.0     # seconds; RFC 3261: 64*T1, and a little
VIDEO, ITS_VIDEO = 12010, 40010
REFUSED = "m=video 0 RTP/AVP 96"


@pytest.fixture
def world() -> Iterator[World]:
    """A gateway with the documented line."""
    yield from told(World(dnat_accepted=True))


def with_video(agent: Agent, port: int) -> str:
    """The agent's audio, and video at *port*."""
    return agent.sdp(f"m=video {port} RTP/AVP 96")


def refused_call(world: World) -> Call:
    """The phone offers audio and video, the provider takes audio alone."""
    leg = world.phone.invites(world.provider.address, sdp=with_video(world.phone, VIDEO))
    callee = world.provider.accepts(world.provider.last)
    callee.answers(sdp=world.provider.sdp(REFUSED))
    leg.sends("ACK")
    return Call(leg, callee)


def inside_ports(world: World) -> list[int]:
    """The phone's media ports that have mappings."""
    return sorted(inside.port for inside in world.media_mappings())


def offered_video(world: World) -> Endpoint:
    """Where the provider was told to send video, by the newest SDP that it has."""
    bodies = [item.message.body for item in world.provider.inbox if b"m=video" in item.message.body]
    return streams_of(bodies[-1])[1].rtp


def assert_video(world: World) -> None:
    """Video flows both ways."""
    outside, remote = offered_video(world), Endpoint(PROVIDER.host, ITS_VIDEO)
    inside = Endpoint(world.phone.rtp.host, VIDEO)
    assert world.trace_rtp(inside, remote)[:3] == (outside, remote, "")
    assert world.trace_rtp(remote, outside)[:3] == (remote, inside, "")


def renegotiated(asker: Leg, offer: str, other: Agent, answer: str) -> None:
    """A re-INVITE, its 200 and ACK."""
    asker.sends("INVITE", offer)
    other.replies(other.last, 200, answer)
    asker.sends("ACK")


def test_a_refused_stream_gives_its_ports_back(world: World) -> None:
    """Once no other fork can answer, the two ports are free; audio goes on, the call ends as any other."""
    call = refused_call(world)
    free = world.engine.status(world.now)["media_pairs_free"]
    assert inside_ports(world) == [12000, 12001, VIDEO, VIDEO + 1]
    world.advance(LATE_ANSWERS)
    assert inside_ports(world) == [12000, 12001]
    assert world.engine.status(world.now)["media_pairs_free"] == free + 1
    world.assert_two_way_audio(call)
    call.hang_up()
    world.advance(60.0)
    assert world.is_quiet()


def test_a_fork_that_accepts_what_the_first_refused(world: World) -> None:
    """Two 2xx may come to one INVITE: the ports that were offered to both stay for both."""
    leg = world.phone.invites(world.provider.address, sdp=with_video(world.phone, VIDEO))
    invite = world.provider.last
    for tag, video in (("first", REFUSED), ("second", f"m=video {ITS_VIDEO} RTP/AVP 96")):
        world.provider.replies(invite, 200, world.provider.sdp(video), tag=tag)
        leg.fork(world.phone.last).sends("ACK")
        world.advance(5.0)
    assert_video(world)
    world.advance(LATE_ANSWERS)
    assert_video(world)


def test_an_early_answer_that_refuses(world: World) -> None:
    """While it rings any other branch may answer otherwise."""
    leg = world.phone.invites(world.provider.address, sdp=with_video(world.phone, VIDEO))
    invite = world.provider.last
    world.provider.replies(invite, 183, world.provider.sdp(REFUSED), tag="announcement")
    world.advance(100.0)
    world.provider.replies(invite, 200, with_video(world.provider, ITS_VIDEO), tag="answered")
    leg.fork(world.phone.last).sends("ACK")
    world.advance(100.0)
    assert_video(world)


@pytest.mark.parametrize("by_phone", [True, False], ids=["phone", "provider"])
@pytest.mark.parametrize("seconds", [1.0, 100.0])
def test_a_refused_stream_is_revived(world: World, seconds: float, by_phone: bool) -> None:
    """A later offer gives the m-line a port again (RFC 3264, 8.1), and may say just what was said before."""
    call = refused_call(world)
    world.advance(seconds)
    sides = [(call.caller, with_video(world.phone, VIDEO)),
             (call.callee, with_video(world.provider, ITS_VIDEO))]
    (asker, offer), (other, answer) = sides if by_phone else sides[::-1]
    renegotiated(asker, offer, other.agent, answer)
    world.advance(300.0)
    assert_video(world)
    world.assert_two_way_audio(call)


def test_a_late_offer_revives_it(world: World) -> None:
    """The phone's offer is in its 200, the answer in the ACK: between the two its ports stay."""
    call = refused_call(world)
    world.advance(100.0)
    call.callee.sends("INVITE")
    world.phone.replies(world.phone.last, 200, with_video(world.phone, VIDEO))
    assert VIDEO in inside_ports(world)
    world.advance(10.0)
    call.callee.sends("ACK", with_video(world.provider, ITS_VIDEO))
    assert_video(world)


def test_refused_again_and_again(world: World) -> None:
    """A phone that offers video with each session refresh holds no port for it between two of them."""
    call = refused_call(world)
    for _ in range(5):
        world.advance(100.0)
        renegotiated(call.caller, with_video(world.phone, VIDEO), world.provider, world.provider.sdp(REFUSED))
        assert inside_ports(world) == [12000, 12001]
    world.assert_two_way_audio(call)
    call.hang_up()
    world.advance(60.0)
    assert world.is_quiet()


@pytest.mark.parametrize("by_phone", [True, False], ids=["phone", "provider"])
def test_a_stream_is_dropped_in_the_call(world: World, by_phone: bool) -> None:
    """Video was on, and a re-INVITE ends it: by port 0 in the offer (RFC 3264, 8.2), or in the answer."""
    leg = world.phone.invites(world.provider.address, sdp=with_video(world.phone, VIDEO))
    callee = world.provider.accepts(world.provider.last)
    callee.answers(sdp=with_video(world.provider, ITS_VIDEO))
    leg.sends("ACK")
    world.advance(100.0)
    assert_video(world)
    offer = world.phone.sdp(REFUSED) if by_phone else with_video(world.phone, VIDEO)
    renegotiated(leg, offer, world.provider, world.provider.sdp(REFUSED))
    assert inside_ports(world) == [12000, 12001]


def test_a_failed_revival_changes_nothing(world: World) -> None:
    """A re-INVITE that fails leaves the session as it was (RFC 3261, section 14.1): without video."""
    call = refused_call(world)
    world.advance(100.0)
    call.caller.sends("INVITE", with_video(world.phone, VIDEO))
    assert VIDEO in inside_ports(world)
    world.provider.replies(world.provider.last, 488, contact="")
    call.caller.sends("ACK")
    assert inside_ports(world) == [12000, 12001]


def test_two_lines_on_one_port(world: World) -> None:
    """A phone offers SRTP and RTP on the same port, and one of the two is taken: the port stays."""
    body = world.phone.sdp(f"m=audio {world.phone.rtp.port} RTP/SAVP 8")
    leg = world.phone.invites(world.provider.address, sdp=body)
    callee = world.provider.accepts(world.provider.last)
    callee.answers(sdp=world.provider.sdp("m=audio 0 RTP/SAVP 8"))
    leg.sends("ACK")
    world.advance(100.0)
    assert inside_ports(world) == [12000, 12001]
    world.assert_two_way_audio(Call(leg, callee))


def test_a_restart_does_not_bring_it_back(world: World) -> None:
    """What was refused is written to the store."""
    refused_call(world)
    world.advance(LATE_ANSWERS)
    world.restart()
    world.advance(400.0)
    assert inside_ports(world) == [12000, 12001]
