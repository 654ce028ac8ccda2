"""Who a name's SIP servers are (RFC 3263), asked of a real DNS server that may be slow, wrong or hostile."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from natfix import lookup
from natfix.lookup import MOST_OCTETS, ONLY_IPV6, Found, LookupFailed, configured_servers, servers_of
from natfix.policies import MOST_ADDRESSES
from tests.name_server import NameServer

NAME = "example.org"


@pytest.fixture
def server() -> Iterator[NameServer]:
    """A DNS server."""
    with NameServer() as made:
        yield made


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions whose answers never come are given up soon."""
    monkeypatch.setattr(lookup, "PATIENCE", 0.2)
    monkeypatch.setattr(lookup, "LONGEST", 1.0)


def ask(server: NameServer, name: str = NAME, is_host: bool = False) -> Found:
    return servers_of(name, is_host, [server.address])


def test_naptr_leads_to_srv_and_to_addresses(server: NameServer) -> None:
    """RFC 3263, section 4.1: the services of UDP and TCP, their targets, these hosts' addresses; nothing of
    TLS, of other services, or of rules that rewrite."""
    server.put(NAME, "NAPTR", '50 50 "s" "SIPS+D2T" "" _sips._tcp.example.org.',
               '90 50 "s" "SIP+D2T" "" _sip._tcp.example.org.',
               '100 50 "S" "sip+d2u" "" _sip._udp.other.test.', '1 1 "u" "E2U+sip" "!^.*$!sip:a@b.test!" .')
    server.put("_sip._udp.other.test", "SRV", "10 5 5060 one.other.test.")
    server.put("_sip._tcp.example.org", "SRV", "20 5 5060 two.other.test.")
    server.put("one.other.test", "A", "198.51.100.1", "198.51.100.2")
    server.put("two.other.test", "A", "198.51.100.3")
    server.put(NAME, "A", "198.51.100.80")
    assert ask(server) == Found(("198.51.100.1", "198.51.100.2", "198.51.100.3"), 60)
    assert not [asked for asked in server.asked if "_sips" in asked[0] or asked[0] == "b.test"]


def test_srv_without_naptr(server: NameServer) -> None:
    """The usual case: both services' names are asked for, lower priority numbers come first."""
    server.put("_sip._udp.example.org", "SRV", "20 1 5060 b.test.", "10 1 5060 a.test.")
    server.put("a.test", "A", "198.51.100.9")
    server.put("b.test", "A", "198.51.100.1")
    assert ask(server).hosts == ("198.51.100.9", "198.51.100.1")


@pytest.mark.parametrize(("is_host", "expected"), [
    (False, ("198.51.100.1",)), (True, ("198.51.100.1", "198.51.100.80"))])
def test_a_hosts_own_address_counts_and_a_domains_does_not(
    server: NameServer, is_host: bool, expected: tuple[str, ...],
) -> None:
    """Behind the bare domain stands a web server as a rule; a host's own address is what phones use."""
    server.put("_sip._udp.example.org", "SRV", "10 1 5060 a.test.")
    server.put("a.test", "A", "198.51.100.1")
    server.put(NAME, "A", "198.51.100.80")
    assert ask(server, is_host=is_host).hosts == expected


def test_addresses_alone(server: NameServer) -> None:
    """Without NAPTR and SRV the domain's own address counts (RFC 3263, section 4.2)."""
    server.put(NAME, "A", "198.51.100.80")
    assert ask(server).hosts == ("198.51.100.80",)


def test_a_domain_that_offers_no_sip(server: NameServer) -> None:
    """An SRV record with the target "." says so (RFC 2782): its address is none of a SIP server then."""
    server.put("_sip._udp.example.org", "SRV", "0 0 0 .")
    server.put(NAME, "A", "198.51.100.80")
    assert ask(server).hosts == ()


def test_aliases_are_followed_and_bounded(server: NameServer) -> None:
    """CNAMEs within one answer and over several; not in a circle, and not for ever."""
    for number in range(5):
        server.put(f"{number}.test", "CNAME", f"{number + 1}.test.")
    server.put("5.test", "A", "198.51.100.5")
    assert ask(server, "0.test").hosts == ("198.51.100.5",)
    server.put("circle.test", "CNAME", "circle.test.")
    with pytest.raises(LookupFailed, match="alias of an alias"):
        ask(server, "circle.test")


def test_the_shortest_ttl_counts(server: NameServer) -> None:
    """Of all records on the way."""
    server.put("_sip._udp.example.org", "SRV", "10 1 5060 a.test.")
    server.put("a.test", "A", "198.51.100.1")
    server.ttl = 7
    assert ask(server).ttl == 7


def test_no_such_name_is_an_answer(server: NameServer) -> None:
    """NXDOMAIN: nobody, for nobody knows how long; that it has only IPv6 addresses is said."""
    assert ask(server) == Found((), float("inf"))
    server.put(NAME, "AAAA", "2001:db8::1")
    assert ask(server).remark == ONLY_IPV6


