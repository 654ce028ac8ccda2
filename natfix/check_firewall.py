"""Checks of the operator's own rules: what they would do to natfix's packets, flows and marks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from natfix.address import Network
from natfix.findings import Finding, Host, Status
from natfix.firewall import Chain, Effect, Facts, Fate, Rule, Ruleset, fate
from natfix.interfaces import inside_networks, outside_interface

UDP: Facts = {
    "proto": frozenset({"udp"}), "nfproto": frozenset({"ipv4"}), "ethertype": frozenset({"ip"}),
}
NFT_CONF = "etc/nftables.conf"
FLUSH = re.compile(r"^(?:[^#\n]*[;\s])?flush\s+ruleset\b", re.MULTILINE)
INCLUDE = re.compile(r"^\s*include\s+\"([^\"\n]+)\"", re.MULTILINE)
EXPECTED = re.compile(r"\bsip/\w+\s*$", re.MULTILINE)      # a line of the kernel's list of expectations


class Probe(NamedTuple):
    """A packet that must get through the operator's forward chains."""

    name: str
    inward: bool
    ctstate: frozenset[str]
    ctstatus: frozenset[str]
    status: Status          # where it does not
    harm: str
    nft: str                # the rule that lets it through, in either language
    iptables: str


PROBES = (
    Probe("what phones send out", False, frozenset({"new"}), frozenset(), Status.ERROR,
          "no phone can call or register",
          'iifname != "{outside}" oifname "{outside}" accept', "! -i {outside} -o {outside} -j ACCEPT"),
    Probe("answers from outside", True, frozenset({"established"}), frozenset({"snat"}), Status.ERROR,
          "no answer and no media comes in",
          "ct state established,related accept", "-m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"),
    Probe("media from a port that was not announced", True, frozenset({"new", "dnat"}), frozenset({"dnat"}),
          Status.WARNING, "early media, and calls with peers behind a NAT, stay silent",
          "ct status dnat accept", "-m conntrack --ctstate DNAT -j ACCEPT"),
)


class Side(NamedTuple):
    """One inside network, and the link that leads to it ("" where none does)."""

    network: Network
    link: str

    def __str__(self) -> str:
        return f"{self.network} ({self.link})" if self.link else str(self.network)


def check_forward(host: Host) -> Iterator[Finding]:
    """Does every forward chain let through what calls need?"""
    outside, sides = _sides(host)
    ruleset = host.ruleset()
    chains = ruleset.base_chains("forward")
    yield from _own_sip(host, ruleset, outside)
    clean = True
    for probe in PROBES:
        for chain in chains:
            fates = {side: fate(ruleset, chain, _facts(probe, outside, side, host)) for side in sides}
            dropped = {side: found for side, found in fates.items() if found.verdict != "accept"}
            if dropped:
                clean = False
                yield _dropped_for(probe, chain, outside, dropped, everywhere=dropped == fates)
    if clean and chains:
        names = ", ".join(f"{chain.table} {chain.name}" for chain in chains)
        yield Finding(Status.OK, f"{names} accepts calls and media")
    elif clean:
        yield Finding(Status.OK, "no chain of yours stands at forward")


def _dropped_for(probe: Probe, chain: Chain, outside: str, dropped: dict[Side, Fate],
                 everywhere: bool) -> Finding:
    """Return what is said of a chain that drops *probe* for all networks, or for some: a network without
    phones may well be shut in."""
    finding = _dropped(probe, chain, outside, any(found.maybe_accepted for found in dropped.values()))
    if everywhere:
        return finding
    names = ", ".join(map(str, dropped))
    return Finding(Status.WARNING, f"{finding.text}, as far as phones in {names} go",
                   f"{finding.cure}; without phones there, name the others in natfix.toml, [inside] networks")


def _own_sip(host: Host, ruleset: Ruleset, outside: str) -> Iterator[Finding]:
    """A PBX on the gateway is called from outside: does every input chain let SIP in?"""
    if host.settings.gateway.pbx != "local":
        return
    for port in host.settings.signalling.ports:
        facts: Facts = {**UDP, "iifname": frozenset({outside}), "dport": frozenset({port}),
                        "ctstate": frozenset({"new"}), "ctstatus": frozenset({"none"})}
        for chain in ruleset.base_chains("input"):
            if fate(ruleset, chain, facts).verdict != "accept":
                probe = Probe(
                    f"SIP to port {port}", True, frozenset(), frozenset(), Status.WARNING,
                    "the PBX on this gateway cannot be called from outside",
                    f'iifname "{{outside}}" udp dport {port} accept',
                    f"-i {{outside}} -p udp --dport {port} -j ACCEPT")
                yield _dropped(probe, chain, outside, fate(ruleset, chain, facts).maybe_accepted)


