"""The day: calls go on while everything happens that happens to a gateway."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from tests.day.supervisor import Supervisor, Unit
from tests.lab.gateway import RULES, Natfix
from tests.lab.lab import Lab
from tests.lab.topology import GATEWAY_ADDRESS, OUTSIDE, VOID_ADDRESS
from tests.soak.call import Plan
from tests.soak.world import World

PHONES = ("phone1", "phone2", "phone3", "phone4")
CALLS, RATE = 200, 4.0      # in all, and a second
INTERVAL = 0.1              # seconds between two RTP packets of a party
TALKS = (8.0, 20.0)         # seconds
AROUND = 3.0                # seconds between two events
PATIENCE = 60.0             # seconds for a start and an end: the unit's 10 s are for a machine that has time
ADDRESS = "address change"
NEW_ADDRESS = "203.0.113.2"
KINDS = {"answered": 80, "early": 8, "cancelled": 5, "refused": 4, "unanswered": 3}
# In what `natfix rules` prints: SIP is queued there, where this kernel's nft has a word for it. Dropped is as
# good: phones repeat it until natfix has its own rule back.
TO_NATFIX, HELD = "chain to_natfix {\n", "        drop\n"


class Event(NamedTuple):
    """One thing that happened, and the RTP that was sent meanwhile and never came."""

    what: str
    began: float
    ended: float
    standing: int       # calls that talked then


class Day(NamedTuple):
    """What became of it."""

    events: list[Event]
    lost: list[tuple[float, str]]
    strays: int             # RTP packets that came to another call
    failures: list[str]
    counts: dict[str, int]
    results: list[str]      # of natfix's processes that ended
    versions: list[str]     # of natfix, before and after the upgrade

    def lost_in(self, what: str) -> list[tuple[float, str]]:
        """Return the packets that were sent during an event and never came."""
        spans = [(event.began, event.ended) for event in self.events if event.what == what]
        return [lost for lost in self.lost if any(began <= lost[0] <= ended for began, ended in spans)]

    def __str__(self) -> str:
        events = ", ".join(f"{event.what} ({event.ended - event.began:.1f} s, {event.standing} calls)"
                           for event in self.events)
        by_address = len(self.lost_in(ADDRESS))
        return (f"{self.counts['calls']} calls, {len(self.failures)} failed; "
                f"{self.counts['rtp sent']} RTP packets, {len(self.lost)} lost, "
                f"of these {by_address} by the new address; {events}")


class DayInTheLife:
    """The gateway of *lab*, a natfix of *packages* kept running as its unit says, and phones that call."""

    def __init__(self, lab: Lab, packages: Packages) -> None:
        self.lab, self.packages = lab, packages
        self.natfix = Natfix(lab, '[daemon]\nlog_level = "info"\n')
        unit = Unit()
        unit.start_timeout = unit.stop_timeout = PATIENCE
        self.supervisor = Supervisor(lab, self.natfix, packages.program, unit)
        self.world = World(lab, PHONES, interval=INTERVAL)
        self.events: list[Event] = []
        self.versions: list[str] = []
        self.loop = asyncio.get_running_loop()

    async def live(self) -> Day:
        """Live through it."""
        world = self.world
        try:
            await self.supervisor.start()
            self._note_version()
            await world.register_phones()
            calling = self.loop.create_task(world.run(plans(CALLS), RATE))
            for what, happen in (
                ("firewall reload", self.reload_firewall), ("kill -9", self.kill), ("hang", self.hang),
                ("upgrade", self.upgrade), ("firewall reload", self.reload_firewall),
                (ADDRESS, self.change_address),
            ):
                await asyncio.sleep(AROUND)
                await self._happen(what, happen)
            await calling
            await world.all_over()
            strays = sum(ports.strays for ports in world.ports.values())
            return Day(self.events, world.lost, strays, world.failures, dict(world.counts),
                       self.supervisor.results, self.versions)
        finally:
            self.supervisor.close()
            world.close()

    async def _happen(self, what: str, happen: Callable[[], Awaitable[None]]) -> None:
        standing = sum(call.phase == "up" and call.talks for call in self.world.calls.values())
        began = self.loop.time()
        await happen()
        self.events.append(Event(what, began, self.loop.time(), standing))

    def _note_version(self) -> None:
        self.versions.append(self.natfix.request("ping")["version"])

    async def reload_firewall(self) -> None:
        """`systemctl reload nftables`: one transaction takes all rules away and brings the operator's."""
        before = self._restored()
        file = self.lab.path("nftables.conf")
        own = await self.loop.run_in_executor(None, self._own_rules)
        file.write_text("flush ruleset\n" + RULES.format(dnat_line="") + own)
        await self._run("nft", "-f", str(file))
        await self._until(lambda: self._restored() > before, "natfix's own rules")

    async def kill(self) -> None:
        """SIGKILL; the unit starts it again."""
        pid = self.supervisor.pid
        os.kill(pid, signal.SIGKILL)
        await self.supervisor.replaced(pid)

    async def hang(self) -> None:
        """SIGSTOP; the unit's watchdog ends it."""
        pid = self.supervisor.pid
        os.kill(pid, signal.SIGSTOP)
        await self.supervisor.replaced(pid)

    async def upgrade(self) -> None:
        """The newer package's files replace the older's while that runs; its postinst restarts natfix."""
        await self.loop.run_in_executor(None, self.packages.upgrade)
        await self.supervisor.restart()
        self._note_version()

    async def change_address(self) -> None:
        """The provider gives another address; afterwards the phones register and refresh their calls."""
        await self.world.gate.close()
        script = (f"addr del {GATEWAY_ADDRESS}/24 dev {OUTSIDE}\naddr add {NEW_ADDRESS}/24 dev {OUTSIDE}\n"
                  f"route replace default via {VOID_ADDRESS}\n")
        file = self.lab.path("address")
        file.write_text(script)
        await self._run("ip", "-batch", str(file))
        await self._until(lambda: self._status()["outside_address"] == NEW_ADDRESS, "the new address")
        await self.world.register_phones(at_once=True)
        await self.world.refresh_calls()
        self.world.gate.opened.set()

    async def _run(self, *command: str) -> None:
        await self.loop.run_in_executor(None, self.lab.gateway.run, command)

    async def _until(self, condition: Callable[[], bool], what: str, patience: float = 30.0) -> None:
        end = self.loop.time() + patience
        while not await self.loop.run_in_executor(None, condition):
            assert self.loop.time() < end, f"{what}: not within {patience:g} s"
            await asyncio.sleep(0.02)

    def _status(self) -> dict[str, Any]:
        return self.natfix.request("status")

    def _restored(self) -> int:
        return int(self._status()["shell"].get("rules_restored", 0))

    def _own_rules(self) -> str:
        """Return what the operator's file includes: natfix's table comes back in the same transaction."""
        head, made, rules = self.natfix.run("rules").rpartition(TO_NATFIX)
        assert made
        return head + made + HELD + rules.partition("\n")[2]


