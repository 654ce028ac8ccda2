"""Reports: old flows, other addresses, other ports, ended entries, counters."""

from __future__ import annotations

import pytest

from natfix.address import Endpoint
from natfix.commands import CloseFlow, Flow, OpenFlow
from natfix.config import Inside, Limits, Outside, Settings, Trunk
from natfix.mappings import reversed_flow
from natfix.reports import FlowAdopted, FlowCounters, FlowDestroyed, PortsInUse
from tests.playbook import OTHER_PHONE, OUTSIDE, PHONE, PROVIDER, World


@pytest.fixture
def world() -> World:
    return World()


def test_an_adopted_flow_keeps_its_port(world: World) -> None:
    """A flow NATed before natfix started is shown with the port that the kernel gave it."""
    trace = world.kernel.trace(PHONE, PROVIDER, world.now)
    state = next(flow for flow in world.kernel.flows() if flow.flow.source == PHONE)
    world.report(FlowAdopted(state))
    assert world.engine._mappings.find(PHONE).outside == trace.source == Endpoint(OUTSIDE, 5060)


def test_of_two_adopted_flows_with_one_port_the_first_wins(world: World) -> None:
    """On conflict the flow that was reported first, the registrar's, keeps it; the other starts anew."""
    world.kernel.trace(PHONE, PROVIDER, world.now)
    state = next(flow for flow in world.kernel.flows() if flow.flow.source == PHONE)
    other = state._replace(flow=state.flow._replace(source=OTHER_PHONE))
    world.report(FlowAdopted(state))
    outcome = world.report(FlowAdopted(other))
    assert outcome.notes[0].rule == "adopt"
    assert outcome.commands == [CloseFlow(other.flow)]
    assert world.engine._mappings.find(OTHER_PHONE) is None


def test_a_new_outside_address_ends_what_the_old_one_had(world: World) -> None:
    """Mappings and entries of the old address go; the next message names the new one."""
    world.register(world.phone)
    world.change_outside_address("203.0.113.99")
    assert world.kernel.mappings() == []
    assert world.engine.registrations(world.now) == []
    world.phone.registers()
    assert "203.0.113.99" in world.provider.last["contact"]


def test_trunks_open_also_where_the_address_is_configured() -> None:
    """A configured outside address is known before the links are, and trunks are opened all the same."""
    networks = tuple(World().kernel.networks.values())
    settings = Settings(inside=Inside(networks), outside=Outside("outside", OUTSIDE),
                        trunks=(Trunk("192.168.1.5", (PROVIDER.host,)),))
    assert [mapping.inside.host for mapping in World(settings).kernel.mappings()] == ["192.168.1.5"]


def test_a_trunk_whose_port_is_taken_does_not_stop_the_others() -> None:
    """A trunk that cannot be opened is noted; the rest of the report is taken."""
    networks = tuple(World().kernel.networks.values())
    trunks = tuple(Trunk(host, (PROVIDER.host,)) for host in ("192.168.1.5", "192.168.1.6"))
    settings = Settings(inside=Inside(networks), trunks=trunks, limits=Limits(mappings=1))
    world = World(settings)
    assert [mapping.inside.host for mapping in world.kernel.mappings()] == ["192.168.1.5"]


def test_an_ended_entry_is_reported_from_either_side(world: World) -> None:
    """The kernel tells of an entry as the first packet went; natfix knows it from inside."""
    world.register(world.phone)
    flow = Flow(PHONE, PROVIDER, PROVIDER, Endpoint(OUTSIDE, 5060))
    for told in (flow, reversed_flow(flow)):
        opened, = world.report(FlowDestroyed(told)).commands
        assert isinstance(opened, OpenFlow)
        assert opened.flow == flow
    assert world.report(FlowDestroyed(flow._replace(source=OTHER_PHONE))).commands == []


def test_ports_in_use_are_kept_out_of_both_pools(world: World) -> None:
    """A local socket's port in the media pool is not given to a call."""
    world.report(PortsInUse(frozenset({30000, 30001})))
    world.phone.invites(world.provider.address)
    assert world.media_of(world.provider.last).port == 30002


def test_what_the_guard_refused_is_told_in_the_status(world: World) -> None:
    """The kernel's counters replace those that were told before."""
    mapped = Endpoint(OUTSIDE, 30000)
    for count in (3, 5):
        world.report(FlowCounters({}, {mapped: count}))
    assert world.engine.status(world.now)["refused_packets"] == 5


def test_who_floods_is_told_while_he_does(world: World) -> None:
    """What the kernel dropped for a host's rate is in the status; a note names the setting, as often as the
    count has grown."""
    told = [world.report(FlowCounters({}, {}, {PHONE.host: count})).notes for count in (7, 9, 9)]
    assert [[note.reason for note in notes] for notes in told] == [
        [f"[limits] packets_per_host is reached by {PHONE.host}"]] * 2 + [[]]
    assert world.engine.status(world.now)["over_rate"] == {PHONE.host: 9}
