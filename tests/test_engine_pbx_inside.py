"""A PBX inside that leaves media to its phones, and one with an outside address of its own."""

from __future__ import annotations

from dataclasses import replace

import pytest

from natfix.address import Endpoint
from natfix.commands import Kind
from natfix.config import Inside, Outside, Settings, Static
from natfix.kernel.fake import FakeKernel
from tests.far_agent import PBX
from tests.playbook import OUTSIDE, PHONE, World

OWN = "203.0.113.5"
PHONE_RTP = Endpoint(PHONE.host, 12000)


def world_with(**tables: object) -> World:
    networks = tuple(FakeKernel().networks.values())
    settings = Settings(inside=Inside(networks=networks), outside=Outside(interface="outside"))
    return World(replace(settings, **tables))       # type: ignore[arg-type]


@pytest.mark.parametrize("named", [True, False])
def test_a_named_pbx_may_name_its_phones(named: bool) -> None:
    """natfix does not see who has registered with it; any other host's SDP names that host only."""
    networks = tuple(FakeKernel().networks.values())
    world = world_with(inside=Inside(networks=networks, pbx=(PBX.host,) if named else ()))
    pbx = world.agent("pbx", PBX, PHONE_RTP)
    world.call(pbx, world.provider)
    assert (PHONE_RTP in world.media_mappings()) is named


@pytest.mark.parametrize("address", ["198.51.100.77", OUTSIDE, "127.0.0.1"])
def test_it_may_name_nobody_else(address: str) -> None:
    """What is not inside gets no mapping, whoever names it."""
    networks = tuple(FakeKernel().networks.values())
    world = world_with(inside=Inside(networks=networks, pbx=(PBX.host,)))
    pbx = world.agent("pbx", PBX, Endpoint(address, 12000))
    world.call(pbx, world.provider)
    assert world.media_mappings() == {}


def test_an_outside_address_of_its_own() -> None:
    """1:1 NAT: SIP and media of the PBX are shown at its own address, the phones' at the gateway's."""
    world = world_with(statics=(Static(PBX.host, OWN),))
    world.kernel.own_addresses.add(OWN)
    pbx = world.agent("pbx", PBX, Endpoint(PBX.host, 14000))
    call = world.call(pbx, world.provider)
    world.assert_two_way_audio(call)
    request = world.provider.received("INVITE")[0]
    assert f"{OWN}:5060" in request["contact"]
    assert world.told_media(world.provider).host == OWN
    other = world.call(world.phone, world.provider)
    assert world.told_media(world.provider).host == OUTSIDE
    for each in (call, other):
        each.hang_up()
    world.advance(40)
    assert world.is_quiet()


def test_its_address_is_kept_over_a_restart() -> None:
    """A restarted natfix takes its mappings up again, and a changed outside address does not end them."""
    world = world_with(statics=(Static(PBX.host, OWN),))
    world.kernel.own_addresses.add(OWN)
    pbx = world.agent("pbx", PBX, Endpoint(PBX.host, 14000))
    call = world.call(pbx, world.provider)
    world.restart()
    world.change_outside_address("203.0.113.9")
    world.assert_two_way_audio(call)
    signalling, = [each for each in world.kernel.mappings() if each.kind is Kind.SIGNALLING]
    assert signalling.outside == Endpoint(OWN, 5060)
