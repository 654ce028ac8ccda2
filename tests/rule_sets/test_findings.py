"""`natfix check` on real rule sets, loaded by nft, iptables and iptables-legacy: what is wrong is found, its
cure is a command that cures it, and what is right is left alone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from natfix.check_firewall import (
    check_forward,
    check_helpers,
    check_marks,
    check_nat,
    check_offload,
)
from natfix.check_own import check_foreign_queue_rules, check_forwards, check_output
from natfix.findings import Finding, Status
from natfix.firewall_now import ruleset_now
from tests.hosts import gateway
from tests.namespace import Namespace, kernel_test, namespace

pytestmark = kernel_test
CHECKS = (check_forward, check_nat, check_helpers, check_marks, check_offload, check_forwards, check_output,
          check_foreign_queue_rules)
NFT_HEALTHY = """
table inet filter {{
    {objects}
    chain forward {{
        type filter hook forward priority filter; policy drop;
        {forward}
    }}
    chain output {{
        type filter hook output priority filter; policy {output_policy};
        {output}
    }}
    chain early {{
        type filter hook prerouting priority mangle;
        {early}
    }}
}}
table ip nat {{
    chain prerouting {{
        type nat hook prerouting priority dstnat;
        {dnat}
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat;
        {snat}
    }}
}}
"""
NFT_PARTS = {
    "forward": 'ct state established,related accept\n ct status dnat accept\n iifname "lan0" accept',
    "objects": "", "output": "", "output_policy": "accept", "early": "", "dnat": "",
    "snat": 'oifname "wan0" masquerade',
}
IPTABLES_HEALTHY = """*raw
{raw}
COMMIT
*mangle
{early}
COMMIT
*filter
:FORWARD DROP [0:0]
:OUTPUT {output_policy} [0:0]
{forward}
{output}
COMMIT
*nat
{dnat}
{snat}
COMMIT
"""
IPTABLES_PARTS = {
    "forward": "-A FORWARD -m state --state ESTABLISHED,RELATED -j ACCEPT\n"
               "-A FORWARD -m conntrack --ctstate DNAT -j ACCEPT\n-A FORWARD -i lan0 -j ACCEPT",
    "output": "", "output_policy": "ACCEPT", "early": "", "raw": "", "dnat": "",
    "snat": "-A POSTROUTING -o wan0 -j MASQUERADE",
}


class Case(NamedTuple):
    """One thing that is wrong (or looks so), in both languages, and what is to be said of it."""

    name: str
    nft: dict[str, str]
    iptables: dict[str, str]
    found: list[tuple[str, Status]] = []        # noqa: RUF012 (nobody writes to it): words of each finding
    cured: bool = True                          # by the commands that are printed


E, W, N = Status.ERROR, Status.WARNING, Status.NOTE
CASES = (
    Case("healthy", {}, {}),
    Case("no-established", {"forward": 'ct status dnat accept\n iifname "lan0" accept'},
         {"forward": "-A FORWARD -m conntrack --ctstate DNAT -j ACCEPT\n-A FORWARD -i lan0 -j ACCEPT"},
         [("answers from outside", E)]),
    Case("no-dnat-line", {"forward": 'ct state established accept\n iifname "lan0" accept'},
         {"forward": "-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT\n-A FORWARD -i lan0 -j ACCEPT"},
         [("media from a port that was not announced", W)]),
    Case("everything-dropped", {"forward": ""}, {"forward": ""},
         [("what phones send out", E), ("answers from outside", E), ("not announced", W)]),
    Case("drop-before-accept",
         {"forward": 'iifname "wan0" meta l4proto udp drop\n ' + NFT_PARTS["forward"]},
         {"forward": "-A FORWARD -i wan0 -p udp -j DROP\n" + IPTABLES_PARTS["forward"]},
         [("answers from outside", E), ("not announced", W)]),
    Case("verdict-map-and-chains",
         {"forward": 'ct state vmap { established : accept, related : accept, invalid : drop }\n '
                     'ct status { dnat, snat } accept\n iifname { "lan0", "lan1" } accept'},
         {"forward": ":STATE - [0:0]\n-A FORWARD -j STATE\n"
                     "-A STATE -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT\n"
                     "-A STATE -i lan0 ! -o lan0 -j ACCEPT"}),
    Case("no-nat", {"snat": 'oifname "tun0" masquerade'},
         {"snat": "-A POSTROUTING -o tun0 -j MASQUERADE"}, [("no rule translates what leaves by wan0", W)],
         cured=False),          # a table of its own, where the operator may have a better place
    Case("random-ports", {"snat": 'oifname "wan0" masquerade fully-random'},
         {"snat": "-A POSTROUTING -o wan0 -j MASQUERADE --random-fully"}, [("chooses ports by chance", N)],
         cured=False),
    Case("whole-mark", {"early": 'iifname "lan0" ct mark set 0x1'},
         {"early": "-A PREROUTING -i lan0 -j CONNMARK --set-mark 0x1"}, [("overwrites bit 0x04000000", W)],
         cured=False),
    Case("masked-mark", {"early": 'iifname "lan0" ct mark set ct mark and 0xffff0000 or 0x1'},
         {"early": "-A PREROUTING -i lan0 -j CONNMARK --set-xmark 0x1/0xffff"}),
    Case("kernel-helper", {"objects": 'ct helper sip-udp { type "sip" protocol udp; }',
                           "early": 'udp dport 5060 ct helper set "sip-udp"'},
         {"raw": "-A PREROUTING -p udp --dport 5060 -j CT --helper sip"},
         [("gives SIP to the kernel's helper", E)]),
    Case("another-helper", {"objects": 'ct helper tftp-udp { type "tftp" protocol udp; }',
                            "early": 'udp dport 69 ct helper set "tftp-udp"'},
         {"raw": "-A PREROUTING -p udp --dport 69 -j CT --helper tftp"}),
    Case("no-conntrack", {"early": "udp dport 5060 notrack"},
         {"raw": "-A PREROUTING -p udp --dport 5060 -j NOTRACK"},
         [("keeps SIP out of conntrack", E)]),
    Case("no-conntrack-for-dns", {"early": "udp dport 53 notrack"},
         {"raw": "-A PREROUTING -p udp --dport 53 -j NOTRACK"}),
    Case("own-packets-dropped", {"output_policy": "drop", "output": "ct state new,established accept"},
         {"output_policy": "DROP", "output": "-A OUTPUT -m conntrack --ctstate NEW,ESTABLISHED -j ACCEPT"},
         [("drops what natfix sends", W)]),
    Case("own-packets-accepted",
         {"output_policy": "drop", "output": 'oifname "wan0" meta l4proto udp accept'},
         {"output_policy": "DROP", "output": "-A OUTPUT -o wan0 -p udp -j ACCEPT"}),
    Case("forward-of-media-ports", {"dnat": 'iifname "wan0" udp dport 30000-39999 dnat to 192.168.1.5'},
         {"dnat": "-A PREROUTING -i wan0 -p udp --dport 30000:39999 -j DNAT --to-destination 192.168.1.5"},
         [("take 10000 of [media] ports", W)], cured=False),
    Case("forward-of-other-ports", {"dnat": 'iifname "wan0" udp dport 10000-20000 dnat to 192.168.1.5'},
         {"dnat": "-A PREROUTING -i wan0 -p udp --dport 10000:20000 -j DNAT --to-destination 192.168.1.5"}),
)
LANGUAGES = ("nft", "iptables", "iptables-legacy")


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Namespace]:
    """A namespace for rules alone: the links are those of tests.hosts."""
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "lock"))
    with namespace() as made:
        yield made


def load(box: Namespace, case: Case, language: str) -> None:
    """Load the rule set of *case* as an operator would."""
    if language == "nft":
        box.run("nft -f -", NFT_HEALTHY.format(**{**NFT_PARTS, **case.nft}))
    else:
        box.run(f"{language}-restore", IPTABLES_HEALTHY.format(**{**IPTABLES_PARTS, **case.iptables}))


def found_in(box: Namespace, root: Path) -> list[Finding]:
    """Return what all checks of rules find, notes included."""
    host = gateway(root, ruleset=box.call(ruleset_now))
    return [finding for check in CHECKS for finding in check(host) if finding.status is not Status.OK]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_findings(box: Namespace, tmp_path: Path, case: Case, language: str) -> None:
    """What is wrong is found in each language, nothing else is, and the printed commands are its cure."""
    if shutil.which(language) is None:
        pytest.skip(f"not installed: {language}")
    load(box, case, language)
    found = found_in(box, tmp_path)
    for words, status in case.found:
        assert [finding.status for finding in found if words in finding.text] == [status], found
    assert len(found) == len(case.found), found
    if case.found and case.cured:
        for finding in found:
            box.run(finding.cure)
        assert found_in(box, tmp_path) == []
