"""What natfix and the kernel hold, beside what the world knows to be there."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Set
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from tests.bench.processor import cpu_seconds, resident_megabytes
from tests.lab.gateway import Natfix
from tests.lab.host import Host, LabError
from tests.soak.world import World

MARK = "0x4000000/0x4000000"        # of the conntrack mark, natfix's own bit
NOT_OF_CALLS = ("memory", "pace", "flooding", "refused")    # sets whose elements nobody's call is held by
MEDIA_ENTRY = re.compile(r"dport=3\d{4} ")      # [media] ports, in one of the tuples
MEDIA_MAPS = ("media_out", "media_in")
PER_CALL = 2                        # mappings, and entries once both sides are known: RTP and RTCP
LOOKS = 3                           # what is only late is right at the next look
PAUSE = 1.5                         # seconds between two
NOTICED = 120.0                     # seconds from a call's last packet to its end; [media] silence is 60


@dataclass
class Sample:
    """One look; counts as they were then."""

    at: float = 0.0
    live: int = 0                   # calls that certainly stand
    talking: int = 0
    possible: int = 0               # with those that begin or end just now, or never say BYE
    registered: int = 0
    calls: int = 0                  # of natfix
    registrations: int = 0
    rss_mb: float = 0.0
    cpu_s: float = 0.0
    descriptors: int = 0
    threads: int = 0
    elements: dict[str, int] = field(default_factory=dict)
    media_entries: int = 0
    signalling_entries: int = 0
    shell: dict[str, int] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def as_row(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


class Watch:
    """Looks at a daemon and its kernel, beside a world."""

    def __init__(self, natfix: Natfix, gateway: Host, world: World) -> None:
        self.natfix, self.gateway, self.world = natfix, gateway, world
        self.samples: list[Sample] = []
        self._began = world.loop.time()

    async def look(self) -> Sample:
        """Take a sample, once more where something seems wrong that may be under way; keep the last."""
        for _ in range(LOOKS):
            sample = await self._look()
            if not sample.problems:
                break
            await asyncio.sleep(PAUSE)
        self.samples.append(sample)
        return sample

    async def _look(self) -> Sample:
        world = self.world
        certain, talking = _certain(world), _certain(world, talking=True)
        before = set(world.calls)       # what ends while natfix is asked has to count as well
        registered = world.registered.keys() - +world.settling
        sample = Sample(round(world.loop.time() - self._began, 1))
        calls, registrations = await world.loop.run_in_executor(None, partial(self._fill, sample))
        silent = {name for name, since in world.forgotten.items() if world.loop.time() < since + NOTICED}
        possible = before | world.calls.keys() | silent
        certain &= _certain(world)
        talking &= _certain(world, talking=True)
        possible_aors = registered | world.registered.keys() | world.settling.keys()
        registered &= world.registered.keys() - +world.settling
        sample.live, sample.possible, sample.talking = len(certain), len(possible), len(talking)
        sample.registered = len(registered)
        sample.problems += _compare("calls", calls, certain, possible)
        sample.problems += _compare("registrations", registrations, registered, possible_aors)
        for name in MEDIA_MAPS:
            # A phone inside that only rings has not said yet where it wants media.
            sample.problems += _between(name, sample.elements.get(name, 0), PER_CALL * len(talking),
                                        PER_CALL * len(possible))
        sample.problems += _between("conntrack entries of media", sample.media_entries,
                                    PER_CALL * len(talking), PER_CALL * len(possible))
        return sample

    def _fill(self, sample: Sample) -> tuple[set[str], set[str]]:
        """Ask; returns Call-IDs and addresses-of-record."""
        process = self.natfix.process
        if process is None or process.poll() is not None:
            raise LabError("natfix has ended")
        # Before the questions below, whose own connections would count.
        sample.descriptors = len(os.listdir(f"/proc/{process.pid}/fd"))
        sample.threads = len(os.listdir(f"/proc/{process.pid}/task"))
        calls = {row["call_id"] for row in self.natfix.request("calls")["calls"]}
        registrations = {_plain(row["aor"]) for row in self.natfix.request("registrations")["registrations"]}
        sample.calls, sample.registrations = len(calls), len(registrations)
        sample.elements = elements(self.gateway)
        sample.media_entries, sample.signalling_entries = entries(self.gateway)
        sample.status = self.natfix.request("status")
        sample.shell = sample.status.pop("shell")
        sample.rss_mb, sample.cpu_s = resident_megabytes(process.pid), cpu_seconds([process.pid])
        return calls, registrations


def elements(gateway: Host) -> dict[str, int]:
    """Return how many elements each of natfix's maps and sets has that hold something for calls or phones."""
    text = gateway.run(["nft", "-j", "list", "table", "ip", "natfix"], check=False).stdout
    found = {}
    for entry in json.loads(text)["nftables"] if text else ():
        for held in (entry[kind] for kind in ("map", "set") if kind in entry):
            if held["name"] not in NOT_OF_CALLS and held.get("elem"):
                found[held["name"]] = len(held["elem"])
    return found


def entries(gateway: Host) -> tuple[int, int]:
    """Return how many conntrack entries media has, and how many SIP, by natfix's bit of the mark."""
    every = gateway.run(["conntrack", "-L", "-p", "udp"], check=False).stdout.splitlines()
    marked = gateway.run(["conntrack", "-L", "-p", "udp", "-m", MARK], check=False).stdout.splitlines()
    return sum(bool(MEDIA_ENTRY.search(line)) for line in every), len(marked)


def _certain(world: World, talking: bool = False) -> set[str]:
    """Return the Call-IDs that natfix has seen, and that nobody has begun to end."""
    return {name for name, call in world.calls.items() if call.phase == "up" and (call.talks or not talking)}


def _compare(what: str, found: Set[str], least: Set[str], most: Set[str]) -> list[str]:
    said = []
    if missing := least - found:
        said.append(f"{what}: {len(missing)} missing, for instance {min(missing)}")
    if extra := found - most:
        said.append(f"{what}: {len(extra)} too many, for instance {min(extra)}")
    return said


def _between(what: str, found: int, least: int, most: int) -> list[str]:
    return [] if least <= found <= most else [f"{what}: {found}, not from {least} to {most}"]


def _plain(aor: str) -> str:
    return aor if aor.startswith("sip:") else f"sip:{aor}"
