"""How many calls per second natfix carries without losing one, the generator on the same cores."""

from __future__ import annotations

from tests.bench.arrangements import Arrangement, with_natfix
from tests.bench.load import Load, place_calls
from tests.bench.report import Results
from tests.lab.host import LabError

FIRST = 400             # calls per second
STEP = 1.15
PROBE = 5.0             # seconds
LATE = 1.03             # a generator that takes longer than this times its plan did not hold the rate
TRIES = 8               # rates that are tried in full


def measure(seconds: float) -> Results:
    """Return the highest rate, found by probes and confirmed over *seconds*."""
    with with_natfix() as arrangement:
        rate = _probe(arrangement, min(PROBE, seconds))
    for _ in range(TRIES):
        with with_natfix() as arrangement:      # a rate that was too high leaves unanswered calls behind
            load = _carry(arrangement, rate, seconds)
        if _is_held(load, rate):
            return {"calls_per_second": {
                "sustained": round(rate), "seconds": seconds, "calls": load.calls,
                "retransmissions": load.retransmissions,
            }}
        rate /= STEP
    raise LabError(f"no rate down to {rate:.0f} calls a second was held")


def _probe(arrangement: Arrangement, seconds: float) -> float:
    """Return the highest rate that is held for a moment."""
    rate = float(FIRST)
    if _is_held(_carry(arrangement, rate, seconds), rate):
        while _is_held(_carry(arrangement, rate * STEP, seconds), rate * STEP):
            rate *= STEP
        return rate
    while rate > 1 and not _is_held(_carry(arrangement, rate, seconds), rate):
        rate /= STEP
    return rate


def _carry(arrangement: Arrangement, rate: float, seconds: float) -> Load:
    return place_calls(arrangement.lab, round(rate * seconds), rate)


def _is_held(load: Load, rate: float) -> bool:
    return load.is_clean and load.seconds < load.calls / rate * LATE + 1.0
