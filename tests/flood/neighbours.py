"""What a flood from one host does to the calls of another phone: SIPp places them."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from tests.bench.answerer import answer
from tests.bench.latency import percentile
from tests.bench.load import Callee, Calls
from tests.bench.processor import cpu_seconds
from tests.bench.stamps import Link, Seen, transits
from tests.flood.flooder import message
from tests.lab import namespaces
from tests.lab.gateway import Natfix
from tests.lab.host import PROJECT, Host, Process
from tests.lab.lab import Lab
from tests.lab.topology import GATEWAY_ADDRESS, INSIDE, OUTSIDE

FLOOD_PORT = 5062           # of the phone that floods, or is flooded; also its outside port
LEAD = 1.0                  # seconds that the flood begins before the calls, and ends after them


class Neighbour(NamedTuple):
    """What became of the calls beside one flood."""

    what: str
    flooded: int            # messages sent
    dropped: int            # of those, by natfix, for their rate
    calls: int
    failed: int
    retransmissions: int    # by SIPp, of messages of its calls
    p50: float              # milliseconds on the gateway, of the calls' messages
    p99: float
    longest: float
    cpu: float              # natfix's share of one processor
    errors: int

    @property
    def success(self) -> float:
        """Percent of the calls that came about."""
        return 100.0 * (self.calls - self.failed) / self.calls


class Neighbours:
    """A lab whose ``phone1`` calls ``remote1`` while somebody else floods."""

    def __init__(self, lab: Lab, config: str = "") -> None:
        self.lab = lab
        self.natfix: Natfix = lab.start_natfix(config)
        assert self.natfix.process is not None
        self.pid = self.natfix.process.pid
        lab.start(Callee())

    def beside_inside_flood(self, method: str, rate: float, seconds: float, calls_rate: float) -> Neighbour:
        """Let ``phone2`` flood the provider, which never answers."""
        lab = self.lab
        own, peer = f"{lab['phone2'].address}:{FLOOD_PORT}", f"{lab['provider'].address}:5060"
        with _silent(lab["provider"]):
            return self._measure(f"{method} from inside", lab["phone2"], (method, own, peer), rate, seconds,
                                 calls_rate)

    def beside_outside_flood(self, method: str, rate: float, seconds: float, calls_rate: float) -> Neighbour:
        """Let the provider that ``phone2`` has registered with flood it through its mapping."""
        lab = self.lab
        own, peer = f"{lab['provider'].address}:5060", f"{GATEWAY_ADDRESS}:{FLOOD_PORT}"
        self._register()
        with _silent(lab["phone2"], FLOOD_PORT):
            return self._measure(f"{method} from outside", lab["provider"], (method, own, peer), rate,
                                 seconds, calls_rate)

    def calm(self, seconds: float, calls_rate: float) -> Neighbour:
        """Return what the same calls are without a flood."""
        return self._measure("no flood", None, (), 0, seconds, calls_rate)

    def _measure(self, what: str, host: Host | None, flood: tuple[str, ...], rate: float, seconds: float,
                 calls_rate: float) -> Neighbour:
        before, used = self.natfix.request("status"), cpu_seconds([self.pid])
        flooder = _flooder(host, flood, rate, seconds + 2 * LEAD) if host is not None else None
        links = [Link(self.lab.gateway, interface) for interface in (INSIDE, OUTSIDE)]
        calls = Calls(self.lab, round(calls_rate * seconds), calls_rate)
        load = calls.wait()
        found = sorted(transits(*([each for each in link.close() if not _is_flood(each)] for link in links)))
        sent = int(flooder.wait_for("sent ", seconds + 20.0).split()[1]) if flooder is not None else 0
        status, used = self.natfix.request("status"), cpu_seconds([self.pid]) - used
        over = sum(status["over_rate"].values()) - sum(before["over_rate"].values())
        return Neighbour(
            what, sent, over, load.calls, load.failed, load.retransmissions, round(percentile(found, 50), 3),
            round(percentile(found, 99), 3), round(found[-1], 3),
            round(used / max(load.seconds, seconds), 3), status["shell"].get("errors", 0))

    def _register(self) -> None:
        """Register ``phone2`` with the provider, so that the provider may reach it."""
        lab = self.lab
        phone, server = lab["phone2"], lab["provider"]
        request = message("REGISTER", f"{phone.address}:{FLOOD_PORT}", f"{server.address}:5060", 10**9)
        with _bound(phone, FLOOD_PORT) as asking, _bound(server, 5060) as answering:
            asking.sendto(request, (server.address, 5060))
            seen, source = answering.recvfrom(4096)
            assert source == (GATEWAY_ADDRESS, FLOOD_PORT), source
            answering.sendto(answer(seen, server.address.encode(), 5060), source)
            asking.recv(4096)


def _flooder(host: Host, flood: tuple[str, ...], rate: float, seconds: float) -> Process:
    return host.popen([sys.executable, str(PROJECT / "tests/flood/flooder.py"), *flood, f"{rate:g}",
                       f"{seconds:g}"], "flooder")


def _is_flood(seen: Seen) -> bool:
    return b"@flood" in seen.key[0]


@contextmanager
def _silent(host: Host, port: int = 5060) -> Iterator[None]:
    """Have a socket that takes all and answers nothing."""
    with _bound(host, port):
        yield


def _bound(host: Host, port: int) -> socket.socket:
    made = namespaces.socket_in(host.namespace)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((host.address, port))
    made.settimeout(5.0)
    return made
