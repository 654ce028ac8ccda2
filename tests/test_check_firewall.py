"""What the operator's rules would do to natfix's packets, and the line that cures it."""

from __future__ import annotations

from pathlib import Path

import pytest

from natfix.address import network_from_text
from natfix.check_firewall import (
    check_forward,
    check_helpers,
    check_marks,
    check_nat,
    check_offload,
    check_rule_files,
)
from natfix.findings import Status
from natfix.firewall import Chain, Condition, Effect, FlowTable, Rule, Ruleset
from natfix.interfaces import Links, Route
from tests.hosts import FIREWALL, LINKS, bad, gateway, write

NO_DNAT = FIREWALL.replace("-A FORWARD -m conntrack --ctstate DNAT -j ACCEPT\n", "")
MANGLE = "*mangle\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING {rule}\nCOMMIT\n"


def nft(*rules: Rule, policy: str = "drop") -> Ruleset:
    """Return nft's usual forward chain with these rules."""
    chain = Chain("inet filter", "forward", "filter", "forward", policy, list(rules))
    return Ruleset({("inet filter", "forward"): chain})


def test_good_firewall(tmp_path: Path) -> None:
    """The firewall of the documentation, with the documented line, leaves nothing to be said."""
    assert bad(check_forward, gateway(tmp_path)) == []


def test_missing_line_is_found_and_printed(tmp_path: Path) -> None:
    """A forward chain that drops DNATed streams is found, and the line for it is printed."""
    (finding,) = bad(check_forward, gateway(tmp_path, firewall=NO_DNAT))
    assert finding.status is Status.WARNING
    assert finding.text.startswith("iptables filter FORWARD drops media from a port that was not announced")
    assert finding.cure == "iptables -I FORWARD -m conntrack --ctstate DNAT -j ACCEPT"


INPUT = FIREWALL.replace("*nat", """*filter
:INPUT DROP [0:0]
-A INPUT -i wan0 -p udp -m udp --dport 5060 -j ACCEPT
COMMIT
*nat""")


def test_sip_to_a_pbx_on_the_gateway(tmp_path: Path) -> None:
    """An input chain that drops it is found, with the line for each port; without such a PBX it is not."""
    config = '[gateway]\npbx = "local"\n[signalling]\nports = [5060, 5070]\n'
    (finding,) = bad(check_forward, gateway(tmp_path, config, firewall=INPUT))
    assert finding.status is Status.WARNING
    assert finding.cure == "iptables -I INPUT -i wan0 -p udp --dport 5070 -j ACCEPT"
    assert bad(check_forward, gateway(tmp_path, config)) == []
    assert bad(check_forward, gateway(tmp_path, "[media]", firewall=INPUT)) == []


def test_the_line_in_nft_words(tmp_path: Path) -> None:
    """For an nft chain the cure is an nft command."""
    rules = nft(Rule((Condition("ctstate", ("established", "related")),), "accept"),
                Rule((Condition("iifname", ("lan0",)),), "accept"))
    (finding,) = bad(check_forward, gateway(tmp_path, ruleset=rules))
    assert finding.cure == "nft insert rule inet filter forward ct status dnat accept"


def test_firewall_that_drops_everything(tmp_path: Path) -> None:
    """Calls out, answers and media are three findings, each with its own line; the first two are errors."""
    findings = bad(check_forward, gateway(tmp_path, ruleset=nft()))
    assert [finding.status for finding in findings] == [Status.ERROR, Status.ERROR, Status.WARNING]
    assert [finding.cure.removeprefix("nft insert rule inet filter forward ") for finding in findings] == [
        'iifname != "wan0" oifname "wan0" accept', "ct state established,related accept",
        "ct status dnat accept"]


def test_narrow_accept_is_not_enough(tmp_path: Path) -> None:
    """A rule that accepts some ports may accept some streams; it is found, and said so."""
    some = Rule((Condition("dport", ((10000, 20000),)),), "accept")
    rules = nft(Rule((Condition("ctstate", ("established",)),), "accept"),
                Rule((Condition("iifname", ("lan0",)),), "accept"), some)
    (finding,) = bad(check_forward, gateway(tmp_path, ruleset=rules))
    assert "on conditions that natfix cannot foresee" in finding.text


