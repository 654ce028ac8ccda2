"""natfix's table in a real kernel: how it comes, what it remembers, how it goes."""

from __future__ import annotations

import re
import time
from dataclasses import replace

import pytest

from natfix.address import Endpoint
from natfix.commands import (
    AddMapping,
    AllowRemote,
    DeleteMapping,
    OpenFlow,
)
from natfix.errors import KernelRefused
from natfix.kernel.netfilter import NetfilterKernel, skeleton_text
from natfix.kernel.probe import probe
from tests.kernel.wires import (
    FLOW,
    GATEWAY,
    MEDIA,
    PHONE,
    PHONE_2,
    RTP,
    RTP_2,
    RTP_OUT,
    RTP_OUT_2,
    RTP_REMOTE,
    SIGNALLING,
    SIP,
    SIP_OUT,
    SIP_REMOTE,
    SKELETON,
    STRANGER,
    Wires,
    flow_out,
    media,
    sent,
)
from tests.namespace import kernel_test

pytestmark = kernel_test




def test_mappings_are_read_back(gateway: Wires) -> None:
    """A new process reads both kinds of mappings with halves, owner and what is left of their time."""
    gateway.kernel.apply([media(lifetime=300, owner="call 1"),
                          AddMapping(SIGNALLING, SIP, SIP_OUT, 120, inward=False, owner="sip:a@example.com")])
    signalling, found = gateway.gateway.call(lambda: NetfilterKernel().mappings())
    assert found[:4] == (MEDIA, RTP, RTP_OUT, True)
    assert found.owner == "call 1"
    assert 299 < found.lifetime <= 300
    assert signalling[:4] == (SIGNALLING, SIP, SIP_OUT, False)
    assert signalling.owner == "sip:a@example.com"


def test_mapping_is_refreshed(gateway: Wires) -> None:
    """Adding a mapping again gives it its new lifetime and owner."""
    gateway.kernel.apply([media(lifetime=10, owner="one")])
    gateway.kernel.apply([media(lifetime=500, owner="two")])
    found, = gateway.kernel.mappings()
    assert found.owner == "two"
    assert 499 < found.lifetime <= 500


def test_mapping_ends_by_itself(gateway: Wires) -> None:
    """Where nobody refreshes a mapping the kernel forgets it."""
    gateway.kernel.apply([media(lifetime=0.2)])
    time.sleep(0.3)
    assert gateway.kernel.mappings() == []


def test_flow_state_tells_packets_and_lifetime(gateway: Wires) -> None:
    """Counters, what is left of the lifetime, and the mark come back, for a flow that either side began."""
    phone, remote = gateway.bind(*RTP[:2]), gateway.bind(*RTP_REMOTE[:2])
    gateway.kernel.apply([OpenFlow(MEDIA, FLOW, 500)])
    sent(phone, RTP_REMOTE, remote)
    sent(phone, RTP_REMOTE, remote)
    sent(remote, RTP_OUT, phone)
    state = gateway.kernel.counters([FLOW])[FLOW]
    assert (state.flow, state.packets, state.reply_packets, state.replied) == (FLOW, 2, 1, True)
    assert [held.flow for held in gateway.kernel.flows()] == [FLOW]


def test_apply_is_all_or_nothing_for_elements(gateway: Wires) -> None:
    """Where one element clashes with another value, no element of that transaction is there."""
    gateway.kernel.apply([media()])
    with pytest.raises(KernelRefused, match="another value"):
        gateway.kernel.apply([media(RTP_2, RTP_OUT_2), media(RTP, Endpoint(GATEWAY, 30008))])
    assert [found.outside for found in gateway.kernel.mappings()] == [RTP_OUT]


