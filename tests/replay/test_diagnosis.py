"""natfix.replay.diagnosis: all rules are asked, and the worst comes first."""

from __future__ import annotations

from dataclasses import replace

from natfix.replay import diagnosis
from natfix.replay.model import Severity
from tests.replay.small import finding


def test_the_worst_comes_first_and_each_once() -> None:
    """By severity, then by time; two rules that say the same are one finding."""
    warns = replace(finding(code="D11"), severity=Severity.WARNS, time=1.0)
    early, late = finding(code="D05", time=2.0), finding(code="D01", time=3.0)
    assert diagnosis.sort([warns, late, early, late]) == [early, late, warns]


def test_every_module_of_symptoms_is_asked() -> None:
    """A rule that nobody asks finds nothing."""
    asked = {rule.__module__.rpartition(".")[2]
             for rule in (*diagnosis.CONVERSATION, *diagnosis.STATION, *diagnosis.CAPTURE)}
    assert {"audio", "dialogs", "gateways", "transport", "abuse"} <= asked
    assert len(set(diagnosis.CONVERSATION)) == len(diagnosis.CONVERSATION)
