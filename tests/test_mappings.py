"""The mapping table and the kernel commands that follow from it."""

import pytest

from natfix.address import Endpoint
from natfix.commands import (
    AddMapping,
    AdmitPeer,
    AllowRemote,
    CloseFlow,
    DeleteMapping,
    DismissPeer,
    Flow,
    ForbidRemote,
    Kind,
    OpenFlow,
)
from natfix.deadlines import NEVER, Deadlines
from natfix.errors import LimitReached
from natfix.mappings import LIFETIME, MOST_BEGUN, MOST_SENT_TO, Mapping, Mappings, owner_of, reversed_flow

INSIDE, OUTSIDE = Endpoint("192.168.1.10", 4000), Endpoint("203.0.113.1", 30000)
REMOTE = Endpoint("198.51.100.7", 7000)
FLOW = Flow(INSIDE, REMOTE, REMOTE, OUTSIDE)
FIRST, SECOND = ("call", "1"), ("call", "2")


class Table:
    """A table with one media mapping, and its clock."""

    def __init__(self) -> None:
        self.deadlines = Deadlines()
        self.removed: list[Mapping] = []
        self.mappings = Mappings(10, 3, self.deadlines, lambda mapping, now: self.removed.append(mapping))
        self.mapping = self.mappings.add(Kind.MEDIA, INSIDE, OUTSIDE)

    def commands(self) -> list[object]:
        commands, self.mappings.commands = self.mappings.commands, []
        return list(commands)

    def run_until(self, now: float) -> list[object]:
        """Do what is due up to *now* and return the commands."""
        while (due := self.deadlines.next()) is not None and due <= now:
            for _, inside in self.deadlines.pop_expired(due):
                self.mappings.handle_deadline(inside, due)
        return self.commands()


@pytest.fixture
def table() -> Table:
    return Table()


def test_the_kernel_learns_of_a_mapping_when_it_is_held(table: Table) -> None:
    """Entering a mapping tells nobody; the first holder puts it into the kernel, the second does not."""
    assert table.commands() == []
    table.mappings.hold(table.mapping, FIRST, NEVER, 0.0)
    table.mappings.hold(table.mapping, SECOND, NEVER, 1.0)
    assert table.commands() == [AddMapping(Kind.MEDIA, INSIDE, OUTSIDE, LIFETIME, False, "call 1", True)]


def test_a_mapping_lives_until_its_last_holder_lets_go(table: Table) -> None:
    """Two dialogs share an endpoint's mapping; the first hang-up does not cut the second."""
    table.mappings.hold(table.mapping, FIRST, NEVER, 0.0)
    table.mappings.hold(table.mapping, SECOND, NEVER, 0.0)
    table.commands()
    assert not table.mappings.release(table.mapping, FIRST, 1.0)
    assert table.mappings.find(INSIDE) is table.mapping
    assert table.mappings.release(table.mapping, SECOND, 1.0)
    assert table.commands() == [DeleteMapping(Kind.MEDIA, INSIDE, OUTSIDE)]
    assert table.mappings.find_outside(OUTSIDE) is None
    assert table.removed == [table.mapping]


def test_elements_are_deleted_before_entries(table: Table) -> None:
    """Closing order: remotes, elements, then the entries (design, section 6)."""
    table.mappings.hold(table.mapping, FIRST, NEVER, 0.0)
    table.mappings.allow(table.mapping, REMOTE.host, FIRST, 0.0)
    table.mappings.keep_flow(table.mapping, FLOW, FIRST, NEVER, 0.0)
    table.commands()
    table.mappings.release(table.mapping, FIRST, 1.0)
    kinds = [type(command) for command in table.commands()]
    assert kinds == [ForbidRemote, DeleteMapping, CloseFlow]
    assert FLOW not in table.mappings.by_flow


def test_entries_that_packets_made_end_with_their_mapping(table: Table) -> None:
    """natfix did not open them, but no later owner of the port may find them: each once."""
    other = Endpoint("198.51.100.8", 7000)
    table.mappings.hold(table.mapping, FIRST, NEVER, 0.0)
    table.mappings.keep_flow(table.mapping, FLOW, FIRST, NEVER, 0.0)
    for peer in (REMOTE, other, REMOTE):
        table.mapping.note_sent(peer)
    table.commands()
    table.mappings.remove(table.mapping, 1.0)
    closed = [command for command in table.commands() if isinstance(command, CloseFlow)]
    assert closed == [CloseFlow(Flow(INSIDE, other, other, OUTSIDE)), CloseFlow(FLOW)]


