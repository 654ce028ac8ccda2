"""IP fragments: put together in any order, and in bounded memory."""

from __future__ import annotations

import random

from natfix.replay import fragments
from natfix.replay.fragments import Fragments
from natfix.replay.model import PacketId
from tests.replay.wire import START, frame

BODY = bytes(range(200)) * 5
PIECES = [(0, False, BODY[:400]), (400, False, BODY[400:800]), (800, True, BODY[800:])]


def test_any_order() -> None:
    """Pieces in any order, and twice, make the datagram once."""
    for seed in range(20):
        table = Fragments()
        order = PIECES * 2
        random.Random(seed).shuffle(order)
        whole = next(filter(None, (table.add("k", b"head", *piece, frame(b"")) for piece in order)))
        assert (whole.head, whole.body, whole.incomplete) == (b"head", BODY, False)


def test_packets_of_the_datagram() -> None:
    """A datagram names the packets that it came in."""
    table = Fragments()
    for number, piece in enumerate(PIECES, 1):
        whole = table.add("k", b"head", *piece, frame(b"", number, file="f"))
    assert whole is not None
    assert whole.packets == (PacketId(1, "f"), PacketId(2, "f"), PacketId(3, "f"))


def test_overlap_takes_what_came_first() -> None:
    """Of octets that differ, those that came first count."""
    table = Fragments()
    table.add("k", b"h", 0, False, b"aaaa" * 4, frame(b""))
    whole = table.add("k", b"h", 8, True, b"bbbb" * 4, frame(b""))
    assert whole is not None
    assert whole.body == b"aaaa" * 4 + b"bbbb" * 2


def test_what_never_comes() -> None:
    """A beginning whose rest never comes is given up after a while, or at the end; a rest alone never."""
    table = Fragments()
    table.add("old", b"h", 0, False, b"begin", frame(b""))
    table.add("no beginning", b"h", 8, True, b"end", frame(b""))
    table.add("old", b"h", 0, False, b"again", frame(b"", time=START + 100))
    (given_up,) = table.take_given_up()
    assert (given_up.body, given_up.incomplete) == (b"begin", True)
    assert [whole.body for whole in table.rest()] == [b"again"]


def test_memory_is_bounded() -> None:
    """A flood of fragments drives out the oldest; impossible offsets and endless pieces give up."""
    table = Fragments()
    for number in range(3 * fragments.MOST_DATAGRAMS):
        table.add(number, b"h", 0, False, bytes(1000), frame(b""))
        assert len(table._waiting) <= fragments.MOST_DATAGRAMS
    table = Fragments()
    for number in range(1000):
        table.add("k", b"h", number * 8, False, b"8 octets", frame(b""))
        assert all(len(each.pieces) <= fragments.MOST_PIECES for each in table._waiting.values())
    table.add("far", b"h", 65528, True, bytes(1000), frame(b""))
    assert "far" not in table._waiting
    table.rest()
    assert table._octets == 0
