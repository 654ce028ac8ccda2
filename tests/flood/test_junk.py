"""The broken messages themselves, without a lab."""

from __future__ import annotations

from collections import Counter

from tests.flood.junk import LARGEST, junk

INSIDE, OUTSIDE = "192.168.1.10:5060", "203.0.113.60:5060"


def test_the_same_seed_makes_the_same_messages() -> None:
    """A failure can be had again; another seed makes other messages."""
    first, again, other = (list(junk(200, seed, INSIDE, OUTSIDE)) for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_all_kinds_come_from_both_sides() -> None:
    """Within a thousand messages each kind is sent both ways, and each fits a datagram."""
    made = list(junk(1000, 1, INSIDE, OUTSIDE))
    kinds = Counter((each.kind, each.from_inside) for each in made)
    assert len(kinds) == 2 * len({each.kind for each in made}) == 14
    assert max(len(each.payload) for each in made) <= LARGEST
