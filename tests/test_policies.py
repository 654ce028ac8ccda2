"""The operator's lists: who is admitted, what is done to whose messages, and media policy."""

from __future__ import annotations

import pytest

from natfix.address import Endpoint, network_from_text
from natfix.commands import Outcome, Verdict
from natfix.config import Domain, Media, Peer, Settings
from natfix.edits import Edits
from natfix.packet import packet_from_bytes
from natfix.policies import MOST_ADDRESSES, MOST_NOTED, Policies
from natfix.realms import Realms
from natfix.reports import AddressesChanged
from natfix.sip.message import message_from_bytes
from natfix.turn import Turn
from tests.datagram import Datagram, packet_bytes
from tests.replay.sip import PHONE, PROVIDER, request

DOMAINS = (
    Domain("voip.example.com", "full"), Domain("*.example.com", "never"), Domain("Example.ORG", "never"))


def policy(settings: Settings, to: str, caller: str = "sip:alice@here.test") -> str:
    """Return the policy for an INVITE from *caller* to *to*."""
    payload = request(to=f"<{to}>").replace(b"sip:alice@example.com", caller.encode())
    packet = packet_from_bytes(packet_bytes(Datagram(PHONE, PROVIDER, payload)))
    turn = Turn(packet, message_from_bytes(payload), Edits(payload), 0.0, None, None)
    return Policies(settings).media_of(turn)


@pytest.mark.parametrize(("to", "expected"), [
    ("sip:bob@voip.example.com", "full"), ("sip:bob@VOIP.example.com:5070", "full"),
    ("sip:bob@a.b.example.com", "never"), ("sip:bob@example.com", "auto"), ("sip:bob@example.org", "never"),
    ("sip:bob@notexample.com", "auto"), ("tel:+4930123", "auto"),
])
def test_a_domain_has_its_own(to: str, expected: str) -> None:
    """The most particular name counts, in any case; "*." stands for subdomains, not for the domain itself."""
    assert policy(Settings(domains=DOMAINS), to) == expected


def test_the_callers_domain_counts_as_well() -> None:
    """Where the callee's domain has none."""
    assert policy(Settings(domains=DOMAINS), "sip:bob@there.test", "sip:alice@voip.example.com") == "full"


def test_a_peer_comes_first() -> None:
    """Then the domain, then what holds for all."""
    peers = (Peer(PROVIDER.host, "auto"),)
    assert policy(Settings(domains=DOMAINS, peers=peers), "sip:bob@voip.example.com") == "auto"
    assert policy(Settings(media=Media(policy="full")), "sip:bob@voip.example.com") == "full"


# Who may talk

NAME = "sip.example.net"
SERVER, OTHER_SERVER, UNWANTED = "198.51.100.30", "198.51.100.31", "198.51.100.66"


def realms() -> Realms:
    """A gateway at 203.0.113.1 with one inside network of public addresses."""
    made = Realms(Settings())
    made.update(AddressesChanged({"wan": "203.0.113.1"}, ((network_from_text("198.18.1.0/24"), "lan"),),
                                 frozenset({"198.18.1.1"})))
    return made


def lists(*entries: Peer | Domain, **told: list[str]) -> Policies:
    """Policies by *entries*, with what DNS has *told* (dots of a name are written as underscores)."""
    settings = Settings(peers=tuple(each for each in entries if isinstance(each, Peer)),
                        domains=tuple(each for each in entries if isinstance(each, Domain)))
    policies = Policies(settings)
    policies.take_names({name.replace("_", "."): tuple(hosts) for name, hosts in told.items()}, realms())
    return policies


def test_without_lists_nobody_is_admitted() -> None:
    """No list is not "everybody"; nor is one with wildcards, whose names anybody can write."""
    assert lists().admitted == frozenset()
    assert lists(Domain("*"), Domain("*.example.net")).admitted == frozenset()


def test_addresses_and_what_names_stand_for_are_admitted() -> None:
    """Peers by address, peers by name, and the servers of domains; not whose packets are dropped."""
    policies = lists(Peer(SERVER), Peer(NAME), Domain("example.org"), Peer(UNWANTED, policy="drop"),
                     sip_example_net=[OTHER_SERVER], example_org=["198.51.100.40"], other_test=["192.0.2.1"])
    assert policies.admitted == {SERVER, OTHER_SERVER, "198.51.100.40"}
    assert policies.trusted == {SERVER, OTHER_SERVER}


@pytest.mark.parametrize(("host", "reason"), [
    ("127.0.0.1", "nobody"), ("0.0.0.0", "nobody"), ("224.0.0.251", "nobody"), ("255.255.255.255", "nobody"),
    ("169.254.169.254", "nobody"), ("10.0.0.5", "private"), ("192.168.1.10", "private"),
    ("100.64.0.1", "private"), ("198.18.1.10", "inside"), ("203.0.113.1", "gateway's own"),
    (UNWANTED, "dropped"),
])
def test_a_name_stands_for_no_address_of_others(host: str, reason: str) -> None:
    """DNS rebinding opens nothing: what the name's owner may not have is refused, and said once."""
    policies = lists(Peer(NAME), Peer(UNWANTED, policy="drop"))
    notes = policies.take_names({NAME: (host, SERVER)}, realms())
    assert policies.admitted == {SERVER}
    assert reason in policies.refused[NAME][host]
    assert [reason in note.reason for note in notes] == [False, True]
    assert policies.take_names({NAME: (host, SERVER)}, realms()) == []


