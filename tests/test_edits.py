"""Pins edits: made once, against the original offsets, and nothing else changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natfix.commands import Note
from natfix.edits import Edits, apply_edits

RAW = b"c=IN IP4 192.168.1.10\r\nm=audio 4000"
ADDRESS = (9, 21)
PORT = (31, 35)
Wanted = list[tuple[int, int, bytes]]


@st.composite
def wanted_edits(draw: st.DrawFn) -> tuple[bytes, Wanted]:
    """Draw bytes, and edits of them that do not overlap, in any order."""
    raw = draw(st.binary(max_size=60))
    points = sorted(draw(st.lists(st.integers(0, len(raw)), max_size=10)))
    spans = {pair for pair in zip(points[::2], points[1::2], strict=False) if pair[0] < pair[1]}
    wanted = [(start, end, draw(st.binary(max_size=6))) for start, end in sorted(spans)]
    return raw, draw(st.permutations(wanted))


def collected(raw: bytes, wanted: Wanted) -> Edits:
    """Return the edits that come of *wanted*."""
    edits = Edits(raw)
    for start, end, new in wanted:
        edits.replace(start, end, new)
    return edits


def test_edits_are_made_at_their_original_places() -> None:
    """The order in which they were collected, and their lengths, do not matter."""
    edits = collected(RAW, [(*PORT, b"30000"), (*ADDRESS, b"203.0.113.1")])
    assert edits.apply() == b"c=IN IP4 203.0.113.1\r\nm=audio 30000"
    assert edits.as_tuple() == ((*ADDRESS, b"203.0.113.1"), (*PORT, b"30000"))


def test_deltas() -> None:
    """The difference in length is known for all, and for what follows an offset."""
    edits = collected(RAW, [(*PORT, b"30000"), (*ADDRESS, b"203.0.113.100")])
    assert (edits.delta, edits.delta_after(0), edits.delta_after(22), edits.delta_after(32)) == (2, 2, 1, 0)


def test_the_same_bytes_are_no_edit() -> None:
    """What is right already is left alone, and its note is dropped."""
    edits = Edits(RAW)
    edits.replace(*ADDRESS, b"192.168.1.10", Note("sdp-connection"))
    assert not edits
    assert edits.notes == []
    assert edits.apply() == RAW


def test_notes_are_kept_in_the_order_of_decisions() -> None:
    """An edit with a reason brings it along; one without is allowed."""
    edits = Edits(RAW)
    edits.replace(*PORT, b"30000", Note("second"))
    edits.replace(*ADDRESS, b"203.0.113.1", Note("first"))
    edits.replace(0, 1, b"C")
    assert edits
    assert [note.rule for note in edits.notes] == ["second", "first"]


@pytest.mark.parametrize(("start", "end"), [(9, 21), (10, 12), (0, 10), (20, 25), (5, 30), (15, 15)])
def test_overlap_is_a_mistake_of_ours(start: int, end: int) -> None:
    """Two edits of the same bytes would depend on their order; the first one stands."""
    edits = collected(RAW, [(*ADDRESS, b"x")])
    with pytest.raises(ValueError, match="overlaps"):
        edits.replace(start, end, b"yy")
    assert edits.as_tuple() == ((*ADDRESS, b"x"),)


def test_two_insertions_in_one_place_are_a_mistake() -> None:
    """Nothing says which of them comes first."""
    edits = collected(RAW, [(9, 9, b"x")])
    with pytest.raises(ValueError, match="overlaps"):
        edits.replace(9, 9, b"y")


def test_edits_may_touch() -> None:
    """Neighbours, and an insertion next to a replacement, are no overlap."""
    edits = collected(b"abcdef", [(2, 4, b"CD"), (0, 2, b"AB"), (4, 4, b"-"), (4, 6, b"EF")])
    assert edits.apply() == b"ABCD-EF"


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (3, 2), (0, len(RAW) + 1)])
def test_edits_lie_in_the_message(start: int, end: int) -> None:
    """A span of another message is found out at once."""
    with pytest.raises(ValueError, match="is no span"):
        Edits(RAW).replace(start, end, b"x")


@given(st.binary(max_size=60))
def test_no_edit_means_identical_bytes(raw: bytes) -> None:
    """Nothing is parsed and printed again."""
    assert Edits(raw).apply() == raw
    assert apply_edits(raw, ()) == raw


@given(wanted_edits())
def test_bytes_outside_the_edits_are_identical(case: tuple[bytes, Wanted]) -> None:
    """The result is the original with just the wanted spans replaced, made from the end backwards."""
    raw, wanted = case
    expected = raw
    for start, end, new in sorted(wanted, reverse=True):
        expected = expected[:start] + new + expected[end:]
    edits = collected(raw, wanted)
    assert edits.apply() == expected
    assert apply_edits(raw, edits.as_tuple()) == expected
    assert len(expected) - len(raw) == edits.delta == edits.delta_after(0)


@given(
    st.binary(max_size=40),
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40), st.binary(max_size=3))),
)
def test_what_is_accepted_never_overlaps(raw: bytes, wanted: Wanted) -> None:
    """Whatever is asked for, the accepted edits stand in order and apart."""
    edits = Edits(raw)
    for start, end, new in wanted:
        try:
            edits.replace(start, end, new)
        except ValueError:
            continue
    position = 0
    for start, end, _ in edits.as_tuple():
        assert position <= start <= end <= len(raw)
        position = end
