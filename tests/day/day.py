"""The day: calls go on while everything happens that happens to a gateway."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Awaitable, Callable, Iterator
from random import Random
from typing import Any, NamedTuple

from tests.day.supervisor import Supervisor, Unit, own_program
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
NEW_ADDRESS = "203.0.113.2"
KINDS = {"answered": 80, "early": 8, "cancelled": 5, "refused": 4, "unanswered": 3}
# Not every kernel has nft's queue rule. Where it drops, SIP is repeated until natfix has its own rule back.
QUEUE_RULE = re.compile(r"^( *)queue num.*$", re.MULTILINE)


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
    failures: list[str]
    counts: dict[str, int]
    results: list[str]      # of natfix's processes

    def lost_in(self, what: str) -> int:
        """Return how many packets of those sent during an event were lost."""
        spans = [(event.began, event.ended) for event in self.events if event.what == what]
        return sum(began <= at <= ended for at, _ in self.lost for began, ended in spans)


class DayInTheLife:
    """The gateway of *lab*, natfix under its unit's rules, phones that call; *versions* are two unpacked
    packages (or argv of natfix) of which the second is the newer."""

    def __init__(self, lab: Lab, versions: Versions, say: Callable[[str], None] = print) -> None:
        self.lab, self.versions, self.say = lab, versions, say
        self.natfix = Natfix(lab, '[daemon]\nlog_level = "info"\n')
        self.supervisor = Supervisor(lab, self.natfix, versions.program, Unit())
        self.world = World(lab, PHONES, interval=INTERVAL)
        self.events: list[Event] = []
        self.loop = asyncio.get_running_loop()

    async def live(self) -> Day:
        """Live through it."""
        world = self.world
        try:
            await self.supervisor.start()
            await world.register_phones()
            calling = self.loop.create_task(world.run(plans(CALLS), RATE))
            for what, happen in (
                ("firewall reload", self.reload_firewall), ("kill -9", self.kill), ("hang", self.hang),
                ("upgrade", self.upgrade), ("firewall reload", self.reload_firewall),
                ("address change", self.change_address),
            ):
                await asyncio.sleep(AROUND)
                await self._happen(what, happen)
            await calling
            await world.all_over()
            return Day(self.events, world.lost, world.failures, dict(world.counts), self.supervisor.results)
        finally:
            self.supervisor.close()
            world.close()

    async def _happen(self, what: str, happen: Callable[[], Awaitable[None]]) -> None:
        standing = sum(call.phase == "up" and call.talks for call in self.world.calls.values())
        began = self.loop.time()
        await happen()
        self.events.append(Event(what, began, self.loop.time(), standing))
        self.say(f"{what}: {self.loop.time() - began:.1f} s, {standing} calls")

    async def reload_firewall(self) -> None:
        """`systemctl reload nftables`: one transaction takes all rules away and brings the operator's."""
        before = self._restored()
        file = self.lab.path("nftables.conf")
        file.write_text("flush ruleset\n" + RULES.format(dnat_line="") + self._own_rules())
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
        await self.loop.run_in_executor(None, self.versions.upgrade)
        await self.supervisor.restart()

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
        return ""


class Versions:
    """natfix of this checkout, which is its own newer version; :class:`Packages` are two real ones."""

    program = own_program()

    def upgrade(self) -> None:
        """Replace what is installed."""


def plans(number: int, seed: int = 1) -> Iterator[Plan]:
    """Yield the day's calls."""
    chance = Random(seed)
    kinds = chance.choices(list(KINDS), list(KINDS.values()), k=number)
    for serial, kind in enumerate(kinds, start=1):
        yield Plan(serial, chance.random() < 0.5, kind, chance.uniform(0.2, 2.0), chance.uniform(*TALKS),
                   chance.random() < 0.5, chance.random() < 0.1)
