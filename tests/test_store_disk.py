"""The state file on a disk that is full or can only be read: real ones (:mod:`tests.disk`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).parents[1]


def keys(first: int, last: int, but: tuple[int, ...] = ()) -> list[str]:
    return [f"{number:04}" for number in range(first, last) if number not in but]


def play(scenario: str, folder: Path) -> tuple[dict[str, Any], str]:
    """Return what was seen, and the log."""
    if os.geteuid():
        pytest.skip("not root: a mount namespace is made")
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", sys.executable, "-m", "tests.disk", scenario,
         str(folder)], cwd=PROJECT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def test_full_while_it_runs(tmp_path: Path) -> None:
    """Nobody waits for it, it is said once and when it is over, and nothing is missing then."""
    seen, log = play("full_while_it_runs", tmp_path)
    assert seen["written"]
    assert seen["complains"]
    assert "full" in seen["problem"]
    assert seen["took"] < 0.02, "put() waited for the disk"
    assert seen["is_over"]
    assert seen["keys"] == keys(0, 59, but=(3,))
    assert log.count("ERROR cannot write state file") == 1
    assert log.count("is written again; nothing is missing") == 1


def test_full_at_the_start(tmp_path: Path) -> None:
    """What was written before is read, and what is new is written once there is room."""
    seen, log = play("full_at_the_start", tmp_path)
    assert seen["known"] == keys(0, 10)
    assert seen["complains"]
    assert seen["is_over"]
    assert seen["keys"] == keys(0, 60)
    assert log.count("ERROR cannot write state file") == 1


def test_full_at_the_first_start(tmp_path: Path) -> None:
    """natfix starts without a file, says so, and makes it when it can."""
    seen, log = play("full_at_the_first_start", tmp_path)
    assert seen["known"] == []
    assert "cannot be written" in seen["problem"]
    assert seen["is_over"]
    assert seen["keys"] == keys(0, 10)
    assert log.count("ERROR cannot write state file") == 1


def test_a_disk_that_can_only_be_read(tmp_path: Path) -> None:
    """As after an error of the disk: rows of before are read, and written on when that is possible again."""
    seen, log = play("read_only", tmp_path)
    assert seen["known"] == keys(0, 10)
    assert "ead-only file system" in seen["problem"]
    assert seen["is_over"]
    assert seen["keys"] == keys(0, 20, but=(3,))
    assert log.count("ERROR cannot write state file") == 1


def test_closed_while_it_is_full(tmp_path: Path) -> None:
    """The end does not wait for room: what was written is whole, what is lost is counted."""
    seen, log = play("closed_while_it_is_full", tmp_path)
    assert seen["keys"] == keys(0, 10)
    assert "50 changes could not be written" in log
