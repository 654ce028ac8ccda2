"""natfix as it is run, with a clock around its stages or its turns, or under the profiler.

    measured_natfix.py OUTPUT stages|turns|profile natfix-arguments...

At its end the daemon writes OUTPUT, JSON. Of "stages" and "profile" only the shares count: the clocks cost
something themselves.
"""

from __future__ import annotations

import functools
import json
import selectors
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from natfix import background, cli, live, loop, queue_reader, store, upkeep
from natfix.engine import Engine
from natfix.kernel.netfilter import NetfilterKernel

STAGES = (
    ("queue", queue_reader.NetfilterQueueReader, "read"),
    ("queue", queue_reader._QueuedPacket, "accept"),
    ("queue", queue_reader._QueuedPacket, "drop"),
    ("engine", Engine, "receive_packet"),
    ("engine", Engine, "handle_report"),
    ("engine", Engine, "handle_timer"),
    ("engine", Engine, "pop_changes"),
    ("kernel", NetfilterKernel, "apply"),
)
# What the loop does in a turn, as "turns" names it; what is inside of another part counts for both.
PARTS: dict[Any, tuple[str, ...]] = {
    live: ("tidy_up",),
    Engine: ("handle_timer", "pop_changes"),
    store.Store: ("put",),
    loop.Loop: ("_packets_wait", "_save", "_time_is_up", "_apply", "_tell", "repair", "restore_rules"),
    upkeep.Upkeep: ("_on_rules", "_on_starts", "_on_ends", "_tell_ended", "_count", "_look_at_ports",
                    "_tell_ports", "_look_at_links"),
    background.Background: ("deliver",),
}
NOTABLE = 0.0005        # seconds of a turn that is written down


class Stopwatch:
    """CPU time of the loop's thread, by stage."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}

    def around(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return *function* with this watch around it."""
        @functools.wraps(function)
        def timed(*arguments: Any, **named: Any) -> Any:
            began = time.thread_time()
            try:
                return function(*arguments, **named)
            finally:
                self.spent[stage] = self.spent.get(stage, 0.0) + time.thread_time() - began
        return timed


class TurnTimer(selectors.DefaultSelector):     # type: ignore[valid-type, misc]
    """A selector that writes down how long the loop stays away from it, and for which of its parts."""

    turns: list[dict[str, Any]] = []        # noqa: RUF012
    watch = Stopwatch()

    def select(self, timeout: float | None = None) -> Any:
        now, used = time.time(), time.thread_time()
        if (began := getattr(self, "began", None)) is not None and now - began[0] > NOTABLE:
            self.turns.append({
                "at": began[0], "ms": 1000 * (now - began[0]), "cpu_ms": 1000 * (used - began[1]),
                "parts": {part: round(1000 * seconds, 2) for part, seconds in self.watch.spent.items()}})
        self.watch.spent.clear()
        found = super().select(timeout)
        self.began = (time.time(), time.thread_time())
        return found


def run_with_stages(arguments: list[str]) -> tuple[int, Any]:
    """Run natfix with a clock around each stage."""
    watch = Stopwatch()
    for stage, owner, name in STAGES:
        setattr(owner, name, watch.around(stage, getattr(owner, name)))
    run = loop.Loop.run
    loop.Loop.run = watch.around("whole", run)      # type: ignore[method-assign]
    code = cli.main(arguments)
    return code, {"whole": watch.spent.pop("whole"), "seconds": watch.spent}


def run_with_turns(arguments: list[str]) -> tuple[int, Any]:
    """Run natfix and write down every turn of its loop that takes long."""
    for owner, names in PARTS.items():
        for name in names:
            setattr(owner, name, TurnTimer.watch.around(name, getattr(owner, name)))
    selectors.DefaultSelector = TurnTimer       # type: ignore[misc]
    return cli.main(arguments), {"turns": TurnTimer.turns}


def run_profiled(arguments: list[str]) -> tuple[int, Any]:
    """Run natfix under cProfile, which sees the loop's thread only."""
    # Here, so that "turns" has no more in memory than natfix itself.
    import cProfile

    from tests.bench.hot_spots import top_lines
    profile = cProfile.Profile()
    run = loop.Loop.run
    loop.Loop.run = lambda self: profile.runcall(run, self)     # type: ignore[method-assign]
    return cli.main(arguments), {"profile": top_lines(profile)}


KINDS = {"stages": run_with_stages, "turns": run_with_turns, "profile": run_profiled}

if __name__ == "__main__":
    exit_code, found = KINDS[sys.argv[2]](sys.argv[3:])
    Path(sys.argv[1]).write_text(json.dumps(found))
    sys.exit(exit_code)
