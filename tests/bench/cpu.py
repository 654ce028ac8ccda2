"""CPU per call: natfix, Kamailio with rtpengine, and a queue that only accepts, in turns."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from statistics import median

from tests.bench.arrangements import (
    Arrangement,
    MeasuredNatfix,
    masquerade,
    with_accept_only,
    with_kamailio,
    with_natfix,
)
from tests.bench.load import place_calls
from tests.bench.processor import cpu_seconds
from tests.bench.report import Results

RATE = 100              # calls per second; what a call costs depends on it, for all of them alike
WARM_UP = 50            # calls
PEERS: dict[str, Callable[[], AbstractContextManager[Arrangement]]] = {
    "natfix_us": with_natfix,
    "kamailio_rtpengine_us": with_kamailio,
    "queue_accept_only_us": with_accept_only,
}
# The rest is what the loop, the journal and the store need, and waiting.
STAGES = {"queue": "queue_us", "engine": "engine_us", "kernel": "kernel_commands_us"}


def measure(calls: int, rounds: int) -> Results:
    """Return microseconds of CPU per call, the ratios, natfix's budget, and its profile.

    *calls* are placed in *rounds* portions, each with every peer; the medians count.
    """
    found = [{name: _per_call(name, calls // rounds) for name in PEERS} for _ in range(rounds)]
    spent = {name: median(row[name] for row in found) for name in PEERS}
    stages = _measured("stages", calls // rounds)
    per_call: Results = {name: round(value) for name, value in spent.items()}
    per_call["natfix_over_kamailio_rtpengine"] = round(spent["natfix_us"] / spent["kamailio_rtpengine_us"], 3)
    per_call["natfix_over_queue_accept_only"] = round(spent["natfix_us"] / spent["queue_accept_only_us"], 2)
    per_call["budget"] = _budget(stages["seconds"], stages["whole"], spent["natfix_us"])
    profile = _measured("profile", calls // rounds)["profile"]
    return {"cpu_per_call": per_call, "profiles": {"daemon": profile}}


def _per_call(name: str, calls: int) -> float:
    """Return the microseconds of CPU that the gateway's programs use for a call through peer *name*."""
    with PEERS[name]() as arrangement:
        lab, to = arrangement.lab, arrangement.to
        place_calls(lab, WARM_UP, RATE, to=to).check(name)
        before = cpu_seconds(arrangement.processes)
        place_calls(lab, calls, RATE, to=to).check(name)
        return (cpu_seconds(arrangement.processes) - before) / calls * 1e6


def _budget(seconds: dict[str, float], whole: float, per_call: float) -> Results:
    """Return the stages' shares of *per_call*: the clocks themselves cost something in that run."""
    budget = {name: round(seconds[stage] / whole * per_call) for stage, name in STAGES.items()}
    return {**budget, "rest_us": round(per_call) - sum(budget.values())}


def _measured(kind: str, calls: int) -> Results:
    """Return what tests/bench/measured_natfix.py says of *calls* calls."""
    with masquerade() as arrangement:
        natfix = MeasuredNatfix(arrangement.lab, kind)
        natfix.start()
        place_calls(arrangement.lab, calls, RATE).check()
        natfix.stop()
        return natfix.results()
