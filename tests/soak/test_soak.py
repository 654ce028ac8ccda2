"""The soak of tools/soak, short: everything agrees while calls come and go, and nothing stays."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from tests.lab.lab import Lab
from tests.soak.plans import KINDS, mixture
from tests.soak.soak import PHONES, Outcome, Size, soak
from tests.soak.watch import Sample

RATE, SECONDS, EVERY = 20.0, 15.0, 3.0
GROWTH = 25.0           # megabytes; tables fill while a few hundred calls begin


def test_the_same_seed_makes_the_same_calls() -> None:
    """A soak can be had again; all kinds of calls are among a thousand."""
    plans = list(mixture(1000, 1))
    assert plans == list(mixture(1000, 1))
    assert plans != list(mixture(1000, 2))
    assert {plan.kind for plan in plans} == set(KINDS)
    assert all(one.number + 1 == next_.number for one, next_ in pairwise(plans))


def test_what_is_wrong_is_said() -> None:
    """Memory that grows, other descriptors, lost packets, what is left over: each is a problem."""
    def outcome(**changes: object) -> Outcome:
        samples = [Sample(rss_mb=50, descriptors=20, threads=5) for _ in range(8)]
        base = {"counts": {}, "samples": samples, "failures": [], "lost": [], "strays": 0, "left": {},
                "rest": 1.0}
        return Outcome(**{**base, **changes})       # type: ignore[arg-type]
    assert outcome().problems() == []
    passing = Sample(rss_mb=50, descriptors=26, threads=6)
    assert outcome(samples=[*outcome().samples, passing, Sample(rss_mb=50, descriptors=20, threads=5)]
                   ).problems() == []
    last = [Sample(rss_mb=60, descriptors=21, threads=5, problems=["calls: 1 missing, for instance x"])] * 9
    grown = outcome(samples=[*outcome().samples, *last]).problems()
    assert [text.partition(":")[0] for text in grown[-3:]] == [
        "at 0 s", "memory grew by 10.0 MB", "descriptors are not constant"]
    for wrong in ({"lost": [(1.0, "x")]}, {"strays": 1}, {"left": {"calls": 2}}, {"failures": ["x"]},
                  {"errors": {"errors": 1}}):
        assert outcome(**wrong).problems(), wrong


@pytest.mark.lab
def test_a_short_soak(make_lab: Callable[..., Lab]) -> None:
    """20 calls a second of all kinds, both ways, beside phones that come and go: no call fails, no RTP packet
    is lost; natfix's calls and the kernel's elements and entries are those of the calls that stand, and when
    these are over nothing of them is left."""
    outcome = soak(make_lab(phones=len(PHONES)), Size(RATE, SECONDS, EVERY, guests=20, is_whole=False))
    assert outcome.counts["calls"] == RATE * SECONDS
    assert outcome.counts["rtp received"] > 5 * RATE * SECONDS
    assert outcome.problems(GROWTH) == []