def test_no_forward_chain(tmp_path: Path) -> None:
    """A gateway without firewall has nothing to cure."""
    assert bad(check_forward, gateway(tmp_path, ruleset=Ruleset())) == []


def test_nat(tmp_path: Path) -> None:
    """Masquerade at another interface is no NAT outside, and the cure is a whole table."""
    assert bad(check_nat, gateway(tmp_path)) == []
    elsewhere = FIREWALL.replace("-o wan0 -j MASQ", "-o tun0 -j MASQ")
    (finding,) = bad(check_nat, gateway(tmp_path, firewall=elsewhere))
    assert 'oifname "wan0" masquerade' in finding.cure


def test_kernel_helper_by_iptables(tmp_path: Path) -> None:
    """A CT rule that attaches the kernel's helper is an error, with the command that removes it."""
    rule = "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p udp --dport 5060 -j CT --helper sip\nCOMMIT\n"
    (finding,) = bad(check_helpers, gateway(tmp_path, firewall=rule))
    assert finding.status is Status.ERROR
    assert finding.cure == "iptables -t raw -D PREROUTING 1"


def test_kernel_helper_by_nft(tmp_path: Path) -> None:
    """The same in nft is found by handle; a helper for another protocol is nobody's business."""
    sip = Condition("dport", ((5060, 5060),))
    rules = nft(Rule((), effects=(Effect("helper", "ftp"),)),
                Rule((sip,), effects=(Effect("helper", "sip"),), handle="handle 12"))
    (finding,) = bad(check_helpers, gateway(tmp_path, ruleset=rules))
    assert finding.cure == "nft delete rule inet filter forward handle 12"


def test_kernel_helper_by_sysctl(tmp_path: Path) -> None:
    """Automatic assignment of old kernels counts where the helper is loaded."""
    host = gateway(tmp_path, proc__sys__net__netfilter__nf_conntrack_helper="1")
    assert bad(check_helpers, host) == []
    write(tmp_path, "sys/module/nf_conntrack_sip/refcnt", "0")
    (finding,) = bad(check_helpers, host)
    assert "nf_conntrack_helper=0" in finding.cure


def test_loaded_helper_is_no_fault(tmp_path: Path) -> None:
    """The module alone, attached to nothing, does nothing."""
    assert bad(check_helpers, gateway(tmp_path, sys__module__nf_nat_sip__refcnt="0")) == []


@pytest.mark.parametrize(("rule", "cure"), [
    ("-j CONNMARK --set-xmark 0x1/0xffffffff", "let it keep the bit"),
    ("-j CONNMARK --save-mark", "let it keep the bit"),
    ("-j CONNMARK --set-xmark 0x4000000/0xf000000", "in natfix.toml, [signalling] mark = 0x80000000"),
])
def test_overwritten_mark(tmp_path: Path, rule: str, cure: str) -> None:
    """A rule that overwrites natfix's bit is found; where a bit is free, it is named."""
    (finding,) = bad(check_marks, gateway(tmp_path, firewall=MANGLE.format(rule=rule)))
    assert finding.cure.startswith(cure)


@pytest.mark.parametrize("rule", [
    "-j CONNMARK --set-xmark 0x1/0xff", "-j CONNMARK --restore-mark", "-p tcp -j CONNMARK --set-xmark 0x1",
])
def test_harmless_marks(tmp_path: Path, rule: str) -> None:
    """Other bits, reading, and other protocols are no concern."""
    assert bad(check_marks, gateway(tmp_path, firewall=MANGLE.format(rule=rule))) == []


def test_flow_table(tmp_path: Path) -> None:
    """A flow table for UDP takes SIP out of natfix's sight; one for TCP does not."""
    udp = nft(Rule((), effects=(Effect("flow", "f"),)))
    tcp = nft(Rule((Condition("proto", ("tcp",)),), effects=(Effect("flow", "f"),)))
    assert "0x04000000 == 0" in bad(check_offload, gateway(tmp_path, ruleset=udp))[0].cure
    assert bad(check_offload, gateway(tmp_path, ruleset=tcp)) == []


def test_notrack(tmp_path: Path) -> None:
    """SIP without conntrack cannot be translated; DNS without it can stay so."""
    sip, dns = (MANGLE.format(rule=f"-p udp --dport {port} -j NOTRACK") for port in (5060, 53))
    assert bad(check_offload, gateway(tmp_path, firewall=sip))
    assert not bad(check_offload, gateway(tmp_path, firewall=dns))


