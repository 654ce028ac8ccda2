"""Conntrack entries by netlink, in a namespace without any rule."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from natfix.address import Endpoint
from natfix.commands import Flow, Kind, OpenFlow
from natfix.errors import KernelRefused
from natfix.kernel import conntrack
from natfix.kernel.base import FlowState
from natfix.kernel.conntrack import Conntrack, entry_from_body, reverse
from natfix.kernel.elements import LONGEST
from natfix.kernel.netlink import Connection, attribute, head, nest, number
from tests.namespace import Namespace, kernel_test, namespace

pytestmark = kernel_test

INSIDE, OUTSIDE = Endpoint("192.168.1.10", 12000), Endpoint("203.0.113.1", 30000)
REMOTE = Endpoint("198.51.100.7", 40000)
FLOW = Flow(INSIDE, REMOTE, REMOTE, OUTSIDE)
BIT = 0x04000000


@pytest.fixture
def space() -> Iterator[Namespace]:
    """An empty network namespace."""
    with namespace() as made:
        yield made


@pytest.fixture
def table(space: Namespace) -> Iterator[Conntrack]:
    """Its conntrack table."""
    connection = space.call(Connection)
    yield Conntrack(connection)
    connection.close()


def opened(flow: Flow = FLOW, lifetime: float = 60, fixed: bool = False, kind: Kind = Kind.MEDIA) -> OpenFlow:
    return OpenFlow(kind, flow, lifetime, fixed)


def listing(space: Namespace) -> str:
    return space.run("conntrack -L 2>/dev/null")


def test_entry_has_the_nat_it_was_asked_for(space: Namespace, table: Conntrack) -> None:
    """conntrack(8) shows both tuples, assured, so that a firewall takes its packets for established."""
    table.open([opened()], BIT)
    line = listing(space)
    assert "src=192.168.1.10 dst=198.51.100.7 sport=12000 dport=40000" in line
    assert "src=198.51.100.7 dst=203.0.113.1 sport=40000 dport=30000 [ASSURED] mark=0" in line


def test_hairpin_entry_has_both_nats(space: Namespace, table: Conntrack) -> None:
    """One entry translates source and destination."""
    hairpin = Flow(INSIDE, Endpoint("203.0.113.1", 30002), Endpoint("192.168.1.11", 7), OUTSIDE)
    table.open([opened(hairpin)], BIT)
    assert "src=192.168.1.11 dst=203.0.113.1 sport=7 dport=30000 [ASSURED]" in listing(space)


def test_entry_without_nat(table: Conntrack) -> None:
    """A flow whose reply is its mirror image is made without any NAT."""
    plain = Flow(INSIDE, REMOTE, REMOTE, INSIDE)
    table.open([opened(plain)], BIT)
    assert [entry.state.flow for entry in table.dump()] == [plain]


def test_signalling_entry_is_marked(table: Conntrack) -> None:
    """SIP flows get the bit that diverts them, media flows do not."""
    table.open([opened(kind=Kind.SIGNALLING), opened(Flow(OUTSIDE, REMOTE, REMOTE, INSIDE))], BIT)
    assert sorted(entry.state.mark for entry in table.dump()) == [0, BIT]


def test_opening_again_refreshes(table: Conntrack) -> None:
    """The same flow gets its new lifetime; there is still one entry."""
    table.open([opened(lifetime=60)], BIT)
    table.open([opened(lifetime=500)], BIT)
    entry, = table.dump()
    assert 498 <= entry.state.lifetime <= 500


def test_flow_that_the_remote_began_is_the_same_flow(table: Conntrack) -> None:
    """An entry that stands the other way round is refreshed, found and closed by the flow's own name."""
    table.open([opened(reverse(FLOW), 60)], BIT)
    table.open([opened(FLOW, 500)], BIT)
    state = table.states([FLOW])[FLOW]
    assert state.flow == reverse(FLOW)
    assert state.lifetime >= 498
    table.close([FLOW])
    assert table.dump() == []


def test_fixed_lifetime_can_be_renewed(table: Conntrack) -> None:
    """A registrar's flow is renewed although the kernel lets nobody change a fixed timeout; and unfixed."""
    table.open([opened(lifetime=60, fixed=True)], BIT)
    table.open([opened(lifetime=3600, fixed=True)], BIT)
    assert table.states([FLOW])[FLOW].lifetime >= 3598
    table.open([opened(lifetime=30)], BIT)
    table.open([opened(lifetime=40)], BIT)
    assert 38 <= table.states([FLOW])[FLOW].lifetime <= 40


def test_entry_with_another_nat_is_replaced(table: Conntrack) -> None:
    """A flow that was masqueraded elsewhere moves to where it is wanted."""
    table.open([opened(Flow(INSIDE, REMOTE, REMOTE, Endpoint("203.0.113.1", 12000)))], BIT)
    table.open([opened()], BIT)
    assert [entry.state.flow for entry in table.dump()] == [FLOW]


