"""Checks of the machine: kernel, rights, packages, links, ports, and who else is there."""

from __future__ import annotations

import importlib.util
import re
import socket
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from natfix.advertiser import STUN, ask
from natfix.control import request
from natfix.errors import NatfixError, NotPermitted
from natfix.findings import Finding, Host, Status
from natfix.firewall_now import NO_RIGHTS, OWN_TABLE
from natfix.interfaces import inside_networks, is_own_address, outside_links
from natfix.kernel.probe import NO_TIMEOUTS

PACKAGES = {"netfilterqueue": "reads the packet queue"}
FULL_TABLE = 0.8        # of nf_conntrack_max; beyond, the kernel begins to drop entries

# What the kernel must have: the word in Capabilities, what it is for, and what brings it.
FEATURES = {
    "nftables": ("nftables", "modprobe nf_tables"),
    "nat": ("nft NAT chains", "modprobe nft_chain_nat"),
    "conntrack": ("conntrack by netlink", "modprobe nf_conntrack_netlink"),
}
DIVERTS = {"queue": "nft's queue statement", "nfqueue": "the xtables target NFQUEUE"}


def check_rights(host: Host) -> Iterator[Finding]:
    """May this process see and change netfilter?"""
    if host.capabilities().net_admin:
        yield Finding(Status.OK, "CAP_NET_ADMIN is there")
    else:
        raise NotPermitted(NO_RIGHTS)


def check_kernel(host: Host) -> Iterator[Finding]:
    """Has this kernel what natfix needs?"""
    able = host.capabilities()
    if not able.net_admin:
        return      # said already; without the right nothing can be tried
    missing = [(words, cure) for key, (words, cure) in FEATURES.items() if not getattr(able, key)]
    for words, cure in missing:
        yield Finding(Status.ERROR, f"this kernel lacks {words}", cure)
    wanted = host.settings.signalling.divert
    forms = [form for form in DIVERTS if getattr(able, form) and wanted in ("auto", form)]
    if not forms:
        lacking = " and ".join(DIVERTS.values()) if wanted == "auto" else DIVERTS[wanted]
        others = [form for form in DIVERTS if getattr(able, form)]
        yield Finding(Status.ERROR, f"this kernel lacks {lacking}: no packet can be diverted",
                      f'in natfix.toml, [signalling] divert = "{others[0]}"' if others
                      else "modprobe nft_queue nfnetlink_queue, or a kernel that has them")
    elif not missing:
        release = f"kernel {host.sysctl('kernel.osrelease')}".strip()
        yield Finding(Status.OK, f"{release}: NAT, conntrack by netlink, packets by {DIVERTS[forms[0]]}")
    if able.nftables and not able.timeouts:
        yield Finding(Status.WARNING, NO_TIMEOUTS, "sysctl -w net.netfilter.nf_conntrack_tcp_timeout_"
                      "{unacknowledged,max_retrans}=7200")


def check_packages(host: Host) -> Iterator[Finding]:
    """Are the parts installed that the daemon needs beside Python?"""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    for name in missing:
        yield Finding(Status.ERROR, f"the Python package {name} is missing; it {PACKAGES[name]}",
                      "pip install 'natfix[live]', with the pip of natfix's own environment")
    if not host.capabilities().library:
        yield Finding(Status.ERROR, "the library libnftables is missing", "apt install libnftables1")
    elif not missing:
        yield Finding(Status.OK, f"{', '.join(PACKAGES)} and libnftables are installed")


def check_links(host: Host) -> Iterator[Finding]:
    """Which link is outside, which networks are inside?"""
    links, settings = host.links(), host.settings
    found = outside_links(links, settings)
    interface = next((name for name in found if found[name]), next(iter(found)))
    address = found[interface]
    inside = inside_networks(links, settings, interface)
    inside += tuple((network, "") for network in settings.outside.intranet)
    has_pbx = settings.gateway.pbx == "local"
    if not inside and not has_pbx:
        yield Finding(Status.ERROR, f"no network lies inside: all routes leave by {interface}",
                      "in natfix.toml, [inside] networks = [...], or [outside] interface")
        return
    names = ", ".join(f"{network} ({link})" if link else str(network) for network, link in inside)
    yield Finding(Status.OK, f"outside is {interface}, {address}; inside {names or 'is the PBX here alone'}")
    if settings.outside.advertise:
        yield _advertised(settings.outside.advertise, address)
    if not is_own_address(links, address):
        yield Finding(Status.WARNING, f"{address} is no address of this gateway: nobody answers ARP for it",
                      f"ip address add {address}/32 dev {interface}, unless it is routed to you")
    for link in dict.fromkeys(link for _, link in inside if link in links.default_interfaces):
        if not settings.inside.networks:
            yield Finding(
                Status.WARNING, f"{link} has a default route, too, but counts as inside: what comes by it is "
                "taken for a phone's", "in natfix.toml, [inside] networks = [the phones' networks]")
    for network, link in inside:
        if not link and network not in settings.outside.intranet:
            yield Finding(Status.WARNING, f"no route leads to {network}, which [inside] networks names",
                          f"ip route add {network} via ..., or take it from natfix.toml")


def _advertised(setting: str, address: str) -> Finding:
    """Ask for the address that others see, where a STUN server is to tell it."""
    if not setting.startswith(STUN):
        return Finding(Status.OK, f"others see {address} as {setting}, as [outside] advertise says")
    try:
        return Finding(Status.OK, f"others see {address} as {ask(setting.removeprefix(STUN), address)}")
    except NatfixError as problem:
        return Finding(Status.WARNING, f"{problem}: without an answer {address} is shown",
                       "in natfix.toml, [outside] advertise: another server, or the address itself")


