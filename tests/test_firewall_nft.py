"""nft's JSON listing, as this machine's nft prints it for rules loaded into a namespace of the test's own."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest

from natfix.address import network_from_text
from natfix.firewall import NEVER, NOT_UNDERSTOOD, Condition, Effect, FlowTable, Rule, Ruleset
from natfix.firewall_nft import dnat_maps, ruleset_from_json

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a network namespace"),
]

TABLE = '''table inet filter {{
    ct helper sip-std {{ type "sip" protocol udp; }}
    set named {{ type ipv4_addr; }}
    chain other {{ }}
    chain forward {{ type filter hook forward priority filter; policy drop;
        {rule}
    }}
}}
table ip6 ignored {{
    chain forward {{ type filter hook forward priority 0; policy drop; }}
}}
'''


def listing_of(text: str) -> dict[str, Any]:
    """Return nft's listing of the rules in *text*."""
    script = "nft -f - && nft -j -t -a list ruleset"
    done = subprocess.run(["unshare", "-n", "sh", "-c", script], input=text, capture_output=True, text=True,
                          check=True)
    return dict(json.loads(done.stdout))


def rules_of(rule: str) -> list[Rule]:
    """Return what *rule*, written in a forward chain, is read as; handles aside."""
    made = ruleset_from_json(listing_of(TABLE.format(rule=rule)))
    return [each._replace(handle="") for each in made.chains["inet filter", "forward"].rules]


@pytest.mark.parametrize(("rule", "expected"), [
    ("accept", Rule((), "accept")),
    ("counter log reject", Rule((), "drop")),
    ("ct state established,related accept", Rule(
        (Condition("ctstate", ("established", "related")),), "accept")),
    ("ct status dnat accept", Rule((Condition("ctstatus", ("dnat",)),), "accept")),
    ("ct status ! dnat drop", Rule((Condition("ctstatus", ("dnat",), negated=True),), "drop")),
    ('iifname { "lan0", "lan1" } oifname != "wan*" jump other', Rule(
        (Condition("iifname", ("lan0", "lan1")), Condition("oifname", ("wan*",), negated=True)),
        "jump", "other")),
    ("ip daddr 192.168.1.0/24 udp dport { 5060, 10000-20000 } accept", Rule(
        (Condition("daddr", (network_from_text("192.168.1.0/24"),)),
         Condition("dport", ((5060, 5060), (10000, 20000)))), "accept")),
    ("ip saddr @named accept", Rule((NOT_UNDERSTOOD,), "accept")),
    ("meta mark 1 accept", Rule((Condition("mark", ((1, 0xFFFFFFFF),)),), "accept")),
    ("meta mark and 0x4 != 0x4 accept", Rule((Condition("mark", ((4, 4),), negated=True),), "accept")),
    ("meta l4proto udp ct original proto-dst 20000-39999 accept",
     Rule((Condition("proto", ("udp",)), Condition("ctorigdport", ((20000, 39999),))), "accept")),
    ("tcp dport != 22 drop", Rule((NEVER,), "drop")),
    ("ip6 daddr ::1 drop", Rule((NEVER,), "drop")),
    ("ct mark set 1", Rule((), effects=(Effect("ctmark", 0),))),
    ("ct mark set meta mark", Rule((), effects=(Effect("ctmark", 0),))),
    ("ct mark set ct mark | 0xf0", Rule((), effects=(Effect("ctmark", 0xFFFFFF0F),))),
    ("ct mark set ct mark and 0xff or 0x1", Rule((), effects=(Effect("ctmark", 0xFE),))),
    ("meta mark set ct mark", None),
    ('udp dport 5060 ct helper set "sip-std"', Rule(
        (Condition("dport", ((5060, 5060),)),), effects=(Effect("helper", "sip"),))),
])
def test_rule(rule: str, expected: Rule | None) -> None:
    """Each kind of rule arrives with its conditions, verdict and effects; what is not known as not known."""
    read = [
        each._replace(conditions=tuple(
            each._replace(values=tuple(sorted(each.values))) for each in each.conditions))
        for each in rules_of(rule)
    ]
    assert read == ([expected] if expected else [])


def test_verdict_map_is_a_rule_for_each_element() -> None:
    """"ct state vmap" is read element by element, in no particular order."""
    rules = rules_of("ct state vmap { established : accept, invalid : drop }")
    assert sorted(rules) == [
        Rule((Condition("ctstate", ("established",)),), "accept"),
        Rule((Condition("ctstate", ("invalid",)),), "drop"),
    ]


def test_base_chain_keeps_hook_and_policy() -> None:
    """A base chain has its hook and policy, other families are left out."""
    made: Ruleset = ruleset_from_json(listing_of(TABLE.format(rule="accept")))
    (chain,) = made.base_chains("forward")
    assert (chain.table, chain.kind, chain.policy) == ("inet filter", "filter", "drop")
    assert made.tables == {"inet filter"}