class Packages:
    """Two packages, the second newer: unpacked into *root* one after the other, as dpkg does it."""

    def __init__(self, first: Path, later: Path, root: Path) -> None:
        self._later, self._root = later, root
        self.program = [str(root / "usr/lib/natfix/bin/python3"), "-I", "-m", "natfix"]
        (root / "usr/bin").mkdir(parents=True)
        (root / "usr/bin/python3").symlink_to("/usr/bin/python3")       # the package's own is a link to it
        self._unpack(first)

    def upgrade(self) -> None:
        """Replace the files, with what prerm and postinst do beside the restart."""
        for folder in self._root.rglob("__pycache__"):
            shutil.rmtree(folder)
        self._unpack(self._later)

    def _unpack(self, package: Path) -> None:
        subprocess.run(["dpkg-deb", "-x", package, self._root], check=True)
        libraries = self._root / "usr/lib/natfix/lib"
        subprocess.run([self.program[0], "-m", "compileall", "-q", libraries], check=True)


def plans(number: int, seed: int = 1) -> Iterator[Plan]:
    """Yield the day's calls."""
    chance = Random(seed)
    kinds = chance.choices(list(KINDS), list(KINDS.values()), k=number)
    for serial, kind in enumerate(kinds, start=1):
        yield Plan(serial, chance.random() < 0.5, kind, chance.uniform(0.2, 2.0), chance.uniform(*TALKS),
                   chance.random() < 0.5, chance.random() < 0.1)
