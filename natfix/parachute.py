"""A daemon on trial: `natfix up --confirm SECONDS` holds until the time is up, unless `natfix confirm` comes.

The daemon itself watches the time, so that nothing hangs on the operator's session. Whatever may happen to
the daemon meanwhile, the trial ends:

    the time is up      table, entries, marks and sysctl are taken back, the daemon ends
    it is stopped       likewise, at once
    it is killed        SIP passes unfixed at once, since nobody listens to a queue with bypass; the rules
                        lead nothing there once the time is up (:mod:`natfix.kernel.trial`), elements end by
                        their own lifetimes; the next start takes back what is left, and does not arm
    it hangs            SIP waits in the queue until the time is up, and then passes
    the rules are       they are put back as after the start, and their time begins anew; the daemon's own
      flushed           does not
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from natfix.kernel.base import Kernel, Skeleton
from natfix.loop import PAUSE, Loop
from natfix.message_ids import kind
from natfix.order import FIX, Mode, Order, write_order

log = logging.getLogger("natfix")


class Parachute:
    """The trial of one daemon; without seconds there is none."""

    def __init__(self, loop: Loop, state_file: str, seconds: float) -> None:
        self._loop = loop
        self._state_file = state_file
        self._seconds = seconds
        self._bypass = loop.skeleton.bypass
        self._until = 0.0
        self.is_open = False        # everything was taken back

    @property
    def is_pending(self) -> bool:
        """Tell whether a trial runs."""
        return self._until > 0

    def begin(self, now: float) -> None:
        """Begin the trial, before any rule is installed; does nothing where none was ordered."""
        if not self._seconds:
            return
        write_order(self._state_file, Order(Mode.BEGUN))
        self._until = now + self._seconds
        self._loop.skeleton = replace(self._loop.skeleton, trial=self._seconds, bypass=True)
        self._loop.call_at(self._until, self._time_is_up)
        log.warning("natfix: on trial for %.0f s; `natfix confirm` keeps it", self._seconds,
                    extra=kind("trial"))

    def seconds_left(self, now: float) -> float:
        """Return how long `natfix confirm` is waited for; 0 where it is not."""
        return max(0.0, self._until - now)

    def confirm(self, _request: dict[str, Any]) -> dict[str, Any]:
        """Keep natfix in force; a second time is no error. Raises what the kernel refuses."""
        was_pending = self.is_pending
        if was_pending:
            settled = self.settled(self._loop.skeleton)
            self._loop.kernel.install(settled)
            self._loop.skeleton = settled
            write_order(self._state_file, FIX)
            self._until = 0.0
            log.info("natfix: confirmed", extra=kind("confirmed"))
        return {"confirmed": True, "was_on_trial": was_pending}

    def follow(self, skeleton: Skeleton) -> Skeleton:
        """Return *skeleton*, that of other settings, as it is now: a trial that runs goes on."""
        self._bypass = skeleton.bypass
        on_trial = replace(skeleton, trial=self._seconds, bypass=True)
        return on_trial if self.is_pending else skeleton

    def settled(self, skeleton: Skeleton) -> Skeleton:
        """Return *skeleton* as it is when no trial runs."""
        return replace(skeleton, trial=0.0, bypass=self._bypass)

    def _time_is_up(self, now: float) -> None:
        if self.is_pending:
            self._loop.call_at(now + PAUSE, self._time_is_up)      # where the kernel refuses
            log.warning("natfix: nobody has confirmed: everything is taken back", extra=kind("rolled-back"))
            self.take_back()

    def take_back(self) -> None:
        """End a trial that runs, and remove all that natfix has made in the kernel."""
        if self.is_pending:
            self._loop.say_farewell()
            kernel: Kernel = self._loop.kernel
            kernel.remove()
            self._until, self.is_open = 0.0, True
            self._loop.stop()
