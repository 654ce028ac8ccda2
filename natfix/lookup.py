"""Who are a name's SIP servers? RFC 3263: NAPTR, then SRV, then A, asked by UDP, by TCP where that is cut.

Whoever answers may be slow, wrong or hostile, so everything is bounded: time, questions, aliases, targets,
addresses, octets. What does not answer the question that was asked is passed over.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype

from natfix.errors import NatfixError
from natfix.policies import MOST_ADDRESSES

PORT = 53
RESOLV_CONF = "/etc/resolv.conf"
MOST_SERVERS = 3            # as in resolv.conf(5)
LONGEST = 10.0              # seconds for all questions about one name
PATIENCE = 2.0              # seconds for one server's answer
ROUNDS = 2                  # times that each server is asked
MOST_QUESTIONS = 64         # about one name
MOST_ALIASES = 8            # CNAMEs that follow each other
MOST_RULES = 8              # NAPTR records, by order and preference
MOST_TARGETS = 16           # of SRV records, by priority and weight
MOST_OCTETS = 32768         # of one answer
UDP_OCTETS = 1232           # that an answer by UDP may have: no fragments (DNS flag day 2020)
NEVER = float("inf")

# RFC 3263, section 4.1; TLS is not asked for, since nobody but its two ends can read it.
SERVICES = {b"sip+d2u", b"sip+d2t"}
BY_SRV = b"s"
PREFIXES = ("_sip._udp.", "_sip._tcp.")
ONLY_IPV6 = "it has IPv6 addresses only, which natfix has no use for"
LENGTH = struct.Struct("!H")


class LookupFailed(NatfixError):
    """DNS does not say: nobody answers, or not to the question."""


class Found(NamedTuple):
    """What DNS says of a name."""

    hosts: tuple[str, ...]      # IPv4 addresses, at most MOST_ADDRESSES; none: DNS knows of none
    ttl: float                  # seconds that this holds; infinite where there is nothing
    remark: str = ""            # what an operator should know of it


def servers_of(name: str, is_host: bool, nameservers: Sequence[str] = ()) -> Found:
    """Return the addresses of *name*'s SIP servers; may take LONGEST seconds.

    Of a host (*is_host*) its own addresses count beside its SRV records, since many phones know no other; of
    a domain only where it has no SRV records (RFC 3263, section 4.2): they are a web server's as a rule.
    *nameservers* ("192.0.2.53", "127.0.0.1:5353") are asked instead of those in /etc/resolv.conf. Raises
    LookupFailed where no answer can be had.
    """
    return _Inquiry(list(nameservers) or configured_servers()).servers_of(name, is_host)


def configured_servers(path: str = RESOLV_CONF) -> list[str]:
    """Return the name servers that resolv.conf(5) names, this host where it names none."""
    try:
        with open(path, errors="replace") as lines:
            words = [line.split() for line in lines]
    except OSError:
        words = []
    named = [line[1] for line in words if len(line) > 1 and line[0] == "nameserver"]
    return named[:MOST_SERVERS] or ["127.0.0.1"]


class _Inquiry:
    """All questions about one name."""

    def __init__(self, servers: Sequence[str]) -> None:
        self._servers = servers
        self._until = time.monotonic() + LONGEST
        self._left = MOST_QUESTIONS
        self._ttl = NEVER
        self._failures: list[LookupFailed] = []

    def servers_of(self, name: str, is_host: bool) -> Found:
        targets, has_srv = self._targets(name)
        if self._failures and not targets and not is_host:
            raise self._failures[0]     # there may be SRV records: its own address would be another server's
        if is_host or not has_srv:
            targets.append(name)
        hosts = [host for target in dict.fromkeys(targets) for host in self._addresses(target)]
        hosts = list(dict.fromkeys(hosts))
        if not hosts and self._failures:
            raise self._failures[0]
        return Found(tuple(hosts[:MOST_ADDRESSES]), self._ttl, self._remark(name, hosts))

    def _remark(self, name: str, hosts: list[str]) -> str:
        if len(hosts) > MOST_ADDRESSES:
            return f"it has {len(hosts)} addresses, of which {MOST_ADDRESSES} are taken"
        return ONLY_IPV6 if not hosts and self._try(name, "AAAA") else ""

    def _targets(self, name: str) -> tuple[list[str], bool]:
        """Return the hosts that the SRV records name, the preferred first, and whether there are records."""
        services = list(self._services(name)) or [prefix + name for prefix in PREFIXES]
        records = [record for service in services for record in self._try(service, "SRV")]
        records.sort(key=lambda record: (record.priority, -record.weight, record.target.to_text()))
        names = [record.target.to_text() for record in records if record.target != dns.name.root]
        return list(dict.fromkeys(names))[:MOST_TARGETS], bool(records)

    def _services(self, name: str) -> Iterator[str]:
        rules = sorted(self._try(name, "NAPTR"), key=lambda rule: (rule.order, rule.preference))
        for rule in rules[:MOST_RULES]:
            if rule.service.lower() in SERVICES and rule.flags.lower() == BY_SRV and not rule.regexp:
                yield rule.replacement.to_text()

    def _addresses(self, name: str) -> list[str]:
        return sorted(record.address for record in self._try(name, "A"))

    def _try(self, name: str, kind: str) -> list[Any]:
        """Return the records; what cannot be asked is kept, since the rest may do."""
        try:
            return self._records(name, kind)
        except LookupFailed as problem:
            self._failures.append(problem)
            return []

    def _records(self, name: str, kind: str) -> list[Any]:
        """Return the records of *kind* that *name*, or what it is an alias of, has."""
        try:
            owner = dns.name.from_text(name)
        except dns.exception.DNSException:
            raise LookupFailed(f"{name} is no name for DNS") from None
        wanted, seen = dns.rdatatype.from_text(kind), 0
        while True:
            asked, answer = owner, self._ask(owner, wanted)
            while seen <= MOST_ALIASES:
                if found := answer.get_rrset(answer.answer, owner, dns.rdataclass.IN, wanted):
                    self._ttl = min(self._ttl, found.ttl)
                    return list(found)
                alias = answer.get_rrset(answer.answer, owner, dns.rdataclass.IN, dns.rdatatype.CNAME)
                if alias is None:
                    break
                owner, seen = alias[0].target, seen + 1
                self._ttl = min(self._ttl, alias.ttl)
            if seen > MOST_ALIASES:
                raise LookupFailed(f"{name} is an alias of an alias, more than {MOST_ALIASES} times")
            if owner == asked:
                return []

    def _ask(self, owner: dns.name.Name, kind: dns.rdatatype.RdataType) -> dns.message.Message:
        """Return the first usable answer of any server."""
        problem = "no DNS server answers"
        for server in [*self._servers] * ROUNDS:
            if self._left <= 0 or time.monotonic() >= self._until:
                break
            self._left -= 1
            query = dns.message.make_query(owner, kind, use_edns=0, payload=UDP_OCTETS)
            try:
                answer = self._exchange(query, server)
            except TimeoutError:
                continue
            except OSError as error:
                problem = f"the DNS server {server} cannot be asked ({error.strerror or error})"
                continue
            except _TooLargeError as error:
                problem = f"the DNS server {server} sends {error} octets, more than {MOST_OCTETS}"
                continue
            if answer.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                return answer
            problem = f"the DNS server {server} says {dns.rcode.to_text(answer.rcode())}"
        raise LookupFailed(problem)

    def _exchange(self, query: dns.message.Message, server: str) -> dns.message.Message:
        until = min(self._until, time.monotonic() + PATIENCE)
        address, family = _socket_address(server)
        with socket.socket(family, socket.SOCK_DGRAM) as line:
            line.connect(address)
            line.send(query.to_wire())
            answer = None
            while answer is None:
                line.settimeout(_left(until))
                answer = _answer(query, line.recv(MOST_OCTETS))
        return answer if not answer.flags & dns.flags.TC else _by_tcp(query, address, family, until)


class _TooLargeError(Exception):
    """An answer by TCP is longer than anybody needs."""


def _by_tcp(
    query: dns.message.Message, address: tuple[str, int], family: int, until: float,
) -> dns.message.Message:
    """Ask once more where the answer did not fit a datagram."""
    wire = query.to_wire()
    with socket.socket(family, socket.SOCK_STREAM) as line:
        line.settimeout(_left(until))
        line.connect(address)
        line.sendall(LENGTH.pack(len(wire)) + wire)
        (length,) = LENGTH.unpack(_octets(line, LENGTH.size, until))
        if length > MOST_OCTETS:
            raise _TooLargeError(length)
        answer = _answer(query, _octets(line, length, until))
    if answer is None:
        raise ConnectionError("its answer is to another question")
    return answer


def _octets(line: socket.socket, count: int, until: float) -> bytes:
    received = b""
    while len(received) < count:
        line.settimeout(_left(until))
        more = line.recv(count - len(received))
        if not more:
            raise ConnectionError("it ends the connection too early")
        received += more
    return received


def _answer(query: dns.message.Message, wire: bytes) -> dns.message.Message | None:
    """Return the message in *wire*, None where it does not answer *query*: another ID or question."""
    try:
        answer = dns.message.from_wire(wire)
    except (dns.exception.DNSException, ValueError, struct.error):
        return None
    return answer if query.is_response(answer) else None


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _socket_address(server: str) -> tuple[tuple[str, int], int]:
    """Return what socket.connect() takes, and the family; a server of IPv6 stands without a port."""
    if server.count(":") > 1:
        return (server, PORT), socket.AF_INET6
    host, _, port = server.partition(":")
    return (host, int(port or PORT)), socket.AF_INET