def test_entry_that_holds_the_reply_tuple_is_replaced(table: Conntrack) -> None:
    """What owns the tuple that the remote will send makes room."""
    table.open([opened(Flow(REMOTE, OUTSIDE, OUTSIDE, REMOTE))], BIT)
    table.open([opened()], BIT)
    assert [entry.state.flow for entry in table.dump()] == [FLOW]


def test_closing_spares_a_successor(table: Conntrack) -> None:
    """A flow that has got another outside endpoint meanwhile is not ended by the end of the old one."""
    successor = FLOW._replace(reply_destination=Endpoint("203.0.113.1", 30002))
    table.open([opened(successor)], BIT)
    table.close([FLOW])
    assert [entry.state.flow for entry in table.dump()] == [successor]


def test_many_flows_at_once(table: Conntrack) -> None:
    """New, known and clashing flows are dealt with in one go, more than one exchange holds."""
    flows = [FLOW._replace(source=INSIDE._replace(port=port), reply_destination=OUTSIDE._replace(port=port))
             for port in range(20000, 20600)]
    table.open([opened(flow) for flow in flows[:300]], BIT)
    wrong = [flow._replace(reply_destination=flow.reply_destination._replace(port=flow.source.port + 9000))
             for flow in flows[300:350]]
    table.open([opened(flow) for flow in wrong], BIT)
    table.open([opened(flow) for flow in flows], BIT)
    assert table.states(flows).keys() == set(flows)
    table.close(flows)
    assert table.dump() == []


def test_absent_and_different_flows_have_no_state(table: Conntrack) -> None:
    """A flow that is not there, or is there with another NAT, is left out."""
    table.open([opened()], BIT)
    other = FLOW._replace(reply_destination=Endpoint("203.0.113.1", 30002))
    absent = FLOW._replace(source=Endpoint("192.168.1.99", 1))
    assert table.states([FLOW, other, absent]).keys() == {FLOW}


def test_counts_are_absent_without_accounting(space: Namespace, table: Conntrack) -> None:
    """-1 tells that nobody counted, which is not the same as no packets."""
    table.open([opened()], BIT)
    assert table.states([FLOW])[FLOW][2:4] == (-1, -1)
    table.close([FLOW])
    space.call(lambda: Path("/proc/sys/net/netfilter/nf_conntrack_acct").write_text("1"))
    table.open([opened()], BIT)
    assert table.states([FLOW])[FLOW][2:4] == (0, 0)


def test_unmarking_takes_one_bit(space: Namespace, table: Conntrack) -> None:
    """The other bits of a mark stay."""
    space.run("conntrack -I -p udp -s 192.168.1.10 -d 198.51.100.7 --sport 1 --dport 2 -t 60 -m 0x04000011")
    flow = table.dump()[0].state.flow
    table.unmark([flow], BIT)
    assert table.dump()[0].state.mark == 0x11


def test_refusal_names_the_flow(table: Conntrack, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel does not take is said with the flow and the kernel's reason."""
    monkeypatch.setattr(conntrack, "ESTABLISHED", 0)
    with pytest.raises(KernelRefused, match=r"192\.168\.1\.10:12000 > .*: Device or resource busy"):
        table.open([opened()], BIT)


@pytest.mark.parametrize("lifetime", [0, 0.2, 1 << 32, 1e30])
def test_any_lifetime_is_taken(table: Conntrack, lifetime: float) -> None:
    """A lifetime out of a SIP message may be anything; it is at least a second and at most some weeks."""
    table.open([opened(lifetime=lifetime)], BIT)
    assert 0 <= table.dump()[0].state.lifetime <= LONGEST


def test_bodies_that_are_not_udp_over_ipv4_are_no_entries() -> None:
    """Other families, other protocols and cut bodies are passed over."""
    tuple_of_tcp = nest(1, nest(1, attribute(1, bytes(4)), attribute(2, bytes(4))),
                        nest(2, number(1, socket.IPPROTO_TCP, 1), number(2, 1, 2), number(3, 2, 2)))
    assert entry_from_body(head(socket.AF_INET6) + tuple_of_tcp) is None
    assert entry_from_body(head(socket.AF_INET) + tuple_of_tcp + b"\x00" * 4) is None
    assert entry_from_body(head(socket.AF_INET)) is None


def test_reversed_flow_is_the_remotes_view() -> None:
    """Reversing twice is the flow again."""
    assert reverse(FLOW) == Flow(REMOTE, OUTSIDE, INSIDE, REMOTE)
    assert reverse(reverse(FLOW)) == FLOW
    assert isinstance(FlowState(FLOW, 1, 2, 3, 4, True).flow, Flow)
