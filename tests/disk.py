"""A state file on a real disk that is full, or can only be read: a tmpfs of half a megabyte, in a mount
namespace of its own.

    unshare --mount --propagation private python -m tests.disk SCENARIO FOLDER

prints what was seen as one JSON object; :mod:`tests.test_store_disk` runs it.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from natfix.reports import Change
from natfix.store import Store

SIZE = 524288
PATIENCE = 20.0     # seconds; a commit that failed is tried again each second


class Disk:
    """The tmpfs, and the state file on it."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.path = str(self.folder / "state.sqlite")
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder], check=True)

    def fill(self) -> None:
        with (self.folder / "full").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass

    def free(self) -> None:
        (self.folder / "full").unlink()

    def remount(self, mode: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{mode}", str(self.folder)], check=True)


def rows(first: int, last: int) -> list[Change]:
    """Return rows of a kilobyte each."""
    return [Change("calls", f"{number:04}", {"filler": "x" * 1000}) for number in range(first, last)]


def keys(store: Store) -> list[str]:
    return [change.key for change in store.load()]


def wait(condition: Callable[[], object]) -> bool:
    until = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
    return bool(condition())


def once_it_is_over(disk: Disk, store: Store) -> dict[str, Any]:
    """Wait until all is written, end, and return what a next start finds."""
    is_over = wait(lambda: not store.problem and not store._pending)
    store.close()
    return {"is_over": is_over, "keys": keys(Store(disk.path))}


def full_while_it_runs(disk: Disk) -> dict[str, Any]:
    """Fill the disk, change rows, free it again; then start anew."""
    store = Store(disk.path)
    store.put(rows(0, 10))
    written = wait(lambda: not store._pending)
    disk.fill()
    began = time.thread_time()
    store.put(rows(10, 60))
    took = time.thread_time() - began
    seen: dict[str, Any] = {
        "written": written, "took": took, "complains": wait(lambda: store.problem), "problem": store.problem}
    store.put([Change("calls", "0003", None), Change("calls", "0059", None)])
    disk.free()
    return seen | once_it_is_over(disk, store)


def full_at_the_start(disk: Disk) -> dict[str, Any]:
    """Start on a full disk that has a state file of before; change it; free the disk."""
    store = Store(disk.path)
    store.put(rows(0, 10))
    store.close()
    disk.fill()
    store = Store(disk.path)
    seen: dict[str, Any] = {"known": keys(store)}
    store.put(rows(10, 60))
    seen |= {"complains": wait(lambda: store.problem), "problem": store.problem}
    disk.free()
    return seen | once_it_is_over(disk, store)


def full_at_the_first_start(disk: Disk) -> dict[str, Any]:
    """Start on a full disk without a state file; change rows; free the disk."""
    disk.fill()
    store = Store(disk.path)
    seen: dict[str, Any] = {"known": keys(store), "problem": store.problem}
    store.put(rows(0, 10))
    disk.free()
    return seen | once_it_is_over(disk, store)


def read_only(disk: Disk) -> dict[str, Any]:
    """Start where the disk can only be read; then it can be written, and then no more."""
    store = Store(disk.path)
    store.put(rows(0, 10))
    store.close()
    disk.remount("ro")
    store = Store(disk.path)
    seen: dict[str, Any] = {"known": keys(store), "problem": store.problem}
    store.put([*rows(10, 20), Change("calls", "0003", None)])
    disk.remount("rw")
    return seen | once_it_is_over(disk, store)


def closed_while_it_is_full(disk: Disk) -> dict[str, Any]:
    """End while the disk is full: what was written before is there, and the rest is said to be lost."""
    store = Store(disk.path)
    store.put(rows(0, 10))
    wait(lambda: not store._pending)
    disk.fill()
    store.put(rows(10, 60))
    wait(lambda: store.problem)
    store.close()
    disk.free()
    return {"keys": keys(Store(disk.path))}


SCENARIOS = {scenario.__name__: scenario for scenario in (
    full_while_it_runs, full_at_the_start, full_at_the_first_start, read_only, closed_while_it_is_full)}


def main() -> None:
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO, stream=sys.stderr)
    print(json.dumps(SCENARIOS[sys.argv[1]](Disk(sys.argv[2]))))


if __name__ == "__main__":
    main()
