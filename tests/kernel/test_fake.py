"""The fake kernel behaves as kernel-facts.md says the real one was measured to."""

from __future__ import annotations

import pytest

from natfix.address import Endpoint
from natfix.commands import (
    AddMapping,
    AllowRemote,
    CloseFlow,
    Command,
    DeleteMapping,
    Flow,
    Kind,
    OpenFlow,
    SendPacket,
)
from natfix.errors import KernelRefused
from natfix.kernel.base import Kernel, Skeleton
from natfix.kernel.fake import FakeKernel, Trace
from natfix.kernel.fake_conntrack import STREAM, UNREPLIED, turned

MARK = 0x04000000
OUTSIDE_SIP = Endpoint("203.0.113.1", 5060)
SKELETON = Skeleton(("outside",), (5060,), (30000, 39999), MARK, queue=5060, bypass=False)

PHONE = Endpoint("192.168.1.10", 12000)
PHONE_SIP = Endpoint("192.168.1.10", 5060)
OTHER_PHONE = Endpoint("192.168.1.11", 12000)
FAR_PHONE = Endpoint("192.168.2.10", 12000)
PROVIDER = Endpoint("198.51.100.20", 40000)
PROVIDER_SIP = Endpoint("198.51.100.20", 5060)
STRANGER = Endpoint("198.51.100.66", 40000)
MAPPED = Endpoint("203.0.113.1", 30000)
OTHER_MAPPED = Endpoint("203.0.113.1", 30002)
FLOW = Flow(PHONE, PROVIDER, PROVIDER, MAPPED)

MAP = AddMapping(Kind.MEDIA, PHONE, MAPPED, lifetime=300.0)
ALLOW = AllowRemote(Kind.MEDIA, MAPPED, PROVIDER.host, lifetime=300.0)


def make_kernel(*commands: Command, **options: object) -> FakeKernel:
    """A kernel with natfix's table and *commands* in it."""
    kernel = FakeKernel(**options)      # type: ignore[arg-type]
    kernel.install(SKELETON)
    kernel.apply(commands)
    return kernel


def test_it_is_a_kernel() -> None:
    """The fake has the whole interface of a back end."""
    kernel: Kernel = FakeKernel()
    assert kernel.mappings() == []


# Masquerade: what happens without natfix

def test_masquerade_keeps_the_port_and_lets_answers_in() -> None:
    """An inside phone reaches a provider, and what the provider answers reaches the phone."""
    kernel = FakeKernel()
    assert kernel.trace(PHONE, PROVIDER, 0.0) == Trace(
        Endpoint("203.0.113.1", 12000), PROVIDER, hook="forward")
    assert kernel.trace(PROVIDER, Endpoint("203.0.113.1", 12000), 0.1).destination == PHONE


def test_masquerade_moves_a_taken_port() -> None:
    """Two phones with one source port and one destination cannot have the same outside port."""
    kernel = FakeKernel()
    first = kernel.trace(PHONE, PROVIDER, 0.0)
    second = kernel.trace(OTHER_PHONE, PROVIDER, 0.0)
    assert first.source.host == second.source.host == "203.0.113.1"
    assert first.source.port == 12000 != second.source.port
    assert kernel.trace(PROVIDER, second.source, 0.1).destination == OTHER_PHONE


def test_masquerade_gives_one_source_one_port_where_it_can() -> None:
    """A source that was moved once keeps that port towards others (find_appropriate_src)."""
    kernel = FakeKernel()
    kernel.trace(PHONE, PROVIDER, 0.0)
    moved = kernel.trace(OTHER_PHONE, PROVIDER, 0.0).source
    kernel.trace(PHONE, STRANGER, 0.0)
    assert kernel.trace(OTHER_PHONE, STRANGER, 0.0).source == moved


def test_new_flows_from_outside_are_dropped() -> None:
    """To the gateway itself, and to an inside address: the operator's policy is drop."""
    kernel = FakeKernel()
    assert "input policy" in kernel.trace(PROVIDER, Endpoint("203.0.113.1", 12000), 0.0).dropped
    assert "forward policy" in kernel.trace(PROVIDER, PHONE, 0.0).dropped
    assert kernel.flows() == []


def test_one_network_never_sees_the_gateway() -> None:
    """Hosts of one network talk directly."""
    assert FakeKernel().trace(PHONE, OTHER_PHONE, 0.0) == Trace(PHONE, OTHER_PHONE)
    assert FakeKernel().trace(PROVIDER, STRANGER, 0.0).hook == ""


