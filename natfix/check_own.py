"""Checks of what natfix itself needs of others' rules: its way out, its queue, its ports."""

from __future__ import annotations

from collections.abc import Iterator

from natfix.address import network_from_text
from natfix.check_firewall import UDP, insertion
from natfix.findings import Finding, Host, Status
from natfix.firewall import Facts, fate
from natfix.interfaces import outside_address, outside_interface

MUCH = 0.5      # of the media ports


def check_output(host: Host) -> Iterator[Finding]:
    """Do the output chains let out what natfix itself sends to far phones (keep-alives)?

    Those packets are not tracked, and carry natfix's bit in their mark.
    """
    if host.settings.far_end.keep_open == "never":
        yield Finding(Status.OK, "natfix sends nothing itself: [far_end] keep_open is never")
        return
    outside, bit = outside_interface(host.links(), host.settings.outside), host.settings.signalling.mark
    facts: Facts = {**UDP, "oifname": frozenset({outside}), "ctstate": frozenset({"untracked"}),
                    "ctstatus": frozenset({"none"}), "mark": frozenset({bit})}
    ruleset = host.ruleset()
    chains = ruleset.base_chains("output") + ruleset.base_chains("output", "route")
    dropping = [chain for chain in chains if fate(ruleset, chain, facts).verdict != "accept"]
    for chain in dropping:
        yield Finding(
            Status.WARNING, f"{chain.table} {chain.name} drops what natfix sends to keep far phones "
            "reachable",
            insertion(chain, f"meta mark and {bit:#010x} == {bit:#010x} accept",
                      f"-m mark --mark {bit:#x}/{bit:#x} -j ACCEPT"))
    if not dropping:
        yield Finding(Status.OK, "natfix's own packets get out")


def check_foreign_queue_rules(host: Host) -> Iterator[Finding]:
    """Do rules of others lead packets to natfix's queue?"""
    number = host.settings.signalling.queue
    for chain, rule in host.ruleset().rules():
        for effect in rule.effects:
            if effect.kind == "queue" and effect.value and effect.value[0] <= number <= effect.value[1]:
                yield Finding(
                    Status.ERROR, f"{chain.table} {chain.name}, {rule.handle}, leads other packets "
                    f"to queue {number}",
                    f"in natfix.toml, [signalling] queue = {effect.value[1] + 1}, or another number there")


def check_statics(host: Host) -> Iterator[Finding]:
    """Do rules of the operator's send on what comes to the outside address of each [[static]] host?"""
    for each in host.settings.statics:
        outside = outside_interface(host.links(), host.settings.outside)
        facts: Facts = {**UDP, "iifname": frozenset({outside}),
                        "daddr": frozenset({network_from_text(each.outside)})}
        targets = [effect.value for _, _, effect in host.ruleset().effects("dnat", facts)]
        if not any(target is None or target[0] == each.inside for target in targets):
            yield Finding(
                Status.WARNING, f"[[static]] says that {each.inside} is {each.outside} outside, but no DNAT "
                "rule of yours sends on what comes there: it cannot be called",
                f'a rule such as: iifname "{outside}" ip daddr {each.outside} dnat to {each.inside} '
                "(nft/examples/static-nat.nft)")


def check_forwards(host: Host) -> Iterator[Finding]:
    """Do DNAT rules of the operator's take ports that natfix would give to calls?"""
    links, settings = host.links(), host.settings
    outside = outside_interface(links, settings.outside)
    hosts = (outside_address(links, settings.outside, outside), *(each.outside for each in settings.statics))
    facts: Facts = {**UDP, "iifname": frozenset({outside}), "daddr": frozenset(map(network_from_text, hosts))}
    first, last = settings.media.ports
    taken: set[int] = set()
    for _, rule, _ in host.ruleset().effects("dnat", facts):
        spans = [span for condition in rule.conditions if condition.key == "dport" and not condition.negated
                 for span in condition.values]
        for low, high in spans:
            taken.update(range(max(low, first), min(high, last) + 1))
    if taken:
        left = last - first + 1 - len(taken)
        much = len(taken) > MUCH * (last - first + 1)
        yield Finding(
            Status.WARNING if much else Status.NOTE,
            f"your DNAT rules take {len(taken)} of [media] ports, {min(taken)} to {max(taken)}; "
            f"natfix leaves them alone, and has {left} for calls",
            "in natfix.toml, [media] ports = [first, last] elsewhere" if much else "")
    else:
        yield Finding(Status.OK, "no DNAT rule of yours takes any of [media] ports")
