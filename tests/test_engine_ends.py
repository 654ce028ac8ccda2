"""How calls end: refused, cancelled, given up, hung up, forgotten; nothing is left of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from natfix.address import Endpoint
from tests.agent import Leg
from tests.playbook import PROVIDER, Call, World, told

LINGER = 32.0           # seconds; RFC 3261: 64*T1
RELEASE = 2.0           # seconds from a call's end to its ports'


@pytest.fixture
def world() -> Iterator[World]:
    """A gateway whose operator did without the documented line."""
    yield from told(World())


@pytest.fixture
def open_world() -> Iterator[World]:
    """A gateway with ``ct status dnat accept``."""
    yield from told(World(dnat_accepted=True))


def incoming(world: World) -> Leg:
    """An INVITE from the provider to the registered phone; returns the caller's leg."""
    uri = world.registered_uri(world.phone)
    return world.provider.invites(uri, world.resolve_uri(uri))


@pytest.mark.parametrize("status", [486, 503, 408])
def test_a_call_that_is_refused(world: World, status: int) -> None:
    """A final failure frees the ports 2 s later."""
    leg = world.phone.invites(world.provider.address)
    world.provider.replies(world.provider.last, status)
    leg.sends("ACK")
    world.advance(RELEASE + LINGER)
    assert world.is_quiet()


def test_a_cancelled_call(world: World) -> None:
    """CANCEL, its 200, 487 and ACK."""
    leg = world.phone.invites(world.provider.address)
    callee = world.provider.accepts(world.provider.last, 180)
    leg.sends("CANCEL")
    world.provider.replies(world.provider.last, 200, contact="")
    callee.replies(487)
    leg.sends("ACK")
    world.advance(RELEASE + LINGER)
    assert world.is_quiet()


def test_a_cancelled_incoming_call(world: World) -> None:
    """The caller outside gives up: the phone gets the CANCEL with its own Contact as Request-URI."""
    world.register(world.phone)
    leg = incoming(world)
    callee = world.phone.accepts(world.phone.last, 180)
    leg.sends("CANCEL")
    assert world.phone.last.method == "CANCEL"
    world.phone.replies(world.phone.last, 200, contact="")
    callee.replies(487)
    leg.sends("ACK")
    world.advance(RELEASE + LINGER)
    assert world.is_quiet()


def test_nobody_answers(world: World) -> None:
    """An INVITE that rings for ever is given up after Timer C."""
    leg = world.phone.invites(world.provider.address)
    world.provider.accepts(world.provider.last, 180)
    world.advance(190.0)
    assert world.media_mappings()
    world.advance(60.0)
    assert world.is_quiet()
    assert leg.final == 180


@pytest.mark.parametrize("seconds", [45.0, 170.0])
def test_a_call_that_rings_for_a_minute(world: World, seconds: float) -> None:
    """The conntrack entry of an INVITE ends after 30 s; an unregistered phone still gets its 200."""
    leg = world.phone.invites(world.provider.address)
    callee = world.provider.accepts(world.provider.last, 180)
    world.advance(seconds)
    assert callee.answers().arrived
    leg.sends("ACK")
    world.assert_two_way_audio(Call(leg, callee))


@pytest.mark.parametrize("restarts", [False, True])
def test_a_call_that_rings_while_conntrack_is_full(open_world: World, restarts: bool) -> None:
    """No entry can be made, and the INVITE's own has ended: the answer comes in by the map."""
    world = open_world
    world.kernel.refuse_entries = "the conntrack table is full"
    leg = world.phone.invites(world.provider.address)
    callee = world.provider.accepts(world.provider.last, 180)
    if restarts:
        world.restart()
        world.kernel.resync(world.engine.desired())
    world.advance(60.0)
    assert callee.answers().arrived
    leg.sends("ACK")
    world.assert_two_way_audio(Call(leg, callee))


