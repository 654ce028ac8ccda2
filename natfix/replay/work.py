"""What the passes and who waits for them have to tell each other."""

from __future__ import annotations

import time
from typing import TextIO

BAR = 30                # characters
REDRAW = 0.1            # seconds between two pictures of the progress bar


class Work:
    """How far it is, and whether to stop.

    ``stops`` counts Ctrl-C: the first ends the reading, the second ends pass 2 as well.
    """

    stops = 0

    def show(self, share: float, what: str) -> None:
        """*share* of *what* is done, from 0 to 1."""


class Bar(Work):
    """A progress bar, on terminals only."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._is_shown = file.isatty()
        self._due = 0.0

    def show(self, share: float, what: str) -> None:
        """Draw it, now and then."""
        now = time.monotonic()
        if not self._is_shown or now < self._due:
            return
        self._due = now + REDRAW
        full = int(BAR * min(1.0, share))
        self._file.write(f"\r{what:10} [{'#' * full}{'.' * (BAR - full)}] {share:4.0%}")
        self._file.flush()

    def close(self) -> None:
        """Wipe it away."""
        if self._is_shown:
            self._file.write("\r" + " " * (BAR + 20) + "\r")
            self._file.flush()
