"""A PBX on the gateway itself: its SIP comes to natfix at input and output, its relayed media goes out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from natfix.address import Endpoint, network_from_text
from natfix.commands import AddMapping, AllowRemote, Flow, Kind, OpenFlow
from tests.kernel.wires import (
    GATEWAY,
    GATEWAY_INSIDE,
    MEDIA,
    PHONE,
    REMOTE,
    RTP_OUT,
    SKELETON,
    Queue,
    Wires,
    is_lost,
    ports,
    sent,
)
from tests.namespace import kernel_test

pytestmark = kernel_test
OWN_SKELETON = replace(SKELETON, own_pbx=True)
FAR = Endpoint(REMOTE, 55555)               # whatever port its NAT gave it
PBX, PBX_INSIDE = Endpoint(GATEWAY, 12000), Endpoint(GATEWAY_INSIDE, 12000)
RELAY = Endpoint(GATEWAY, 31000)            # where the PBX was told to send


SIP, FAR_SIP = Endpoint(GATEWAY, 5060), Endpoint(REMOTE, 40000)


@pytest.fixture
def own(bare: Wires) -> Wires:
    """A gateway whose own SIP comes to natfix."""
    bare.firewall()
    bare.install(OWN_SKELETON)
    return bare


@pytest.mark.parametrize("first", ["in", "out"])
def test_its_sip_comes_to_natfix(own: Wires, first: str) -> None:
    """Both directions, whoever speaks first; both go on once natfix lets them."""
    queue = Queue(own)
    try:
        pbx, far = own.bind(*SIP[:2]), own.bind(*FAR_SIP[:2])
        ways = [(far, SIP, pbx), (pbx, FAR_SIP, far)]
        for sender, to, receiver in ways if first == "in" else ways[::-1]:
            sender.sendto(b"hello", to[:2])
            assert [packet[4:] for packet in queue.accept(1)] == [b"hello"]
            assert receiver.recv(100) == b"hello"
    finally:
        queue.close()


def test_what_it_says_to_inside_does_not(own: Wires) -> None:
    """Inside phones talk to it as ever."""
    queue = Queue(own)
    try:
        pbx, phone = own.bind(GATEWAY_INSIDE, 5060), own.bind(PHONE, 5060)
        assert sent(phone, Endpoint(GATEWAY_INSIDE, 5060), pbx) == Endpoint(PHONE, 5060)
        assert sent(pbx, Endpoint(PHONE, 5060), phone) == Endpoint(GATEWAY_INSIDE, 5060)
    finally:
        queue.close()


def test_without_the_setting_it_is_left_alone(gateway: Wires, queue: Queue) -> None:
    """Off unless configured, also after it was on."""
    gateway.install(OWN_SKELETON)
    gateway.install(SKELETON)
    pbx, far = gateway.bind(*SIP[:2]), gateway.bind(*FAR_SIP[:2])
    assert sent(far, SIP, pbx) == FAR_SIP
    assert sent(pbx, FAR_SIP, far) == SIP
    assert queue.accept(1) == []


def test_its_ports_are_learnt_from(own: Wires) -> None:
    """The first packet of a far UA to the PBX's own RTP port is shown to natfix, and leaves no entry."""
    queue = Queue(own)
    try:
        own.kernel.apply([AllowRemote(Kind.RELAY, PBX, REMOTE, 60)])
        own.bind(*FAR[:2]).sendto(b"first", PBX[:2])
        assert queue.accept(1) == [ports(FAR.port, PBX.port) + b"first"]
    finally:
        queue.close()


@pytest.mark.parametrize(("pbx", "shown"), [(PBX, PBX), (PBX_INSIDE, RTP_OUT)], ids=["outside", "inside"])
def test_an_entry_carries_its_stream(gateway: Wires, pbx: Endpoint, shown: Endpoint) -> None:
    """What the PBX sends to a port of the gateway leaves for the far UA, whose own comes from that port."""
    own, far = gateway.bind(*pbx[:2]), gateway.bind(*FAR[:2])
    assert is_lost(own, RELAY, far)         # and has pinned an entry that leads nowhere
    gateway.kernel.apply([OpenFlow(MEDIA, Flow(pbx, RELAY, FAR, shown), 60)])
    assert sent(own, RELAY, far) == shown
    assert sent(far, shown, own) == RELAY


def test_an_intranet_is_left_alone(bare: Wires) -> None:
    """What goes to a network behind the outside interface, and comes from it, is neither shown nor queued."""
    bare.firewall()
    bare.gateway.run("nft insert rule ip nat postrouting ip daddr 203.0.113.48/28 return; "
                     "nft insert rule inet firewall forward ip saddr 203.0.113.48/28 accept")
    bare.outside.run(f"ip route add 192.168.1.0/24 via {GATEWAY}")
    bare.install(replace(SKELETON, intranet=(network_from_text("203.0.113.48/28"),)))
    inside, outside = Endpoint(PHONE, 5060), Endpoint(REMOTE, 5060)
    bare.kernel.apply([AddMapping(Kind.SIGNALLING, inside, Endpoint(GATEWAY, 15060), 60, inward=False)])
    queue = Queue(bare)
    try:
        phone, remote = bare.bind(*inside[:2]), bare.bind(*outside[:2])
        assert sent(phone, outside, remote) == inside
        assert sent(remote, inside, phone) == outside
    finally:
        queue.close()