def test_flow_table_of_other_links(tmp_path: Path) -> None:
    """A flow table matters where it has one of the gateway's links; one in the network card is named so."""
    udp = nft(Rule((), effects=(Effect("flow", "f"),)))
    for links, words in (({"lan0"}, "a flow table"), ({"wan0", "dmz0"}, "network card's"), ({"dmz0"}, "")):
        udp.flow_tables["inet filter", "f"] = FlowTable(frozenset(links), in_hardware="wan0" in links)
        found = bad(check_offload, gateway(tmp_path, ruleset=udp))
        assert [words in finding.text for finding in found] == [True] * bool(words)


TWO_NETWORKS = Links(
    {**LINKS.addresses, "guest0": ("192.168.9.1",)},
    (*LINKS.routes, Route(network_from_text("192.168.9.0/24"), "guest0")))


def test_each_inside_network_by_itself(tmp_path: Path) -> None:
    """A chain that lets one network out and shuts another in is a warning for the latter, no error; rules for
    each link are as good as one for all."""
    one = FIREWALL
    both = one.replace("-i lan0 -o wan0", "-i guest0 -o wan0 -j ACCEPT\n-A FORWARD -i lan0 -o wan0")
    (finding,) = bad(check_forward, gateway(tmp_path, links=TWO_NETWORKS, firewall=one))
    assert finding.status is Status.WARNING
    assert "as far as phones in 192.168.9.0/24 (guest0) go" in finding.text
    assert bad(check_forward, gateway(tmp_path, links=TWO_NETWORKS, firewall=both)) == []


def test_the_line_for_natfix_own_ports_only(tmp_path: Path) -> None:
    """`--ctorigdstport` may keep the documented line to natfix's ports, and must cover all of them."""
    line = "-m conntrack --ctstate DNAT"
    for ports, count in (("20000:39999", 0), ("30000:39999", 0), ("30000:34999", 1)):
        host = gateway(tmp_path, firewall=FIREWALL.replace(line, f"{line} --ctorigdstport {ports}"))
        assert len(bad(check_forward, host)) == count, ports


def test_random_ports_are_noted(tmp_path: Path) -> None:
    """A masquerade by chance is no fault for what natfix serves."""
    host = gateway(tmp_path, firewall=FIREWALL.replace("MASQUERADE", "MASQUERADE --random-fully"))
    assert [finding.status for finding in check_nat(host)] == [Status.NOTE, Status.OK]


@pytest.mark.parametrize(("main", "more", "named"), [
    ("flush ruleset;\ninclude \"/etc/nftables.d/*.nft\"\n", "", "/etc/nftables.conf"),
    ("include \"/etc/nftables.d/*.nft\"\n", "table inet x { }\n  flush   ruleset # all\n",
     "/etc/nftables.d/a.nft"),
    ("include \"nftables.d/a.nft\"\n", "delete table inet x; flush ruleset\n", "/etc/nftables.d/a.nft"),
    ("# flush ruleset\nflush table inet filter\ninclude \"/etc/nftables.d/a.nft\"\n",
     "include \"/etc/nftables.conf\"\n", ""),
])
def test_rule_files_that_are_included(tmp_path: Path, main: str, more: str, named: str) -> None:
    """Included files count, comments do not, and files that include each other end."""
    host = gateway(tmp_path, **{"etc__nftables.conf": main, "etc__nftables.d__a.nft": more})
    (finding,) = check_rule_files(host)
    assert finding.status is (Status.NOTE if named else Status.OK)
    assert named in finding.text


def test_flushing_rule_file_is_noted(tmp_path: Path) -> None:
    """`flush ruleset` in Debian's rule file is said, and is no finding: natfix puts its table back."""
    host = gateway(tmp_path, **{"etc__nftables.conf": "#!/usr/sbin/nft -f\n\nflush ruleset\n"})
    assert bad(check_rule_files, host) == []
    assert [finding.status for finding in check_rule_files(host)] == [Status.NOTE]
    assert [finding.status for finding in check_rule_files(gateway(tmp_path / "other"))] == [Status.OK]
