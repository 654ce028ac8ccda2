"""natfix as it is run, with a clock around its stages or its turns, or under the profiler.

    measured_natfix.py OUTPUT stages|turns|profile natfix-arguments...

At its end the daemon writes OUTPUT, JSON. Of "stages" and "profile" only the shares count: the clocks cost
something themselves.
"""

from __future__ import annotations

import cProfile
import functools
import json
import selectors
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from natfix import cli, loop, queue_reader
from natfix.engine import Engine
from natfix.kernel.netfilter import NetfilterKernel
from tests.bench.hot_spots import top_lines

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
    """A selector that writes down how long the loop stays away from it."""

    turns: list[tuple[float, float, float]] = []     # noqa: RUF012  (when, seconds, seconds of CPU)

    def select(self, timeout: float | None = None) -> Any:
        now, used = time.time(), time.thread_time()
        if (began := getattr(self, "began", None)) is not None and now - began[0] > NOTABLE:
            self.turns.append((began[0], now - began[0], used - began[1]))
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
    selectors.DefaultSelector = TurnTimer       # type: ignore[misc]
    return cli.main(arguments), {"turns": TurnTimer.turns}


def run_profiled(arguments: list[str]) -> tuple[int, Any]:
    """Run natfix under cProfile, which sees the loop's thread only."""
    profile = cProfile.Profile()
    run = loop.Loop.run
    loop.Loop.run = lambda self: profile.runcall(run, self)     # type: ignore[method-assign]
    return cli.main(arguments), {"profile": top_lines(profile)}


KINDS = {"stages": run_with_stages, "turns": run_with_turns, "profile": run_profiled}

if __name__ == "__main__":
    exit_code, found = KINDS[sys.argv[2]](sys.argv[3:])
    Path(sys.argv[1]).write_text(json.dumps(found))
    sys.exit(exit_code)