def test_two_inside_networks_are_routed_unchanged() -> None:
    """SNAT is only for what leaves or was DNATed, mapping or not."""
    kernel = make_kernel(MAP, inside=("192.168.1.0/24", "192.168.2.0/24"))
    assert kernel.trace(PHONE, FAR_PHONE, 0.0) == Trace(PHONE, FAR_PHONE, hook="forward")
    assert kernel.trace(FAR_PHONE, PHONE, 0.0) == Trace(FAR_PHONE, PHONE, hook="forward")


def test_the_gateway_itself_is_reached_from_inside() -> None:
    """Input accepts inside hosts; both tuples of the flow stay as they are."""
    gateway = Endpoint("192.168.1.1", 53)
    kernel = make_kernel()
    assert kernel.trace(PHONE, gateway, 0.0) == Trace(PHONE, gateway, hook="input")
    assert kernel.trace(gateway, PHONE, 0.0) == Trace(gateway, PHONE, hook="output")


def test_an_operators_forward_works() -> None:
    """The operator's own DNAT rule is followed, let in and answered from the port it is on."""
    outside = Endpoint("203.0.113.1", 5060)
    kernel = make_kernel(forwards={outside: PHONE_SIP})
    assert kernel.trace(STRANGER, outside, 0.0)[:3] == (STRANGER, PHONE_SIP, "")
    assert kernel.trace(PHONE_SIP, STRANGER, 0.1).source == outside


# Mappings

def test_a_mapping_chooses_the_outside_port() -> None:
    """SNAT by map goes before masquerade, towards every destination."""
    kernel = make_kernel(MAP)
    assert kernel.trace(PHONE, PROVIDER, 0.0).source == MAPPED
    assert kernel.trace(PHONE, STRANGER, 0.0).source == MAPPED


def test_the_element_only_counts_for_a_flows_first_packet() -> None:
    """Deleting an element does not cut a running flow; deleting the entry does."""
    kernel = make_kernel(MAP)
    kernel.trace(PHONE, PROVIDER, 0.0)
    kernel.apply([DeleteMapping(Kind.MEDIA, PHONE, MAPPED)])
    assert kernel.trace(PHONE, PROVIDER, 1.0).source == MAPPED
    kernel.apply([CloseFlow(FLOW)])
    assert kernel.trace(PHONE, PROVIDER, 2.0).source == Endpoint("203.0.113.1", 12000)


def test_an_early_packet_pins_a_wrong_entry() -> None:
    """What left through masquerade keeps its port though a mapping came, until the entry is deleted."""
    kernel = make_kernel()
    pinned = kernel.trace(PHONE, PROVIDER, 0.0).source
    kernel.apply([MAP, ALLOW])
    assert kernel.trace(PHONE, PROVIDER, 0.1).source == pinned != MAPPED
    kernel.apply([OpenFlow(Kind.MEDIA, FLOW, 300.0)])
    assert kernel.trace(PHONE, PROVIDER, 0.2).source == MAPPED


def test_the_inward_half_needs_the_documented_line() -> None:
    """Behind "policy drop" a DNATed new flow passes only where the operator accepts ``ct status dnat``."""
    assert "forward policy" in make_kernel(MAP, ALLOW).trace(PROVIDER, MAPPED, 0.0).dropped
    kernel = make_kernel(MAP, ALLOW, dnat_accepted=True)
    assert kernel.trace(PROVIDER, MAPPED, 0.0) == Trace(PROVIDER, PHONE, hook="forward")
    assert kernel.trace(PHONE, PROVIDER, 0.1).source == MAPPED


def test_a_stranger_is_guarded_off_and_counted() -> None:
    """Who is not allowed meets the guard, leaves no entry, and is counted by outside endpoint."""
    kernel = make_kernel(MAP, ALLOW, dnat_accepted=True)
    for _ in range(3):
        assert kernel.trace(STRANGER, MAPPED, 0.0).dropped.startswith("guard")
    assert kernel.refused() == {MAPPED: 3}
    assert kernel.flows() == []


def test_what_comes_before_its_mapping_is_guarded_off() -> None:
    """An early packet to the media pool is never confirmed, so it pins nothing."""
    kernel = make_kernel(dnat_accepted=True)
    assert kernel.trace(PROVIDER, MAPPED, 0.0).dropped.startswith("guard")
    kernel.apply([MAP, ALLOW])
    assert kernel.trace(PROVIDER, MAPPED, 0.1).destination == PHONE


