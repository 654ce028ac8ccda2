"""A soak: the real daemon, a mixture of calls and registrations, samples, and a verdict."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

from tests.lab.lab import Lab
from tests.soak.plans import mixture
from tests.soak.watch import Sample, Watch, elements, entries
from tests.soak.world import World

PHONES = ("phone1", "phone2", "phone3", "phone4")
GUESTS = "phone2"           # where phones come and go
# A call without a BYE is given up after a minute of silence, instead of an hour.
CONFIG = """
[media]
silence = 60
[daemon]
log_level = "info"
"""
STAYS = (5.0, 40.0)         # seconds that a phone is registered, or is not
WARM = 0.25                 # of the time; then tables and caches have their size
GROWTH = 3.0                # megabytes that memory may grow by, from then to the end
REST = 420.0                # seconds until nothing is left: elements live 300 s longer than what ended badly
LOOK = 2.0                  # seconds between two looks while waiting for that


@dataclass
class Outcome:
    """What a soak has found."""

    counts: dict[str, int]
    samples: list[Sample]
    failures: list[str]
    lost: list[tuple[float, str]]
    strays: int
    left: dict[str, int]            # after the last call, once natfix had its time
    rest: float                     # seconds that took
    errors: dict[str, int] = field(default_factory=dict)

    def problems(self, growth: float = GROWTH) -> list[str]:
        """Return what is not as it should be."""
        said = [f"at {sample.at:.0f} s: {text}" for sample in self.samples for text in sample.problems]
        said += [f"failed: {text}" for text in self.failures[:20]]
        for what, number in (("calls or registrations failed", len(self.failures)),
                             ("RTP packets lost", len(self.lost)), ("RTP packets astray", self.strays),
                             *((f"natfix counts {name}", count) for name, count in self.errors.items())):
            if number:
                said.append(f"{what}: {number}")
        said += [f"left over: {count} x {name}" for name, count in self.left.items()]
        return said + self._growth(growth)

    def _growth(self, most: float) -> list[str]:
        settled = self.samples[int(WARM * len(self.samples)):]
        said = []
        if (grown := settled[-1].rss_mb - settled[0].rss_mb) > most:
            said.append(f"memory grew by {grown:.1f} MB")
        # natfix asks other programs now and then, and has their pipes for that moment.
        halves = settled[:len(settled) // 2], settled[len(settled) // 2:]
        for what in ("descriptors", "threads"):
            before, after = (min(getattr(each, what) for each in half) for half in halves)
            if before != after:
                said.append(f"{what} are not constant: {before}, later {after}")
        return said

    def as_json(self) -> dict[str, Any]:
        """Return all of it."""
        return {"counts": self.counts, "problems": self.problems(), "left": self.left,
                "rest_s": round(self.rest, 1), "errors": self.errors, "lost": self.lost[:100],
                "failures": self.failures[:100], "samples": [sample.as_row() for sample in self.samples]}


SIGNALLING = re.compile("signalling|SIP|flows")     # lives for two minutes after its last packet
ERRORS = ("errors", "kernel_refusals", "leaked")


class Size(NamedTuple):
    """How much of it; times in seconds."""

    rate: float = 20.0          # calls a second
    seconds: float = 3600.0
    every: float = 10.0         # between two samples
    guests: int = 60            # phones that come and go
    seed: int = 1
    is_whole: bool = True       # with calls that never say BYE, and to the end of what SIP leaves for minutes


def soak(lab: Lab, size: Size, say: Callable[[Sample], None] = lambda sample: None) -> Outcome:
    """Do it in *lab*, which has four phones; *say* is told each sample."""
    return asyncio.run(_soak(lab, size, say))


async def _soak(lab: Lab, size: Size, say: Callable[[Sample], None]) -> Outcome:
    natfix = lab.start_natfix(CONFIG)
    world = World(lab, PHONES)
    watch = Watch(natfix, lab.gateway, world)
    stop = asyncio.Event()
    try:
        staying = asyncio.create_task(world.stay_registered(stop))
        while len(world.registered) < len(world.phones):
            await asyncio.sleep(LOOK / 10)
        coming = asyncio.create_task(
            world.come_and_go(GUESTS, size.guests, Random(size.seed), stop, STAYS))
        plans = mixture(math.ceil(size.rate * size.seconds), size.seed, max(2.0, size.seconds / 3),
                        "" if size.is_whole else "forgotten")
        calling = asyncio.create_task(world.run(plans, size.rate))
        while not calling.done():
            await asyncio.wait([calling], timeout=size.every)
            say(await watch.look())
        await calling
        await world.all_over()
        stop.set()
        await asyncio.gather(coming, staying)
        began = world.loop.time()
        left = await _wait_for_nothing(watch, say, size)
        rest = world.loop.time() - began
        counters = watch.samples[-1].shell
        return Outcome(dict(sorted(world.counts.items())), watch.samples, world.failures, world.lost,
                       sum(ports.strays for ports in world.ports.values()), left, rest,
                       {name: counters[name] for name in ERRORS if counters.get(name)})
    finally:
        world.close()


async def _wait_for_nothing(watch: Watch, say: Callable[[Sample], None], size: Size) -> dict[str, int]:
    """Wait until natfix and the kernel hold nothing; returns what they still do after REST."""
    loop = watch.world.loop
    end, next_look = loop.time() + REST, loop.time() + size.every
    while (left := await loop.run_in_executor(None, left_over, watch, size.is_whole)) and loop.time() < end:
        if loop.time() > next_look:
            next_look += size.every
            say(await watch.look())
        await asyncio.sleep(LOOK)
    say(await watch.look())
    return left


def left_over(watch: Watch, with_signalling: bool) -> dict[str, int]:
    """Return what natfix and the kernel hold now, nothing of it zero."""
    media, signalling = entries(watch.gateway)
    status = watch.natfix.request("status")
    held = ("calls", "registrations", "signalling_mappings", "media_mappings", "relays", "flows",
            "subscriptions")
    found = {**{f"elements of {name}": count for name, count in elements(watch.gateway).items()},
             "conntrack entries of media": media, "conntrack entries of SIP": signalling,
             **{f"natfix {name}": status[name] for name in held},
             "media ports taken": status["media_pairs"] - status["media_pairs_free"]}
    return {name: count for name, count in found.items()
            if count and (with_signalling or not SIGNALLING.search(name))}
