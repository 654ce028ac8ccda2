"""natfix's own table and entries in a real kernel: real packets through a gateway of namespaces."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from natfix.address import Endpoint
from natfix.commands import AddMapping, AllowRemote, CloseFlow, DeleteMapping, Flow, ForbidRemote, Kind, OpenFlow
from tests.kernel.wires import (
    BIT,
    GATEWAY,
    PHONE,
    PHONE_2,
    REMOTE,
    STRANGER,
    Wires,
    flow_out,
    sent,
    wires,
)
from tests.namespace import kernel_test

pytestmark = kernel_test

MEDIA, SIGNALLING = Kind.MEDIA, Kind.SIGNALLING
RTP, RTP_OUT, RTP_REMOTE = Endpoint(PHONE, 12000), Endpoint(GATEWAY, 30000), Endpoint(REMOTE, 40000)


@pytest.fixture
def gateway() -> Iterator[Wires]:
    """A gateway with an operator's default-drop firewall and masquerade, and natfix's table."""
    with wires() as made:
        made.firewall()
        made.install()
        yield made


def media_mapping(inside: Endpoint = RTP, outside: Endpoint = RTP_OUT, lifetime: float = 60) -> AddMapping:
    return AddMapping(MEDIA, inside, outside, lifetime, owner="call 1")


def test_element_decides_the_outside_port(gateway: Wires) -> None:
    """A flow whose source is mapped leaves from its outside endpoint, whatever the masquerade would do."""
    phone, remote = gateway.bind(*RTP), gateway.bind(*RTP_REMOTE)
    gateway.kernel.apply([media_mapping()])
    assert sent(phone, RTP_REMOTE, remote) == RTP_OUT


def test_entry_passes_the_firewall_both_ways(gateway: Wires) -> None:
    """An opened flow needs no map element and no rule of the operator's, whoever sends first."""
    phone, remote = gateway.bind(*RTP), gateway.bind(*RTP_REMOTE)
    gateway.kernel.apply([OpenFlow(MEDIA, flow_out(RTP, RTP_REMOTE, RTP_OUT), 60)])
    assert sent(remote, RTP_OUT, phone) == RTP_REMOTE
    assert sent(phone, RTP_REMOTE, remote) == RTP_OUT


def test_allowed_remote_comes_in(gateway: Wires) -> None:
    """With the documented line, a new flow from an allowed address reaches the phone, from any port."""
    gateway.gateway.run("nft delete table inet firewall")
    gateway.firewall(dnat_line=True)
    phone, remote = gateway.bind(*RTP), gateway.bind(REMOTE, 55555)
    gateway.kernel.apply([media_mapping(), AllowRemote(MEDIA, RTP_OUT, REMOTE, 60)])
    assert sent(remote, RTP_OUT, phone) == Endpoint(REMOTE, 55555)
    assert sent(phone, Endpoint(REMOTE, 55555), remote) == RTP_OUT
