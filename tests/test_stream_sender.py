"""Pins the sending half of TCP: what is sent when, what is sent again, and when the receiver is given up."""

from __future__ import annotations

import pytest

from natfix.deadlines import NEVER
from natfix.stream_sender import (
    FIRST_TIMEOUT,
    FIRST_WINDOW,
    GIVE_UP,
    LARGEST_WINDOW,
    LONGEST_TIMEOUT,
    SHORTEST_DELAY,
    Chunk,
    Sender,
)

START = (1 << 32) - 250     # numbers wrap within the third segment
MSS = 100
TEXT = bytes(range(250)) * 100


def sender(octets: int, window: int = 60_000) -> Sender:
    """Return one that owes so many octets."""
    fresh = Sender(START, MSS, window)
    fresh.put(TEXT[:octets])
    return fresh


def sent(chunks: list[Chunk]) -> list[tuple[int, int]]:
    """Return where segments begin and how long they are; AssertionError where they hold something else."""
    for position, octets, _, _ in chunks:
        assert octets == TEXT[position - START:position - START + len(octets)]
    return [(position - START, len(octets)) for position, octets, _, _ in chunks]


def now_from(owing: Sender, now: float) -> list[tuple[int, int]]:
    return sent(list(owing.sendable(now)))


def acknowledge(owing: Sender, octets: int, now: float, window: int = 60_000) -> bool:
    return owing.acknowledge(START + octets, window, 1, True, now)


def test_octets_go_in_segments() -> None:
    """None longer than the MSS; the last one says so; nothing is sent twice."""
    owing = sender(250)
    chunks = list(owing.sendable(1.0))
    assert sent(chunks) == [(0, 100), (100, 100), (200, 50)]
    assert [chunk.is_last for chunk in chunks] == [False, False, True]
    assert now_from(owing, 1.0) == []
    assert acknowledge(owing, 250, 1.1)
    assert (owing.owed, owing.in_flight, owing.deadline) == (0, False, NEVER)


def test_the_window_is_obeyed() -> None:
    """The receiver's is, octet by octet only if nothing else is on its way (RFC 9293, section 3.8.6.2.1)."""
    owing = sender(400, 250)
    assert now_from(owing, 1.0) == [(0, 100), (100, 100)]
    acknowledge(owing, 100, 1.1, 250)
    assert now_from(owing, 1.1) == [(200, 100)]
    acknowledge(owing, 300, 1.2, 30)
    assert now_from(owing, 1.2) == [(300, 30)]


def test_the_window_of_an_old_segment_does_not_count() -> None:
    """RFC 9293, section 3.10.7.4: a reordered segment must not open or close it again."""
    owing = sender(400, 1000)
    now_from(owing, 1.0)
    owing.acknowledge(START + 100, 500, 9, True, 1.1)
    owing.acknowledge(START + 100, 70, 8, True, 1.1)
    assert owing.window == 500


def test_the_network_is_spared() -> None:
    """Ten segments at first, then one more for each acknowledged one (RFC 5681), up to a bound."""
    owing = sender(20_000)
    assert len(now_from(owing, 1.0)) == FIRST_WINDOW
    acknowledge(owing, 100, 1.1)
    assert now_from(owing, 1.1) == [(1000, 100), (1100, 100)]
    for each in range(2, 100):
        acknowledge(owing, 100 * each, 1.1)
        now_from(owing, 1.1)
    assert owing.allowed == LARGEST_WINDOW * MSS


def test_the_timer_repeats_the_first_segment_less_and_less_often() -> None:
    """RFC 6298, section 5: one second at first, then twice as long each time."""
    owing = sender(250)
    now_from(owing, 1.0)
    now, pauses = 1.0, []
    while len(pauses) < 8:
        pauses.append(owing.deadline - now)
        now = owing.deadline
        assert sent(list(owing.expire(now))) == [(0, 100)]
    assert pauses == [FIRST_TIMEOUT, 2.0, 4.0, 8.0, 16.0, 32.0, LONGEST_TIMEOUT, LONGEST_TIMEOUT]
    acknowledge(owing, 100, now)
    assert now_from(owing, now) == [(100, 100), (200, 50)]      # slow start, from where it was lost


def test_the_timer_follows_the_round_trip() -> None:
    """RFC 6298, section 2; what was repeated measures nothing (Karn)."""
    owing = sender(1000)
    now_from(owing, 1.0)
    acknowledge(owing, 100, 1.1)
    assert owing.deadline == pytest.approx(1.1 + 0.1 + SHORTEST_DELAY)
    repeated = sender(100)
    now_from(repeated, 1.0)
    list(repeated.expire(2.0))
    acknowledge(repeated, 100, 2.001)
    repeated.put(TEXT[100:200])
    now_from(repeated, 3.0)
    assert repeated.deadline == pytest.approx(3.0 + 2 * FIRST_TIMEOUT)


def test_three_duplicates_repeat_a_segment_at_once() -> None:
    """RFC 5681; each further loss is repeated with the acknowledgement that shows it (RFC 6582)."""
    owing = sender(1000)
    now_from(owing, 1.0)
    acknowledge(owing, 100, 1.1)
    for _ in range(2):
        acknowledge(owing, 100, 1.1)
        assert now_from(owing, 1.1) == []
    acknowledge(owing, 100, 1.1)
    assert now_from(owing, 1.1) == [(100, 100)]
    acknowledge(owing, 400, 1.2)
    assert now_from(owing, 1.2) == [(400, 100)]
    acknowledge(owing, 1000, 1.3)
    assert not owing.in_flight


