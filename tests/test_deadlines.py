"""The heap of deadlines."""

from hypothesis import given
from hypothesis import strategies as st

from natfix.deadlines import FEW, NEVER, Deadlines


def test_due_keys_come_earliest_first() -> None:
    """What is due first is done first."""
    deadlines = Deadlines()
    deadlines.set(("call", 2), 20.0)
    deadlines.set(("call", 1), 10.0)
    assert deadlines.next() == 10.0
    assert list(deadlines.pop_expired(20.0)) == [("call", 1), ("call", 2)]
    assert deadlines.next() is None


def test_setting_again_moves_a_deadline() -> None:
    """A key has one deadline; the one before is forgotten, in either direction."""
    deadlines = Deadlines()
    deadlines.set(("call", 1), 10.0)
    deadlines.set(("call", 1), 30.0)
    assert list(deadlines.pop_expired(29.0)) == []
    deadlines.set(("call", 1), 5.0)
    assert list(deadlines.pop_expired(29.0)) == [("call", 1)]


def test_an_earlier_deadline_stands() -> None:
    """To bring forward is to make earlier, never later."""
    deadlines = Deadlines()
    deadlines.bring_forward(("call", 1), 10.0)
    deadlines.bring_forward(("call", 1), 30.0)
    assert deadlines.next() == 10.0
    deadlines.bring_forward(("call", 1), 5.0)
    assert deadlines.next() == 5.0


def test_moving_a_deadline_costs_no_memory() -> None:
    """A call of hours moves its deadline with each message."""
    deadlines = Deadlines()
    for when in range(1000):
        deadlines.set(("call", 1), float(when))
    assert len(deadlines._heap) == 1


def test_never_takes_a_deadline_off() -> None:
    """A key that is never due is not in the heap."""
    deadlines = Deadlines()
    deadlines.set(("call", 1), 10.0)
    deadlines.set(("call", 1), NEVER)
    assert deadlines.next() is None
    assert len(deadlines) == 0


def test_what_is_over_leaves_no_memory() -> None:
    """Calls that end, and phones that leave, before their time are not kept until it."""
    deadlines = Deadlines()
    for number in range(10_000):
        deadlines.set(("call", number), 3600.0 + number)
        deadlines.set(("call", number), number + 2.0)
        assert list(deadlines.pop_expired(number + 2.0)) == [("call", number)]
    assert len(deadlines._heap) < 1000


SETTINGS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 50) | st.just(NEVER)), max_size=40)


@given(SETTINGS, SETTINGS, st.integers(0, 50), st.integers(0, 50), st.sampled_from([FEW, -20, 0]))
def test_just_the_due_ones_leave(
    settings: list[tuple[int, float]], later: list[tuple[int, float]], now: int, then: int, few: int,
) -> None:
    """Whatever was set in whatever order, before and after some left, however often it was swept: what
    leaves is what is due, once."""
    deadlines, model = Deadlines(few), {}
    for changes, until in ((settings, now), (later, then)):
        for key, when in changes:
            deadlines.set(("k", key), float(when))
            model["k", key] = float(when)
        expired = list(deadlines.pop_expired(float(until)))
        assert sorted(expired) == sorted(key for key, when in model.items() if when <= until)
        model = {key: when for key, when in model.items() if until < when < NEVER}
        assert deadlines.next() == min(model.values(), default=None)
        assert len(deadlines) == len(model)
