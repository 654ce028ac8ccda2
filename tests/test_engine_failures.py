"""When things fail: restarts, flushed tables, refused commands, another outside address, old flows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from natfix.address import Endpoint
from natfix.commands import Flow, Kind
from natfix.config import Inside, Outside, Settings
from natfix.engine import Engine
from natfix.kernel.fake import FakeKernel
from natfix.reports import FlowAdopted
from tests.playbook import OUTSIDE, PHONE, PROVIDER, Call, World, skeleton_of, told

NEW_ADDRESS = "203.0.113.99"


@pytest.fixture
def world() -> Iterator[World]:
    """A gateway whose operator did without the documented line."""
    yield from told(World())


def hold_and_resume(world: World, call: Call) -> None:
    """The phone holds the call and takes it up again."""
    caller = call.caller
    for line in ("a=sendonly", "a=sendrecv"):
        caller.sends("INVITE", caller.agent.sdp(line))
        world.provider.replies(world.provider.last, 200, world.provider.sdp())
        caller.sends("ACK")


def resynced(world: World) -> None:
    """Bring the kernel in line with the engine, as the live shell does after a failure."""
    world.kernel.resync(world.engine.desired())


# Restarts

def test_a_restart_in_a_call(world: World) -> None:
    """Audio goes on without natfix; afterwards hold, resume and BYE work, and nothing is left."""
    call = world.call(world.phone, world.provider)
    world.restart()
    world.assert_two_way_audio(call)
    hold_and_resume(world, call)
    world.assert_two_way_audio(call)
    call.hang_up()
    world.advance(200.0)
    assert [m for m in world.kernel.mappings() if m.kind is Kind.MEDIA] == []


def test_a_restart_while_it_rings(world: World) -> None:
    """The way of the answer stays open for a call that was early before the restart, too."""
    leg = world.phone.invites(world.provider.address)
    callee = world.provider.accepts(world.provider.last, 180)
    world.restart()
    world.advance(60.0)
    assert callee.answers().arrived
    leg.sends("ACK")
    world.assert_two_way_audio(Call(leg, callee))


def test_a_restart_in_an_incoming_call(world: World) -> None:
    """The caller's BYE after the restart names the phone's Contact as the phone wrote it."""
    world.phone.contact = "<sip:alice@192.168.1.10>"
    world.register(world.phone)
    call = world.call(world.provider, world.phone)
    world.restart()
    call.hang_up(by=call.caller)
    assert world.phone.last.method == "BYE"


def test_a_restart_keeps_registrations(world: World) -> None:
    """A phone that registered before the restart is called after it, for as long as it registered."""
    world.register(world.phone)
    world.advance(100.0)
    world.restart()
    world.advance(1000.0)
    world.assert_two_way_audio(world.call(world.provider, world.phone))
    world.advance(4000.0)
    assert world.engine.registrations(world.now) == []


def test_a_restart_keeps_outside_ports(world: World) -> None:
    """Each phone gets the port back that it had."""
    world.register(world.phone)
    world.register(world.other_phone)
    before = world.registered_uri(world.other_phone)
    world.restart()
    world.register(world.other_phone)
    assert world.registered_uri(world.other_phone) == before


def test_ports_of_before_are_not_given_away(world: World) -> None:
    """A call that runs over the restart keeps its ports to itself."""
    first = world.call(world.phone, world.provider)
    world.restart()
    world.call(world.other_phone, world.provider)
    world.assert_hears(world.provider, world.other_phone)
    ports = [mapping.outside for mapping in world.kernel.mappings()]
    assert len(ports) == len(set(ports))
    assert first.caller.final == 200


def test_damaged_rows_are_skipped(world: World) -> None:
    """A state file that somebody edited costs what it damaged, not the start."""
    world.register(world.phone)
    key = next(key for key in world.rows if key[0] == "registrations")
    world.rows["registrations", "bad"] = world.rows[key]._replace(row={"inside": 7})
    world.restart()
    assert len(world.engine.registrations(world.now)) == 1


# The kernel

def test_a_refused_transaction_costs_one_packet(world: World) -> None:
    """The INVITE is dropped; its retransmission goes through, and the call is whole."""
    world.kernel.fail_next_apply = "no buffer space"
    leg = world.phone.invites(world.provider.address)
    assert leg.delivery is not None
    assert leg.delivery.arrived is None
    again = world.phone.sends(leg.delivery.payload)
    assert again.arrived
    call = world.answer(leg, world.provider)
    world.assert_two_way_audio(call)


def test_a_flushed_ruleset_comes_back_whole(world: World) -> None:
    """After ``nft flush ruleset`` install and resync restore all that stood."""
    world.register(world.phone)
    call = world.call(world.phone, world.provider)
    before = {mapping[:4] for mapping in world.kernel.mappings()}
    world.kernel.flush_ruleset()
    world.kernel.install(skeleton_of(world.settings))
    resynced(world)
    assert {mapping[:4] for mapping in world.kernel.mappings()} == before
    world.assert_two_way_audio(call)


def test_flushed_flows_come_back(world: World) -> None:
    """After ``conntrack -F`` each flow that somebody needs is opened anew."""
    call = world.call(world.phone, world.provider)
    world.kernel.flush_flows()
    world.advance(0.1)
    world.assert_two_way_audio(call)
    call.callee.sends("BYE")
    assert world.phone.last.method == "BYE"


def test_a_resync_changes_nothing_that_is_right(world: World) -> None:
    """desired() is what the kernel holds."""
    world.register(world.phone)
    world.call(world.phone, world.provider)
    before = {mapping[:4] for mapping in world.kernel.mappings()}
    flows = sorted(state.flow for state in world.kernel.flows())
    resynced(world)
    assert {mapping[:4] for mapping in world.kernel.mappings()} == before
    assert sorted(state.flow for state in world.kernel.flows()) == flows


def test_a_refreshed_fixed_flow_is_at_rest(world: World) -> None:
    """A fixed entry can only be made anew, and the kernel tells that the old one ended: that is no loss."""
    world.register(world.phone)
    resynced(world)
    world.advance(1.0)
    told = len(world.log)
    world.advance(10.0)
    assert len(world.log) == told


def test_elements_are_refreshed_before_they_end(world: World) -> None:
    """A call of three hours keeps its elements; they would end 300 s after the daemon."""
    call = world.call(world.phone, world.provider)
    for _ in range(40):
        world.advance(270.0)
        world.assert_two_way_audio(call)
        world.poll_counters()
        assert min(m.lifetime for m in world.kernel.mappings() if m.kind is Kind.MEDIA) > 60.0


def test_a_dead_daemons_holes_close() -> None:
    """Nobody refreshes: elements end by themselves, a call's entries with its traffic."""
    world = World()
    call = world.call(world.phone, world.provider)
    for _ in range(10):
        world.kernel.advance(world.kernel.now + 60.0)
        world.now = world.kernel.now
        assert world.kernel.trace(world.phone.rtp, world.provider.rtp, world.now).source.port == 30000
    assert world.kernel.mappings() == []
    world.kernel.advance(world.now + 400.0)
    assert [s for s in world.kernel.flows() if s.flow.source == world.phone.rtp] == []
    assert call.caller.final == 200