def _sides(host: Host) -> tuple[str, list[Side]]:
    """Return the outside interface, and the networks inside."""
    outside = outside_interface(host.links(), host.settings.outside)
    return outside, [Side(*each) for each in inside_networks(host.links(), host.settings, outside)]


def _facts(probe: Probe, outside: str, inside: Side, host: Host) -> Facts:
    out, link = frozenset({outside}), frozenset({inside.link} if inside.link else ())
    network = frozenset({inside.network})
    ways: dict[str, frozenset[Any]] = (
        {"iifname": out, "oifname": link, "daddr": network,
         "ctorigdport": frozenset(host.settings.media.ports)}
        if probe.inward else {"iifname": link, "oifname": out, "saddr": network})
    return {**UDP, **ways, "ctstate": probe.ctstate, "ctstatus": probe.ctstatus or frozenset({"none"})}


def _dropped(probe: Probe, chain: Chain, outside: str, partly: bool) -> Finding:
    extent = "drops" if not partly else "drops, on conditions that natfix cannot foresee,"
    text = f"{chain.table} {chain.name} {extent} {probe.name}: {probe.harm}"
    words = (each.format(outside=outside) for each in (probe.nft, probe.iptables))
    return Finding(probe.status, text, insertion(chain, *words))


def insertion(chain: Chain, nft: str, iptables: str) -> str:
    """Return the command that puts a rule, given in either language, before all others of *chain*."""
    if not chain.table.startswith("iptables"):
        return f"nft insert rule {chain.table} {chain.name} {nft}"
    program, table = chain.table.split()
    where = "" if table == "filter" else f"-t {table} "
    return f"{program} {where}-I {chain.name} {iptables}"


def check_nat(host: Host) -> Iterator[Finding]:
    """Is there NAT at the outside interface at all?"""
    outside, sides = _sides(host)
    facts = {**UDP, "oifname": frozenset({outside}), "saddr": frozenset(side.network for side in sides)}
    found = list(host.ruleset().effects("masquerade", facts))
    for chain, rule, effect in found:
        if effect.value:
            yield Finding(
                Status.NOTE, f"{_name(chain, rule)} chooses ports by chance ({effect.value}): natfix "
                "decides those of SIP and media before, but what it does not serve (TLS, other ports) "
                "gets others than it names")
    if found:
        chain = found[0][0]
        yield Finding(Status.OK, f"{chain.table} {chain.name} translates what leaves by {outside}")
        return
    yield Finding(
        Status.WARNING, f"no rule translates what leaves by {outside}: only SIP and its media would get out",
        "nft 'add table ip nat; add chain ip nat postrouting { type nat hook postrouting priority srcnat; }; "
        f"add rule ip nat postrouting oifname \"{outside}\" masquerade'")


def check_helpers(host: Host) -> Iterator[Finding]:
    """Does the kernel's own SIP helper rewrite the same messages?"""
    found = list(attached_helpers(host.ruleset()))
    if host.sysctl("net.netfilter.nf_conntrack_helper") == "1" and _has_module(host, "nf_conntrack_sip"):
        found.append(Finding(
            Status.ERROR, "net.netfilter.nf_conntrack_helper is 1: the kernel's SIP helper takes every flow",
            "sysctl -w net.netfilter.nf_conntrack_helper=0; conntrack -D -p udp --orig-port-dst 5060"))
    expected = len(EXPECTED.findall(host.read("proc/thread-self/net/nf_conntrack_expect")))
    if expected and not found:
        found.append(Finding(
            Status.ERROR, f"the kernel's SIP helper still follows connections (it expects {expected} more)",
            "conntrack -D -p udp --orig-port-dst 5060"))
    if found:
        yield from found
    elif _has_module(host, "nf_nat_sip"):
        yield Finding(Status.OK, "the kernel's SIP helper is loaded and attached to nothing")
    else:
        yield Finding(Status.OK, "no other SIP helper")


