"""What calls there are: a mixture as offices have it, the same for the same seed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice
from random import Random

from tests.soak.call import Plan

# Per thousand calls.
KINDS = {"answered": 760, "early": 100, "cancelled": 60, "refused": 50, "unanswered": 28, "forgotten": 2}
TALKS = ((0.65, 2.0, 15.0), (0.25, 15.0, 35.0), (0.1, 35.0, 60.0))      # share, and how long, in seconds
HOLDS, DEAFS = 0.1, 0.05


def mixture(number: int, seed: int, longest: float = 60.0, without: str = "") -> Iterator[Plan]:
    """Yield *number* plans; none talks for longer than *longest* seconds, or is of the kind *without*."""
    chance = Random(seed)
    kinds = {kind: share for kind, share in KINDS.items() if kind != without}
    return islice((_plan(each, chance, kinds, longest) for each in count(1)), number)


def _plan(number: int, chance: Random, kinds: dict[str, int], longest: float) -> Plan:
    (kind,) = chance.choices(list(kinds), list(kinds.values()))
    (_, least, most), = chance.choices(TALKS, [share for share, _, _ in TALKS])
    return Plan(
        number, chance.random() < 0.5, kind, chance.uniform(0.2, 3.0),
        min(chance.uniform(least, most), longest),
        chance.random() < 0.5, chance.random() < HOLDS,
        chance.choice(("INVITE", "200", "BYE")) if chance.random() < DEAFS else "")
