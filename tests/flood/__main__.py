"""The program behind tools/flood: all of it, in full size."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from tests.flood.neighbours import Neighbours
from tests.flood.queue import Wire, odd_packets
from tests.lab.host import LabError
from tests.lab.lab import Lab

RATE = 500              # messages a second through the queue
FLOOD = 1000            # requests a second of one host
JUNK = 20_000           # packets a second of one host that begin nothing
QUIET = 2.0             # processes that want to run: beyond, delays tell more of others than of natfix
CALLS = 50              # calls a second beside it
SETTLED = 0.4           # of the messages; then memory has its tables, and stays
PATIENCE = 420.0        # seconds from the last message until nothing is left: unanswered calls take 200


def main() -> int:
    """Measure, print, and return 1 where something is not as it should be."""
    parser = argparse.ArgumentParser(prog="tools/flood", description=__doc__)
    parser.add_argument("--messages", type=int, default=100_000, metavar="N", help="broken messages (100000)")
    parser.add_argument("--rate", type=float, default=RATE, help=f"of them a second ({RATE})")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each flood of requests (20)")
    parser.add_argument("--seed", type=int, default=1, help="other messages (1)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    say("floods beside calls")
    results: dict[str, Any] = {"load_before": round(os.getloadavg()[0], 2)}
    results["neighbours"] = beside(options.seconds) if options.seconds else []
    say(f"{options.messages} broken messages")
    results["queue"] = broken(options.messages, options.rate, options.seed) if options.messages else {}
    results["load_after"] = round(os.getloadavg()[0], 2)
    if options.json:
        print(json.dumps(results, indent=2))
    else:
        print("\n".join(lines(results)))
    queue = results["queue"]
    return int(bool(queue.get("problems")) or (bool(queue) and queue["gone_after_s"] is None) or any(
        row["success"] < 99.9 or row["errors"] for row in results["neighbours"]))


def beside(seconds: float) -> list[dict[str, Any]]:
    """Return a row for the calls without a flood, and one for those beside each flood."""
    with Lab(accounting=False) as lab:
        beside = Neighbours(lab)
        rows = [
            beside.calm(seconds, CALLS),
            beside.beside_inside_flood("INVITE", FLOOD, seconds, CALLS),
            beside.beside_outside_flood("REGISTER", FLOOD, seconds, CALLS),
            beside.beside_outside_flood("OPTIONS", FLOOD, seconds, CALLS),
            beside.beside_outside_flood("INVITE", FLOOD, seconds, CALLS),
            beside.beside_inside_flood("JUNK", JUNK, seconds, CALLS),
            beside.beside_outside_flood("JUNK", JUNK, seconds, CALLS),
        ]
    return [{**row._asdict(), "success": round(row.success, 3)} for row in rows]


def broken(count: int, rate: float, seed: int) -> dict[str, Any]:
    """Return what became of *count* broken messages, and of natfix."""
    with Lab() as lab:
        wire = Wire(lab)
        found = wire.run(count, rate, seed)
        before = wire.counts()
        odd = odd_packets(lab, count // 100, seed)
        left = wire.left_over()
        say(f"waiting for {dict(left)} to go")
        seconds = time_to_rest(wire)
        after = wire.counts()
        after.subtract(before)
    settled = found.memory[int(SETTLED * len(found.memory))]
    return {
        "sent": found.sent, "arrived": found.arrived, "untouched": found.untouched,
        "kinds": dict(found.kinds), "natfix": dict(found.shell), "problems": found.problems(),
        "delay_ms": {f"p{percent:g}": round(found.delay(percent), 3) for percent in (50, 99, 99.9, 100)},
        "delays": len(found.delays), "memory_mb": {"settled": settled, "end": found.memory[-1],
                                                   "rounds": [round(each, 1) for each in found.memory]},
        "odd_packets": odd, "odd_seen": after["packets"], "errors_after": after["errors"],
        "left_at_end": dict(left), "gone_after_s": seconds,
    }


def time_to_rest(wire: Wire) -> float | None:
    """Return the seconds until the kernel holds nothing of natfix's any more, None where it still does."""
    try:
        return round(wire.wait_for_nothing(PATIENCE), 1)
    except LabError as problem:
        say(str(problem))
        return None


def lines(results: dict[str, Any]) -> list[str]:
    """Return the figures for people."""
    found = [f"{row['what']:22} {row['flooded']:6} sent, {row['dropped']:6} over the rate; "
             f"{row['calls']} calls: {row['success']} % came about, {row['retransmissions']} repeated; "
             f"p50 {row['p50']} p99 {row['p99']} longest {row['longest']} ms; CPU {100 * row['cpu']:.0f} %"
             for row in results["neighbours"]]
    found += [f"{name:22} {value}" for name, value in results["queue"].items()]
    load = results["load_before"], results["load_after"]
    noisy = ": the machine was not quiet, its delays are not natfix's alone" if max(load) > QUIET + 1 else ""
    return [*found, f"{'load':22} {load[0]} before, {load[1]} after{noisy}"]


def say(text: str) -> None:
    """Tell what goes on, on standard error."""
    print(f"tools/flood: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
