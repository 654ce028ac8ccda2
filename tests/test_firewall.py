"""The operator's chains, asked what becomes of a packet of which something is known and something is not."""

from __future__ import annotations

import pytest

from natfix.address import network_from_text
from natfix.firewall import (
    NEVER,
    NOT_UNDERSTOOD,
    Chain,
    Condition,
    Effect,
    Fate,
    Holds,
    Rule,
    Ruleset,
    all_hold,
    fate,
    holds,
)

FACTS = {
    "iifname": frozenset({"wan0"}),
    "oifname": frozenset({"lan0", "lan1"}),
    "proto": frozenset({"udp"}),
    "ctstate": frozenset({"new", "dnat"}),
    "ctstatus": frozenset({"dnat"}),
    "daddr": frozenset({network_from_text("192.168.1.0/24")}),
    "dport": frozenset({5060}),
}
DNAT = Condition("ctstatus", ("dnat",))
STRANGE = NOT_UNDERSTOOD


@pytest.mark.parametrize(("condition", "answer"), [
    (Condition("iifname", ("wan0",)), Holds.YES),
    (Condition("iifname", ("lan0",)), Holds.NO),
    (Condition("iifname", ("lan0",), negated=True), Holds.YES),
    (Condition("iifname", ("w*",)), Holds.YES),
    (Condition("oifname", ("lan0",)), Holds.MAYBE),
    (Condition("oifname", ("lan0",), negated=True), Holds.MAYBE),
    (Condition("oifname", ("lan0", "lan1")), Holds.YES),
    (Condition("ctstate", ("established", "related")), Holds.NO),
    (Condition("ctstate", ("new", "established")), Holds.YES),
    (Condition("ctstatus", ("dnat",), negated=True), Holds.NO),
    (Condition("daddr", (network_from_text("192.168.0.0/16"),)), Holds.YES),
    (Condition("daddr", (network_from_text("192.168.1.5"),)), Holds.MAYBE),
    (Condition("daddr", (network_from_text("10.0.0.0/8"),)), Holds.NO),
    (Condition("dport", ((5000, 6000),)), Holds.YES),
    (Condition("dport", ((1, 2), (3, 4))), Holds.NO),
    (Condition("saddr", (network_from_text("10.0.0.0/8"),)), Holds.MAYBE),
    (NOT_UNDERSTOOD, Holds.MAYBE),
    (NEVER, Holds.NO),
])
def test_condition(condition: Condition, answer: Holds) -> None:
    """A condition is true, false, or not to be told from the facts; negation turns the first two round."""
    assert holds(condition, FACTS) is answer


def test_the_least_certain_condition_decides() -> None:
    """A rule fits surely only where all its conditions do, and not at all where one does not."""
    assert all_hold((), FACTS) is Holds.YES
    assert all_hold((DNAT, STRANGE), FACTS) is Holds.MAYBE
    assert all_hold((DNAT, STRANGE, NEVER), FACTS) is Holds.NO


def ruleset(policy: str, *rules: Rule, **others: list[Rule]) -> Ruleset:
    """Return one forward chain, and the chains it may jump to."""
    base = Chain("inet filter", "forward", "filter", "forward", policy, list(rules))
    made = Ruleset({("inet filter", "forward"): base})
    for name, content in others.items():
        made.chains["inet filter", name] = Chain("inet filter", name, rules=content)
    return made


def fate_of(made: Ruleset) -> Fate:
    (chain,) = made.base_chains("forward")
    return fate(made, chain, FACTS)


ACCEPT_DNAT = Rule((DNAT,), "accept")


@pytest.mark.parametrize(("made", "expected"), [
    (ruleset("accept"), Fate("accept", False)),
    (ruleset("drop"), Fate("drop", False)),
    (ruleset("drop", ACCEPT_DNAT), Fate("accept", False)),
    (ruleset("drop", Rule((Condition("ctstate", ("established",)),), "accept")), Fate("drop", False)),
    (ruleset("accept", Rule((), "drop")), Fate("drop", False)),
    (ruleset("accept", Rule((), "drop"), ACCEPT_DNAT), Fate("drop", False)),
    (ruleset("drop", Rule((STRANGE,), "accept")), Fate("drop", True)),
    (ruleset("drop", Rule((STRANGE,), "drop"), ACCEPT_DNAT), Fate("accept", False)),
    (ruleset("drop", Rule((), "jump", "more"), more=[ACCEPT_DNAT]), Fate("accept", False)),
    (ruleset("drop", Rule((STRANGE,), "jump", "more"), more=[ACCEPT_DNAT]), Fate("drop", True)),
    (ruleset("drop", Rule((), "jump", "a"), ACCEPT_DNAT, a=[Rule((), "return")]), Fate("accept", False)),
    (ruleset("drop", Rule((), "goto", "more"), ACCEPT_DNAT, more=[]), Fate("drop", False)),
    (ruleset("drop", Rule((), "return"), ACCEPT_DNAT), Fate("drop", False)),
    (ruleset("drop", Rule((STRANGE,), "return"), ACCEPT_DNAT), Fate("accept", False)),
    (ruleset("drop", Rule((), "jump", "absent"), ACCEPT_DNAT), Fate("accept", False)),
])
def test_fate(made: Ruleset, expected: Fate) -> None:
    """The first rule that surely fits decides, through jumps; what fits perhaps never counts as a yes."""
    assert fate_of(made) == expected


def test_chains_that_jump_in_a_circle_end() -> None:
    """A loop, which a half-understood listing could show, does not hang the check."""
    assert fate_of(ruleset("drop", Rule((), "jump", "one"), one=[Rule((), "jump", "one")])).verdict == "drop"


def test_effects_of_rules_that_cannot_fit_are_left_out() -> None:
    """What a rule does to TCP is no concern of SIP over UDP."""
    tcp = Rule((Condition("proto", ("tcp",)),), effects=(Effect("flow", "f"),))
    all_udp = Rule((), effects=(Effect("flow", "g"),))
    found = [effect.value for _, _, effect in ruleset("accept", tcp, all_udp).effects("flow", FACTS)]
    assert found == ["g"]
