"""The operator's own rules, far enough understood to say what becomes of one kind of packet.

nftables and iptables are read into the same few words (:mod:`natfix.firewall_nft`,
:mod:`natfix.firewall_iptables`). A packet is known by *facts*, for instance that it is the first of its
flow and was DNATed; where a rule asks for what the facts do not say, the answer is "maybe", and a "maybe"
is never taken for a yes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from natfix.address import Network

MAX_DEPTH = 16      # jumps; NFT_JUMP_STACK_SIZE of the kernel


class Holds(Enum):
    """Whether a condition is true of a packet."""

    NO = 0
    MAYBE = 1
    YES = 2


class Condition(NamedTuple):
    """One test of a rule: ``key`` is one of ``values``. A key that no facts have is not understood."""

    key: str                    # "iifname", "oifname", "saddr", "daddr", "proto", "dport", "ctstate", ...
    values: tuple[Any, ...]     # names (with "*"), networks, ranges (first, last) of ports, (mark, mask)
    negated: bool = False


NOT_UNDERSTOOD = Condition("", ())
NEVER = Condition("proto", ())      # of no protocol at all


class Effect(NamedTuple):
    """What a rule does beside its verdict, as far as natfix cares.

    ``kind`` and ``value``: "helper", its type; "ctmark", the bits of the mark that are kept; "flow", the
    flow table's name; "notrack"; "masquerade", the flags for random ports, or None; "dnat", (host, port or
    0), or None where that varies; "queue", the first and the last number.
    """

    kind: str
    value: Any = None


class Rule(NamedTuple):
    """One rule."""

    conditions: tuple[Condition, ...]
    verdict: str = ""           # "accept", "drop", "return", "jump", "goto", or "" for none
    target: str = ""            # of a jump or goto
    effects: tuple[Effect, ...] = ()
    handle: str = ""            # how the operator finds it: "handle 12", "rule 3"


@dataclass(slots=True)
class Chain:
    """One chain; ``hook`` is "" where others jump to it."""

    table: str                  # "inet filter", or "iptables filter"
    name: str
    kind: str = ""              # "filter", "nat", "route"
    hook: str = ""
    policy: str = "accept"
    rules: list[Rule] = field(default_factory=list)


class FlowTable(NamedTuple):
    """A flow table: packets of its flows that come in by its links pass around the rules."""

    links: frozenset[str]
    in_hardware: bool


@dataclass(slots=True)
class Ruleset:
    """All chains, by table and name, and what else there is."""

    chains: dict[tuple[str, str], Chain] = field(default_factory=dict)
    tables: set[str] = field(default_factory=set)
    flow_tables: dict[tuple[str, str], FlowTable] = field(default_factory=dict)     # by table and name

    def base_chains(self, hook: str, kind: str = "filter") -> list[Chain]:
        """Return the chains at *hook*."""
        return [chain for chain in self.chains.values() if chain.hook == hook and chain.kind == kind]

    def rules(self) -> Iterator[tuple[Chain, Rule]]:
        for chain in self.chains.values():
            for rule in chain.rules:
                yield chain, rule

    def effects(self, kind: str, facts: Facts) -> Iterator[tuple[Chain, Rule, Effect]]:
        """Yield the effects of one kind that a packet with *facts* may meet, wherever its chain is called."""
        for chain, rule in self.rules():
            for effect in rule.effects:
                if effect.kind == kind and all_hold(rule.conditions, facts) is not Holds.NO:
                    yield chain, rule, effect


# What is known of a packet. Flags of conntrack: those that are set. All else: the values it may have.
Facts = Mapping[str, frozenset[Any]]
FLAGS = frozenset({"ctstate", "ctstatus"})
NETWORKS = frozenset({"saddr", "daddr"})
PORTS = frozenset({"sport", "dport", "ctorigdport"})


class Fate(NamedTuple):
    """What a base chain does with a packet."""

    verdict: str                # "accept" or "drop"
    maybe_accepted: bool        # some rule before that accepts it, on conditions that are not known


def holds(condition: Condition, facts: Facts) -> Holds:
    """Tell whether *condition* is true of a packet with *facts*."""
    known = facts.get(condition.key)
    if not known:
        return Holds.MAYBE
    answer = _compare(condition.key, known, condition.values)
    return Holds(2 - answer.value) if condition.negated else answer


def all_hold(conditions: Iterable[Condition], facts: Facts) -> Holds:
    """Tell whether all of *conditions* are true of a packet with *facts*."""
    return min((holds(each, facts) for each in conditions), key=lambda each: each.value, default=Holds.YES)


def fate(ruleset: Ruleset, chain: Chain, facts: Facts) -> Fate:
    """Return what *chain*, one at a hook, does with a packet with *facts*."""
    walk = _Walk(ruleset, facts)
    verdict = walk.through(chain, 0) or chain.policy
    return Fate(verdict, walk.maybe_accepted)


class _Walk:
    """One packet's way through the chains."""

    def __init__(self, ruleset: Ruleset, facts: Facts) -> None:
        self._ruleset = ruleset
        self._facts = facts
        self.maybe_accepted = False

    def through(self, chain: Chain, depth: int, sure: bool = True) -> str:
        """Return "accept" or "drop" where a rule decides for sure, else "" (the chain ends or returns)."""
        for rule in chain.rules:
            answer = all_hold(rule.conditions, self._facts)
            if answer is Holds.NO or not rule.verdict:
                continue
            if rule.verdict == "return":
                if answer is Holds.YES:
                    return ""
                continue
            certain = sure and answer is Holds.YES
            verdict = self._verdict(chain, rule, depth, certain)
            if verdict and certain:
                return verdict
            self.maybe_accepted |= verdict == "accept"
            if rule.verdict == "goto" and answer is Holds.YES:
                return ""
        return ""

    def _verdict(self, chain: Chain, rule: Rule, depth: int, certain: bool) -> str:
        if rule.verdict not in ("jump", "goto"):
            return rule.verdict
        target = self._ruleset.chains.get((chain.table, rule.target))
        if target is None or depth >= MAX_DEPTH:
            return ""
        return self.through(target, depth + 1, certain)


def _compare(key: str, known: frozenset[Any], values: tuple[Any, ...]) -> Holds:
    if key in FLAGS:
        return Holds.YES if known & set(values) else Holds.NO
    fitting = [_fits(key, each, values) for each in known]
    if all(answer is Holds.YES for answer in fitting):
        return Holds.YES
    return Holds.NO if all(answer is Holds.NO for answer in fitting) else Holds.MAYBE


def _fits(key: str, known: Any, values: tuple[Any, ...]) -> Holds:
    """Tell whether one of the values that a packet may have is among those that a rule wants."""
    if key in NETWORKS:
        return max((_covers(each, known) for each in values), key=lambda each: each.value, default=Holds.NO)
    if key == "mark":
        return Holds.YES if any(known & mask == value for value, mask in values) else Holds.NO
    if key in PORTS:
        return Holds.YES if any(first <= known <= last for first, last in values) else Holds.NO
    return Holds.YES if any(fnmatchcase(str(known), str(each)) for each in values) else Holds.NO


def _covers(wanted: Network, known: Network) -> Holds:
    """Tell whether every address of *known* lies in *wanted*, none, or some."""
    if wanted.mask & known.mask == wanted.mask and known.base & wanted.mask == wanted.base:
        return Holds.YES
    return Holds.MAYBE if wanted.base & known.mask == known.base else Holds.NO
