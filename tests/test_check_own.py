"""What natfix needs of others' rules: its way out, its queue, its ports."""

from __future__ import annotations

from pathlib import Path

import pytest

from natfix.check_own import check_foreign_queue_rules, check_forwards, check_output, check_statics
from natfix.findings import Status
from natfix.firewall import Chain, Condition, Effect, Rule, Ruleset
from tests.hosts import bad, gateway

OUTPUT = ("*filter\n:OUTPUT DROP [0:0]\n-A OUTPUT -m conntrack --ctstate NEW,ESTABLISHED -j ACCEPT\n"
          "{rule}COMMIT\n")


def test_output_that_knows_tracked_packets_only(tmp_path: Path) -> None:
    """A default-drop output chain that accepts what conntrack knows drops keep-alives; the cure is a rule."""
    (finding,) = bad(check_output, gateway(tmp_path, firewall=OUTPUT.format(rule="")))
    assert finding.status is Status.WARNING
    assert finding.cure == "iptables -I OUTPUT -m mark --mark 0x4000000/0x4000000 -j ACCEPT"


@pytest.mark.parametrize("rule", [
    "-A OUTPUT -m mark --mark 0x4000000/0x4000000 -j ACCEPT\n",
    "-A OUTPUT -o wan0 -p udp -j ACCEPT\n",
    "-A OUTPUT -m conntrack --ctstate UNTRACKED -j ACCEPT\n",
])
def test_output_that_lets_them_out(tmp_path: Path, rule: str) -> None:
    """natfix's mark, UDP to outside, or untracked packets: each of them is enough."""
    assert bad(check_output, gateway(tmp_path, firewall=OUTPUT.format(rule=rule))) == []


def test_output_without_keep_alives(tmp_path: Path) -> None:
    """Where natfix sends nothing, its way out does not matter."""
    config = '[far_end]\nkeep_open = "never"\n'
    assert bad(check_output, gateway(tmp_path, config, firewall=OUTPUT.format(rule=""))) == []


def test_output_in_another_table(tmp_path: Path) -> None:
    """The cure names the table where it is not iptables' usual one."""
    mangle = OUTPUT.format(rule="").replace("*filter", "*mangle")
    (finding,) = bad(check_output, gateway(tmp_path, firewall=mangle))
    assert finding.cure.startswith("iptables -t mangle -I OUTPUT -m mark ")


def test_output_in_nft_words(tmp_path: Path) -> None:
    """For a chain of nft's the cure is an nft command that tests natfix's bit."""
    chain = Chain("inet filter", "output", "filter", "output", "drop")
    (finding,) = bad(check_output, gateway(tmp_path, ruleset=Ruleset({("inet filter", "output"): chain})))
    assert finding.cure == \
        "nft insert rule inet filter output meta mark and 0x04000000 == 0x04000000 accept"


@pytest.mark.parametrize(("numbers", "count"), [
    ((5060, 5060), 1), ((5000, 5100), 1), ((0, 5059), 0), (None, 0)])
def test_rules_to_the_same_queue(tmp_path: Path, numbers: tuple[int, int] | None, count: int) -> None:
    """A rule of others that leads to natfix's queue, also by a range, is an error."""
    chain = Chain("inet ids", "forward", "filter", "forward", "accept",
                  [Rule((), effects=(Effect("queue", numbers),), handle="handle 3")])
    host = gateway(tmp_path, ruleset=Ruleset({("inet ids", "forward"): chain}))
    found = bad(check_foreign_queue_rules, host)
    assert [finding.status for finding in found] == [Status.ERROR] * count


@pytest.mark.parametrize(("ports", "statuses"), [
    (((5060, 5060),), [Status.OK]), (((30000, 30099),), [Status.NOTE]), (((20000, 45000),), [Status.WARNING]),
])
def test_forwards_of_media_ports(
    tmp_path: Path, ports: tuple[tuple[int, int], ...], statuses: list[Status],
) -> None:
    """A forward of some of natfix's ports is told, one of most of them is a warning."""
    rule = Rule((Condition("proto", ("udp",)), Condition("dport", ports)),
                effects=(Effect("dnat", ("192.168.1.5", 0)),))
    chain = Chain("ip nat", "prerouting", "nat", "prerouting", "accept", [rule])
    host = gateway(tmp_path, ruleset=Ruleset({("ip nat", "prerouting"): chain}))
    assert [finding.status for finding in check_forwards(host)] == statuses


@pytest.mark.parametrize(("rule", "count"), [
    ("-A PREROUTING -i wan0 -d 203.0.113.5 -j DNAT --to-destination 192.168.1.5", 0),
    ("-A PREROUTING -d 203.0.113.0/29 -j NETMAP --to 192.168.1.0/29", 0),
    ("-A PREROUTING -i wan0 -d 203.0.113.5 -j DNAT --to-destination 192.168.1.6", 1),
    ("-A PREROUTING -i lan0 -d 203.0.113.5 -j DNAT --to-destination 192.168.1.5", 1),
])
def test_static_hosts_need_a_rule(tmp_path: Path, rule: str, count: int) -> None:
    """What natfix shows at an outside address of its own is reached there by a rule of the operator's."""
    config = '[[static]]\ninside = "192.168.1.5"\noutside = "203.0.113.5"\n'
    host = gateway(tmp_path, config, firewall=f"*nat\n:PREROUTING ACCEPT [0:0]\n{rule}\nCOMMIT\n")
    found = bad(check_statics, host)
    assert ["192.168.1.5 is 203.0.113.5 outside" in finding.text for finding in found] == [True] * count
    assert bad(check_statics, gateway(tmp_path, firewall="")) == []