def check_routing(host: Host) -> Iterator[Finding]:
    """Does this machine forward packets at all?"""
    if host.sysctl("net.ipv4.ip_forward") == "1":
        yield Finding(Status.OK, "packets are forwarded")
    else:
        yield Finding(Status.ERROR, "net.ipv4.ip_forward is off: this machine is no gateway",
                      "sysctl -w net.ipv4.ip_forward=1, and the same line in /etc/sysctl.d/")


class LocalSocket(NamedTuple):
    """A UDP socket of a program on this gateway."""

    host: str
    port: int
    is_server: bool     # takes packets from anybody, since it is connected to nobody


def udp_sockets(table: str) -> Iterator[LocalSocket]:
    """Yield the sockets of *table*, the text of /proc/thread-self/net/udp (proc(5))."""
    for line in table.splitlines()[1:]:
        words = line.split()
        address, _, port = words[1].partition(":")
        host = socket.inet_ntoa(bytes.fromhex(address)[::-1])
        yield LocalSocket(host, int(port, 16), words[2].endswith(":0000"))


def check_ports(host: Host) -> Iterator[Finding]:
    """Are the outside ports free that natfix gives to phones?"""
    settings = host.settings
    (first, last), ephemeral = settings.media.ports, ephemeral_ports(host)
    servers = sorted({each.port for each in udp_sockets(host.read("proc/thread-self/net/udp"))
                      if each.is_server and first <= each.port <= last and each.host != "127.0.0.1"
                      and each.port not in ephemeral})
    if servers:
        yield Finding(
            Status.WARNING,
            f"a program here serves UDP port {_list(servers)}, one of [media] ports: nothing reaches it",
            "choose other ports in natfix.toml, [media] ports = [first, last]")
    else:
        yield Finding(Status.OK, f"media ports {first} to {last} are free")
    shared = _shared(ephemeral, settings.media.ports, settings.signalling.outside_ports)
    if shared:
        spans = ",".join(f"{low}-{high}" for low, high in shared)
        yield Finding(
            Status.NOTE, "programs here may be given some of natfix's ports (net.ipv4.ip_local_port_range); "
            "it leaves those in use alone", f"sysctl -w net.ipv4.ip_local_reserved_ports={spans}")


def ephemeral_ports(host: Host) -> set[int]:
    """Return the ports that the kernel gives to programs that ask for any."""
    limits = host.sysctl("net.ipv4.ip_local_port_range").split()
    if len(limits) != 2:
        return set()
    ports = set(range(int(limits[0]), int(limits[1]) + 1))
    for part in filter(None, host.sysctl("net.ipv4.ip_local_reserved_ports").split(",")):
        low, _, high = part.partition("-")
        ports.difference_update(range(int(low), int(high or low) + 1))
    return ports


def _shared(ephemeral: set[int], *spans: tuple[int, int]) -> list[tuple[int, int]]:
    return [span for span in spans if not ephemeral.isdisjoint(range(span[0], span[1] + 1))]


def _list(ports: Iterable[int]) -> str:
    shown = list(map(str, ports))
    return ", ".join(shown[:5]) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")


def check_conntrack(host: Host) -> Iterator[Finding]:
    """Is there room in the connection table?"""
    count, limit = (host.sysctl(f"net.netfilter.nf_conntrack_{name}") for name in ("count", "max"))
    if not (count.isdigit() and limit.isdigit()):
        yield Finding(Status.NOTE, "conntrack is not in use yet")
    elif int(count) > FULL_TABLE * int(limit):
        yield Finding(Status.WARNING, f"the connection table is nearly full: {count} entries of {limit}",
                      f"sysctl -w net.netfilter.nf_conntrack_max={4 * int(limit)}")
    else:
        yield Finding(Status.OK, f"the connection table holds {count} of {limit} entries")


def check_queue(host: Host) -> Iterator[Finding]:
    """Is the queue number free, or natfix's own?"""
    number = host.settings.signalling.queue
    owners = _queue_owners(host.read("proc/thread-self/net/netfilter/nfnetlink_queue"))
    running = _running(host.settings.daemon.control_socket)
    if running:
        yield Finding(Status.OK, f"natfix is running{running}")
    elif number in owners:
        free = next(each for each in range(number + 1, number + 65536) if each not in owners) % 65536
        yield Finding(Status.ERROR, f"queue {number} is held by {_process(host, owners[number])}",
                      f"end that program, or in natfix.toml, [signalling] queue = {free}")
    elif OWN_TABLE in host.ruleset().tables:
        yield Finding(Status.NOTE, "natfix is not running, and the rules it left keep the calls' audio: "
                      "`natfix run` goes on from there, `natfix down` removes them")
    else:
        yield Finding(Status.OK, f"queue {number} is free; natfix is not running")


def _queue_owners(table: str) -> dict[int, int]:
    """Return number and port id of each queue in *table*, nfnetlink_queue's own listing."""
    rows = (re.findall(r"\d+", line) for line in table.splitlines())
    return {int(row[0]): int(row[1]) for row in rows if len(row) > 2}


def _running(control_socket: str) -> str:
    """Return what to say of the daemon that answers there, "" where none does."""
    try:
        answer = request(control_socket, {"command": "status"}, timeout=2.0)
    except NatfixError:
        return ""
    return f" (process {answer['pid']})" if "pid" in answer else f" (it answers at {control_socket})"


def _process(host: Host, port_id: int) -> str:
    """Return "process 123 (name)"; a netlink port id mostly is the process's number."""
    name = host.read(f"proc/{port_id}/comm").strip()
    return f"process {port_id} ({name})" if name else f"a program with netlink port {port_id}"
