"""The fake kernel's maps are as strict as netfilter's."""

from __future__ import annotations

import pytest

from natfix.address import Endpoint
from natfix.commands import AddMapping, AdmitPeer, AllowRemote, DeleteMapping, DismissPeer, ForbidRemote, Kind
from natfix.errors import KernelRefused
from natfix.kernel.base import KernelMapping
from natfix.kernel.fake_elements import ANY_REMOTE, Elements

INSIDE = Endpoint("192.168.1.10", 12000)
OTHER = Endpoint("192.168.1.11", 12000)
OUTSIDE = Endpoint("203.0.113.1", 30000)
REMOTE = "198.51.100.20"
ADD = AddMapping(Kind.MEDIA, INSIDE, OUTSIDE, lifetime=300.0, owner="call 1")
ALLOW = AllowRemote(Kind.MEDIA, OUTSIDE, REMOTE, lifetime=300.0)


@pytest.fixture
def elements() -> Elements:
    return Elements()


def test_a_mapping_translates_both_ways(elements: Elements) -> None:
    """One AddMapping is both halves; the inward one only for who is allowed."""
    elements.transact([ADD, ALLOW], now=0.0)
    assert elements.outside_of(INSIDE) == OUTSIDE
    assert elements.inside_of(OUTSIDE, REMOTE) == INSIDE
    assert elements.inside_of(OUTSIDE, "198.51.100.66") is None


def test_an_outgoing_mapping_has_no_inward_half(elements: Elements) -> None:
    """``inward=False`` opens nothing, and closes what was open."""
    outgoing = AddMapping(Kind.MEDIA, INSIDE, OUTSIDE, lifetime=300.0, inward=False)
    elements.transact([ADD, ALLOW, outgoing], now=0.0)
    assert elements.outside_of(INSIDE) == OUTSIDE
    assert elements.inside_of(OUTSIDE, REMOTE) is None


def test_any_remote_opens_for_everybody(elements: Elements) -> None:
    """``accept_from = "any"`` is the permission for 0.0.0.0; signalling has no such thing."""
    sip = Endpoint("203.0.113.1", 5060)
    elements.transact([ADD, AllowRemote(Kind.MEDIA, OUTSIDE, ANY_REMOTE, 300.0)], now=0.0)
    elements.transact([AddMapping(Kind.SIGNALLING, INSIDE, sip, 300.0),
                       AllowRemote(Kind.SIGNALLING, sip, ANY_REMOTE, 300.0)], now=0.0)
    assert elements.inside_of(OUTSIDE, "198.51.100.66") == INSIDE
    assert elements.inside_of(sip, "198.51.100.66") is None


def test_a_peer_may_use_signalling_and_nothing_else(elements: Elements) -> None:
    """Who is listed reaches every inward half of signalling, until that is taken back; media never."""
    sip = Endpoint("203.0.113.1", 5060)
    elements.transact([ADD, AddMapping(Kind.SIGNALLING, INSIDE, sip, 300.0), AdmitPeer(REMOTE)], now=0.0)
    assert elements.inside_of(sip, REMOTE) == INSIDE
    assert elements.inside_of(sip, "198.51.100.66") is None
    assert elements.inside_of(OUTSIDE, REMOTE) is None
    elements.transact([DismissPeer(REMOTE)], now=0.0)
    assert elements.inside_of(sip, REMOTE) is None


def test_adding_again_refreshes(elements: Elements) -> None:
    """A present element gets the new lifetime and comment, and stays one element."""
    elements.transact([ADD], now=0.0)
    elements.transact([AddMapping(Kind.MEDIA, INSIDE, OUTSIDE, 300.0, owner="call 2")], now=100.0)
    assert elements.mappings(now=110.0) == [
        KernelMapping(Kind.MEDIA, INSIDE, OUTSIDE, inward=True, lifetime=290.0, owner="call 2")]


def test_what_is_said_to_be_new_is_not_refreshed(elements: Elements) -> None:
    """The kernel takes such an element where it is there already, and leaves its time as it was."""
    elements.transact([ADD, ALLOW], now=0.0)
    elements.transact([ADD._replace(is_new=True), ALLOW._replace(is_new=True)], now=100.0)
    elements.expire(now=300.0)
    assert elements.outside_of(INSIDE) is None
    assert elements.inside_of(OUTSIDE, REMOTE) is None


def test_elements_expire(elements: Elements) -> None:
    """Each element ends at its own time."""
    elements.transact([ADD, AllowRemote(Kind.MEDIA, OUTSIDE, REMOTE, lifetime=10.0)], now=0.0)
    elements.expire(now=10.0)
    assert elements.inside_of(OUTSIDE, REMOTE) is None
    assert elements.mappings(now=10.0)[0].inward
    elements.expire(now=300.0)
    assert elements.mappings(now=300.0) == []


