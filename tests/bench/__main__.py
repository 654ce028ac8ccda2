"""tools/bench: what natfix costs, beside its peers in the same run."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.bench import cpu, crowded, engine_alone, latency, responsive, rtp, sustained
from tests.bench.report import Results, heading, missed, surroundings, table, write_json
from tests.lab import leftovers

Measure = Callable[[], Results]


class Section(NamedTuple):
    """One part of the bench: what is measured, in full and ``--quick``."""

    what: str
    whole: Measure
    quick: Measure


SECTIONS = {
    "engine": Section("the engine alone",
                      lambda: engine_alone.measure(2000), lambda: engine_alone.measure(300)),
    "cpu": Section("CPU per call: natfix, Kamailio + rtpengine, a queue that only accepts",
                   lambda: cpu.measure(2000), lambda: cpu.measure(400)),
    "latency": Section("latency at 500 messages a second",
                       lambda: latency.measure(30.0), lambda: latency.measure(8.0)),
    "rate": Section("calls per second", lambda: sustained.measure(60.0), lambda: sustained.measure(8.0)),
    "crowd": Section("10,000 calls and 50,000 registrations",
                     lambda: crowded.measure(10_000, 50_000, 20, 60.0),
                     lambda: crowded.measure(10_000, 50_000, 6, 10.0)),
    "rtp": Section("RTP packet rates, natfix and masquerade in turns",
                   lambda: {"rtp": rtp.measure_rates(30, 1.0)}, lambda: {"rtp": rtp.measure_rates(7, 0.5)}),
    "streams": Section("natfix while RTP streams run",
                       lambda: {"rtp": rtp.measure_streams(60.0)}, lambda: {"rtp": rtp.measure_streams(25.0)}),
    "nft": Section("nft beside 100 calls a second",
                   lambda: responsive.measure(30.0), lambda: responsive.measure(8.0)),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench; 0 where every figure was measured, whatever it is, 1 where one was not, 130 interrupted."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.default_int_handler)
    leftovers.sweep()
    names = options.only.split(",") if options.only else list(SECTIONS)
    results: Results = {**surroundings(), "quick": options.quick, "profiles": {}, "problems": {}}
    _say(heading(results))
    try:
        for name in names:
            _run(name, options.quick, results)
    except KeyboardInterrupt:
        _say("interrupted; everything is removed")
        return 130
    finally:
        if options.json:
            write_json(Path(os.environ.get("NATFIX_CALLER", "."), options.json), results)
    _say("\n" + table(results))
    _explain(results)
    return 1 if results["problems"] else 0


def _run(name: str, quick: bool, results: Results) -> None:
    """Measure one section and add what it found; a section that fails is a problem, not the end."""
    section = SECTIONS[name]
    began = time.monotonic()
    _say(f"{name}: {section.what} ...", end=" ")
    try:
        found = section.quick() if quick else section.whole()
    except Exception as problem:
        results["problems"][name] = f"{type(problem).__name__}: {problem}"
        _say(f"FAILED: {problem}\n{traceback.format_exc()}")
        return
    for key, value in found.items():
        results[key] = {**results[key], **value} if isinstance(results.get(key), dict) else value
    _say(f"{time.monotonic() - began:.0f} s")


def _explain(results: Results) -> None:
    """Print the profiles behind figures that miss the mark."""
    keys = [row.key for row in missed(results)]
    for profile, about in (("engine", "engine_us"), ("daemon", "cpu_per_call")):
        if profile in results["profiles"] and any(key.startswith(about) for key in keys):
            _say(f"\nwhere the time goes, {profile}:")
            _say("\n".join(results["profiles"][profile]))


def _say(text: str, end: str = "\n") -> None:
    sys.stdout.write(text + end)
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tools/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter runs: minutes, and rougher figures")
    parser.add_argument("--json", metavar="FILE", help="write all figures to FILE as well")
    parser.add_argument("--only", metavar="NAMES", default="",
                        help=f"only these parts, with commas: {', '.join(SECTIONS)}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
