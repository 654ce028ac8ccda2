"""A kernel whose outside address is another one than others see."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from natfix.address import Endpoint, network_from_text
from natfix.commands import (
    AddMapping,
    AllowRemote,
    CloseFlow,
    Command,
    DeleteMapping,
    Flow,
    ForbidRemote,
    Kind,
    OpenFlow,
    SendPacket,
)
from natfix.kernel.advertise import AdvertisedFlows, AdvertisedKernel
from natfix.kernel.base import FlowState, KernelMapping
from natfix.mappings import reversed_flow
from natfix.reports import AddressesChanged
from tests.standins import RecordingKernel

LINK, SEEN = "10.0.0.2", "203.0.113.7"
ADDRESSES = AddressesChanged({"wan0": LINK}, ((network_from_text("192.168.1.0/24"), "lan0"),),
                             frozenset({LINK, "192.168.1.1"}), SEEN)
PHONE, PHONE_2 = Endpoint("192.168.1.10", 4000), Endpoint("192.168.1.11", 4000)
FAR, FAR_2 = Endpoint("198.51.100.7", 5000), Endpoint("198.51.100.8", 5000)


def seen(port: int) -> Endpoint:
    return Endpoint(SEEN, port)


def link(port: int) -> Endpoint:
    return Endpoint(LINK, port)


FLOWS = {
    "out": (Flow(PHONE, FAR, FAR, seen(30000)), Flow(PHONE, FAR, FAR, link(30000))),
    "relayed": (Flow(PHONE, seen(30002), FAR, seen(30000)), Flow(PHONE, link(30002), FAR, link(30000))),
    "joined": (Flow(FAR, seen(30000), FAR_2, seen(30002)), Flow(FAR, link(30000), FAR_2, link(30002))),
    "hairpin": (Flow(PHONE, seen(30002), PHONE_2, seen(30000)),
                Flow(PHONE, link(30002), PHONE_2, link(30000))),
}


@pytest.fixture
def below() -> RecordingKernel:
    return RecordingKernel()


@pytest.fixture
def kernel(below: RecordingKernel) -> AdvertisedKernel:
    return AdvertisedKernel(below, ADDRESSES)


@pytest.mark.parametrize(("wanted", "held"), FLOWS.values(), ids=list(FLOWS))
def test_flows(kernel: AdvertisedKernel, below: RecordingKernel, wanted: Flow, held: Flow) -> None:
    """Inside is told the link's address, and what comes from outside has it, too."""
    kernel.apply([OpenFlow(Kind.MEDIA, wanted, 60.0), CloseFlow(wanted)])
    assert commands(below) == [OpenFlow(Kind.MEDIA, held, 60.0), CloseFlow(held)]
    assert kernel.seen_flow(held) == wanted


def test_flows_of_the_gateways_own(kernel: AdvertisedKernel) -> None:
    """Whose own endpoint has the link's address, too: an entry is told of as it was asked for."""
    wanted = Flow(link(12000), seen(30002), FAR, seen(30000))
    kernel.apply([OpenFlow(Kind.MEDIA, wanted, 60.0)])
    held = Flow(link(12000), link(30002), FAR, link(30000))
    assert kernel.seen_flow(held) == wanted
    assert kernel.seen_flow(reversed_flow(held)) == reversed_flow(wanted)
    kernel.apply([CloseFlow(wanted)])
    assert kernel.seen_flow(held) == Flow(seen(12000), seen(30002), FAR, seen(30000))


def commands(below: RecordingKernel) -> list[Command]:
    return list(below.done[-1][1])


def test_elements(kernel: AdvertisedKernel, below: RecordingKernel) -> None:
    """Elements have the link's address, in both verbs."""
    made = [AddMapping(Kind.MEDIA, PHONE, seen(30000), 60.0), DeleteMapping(Kind.MEDIA, PHONE, seen(30000)),
            AllowRemote(Kind.RELAY, seen(30000), FAR.host, 60.0),
            ForbidRemote(Kind.RELAY, seen(30000), FAR.host)]
    for verb in (kernel.apply, kernel.resync):
        verb(made)
        assert commands(below) == [command._replace(outside=link(30000)) for command in made]


class Telling(RecordingKernel):
    """A kernel that has something to tell."""

    def mappings(self) -> list[KernelMapping]:
        return [KernelMapping(Kind.MEDIA, PHONE, link(30000), True, 60.0, "")]

    def flows(self) -> list[FlowState]:
        return [FlowState(held, 60.0, 1, 1, 0, True) for _, held in FLOWS.values()]

    def counters(self, flows: Any) -> dict[Flow, FlowState]:
        return {flow: FlowState(flow, 60.0, 1, 1, 0, True) for flow in flows}

    def refused(self) -> dict[Endpoint, int]:
        return {link(30000): 3}


def test_what_it_tells() -> None:
    """Whatever is read back names the address that others see."""
    kernel = AdvertisedKernel(Telling(), ADDRESSES)
    wanted = [flow for flow, _ in FLOWS.values()]
    assert kernel.mappings()[0].outside == seen(30000)
    assert [state.flow for state in kernel.flows()] == wanted
    assert list(kernel.counters(wanted)) == wanted
    assert [state.flow for state in kernel.counters(wanted).values()] == wanted
    assert kernel.refused() == {seen(30000): 3}


def test_what_was_shown_before(kernel: AdvertisedKernel, below: RecordingKernel) -> None:
    """Others see another address now: commands of both times mean the same link."""
    kernel.follow(replace(ADDRESSES, advertised="203.0.113.8"))
    kernel.apply([DeleteMapping(Kind.MEDIA, PHONE, seen(30000)),
                  AddMapping(Kind.MEDIA, PHONE, Endpoint("203.0.113.8", 30000), 60.0)])
    assert [command.outside for command in commands(below)] == [link(30000)] * 2     # type: ignore[union-attr]


def test_the_link_has_another_address(kernel: AdvertisedKernel, below: RecordingKernel) -> None:
    """What is shown stays, what stands for it in the kernel follows."""
    kernel.follow(replace(ADDRESSES, outside={"wan0": "10.0.0.3"}))
    kernel.apply([DeleteMapping(Kind.MEDIA, PHONE, seen(30000))])
    assert commands(below) == [DeleteMapping(Kind.MEDIA, PHONE, Endpoint("10.0.0.3", 30000))]


def test_own_packets(kernel: AdvertisedKernel, below: RecordingKernel) -> None:
    """natfix's own words leave with the link's address, which the NAT before it translates."""
    kernel.send([SendPacket(seen(5060), FAR, b"x")])
    assert below.done[-1] == ("send", [SendPacket(link(5060), FAR, b"x")])


def test_events() -> None:
    """Entries that end or begin are told in the same terms."""
    class Source:
        def fileno(self) -> int:
            return 7

        def read(self) -> list[Flow]:
            return [held for _, held in FLOWS.values()]
    told = AdvertisedFlows(Source(), AdvertisedKernel(RecordingKernel(), ADDRESSES))
    assert told.fileno() == 7
    assert list(told.read()) == [wanted for wanted, _ in FLOWS.values()]