def test_few_peers_are_remembered(table: Table) -> None:
    """A scanner inside does not fill the memory: the oldest peers are forgotten."""
    for port in range(100):
        table.mapping.note_sent(Endpoint(REMOTE.host, port))
    assert [peer.port for peer in table.mapping.sent_to] == list(range(100 - MOST_SENT_TO, 100))


def test_a_held_mapping_is_refreshed_before_the_kernel_forgets_it(table: Table) -> None:
    """A call of any length keeps its elements, and its remotes with them."""
    table.mappings.hold(table.mapping, FIRST, NEVER, 0.0)
    table.mappings.allow(table.mapping, REMOTE.host, FIRST, 0.0)
    table.commands()
    commands = table.run_until(LIFETIME)
    assert AddMapping(Kind.MEDIA, INSIDE, OUTSIDE, LIFETIME, False, "call 1") in commands
    assert AllowRemote(Kind.MEDIA, OUTSIDE, REMOTE.host, LIFETIME) in commands


def test_a_holder_with_an_end_is_released_then(table: Table) -> None:
    """The outgoing half ends by itself when nothing was sent for long enough."""
    table.mappings.hold(table.mapping, ("flow",), 120.0, 0.0)
    table.commands()
    assert table.run_until(119.0) == []
    assert DeleteMapping(Kind.MEDIA, INSIDE, OUTSIDE) in table.run_until(120.0)


def test_an_ended_entry_is_made_anew_while_it_is_held(table: Table) -> None:
    """Somebody flushed conntrack in mid-call: the entry comes back at once."""
    table.mappings.hold(table.mapping, FIRST, NEVER, 0.0)
    table.mappings.keep_flow(table.mapping, FLOW, FIRST, NEVER, 0.0)
    table.commands()
    assert table.mappings.reopen_flow(FLOW, 5.0)
    assert table.commands() == [OpenFlow(Kind.MEDIA, FLOW, LIFETIME, False)]
    assert not table.mappings.reopen_flow(reversed_flow(FLOW), 5.0)


def test_a_shared_entry_is_closed_by_its_last_holder(table: Table) -> None:
    """An entry that a registration and a call hold survives the call."""
    for holder, until in ((FIRST, 4000.0), (SECOND, NEVER)):
        table.mappings.hold(table.mapping, holder, until, 0.0)
        table.mappings.keep_flow(table.mapping, FLOW, holder, until, 0.0, fixed=True)
    opened = [command for command in table.commands() if isinstance(command, OpenFlow)]
    assert opened == [OpenFlow(Kind.MEDIA, FLOW, 4000.0, True)]
    table.mappings.release(table.mapping, SECOND, 1.0)
    assert table.commands() == []
    assert FLOW in table.mapping.flows


def test_fixed_entries_are_refreshed_with_their_mapping(table: Table) -> None:
    """Traffic does not prolong an entry of fixed lifetime, so the daemon does."""
    table.mappings.hold(table.mapping, FIRST, NEVER, 0.0)
    table.mappings.keep_flow(table.mapping, FLOW, FIRST, NEVER, 0.0, fixed=True)
    table.commands()
    assert OpenFlow(Kind.MEDIA, FLOW, LIFETIME, True) in table.run_until(LIFETIME)


def test_quotas_name_the_setting() -> None:
    """One host cannot take all; the note says which limit stopped it."""
    mappings = Mappings(10, 2, Deadlines())
    for port in (4000, 4002):
        mappings.add(Kind.MEDIA, Endpoint(INSIDE.host, port), Endpoint(OUTSIDE.host, port))
    with pytest.raises(LimitReached, match="mappings_per_host"):
        mappings.check_quota(INSIDE.host)
    mappings.check_quota("192.168.1.11")
    with pytest.raises(LimitReached, match=r"\[limits\] mappings is"):
        mappings.check_quota("192.168.1.11", 9)