def test_mappings_of_a_further_link(gateway: Wires) -> None:
    """One inside endpoint of SIP has a mapping for each link; media has the mark of its link; all is read
    back, found by its key, and taken away without the other link's."""
    gateway.install(replace(SKELETON, outside_interfaces=("outside", "ppp0")))
    further, shown = SIP._replace(link="ppp0"), Endpoint("198.51.100.1", 5060)
    commands = [AddMapping(SIGNALLING, SIP, SIP_OUT, 60), AddMapping(SIGNALLING, further, shown, 60),
                AddMapping(MEDIA, RTP, RTP_OUT, 60, mark=0x200)]
    gateway.kernel.apply(commands)
    assert {(each.inside, each.outside, each.inward) for each in gateway.kernel.mappings()} == {
        (SIP, SIP_OUT, True), (further, shown, True), (RTP, RTP_OUT, True)}
    held = {f"{each.name}: {each.key} => {each.value}" for each in gateway.kernel.find_elements(commands)
            if each.is_present}
    assert f'links_out: "ppp0" . {PHONE} . 5060 => 198.51.100.1 . 5060' in held
    assert f"links_media: {PHONE} . 12000 => 0x00000200" in held
    gone = [DeleteMapping(SIGNALLING, further, shown), DeleteMapping(MEDIA, RTP, RTP_OUT, 0x200)]
    gateway.kernel.apply(gone)
    assert [each.inside for each in gateway.kernel.mappings()] == [SIP]
    assert "elements" not in gateway.gateway.run("nft list map ip natfix links_media")


def test_mapping_may_move_in_one_transaction(gateway: Wires) -> None:
    """Deleted and added again with another outside endpoint in one go, an inside endpoint has the new one."""
    gateway.kernel.apply([media()])
    gateway.kernel.apply([DeleteMapping(MEDIA, RTP, RTP_OUT), media(RTP, RTP_OUT_2)])
    assert [(found.inside, found.outside) for found in gateway.kernel.mappings()] == [(RTP, RTP_OUT_2)]


def test_resync_makes_the_maps_hold_just_this(open_gateway: Wires) -> None:
    """Afterwards what was not named is gone, values that clashed are replaced, and flows are open."""
    open_gateway.kernel.apply([media(), media(RTP_2, RTP_OUT_2), AllowRemote(MEDIA, RTP_OUT, STRANGER, 60)])
    open_gateway.kernel.resync([media(RTP, Endpoint(GATEWAY, 30008)), OpenFlow(MEDIA, FLOW, 60)])
    assert [found.outside.port for found in open_gateway.kernel.mappings()] == [30008]
    assert FLOW in open_gateway.kernel.counters([FLOW])
    assert "@media_allowed" in open_gateway.rules()
    assert STRANGER not in open_gateway.rules()


def test_resync_of_thousands_is_one_transaction(gateway: Wires) -> None:
    """A large state goes in at once: more than one message, and more than the usual socket buffer, takes."""
    commands = [
        media(Endpoint("192.168.7.7", 2000 + number), Endpoint(GATEWAY, 30000 + number), owner="x" * 120)
        for number in range(3000)]
    gateway.kernel.resync(commands)
    assert len(gateway.kernel.mappings()) == 3000


# Coming and going


def test_install_and_remove_leave_the_rules_as_they_were(bare: Wires) -> None:
    """Both tools list exactly the same rules before and after, and accounting is as it was."""
    bare.firewall()
    before = bare.rules()
    bare.install()
    assert before != bare.rules()
    bare.kernel.apply([media(), OpenFlow(MEDIA, FLOW, 60)])
    bare.remove()
    assert bare.rules() == before


@pytest.mark.parametrize("value", ["0", "1"])
def test_accounting_is_on_while_natfix_is_there(bare: Wires, value: str) -> None:
    """Packets are counted meanwhile; another process's `down` restores what was before."""
    show = "sysctl -n net.netfilter.nf_conntrack_acct"
    bare.gateway.run(f"sysctl -qw net.netfilter.nf_conntrack_acct={value}")
    bare.install()
    bare.install()
    assert bare.gateway.run(show).strip() == "1"
    bare.gateway.call(lambda: NetfilterKernel().remove())
    assert bare.gateway.run(show).strip() == value


