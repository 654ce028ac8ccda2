"""tools/compare: the scenarios through masquerade, the kernel's helper, a proxy with a relay, and natfix."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tests.compare.cell import WORKS, Cell, cell_from_json, not_played
from tests.compare.parts import TITLES
from tests.compare.table import (
    Invalid,
    check,
    document_from_cells,
    section_from_cells,
    table_from_cells,
    write_section,
)
from tests.compare.worlds import WORLDS
from tests.lab import leftovers
from tests.lab.host import PROJECT

TIME_LIMIT = 400.0  # seconds for one cell; the longest take 100 where all their parts are played twice
JOBS = 3  # most of a cell is waiting for audio


class Runner:
    """Plays cells, each in a process of its own, a few at a time."""

    def __init__(self, jobs: int) -> None:
        self._pool = ThreadPoolExecutor(jobs)
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._stopping = False

    def play(self, wanted: Sequence[tuple[str, int]]) -> list[Cell]:
        """Play (world, scenario) pairs and return their cells; tells of each as it is done."""
        futures = [self._pool.submit(self.play_one, *pair) for pair in wanted]
        try:
            return [future.result() for future in as_completed(futures)]
        except BaseException:
            self.stop()
            raise

    def play_one(self, world: str, scenario: int, *name: str) -> Cell:
        """Play one cell (only its part *name*) and return it.

        Raises Invalid where that comes to nothing; what the machine lacks for a world is its cell's evidence.
        """
        if lacking := WORLDS[world].lacking():
            return not_played(world, scenario, lacking)
        command = [sys.executable, "-m", "tests.compare.cell", world, str(scenario), *name]
        with self._lock:
            if self._stopping:
                raise Invalid("interrupted")
            # A session of its own: Ctrl-C reaches it by stop(), once; its lab is taken down in peace.
            process = subprocess.Popen(
                command,
                cwd=PROJECT,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
            self._running.add(process)
        try:
            printed, errors = process.communicate(timeout=TIME_LIMIT)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            printed, errors = process.communicate()
        self._running.discard(process)
        if not printed:
            raise Invalid(
                f"scenario {scenario} with {WORLDS[world].title} could not be played: "
                f"{errors.strip()[-1000:] or f'exit {process.returncode}'}"
            )
        cell = cell_from_json(json.loads(printed))
        say(f"{scenario:2} {WORLDS[world].title:20} {cell.verdict:5}  {cell.evidence}")
        return cell

    def stop(self) -> None:
        """Interrupt what runs, and wait until its labs are gone."""
        with self._lock:
            self._stopping = True
            for process in self._running:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGINT)
        self._pool.shutdown(cancel_futures=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; 0 where it is valid, 1 where it is not, 130 when interrupted."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.write and (set(options.scenarios), set(options.worlds)) != (set(TITLES), set(WORLDS)):
        parser.error("--write takes the whole table: without --scenarios and --worlds")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.default_int_handler)
    leftovers.sweep()
    start = time.monotonic()
    wanted = [(world, scenario) for scenario in options.scenarios for world in options.worlds]
    try:
        cells = Runner(options.jobs).play(wanted)
    except KeyboardInterrupt:
        say("interrupted; everything is removed")
        return 130
    except Invalid as problem:
        say(f"compare: {problem}")
        return 1
    return report(cells, options, time.monotonic() - start)


def report(cells: list[Cell], options: argparse.Namespace, seconds: float) -> int:
    """Print the table, write what is asked for, and return the exit code."""
    say("\n" + table_from_cells(cells))
    caller = Path(os.environ.get("NATFIX_CALLER", "."))
    if options.json:
        document = document_from_cells(cells, seconds)
        Path(caller, options.json).write_text(json.dumps(document, indent=2) + "\n")
    try:
        check(cells)
        if options.write:
            write_section(PROJECT / "README.md", section_from_cells(cells))
    except Invalid as problem:
        say(f"\ncompare: the run is invalid: {problem}")
        return 1
    count = sum(cell.verdict == WORKS for cell in cells)
    late = sum(bool(cell.at_second_try) for cell in cells)
    say(f"\ncompare: {count} of {len(cells)} cells work, {late} at the second try; {seconds:.0f} s")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tools/compare", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the table into README.md")
    parser.add_argument("--json", metavar="FILE", help="write all parts, with what decided them, to FILE")
    parser.add_argument(
        "--jobs", type=int, default=JOBS, help="how many labs at a time (default: %(default)s)"
    )
    parser.add_argument(
        "--scenarios",
        type=_numbers,
        default=list(TITLES),
        metavar="N,N-N",
        help="only these (0, the control, is always played)",
    )
    parser.add_argument(
        "--worlds",
        type=_worlds,
        default=list(WORLDS),
        metavar="NAME,NAME",
        help=f"only these of {','.join(WORLDS)}; valid are runs with both peers",
    )
    return parser


def _numbers(text: str) -> list[int]:
    found = {0}
    for word in text.split(","):
        first, _, last = word.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    if unknown := found - set(TITLES):
        raise argparse.ArgumentTypeError(f"there is no scenario {min(unknown)}")
    return sorted(found)


def _worlds(text: str) -> list[str]:
    words = text.split(",")
    if unknown := set(words) - set(WORLDS):
        raise argparse.ArgumentTypeError(f"{unknown.pop()} is none of {', '.join(WORLDS)}")
    return words


def say(text: str) -> None:
    """Print a line at once, also into a pipe."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
