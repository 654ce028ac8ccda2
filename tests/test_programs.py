"""Programs of the system: what they print, and one sentence where they cannot."""

from __future__ import annotations

import pytest

from natfix import programs
from natfix.errors import KernelRefused, NatfixError, NotPermitted
from natfix.programs import is_installed, output_of


def test_output_is_returned() -> None:
    """What a program prints comes back as text."""
    assert output_of("echo", "one", "two") == "one two\n"


def test_absent_program_names_its_package() -> None:
    """A missing program is an error that says what to install."""
    programs.PACKAGES["no-such-program"] = "some-package"
    with pytest.raises(KernelRefused, match="no-such-program is missing: apt install some-package"):
        output_of("no-such-program")
    assert not is_installed("no-such-program")


def test_failure_shows_the_programs_own_words() -> None:
    """A program that fails is quoted, first line only, together with the command."""
    with pytest.raises(NatfixError, match=r"^`sh -c echo first.*` failed: first$"):
        output_of("sh", "-c", "echo first >&2; echo second >&2; exit 3")


def test_missing_right_is_told_apart() -> None:
    """EPERM from below becomes the error that says to run as root."""
    with pytest.raises(NotPermitted, match="run as root"):
        output_of("sh", "-c", "echo 'Operation not permitted (you must be root)' >&2; exit 1")


def test_slow_program_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that hangs costs the timeout, not the command."""
    monkeypatch.setattr(programs, "TIMEOUT", 0.1)
    with pytest.raises(NatfixError, match="did not end within"):
        output_of("sleep", "5")