def attached_helpers(ruleset: Ruleset) -> Iterator[Finding]:
    """Yield one finding for each rule that gives SIP flows to the kernel's helper (nf_nat_sip)."""
    for chain, rule, effect in ruleset.effects("helper", UDP):
        if effect.value == "sip":
            yield Finding(
                Status.ERROR,
                f"{_name(chain, rule)} gives SIP to the kernel's helper: two fixers at once break messages",
                _deletion(chain, rule))


def check_marks(host: Host) -> Iterator[Finding]:
    """Do other rules overwrite the bit of the conntrack mark that tells SIP flows?"""
    bit = host.settings.signalling.mark
    setting = list(host.ruleset().effects("ctmark", UDP))
    wrong = [(chain, rule) for chain, rule, effect in setting if not effect.value & bit]
    free = _free_bit(effect for _, _, effect in setting)
    for chain, rule in wrong:
        yield Finding(
            Status.WARNING,
            f"{_name(chain, rule)} overwrites bit {bit:#010x} of the conntrack mark: SIP passes unfixed",
            f"in natfix.toml, [signalling] mark = {free:#010x}" if free
            else f"let it keep the bit: ct mark set (ct mark & {bit:#010x}) | ...")
    if not wrong:
        yield Finding(Status.OK, f"no rule overwrites bit {bit:#010x} of the conntrack mark")


def _free_bit(effects: Iterator[Effect]) -> int:
    """Return the highest bit that all rules keep, 0 where there is none."""
    kept = 0xFFFFFFFF
    for effect in effects:
        kept &= effect.value
    return 1 << kept.bit_length() - 1 if kept else 0


def check_offload(host: Host) -> Iterator[Finding]:
    """Do packets of SIP flows pass around the forward chain, or without conntrack?"""
    bit = host.settings.signalling.mark
    sip = {**UDP, "dport": frozenset(host.settings.signalling.ports)}
    outside, sides = _sides(host)
    ours = {outside, *(side.link for side in sides if side.link)}
    bad = False
    for chain, rule, effect in host.ruleset().effects("flow", UDP):
        table = host.ruleset().flow_tables.get((chain.table, effect.value))
        if table is not None and not table.links & ours:
            continue
        bad = True
        where = "the network card's flow table" if table and table.in_hardware else "a flow table"
        yield Finding(
            Status.WARNING, f"{_name(chain, rule)} puts UDP into {where}: SIP passes around natfix",
            f"give that rule the condition: ct mark and {bit:#010x} == 0")
    for chain, rule, _ in host.ruleset().effects("notrack", sip):
        bad = True
        yield Finding(
            Status.ERROR, f"{_name(chain, rule)} keeps SIP out of conntrack: nothing can be translated",
            _deletion(chain, rule))
    if not bad:
        yield Finding(Status.OK, "no flow table and no notrack rule takes SIP away")


def check_rule_files(host: Host) -> Iterator[Finding]:
    """Does a reload of the operator's rules remove natfix's?"""
    flushing = [path for path in _rule_files(host) if FLUSH.search(host.read(path))]
    if flushing:
        yield Finding(
            Status.NOTE, f"/{flushing[0]} has `flush ruleset`: after each reload natfix puts its table back "
            "within a second")
    else:
        yield Finding(Status.OK, "no rule file flushes natfix's table")


def _rule_files(host: Host) -> list[str]:
    """Return nft's own file and all that it includes, each once."""
    paths = [NFT_CONF]
    for path in paths:
        for name in INCLUDE.findall(host.read(path)):
            pattern = name if name.startswith("/") else f"/etc/{name}"
            found = (str(file.relative_to(host.root)) for file in sorted(host.root.glob(pattern.lstrip("/"))))
            paths += (each for each in found if each not in paths)
    return paths


def _has_module(host: Host, name: str) -> bool:
    return (host.root / "sys/module" / name).exists()


def _name(chain: Chain, rule: Rule) -> str:
    return f"{chain.table} {chain.name}, {rule.handle},"


def _deletion(chain: Chain, rule: Rule) -> str:
    if chain.table.startswith("iptables"):
        program, table = chain.table.split()
        return f"{program} -t {table} -D {chain.name} {rule.handle.removeprefix('rule ')}"
    return f"nft delete rule {chain.table} {chain.name} {rule.handle}"