def test_hairpin() -> None:
    """Two inside phones that know each other's outside endpoints talk through the gateway."""
    kernel = make_kernel(
        MAP, AllowRemote(Kind.MEDIA, MAPPED, OTHER_PHONE.host, 300.0),
        AddMapping(Kind.MEDIA, OTHER_PHONE, OTHER_MAPPED, 300.0),
        AllowRemote(Kind.MEDIA, OTHER_MAPPED, PHONE.host, 300.0),
    )
    assert kernel.trace(PHONE, OTHER_MAPPED, 0.0) == Trace(MAPPED, OTHER_PHONE, hook="forward")
    assert kernel.trace(OTHER_PHONE, MAPPED, 0.1) == Trace(OTHER_MAPPED, PHONE, hook="forward")


def test_mappings_end_with_their_lifetime() -> None:
    """A dead daemon's holes close by themselves once their traffic stops."""
    kernel = make_kernel(MAP, ALLOW, dnat_accepted=True)
    kernel.trace(PHONE, PROVIDER, 290.0)
    assert kernel.trace(PHONE, PROVIDER, 310.0).source == MAPPED
    assert kernel.trace(PHONE, PROVIDER, 310.0 + UNREPLIED).source == Endpoint("203.0.113.1", 12000)
    assert kernel.mappings() == []


# Conntrack entries that natfix makes

def test_an_opened_flow_needs_no_map_and_no_line() -> None:
    """A conntrack entry of natfix's own is "established" to the operator's firewall, from both sides."""
    kernel = make_kernel(OpenFlow(Kind.MEDIA, FLOW, 300.0))
    assert kernel.trace(PROVIDER, MAPPED, 0.0) == Trace(PROVIDER, PHONE, hook="forward")
    assert kernel.trace(PHONE, PROVIDER, 0.0) == Trace(MAPPED, PROVIDER, hook="forward")
    assert "guard" in kernel.trace(STRANGER, MAPPED, 0.0).dropped


def test_an_opened_hairpin_flow() -> None:
    """Both ends inside: the callee's outside endpoint is the destination."""
    flow = Flow(PHONE, OTHER_MAPPED, OTHER_PHONE, MAPPED)
    kernel = make_kernel(OpenFlow(Kind.MEDIA, flow, 300.0))
    assert kernel.trace(PHONE, OTHER_MAPPED, 0.0)[:2] == (MAPPED, OTHER_PHONE)
    assert kernel.trace(OTHER_PHONE, MAPPED, 0.0)[:2] == (OTHER_MAPPED, PHONE)


def test_opening_replaces_what_disagrees_on_either_tuple() -> None:
    """The entries of others that hold the tuples are deleted, and their owners find another port."""
    thief = Endpoint("192.168.1.12", 30000)
    kernel = make_kernel()
    kernel.trace(PHONE, PROVIDER, 0.0)
    assert kernel.trace(thief, PROVIDER, 0.0).source == MAPPED
    kernel.apply([OpenFlow(Kind.MEDIA, FLOW, 300.0)])
    assert [state.flow for state in kernel.flows()] == [FLOW]
    assert kernel.trace(thief, PROVIDER, 0.1).source != MAPPED


def test_opening_refreshes_what_agrees_in_either_orientation() -> None:
    """A flow that the remote began is the same flow; it keeps its counters."""
    kernel = make_kernel(MAP, ALLOW, dnat_accepted=True)
    kernel.trace(PROVIDER, MAPPED, 0.0)
    kernel.apply([OpenFlow(Kind.MEDIA, FLOW, 500.0)])
    state = kernel.counters([FLOW])[FLOW]
    assert state.flow == turned(FLOW)
    assert (state.packets, state.reply_packets, state.lifetime) == (1, 0, 500.0)


def test_a_media_entry_lives_by_its_traffic_and_a_fixed_one_does_not() -> None:
    """FIXED_TIMEOUT is for registrar flows: no packet changes when they end."""
    signalling = Flow(PHONE_SIP, PROVIDER_SIP, PROVIDER_SIP, Endpoint("203.0.113.1", 5060))
    kernel = make_kernel(OpenFlow(Kind.MEDIA, FLOW, 300.0),
                         OpenFlow(Kind.SIGNALLING, signalling, 3600.0, fixed=True))
    kernel.trace(PHONE, PROVIDER, 10.0)
    kernel.trace(PHONE_SIP, PROVIDER_SIP, 10.0)
    lifetimes = {flow: state.lifetime for flow, state in kernel.counters([FLOW, signalling]).items()}
    assert lifetimes == {FLOW: STREAM, signalling: 3590.0}


# Diverting

@pytest.mark.parametrize(("source", "destination"), [
    (PHONE_SIP, PROVIDER), (PHONE, PROVIDER_SIP)], ids=["SIP source port", "SIP destination port"])
