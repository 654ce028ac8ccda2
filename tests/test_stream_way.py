"""Pins one direction's books: how far numbers have drifted, what the source is told, what is held."""

from __future__ import annotations

import pytest

from natfix.segment import ACK, SYN, segment_from_bytes
from natfix.stream_way import LARGEST_WINDOW, Way
from tests.segments import Wire, segment_bytes
from tests.tcp_ends import INSIDE, OUTSIDE, PEER

ISN = 0xFFFFFFFF
START = ISN + 1
SCALE_2, SCALE_3 = b"\x03\x03\x02\x01", b"\x03\x03\x03\x01"
STAMPS = b"\x01\x01\x08\x0a\0\0\0\x05\0\0\0\0"


def way(ours: bytes = SCALE_2, theirs: bytes = SCALE_3, mss: int = 1460, window: int = 8000) -> Way:
    """Return the direction from the phone to the PBX, whose SYNs have these options."""
    sink = b"\x02\x04" + mss.to_bytes(2) + theirs
    syn = Wire(INSIDE, PEER, ISN, 0, SYN, 4000, ours)
    syn_ack = Wire(PEER, INSIDE, 7, 0, SYN | ACK, window, sink)
    first, second = (segment_from_bytes(segment_bytes(wire)) for wire in (syn, syn_ack))
    return Way(first, second, OUTSIDE, PEER)


def test_scales_count_only_if_both_ends_have_them() -> None:
    """RFC 7323, section 2.2."""
    both = way()
    assert (both.scale, both.sink_scale) == (2, 3)
    one = way(theirs=b"")
    assert (one.scale, one.sink_scale) == (0, 0)


@pytest.mark.parametrize(("mss", "options", "expected"), [
    (1460, b"", 1460), (1460, STAMPS, 1448), (65535, b"", 65000), (0, b"", 48),
])
def test_how_large_a_segment_may_be(mss: int, options: bytes, expected: int) -> None:
    """The sink's MSS without what timestamps take, within what a packet can hold."""
    made = way(options, options, mss)
    made.sender.set_largest(made.mss)
    assert made.sender.mss == expected


def test_the_shift_is_what_went_on_against_what_came() -> None:
    """What is held has not gone on yet, so it moves nothing; growth does."""
    made = way()
    made.receiver.take(START, b"INVITE", False)
    made.framer.feed(b"INVITE")
    assert made.shift == 0
    made.framer.give_up("test")
    made.sender.put(b"longer than that")
    assert made.shift == 10


def test_a_window_is_told_once_and_kept() -> None:
    """It shrinks by what comes, not by what a message grows to, and is never more than natfix can hold."""
    made = way()
    made.sender.acknowledge(START, 4000, 1, True, 0.0)
    assert made.offer() == 500
    assert not made.has_news
    made.receiver.take(START, b"x" * 80, False)
    made.sender.put(b"x" * 400)
    assert (made.has_news, made.offer()) == (True, 490)
    made.sender.acknowledge(START, 1 << 24, 2, True, 0.0)
    assert made.offer() == LARGEST_WINDOW - 400 >> 3


def test_what_nobody_looks_at_is_acknowledged_by_its_sink() -> None:
    """Unless numbers have drifted: then the ends cannot go on by themselves anyway."""
    made = way()
    made.framer.give_up("test")
    made.receiver.take(START, b"abc", False)
    made.sender.put(b"abc")
    list(made.sender.sendable(0.0))
    assert (made.acknowledged, made.is_clean) == (START, True)
    made.sender.acknowledge(START + 2, 4000, 1, True, 0.0)
    assert made.acknowledged == START + 2
    made.sender.put(b"more")
    assert (made.acknowledged, made.is_clean) == (START + 3, False)


def test_the_ends_go_on_by_themselves_only_with_everything() -> None:
    """Not while something is unsent, or came ahead and was told of."""
    made = way()
    made.framer.give_up("test")
    assert made.is_clean
    made.receiver.take(START + 10, b"ahead", False)
    assert not made.is_clean
    made = way()
    made.framer.give_up("test")
    made.receiver.take(START, b"abc", False)
    made.sender.put(b"abc")
    assert not made.is_clean
    made.sender.put(b"drifted")
    list(made.sender.sendable(0.0))
    assert not made.is_clean


def test_what_is_held_is_counted() -> None:
    """Parts of messages, what is owed and what is ahead; and nothing after the end."""
    made = way()
    made.receiver.take(START + 10, b"ahead", False)
    made.framer.feed(b"INVITE")
    made.sender.put(b"owed")
    assert (made.measure(), made.load) == (15, 15)
    made.clear()
    assert (made.measure(), made.load) == (-15, 0)
