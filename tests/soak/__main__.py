"""The program behind tools/soak: an hour of calls through the real daemon, in the lab."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tests.lab.lab import Lab
from tests.soak.soak import PHONES, Size, soak
from tests.soak.watch import Sample

HEAD = ("time_s  live  natfix  reg  natfix  media_in  media_ct  sip_map  sip_ct  rss_MB  fds  threads  cpu_s"
        "  problems")


def main() -> int:
    """Run, print, and return 1 where something is not as it should be."""
    parser = argparse.ArgumentParser(prog="tools/soak", description=__doc__)
    parser.add_argument("--rate", type=float, default=20.0, help="calls a second (20)")
    parser.add_argument("--minutes", type=float, default=60.0, help="so long (60)")
    parser.add_argument("--every", type=float, default=10.0, metavar="SECONDS",
                        help="between two samples (10)")
    parser.add_argument("--guests", type=int, default=60, help="phones that come and go (60)")
    parser.add_argument("--seed", type=int, default=1, help="other calls (1)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the JSON there as well")
    options = parser.parse_args()
    say = _to_stderr if options.json else _to_stdout
    say(HEAD)
    with Lab(phones=len(PHONES)) as lab:
        size = Size(options.rate, 60 * options.minutes, options.every, options.guests, options.seed)
        outcome = soak(lab, size, lambda sample: say(row(sample)))
    found = json.dumps(outcome.as_json(), indent=1)
    if options.output:
        options.output.write_text(found)
    if options.json:
        print(found)
    else:
        print(", ".join(f"{count} {name}" for name, count in outcome.counts.items()))
        print(f"nothing was left {outcome.rest:.0f} s after the last call" if not outcome.left else "")
        print("\n".join(outcome.problems()) or "all as it should be")
    return int(bool(outcome.problems()))


def row(sample: Sample) -> str:
    """Return one line of the table."""
    return (f"{sample.at:6.0f} {sample.live:5} {sample.calls:7} {sample.registered:4} "
            f"{sample.registrations:7} {sample.elements.get('media_in', 0):9} {sample.media_entries:9} "
            f"{sample.elements.get('signalling_out', 0):8} {sample.signalling_entries:7} "
            f"{sample.rss_mb:7.1f} {sample.descriptors:4} {sample.threads:8} {sample.cpu_s:6.1f}"
            f"  {'; '.join(sample.problems)}")


def _to_stdout(text: str) -> None:
    print(text, flush=True)


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
