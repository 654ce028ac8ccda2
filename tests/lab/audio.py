"""Who heard whom: the one comparison that demo, scenarios and their tests all use."""

from __future__ import annotations

import time
from typing import Protocol

from tests.lab.tones import ENOUGH, Heard


class Talker(Protocol):
    """A phone or RTP endpoint: it plays :attr:`tone` hertz, and knows what it recorded."""

    tone: int

    def heard(self, expected: int, other: int | None = None) -> Heard:
        """Return what it recorded of the tone *expected*."""


def talk(seconds: float = ENOUGH + 0.7) -> None:
    """Let the tones play: what has to be recognised, and what setting up takes."""
    time.sleep(seconds)


def what_was_heard(first: Talker, second: Talker) -> tuple[Heard, Heard]:
    """Return what *first* heard of *second*, and *second* of *first*, in their latest recordings."""
    return first.heard(second.tone, first.tone), second.heard(first.tone, second.tone)


def listen(first: Talker, second: Talker, patience: float = 3.0) -> tuple[Heard, Heard]:
    """Return the same once both were recognised, or after *patience* seconds: a busy machine is late."""
    deadline = time.monotonic() + patience
    heard = what_was_heard(first, second)
    while not all(direction.recognised for direction in heard) and time.monotonic() < deadline:
        time.sleep(0.3)
        heard = what_was_heard(first, second)
    return heard


def assert_two_way(first: Talker, second: Talker) -> None:
    """Fail, saying what was heard, unless each recognised the other's tone and not its own."""
    heard = listen(first, second)
    assert all(direction.recognised for direction in heard), "; ".join(map(str, heard))


def assert_silent(listener: Talker, speaker: Talker) -> None:
    """Fail where *listener* recognised the tone of *speaker*."""
    heard = listener.heard(speaker.tone, listener.tone)
    assert not heard.recognised, str(heard)
