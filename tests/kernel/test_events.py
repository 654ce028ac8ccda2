"""Events of conntrack and nftables, and that natfix's own changes make none."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from natfix.commands import CloseFlow, OpenFlow
from natfix.kernel.events import ConntrackEvents, NewMediaFlows, NftEvents
from natfix.kernel.netlink import SO_RCVBUFFORCE
from tests.kernel.wires import FLOW, GATEWAY, MEDIA, PHONE, REMOTE, SKELETON, Wires, media, sent
from tests.namespace import kernel_test

pytestmark = kernel_test


@pytest.fixture
def flows(gateway: Wires) -> Iterator[ConntrackEvents]:
    """Somebody who listens for conntrack entries that end."""
    made = gateway.gateway.call(ConntrackEvents)
    yield made
    made.close()


@pytest.fixture
def rules(gateway: Wires) -> Iterator[NftEvents]:
    """Somebody who listens for changes of rules."""
    made = gateway.gateway.call(lambda: NftEvents(gateway.kernel))
    yield made
    made.close()


def is_silent(events: ConntrackEvents | NewMediaFlows | NftEvents) -> bool:
    """Tell whether nothing has reached the socket."""
    try:
        events._socket.recv(1)
    except BlockingIOError:
        return True
    return False


def test_ended_flow_is_told(gateway: Wires, flows: ConntrackEvents) -> None:
    """An entry that ends is named as the kernel held it; one that begins is not."""
    gateway.kernel.apply([OpenFlow(MEDIA, FLOW, 60)])
    assert flows.read() == []
    gateway.kernel.apply([CloseFlow(FLOW)])
    assert flows.read() == [FLOW]
    assert flows.read() == []


def test_flushed_table_is_told(gateway: Wires, flows: ConntrackEvents) -> None:
    """Somebody's `conntrack -F` ends flows, too."""
    gateway.kernel.apply([OpenFlow(MEDIA, FLOW, 60)])
    gateway.gateway.run("conntrack -F")
    assert flows.read() == [FLOW]


def test_other_protocols_do_not_wake(gateway: Wires, flows: ConntrackEvents) -> None:
    """The end of a TCP flow never reaches the socket."""
    entry = "-s 192.168.1.10 -d 198.51.100.7 --sport 1 --dport 2 -t 60"
    gateway.gateway.run(f"conntrack -I -p tcp --state ESTABLISHED {entry}; conntrack -D -p tcp")
    assert is_silent(flows)
    gateway.gateway.run(f"conntrack -I -p udp {entry}; conntrack -D -p udp")
    assert not is_silent(flows)


def test_lost_events_are_counted(gateway: Wires, flows: ConntrackEvents) -> None:
    """A socket that was full says so; what it still holds is read."""
    flows._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 4096)
    many = [FLOW._replace(source=FLOW.source._replace(port=port),
                          reply_destination=FLOW.reply_destination._replace(port=port))
            for port in range(1000, 1200)]
    gateway.kernel.apply([OpenFlow(MEDIA, flow, 60) for flow in many])
    gateway.gateway.run("conntrack -F")
    assert 0 < len(flows.read()) < 200
    assert flows.lost


def test_own_elements_do_not_wake(gateway: Wires, rules: NftEvents) -> None:
    """Calls come and go without a single event."""
    rules.read()
    gateway.kernel.apply([media()])
    gateway.kernel.resync([])
    assert is_silent(rules)


def test_own_installation_is_no_damage(gateway: Wires, rules: NftEvents) -> None:
    """natfix that puts its table back does not see that as somebody's change: no endless repair."""
    gateway.install(SKELETON)
    assert rules.read() == (False, False)


def test_rules_of_others_are_told(gateway: Wires, rules: NftEvents) -> None:
    """A new rule of the operator's is a change of others."""
    gateway.gateway.run("nft add rule inet firewall forward accept")
    assert rules.read() == (False, True)
    assert rules.read() == (False, False)


def test_flush_is_damage(gateway: Wires, rules: NftEvents) -> None:
    """`nft flush ruleset` takes everybody's rules."""
    gateway.gateway.run("nft flush ruleset")
    assert rules.read() == (True, True)


def test_change_in_the_own_table_is_damage(gateway: Wires, rules: NftEvents) -> None:
    """Somebody who meddles with natfix's chains is noticed, until the table is repaired."""
    gateway.gateway.run("nft flush chain ip natfix guard")
    assert rules.read() == (True, False)
    gateway.install()
    assert rules.read() == (False, False)


def test_lost_rule_events_mean_look(gateway: Wires, rules: NftEvents) -> None:
    """Where events were lost, others' rules count as changed, and natfix's are looked at."""
    rules._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 4096)
    gateway.gateway.run("nft -f -", "".join(f"add table ip t{index}\nadd chain ip t{index} c\n" * 2
                                            for index in range(200)))
    gateway.gateway.run("nft delete table ip natfix")
    assert rules.read() == (True, True)
    assert rules.lost


def test_traffic_is_no_event(gateway: Wires, rules: NftEvents, flows: ConntrackEvents) -> None:
    """Packets that pass or are refused change nothing that anybody is told."""
    phone, remote = gateway.bind(PHONE, 12000), gateway.bind(REMOTE, 40000)
    sent(phone, FLOW.destination, remote)
    remote.sendto(b"x", (GATEWAY, 30000))
    assert is_silent(rules)
    assert is_silent(flows)


@pytest.fixture
def begun(gateway: Wires) -> Iterator[NewMediaFlows]:
    """Somebody who listens for media that begins by itself."""
    made = gateway.gateway.call(lambda: NewMediaFlows((30000, 39999)))
    yield made
    made.close()


def test_media_that_begins_by_itself_is_told(gateway: Wires, begun: NewMediaFlows) -> None:
    """A flow that an element lets in or out is named; one that natfix makes, or at other ports, is not."""
    phone, remote = gateway.bind(PHONE, 12000), gateway.bind(REMOTE, 40000)
    other = gateway.bind(PHONE, 12002)
    sent(other, FLOW.destination, remote)
    gateway.kernel.apply([OpenFlow(MEDIA, FLOW, 60)])
    assert is_silent(begun)
    gateway.kernel.apply([CloseFlow(FLOW), media()])
    sent(phone, FLOW.destination, remote)
    assert begun.read() == [FLOW]


def test_another_pool(gateway: Wires, begun: NewMediaFlows) -> None:
    """After follow() flows at ports of the new pool are told, those of the old one are not."""
    phone, remote = gateway.bind(PHONE, 12000), gateway.bind(REMOTE, 40000)
    begun.follow((12000, 12999))
    gateway.kernel.apply([media()])
    sent(phone, FLOW.destination, remote)
    assert is_silent(begun)
    begun.follow((30000, 39999))
    gateway.gateway.run("conntrack -F")
    sent(phone, FLOW.destination, remote)
    assert begun.read() == [FLOW]
