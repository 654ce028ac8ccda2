"""What the captures of pcaps/faults show: one fault each, played by scripted ends through real NAT.

Those with "-not-" in their names nearly show one, and are healthy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.captures.recording import recording
from tests.lab.lab import Lab


@dataclass(frozen=True)
class Fault:
    """One capture: what is played, what natfix-replay has to find in it, and what the README says of it."""

    play: Callable[[Lab], None] | str       # or what a text says that is not recorded
    codes: tuple[str, ...]      # of all findings, in their order
    shows: str
    options: dict[str, object] = field(default_factory=dict)     # of the lab


FAULTS: dict[str, Fault] = {}


def fault(name: str, shows: str, codes: str = "", **options: object
          ) -> Callable[[Callable[[Lab], None]], Callable[[Lab], None]]:
    """Put the decorated function into the table; *codes* are parted by spaces."""
    def put(play: Callable[[Lab], None]) -> Callable[[Lab], None]:
        FAULTS[name] = Fault(play, tuple(codes.split()), shows, options)
        return play
    return put


def record_fault(found: Fault, path: Path) -> None:
    """Play one fault and write what passed the gateway to *path*."""
    if isinstance(found.play, str):
        path.write_text(found.play)
        return
    with Lab(**found.options) as lab, recording(lab, path):     # type: ignore[arg-type]
        found.play(lab)
