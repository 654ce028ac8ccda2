"""What the operator has decided: who may talk, and whose messages are fixed, left alone or dropped.

Two things that must not be mixed up. *Who comes in* is a matter of addresses alone: those of a [[peer]], and
those that DNS gives for a peer's name or a domain's servers. What a message names is written by its sender
and never opens anything. *What is done to a message* is found in this order:

1. the policy of a [[peer]]: by its address, else by a name that has this address;
2. that of the domains that To and From name: for each its most particular entry, of both the stricter one;
3. that of a domain whose server has this address: of several the longest name's;
4. that of "*";
5. "fix".

Where two are equal otherwise, the stricter one holds: "drop" before "pass" before "fix". Media policy
(NATPass's FULL) is found the same way, but of To and From the first that has one counts.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from natfix.address import is_ipv4
from natfix.commands import Note, Outcome, Verdict
from natfix.config import Settings, dropped_hosts, named_hosts, names_to_resolve, peer_hosts
from natfix.errors import MalformedMessage
from natfix.far_signs import private_network
from natfix.packet import Packet
from natfix.realms import Realms, is_usable
from natfix.sip.fields import address_at
from natfix.sip.message import Message
from natfix.turn import Turn

STRICTNESS = ("", "fix", "pass", "drop")
OTHERS = "*"                # the domain that stands for all that no other entry names
MOST_ADDRESSES = 64         # of one name
NOTE_EVERY = 1.0            # seconds between two notes about what one host is dropped for
MOST_NOTED = 1024           # hosts whose last note is remembered


class Entry(NamedTuple):
    """One [[peer]] or [[domain]]."""

    kind: str
    name: str       # in small letters
    policy: str     # "" where it says nothing
    media: str

    def __str__(self) -> str:
        return f"[[{self.kind}]] {self.name}"


class Policies:
    """The lists of the settings, with what DNS has told about their names."""

    def __init__(self, settings: Settings) -> None:
        self._told: dict[str, tuple[str, ...]] = {}
        self._noted: OrderedDict[str, float] = OrderedDict()
        self.trusted: set[str] = set()              # whom no rate binds: peers, by address or name
        self.refused: dict[str, dict[str, str]] = {}    # by name, addresses that DNS gave, and why not
        self.counts: Counter[str] = Counter()       # messages dropped and passed, by entry
        self.follow(settings)

    def follow(self, settings: Settings) -> None:
        """Take other lists; what DNS has told of names that stay is kept, and :meth:`judge` has to follow."""
        self._default = settings.media.policy
        self._peers = {each.address.lower(): Entry("peer", each.address.lower(), each.policy, each.media)
                       for each in settings.peers}
        self._domains = {each.name.lower(): Entry("domain", each.name.lower(), each.policy, each.media)
                         for each in settings.domains}
        self._judges_domains = any(entry.policy != "fix" for entry in self._domains.values())
        self._names = names_to_resolve(settings)
        self._peer_hosts, self._named_hosts = peer_hosts(settings), named_hosts(settings)
        self._peer_at = self._peers_by_address()
        self._server_at: dict[str, Entry] = {}
        self.dropped = dropped_hosts(settings)
        self.admitted = self._peer_hosts            # who may use every inward half of signalling
        self.trusted |= self._named_hosts

    # -- who may come in ------------------------------------------------------------------------------

    def take_names(self, told: Mapping[str, Iterable[str]], realms: Realms) -> list[Note]:
        """Take the addresses of the names, as DNS has them now; the names that are missing have none."""
        before = self._told
        self._told = {name: tuple(dict.fromkeys(told.get(name, ())))[:MOST_ADDRESSES] for name in self._names}
        changed = [name for name, hosts in self._told.items() if hosts != before.get(name, ())]
        notes = [Note("names", name, " ".join(before.get(name, ())), " ".join(self._told[name]),
                      "DNS has other addresses for it") for name in changed]
        return notes + self.judge(realms)

    def judge(self, realms: Realms) -> list[Note]:
        """Tell anew which of the addresses may be a peer's: inside and outside may have changed."""
        before, self.refused = self.refused, {}
        self._peer_at, self._server_at = self._peers_by_address(), {}
        named: set[str] = set()
        for name in sorted(self._names, key=len, reverse=True):     # the longest name first
            for host in self._told.get(name, ()):
                if reason := self._refusal(host, realms):
                    self.refused.setdefault(name, {})[host] = reason
                    continue
                named.add(host)
                self._enter(name, host)
        self.admitted = self._peer_hosts | named
        self.trusted.clear()
        self.trusted |= self._named_hosts | (named & self._peer_at.keys())
        return [Note("names", "", host, host, f"{name} does not let {host} in: {reason}")
                for name, hosts in self.refused.items() for host, reason in hosts.items()
                if host not in before.get(name, {})]

    def _peers_by_address(self) -> dict[str, Entry]:
        return {host: entry for host, entry in self._peers.items() if host not in self._names}

    def _refusal(self, host: str, realms: Realms) -> str:
        """Return why a name's owner may not have *host* as its address, "" where he may.

        Who owns a name could have it stand for an inside host (DNS rebinding), or for somebody unwanted.
        """
        if not is_ipv4(host) or not is_usable(host):
            return "nobody can be reached there"
        if realms.is_inside(host) or host in realms.own_hosts or host in realms.gateway_hosts:
            return "it is inside, or this gateway's own"
        if private_network(host) is not None:
            return "it is a private address; a [[peer]] may give it as such"
        return "a [[peer]] has it dropped" if host in self.dropped else ""

    def _enter(self, name: str, host: str) -> None:
        for entries, table in ((self._peers, self._peer_at), (self._domains, self._server_at)):
            if name in entries:
                entry, known = entries[name], table.get(host)
                is_tie = known is not None and known.name in self._names and len(known.name) == len(name)
                if known is None or (is_tie and _strictness(entry) > _strictness(known)):
                    table[host] = entry

    # -- what is done to a message ----------------------------------------------------------------------

    def of_packet(self, packet: Packet) -> Entry | None:
        """Return the peer whose policy holds for all between it and inside, None where none says anything."""
        if not self._peer_at:
            return None
        return _strictest(self._peer_at.get(packet.source.host), self._peer_at.get(packet.destination.host))

    def of_message(self, packet: Packet, message: Message) -> Entry | None:
        """Return the domain whose policy holds for *message*, None for "fix", where no peer's does."""
        if not self._judges_domains:
            return None
        named = (self._named(host) for host in _hosts(message))
        hosts = (packet.source.host, packet.destination.host)
        return (_strictest(*named)
                or _strictest(*(self._server_at.get(host) for host in hosts))
                or self._domains.get(OTHERS))

    def _named(self, host: str) -> Entry | None:
        return next((self._domains[name] for name in _names(host) if name in self._domains), None)

    def settle(self, outcome: Outcome, packet: Packet, message: Message | None, now: float) -> bool:
        """Drop *packet*, or leave it alone, where a policy says so; False where it is to be fixed."""
        entry = self.of_packet(packet) or (self.of_message(packet, message) if message is not None else None)
        if entry is None or entry.policy == "fix":
            return False
        self.counts[f"{entry.policy} {entry}"] += 1
        if entry.policy == "drop":
            outcome.verdict = Verdict.DROP
            outcome.notes += self._note_drop(entry, packet.source.host, now)
        else:
            outcome.verdict = Verdict.ACCEPT    # of a segment's messages another one may have been dropped
            outcome.notes.append(Note("policy", reason=f"left alone: {entry} has the policy pass"))
        return True

    def _note_drop(self, entry: Entry, host: str, now: float) -> list[Note]:
        """Return why what *host* sent is dropped, once a second: a flood must not flood the journal."""
        if now - self._noted.get(host, -NOTE_EVERY) < NOTE_EVERY:
            return []
        if host not in self._noted and len(self._noted) >= MOST_NOTED:
            self._noted.popitem(last=False)
        self._noted[host] = now
        return [Note("policy", "", host, host, f"dropped: {entry} has the policy drop")]

    # -- media --------------------------------------------------------------------------------------------

    def media_of(self, turn: Turn) -> str:
        """Return "auto", "full" or "never"."""
        hosts = (turn.packet.destination.host, turn.packet.source.host)
        return (
            next((self._peer_at[host].media for host in hosts if host in self._peer_at
                  and self._peer_at[host].media), "")
            or (self._domains and self._media_of_domain(turn.message, hosts))
            or self._default
        )

    def _media_of_domain(self, message: Message, hosts: tuple[str, str]) -> str:
        """From and To stay as they are for the whole of a dialog, and so does what is chosen by them."""
        named = (self._domains.get(name) for host in _hosts(message) for name in _names(host))
        servers = (self._server_at.get(host) for host in hosts)
        entries = (*named, *servers, self._domains.get(OTHERS))
        return next((entry.media for entry in entries if entry is not None and entry.media), "")


def _strictness(entry: Entry) -> int:
    return STRICTNESS.index(entry.policy)


def _strictest(*entries: Entry | None) -> Entry | None:
    """Return the entry with the strictest policy of those that have one."""
    return max((entry for entry in entries if entry is not None and entry.policy),
               key=_strictness, default=None)


def _hosts(message: Message) -> Iterator[str]:
    for name in ("to", "from"):
        header = message.first(name)
        if header is None:
            continue
        try:
            uri = address_at(message.raw, header.start, header.end).uri
        except MalformedMessage:
            continue
        if uri is not None:
            yield uri.hostport.host.lower().rstrip(".")     # with the root's dot it is the same name


def _names(host: str) -> Iterator[str]:
    """Yield what a domain is found by, the most particular first: itself, then "*." and its ends."""
    yield host
    labels = host.split(".")
    for count in range(1, len(labels)):
        yield ".".join(("*", *labels[count:]))
