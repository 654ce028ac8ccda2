"""What stands on the gateway while calls are measured: natfix, or one of its peers.

Each arrangement is entered as a context and tells where the phone sends its calls to, and which processes
the work is done by.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.bench.load import CALLEE, Callee
from tests.bench.processor import family
from tests.bench.report import Results
from tests.lab.gateway import Natfix
from tests.lab.host import PROJECT
from tests.lab.lab import Lab
from tests.lab.programs import NatProxy

QUEUE = 7
# One phone stands for all the callers of a busy gateway, so the limits of one host are those of all.
NATFIX = """
[media]
ports = [30000, 59999]
[limits]
dialogs = 100000
dialogs_per_host = 100000
mappings_per_host = 65536
registrations_per_host = 60000
packets_per_host = 0
requests_per_host = 0
requests_per_peer = 0
[daemon]
log_level = "info"
"""
RELAY_PORTS = (23000, 59000)        # rtpengine keeps a call's four ports for half a minute after its end


@dataclass
class Arrangement:
    """A lab with something on its gateway."""

    lab: Lab
    to: str                 # where the caller sends its messages
    processes: list[int]
    natfix: Natfix | None = None


@contextmanager
def masquerade() -> Iterator[Arrangement]:
    """Nothing but the operator's own NAT."""
    with Lab(accounting=False) as lab:
        lab.start(Callee())
        yield Arrangement(lab, f"{lab[CALLEE].address}:5060", [])


@contextmanager
def with_natfix(config: str = NATFIX) -> Iterator[Arrangement]:
    """The daemon as it is run."""
    with masquerade() as arrangement:
        arrangement.natfix = arrangement.lab.start_natfix(config)
        assert arrangement.natfix.process is not None
        arrangement.processes.append(arrangement.natfix.process.pid)
        yield arrangement


@contextmanager
def with_accept_only() -> Iterator[Arrangement]:
    """A queue whose reader lets everything pass."""
    with masquerade() as arrangement:
        gateway = arrangement.lab.gateway
        reader = gateway.popen([sys.executable, str(PROJECT / "tests/bench/accept_only.py"), str(QUEUE)])
        reader.wait_for("bound")
        for port in ("--dport", "--sport"):
            gateway.run(["iptables", "-t", "mangle", "-A", "FORWARD", "-p", "udp", port, "5060",
                         "-j", "NFQUEUE", "--queue-num", str(QUEUE)])
        arrangement.processes.append(reader.pid)
        yield arrangement


@contextmanager
def with_kamailio() -> Iterator[Arrangement]:
    """Kamailio and rtpengine as the phone's outbound proxy, in user space as Debian ships them, silent."""
    with masquerade() as arrangement:
        proxy = arrangement.lab.start(NatProxy(relay_ports=RELAY_PORTS, log_level=3, memory=256))
        assert proxy.rtpengine is not None
        assert proxy.kamailio is not None
        arrangement.processes += [proxy.rtpengine.pid, *family(proxy.kamailio.pid)]
        arrangement.to = proxy.outbound
        yield arrangement


class MeasuredNatfix(Natfix):
    """A natfix that measures itself; *kind* is what (tests/bench/measured_natfix.py)."""

    def __init__(self, lab: Lab, kind: str) -> None:
        super().__init__(lab, NATFIX)
        self.kind = kind
        self.output = lab.path("measured.json")

    def command(self, *arguments: str) -> list[str]:
        """Return the argv of the measured natfix."""
        return [sys.executable, "-m", "tests.bench.measured_natfix", str(self.output), self.kind,
                "--config", str(self.config), *arguments]

    def results(self) -> Results:
        """Return what it wrote down at its end."""
        found: Results = json.loads(self.output.read_text())
        return found
