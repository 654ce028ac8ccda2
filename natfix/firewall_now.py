"""The rule sets of this machine as they are now, from all places where a kernel may keep some."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from natfix.address import Endpoint, network_from_text
from natfix.errors import NotPermitted
from natfix.firewall import Facts, Rule, Ruleset
from natfix.firewall_iptables import HOOKS, ruleset_from_save
from natfix.firewall_nft import dnat_maps, ruleset_from_json
from natfix.kernel import libnftables
from natfix.kernel.netlink import has_net_admin
from natfix.programs import is_installed, output_of

LISTING = libnftables.JSON | libnftables.TERSE      # no elements: natfix's own may be many
NO_RIGHTS = "CAP_NET_ADMIN is missing, so rules cannot be seen: run this as root"
OWN_TABLE = "ip natfix"
LEGACY_TABLES = Path("/proc/thread-self/net/ip_tables_names")   # what iptables-legacy has loaded, if any
NFT_VARIANT = "(nf_tables)"                         # iptables-save says so in its first line


def ruleset_now(legacy_tables: Path = LEGACY_TABLES) -> Ruleset:
    """Return all rules but natfix's own, of which only the table's name is told.

    Raises KernelRefused where libnftables is not installed, NotPermitted without the right to see rules.
    """
    if not has_net_admin():
        raise NotPermitted(NO_RIGHTS)
    ruleset = ruleset_from_json(_listing())
    _remove_chains(ruleset, OWN_TABLE)
    if is_installed("iptables-save"):
        _add_saved(ruleset, output_of("iptables-save"), "iptables")
    if _has_legacy_tables(legacy_tables) and is_installed("iptables-legacy-save"):
        _add_saved(ruleset, output_of("iptables-legacy-save"), "iptables-legacy")
    return ruleset


def _listing() -> dict[str, Any]:
    """Return nft's listing without elements, but for those of maps that the operator forwards by."""
    listing: dict[str, Any] = json.loads(libnftables.run("list ruleset", LISTING) or "{}")
    for table, name in dnat_maps(listing):
        if table != OWN_TABLE:
            whole = json.loads(libnftables.run(f"list map {table} {name}", libnftables.JSON) or "{}")
            listing["nftables"] += whole.get("nftables", [])
    return listing


def forwarded_udp_ports(
    ruleset: Ruleset, interface: str, hosts: Collection[str],
) -> dict[int, Endpoint | None]:
    """Return the UDP ports that the operator's own rules send on from an address among *hosts*, and
    where to (None where that varies).

    A rule without ports (all the rest to one host) claims none: natfix's mappings come before it.
    """
    facts: Facts = {
        "iifname": frozenset({interface}), "proto": frozenset({"udp"}), "nfproto": frozenset({"ipv4"}),
        "ethertype": frozenset({"ip"}), "daddr": frozenset(map(network_from_text, hosts)),
    }
    forwards: dict[int, Endpoint | None] = {}
    for _, rule, effect in ruleset.effects("dnat", facts):
        for port in _ports(rule):
            host, to_port = effect.value or ("", 0)
            forwards.setdefault(port, Endpoint(host, to_port or port) if host else None)
    return forwards


def _ports(rule: Rule) -> Iterator[int]:
    """Yield the destination ports that *rule* names."""
    for condition in rule.conditions:
        if condition.key == "dport" and not condition.negated:
            for first, last in condition.values:
                yield from range(first, last + 1)


def _add_saved(ruleset: Ruleset, text: str, program: str) -> None:
    """Add what iptables-save says; what is iptables' own in nft's listing gives way to it."""
    saved = ruleset_from_save(text, program)
    for table in tuple(saved.tables):
        twin = table.replace(program, "ip")
        if NFT_VARIANT in text:
            if not _is_made_by_iptables(ruleset, twin):
                _remove_table(saved, table)     # shown empty, with a remark that nft must list it
                continue
            _remove_table(ruleset, twin)
    ruleset.chains.update(saved.chains)
    ruleset.tables |= saved.tables


def _is_made_by_iptables(ruleset: Ruleset, table: str) -> bool:
    """Tell whether all base chains of an nft table are such as iptables-nft makes."""
    base = [chain for (owner, _), chain in ruleset.chains.items() if owner == table and chain.hook]
    return bool(base) and all(HOOKS.get(chain.name) == chain.hook for chain in base)


def _remove_table(ruleset: Ruleset, table: str) -> None:
    ruleset.tables.discard(table)
    _remove_chains(ruleset, table)


def _remove_chains(ruleset: Ruleset, table: str) -> None:
    for key in [key for key in ruleset.chains if key[0] == table]:
        del ruleset.chains[key]


def _has_legacy_tables(file: Path) -> bool:
    try:
        return bool(file.read_text().strip())
    except OSError:
        return False
