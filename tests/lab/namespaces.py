"""Network namespaces from a topology: made with pyroute2, named so that their creator is known.

A namespace is called ``nfx<pid>-<n>-<host>``: the process that made it, the how manieth lab of that
process, the host. The cables run to bridges in one more namespace, ``...-switch``.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pyroute2 import IPRoute, netns

from tests.lab.topology import HostRow, Topology

T = TypeVar("T")
CLONE_NEWNET = 0x40000000
SWITCH = "switch"
NAME = re.compile(r"(nfx(\d+)-(\d+))-([a-z0-9]+)")
# Without IPv6 no program picks a link-local address; DAD and router solicitations stay out of captures.
SYSCTLS = {"net/ipv6/conf/all/disable_ipv6": "1", "net/ipv6/conf/default/disable_ipv6": "1"}
_libc = ctypes.CDLL(None, use_errno=True)


def namespace(prefix: str, host: str) -> str:
    """Return the namespace name of *host* in the lab *prefix*."""
    return f"{prefix}-{host}"


def build(prefix: str, topology: Topology) -> None:
    """Make all namespaces, bridges and cables of *topology*; on failure nothing is left."""
    try:
        _build(prefix, topology)
    except BaseException:
        remove(prefix)
        raise


def remove(prefix: str) -> None:
    """Remove every namespace of the lab *prefix*; their interfaces and rules go with them."""
    for name in list_namespaces(prefix):
        with contextlib.suppress(FileNotFoundError):
            netns.remove(name)


def list_namespaces(prefix: str = "nfx") -> list[str]:
    """Return the names of all existing lab namespaces whose lab is *prefix*, or of every lab."""
    found = [name for name in netns.listnetns() if (match := NAME.fullmatch(name))
             and prefix in ("nfx", match[1])]
    return sorted(found)


def call_in(name: str, function: Callable[[], T]) -> T:
    """Return what *function* returns, called in a thread that has entered namespace *name*."""
    result: list[T] = []
    problem: list[BaseException] = []

    def work() -> None:
        try:
            _enter(name)
            result.append(function())
        except BaseException as error:
            problem.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if problem:
        raise problem[0]
    return result[0]


def socket_in(name: str, family: int = socket.AF_INET, kind: int = socket.SOCK_DGRAM) -> socket.socket:
    """Return a socket that lives in namespace *name*; it stays usable from everywhere."""
    return call_in(name, lambda: socket.socket(family, kind))


def write_sysctls(name: str, values: dict[str, str]) -> None:
    """Write ``net/...`` sysctls in namespace *name*."""
    def write() -> None:
        for key, value in values.items():
            Path("/proc/sys", key).write_text(value)
    call_in(name, write)


def _enter(name: str) -> None:
    descriptor = os.open(f"/run/netns/{name}", os.O_RDONLY)
    try:
        if _libc.setns(descriptor, CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, f"cannot enter namespace {name}: {os.strerror(number)}")
    finally:
        os.close(descriptor)


def _build(prefix: str, topology: Topology) -> None:
    switch = namespace(prefix, SWITCH)
    _create(switch)
    bridges = _make_bridges(switch, topology)
    with IPRoute(netns=switch) as cables:
        port = 0
        for row in topology.hosts:
            _create(namespace(prefix, row.name))
            for link in row.links:
                port += 1
                peer = {"ifname": link.interface, "net_ns_fd": namespace(prefix, row.name)}
                cables.link("add", ifname=f"p{port}", kind="veth", peer=peer)
                cables.link("set", ifname=f"p{port}", master=bridges[link.subnet], state="up")
    for row in topology.hosts:
        _configure(namespace(prefix, row.name), row, topology)


def _create(name: str) -> None:
    netns.create(name)
    write_sysctls(name, SYSCTLS)


def _make_bridges(switch: str, topology: Topology) -> dict[str, int]:
    bridges: dict[str, int] = {}
    with IPRoute(netns=switch) as links:
        for subnet, (length, void) in topology.subnets.items():
            links.link("add", ifname=subnet, kind="bridge")
            bridges[subnet] = links.link_lookup(ifname=subnet)[0]
            if void:
                links.addr("add", index=bridges[subnet], address=void, prefixlen=length)
            links.link("set", index=bridges[subnet], state="up")
        with contextlib.suppress(FileNotFoundError):
            links.route("add", dst="0.0.0.0/0", type="blackhole", family=socket.AF_INET)
    # Frames between hosts of a bridge must not meet this machine's bridge netfilter rules.
    with contextlib.suppress(OSError):
        write_sysctls(switch, {"net/bridge/bridge-nf-call-iptables": "0"})
    write_sysctls(switch, {"net/ipv4/ip_forward": "1", "net/ipv4/conf/all/send_redirects": "0"})
    return bridges


def _configure(name: str, row: HostRow, topology: Topology) -> None:
    with IPRoute(netns=name) as links:
        links.link("set", index=1, state="up")
        for link in row.links:
            index = links.link_lookup(ifname=link.interface)[0]
            links.addr("add", index=index, address=link.address,
                       prefixlen=topology.subnets[link.subnet][0])
            links.link("set", index=index, state="up")
        if row.router:
            links.route("add", dst="default", gateway=row.router)
    if row.forwards:
        # Loose checks would hide routing mistakes; 1 is what Debian's own sysctl.conf suggests.
        write_sysctls(name, {"net/ipv4/ip_forward": "1", "net/ipv4/conf/all/rp_filter": "1"})


def process_start(pid: int) -> str:
    """Return when process *pid* started, in clock ticks since boot, as text; "" where it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError as problem:
        if problem.errno not in (errno.ENOENT, errno.ESRCH):
            raise
        return ""
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]       # proc(5): state is field 3, starttime field 22
