"""This machine's rule sets, read from a namespace where they are as the test makes them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from natfix.address import Endpoint, network_from_text
from natfix.firewall import Chain, Condition, Effect, Rule, Ruleset
from natfix.firewall_now import forwarded_udp_ports, ruleset_now

ROOT = Path(__file__).parents[1]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a network namespace")

SCRIPT = '''
from natfix.firewall_now import ruleset_now
made = ruleset_now()
print(sorted(made.tables))
for key, chain in sorted(made.chains.items()):
    print(key, chain.hook, chain.policy, len(chain.rules))
'''
RULES = '''
iptables -P FORWARD DROP
iptables -A FORWARD -m conntrack --ctstate DNAT -j ACCEPT
nft add table inet mine
nft 'add chain inet mine forward { type filter hook forward priority 0; }'
nft add table ip nat
nft 'add chain ip nat postrouting { type nat hook postrouting priority srcnat; }'
nft add rule ip nat postrouting oifname wan0 masquerade
nft add table ip natfix
nft 'add chain ip natfix divert { type filter hook forward priority mangle; }'
'''


@pytest.mark.kernel
@needs_root
def test_all_rules_but_our_own() -> None:
    """nft's tables are read, iptables' from iptables-save and once only, natfix's own are left out."""
    script = f"set -e\n{RULES}\nexec {sys.executable} -c '{SCRIPT}'"
    done = subprocess.run(
        ["unshare", "-n", "sh", "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines() == [
        "['inet mine', 'ip nat', 'ip natfix', 'iptables filter']",
        "('inet mine', 'forward') forward accept 0",
        "('ip nat', 'postrouting') postrouting accept 1",
        "('iptables filter', 'FORWARD') forward drop 1",
        "('iptables filter', 'INPUT') input accept 0",
        "('iptables filter', 'OUTPUT') output accept 0",
    ]


@pytest.mark.kernel
@needs_root
@pytest.mark.skipif(shutil.which("iptables-legacy") is None, reason="no iptables-legacy")
def test_legacy_rules_have_their_own_name() -> None:
    """Rules of the old kernel interface are read too, and named by the program that changes them."""
    script = "iptables-legacy -A FORWARD -i lan0 -j ACCEPT; exec \"$0\" -c \"$1\""
    done = subprocess.run(
        ["unshare", "-n", "sh", "-ec", script, sys.executable, SCRIPT], capture_output=True, text=True,
        check=True, cwd=ROOT)
    assert "('iptables-legacy filter', 'FORWARD') forward accept 1" in done.stdout.splitlines()


@needs_root
def test_absent_legacy_tables_are_no_error() -> None:
    """A kernel without the old interface has no list of its tables."""
    assert isinstance(ruleset_now(Path("/nonexistent")), Ruleset)


@pytest.mark.kernel
@needs_root
def test_forwards_by_a_named_map() -> None:
    """The elements of a map that the operator's DNAT rule looks into are read with the rules."""
    script = """
nft add table ip nat
nft 'add map ip nat m { type inet_service : ipv4_addr; elements = { 5062 : 10.0.0.5 }; }'
nft 'add chain ip nat pre { type nat hook prerouting priority dstnat; }'
nft 'add rule ip nat pre iifname wan0 dnat to udp dport map @m'
exec "$0" -c 'from natfix.firewall_now import *; print(forwarded_udp_ports(ruleset_now(), "wan0", ()))'
"""
    done = subprocess.run(
        ["unshare", "-n", "sh", "-ec", script, sys.executable], capture_output=True, text=True, check=True,
        cwd=ROOT)
    assert done.stdout == "{5062: Endpoint(host='10.0.0.5', port=5062, stream='', link='')}\n"


def forwards(*rules: Rule) -> dict[int, Endpoint | None]:
    chain = Chain("ip nat", "prerouting", "nat", "prerouting", rules=list(rules))
    return forwarded_udp_ports(Ruleset({("ip nat", "prerouting"): chain}), "wan0", ("203.0.113.1",))


def dnat(target: tuple[str, int] | None, *conditions: Condition) -> Rule:
    return Rule(conditions, effects=(Effect("dnat", target),))


PBX = ("10.0.0.5", 0)
SIP = Condition("dport", ((5060, 5061),))


def test_forwarded_ports_and_where_they_lead() -> None:
    """A port forward claims its ports; the target has the same port unless the rule says another."""
    assert forwards(dnat(PBX, SIP)) == {5060: Endpoint("10.0.0.5", 5060), 5061: Endpoint("10.0.0.5", 5061)}
    assert forwards(dnat(("10.0.0.5", 15060), SIP))[5061] == Endpoint("10.0.0.5", 15060)
    assert forwards(dnat(None, SIP)) == {5060: None, 5061: None}


def test_first_forward_counts() -> None:
    """Of two rules for one port the kernel takes the first, and so does natfix."""
    assert forwards(dnat(PBX, SIP), dnat(("10.0.0.6", 0), SIP))[5060] == Endpoint("10.0.0.5", 5060)


@pytest.mark.parametrize("condition", [
    Condition("proto", ("tcp",)),
    Condition("iifname", ("lan0",)),
    Condition("daddr", (network_from_text("203.0.113.2"),)),
])
def test_other_forwards_claim_nothing(condition: Condition) -> None:
    """Forwards of TCP, of other links and of other addresses leave the port free."""
    assert forwards(dnat(PBX, condition, SIP)) == {}


def test_forward_of_everything_claims_nothing() -> None:
    """"All the rest to one host" has no ports of its own."""
    assert forwards(dnat(PBX)) == {}
