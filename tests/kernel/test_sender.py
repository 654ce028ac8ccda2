"""natfix's own packets to far phones leave with the outside address, and conntrack never hears of them."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from natfix.address import Endpoint
from natfix.commands import SendPacket
from natfix.kernel.sender import Sender
from tests.kernel.wires import GATEWAY, PHONE, REMOTE, SKELETON, Queue, Wires, ports
from tests.namespace import kernel_test

pytestmark = kernel_test
FAR, PBX, PBX_OUT = Endpoint(REMOTE, 41000), Endpoint(PHONE, 5060), Endpoint(GATEWAY, 5060)
PING = SendPacket(PBX_OUT, FAR, b"\0\0\0\0")
# The operator's forward of SIP to a PBX inside, and the accept rule that goes with it.
FORWARD = f"""
table ip forwards {{
    chain prerouting {{
        type nat hook prerouting priority dstnat;
        iifname "outside" udp dport 5060 dnat to {PHONE}
    }}
}}
insert rule inet firewall forward iifname "outside" ip daddr {PHONE} udp dport 5060 accept
"""


@pytest.fixture
def site(gateway: Wires) -> Wires:
    """A gateway that forwards SIP to a PBX."""
    gateway.gateway.run("nft -f -", FORWARD)
    return gateway


def keep_alive(site: Wires, packet: SendPacket = PING) -> int:
    return site.gateway.call(lambda: site.kernel.send([packet]))


def tuples(site: Wires) -> list[str]:
    """Return the gateway's entries without the seconds that they have left."""
    return [re.sub(r"^(udp +\d+) \d+", r"\1", line) for line in site.entries()]


def test_it_leaves_from_the_outside_address(site: Wires) -> None:
    """The far NAT sees it come from where the phone has sent to; no entry is made, none was needed."""
    far = site.bind(*FAR[:2])
    assert keep_alive(site) == 0
    assert far.recvfrom(100) == (b"\0\0\0\0", PBX_OUT[:2])
    assert site.entries() == []


def test_from_an_address_that_is_not_the_gateways(site: Wires) -> None:
    """A PBX with an outside address of its own (1:1 NAT): that of the operator's rules, not of a link."""
    far = site.bind(*FAR[:2])
    own = Endpoint("203.0.113.5", 5060)
    assert keep_alive(site, PING._replace(source=own)) == 0
    assert far.recvfrom(100)[1] == own[:2]


def test_a_living_flow_stays_as_it_is(site: Wires, queue: Queue) -> None:
    """Beside the phone's own flow through the operator's forward: neither moved to a port nor counted."""
    far, pbx = site.bind(*FAR[:2]), site.bind(*PBX[:2])
    far.sendto(b"REGISTER", PBX_OUT[:2])
    queue.accept(1)
    assert pbx.recvfrom(100) == (b"REGISTER", FAR[:2])
    before = tuples(site)
    assert len(before) == 1
    assert keep_alive(site) == 0
    assert far.recvfrom(100) == (b"\0\0\0\0", PBX_OUT[:2])
    assert tuples(site) == before


def test_conntrack_would_spoil_it(site: Wires, queue: Queue) -> None:
    """Without the mark the same packet leaves from another port, by an entry of its own: why there is one."""
    far = site.bind(*FAR[:2])
    far.sendto(b"REGISTER", PBX_OUT[:2])
    queue.accept(1)
    sender = Sender()
    assert site.gateway.call(lambda: sender.send([PING], 0)) == 0
    sender.close()
    assert far.recvfrom(100)[1] != PBX_OUT[:2]
    assert len(site.entries()) == 2


def test_the_answer_comes_to_natfix(site: Wires, queue: Queue) -> None:
    """With no flow left it comes to the queue; dropped there it leaves no entry, and no PBX sees it."""
    far, pbx = site.bind(*FAR[:2]), site.bind(*PBX[:2])
    keep_alive(site)
    far.sendto(b"200 OK", PBX_OUT[:2])
    assert queue.drop(1) == [ports(FAR.port, PBX.port) + b"200 OK"]
    with pytest.raises(TimeoutError):
        pbx.recvfrom(100)
    assert site.entries() == []


def test_it_does_not_come_back_to_natfix(site: Wires, queue: Queue) -> None:
    """A gateway with a PBX of its own leads that one's SIP to natfix, and not natfix's own."""
    site.install(replace(SKELETON, own_pbx=True))
    far = site.bind(*FAR[:2])
    assert keep_alive(site) == 0
    assert far.recvfrom(100)[0] == PING.payload


def test_what_cannot_leave_is_counted(site: Wires) -> None:
    """Dropped by the operator at output, without a route, longer than the link takes: only that is lost."""
    site.gateway.run("nft add chain inet firewall out '{ type filter hook output priority 0; policy drop; }'")
    far = site.bind(*FAR[:2])
    assert keep_alive(site) == 1
    site.gateway.run("nft delete chain inet firewall out")
    assert keep_alive(site, PING._replace(destination=Endpoint("198.51.100.1", 5060))) == 1
    assert keep_alive(site, PING._replace(payload=bytes(3000))) == 1
    assert keep_alive(site) == 0
    assert far.recvfrom(100)[0] == PING.payload
