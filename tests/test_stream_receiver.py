"""Pins the receiving half of TCP: octets come out once and in order, whatever the network does."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natfix.stream_receiver import FARTHEST, MOST_BLOCKS, Receiver

START = (1 << 32) - 5       # numbers wrap within the first segments
TEXT = bytes(range(256)) * 4


def part(first: int, last: int) -> tuple[int, bytes, bool]:
    """Return octets *first* to *last* of TEXT as a segment."""
    return START + first, TEXT[first:last], False


def test_octets_in_order_come_out_at_once() -> None:
    """Each segment is what it says, and the next number is behind it."""
    receiver = Receiver(START)
    assert receiver.take(*part(0, 10)) == TEXT[:10]
    assert receiver.take(*part(10, 30)) == TEXT[10:30]
    assert (receiver.expected, receiver.ahead, receiver.blocks()) == (START + 30, 0, [])


def test_what_is_ahead_waits() -> None:
    """It comes out with what was missing, and SACK tells of it meanwhile, the latest first."""
    receiver = Receiver(START)
    for first, last in ((10, 20), (30, 40), (20, 25), (50, 60), (35, 45)):
        assert receiver.take(*part(first, last)) == b""
    assert receiver.blocks() == [(START + 30, START + 45), (START + 10, START + 25), (START + 50, START + 60)]
    assert receiver.ahead == 40
    assert receiver.take(*part(0, 10)) == TEXT[:25]
    assert receiver.take(*part(25, 55)) == TEXT[25:60]
    assert (receiver.expected, receiver.ahead) == (START + 60, 0)


def test_repeated_octets_come_out_once() -> None:
    """A segment that begins before what is expected gives only what is new."""
    receiver = Receiver(START)
    receiver.take(*part(0, 20))
    assert receiver.take(*part(5, 15)) == b""
    assert receiver.take(*part(0, 20)) == b""
    assert receiver.take(*part(15, 25)) == TEXT[20:25]


def test_what_came_first_counts() -> None:
    """Two spellings of one octet: whoever asks later must not hear another one."""
    receiver = Receiver(START)
    receiver.take(START + 5, b"first", False)
    receiver.take(START + 3, b"xxxxxxxxx", False)
    assert receiver.take(START, b"abc", False) == b"abcxxfirstxx"


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1)])
def test_the_fin_counts_when_all_before_it_has_come(order: tuple[int, ...]) -> None:
    """It takes one number, once; octets behind it are none."""
    receiver = Receiver(START)
    segments = [part(0, 5), part(5, 9), (START + 9, b"", True)]
    whole = b"".join(receiver.take(*segments[each]) for each in order)
    assert (whole, receiver.is_finished, receiver.expected) == (TEXT[:9], True, START + 10)
    assert receiver.take(START + 9, b"", True) == b""
    assert receiver.expected == START + 10


def test_what_is_kept_is_bounded() -> None:
    """Octets too far ahead, and gaps beyond a number, are not kept: their sender repeats them."""
    receiver = Receiver(START)
    receiver.take(START + FARTHEST - 2, b"four", False)
    assert receiver.blocks() == [(START + FARTHEST - 2, START + FARTHEST)]
    receiver.take(START + FARTHEST + 10, b"x", True)
    assert receiver.ahead == 2
    for each in range(2 * MOST_BLOCKS):
        receiver.take(START + 10 + 2 * each, b"x", False)
    assert receiver.ahead == 2 + MOST_BLOCKS - 1
    assert len(receiver.blocks()) == MOST_BLOCKS


SPANS = st.tuples(st.integers(0, 300), st.integers(0, 60))


@settings(deadline=None)
@given(st.lists(SPANS, max_size=40), st.booleans())
def test_any_segments_make_the_stream(spans: list[tuple[int, int]], has_fin: bool) -> None:
    """After any overlapping, repeated and reordered segments comes what a set of octets would give."""
    receiver, came, whole = Receiver(START), set[int](), b""
    for first, size in spans:
        whole += receiver.take(*part(first, first + size))
        came |= set(range(first, first + size))
        expected = next(each for each in range(400) if each not in came)
        assert (whole, receiver.expected) == (TEXT[:expected], START + expected)
        assert receiver.ahead == len([each for each in came if each > expected])
    whole += receiver.take(START, TEXT[:400], False) + receiver.take(START + 400, b"", has_fin)
    assert whole == TEXT[:400]
    assert (receiver.is_finished, receiver.expected) == (has_fin, START + 400 + has_fin)