def test_remove_ends_the_flows_natfix_made(gateway: Wires) -> None:
    """Entries made by name and entries made by elements go; those of others stay, without natfix's bit."""
    phone, remote = gateway.bind(*RTP[:2]), gateway.bind(*RTP_REMOTE[:2])
    gateway.kernel.apply([media(), media(RTP_2, RTP_OUT_2),
                          OpenFlow(MEDIA, flow_out(RTP_2, RTP_REMOTE, RTP_OUT_2), 60)])
    sent(phone, RTP_REMOTE, remote)
    sent(gateway.bind(PHONE_2, 7000), RTP_REMOTE, remote)
    sent(gateway.bind(PHONE_2, 5060), RTP_REMOTE, remote)
    assert len(gateway.entries()) == 4
    gateway.gateway.call(lambda: NetfilterKernel().remove())
    left = gateway.entries()
    assert [line.split("sport=")[1].split()[0] for line in sorted(left)] == ["5060", "7000"]
    assert all("mark=0 " in line for line in left)


def test_remove_ends_a_registrars_flow_without_mapping(gateway: Wires) -> None:
    """A flow of fixed time is natfix's even where its mapping is long gone, and its maker too."""
    flow = flow_out(SIP, SIP_REMOTE, SIP_OUT)
    gateway.kernel.apply([OpenFlow(SIGNALLING, flow, 3600, fixed=True)])
    gateway.gateway.call(lambda: NetfilterKernel().remove())
    assert gateway.entries() == []


def test_remove_where_nothing_is_installed(bare: Wires) -> None:
    """Removing what is not there is no error, and changes nothing."""
    before = bare.rules()
    bare.remove()
    assert bare.rules() == before


def test_install_again_keeps_mappings_and_takes_new_settings(gateway: Wires) -> None:
    """A restart with other settings changes the rules; no element and no queued flow's mark is lost."""
    gateway.kernel.apply([media(lifetime=300)])
    gateway.install(replace(SKELETON, sip_ports=(5060, 5070), media_ports=(30000, 30999), queue=7))
    assert [found.outside for found in gateway.kernel.mappings()] == [RTP_OUT]
    rules = gateway.rules()
    assert "5070" in rules
    assert "30000-30999" in rules
    assert len(re.findall(r'chain to_natfix {\s+(queue .*\b7\b|xt target)', rules)) == 1
    assert gateway.kernel.is_intact()


def test_table_of_an_older_natfix_is_replaced(bare: Wires) -> None:
    """A table whose sets or chains do not fit is made anew instead of refusing to start."""
    bare.gateway.run("nft -f -", """table ip natfix {
        map media_out { type ipv4_addr : ipv4_addr; elements = { 10.0.0.1 : 10.0.0.2 } }
        chain guard { type filter hook forward priority 0; }
    }""")
    assert bare.kernel.mappings() == []
    bare.install()
    bare.kernel.apply([media()])
    assert bare.kernel.mappings()