def test_sip_ports_are_diverted(source: Endpoint, destination: Endpoint) -> None:
    """Either end at a SIP port marks the flow, for both directions."""
    kernel = make_kernel()
    there = kernel.trace(source, destination, 0.0)
    back = kernel.trace(destination, there.source, 0.1)
    assert (there.diverted, back.diverted, back.destination) == (True, True, source)
    assert kernel.flows()[0].mark == MARK


def test_inside_networks_among_themselves_are_not_diverted() -> None:
    """SIP that is only routed is left alone, and what was DNATed (hairpinning) is not."""
    other = Endpoint("192.168.2.9", 5060)
    kernel = FakeKernel(inside=("192.168.1.0/24", "192.168.2.0/24"), forwards={OUTSIDE_SIP: other})
    kernel.install(SKELETON)
    assert not kernel.trace(PHONE_SIP, other, 0.0).diverted
    assert kernel.trace(Endpoint(PHONE_SIP.host, 5062), OUTSIDE_SIP, 0.0).diverted


def test_media_is_not_diverted() -> None:
    """RTP never goes to natfix."""
    kernel = make_kernel(MAP, ALLOW, dnat_accepted=True)
    assert not kernel.trace(PHONE, PROVIDER, 0.0).diverted


def test_a_signalling_mapping_diverts_any_port() -> None:
    """Phones that use another port than 5060 are diverted by their mapping, in both directions."""
    kernel = make_kernel(
        AddMapping(Kind.SIGNALLING, PHONE, MAPPED, 300.0),
        AllowRemote(Kind.SIGNALLING, MAPPED, PROVIDER.host, 300.0), dnat_accepted=True)
    assert kernel.trace(PROVIDER, MAPPED, 0.0).diverted
    assert kernel.trace(PHONE, STRANGER, 0.0).diverted


def test_what_natfix_does_to_a_held_packet_counts_for_it() -> None:
    """The element added before the verdict decides the port of the packet that is held."""
    kernel = make_kernel()
    crossing = kernel.enter(PHONE_SIP, PROVIDER_SIP, 0.0)
    assert (crossing.diverted, crossing.source, crossing.in_interface) == (True, PHONE_SIP, "inside")
    kernel.apply([AddMapping(Kind.SIGNALLING, PHONE_SIP, Endpoint("203.0.113.1", 15060), 300.0)])
    assert kernel.leave(crossing).source == Endpoint("203.0.113.1", 15060)


def test_a_flow_opened_for_a_held_packet_is_merged_with_it() -> None:
    """From inside: the same tuples in the same orientation are one entry, and keep its lifetime."""
    flow = Flow(PHONE_SIP, PROVIDER_SIP, PROVIDER_SIP, Endpoint("203.0.113.1", 5060))
    kernel = make_kernel()
    crossing = kernel.enter(PHONE_SIP, PROVIDER_SIP, 0.0)
    kernel.apply([AddMapping(Kind.SIGNALLING, PHONE_SIP, flow.reply_destination, 300.0),
                  OpenFlow(Kind.SIGNALLING, flow, 3600.0, fixed=True)])
    assert kernel.leave(crossing).dropped == ""
    assert [state.lifetime for state in kernel.flows()] == [3600.0]


def test_a_flow_opened_for_a_held_packet_from_outside_moves_its_port() -> None:
    """Kernels before 6.13 see a clash there: that packet comes from a wrong port, the next do not."""
    outside = Endpoint("203.0.113.1", 5060)
    flow = Flow(PHONE_SIP, PROVIDER_SIP, PROVIDER_SIP, outside)
    kernel = make_kernel(
        AddMapping(Kind.SIGNALLING, PHONE_SIP, outside, 300.0),
        AllowRemote(Kind.SIGNALLING, outside, PROVIDER.host, 300.0), dnat_accepted=True)
    crossing = kernel.enter(PROVIDER_SIP, outside, 0.0)
    kernel.apply([OpenFlow(Kind.SIGNALLING, flow, 3600.0)])
    assert kernel.leave(crossing).source != PROVIDER_SIP
    assert kernel.trace(PROVIDER_SIP, outside, 0.5)[:2] == (PROVIDER_SIP, PHONE_SIP)


def test_an_open_flow_marks_an_adopted_one() -> None:
    """A SIP flow from before natfix gets its mark by OpenFlow, and is diverted from then on."""
    flow = Flow(PHONE_SIP, PROVIDER_SIP, PROVIDER_SIP, Endpoint("203.0.113.1", 5060))
    kernel = FakeKernel()
    kernel.trace(PHONE_SIP, PROVIDER_SIP, 0.0)
    kernel.install(SKELETON)
    assert not kernel.trace(PHONE_SIP, PROVIDER_SIP, 0.1).diverted
    kernel.apply([OpenFlow(Kind.SIGNALLING, flow, 300.0)])
    assert kernel.trace(PHONE_SIP, PROVIDER_SIP, 0.2).diverted


