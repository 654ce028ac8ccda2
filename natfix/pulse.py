"""Whether a far UA can be reached, and for how long a silence its NAT stays open.

A NAT forgets a mapping that nothing has used for a while (RFC 4787, section 4.3), and does not say when. What
an OPTIONS after a silence was answered to, it has survived. A longer silence is tried only where little is
lost: at the end of the time in which the UA will speak by itself, since nobody else can open its NAT again.
"""

from __future__ import annotations

from dataclasses import dataclass

ANSWER_WAIT = 4.0       # seconds that an OPTIONS waits for its answer
LATE_ANSWER = 2.0       # seconds after which a UA that speaks by itself, but does not answer, was not reached
MISSES = 3              # unanswered in a row: unreachable
SLOWEST = 600.0         # seconds between attempts to reach one that is not
STEP = 1.5              # by how much a longer silence is tried
WORTH_IT = 1.1          # a step smaller than this is none
SAFETY = 0.9            # of a silence that the NAT did not survive
MARGIN = 8.0            # seconds before the UA is expected to speak by itself, at most
MARGIN_SHARE = 0.25     # of the time between two of its REGISTERs, likewise
FORGIVEN = 86400.0      # seconds until a longer silence is tried again: a UA may just have been restarted
SHORTEST_GAP = 3.0      # seconds between two REGISTERs that are not one and its second attempt
MOST_RATIO = 3.0        # a UA refreshes after a third of the time it was told, at least


@dataclass(slots=True, eq=False)
class Pulse:
    """What is known of one far UA. Times are on the engine's clock, spans in seconds, 0 where unknown."""

    heard_at: float = 0.0       # a packet of its, of whatever kind
    sent_at: float = 0.0        # the last keep-alive
    waiting: bool = False       # that one was an OPTIONS, and is not answered yet
    serial: int = 0             # its CSeq
    silence: float = 0.0        # before the first OPTIONS that was not answered, or the last that was
    missed: int = 0             # OPTIONS unanswered, in a row
    answer_time: float | None = None    # of the last answer
    ignored: int = 0            # times that it spoke by itself and had not answered, before its first answer
    is_deaf: bool = False       # it has never answered any
    survived: float = 0.0       # the longest silence that its NAT has survived
    failed: float = 0.0         # the shortest that it has not
    failed_at: float = 0.0
    registered_at: float = 0.0  # its last REGISTER
    gap: float = 0.0            # between the last two
    told: int = 0               # what natfix told it to refresh after; 0: the registrar's own word
    asked: int = 0              # what it had asked for
    slot: float = 0.0           # when its turn to be sent to is, where many are due at once

    def reachability(self) -> str:
        """Return "reachable", "unreachable", or "unknown" where nothing was asked or it never answers."""
        if self.answer_time is None:
            return "unknown"
        return "unreachable" if self.missed >= MISSES else "reachable"

    def hear(self, now: float) -> bool:
        """Take note of a packet that the UA sent by itself; True where it was unreachable."""
        was_unreachable = self.reachability() == "unreachable"
        is_late = self.waiting and now - self.sent_at > LATE_ANSWER
        if self.missed or is_late:
            self._explain(now)
        self.heard_at, self.missed, self.waiting = now, 0, False
        return was_unreachable

    def _explain(self, now: float) -> None:
        """It is there, and did not answer: its NAT was closed, or it never answers."""
        if self.answer_time is not None:
            self.fail(self.silence, now)
        else:
            self.ignored += 1
            self.is_deaf = self.ignored >= MISSES

    def fail(self, silence: float, now: float) -> None:
        """Take note of a silence that the NAT did not survive."""
        self.failed, self.failed_at = min(self.failed or silence, silence), now
        self.survived = min(self.survived, self.failed * SAFETY)

    def ask(self, now: float) -> None:
        """Take note of an OPTIONS sent."""
        if not self.missed:
            self.silence = now - max(self.heard_at, self.registered_at)
        # Out of any dialog, so only different: it grows over a restart, too.
        self.serial = max(self.serial + 1, int(now) & 0x7FFFFFFF)
        self.sent_at, self.waiting = now, True

    def answer(self, serial: int, now: float) -> bool:
        """Take note of a final answer; True where the UA was unreachable."""
        was_unreachable = self.reachability() == "unreachable"
        if self.waiting and serial == self.serial:
            self.answer_time = now - self.sent_at
            if not self.missed:
                self.survived = max(self.survived, self.silence)
        self.heard_at, self.missed, self.waiting, self.is_deaf = now, 0, False, False
        return was_unreachable

    def miss(self, now: float) -> bool:
        """Take note of an OPTIONS whose time is up; True where that makes the UA unreachable, or deaf."""
        self.waiting = False
        self.missed += 1
        if self.missed == MISSES and self.answer_time is None:
            self.is_deaf, self.missed = True, 0
            return True
        return self.missed == MISSES

    def register(self, now: float) -> None:
        """Take note of a REGISTER that was accepted."""
        self.heard_at = max(self.heard_at, now)
        gap = now - self.registered_at
        if self.registered_at and gap < SHORTEST_GAP:
            return
        self.gap = gap if self.registered_at else 0.0
        self.registered_at = now
        if now > self.failed_at + FORGIVEN:
            self.failed = 0.0

    def inherit(self, old: Pulse, every: float, now: float) -> None:
        """Take over what was known of the UA's NAT; that has given it another port after its last silence."""
        self.survived, self.failed, self.failed_at = old.survived, old.failed, old.failed_at
        silence = now - old.heard_at
        if every < silence <= old.survived * STEP:
            self.fail(silence, now)

    # -- how long it may be silent --------------------------------------------------------------------

    def proven(self, every: float, longest: float) -> float:
        """Return the silence that its NAT survives for all we know, from *every* to *longest*."""
        return max(every, min(self.survived, longest))

    def ambition(self, every: float, longest: float) -> float:
        """Return the longer silence to try next; 0 where there is none."""
        proven = self.proven(every, longest)
        wish = min(proven * STEP, longest, (proven + self.failed) / 2 if self.failed else longest)
        return wish if wish >= proven * WORTH_IT or (wish == longest > proven) else 0.0

    def allowed(self, every: float, longest: float) -> float:
        """Return after which silence the next keep-alive is due.

        The longer one only where it is the last that fits in before the UA speaks by itself.
        """
        proven, wish = self.proven(every, longest), self.ambition(every, longest)
        if wish and self.gap and self.answer_time is not None:
            latest = self.speaks_at() - max(self.heard_at, self.sent_at)
            if wish <= latest < proven + wish:
                return wish
        return proven

    def speaks_at(self) -> float:
        """Return shortly before when the UA is expected to register again."""
        return self.registered_at + self.gap - min(MARGIN, self.gap * MARGIN_SHARE)

    def refresh_after(self, every: float, longest: float) -> int:
        """Return what to tell the UA in ``expires``, so that it is silent for as long as is to be tried."""
        if not self.survived:
            return int(every)
        ratio = self.told / self.gap if self.told and self.gap else 1.0
        silence = self.ambition(every, longest) or self.proven(every, longest)
        return int(silence * max(1.0, min(ratio, MOST_RATIO)))

    def retry_after(self, every: float) -> float:
        """Return the pause before a UA that did not answer is asked again."""
        if self.missed < MISSES:
            return 0.0
        return min(every * 2.0 ** min(self.missed - MISSES + 1, 10), SLOWEST)
