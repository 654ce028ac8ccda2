"""tools/bench: what natfix costs, beside its peers in the same run."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.bench import cpu, crowded, engine_alone, keeping, latency, replaying, responsive, rtp, sustained
from tests.bench.report import PROFILES, Results, heading, missed, section, surroundings, table, write_json
from tests.lab import leftovers
from tests.readme import write_section

Measure = Callable[[], Results]


class Section(NamedTuple):
    """One part of the bench: what is measured, in full and ``--quick``."""

    what: str
    whole: Measure
    quick: Measure


SECTIONS = {
    "engine": Section("the engine alone",
                      lambda: engine_alone.measure(2000), lambda: engine_alone.measure(300)),
    "keeping": Section("far NATs kept open, the engine alone",
                       lambda: keeping.measure(10_000, 100), lambda: keeping.measure(10_000, 30)),
    "cpu": Section("CPU per call: natfix, Kamailio + rtpengine, a queue that only accepts",
                   lambda: cpu.measure(2000, 4), lambda: cpu.measure(400, 2)),
    "latency": Section("latency at 500 messages a second",
                       lambda: latency.measure(30.0), lambda: latency.measure(8.0)),
    "rate": Section("calls per second", lambda: sustained.measure(60.0), lambda: sustained.measure(8.0)),
    "crowd": Section("10,000 calls and 50,000 registrations",
                     lambda: crowded.measure(10_000, 50_000, 20, 60.0),
                     lambda: crowded.measure(10_000, 50_000, 6, 10.0)),
    "rtp": Section("RTP packet rates, natfix and masquerade in turns",
                   lambda: {"rtp": rtp.measure_rates(30, 1.0)}, lambda: {"rtp": rtp.measure_rates(7, 0.5)}),
    "streams": Section("natfix while RTP streams run",
                       lambda: {"rtp": rtp.measure_streams(60.0)},
                       lambda: {"rtp": rtp.measure_streams(25.0)}),
    "nft": Section("nft beside 100 calls a second",
                   lambda: responsive.measure(30.0), lambda: responsive.measure(8.0)),
    "replay": Section("natfix-replay on large captures",
                      lambda: replaying.measure(100_000, 1.0), lambda: replaying.measure(10_000, 0.05)),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench; 0 where everything was measured, whatever comes of it, 1 where not, 130 interrupted."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.write and not options.read and (options.quick or options.only):
        parser.error("--write takes the whole bench: without --quick and --only")
    caller = Path(os.environ.get("NATFIX_CALLER", "."))
    if options.read:
        results = json.loads((caller / options.read).read_text())
    else:
        results = {**surroundings(), "quick": options.quick, "seconds": 0, "profiles": {},
                   "failures": [], "problems": {}}
        if not _measure(options.only or list(SECTIONS), results,
                        caller / options.json if options.json else None):
            return 130
    _say("\n" + table(results))
    _explain(results)
    if results["problems"]:
        return 1
    if options.write:
        write_section("tools/bench", section(results))
    return 0


def _measure(names: Sequence[str], results: Results, output: Path | None) -> bool:
    """Run the sections called *names* and write *output* after each; False where somebody interrupted it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.default_int_handler)
    leftovers.sweep()
    _say(heading(results))
    began = time.monotonic()
    try:
        for name in names:
            _run(name, results["quick"], results)
            results["seconds"] = round(time.monotonic() - began)
            if output:
                write_json(output, results)
    except KeyboardInterrupt:
        _say("interrupted; everything is removed")
        return False
    return True


def _run(name: str, quick: bool, results: Results) -> None:
    """Measure one section and add what it found; a section that fails twice is a problem, not the end."""
    part = SECTIONS[name]
    began = time.monotonic()
    _say(f"{name}: {part.what} ...", end=" ")
    found: Results = {}
    for is_last in (False, True):
        try:
            found = part.quick() if quick else part.whole()
            break
        except Exception as problem:
            _say(f"FAILED: {problem}")
            results["failures"].append(f"{name}: {type(problem).__name__}: {problem}")
            if is_last:
                results["problems"][name] = traceback.format_exc()
                _say(traceback.format_exc())
                return
    for key, value in found.items():
        results[key] = {**results[key], **value} if isinstance(results.get(key), dict) else value
    _say(f"{time.monotonic() - began:.0f} s")


def _explain(results: Results) -> None:
    """Print the profiles behind figures that miss the mark."""
    keys = [row.key for row in missed(results)]
    for profile, about in PROFILES.items():
        if profile in results["profiles"] and any(key.startswith(about) for key in keys):
            _say(f"\nwhere the time goes, {profile}:")
            _say("\n".join(results["profiles"][profile]))


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in SECTIONS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(SECTIONS)}")
    return names


def _say(text: str, end: str = "\n") -> None:
    sys.stdout.write(text + end)
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tools/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter runs: minutes, and rougher figures")
    parser.add_argument("--json", metavar="FILE", help="write all figures to FILE as well")
    parser.add_argument("--only", metavar="NAMES", type=_names,
                        help=f"only these parts, with commas: {', '.join(SECTIONS)}")
    parser.add_argument("--from", metavar="FILE", dest="read",
                        help="measure nothing: take the figures of FILE")
    parser.add_argument("--write", action="store_true", help="write the table into README.md")
    return parser


if __name__ == "__main__":
    sys.exit(main())
