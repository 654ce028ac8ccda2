"""Replay: captures in, a result out."""

from __future__ import annotations

from natfix.replay import replay, result


def test_result_is_there() -> None:
    """The module names the type of what it returns."""
    assert replay.Result is result.Result
