"""Machines for the tests of `natfix check`: an ordinary gateway, and ways to spoil it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from natfix.address import network_from_text
from natfix.config import Settings, config_from_text
from natfix.findings import Finding, Host, Status
from natfix.firewall import Ruleset
from natfix.firewall_iptables import ruleset_from_save
from natfix.interfaces import Links, Route
from natfix.kernel.probe import Capabilities

CAPABLE = Capabilities(
    net_admin=True, library=True, nftables=True, nat=True, queue=True, nfqueue=True, conntrack=True,
    timeouts=True)
LINKS = Links(
    {"lo": ("127.0.0.1",), "wan0": ("203.0.113.1",), "lan0": ("192.168.1.1",)},
    (Route(network_from_text("0.0.0.0/0"), "wan0"), Route(network_from_text("203.0.113.0/24"), "wan0"),
     Route(network_from_text("192.168.1.0/24"), "lan0")),
)
NOW = 1795258800.0      # 2026-11-21
# What a gateway with a stateful firewall has, the documented line included.
FIREWALL = '''\
*filter
:FORWARD DROP [0:0]
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i lan0 -o wan0 -j ACCEPT
-A FORWARD -m conntrack --ctstate DNAT -j ACCEPT
COMMIT
*nat
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -o wan0 -j MASQUERADE
COMMIT
'''
SYSCTLS = {
    "net/ipv4/ip_forward": "1\n",
    "net/ipv4/ip_local_port_range": "40000\t60999\n",
    "net/ipv4/ip_local_reserved_ports": "\n",
    "net/netfilter/nf_conntrack_count": "12\n",
    "net/netfilter/nf_conntrack_max": "262144\n",
    "kernel/osrelease": "6.1.0-28-amd64\n",
}


def gateway(
    root: Path, config: str = "", links: Links = LINKS, capabilities: Capabilities = CAPABLE,
    firewall: str = FIREWALL, ruleset: Ruleset | None = None, **files: str,
) -> Host:
    """Return a gateway whose files are below *root*; *files* are named with "__" for "/"."""
    for name, value in SYSCTLS.items():
        write(root, f"proc/sys/{name}", value)
    for name, value in files.items():
        write(root, name.replace("threadself", "thread-self").replace("__", "/"), value)
    rules = ruleset if ruleset is not None else ruleset_from_save(firewall)
    settings = config_from_text(config, "natfix.toml") if config else Settings()
    return Host(settings, root, lambda: links, lambda: rules, lambda: capabilities,
                now=lambda: NOW, clock_is_synchronised=lambda: True)


def write(root: Path, name: str, value: str) -> None:
    """Make the file *name* below *root*."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value)


def bad(check: Callable[[Host], object], host: Host) -> list[Finding]:
    """Return the warnings and errors of one check."""
    findings: list[Finding] = list(check(host))     # type: ignore[call-overload]
    return [each for each in findings if each.status in (Status.WARNING, Status.ERROR)]
