"""The memory of retransmissions."""

import pytest

from natfix import repeats as module
from natfix.address import Endpoint
from natfix.repeats import LIFETIME, Repeats

HERE, THERE = Endpoint("192.168.1.10", 5060), Endpoint("192.0.2.1", 5060)
EDITS = ((0, 1, b"x"),)
OTHERS = ((0, 1, b"y"),)


def test_only_the_same_bytes_on_the_same_path_are_a_repeat() -> None:
    """Another payload, sender or receiver is another message."""
    repeats = Repeats()
    repeats.remember(HERE, THERE, b"INVITE", EDITS, 0.0)
    assert repeats.find(HERE, THERE, b"INVITE", 1.0) is EDITS
    assert repeats.find(THERE, HERE, b"INVITE", 1.0) is None
    assert repeats.find(HERE, THERE, b"INVITE ", 1.0) is None


def test_a_repeat_is_known_for_64_t1() -> None:
    """Edits live as long as a transaction retransmits; the same bytes may come anew after that."""
    repeats = Repeats()
    repeats.remember(HERE, THERE, b"1", EDITS, 0.0)
    assert repeats.find(HERE, THERE, b"1", LIFETIME - 1) is EDITS
    assert repeats.find(HERE, THERE, b"1", LIFETIME) is None
    repeats.remember(HERE, THERE, b"1", OTHERS, LIFETIME)
    repeats.remember(HERE, THERE, b"2", EDITS, LIFETIME)
    assert repeats.find(HERE, THERE, b"1", LIFETIME + 1) is OTHERS


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is old is forgotten with each new one, and no more than MOST are kept."""
    monkeypatch.setattr(module, "MOST", 10)
    repeats = Repeats()
    for number in range(100):
        repeats.remember(HERE, THERE, str(number).encode(), EDITS, number / 100)
    assert len(repeats._edits) == len(repeats._order) == 10
    for number in range(100):
        repeats.remember(HERE, THERE, str(number).encode(), EDITS, LIFETIME * number)
    assert len(repeats._edits) == len(repeats._order) == 1