def test_nat_chains() -> None:
    """NAT rules are known as such, with the interface they are for."""
    text = '''table ip nat {
        chain post { type nat hook postrouting priority srcnat;
            oifname "wan0" masquerade
        }
        chain pre { type nat hook prerouting priority dstnat;
            iifname "wan0" udp dport 5060 dnat to 10.0.0.5
        }
    }'''
    made = ruleset_from_json(listing_of(text))
    effects = {effect.kind: rule.conditions[0] for _, rule in made.rules() for effect in rule.effects}
    assert effects == {"masquerade": Condition("oifname", ("wan0",)), "dnat": Condition("iifname", ("wan0",))}


MAPS = '''table ip nat {
    map named { type inet_service : ipv4_addr . inet_service; elements = { 5070 : 10.0.0.7 . 5060 }; }
    chain pre { type nat hook prerouting priority dstnat;
        dnat to udp dport map { 5060 : 10.0.0.5, 5080-5090 : 10.0.0.6 }
        dnat ip to ip daddr . udp dport map { 203.0.113.1 . 5061 : 10.0.0.5 . 5060 }
        dnat ip addr . port to udp dport map @named
    }
}'''


def test_dnat_maps_are_rules() -> None:
    """Each element of a DNAT map, written in the rule or named, is a rule of its own."""
    listing = listing_of(MAPS)
    assert dnat_maps(listing) == {("ip nat", "named")}
    for entry in listing["nftables"]:
        if "map" in entry:      # the terse listing has left this out
            entry["map"]["elem"] = [[5070, {"concat": ["10.0.0.7", 5060]}]]
    rules = ruleset_from_json(listing).chains["ip nat", "pre"].rules
    assert sorted((rule.conditions[-1].values, rule.effects[0].value) for rule in rules) == [
        (((5060, 5060),), ("10.0.0.5", 0)),
        (((5061, 5061),), ("10.0.0.5", 5060)),
        (((5070, 5070),), ("10.0.0.7", 5060)),
        (((5080, 5090),), ("10.0.0.6", 0)),
    ]


@pytest.mark.parametrize(("statement", "effect"), [
    ({"flow": {"op": "add", "flowtable": "@f"}}, Effect("flow", "f")),
    ({"queue": {"num": 5060}}, Effect("queue", (5060, 5060))),
    ({"queue": {"num": {"range": [0, 3]}, "flags": "fanout"}}, Effect("queue", (0, 3))),
    ({"masquerade": {"flags": ["random", "persistent"]}}, Effect("masquerade", "random")),
    ({"masquerade": {"flags": "fully-random"}}, Effect("masquerade", "fully-random")),
])
def test_statements_that_this_kernel_may_lack(statement: dict[str, object], effect: Effect) -> None:
    """As libnftables-json(5) writes them; a flow table with its links and flags."""
    rule = {"family": "inet", "table": "t", "chain": "c", "handle": 4, "expr": [statement]}
    flow_table = {"family": "inet", "name": "f", "table": "t", "dev": ["wan0", "lan0"], "flags": "offload"}
    read = ruleset_from_json({"nftables": [
        {"table": {"family": "inet", "name": "t"}}, {"flowtable": flow_table},
        {"chain": {"family": "inet", "table": "t", "name": "c"}}, {"rule": rule}]})
    assert read.chains["inet t", "c"].rules == [Rule((), effects=(effect,), handle="handle 4")]
    assert read.flow_tables["inet t", "f"] == FlowTable(frozenset({"wan0", "lan0"}), in_hardware=True)


def test_rule_of_a_newer_nft() -> None:
    """A rule in a form that is not known costs just itself; the rest of the chain is read."""
    listing = listing_of(TABLE.format(rule="accept"))
    listing["nftables"] += [
        {"rule": {"family": "inet", "table": "filter", "chain": "forward", "handle": 99, "expr": expression}}
        for expression in ([{"match": {"new": 1}}], [{"a": 1, "b": 2}], ["text"])
    ]
    rules = ruleset_from_json(listing).chains["inet filter", "forward"].rules
    assert rules[0].verdict == "accept"
    assert rules[1:] == [Rule((NOT_UNDERSTOOD,), handle="handle 99")] * 3


def test_what_iptables_hides() -> None:
    """Matches of iptables, whose arguments JSON does not show, are not understood from there."""
    script = "iptables -A FORWARD -m conntrack --ctstate DNAT -j ACCEPT && nft -j list ruleset"
    done = subprocess.run(["unshare", "-n", "sh", "-c", script], capture_output=True, text=True, check=True)
    (rule,) = ruleset_from_json(json.loads(done.stdout)).chains["ip filter", "FORWARD"].rules
    assert rule.conditions == (NOT_UNDERSTOOD,)