def test_who_may_come_in_while_it_rings(open_world: World) -> None:
    """Only the address that the INVITE went to, only once it has answered, and only until the call fails."""
    world = open_world
    stranger = world.agent("stranger", Endpoint("198.51.100.66", 5060))
    beside = world.agent("beside", Endpoint(PROVIDER.host, 5099))
    knock = "OPTIONS sip:alice@203.0.113.1 SIP/2.0\nVia: SIP/2.0/UDP x;branch=z9hG4bK{}\n\n"

    def let_in() -> list[str]:
        return [agent.user for agent in (stranger, beside)
                if agent.sends(knock.format(agent.user), Endpoint("203.0.113.1", 5060)).arrived]

    leg = world.phone.invites(world.provider.address)
    assert let_in() == []
    callee = world.provider.accepts(world.provider.last, 180)
    assert let_in() == ["beside"]
    callee.replies(486)
    leg.sends("ACK")
    world.advance(RELEASE + 40.0)
    assert let_in() == []


@pytest.mark.parametrize(("status", "ends"), [(200, True), (481, True), (408, True), (401, False)])
def test_what_answers_a_bye(world: World, status: int, ends: bool) -> None:
    """A 2xx, 481 or 408 ends the call; a challenge does not."""
    call = world.call(world.phone, world.provider)
    call.caller.sends("BYE")
    world.provider.replies(world.provider.last, status, contact="")
    world.advance(RELEASE + LINGER + 40.0)
    assert world.is_quiet() is ends
    if not ends:
        world.assert_two_way_audio(call)


def test_an_unanswered_bye(world: World) -> None:
    """Nobody answers BYE: the call is over after 64*T1."""
    call = world.call(world.phone, world.provider)
    call.caller.sends("BYE")
    world.advance(LINGER + RELEASE + LINGER + 1.0)
    assert world.is_quiet()


def test_a_late_bye_is_still_restored(world: World) -> None:
    """While the dialog lingers a retransmitted BYE gets its right Request-URI."""
    world.register(world.phone)
    call = world.call(world.provider, world.phone)
    call.hang_up(by=call.callee)
    world.advance(10.0)
    call.caller.sends("BYE")
    assert world.phone.last.method == "BYE"


def test_a_strangers_bye_ends_nothing(open_world: World) -> None:
    """A BYE whose Call-ID and tags fit, but which comes from no peer of the call."""
    world = open_world
    world.register(world.phone)
    call = world.call(world.provider, world.phone)
    bye = call.caller.sends("BYE").payload
    stranger = world.agent("stranger", Endpoint(PROVIDER.host, 5099))
    assert world.phone.received("BYE")
    forged = world.agent("forger", Endpoint("198.51.100.66", 5060))
    delivery = forged.sends(bye, Endpoint("203.0.113.1", 5060))
    assert delivery.arrived is None
    assert stranger.inbox == []


def test_a_silent_call_is_given_up(world: World) -> None:
    """No message and no media packet for an hour; media packets keep it."""
    call = world.call(world.phone, world.provider)
    for _ in range(5):
        world.advance(1000.0)
        world.assert_two_way_audio(call)
        world.poll_counters()
    world.advance(3700.0 + LINGER)
    assert world.is_quiet()


@pytest.mark.parametrize(("is_acknowledged", "is_over"), [(True, False), (False, True)])
def test_an_answer_that_nobody_acknowledges(world: World, is_acknowledged: bool, is_over: bool) -> None:
    """A 2xx is not repeated for ever (RFC 3261, section 13.3.1.4): without ACK, and without media, the call
    is given up as an unanswered one is."""
    leg = world.phone.invites(world.provider.address)
    world.provider.accepts(world.provider.last, 200, sdp=world.provider.sdp())
    assert leg.final == 200
    if is_acknowledged:
        leg.sends("ACK")
    world.advance(200.0 + LINGER + 3.0)
    assert world.is_quiet() == is_over