def test_what_becomes_inside_is_admitted_no_more() -> None:
    """The same answer is judged anew when the links change."""
    policies = lists(Peer(NAME), sip_example_net=[SERVER])
    changed = realms()
    changed.update(AddressesChanged({"wan": "203.0.113.1"}, ((network_from_text("198.51.100.0/24"), "lan"),)))
    policies.judge(changed)
    assert policies.admitted == frozenset()


def test_a_name_has_a_bounded_number_of_addresses() -> None:
    """Whoever owns a name cannot fill the kernel's set."""
    many = [f"198.51.{high}.{low}" for high in (1, 2) for low in range(1, 251)]
    assert len(lists(Peer(NAME), sip_example_net=many).admitted) == MOST_ADDRESSES


def ruling(policies: Policies, source: str = SERVER, to: str = "bob@there.test",
           caller: str = "alice@here.test") -> str:
    """Return what is done to a message from *source* that names *to* and *caller*."""
    payload = request(to=f"<sip:{to}>").replace(b"alice@example.com", caller.encode())
    packet = packet_from_bytes(packet_bytes(Datagram(Endpoint(source, 5060), PHONE, payload)))
    outcome = Outcome()
    is_settled = policies.settle(outcome, packet, message_from_bytes(payload), 0.0)
    if outcome.verdict is Verdict.DROP:
        return "drop"
    return "pass" if is_settled else "fix"


def test_a_peers_policy_comes_before_a_domains() -> None:
    """By its address, then by a name of it; a peer that says nothing leaves it to the domain."""
    dropped = Domain("there.test", policy="drop")
    assert ruling(lists(Peer(SERVER, policy="fix"), dropped)) == "fix"
    assert ruling(lists(Peer(NAME, policy="pass"), dropped, sip_example_net=[SERVER])) == "pass"
    both = lists(Peer(SERVER, policy="fix"), Peer(NAME, policy="pass"), sip_example_net=[SERVER])
    assert ruling(both) == "fix"
    assert ruling(lists(Peer(SERVER), dropped)) == "drop"
    assert ruling(lists(Peer(SERVER, policy="drop"), Domain("there.test"))) == "drop"


def test_the_longest_name_counts_and_the_stricter_of_two() -> None:
    """For To and for From the most particular entry; of both, drop before pass before fix."""
    policies = lists(Domain("*.there.test", policy="drop"), Domain("a.there.test", policy="pass"),
                     Domain("here.test"))
    assert ruling(policies, to="bob@b.there.test") == "drop"
    assert ruling(policies, to="bob@a.there.test") == "pass"
    assert ruling(policies, to="bob@there.test") == "fix"
    assert ruling(policies, to="bob@A.THERE.test", caller="x@c.there.test") == "drop"
    assert ruling(policies, to="bob@b.there.test.") == "drop"


def test_a_domains_server_has_its_policy() -> None:
    """Where neither To nor From names a domain of the list; of two domains at one address the longer name's,
    of names of one length the stricter one's."""
    policies = lists(Domain("aa.test", policy="pass"), Domain("there.test"), aa_test=[SERVER])
    assert ruling(policies, to="100@198.51.100.9") == "pass"
    assert ruling(policies) == "fix"
    policies = lists(Domain("long.test"), Domain("aa.test", policy="pass"),
                     aa_test=[SERVER], long_test=[SERVER])
    assert ruling(policies, to="100@198.51.100.9") == "fix"
    for first, second in (("fix", "pass"), ("pass", "fix")):
        tie = lists(Domain("aa.test", policy=first), Domain("bb.test", policy=second),
                    aa_test=[SERVER], bb_test=[SERVER])
        assert ruling(tie, to="100@198.51.100.9") == "pass"


def test_all_others_can_be_dropped() -> None:
    """"*" holds for whatever names no domain of the list and has nothing to do with its servers."""
    policies = lists(Domain("*", policy="drop"), Domain("there.test"), Peer(OTHER_SERVER, policy="fix"),
                     there_test=["198.51.100.40"])
    assert ruling(policies) == "fix"
    assert ruling(policies, to="bob@other.test") == "drop"
    assert ruling(policies, "198.51.100.40", to="bob@other.test") == "fix"
    assert ruling(policies, OTHER_SERVER, to="bob@other.test") == "fix"


def test_a_peer_by_name_has_its_media_policy() -> None:
    """It holds for the addresses that DNS gives."""
    policies = lists(Peer(NAME, "never"), Domain("there.test", "full"), sip_example_net=[PROVIDER.host])
    payload = request(to="<sip:bob@there.test>")
    packet = packet_from_bytes(packet_bytes(Datagram(PHONE, PROVIDER, payload)))
    turn = Turn(packet, message_from_bytes(payload), Edits(payload), 0.0, None, None)
    assert policies.media_of(turn) == "never"
    policies.take_names({}, realms())
    assert policies.media_of(turn) == "full"


def test_drops_are_noted_once_a_second_and_all_counted() -> None:
    """A flood of what is dropped does not flood the journal; hosts whose note is remembered are bounded."""
    policies = lists(Domain("*", policy="drop"))
    payload = request()
    noted = 0
    for number in range(MOST_NOTED + 100):
        source = Endpoint(f"198.51.{number // 250 + 1}.{number % 250 + 1}", 5060)
        packet = packet_from_bytes(packet_bytes(Datagram(source, PHONE, payload)))
        for now in (0.0, 0.5):
            outcome = Outcome()
            assert policies.settle(outcome, packet, message_from_bytes(payload), now)
            noted += len(outcome.notes)
    assert noted == MOST_NOTED + 100
    assert policies.counts == {"drop [[domain]] *": 2 * noted}
    assert len(policies._noted) == MOST_NOTED
