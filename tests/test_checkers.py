"""The linter and the type checker are part of the suite: what they find is a failing test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("command", ["ruff check --no-cache .", "mypy natfix"])
def test_checkers_find_nothing(command: str) -> None:
    """ruff on everything, mypy in strict mode on the package (the configuration is in pyproject.toml)."""
    name, *arguments = command.split()
    pytest.importorskip(name, reason=f"{name} is not installed (pip install '.[test]')")
    done = subprocess.run([sys.executable, "-m", name, *arguments], cwd=PROJECT, text=True,
                          capture_output=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