# What goes wrong

def test_a_refused_transaction_opens_no_flows() -> None:
    """Elements first: where those are refused no entry is touched."""
    kernel = make_kernel(MAP)
    clash = AddMapping(Kind.MEDIA, PHONE, OTHER_MAPPED, 300.0)
    with pytest.raises(KernelRefused, match="EEXIST"):
        kernel.apply([OpenFlow(Kind.MEDIA, FLOW, 300.0), clash])
    assert kernel.flows() == []


def test_one_failure_can_be_asked_for() -> None:
    """``fail_next_apply`` refuses one transaction with its text, then all is well again."""
    kernel = make_kernel()
    kernel.fail_next_apply = "netlink: no buffer space"
    with pytest.raises(KernelRefused, match="no buffer space"):
        kernel.apply([MAP])
    kernel.apply([MAP])
    assert len(kernel.mappings()) == 1


def test_entries_can_be_refused() -> None:
    """A full conntrack table is counted; the elements stand, and are the second line."""
    kernel = FakeKernel(dnat_accepted=True)
    kernel.install(SKELETON)
    kernel.refuse_entries = "the conntrack table is full"
    kernel.apply([MAP, ALLOW, OpenFlow(Kind.MEDIA, FLOW, 300.0)])
    assert (kernel.entries_refused, kernel.last_refusal) == (1, "the conntrack table is full")
    assert kernel.trace(PROVIDER, MAPPED, 0.0).destination == PHONE


def test_a_flushed_ruleset_stops_natfix_until_it_is_installed_again() -> None:
    """Maps and divert are gone, entries stay; commands are refused; install and resync bring all back."""
    kernel = make_kernel(MAP, OpenFlow(Kind.MEDIA, FLOW, 300.0))
    kernel.flush_ruleset()
    assert kernel.trace(PHONE, PROVIDER, 0.0).source == MAPPED
    assert not kernel.trace(PHONE_SIP, PROVIDER_SIP, 0.0).diverted
    with pytest.raises(KernelRefused, match="not there"):
        kernel.apply([MAP])
    kernel.install(SKELETON)
    kernel.resync([MAP])
    assert kernel.trace(PHONE, STRANGER, 0.1).source == MAPPED


def test_ended_flows_are_told_once() -> None:
    """By their time, by natfix, or by somebody else."""
    kernel = make_kernel(OpenFlow(Kind.MEDIA, FLOW, 10.0))
    kernel.trace(PHONE_SIP, PROVIDER_SIP, 0.0)
    kernel.advance(10.0)
    assert kernel.pop_ended() == [FLOW]
    kernel.flush_flows()
    assert [flow.source for flow in kernel.pop_ended()] == [PHONE_SIP]
    assert kernel.pop_ended() == []


def test_begun_media_is_told() -> None:
    """Flows that packets begin at ports of the pool; neither natfix's own, nor those at other ports."""
    kernel = make_kernel(MAP, OpenFlow(Kind.MEDIA, FLOW, 10.0))
    kernel.trace(OTHER_PHONE, PROVIDER, 0.0)
    kernel.trace(FLOW.source, FLOW.destination, 0.0)
    assert kernel.pop_begun() == []
    elsewhere = FLOW.destination._replace(port=FLOW.destination.port + 2)
    kernel.trace(FLOW.source, elsewhere, 0.0)
    assert kernel.pop_begun() == [FLOW._replace(destination=elsewhere, reply_source=elsewhere)]
    assert kernel.pop_begun() == []


def test_remove_leaves_what_others_made() -> None:
    """``natfix down``: natfix's entries and those by its maps go; other flows stay, unmarked."""
    kernel = make_kernel(MAP, OpenFlow(Kind.MEDIA, FLOW, 300.0))
    kernel.trace(PHONE, STRANGER, 0.0)
    kernel.trace(OTHER_PHONE, PROVIDER_SIP, 0.0)
    kernel.remove()
    kernel.remove()
    assert [(state.flow.source, state.mark) for state in kernel.flows()] == [(OTHER_PHONE, 0)]
    assert kernel.mappings() == []


def test_own_packets_are_kept() -> None:
    """What natfix sends itself can be looked at, and makes no entry."""
    kernel = make_kernel()
    packet = SendPacket(MAPPED, PROVIDER, b"\0\0\0\0")
    assert kernel.send([packet]) == 0
    assert kernel.sent == [packet]
    assert kernel.flows() == []