@pytest.mark.parametrize("rcode", [dns.rcode.SERVFAIL, dns.rcode.REFUSED], ids=["SERVFAIL", "REFUSED"])
def test_a_server_that_fails_is_no_answer(server: NameServer, rcode: dns.rcode.Rcode) -> None:
    """The error names it and what it said; the next server is asked first."""
    server.rcode = rcode
    with pytest.raises(LookupFailed, match=f"{server.address} says {rcode.name}"):
        ask(server)
    with NameServer() as other:
        other.put(NAME, "A", "198.51.100.80")
        assert servers_of(NAME, False, [server.address, other.address]).hosts == ("198.51.100.80",)


@pytest.mark.usefixtures("impatient")
def test_a_silent_server_costs_a_bounded_time(server: NameServer) -> None:
    """However many questions there would be."""
    server.is_silent = True
    began = time.monotonic()
    with pytest.raises(LookupFailed, match="no DNS server answers"):
        ask(server)
    assert time.monotonic() - began < 2.0


def test_no_server_at_all(server: NameServer) -> None:
    """A port that nobody listens at is said so at once."""
    server.close()
    with pytest.raises(LookupFailed, match="cannot be asked"):
        ask(server)


@pytest.mark.usefixtures("impatient")
def test_a_domains_address_is_not_taken_while_srv_cannot_be_asked(server: NameServer) -> None:
    """Else an outage would let a web server in; a host's address is its own in any case."""
    server.put(NAME, "A", "198.51.100.80")
    honest = server._fitting

    def only_addresses(query: dns.message.Message) -> list[bytes]:
        return [honest(query)] if query.question[0].rdtype.name == "A" else []
    server.forge = only_addresses
    with pytest.raises(LookupFailed):
        ask(server)


# Lies

def lies(query: dns.message.Message, truth: bytes) -> list[bytes]:
    """Datagrams that are no answer to *query*, before the one that is."""
    other_id = dns.message.from_wire(truth)
    other_id.id = query.id ^ 1
    question = dns.message.make_query("other.test", "A")
    question.id = query.id
    other_name = dns.message.make_response(question)
    other_name.answer.append(dns.rrset.from_text("other.test.", 60, "IN", "A", "198.51.100.66"))
    return [b"", b"\0" * 12, truth[:20], query.to_wire(), other_id.to_wire(), other_name.to_wire(), truth]


def test_what_answers_another_question_is_passed_over(server: NameServer) -> None:
    """Another ID, another name, the query itself, nonsense: the true answer behind them is taken."""
    server.put(NAME, "A", "198.51.100.80")
    honest = server._fitting
    server.forge = lambda query: lies(query, honest(query))
    assert ask(server).hosts == ("198.51.100.80",)


def test_records_of_other_names_do_not_count(server: NameServer) -> None:
    """An answer to the question may carry what nobody has asked for; it is not taken."""
    def poison(query: dns.message.Message) -> list[bytes]:
        made = dns.message.make_response(query)
        for section in (made.answer, made.additional):
            section.append(dns.rrset.from_text("sip.bank.test.", 60, "IN", "A", "198.51.100.66"))
        return [made.to_wire()]
    server.forge = poison
    assert ask(server).hosts == ()


def test_a_cut_answer_is_asked_for_by_tcp(server: NameServer) -> None:
    """1,000 addresses fit no datagram; of them a bounded number counts, and that is said."""
    server.put(NAME, "A", *(f"198.51.{number // 250}.{number % 250 + 1}" for number in range(1000)))
    found = ask(server)
    assert len(found.hosts) == MOST_ADDRESSES
    assert found.remark == "it has 1000 addresses, of which 64 are taken"
    assert (NAME, "A", "tcp") in server.asked


@pytest.mark.parametrize(("stream", "said"), [
    (b"\xff\xff" + bytes(65535), f"65535 octets, more than {MOST_OCTETS}"),
    (b"\0\x40" + bytes(10), "ends the connection too early"),
    (b"\0\x0c" + bytes(12), "to another question"),
], ids=["huge", "short", "other"])
def test_a_bad_stream_is_no_answer(server: NameServer, stream: bytes, said: str) -> None:
    """A length beyond reason is not read, let alone parsed; nor counts what ends early or answers others."""
    server.put(NAME, "A", *(f"198.51.100.{number}" for number in range(1, 255)))
    server.forge_tcp = lambda query: stream
    with pytest.raises(LookupFailed, match=said):
        ask(server)


def test_servers_of_resolv_conf(tmp_path: Path) -> None:
    """Three at most, of either family; without any, this host itself, as resolv.conf(5) says."""
    path = tmp_path / "resolv.conf"
    path.write_text("search test\nnameserver 192.0.2.1\n# nameserver 192.0.2.2\nnameserver 2001:db8::1\n"
                    "nameserver 192.0.2.3\nnameserver 192.0.2.4\nnameserver\n")
    assert configured_servers(str(path)) == ["192.0.2.1", "2001:db8::1", "192.0.2.3"]
    assert configured_servers(str(tmp_path / "none")) == ["127.0.0.1"]
