"""The lab: a topology that lives as long as a ``with`` block, and leaves nothing behind."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar

from tests.lab import leftovers, namespaces
from tests.lab.far_nat import FarNat
from tests.lab.gateway import Natfix, install_rules
from tests.lab.host import Host, LabError, Process
from tests.lab.topology import TOPOLOGIES

_numbers: Iterator[int] = itertools.count(1)


class Program(Protocol):
    """A program that :meth:`Lab.start` can start and the lab stops."""

    def start(self, lab: Lab) -> None:
        """Start it and wait until it is ready."""


P = TypeVar("P", bound=Program)


class Lab:
    """A topology of network namespaces with a masquerading, default-drop gateway.

    ``lab["phone1"]`` is a :class:`Host`. *dnat_line* adds natfix's documented line to the operator's
    forward chain; without *firewall* there are no rules at all. *accounting* switches packet counters of
    conntrack entries on. *sizes* go to the topology (``phones=10``). With ``NATFIX_LAB_KEEP=1`` in the
    environment, logs and recordings stay.
    """

    def __init__(self, topology: str = "gateway", *, dnat_line: bool = False, accounting: bool = True,
                 standing: bool = False, firewall: bool = True, **sizes: Any) -> None:
        self.topology = TOPOLOGIES[topology](**sizes)
        self.firewall = firewall
        self.dnat_line, self.accounting, self.standing = dnat_line, accounting, standing
        self.prefix = f"nfx{os.getpid()}-{next(_numbers)}"
        self.directory = leftovers.STATE / self.prefix
        self.hosts = {row.name: Host(row, self.prefix, self.directory) for row in self.topology.hosts}
        self.far_nats: dict[str, FarNat] = {}       # by host, once it is up

    def __enter__(self) -> Lab:
        self.up()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.down()

    def __getitem__(self, host: str) -> Host:
        return self.hosts[host]

    @property
    def gateway(self) -> Host:
        """The host between inside and outside."""
        return self.hosts["gateway"]

    def up(self) -> None:
        """Build it; on failure nothing is left."""
        if os.geteuid():
            raise LabError("the lab needs root, because it makes network namespaces: run it with sudo")
        leftovers.sweep()
        leftovers.claim(self.directory, standing=self.standing)
        try:
            namespaces.build(self.prefix, self.topology)
            if self.firewall:
                install_rules(self.gateway, self.dnat_line)
            self._install_far_nats()
            namespaces.write_sysctls(self.gateway.namespace, {
                "net/netfilter/nf_conntrack_acct": str(int(self.accounting))})
        except BaseException:
            self.down()
            raise

    def _install_far_nats(self) -> None:
        for host in self.hosts.values():
            if host.row.nat:
                subnet = host.row.links[0].subnet
                behind = [row.links[-1].address for row in self.topology.hosts
                          if row is not host.row and row.links[-1].subnet == subnet]
                self.far_nats[host.name] = FarNat(host, host.row.nat, behind)

    def down(self) -> None:
        """End every process this lab started, the latest first, and remove the namespaces."""
        # A second Ctrl-C must not stop the cleaning up.
        previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
        try:
            for process in reversed(self.processes()):
                process.stop()
            leftovers.remove(self.prefix, keep_files=bool(os.environ.get("NATFIX_LAB_KEEP")))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, previous)

    def start(self, program: P) -> P:
        """Start *program* (a Kamailio, Baresip, Capture...), wait until it is ready, and return it."""
        program.start(self)
        return program

    def start_natfix(self, config_text: str = "", args: tuple[str, ...] = ()) -> Natfix:
        """Run natfix on the gateway and wait until it is ready."""
        return Natfix(self, config_text, args).start()

    def processes(self) -> list[Process]:
        """Return every process started on any host, in order."""
        found = [process for host in self.hosts.values() for process in host.processes]
        return sorted(found, key=lambda process: process.pid)

    def path(self, name: str) -> Path:
        """Return the path of a file of this lab's directory."""
        return self.directory / name

    def report(self, lines: int = 25) -> str:
        """Return the tail of every program's log, for a failing test."""
        parts = [f"--- {process.name} (exit {process.poll()})\n{process.tail(lines)}"
                 for process in self.processes()]
        return "\n".join(parts)
