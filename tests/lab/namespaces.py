"""Network namespaces from a topology: made with pyroute2, named so that their creator is known.

A namespace is called ``nfx<pid>-<n>-<host>``: the process that made it, the how manieth lab of that
process, the host. The cables run to bridges in one more namespace, ``...-switch``.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import errno
import fcntl
import functools
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
SWITCH_SYSCTLS = {"net/ipv4/ip_forward": "1", "net/ipv4/conf/all/send_redirects": "0"}
GATEWAY_SYSCTLS = {"net/ipv4/ip_forward": "1", "net/ipv4/conf/all/rp_filter": "1"}
LOCK = Path("/run/natfix-lab.lock")
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
    def work() -> T:
        _enter(name)
        return function()
    return in_thread(work)


def in_thread(function: Callable[[], T]) -> T:
    """Return what *function* returns, called in a thread of its own, whose namespace ends with it."""
    future: concurrent.futures.Future[T] = concurrent.futures.Future()

    def work() -> None:
        try:
            future.set_result(function())
        except BaseException as problem:
            future.set_exception(problem)
    thread = threading.Thread(target=work)
    thread.start()
    try:
        thread.join()
    except BaseException:       # Ctrl-C: what the thread is making must be there to be removed
        thread.join()
        raise
    return future.result()


def socket_in(name: str, family: int = socket.AF_INET, kind: int = socket.SOCK_DGRAM,
              protocol: int = 0) -> socket.socket:
    """Return a socket that lives in namespace *name*; it stays usable from everywhere."""
    return call_in(name, lambda: socket.socket(family, kind, protocol))


def write_sysctls(name: str, values: dict[str, str]) -> None:
    """Write ``net/...`` sysctls in namespace *name*."""
    call_in(name, lambda: _write_sysctls(values))


def _enter(name: str) -> None:
    descriptor = os.open(f"/run/netns/{name}", os.O_RDONLY)
    try:
        _check(_libc.setns(descriptor, CLONE_NEWNET), f"enter namespace {name}")
    finally:
        os.close(descriptor)


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot {what}: {os.strerror(number)}")


def _build(prefix: str, topology: Topology) -> None:
    switch = namespace(prefix, SWITCH)
    names = [namespace(prefix, row.name) for row in topology.hosts]
    for name in (switch, *names):
        _create(name)
    call_in(switch, lambda: _make_switch(prefix, topology))
    for name, row in zip(names, topology.hosts, strict=True):
        call_in(name, functools.partial(_configure, row, topology))


def _create(name: str) -> None:
    # In a thread: netns.create() forks, and a fork of a program with threads and signal handlers is a trap.
    def work() -> None:
        _check(_libc.unshare(CLONE_NEWNET), "make a network namespace")
        with LOCK.open("w") as lock:    # the very first namespace mounts /run/netns
            fcntl.flock(lock, fcntl.LOCK_EX)
            netns.attach(name, "thread-self")
        _write_sysctls(SYSCTLS)
    in_thread(work)


def _make_switch(prefix: str, topology: Topology) -> None:
    _write_sysctls(SWITCH_SYSCTLS)
    with IPRoute() as links:
        bridges: dict[str, int] = {}
        for subnet, (length, void) in topology.subnets.items():
            links.link("add", ifname=subnet, kind="bridge")
            bridges[subnet] = links.link_lookup(ifname=subnet)[0]
            if void:
                links.addr("add", index=bridges[subnet], address=void, prefixlen=length)
            links.link("set", index=bridges[subnet], state="up")
        links.route("add", dst="0.0.0.0/0", type="blackhole", family=socket.AF_INET)
        cables = [(row, link) for row in topology.hosts for link in row.links]
        for port, (row, link) in enumerate(cables):
            peer = {"ifname": link.interface, "net_ns_fd": namespace(prefix, row.name)}
            links.link("add", ifname=f"p{port}", kind="veth", peer=peer)
            links.link("set", ifname=f"p{port}", master=bridges[link.subnet], state="up")


def _configure(row: HostRow, topology: Topology) -> None:
    with IPRoute() as links:
        links.link("set", index=1, state="up")
        for link in row.links:
            index = links.link_lookup(ifname=link.interface)[0]
            links.addr("add", index=index, address=link.address,
                       prefixlen=topology.subnets[link.subnet][0])
            links.link("set", index=index, state="up")
        if row.router:
            links.route("add", dst="default", gateway=row.router)
    if row.forwards:
        _write_sysctls(GATEWAY_SYSCTLS)


def _write_sysctls(values: dict[str, str]) -> None:
    for key, value in values.items():
        Path("/proc/sys", key).write_text(value)


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
