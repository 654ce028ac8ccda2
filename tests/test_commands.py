"""Commands and notes."""

import pytest

from natfix.address import Endpoint
from natfix.commands import CloseFlow, Flow, Note, Outcome, Verdict


def test_commands_are_frozen_and_comparable() -> None:
    """A test, a log and a kernel see the same command: equal by value, never changed."""
    here, there = Endpoint("192.168.1.1", 1), Endpoint("192.0.2.1", 2)
    command = CloseFlow(Flow(here, there, there, here))
    assert command == CloseFlow(Flow(here, there, there, here))
    with pytest.raises(AttributeError):
        command.flow = None     # type: ignore[misc, assignment]


def test_note_tells_an_edit_from_an_explanation() -> None:
    """A note whose texts are equal says why something was left alone."""
    assert Note("contact", "Contact", "192.168.1.1", "203.0.113.1").is_edit
    assert not Note("sdp-refused", "m=audio", "127.0.0.1:4000", "127.0.0.1:4000", "loopback").is_edit


def test_an_empty_outcome_lets_the_packet_pass() -> None:
    """Doing nothing means accepting the original bytes."""
    outcome = Outcome()
    assert outcome.verdict is Verdict.ACCEPT
    assert outcome.packet is None
    assert outcome.commands == []
