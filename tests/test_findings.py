"""The machine that the checks look at: each question is asked once."""

from __future__ import annotations

from pathlib import Path

import pytest

from natfix.errors import KernelRefused
from natfix.findings import Question
from tests.hosts import gateway


def test_a_question_is_asked_once() -> None:
    """All checks share one answer: the rule set is listed once."""
    asked: list[int] = []
    question = Question(lambda: asked.append(1) or "answer")
    assert (question(), question(), len(asked)) == ("answer", "answer", 1)


def test_an_error_is_an_answer() -> None:
    """A question that failed is not asked again; each asker gets the same error."""
    asked: list[int] = []

    def refuse() -> None:
        asked.append(1)
        raise KernelRefused("no")

    question = Question(refuse)
    for _ in range(2):
        with pytest.raises(KernelRefused, match="no"):
            question()
    assert len(asked) == 1


def test_files_and_sysctls(tmp_path: Path) -> None:
    """A file that is not there reads as empty, as a sysctl of another kernel does."""
    host = gateway(tmp_path)
    assert host.sysctl("net.ipv4.ip_forward") == "1"
    assert host.sysctl("net.ipv4.nothing") == ""
    assert host.read("etc/nothing") == ""
