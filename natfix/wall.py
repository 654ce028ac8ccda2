"""The machine's time for the daemon's: what people read, and what copies for others say."""

from __future__ import annotations


class Wall:
    """How far the machine's clock is ahead of the daemon's (:mod:`natfix.timekeeping`); nought elsewhere."""

    ahead: float = 0.0      # seconds


WALL = Wall()


def wall(at: float) -> float:
    """Return seconds since 1970 on the machine's clock, as it is now, for *at* on the daemon's."""
    return at + WALL.ahead
