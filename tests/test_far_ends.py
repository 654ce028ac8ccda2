"""natfix.far_ends: bounds, and who gives way."""

from __future__ import annotations

from natfix.address import Endpoint
from natfix.far_ends import IDLE, MOST_CONTACTS, FarEnd, FarEnds

SIGNS = frozenset({"contact-private"})


def source(number: int) -> Endpoint:
    return Endpoint("198.51.100.7", 40000 + number)


def test_who_is_not_registered_gives_way() -> None:
    """A flood of REGISTERs that nobody answers pushes out no registered phone."""
    ends = FarEnds(3)
    phone = ends.note(source(0), SIGNS, "phone", 1.0)
    assert phone is not None
    ends.bind(phone, "a@example.net", 3600.0, 1.0)
    for number in range(1, 100):
        assert ends.note(source(number), SIGNS, "", 2.0) is not None
    assert len(ends) == 3
    assert ends.find(source(0)) is phone
    assert [far.source for far in ends][1:] == [source(98), source(99)]


def test_full_of_registered_ones() -> None:
    """Where all are registered there is no room, until one runs out."""
    ends = FarEnds(1)
    phone = ends.note(source(0), SIGNS, "phone", 1.0)
    assert phone is not None
    ends.bind(phone, "a@example.net", 60.0, 1.0)
    assert ends.note(source(1), SIGNS, "", 2.0) is None
    assert ends.note(source(1), SIGNS, "", 61.0) is not None


def test_time_ends_all() -> None:
    """A binding that ran out makes a phone one of those that are forgotten after IDLE seconds."""
    ends = FarEnds(10)
    for number in range(2):
        far = ends.note(source(number), SIGNS, "", 1.0 + number)
        assert far is not None
        ends.bind(far, "a@example.net", 60.0, 1.0)
    assert ends.pop_expired(IDLE + 1.5)
    assert [far.source for far in ends] == [source(1)]
    assert not ends.pop_expired(IDLE + 2.0)
    assert ends.changed == {source(0), source(1)}


def test_one_phone_is_bounded() -> None:
    """Neither Contacts nor addresses-of-record of one source grow without end; known ones can change."""
    far = FarEnd(source(0), SIGNS, 1.0)
    for number in range(2 * MOST_CONTACTS):
        far.note_contact(str(number), f"10.0.0.{number}")
        far.note_binding(str(number), 60.0)
    assert len(far.written) == len(far.bindings) == MOST_CONTACTS
    assert far.note_contact("0", "10.9.9.9:5062")
    assert far.written_for("0") == "10.9.9.9:5062"
    far.note_binding("0", 0)
    assert "0" not in far.bindings