def test_duplicates_after_the_timer_say_nothing() -> None:
    """They are answers to what was repeated needlessly (RFC 6582, section 4)."""
    owing = sender(1000)
    now_from(owing, 1.0)
    list(owing.expire(2.0))
    for _ in range(5):
        acknowledge(owing, 0, 2.1)
    assert now_from(owing, 2.1) == []


def test_after_the_timer_it_goes_on_behind_what_has_arrived() -> None:
    """The first segment was lost, and those behind it were not."""
    owing = sender(250)
    now_from(owing, 1.0)
    list(owing.expire(2.0))
    acknowledge(owing, 250, 2.1)
    owing.put(TEXT[250:300])
    assert now_from(owing, 2.1) == [(250, 50)]


def test_what_was_repeated_measures_nothing() -> None:
    """Whose acknowledgement it is cannot be told (Karn's algorithm), by whatever it was repeated."""
    by_timer, by_duplicates = sender(300), sender(300)
    now_from(by_timer, 1.0)
    list(by_timer.expire(2.0))
    acknowledge(by_timer, 100, 2.1)
    assert now_from(by_timer, 2.1) == [(100, 100), (200, 100)]
    acknowledge(by_timer, 300, 2.101)
    now_from(by_duplicates, 1.0)
    for _ in range(3):
        acknowledge(by_duplicates, 0, 5.0)
    assert now_from(by_duplicates, 5.0) == [(0, 100)]
    acknowledge(by_duplicates, 300, 5.1)
    for owing, timeout in ((by_timer, 2 * FIRST_TIMEOUT), (by_duplicates, FIRST_TIMEOUT)):
        owing.put(TEXT[300:400])
        now_from(owing, 6.0)
        assert owing.deadline == 6.0 + timeout


def test_a_segment_without_octets_stays_in_the_window() -> None:
    """Behind the probe of a closed window it would not be acceptable (RFC 9293, section 3.10.7.4)."""
    owing = sender(150, 0)
    now_from(owing, 1.0)
    list(owing.expire(2.0))
    assert owing.silent == START
    acknowledge(owing, 0, 2.1, 1000)
    now_from(owing, 2.1)
    assert owing.silent == START + 150


@pytest.mark.parametrize(("window", "is_pure"), [(50_000, True), (60_000, False)])
def test_not_every_repeated_acknowledgement_is_a_duplicate(window: int, is_pure: bool) -> None:
    """One with another window, or with octets, says nothing about a loss (RFC 5681, section 2)."""
    owing = sender(1000)
    now_from(owing, 1.0)
    acknowledge(owing, 100, 1.1)
    for each in range(5):
        owing.acknowledge(START + 100, window - each * (not is_pure) + each * is_pure, 1, is_pure, 1.1)
    assert now_from(owing, 1.1) == []


def test_a_closed_window_is_probed() -> None:
    """With one octet, for as long as the receiver answers; once it opens, that octet goes again."""
    owing = sender(150, 0)
    assert now_from(owing, 1.0) == []
    now = 1.0
    for _ in range(12):
        now = owing.deadline
        assert sent(list(owing.expire(now))) == [(0, 1)]
        acknowledge(owing, 0, now, 0)
        assert not owing.has_failed(now)
    assert now > 1.0 + GIVE_UP
    acknowledge(owing, 0, now, 500)
    assert now_from(owing, now) == [(0, 100), (100, 50)]


def test_a_window_that_opens_again_repeats_nothing() -> None:
    """What is on its way was sent into an open window: it is lost or not, and the timer knows."""
    owing = sender(300, 200)
    now_from(owing, 1.0)
    acknowledge(owing, 0, 1.1, 0)
    acknowledge(owing, 0, 1.2, 1000)
    assert now_from(owing, 1.2) == [(200, 100)]


def test_a_silent_receiver_is_given_up() -> None:
    """Two minutes after what is owed was sent, or the last of it acknowledged."""
    owing = sender(150)
    now_from(owing, 1.0)
    acknowledge(owing, 100, 50.0)
    while not owing.has_failed(owing.deadline):
        list(owing.expire(owing.deadline))
        assert owing.deadline < 300.0
    assert owing.deadline > 50.0 + GIVE_UP


def test_the_fin_stands_behind_all() -> None:
    """With the last octets or alone; it is repeated, and its acknowledgement ends everything."""
    owing = sender(150)
    owing.close()
    assert [chunk.has_fin for chunk in owing.sendable(1.0)] == [False, True]
    acknowledge(owing, 150, 1.1)
    assert not owing.is_done
    assert list(owing.expire(owing.deadline)) == [Chunk(START + 150, b"", True, True)]
    acknowledge(owing, 151, 3.0)
    assert owing.is_done
    assert owing.deadline == NEVER
    alone = sender(0)
    alone.close()
    assert list(alone.sendable(1.0)) == [Chunk(START, b"", True, True)]
    assert list(alone.sendable(1.0)) == []