def test_failed_install_leaves_nothing(bare: Wires, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the queue rule is refused after the table went in, the table goes again."""
    before = bare.rules()
    monkeypatch.setattr("natfix.kernel.divert.QUEUE_REVISION", 99)
    with pytest.raises(KernelRefused):
        bare.install(replace(SKELETON, divert="nfqueue"))
    assert bare.rules() == before


def test_divert_form_can_be_forced(bare: Wires) -> None:
    """A form the kernel has not is refused with the cure before anything is installed."""
    before = bare.rules()
    if bare.gateway.call(probe).queue:
        pytest.skip("this kernel has nft's queue expression")
    with pytest.raises(KernelRefused, match="modprobe nft_queue"):
        bare.install(replace(SKELETON, divert="queue"))
    assert bare.rules() == before


def test_damage_is_noticed(gateway: Wires) -> None:
    """A rule less or no table at all is not as natfix made it; elements and others' rules do not count."""
    assert gateway.kernel.is_intact()
    gateway.kernel.apply([media()])
    gateway.gateway.run("nft add table ip others")
    assert gateway.kernel.is_intact()
    for chain in ("divert", "to_natfix"):
        gateway.gateway.run(f"nft flush chain ip natfix {chain}")
        assert not gateway.kernel.is_intact()
        gateway.install()
        assert gateway.kernel.is_intact()
    gateway.gateway.run("nft flush ruleset")
    assert not gateway.kernel.is_intact()


def test_gone_table_is_refused_with_a_reason(gateway: Wires) -> None:
    """After somebody's flush, commands fail loudly until the table is back; reading finds nothing."""
    gateway.gateway.run("nft flush ruleset")
    with pytest.raises(KernelRefused, match="not there"):
        gateway.kernel.apply([media()])
    with pytest.raises(KernelRefused, match="not there"):
        gateway.kernel.resync([media()])
    assert gateway.kernel.mappings() == []
    assert gateway.kernel.refused() == {}
    gateway.install()
    gateway.kernel.resync([media()])
    assert gateway.kernel.mappings()


def test_accounting_is_remembered_across_a_flush(bare: Wires) -> None:
    """The flush takes natfix's memory with it; the daemon that lives on still knows what to restore."""
    bare.install()
    bare.gateway.run("nft flush ruleset")
    bare.install()
    bare.gateway.call(lambda: NetfilterKernel().remove())
    assert bare.gateway.run("sysctl -n net.netfilter.nf_conntrack_acct").strip() == "0"


@pytest.mark.parametrize("names", [(), ("eth0", 'a"b'), ("eth*",), ("",)])
def test_impossible_interface_is_refused(names: tuple[str, ...]) -> None:
    """No interface, or a name that nft would read otherwise, never reaches the kernel."""
    with pytest.raises(KernelRefused, match="interface"):
        skeleton_text(replace(SKELETON, outside_interfaces=names), "queue")


def test_skeleton_text_holds_the_settings() -> None:
    """Every define has its value, the comments stay, and bypass is said where it is asked for."""
    settings = replace(SKELETON, outside_interfaces=("ppp0", "eth1"), sip_ports=(5060, 5080))
    text = skeleton_text(settings, "queue")
    assert 'define outside = { "ppp0", "eth1" } ' in text
    assert "define sip_ports = { 5060, 5080 } " in text
    assert "queue num $sip_queue bypass\n" in text
    assert "# [outside] interface" in text
    without = skeleton_text(replace(SKELETON, bypass=False), "queue")
    assert "bypass" not in without.split("chain to_natfix {")[-1]


@pytest.mark.parametrize(("pace", "said"), [
    (5000, "limit rate over 5000/second burst 5000 packets"),
    (1, "limit rate over 1/second burst 1 packets")])
def test_skeleton_text_holds_the_rate(pace: int, said: str) -> None:
    """[limits] packets_per_host is in the rule, a second's worth may come at once."""
    assert said in skeleton_text(replace(SKELETON, pace=pace), "queue")


def test_no_rate_no_rule() -> None:
    """Where the operator writes 0, nothing is asked of a packet on its way to the queue."""
    text = skeleton_text(replace(SKELETON, pace=0), "queue")
    assert "limit rate over" not in text
    assert text.count("jump paced") == 2


def test_an_entry_that_cannot_be_had_is_counted(bare: Wires, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elements are the second line: a refused conntrack entry does not undo them, and the call goes on."""
    monkeypatch.setattr("natfix.kernel.conntrack.ESTABLISHED", 0)
    bare.install()
    bare.kernel.apply([media(), OpenFlow(MEDIA, FLOW, 60)])
    assert bare.kernel.entries_refused == 1
    assert "Device or resource busy" in bare.kernel.last_refusal
    assert bare.kernel.mappings()