def test_deleting_what_is_absent_is_no_error(elements: Elements) -> None:
    """Delete and forbid are idempotent."""
    elements.transact([ADD, ALLOW], now=0.0)
    elements.transact(2 * [DeleteMapping(Kind.MEDIA, INSIDE, OUTSIDE)], now=0.0)
    elements.transact(2 * [ForbidRemote(Kind.MEDIA, OUTSIDE, REMOTE)], now=0.0)
    assert elements.mappings(now=0.0) == []


@pytest.mark.parametrize(("command", "reason"), [
    (AddMapping(Kind.MEDIA, INSIDE, Endpoint("203.0.113.1", 30002), 300.0), "EEXIST"),
    (AddMapping(Kind.MEDIA, OTHER, OUTSIDE, 300.0), "EEXIST"),
    (DeleteMapping(Kind.MEDIA, OTHER, OUTSIDE), "EEXIST"),
    (AddMapping(Kind.MEDIA, OTHER, Endpoint("203.0.113.1", 30002), 0.0), "lifetime"),
], ids=["other value outgoing", "other value inward", "delete other value", "no lifetime"])
def test_what_netfilter_refuses_is_refused_whole(
    elements: Elements, command: AddMapping | DeleteMapping, reason: str
) -> None:
    """A transaction with one bad command changes nothing at all."""
    elements.transact([ADD, ALLOW], now=0.0)
    before = elements.mappings(now=0.0)
    innocent = AddMapping(Kind.MEDIA, Endpoint("192.168.1.12", 1024), Endpoint("203.0.113.1", 30004), 300.0)
    with pytest.raises(KernelRefused, match=reason):
        elements.transact([innocent, ForbidRemote(Kind.MEDIA, OUTSIDE, REMOTE), command], now=0.0)
    assert elements.mappings(now=0.0) == before
    assert elements.inside_of(OUTSIDE, REMOTE) == INSIDE


def test_one_inside_endpoint_may_have_both_kinds(elements: Elements) -> None:
    """Signalling and media have maps of their own."""
    signalling = AddMapping(Kind.SIGNALLING, INSIDE, Endpoint("203.0.113.1", 5060), 300.0)
    elements.transact([ADD, signalling], now=0.0)
    assert elements.is_signalling(INSIDE, OUTSIDE, OUTSIDE)
    assert elements.is_signalling(OTHER, Endpoint("203.0.113.1", 5060), INSIDE)
    assert not elements.is_signalling(OTHER, OUTSIDE, INSIDE)


def test_a_packet_that_may_not_come_in_is_no_signalling(elements: Elements) -> None:
    """The mark comes with the DNAT: a stranger's packet to a mapped SIP endpoint is not shown to natfix."""
    sip = Endpoint("203.0.113.1", 15060)
    elements.transact([AddMapping(Kind.SIGNALLING, INSIDE, sip, 300.0)], now=0.0)
    assert elements.inside_of(sip, REMOTE) is None
    assert not elements.is_signalling(Endpoint(REMOTE, 7000), sip, sip)


def test_from_inside_anybody_may_call_a_phone(elements: Elements) -> None:
    """Hairpinning by the outside endpoint needs no permission for SIP; media does."""
    sip = Endpoint("203.0.113.1", 15060)
    elements.transact([AddMapping(Kind.SIGNALLING, INSIDE, sip, 300.0), ADD], now=0.0)
    assert elements.inside_of(sip, OTHER.host, from_inside=True) == INSIDE
    assert elements.inside_of(OUTSIDE, OTHER.host, from_inside=True) is None


def test_a_long_comment_is_cut(elements: Elements) -> None:
    """As the netlink encoder does: between two characters."""
    elements.transact([AddMapping(Kind.MEDIA, INSIDE, OUTSIDE, 300.0, owner="ü" * 70)], now=0.0)
    assert elements.mappings(now=0.0)[0].owner == "ü" * 63


def test_a_full_map_refuses() -> None:
    """The size of a map is a limit, but not for the refresh of what is in it."""
    elements = Elements(size=1)
    elements.transact([ADD], now=0.0)
    elements.transact([ADD], now=1.0)
    with pytest.raises(KernelRefused, match="full"):
        elements.transact([AddMapping(Kind.MEDIA, OTHER, OUTSIDE._replace(port=30002), 1.0)], now=0.0)


def test_from_nothing_replaces_everything(elements: Elements) -> None:
    """A resync leaves just what it names; a refused one leaves all as it was."""
    elements.transact([ADD, ALLOW], now=0.0)
    replacement = AddMapping(Kind.MEDIA, OTHER, OUTSIDE, 300.0)
    with pytest.raises(KernelRefused):
        elements.transact([replacement, ADD], now=0.0, from_nothing=True)
    assert elements.outside_of(INSIDE) == OUTSIDE
    elements.transact([replacement], now=0.0, from_nothing=True)
    assert elements.outside_of(INSIDE) is None
    assert elements.outside_of(OTHER) == OUTSIDE