def test_who_is_admitted_changes_by_difference(table: Table) -> None:
    """The kernel hears of who is new and of who is gone, and of all of them where it holds nothing."""
    table.mappings.admit(frozenset({"198.51.100.1", "198.51.100.2"}))
    table.commands()
    table.mappings.admit(frozenset({"198.51.100.2", "198.51.100.3"}))
    assert table.commands() == [AdmitPeer("198.51.100.3"), DismissPeer("198.51.100.1")]
    assert table.mappings.restate(0.0) == [AdmitPeer("198.51.100.2"), AdmitPeer("198.51.100.3")]


def test_restating_leaves_nothing_out(table: Table) -> None:
    """A resync gets every mapping, remote and entry, once, and does not disturb what waits to be done."""
    table.mappings.hold(table.mapping, FIRST, NEVER, 0.0)
    table.mappings.allow(table.mapping, REMOTE.host, FIRST, 0.0)
    table.mappings.keep_flow(table.mapping, FLOW, FIRST, NEVER, 0.0)
    waiting = list(table.mappings.commands)
    kinds = [type(command) for command in table.mappings.restate(10.0)]
    assert kinds == [AddMapping, AllowRemote, OpenFlow]
    assert table.mappings.commands == waiting


def test_the_owner_fits_into_an_element_comment(table: Table) -> None:
    """The kernel takes 128 bytes; a long Call-ID is cut."""
    table.mapping.holders[("call", "x" * 300)] = NEVER
    assert len(owner_of(table.mapping)) <= 128


TURNED = reversed_flow(FLOW)


def test_a_flow_that_began_by_itself_ends_with_its_mapping(table: Table) -> None:
    """What the maps let in is known, never asked for, and closed when the mapping ends."""
    table.mappings.hold(table.mapping, FIRST, NEVER, 0.0)
    table.commands()
    table.mappings.learn_flow(TURNED)
    assert list(table.mappings.by_flow) == [FLOW]
    assert table.commands() == []
    assert not [command for command in table.mappings.restate(1.0) if isinstance(command, OpenFlow)]
    table.mappings.release(table.mapping, FIRST, 2.0)
    assert CloseFlow(FLOW) in table.commands()


def test_a_flow_that_began_by_itself_ends_with_its_permission(table: Table) -> None:
    """A remote that may no longer send is cut off, in the middle of a stream too."""
    table.mappings.hold(table.mapping, FIRST, NEVER, 0.0)
    table.mappings.allow(table.mapping, REMOTE.host, FIRST, 0.0)
    table.mappings.learn_flow(TURNED)
    table.commands()
    table.mappings.forbid(table.mapping, REMOTE.host, FIRST)
    assert table.commands() == [ForbidRemote(Kind.MEDIA, OUTSIDE, REMOTE.host), CloseFlow(FLOW)]


def test_a_flow_that_began_by_itself_may_end_by_itself(table: Table) -> None:
    """Its end is no reason to make it anew, unless a call has asked for it since."""
    table.mappings.hold(table.mapping, FIRST, NEVER, 0.0)
    table.commands()
    table.mappings.learn_flow(FLOW)
    assert table.mappings.reopen_flow(FLOW, 1.0)
    assert table.commands() == []
    assert not table.mappings.by_flow
    table.mappings.learn_flow(FLOW)
    table.mappings.keep_flow(table.mapping, FLOW, FIRST, NEVER, 2.0)
    table.commands()
    assert table.mappings.reopen_flow(FLOW, 3.0)
    assert table.commands() == [OpenFlow(Kind.MEDIA, FLOW, LIFETIME)]


def test_flows_of_others_are_not_learnt(table: Table) -> None:
    """A flow at a port of no mapping stays what it is; of one mapping, so many are remembered at most."""
    table.mappings.learn_flow(FLOW._replace(reply_destination=Endpoint("203.0.113.1", 30004)))
    assert not table.mappings.by_flow
    for port in range(7000, 7100):
        remote = Endpoint(REMOTE.host, port)
        table.mappings.learn_flow(Flow(remote, OUTSIDE, INSIDE, remote))
    assert len(table.mappings.by_flow) == MOST_BEGUN
