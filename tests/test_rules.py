"""`natfix rules`: text that the real programs accept, with the settings in it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from natfix.address import network_from_text
from natfix.config import config_from_text
from natfix.errors import ConfigError, KernelRefused
from natfix.rules import iptables_text, nft_text, skeleton_for
from tests.hosts import CAPABLE
from tests.namespace import kernel_test, namespace

CONFIG = '''
[outside]
interface = "wan0"
[media]
ports = [40000, 41999]
[signalling]
ports = [5060, 5080]
mark = 0x100
queue = 77
'''
SKELETON = skeleton_for(config_from_text(CONFIG, "x"))
BYPASS = replace(SKELETON, bypass=True)
WHOLE = replace(SKELETON, own_pbx=True, intranet=(network_from_text("10.8.0.0/16"),))


def test_configured_interface_need_not_be_there() -> None:
    """Rules can be printed on another machine than the gateway, where the configuration names the link."""
    assert SKELETON.outside_interfaces == ("wan0",)


def test_unclear_interface_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without configuration and default route nobody knows what to print."""
    from natfix import rules
    from natfix.interfaces import Links

    monkeypatch.setattr(rules, "links_now", lambda: Links({}, ()))
    with pytest.raises(ConfigError, match="no default route"):
        skeleton_for(config_from_text("", "x"))


def test_nft_text_has_the_settings() -> None:
    """The shipped file, with the operator's values in place of the defaults."""
    text = nft_text(SKELETON, CAPABLE)
    for line in ('define outside = { "wan0" }', "define sip_ports = { 5060, 5080 }",
                 "define media_ports = 40000-41999", "define sip_bit = 0x00000100", "define sip_queue = 77"):
        assert line in text
    assert "queue num $sip_queue" in text


def test_several_outside_links() -> None:
    """What only these need is there then, and not with one link; iptables' words cannot say it."""
    text = nft_text(replace(SKELETON, outside_interfaces=("wan0", "wan1", "ppp0")), CAPABLE)
    assert 'define outside = { "wan0", "wan1", "ppp0" }' in text
    assert 'define links = { "wan1", "ppp0" }' in text
    for line in ("iifname != $outside meta mark set ip saddr . udp sport map @links_media",
                 "oifname $links snat ip to oifname . ip saddr . udp sport map @links_out"):
        assert f"\n        {line}\n" in text
        assert f"\n        {line}\n" not in nft_text(SKELETON, CAPABLE)
    with pytest.raises(ConfigError, match="cannot be said in iptables' words"):
        iptables_text(replace(SKELETON, outside_interfaces=("wan0", "wan1")))


def test_links_are_put_into_the_skeleton() -> None:
    """The links of the configuration, there or not, in their order."""
    text = '[outside]\ninterface = "wan0"\n[[link]]\ninterface = "ppp0"'
    assert skeleton_for(config_from_text(text, "here")).outside_interfaces == ("wan0", "ppp0")


def test_nft_text_follows_the_kernel() -> None:
    """A kernel without the queue statement gets the form that natfix would use; one without both an error."""
    text = nft_text(SKELETON, replace(CAPABLE, queue=False))
    assert "NFQUEUE --queue-num 77" in text
    with pytest.raises(KernelRefused):
        nft_text(SKELETON, replace(CAPABLE, queue=False, nfqueue=False))


def test_nft_text_without_timeouts() -> None:
    """A kernel without nft's ct timeout gets neither the object nor the rule that hands it out."""
    assert nft_text(SKELETON, CAPABLE).count("ct timeout") == 2
    text = nft_text(SKELETON, replace(CAPABLE, timeouts=False))
    assert "ct timeout" not in text
    assert text.count("{") == text.count("}")


def test_nft_text_without_rights() -> None:
    """Who may not ask the kernel gets the text for a stock one, or the form that the configuration forces."""
    nobody = replace(CAPABLE, net_admin=False, queue=False, nfqueue=False)
    assert "queue num $sip_queue" in nft_text(SKELETON, nobody)
    assert "NFQUEUE --queue-num 77" in nft_text(replace(SKELETON, divert="nfqueue"), nobody)


