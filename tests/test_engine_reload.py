"""Other settings while calls run: what there is stays as it is, what begins follows them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from natfix.address import Endpoint
from natfix.config import FarEnd, Limits, Media, Peer, Signalling, Trunk
from tests.playbook import OUTSIDE, PHONE, PROVIDER, World, told

POOL = (30000, 39999)
OTHER_POOL = (12000, 12999)
TRUNK = Trunk(inside=PHONE.host, peers=(PROVIDER.host,))
FRIEND = Endpoint("198.51.100.99", 5060)


@pytest.fixture
def world() -> Iterator[World]:
    yield from told(World(dnat_accepted=True))


def media_ports(world: World) -> set[int]:
    """Return the outside ports that streams have."""
    return {outside.port for outside in world.media_mappings().values()}


def test_a_call_keeps_its_ports(world: World) -> None:
    """With another pool a call goes on, re-INVITE included; the next call has ports of the new one."""
    world.register(world.phone)
    world.register(world.other_phone)
    call = world.call(world.phone, world.provider)
    before = media_ports(world)
    world.reload(media=Media(ports=OTHER_POOL))
    world.assert_two_way_audio(call)
    call.caller.sends("INVITE", world.phone.sdp())
    world.provider.replies(world.provider.last, 200, world.provider.sdp())
    call.caller.sends("ACK")
    assert media_ports(world) == before
    assert all(POOL[0] <= port <= POOL[1] for port in before)
    second = world.call(world.other_phone, world.provider)
    assert all(OTHER_POOL[0] <= port <= OTHER_POOL[1] for port in media_ports(world) - before)
    world.assert_two_way_audio(second)
    for each in (call, second):
        each.hang_up()
    world.advance(40.0)
    assert not media_ports(world)


def test_nothing_that_differs_is_nothing_to_do(world: World) -> None:
    """The same settings again ask nothing of the kernel."""
    world.register(world.phone)
    world.call(world.phone, world.provider)
    outcome = world.reload()
    assert outcome.commands == []
    assert outcome.notes == []


def test_a_call_that_is_being_set_up(world: World) -> None:
    """Between INVITE and 200 a reload costs nothing, though the policy for new calls is another one."""
    leg = world.phone.invites(world.provider.address)
    world.reload(media=Media(policy="never"))
    call = world.answer(leg, world.provider)
    world.assert_two_way_audio(call)


def test_a_policy_holds_from_the_next_call_on(world: World) -> None:
    """With policy "never" the next call's SDP is left alone."""
    world.reload(media=Media(policy="never"))
    world.call(world.phone, world.provider)
    assert not media_ports(world)


def test_a_new_peer_may_call(world: World) -> None:
    """A [[peer]] that comes may call a phone registered elsewhere; one that goes may not any more."""
    world.register(world.phone)
    friend = world.agent("friend", FRIEND, Endpoint(FRIEND.host, 40000))
    uri = world.registered_uri(world.phone)

    def is_let_in() -> bool:
        leg = friend.invites(uri, world.resolve_uri(uri))
        assert leg.delivery is not None
        return bool(leg.delivery.arrived)

    assert not is_let_in()
    world.reload(peers=(Peer(address=FRIEND.host),))
    assert is_let_in()
    world.advance(300.0)    # the conntrack entry of that call has ended
    world.reload(peers=())
    assert not is_let_in()


def test_trunks_come_and_go() -> None:
    """A [[trunk]] that comes can be called at once; one that goes cannot, but its call goes on."""
    world = World()

    def rings() -> object:
        leg = world.provider.invites(f"sip:4711@{OUTSIDE}", Endpoint(OUTSIDE, 5060))
        return leg if leg.delivery is not None and leg.delivery.arrived else None

    assert rings() is None
    world.advance(300.0)
    world.reload(trunks=(TRUNK,))
    leg = world.provider.invites(f"sip:4711@{OUTSIDE}", Endpoint(OUTSIDE, 5060))
    call = world.answer(leg, world.phone)
    world.reload(trunks=())
    world.assert_two_way_audio(call)
    call.hang_up()
    world.advance(300.0)
    assert rings() is None


def test_limits(world: World) -> None:
    """A lower limit cuts nothing; it holds for what comes next."""
    calls = [world.call(world.phone, world.provider) for _ in range(2)]
    world.reload(limits=Limits(dialogs_per_host=2))
    world.phone.invites(world.provider.address)
    assert "limit" in world.log[-1].rules()     # type: ignore[union-attr]
    world.assert_two_way_audio(calls[0])


def test_an_agents_name(world: World) -> None:
    """[signalling] agent_name holds from the next message on."""
    world.reload(signalling=Signalling(agent_name="pbx"))
    world.phone.begins("OPTIONS", world.provider.address, headers={"User-Agent": "alice's phone"})
    assert world.provider.last["user-agent"] == "pbx"


def test_far_phones(world: World) -> None:
    """[far_end] can be switched off and on."""
    world.reload(far_end=FarEnd(fix="never"))
    world.reload(far_end=FarEnd())
    assert world.engine.status(world.now)["far_ends"] == 0


def test_two_other_pools_after_another(world: World) -> None:
    """Ports of a call from before never enter a pool that they do not belong to."""
    call = world.call(world.phone, world.provider)
    world.reload(media=Media(ports=OTHER_POOL))
    call.hang_up()
    world.advance(40.0)
    status = world.engine.status(world.now)
    assert status["media_pairs"] == status["media_pairs_free"] == 500
    world.reload(media=Media(ports=POOL))
    assert world.engine.status(world.now)["media_pairs_free"] == 5000
