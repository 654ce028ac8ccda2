"""Check of the lists of who may talk: names that do not resolve, and entries that contradict each other."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

from natfix.config import Domain, Peer, Settings, dropped_hosts, names_to_resolve
from natfix.errors import NatfixError
from natfix.findings import Finding, Host, Status
from natfix.interfaces import addresses_report
from natfix.policies import OTHERS, Policies
from natfix.realms import Realms
from natfix.resolver import NO_ADDRESS, asker

if TYPE_CHECKING:
    from natfix.lookup import Found

LONGEST = 20.0      # seconds for all names together
NO_LISTS = "no [[peer]], no [[domain]]: whom the phones talk to themselves may call them, and nobody else"


def check_lists(host: Host) -> Iterator[Finding]:
    """Do the names of peers and domains resolve, and do the lists contradict themselves?"""
    settings = host.settings
    if not settings.peers and not settings.domains:
        yield Finding(Status.OK, NO_LISTS)
        return
    findings = list(_contradictions(settings))
    told: dict[str, tuple[str, ...]] = {}
    findings += _ask_for_names(host, told)
    findings += _shared_addresses(settings, told)
    findings += _refused_addresses(host, told)
    yield from findings
    if not any(finding.status in (Status.WARNING, Status.ERROR) for finding in findings):
        known = "".join(f"; {name} is {', '.join(hosts)}" for name, hosts in told.items())
        yield Finding(Status.OK, f"peers: {len(settings.peers)}, domains: {len(settings.domains)}{known}")


def _contradictions(settings: Settings) -> Iterator[Finding]:
    """Yield what can be seen without asking anybody."""
    dropped = dropped_hosts(settings)
    wanted = [(f"[[trunk]] {trunk.inside}", peer) for trunk in settings.trunks for peer in trunk.peers]
    wanted += [("[inside] pbx", host) for host in settings.inside.pbx]
    for who, host in wanted:
        if host in dropped:
            yield Finding(Status.WARNING, f"{who} needs {host}, whose packets a [[peer]] drops",
                          "in natfix.toml, take one of the two away")
    entries: tuple[Peer | Domain, ...] = (*settings.peers, *settings.domains)
    for entry in entries:
        if entry.media and entry.policy in ("pass", "drop"):
            yield Finding(Status.WARNING, f'media = "{entry.media}" of {_label(entry)} has no effect: its '
                          f'policy is "{entry.policy}"', "in natfix.toml, take one of the two away")
    policies = {_label(each): each.policy for each in entries}
    if policies.get(f"[[domain]] {OTHERS}") == "drop" and not {"fix", "pass"} & set(policies.values()):
        yield Finding(Status.WARNING,
                      '[[domain]] "*" drops all SIP: no other entry has the policy fix or pass',
                      "in natfix.toml, a [[domain]] for each domain that may be used")


def _ask_for_names(host: Host, told: dict[str, tuple[str, ...]]) -> Iterator[Finding]:
    """Yield what DNS does not say, and fill *told* with what it does."""
    names = names_to_resolve(host.settings)
    if not names:
        return
    ask = host.find_servers or asker(host.settings.daemon.nameservers)
    until = time.monotonic() + LONGEST
    for name, is_host in names.items():
        if time.monotonic() > until:
            yield Finding(Status.NOTE, f"{name} was not asked for: DNS takes too long")
            continue
        try:
            found: Found = ask(name, is_host)
        except NatfixError as problem:
            yield Finding(Status.WARNING, f"{name} does not resolve: {problem}; until it does, only those "
                          "addresses count that DNS gave before", "in natfix.toml, [daemon] nameservers")
            continue
        told[name] = found.hosts
        if not found.hosts:
            yield Finding(Status.WARNING, f"{name} does not resolve: {found.remark or NO_ADDRESS}",
                          "in natfix.toml, another name, or the address itself as a [[peer]]")
        elif found.remark:
            yield Finding(Status.NOTE, f"{name}: {found.remark}")


def _shared_addresses(settings: Settings, told: dict[str, tuple[str, ...]]) -> Iterator[Finding]:
    """Yield each address that two entries of a kind have, and that they disagree about."""
    lists: tuple[tuple[Peer | Domain, ...], ...] = (settings.peers, settings.domains)
    for entries in lists:
        said: defaultdict[str, dict[str, str]] = defaultdict(dict)
        for entry in entries:
            name = entry.address if isinstance(entry, Peer) else entry.name
            own = () if name.lower() in told or isinstance(entry, Domain) else (name,)
            for host in told.get(name.lower(), own):
                if entry.policy:
                    said[host][_label(entry)] = entry.policy
        for host, policies in said.items():
            if len(set(policies.values())) > 1:
                which = " and ".join(f'{label} ("{policy}")' for label, policy in policies.items())
                yield Finding(Status.WARNING, f"{host} belongs to {which}",
                              "in natfix.toml, give both the same policy, or see there which one holds")


def _refused_addresses(host: Host, told: dict[str, tuple[str, ...]]) -> Iterator[Finding]:
    if not any(told.values()):
        return
    realms, policies = Realms(host.settings), Policies(host.settings)
    realms.update(addresses_report(host.settings, host.links()))
    policies.take_names(told, realms)
    for name, reasons in policies.refused.items():
        for address, reason in reasons.items():
            yield Finding(Status.WARNING, f"{name} stands for {address}, which natfix refuses: {reason}",
                          "ask who runs its DNS; what is right about it can be a [[peer]] by address")


def _label(entry: Peer | Domain) -> str:
    return f"[[peer]] {entry.address}" if isinstance(entry, Peer) else f"[[domain]] {entry.name}"
