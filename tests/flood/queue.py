"""Broken messages through the live queue: each has its verdict, in time, and nothing stays behind."""

from __future__ import annotations

import re
import select
import socket
import time
from collections import Counter
from dataclasses import dataclass, field
from random import Random

from tests.bench.latency import percentile
from tests.bench.processor import resident_megabytes
from tests.bench.stamps import Key, Link, Seen
from tests.flood.junk import Junk, junk
from tests.lab import namespaces
from tests.lab.gateway import Natfix
from tests.lab.host import Host, wait_until
from tests.lab.lab import Lab
from tests.lab.topology import GATEWAY_ADDRESS, INSIDE, OUTSIDE

PORT = 5060
BUFFER, SO_RCVBUFFORCE, SO_SNDBUFFORCE = 64 << 20, 33, 32
ROUND = 5000            # messages between two looks at the clocks and the memory
PATIENCE = 10.0         # seconds until the last message of a round has arrived
# No bounds of rate: every message is to be read. A call whose media nobody hears is given up soon.
CONFIG = """
[media]
silence = 60
[limits]
requests_per_host = 0
requests_per_peer = 0
[daemon]
log_level = "info"
"""
ELEMENTS = ("signalling_out", "signalling_in", "media_out", "media_in", "signalling_allowed", "media_allowed",
            "media_learning", "media_open", "signalling_endpoints", "signalling_inward")
BIT = "0x4000000/0x4000000"     # of the conntrack mark, natfix's own
ENDPOINT = re.compile(r"[0-9.]+ \. [0-9]+(?![0-9.])")
FLOW_END = re.compile(r"src=(\S+) dst=\S+ sport=([0-9]+)")


@dataclass
class Found:
    """What became of all messages."""

    sent: int = 0
    arrived: int = 0
    untouched: int = 0          # that arrived byte for byte
    kinds: Counter[str] = field(default_factory=Counter)
    delays: list[float] = field(default_factory=list)       # milliseconds
    memory: list[float] = field(default_factory=list)       # megabytes, after each round
    shell: Counter[str] = field(default_factory=Counter)    # natfix's own counts

    def delay(self, percent: float) -> float:
        """Return the delay that *percent* of the messages do not exceed, in milliseconds."""
        return percentile(sorted(self.delays), percent)

    def problems(self) -> list[str]:
        """Return what is not as it should be: every message counts once, with one verdict."""
        shell, said = self.shell, []
        dropped, changed = shell["dropped"], shell["changed"]
        for what, has, wants in (
            ("messages that natfix has seen", shell["packets"], self.sent),
            ("messages that arrived", self.arrived, self.sent - dropped),
            ("messages that arrived byte for byte", self.untouched, self.sent - dropped - changed),
            ("internal errors", shell["errors"], 0), ("refusals of the kernel", shell["kernel_refusals"], 0),
            ("packets that wait", shell["waiting"], 0),
            ("packets lost at the queue", shell["lost"], 0),
        ):
            if has != wants:
                said.append(f"{what}: {has}, not {wants}")
        return said