def test_iptables_text() -> None:
    """The mark, the queue, the guard and the operator's own line, with the settings."""
    lines = iptables_text(SKELETON).splitlines()
    assert "-A PREROUTING -p udp -m multiport --dports 5060,5080 -j CONNMARK --set-xmark 0x100/0x100" in lines
    assert "-A FORWARD -p udp -m connmark --mark 0x100/0x100 -j NFQUEUE --queue-num 77" in lines
    assert "-A FORWARD -p tcp -m connmark --mark 0x100/0x100 -j NFQUEUE --queue-num 77" in lines
    assert "-A PREROUTING -p tcp --syn -m multiport --dports 5060,5080 -j CONNMARK --set-xmark 0x100/0x100" \
        in lines
    assert "-A FORWARD -i wan0 -m conntrack --ctstate DNAT -j ACCEPT" in lines
    assert any("--dport 40000:41999" in line and line.endswith("-j DROP") for line in lines)


def test_a_pbx_on_the_gateway() -> None:
    """Its SIP is queued in both forms where the configuration has it, and in neither where not."""
    own = replace(SKELETON, own_pbx=True)
    queued = "-p udp -m connmark --mark 0x100/0x100 -j NFQUEUE --queue-num 77"
    lines = iptables_text(own).splitlines()
    assert {f"-A INPUT -i wan0 {queued}", f"-A OUTPUT -o wan0 {queued}"} <= set(lines)
    assert any(line.startswith("-A OUTPUT -o wan0") and "CONNMARK" in line for line in lines)
    assert "OUTPUT -o" not in iptables_text(SKELETON)
    rules = nft_text(own, CAPABLE)
    for end in ("iifname", "oifname"):
        assert rules.count(f"\n        {end} $outside ct mark") == 1
    assert nft_text(SKELETON, CAPABLE).count("        #own ") == 4


def test_an_intranet() -> None:
    """Its networks are left alone in both forms, in both directions; without one no rule speaks of it."""
    text = '[outside]\ninterface = "wan0"\nintranet = ["10.8.0.0/16"]'
    there = replace(SKELETON, intranet=skeleton_for(config_from_text(text, "x")).intranet)
    for end in "ds":
        for protocol in ("udp", "tcp"):
            assert f"-A FORWARD -{end} 10.8.0.0/16 -p {protocol} -j RETURN" in iptables_text(there)
    for way in ("INPUT -s", "OUTPUT -d"):
        assert f"-A {way} 10.8.0.0/16 -p udp -j RETURN" in iptables_text(WHOLE)
    rules = nft_text(there, CAPABLE)
    assert "\n        oifname $outside ip daddr { 10.8.0.0/16 } return" in rules
    assert "#intranet" not in rules
    assert "#intranet" in nft_text(SKELETON, CAPABLE)


def test_iptables_text_bypass() -> None:
    """on_failure = "pass" is the queue's bypass, and is said."""
    assert "--queue-num 77 --queue-bypass\n" in iptables_text(BYPASS)
    assert "Where nobody listens, they pass unfixed." in iptables_text(BYPASS)
    assert "Where nobody listens, they are dropped." in iptables_text(SKELETON)


def test_iptables_text_says_what_it_cannot_do() -> None:
    """The form without maps does not pretend to be all of natfix."""
    assert "What this form cannot say:" in iptables_text(SKELETON)


class TestRealPrograms:
    """The texts as nft and iptables-restore read them, in a namespace."""

    pytestmark = kernel_test

    @pytest.mark.parametrize("skeleton", [SKELETON, BYPASS, WHOLE])
    def test_iptables_restore_takes_it(self, skeleton: object) -> None:
        """iptables-restore tests and loads the text."""
        with namespace() as here:
            text = iptables_text(skeleton)      # type: ignore[arg-type]
            here.run("iptables-restore --test", text)
            here.run("iptables-restore --noflush", text)
            assert "NFQUEUE --queue-num 77" in here.run("iptables-save")

    def test_nft_takes_it(self) -> None:
        """nft loads the text (the form that this kernel has)."""
        with namespace() as here:
            here.run("nft -f -", nft_text(SKELETON, replace(CAPABLE, queue=False)))
            assert "40000-41999" in here.run("nft list table ip natfix")
