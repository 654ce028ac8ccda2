"""natfix.wall: what people read is the machine's time."""

from __future__ import annotations

import pytest

from natfix.journal import time_text
from natfix.wall import WALL, wall


def test_texts_have_the_machines_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody watches a clock it is the daemon's own; after a day's jump it is a day later."""
    assert wall(1700000000.0) == 1700000000.0
    assert time_text(1700000000.25) == "2023-11-14T22:13:20.250Z"
    monkeypatch.setattr(WALL, "ahead", 86400.0)
    assert wall(1700000000.0) == 1700086400.0
    assert time_text(1700000000.25) == "2023-11-15T22:13:20.250Z"
