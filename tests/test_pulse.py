"""What is known of a far UA: reachable or not, and how long its NAT stays open."""

from __future__ import annotations

import pytest

from natfix.pulse import MISSES, SAFETY, SLOWEST, STEP, Pulse

EVERY, LONGEST = 25.0, 120.0


def answered(pulse: Pulse, silence: float) -> None:
    """Let the UA answer an OPTIONS after *silence*."""
    now = pulse.heard_at + silence
    pulse.ask(now)
    pulse.answer(pulse.serial, now + 0.02)


def silent(pulse: Pulse, silence: float) -> bool:
    """Let OPTIONS go unanswered after *silence*, as often as makes it unreachable; True where they did."""
    now = pulse.heard_at + silence
    told = False
    for step in range(MISSES):
        pulse.ask(now + 4 * step)
        told = pulse.miss(now + 4 * step + 4)
    return told


@pytest.fixture
def pulse() -> Pulse:
    """A UA that has registered twice, ten minutes apart, and has answered once."""
    made = Pulse()
    made.register(1000.0)
    made.register(1600.0)
    answered(made, EVERY)
    return made


def test_an_answer_is_timed(pulse: Pulse) -> None:
    """From the OPTIONS it belongs to; one that comes too late makes it reachable, and is not timed."""
    assert pulse.answer_time == pytest.approx(0.02)
    pulse.ask(2000.0)
    late = pulse.serial
    pulse.miss(2004.0)
    pulse.ask(2004.0)
    pulse.answer(late, 2005.0)
    assert (pulse.answer_time, pulse.missed, pulse.reachability()) == (pytest.approx(0.02), 0, "reachable")


def test_unreachable_is_told_once(pulse: Pulse) -> None:
    """At the third unanswered OPTIONS; hearing the UA again is told, too."""
    assert silent(pulse, EVERY)
    assert pulse.reachability() == "unreachable"
    pulse.ask(3000.0)
    assert not pulse.miss(3004.0)
    assert pulse.hear(3010.0)
    assert not pulse.hear(3011.0)
    assert pulse.reachability() == "reachable"


def test_retries_get_rare(pulse: Pulse) -> None:
    """At once before it is given up, then after twice the interval, four times, up to ten minutes."""
    pauses = []
    for _ in range(10):
        pulse.ask(3000.0)
        pulse.miss(3004.0)
        pauses.append(pulse.retry_after(EVERY))
    assert pauses[:5] == [0.0, 0.0, 50.0, 100.0, 200.0]
    assert pauses[-1] == SLOWEST


def test_one_that_never_answers_is_deaf() -> None:
    """That is no proof that it cannot be reached."""
    pulse = Pulse(heard_at=1000.0)
    assert silent(pulse, EVERY)
    assert pulse.is_deaf
    assert pulse.reachability() == "unknown"
    answered(pulse, EVERY)
    assert not pulse.is_deaf


def test_serials_grow_over_a_restart() -> None:
    """CSeq is that of the clock, and another one each time."""
    first, second = Pulse(), Pulse()
    first.ask(1000.9)
    first.ask(1000.95)
    second.ask(1003.0)
    assert (first.serial, second.serial) == (1001, 1003)


def test_a_longer_silence_is_tried_before_the_ua_speaks_itself(pulse: Pulse) -> None:
    """Only where it is the last that fits in before the expected REGISTER."""
    pulse.heard_at = 1700.0
    assert pulse.allowed(EVERY, LONGEST) == EVERY
    pulse.heard_at = pulse.speaks_at() - 40.0
    wish = pulse.allowed(EVERY, LONGEST)
    assert wish == pytest.approx(EVERY * STEP)
    assert pulse.heard_at + wish <= pulse.speaks_at() < pulse.registered_at + pulse.gap
    pulse.heard_at = pulse.speaks_at() - 30.0
    assert pulse.allowed(EVERY, LONGEST) == EVERY


def test_nothing_longer_is_tried_of_one_that_is_not_known() -> None:
    """No second REGISTER yet, or no answer yet: what would it cost, and who would tell?"""
    once = Pulse()
    once.register(1000.0)
    answered(once, EVERY)
    deaf = Pulse(registered_at=1600.0, gap=600.0, heard_at=2150.0)
    assert once.allowed(EVERY, LONGEST) == deaf.allowed(EVERY, LONGEST) == EVERY


def test_what_was_survived_is_kept_to(pulse: Pulse) -> None:
    """Step by step up to the longest, where no step is left."""
    silences = []
    while wish := pulse.ambition(EVERY, LONGEST):
        silences.append(wish)
        answered(pulse, wish)
    assert silences == [pytest.approx(37.5), pytest.approx(56.25), pytest.approx(84.375), LONGEST]
    assert pulse.proven(EVERY, LONGEST) == LONGEST


def test_it_falls_back(pulse: Pulse) -> None:
    """Not answered, then heard by itself: the silence was too long; nothing near it is tried again."""
    answered(pulse, 60.0)
    pulse.ask(pulse.heard_at + 90.0)
    pulse.hear(pulse.sent_at + 8.0)
    assert pulse.failed == pytest.approx(90.0)
    assert pulse.proven(EVERY, LONGEST) == pytest.approx(60.0)
    assert pulse.ambition(EVERY, LONGEST) == pytest.approx(75.0)
    answered(pulse, 84.0)
    assert pulse.ambition(EVERY, LONGEST) == 0.0
    pulse.register(pulse.heard_at + 2 * 86400)
    assert pulse.ambition(EVERY, LONGEST) == LONGEST


def test_a_silence_that_was_survived_before_can_fail(pulse: Pulse) -> None:
    """NATs of many users get shorter in the evening: then what is proven shrinks, never below the setting."""
    answered(pulse, 60.0)
    silent(pulse, 60.0)
    pulse.hear(pulse.sent_at + 100.0)
    assert pulse.proven(EVERY, LONGEST) == pytest.approx(60.0 * SAFETY)
    silent(pulse, EVERY)
    pulse.hear(pulse.sent_at + 100.0)
    assert pulse.proven(EVERY, LONGEST) == EVERY


def test_a_lost_packet_is_no_proof(pulse: Pulse) -> None:
    """Where the second attempt is answered the NAT was open all the time."""
    pulse.ask(pulse.heard_at + 60.0)
    pulse.miss(pulse.sent_at + 4.0)
    pulse.ask(pulse.sent_at + 4.0)
    pulse.answer(pulse.serial, pulse.sent_at + 0.1)
    assert pulse.failed == 0.0


def test_another_port_after_a_silence(pulse: Pulse) -> None:
    """The successor knows what its predecessor knew, and that this silence was too long."""
    answered(pulse, 60.0)
    new = Pulse()
    new.inherit(pulse, EVERY, pulse.heard_at + 80.0)
    assert (new.survived, new.failed) == (pytest.approx(60.0), pytest.approx(80.0))
    rebooted = Pulse()
    rebooted.inherit(pulse, EVERY, pulse.heard_at + 5000.0)
    assert rebooted.failed == 0.0


def test_what_a_ua_is_told(pulse: Pulse) -> None:
    """The setting at first; then what makes it silent for as long as is to be tried next."""
    fresh = Pulse()
    assert fresh.refresh_after(EVERY, LONGEST) == 25
    pulse.told, pulse.gap = 30, 15.0
    assert pulse.refresh_after(EVERY, LONGEST) == int(EVERY * STEP * 2)
    assert pulse.refresh_after(EVERY, EVERY) == int(EVERY * 2)