class Wire:
    """A phone inside and a peer outside that have a flow, so that both can send."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.natfix: Natfix = lab.start_natfix(CONFIG)
        assert self.natfix.process is not None
        self.pid = self.natfix.process.pid
        self.phone, self.peer = _socket(lab["phone1"]), _socket(lab["remote1"])
        self.inside = f"{lab['phone1'].address}:{PORT}"
        self.outside = f"{lab['remote1'].address}:{PORT}"
        self.open()

    def open(self) -> None:
        """Make the flow by which the peer's messages come in."""
        self.phone.sendto(b"\r\n\r\n", (self.lab["remote1"].address, PORT))
        self.peer.recv(100)
        self.peer.sendto(b"\r\n\r\n", (GATEWAY_ADDRESS, PORT))
        self.phone.recv(100)

    def run(self, count: int, rate: float, seed: int = 1) -> Found:
        """Send *count* messages, *rate* a second, and return what became of them."""
        found, before = Found(), self.counts()
        waiting = list(junk(min(count, ROUND), seed, self.inside, self.outside))
        while waiting:
            self._round(waiting, rate, found)
            left, seed = count - found.sent, seed + 1
            waiting = list(junk(min(left, ROUND), seed, self.inside, self.outside))
        found.shell = self.counts()
        found.shell.subtract(before)
        return found

    def _round(self, messages: list[Junk], rate: float, found: Found) -> None:
        links = [Link(self.lab.gateway, interface) for interface in (INSIDE, OUTSIDE)]
        sent: Counter[bytes] = Counter()
        got: Counter[bytes] = Counter()
        due = time.monotonic()
        for each in messages:
            due += 1 / rate
            self._receive(got, max(0.0, due - time.monotonic()))
            if each.from_inside:
                self.phone.sendto(each.payload, (self.lab["remote1"].address, PORT))
            else:
                self.peer.sendto(each.payload, (GATEWAY_ADDRESS, PORT))
            sent[each.payload] += 1
            found.kinds[each.kind] += 1
        self._await_rest(got, len(messages))
        found.sent += len(messages)
        found.arrived += sum(got.values())
        found.untouched += sum((sent & got).values())
        found.delays += delays(*([seen for seen in link.close() if len(seen.key) > 1 or seen.key[0] in sent]
                                 for link in links))
        found.memory.append(resident_megabytes(self.pid))

    def _await_rest(self, got: Counter[bytes], count: int) -> None:
        """Messages may be dropped by policy: those do not come, and a moment of silence ends the wait."""
        end = time.monotonic() + PATIENCE
        before = -1
        while sum(got.values()) < count and time.monotonic() < end and before != sum(got.values()):
            before = sum(got.values())
            self._receive(got, 0.5)

    def _receive(self, got: Counter[bytes], patience: float) -> None:
        """Take what arrives until *patience* seconds are over."""
        end = time.monotonic() + patience
        while True:
            ready, _, _ = select.select([self.phone, self.peer], [], [], max(0.0, end - time.monotonic()))
            for one in ready:
                got[one.recv(1 << 16)] += 1
            if not ready and time.monotonic() >= end:
                return

    def counts(self) -> Counter[str]:
        """Return natfix's own counts of packets, and the kernel's of its queue."""
        status = self.natfix.request("status")
        queue = status["queue"]
        return Counter(status["shell"]) + Counter(
            {"waiting": queue.get("waiting", 0), "lost": queue.get("queue_full", 0) + queue.get("dropped", 0)
             + queue.get("socket_full", 0) + queue.get("overflows", 0)})

    def left_over(self) -> Counter[str]:
        """Return how many elements and conntrack entries natfix has in the kernel now, but for those of calls
        that were answered: nobody has heard their media, so only BYE and a day of silence end them."""
        owned = self._endpoints_of_answered_calls()
        found: Counter[str] = Counter()
        gateway = self.lab.gateway
        for name in ELEMENTS:
            kind = "map" if name.split("_")[1] in ("out", "in") else "set"
            text = gateway.run(["nft", "list", kind, "ip", "natfix", name]).stdout
            found[name] = sum(owned.isdisjoint(ENDPOINT.findall(element))
                              for element in text.split(",") if "expires " in element)
        text = gateway.run(["conntrack", "-L", "-m", BIT], check=False).stdout
        for line in text.splitlines():
            ends = {f"{host} . {port}" for host, port in FLOW_END.findall(line)}
            found["conntrack"] += line.startswith("udp") and owned.isdisjoint(ends)
        return +found

    def _endpoints_of_answered_calls(self) -> set[str]:
        answered = [call for call in self.natfix.request("calls")["calls"] if call["state"] == "confirmed"]
        parts = [part for call in answered for part in (call, *call["streams"])]
        return {part[side].replace(":", " . ") for part in parts for side in ("inside", "outside")}

    def wait_for_nothing(self, patience: float) -> float:
        """Wait until nothing is left, and return the seconds that it took."""
        began = time.monotonic()
        wait_until(lambda: not self.left_over(), patience, "elements and entries are left", interval=2.0)
        return time.monotonic() - began


def odd_packets(lab: Lab, count: int, seed: int = 1) -> int:
    """Send packets that no socket makes: lost and overlapping fragments, wrong lengths, IP options."""
    chance = Random(seed)
    source, target = (socket.inet_aton(lab[name].address) for name in ("phone1", "remote1"))
    with namespaces.call_in(lab["phone1"].namespace, lambda: socket.socket(
            socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)) as raw:
        for number in range(count):
            raw.sendto(_odd_packet(chance, number, source, target), (lab["remote1"].address, 0))
    return count


def _odd_packet(chance: Random, number: int, source: bytes, target: bytes) -> bytes:
    options = bytes(4 * chance.choice([0, 0, 0, 1, 10])).replace(b"\0", b"\1")
    payload = chance.randbytes(8 * chance.randrange(0, 60))
    length = chance.choice([8 + len(payload), 0, 7, 8, 65535])
    udp = PORT.to_bytes(2) * 2 + length.to_bytes(2) + chance.choice([b"\0\0", b"\x12\x34"]) + payload
    fragment = chance.choice([0, 0x2000, 0x2000, chance.randrange(8191), 0x2000 + chance.randrange(60)])
    head = bytes([0x45 + len(options) // 4, 0]) + (20 + len(options) + len(udp)).to_bytes(2)
    head += (number % 50 + 1).to_bytes(2) + fragment.to_bytes(2) + bytes([64, 17, 0, 0])
    return head + source + target + options + udp


def delays(inside: list[Seen], outside: list[Seen]) -> list[float]:
    """Return the milliseconds that messages spent on the gateway; of those only that are unmistakable."""
    found = []
    for come, gone in ((inside, outside), (outside, inside)):
        came, left = _once(come, leaves=False), _once(gone, leaves=True)
        found += [1000 * (left[key] - came[key]) for key in came.keys() & left.keys()]
    return found


def _once(seen: list[Seen], leaves: bool) -> dict[Key, float]:
    counts = Counter(each.key for each in seen if each.leaves == leaves)
    return {each.key: each.at for each in seen if each.leaves == leaves and counts[each.key] == 1}


def _socket(host: Host) -> socket.socket:
    made = namespaces.socket_in(host.namespace)
    made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    made.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, BUFFER)
    made.bind((host.address, PORT))
    made.settimeout(5.0)
    return made