# Another address

def test_a_new_outside_address(world: World) -> None:
    """Mappings of the old one end; a new registration and call carry the new one."""
    world.register(world.phone)
    world.change_outside_address(NEW_ADDRESS)
    assert [m for m in world.kernel.mappings() if m.outside.host == OUTSIDE] == []
    world.register(world.phone)
    assert NEW_ADDRESS in world.registered_uri(world.phone)
    world.assert_two_way_audio(world.call(world.phone, world.provider))
    world.assert_two_way_audio(world.call(world.provider, world.phone))


def test_a_retransmission_across_an_address_change(world: World) -> None:
    """The same request leaves as the same bytes, though new ones name the new address."""
    leg = world.phone.invites(world.provider.address)
    first = leg.delivery
    assert first is not None
    world.change_outside_address(NEW_ADDRESS)
    assert world.phone.sends(first.payload).arrived == first.arrived


def test_the_address_goes_and_comes_back(world: World) -> None:
    """Without an outside address messages pass unfixed; with it all is as before."""
    world.register(world.phone)
    world.change_outside_address(NEW_ADDRESS)
    world.change_outside_address(OUTSIDE)
    world.register(world.phone)
    world.assert_two_way_audio(world.call(world.provider, world.phone))


# Flows from before

def test_an_old_flow_keeps_its_port() -> None:
    """A phone that was NATed to a port of the kernel's choice before natfix started keeps it."""
    kernel = FakeKernel()
    taken = Endpoint("192.168.1.99", 5060)
    kernel.trace(taken, PROVIDER, 1000.0)
    shown = kernel.trace(PHONE, PROVIDER, 1000.0).source
    assert shown.port != 5060
    world = World()
    world.kernel.trace(taken, PROVIDER, world.now)
    world.kernel.skeleton = None
    world.kernel.trace(PHONE, PROVIDER, world.now)
    world.kernel.install(skeleton_of(world.settings))
    state = next(state for state in world.kernel.flows() if state.flow.source == PHONE)
    world.report(FlowAdopted(state))
    world.register(world.phone)
    assert world.resolve_uri(world.registered_uri(world.phone)) == state.flow.reply_destination == shown
    world.assert_two_way_audio(world.call(world.provider, world.phone))


def test_two_old_flows_on_one_port_do_not_clash() -> None:
    """Two phones were NATed to one port towards different peers: one keeps it, neither is refused."""
    world = World()
    peers = (PROVIDER, Endpoint("198.51.100.21", 5060))
    outside = Endpoint(OUTSIDE, 5060)
    for phone, peer in zip((PHONE, world.other_phone.endpoint), peers, strict=True):
        world.kernel.trace(phone, peer, world.now)
    for state in world.kernel.flows():
        world.report(FlowAdopted(state))
    assert world.refusals == []
    mapped = {m.inside: m.outside for m in world.kernel.mappings()}
    assert list(mapped.values()).count(outside) == 1


def test_a_flow_of_others_is_not_adopted(world: World) -> None:
    """A flow that does not begin inside, or has another outside address."""
    flow = Flow(PROVIDER, Endpoint(OUTSIDE, 5060), PHONE, PROVIDER)
    world.kernel.trace(Endpoint("192.168.1.30", 5060), PROVIDER, world.now)
    state = world.kernel.flows()[0]
    world.report(FlowAdopted(state._replace(flow=flow)))
    assert world.kernel.mappings() == []


def test_engines_share_nothing() -> None:
    """Two engines in one process do not see each other's calls."""
    first, second = World(), World()
    first.register(first.phone)
    assert second.engine.registrations(second.now) == []
    networks = tuple(first.kernel.networks.values())
    assert Engine(Settings(Inside(networks), Outside("outside"))).next_timeout() is None


def test_a_phone_that_keeps_trying_gets_the_new_address(world: World) -> None:
    """A REGISTER every 20 s keeps its old conntrack entry alive; it must not keep the old address as well."""
    for number in range(4):
        if number == 2:
            world.change_outside_address(NEW_ADDRESS)
        leg = world.phone.registers()
        world.advance(20.0)
    assert leg.delivery is not None
    assert leg.delivery.trace is not None
    assert leg.delivery.trace.source.host == NEW_ADDRESS
