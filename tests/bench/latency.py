"""How much later a message arrives because natfix looks at it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from statistics import median

from tests.bench.arrangements import Arrangement, masquerade, with_natfix
from tests.bench.load import place_calls
from tests.bench.report import Results
from tests.bench.stamps import Link, transits
from tests.lab.host import LabError
from tests.lab.topology import INSIDE, OUTSIDE

MESSAGES_PER_SECOND = 500
MESSAGES = 7            # of a call
RATE = MESSAGES_PER_SECOND / MESSAGES
WARM_UP = 50            # calls


def measure(seconds: float) -> Results:
    """Return the percentiles, in milliseconds beyond what plain masquerade takes."""
    plain = median(_transits(masquerade, min(seconds, 5.0)))
    added = sorted(value - plain for value in _transits(with_natfix, seconds))
    return {"latency_ms": {
        "p50": round(percentile(added, 50), 3), "p99": round(percentile(added, 99), 3),
        "longest": round(added[-1], 3), "messages": len(added), "masquerade_p50": round(plain, 4),
    }}


def percentile(ordered: list[float], percent: float) -> float:
    """Return the value that *percent* of *ordered* do not exceed."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def _transits(arrange: Callable[[], AbstractContextManager[Arrangement]], seconds: float) -> list[float]:
    with arrange() as arrangement:
        lab = arrangement.lab
        place_calls(lab, WARM_UP, RATE).check()
        links = [Link(lab.gateway, interface) for interface in (INSIDE, OUTSIDE)]
        calls = round(seconds * RATE)
        place_calls(lab, calls, RATE).check()
        found = transits(*(link.close() for link in links))
        if len(found) < MESSAGES * calls:
            raise LabError(f"only {len(found)} messages of {calls} calls were seen on both links")
        return found
