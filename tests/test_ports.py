"""The media pool and the choice of signalling ports."""

from functools import partial
from operator import eq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natfix.address import Endpoint
from natfix.errors import LimitReached
from natfix.ports import MOST_TRIED, PortPool, choose_signalling_port

PHONE = Endpoint("192.168.1.10", 5060)


def test_a_pair_begins_even() -> None:
    """RTP gets an even port and RTCP the odd one above it (RFC 3550, section 11)."""
    pool = PortPool(30001, 30010)
    assert pool.take(2, False, "", 0.0) == 30002


def test_parity_is_kept() -> None:
    """An odd inside port gets an odd outside port (RFC 4787, REQ-4)."""
    pool = PortPool(30000, 30019)
    assert pool.take(2, True, "", 0.0) % 2 == 1
    assert pool.take(2, False, "", 0.0) % 2 == 0


def test_the_longest_unused_pair_is_taken_first() -> None:
    """A freed pair goes to the end of the list."""
    pool = PortPool(30000, 30005)
    first = pool.take(2, False, "", 0.0)
    for port in (first, first + 1):
        pool.give_back(port, "", 1.0)
    assert [pool.take(2, False, "", 2.0) for _ in range(3)] == [30002, 30004, 30000]


def test_another_range() -> None:
    """After resize() only ports of the new range are given out; who holds one keeps it, inside it or not."""
    pool = PortPool(30000, 30005)
    held = [pool.take(2, False, "", 0.0) for _ in range(2)]
    pool.resize(30002, 30009)
    assert held == [30000, 30002]
    assert (pool.size, pool.free) == (4, 3)
    assert {pool.take(2, False, "", 0.0) for _ in range(3)} == {30004, 30006, 30008}
    for port in (30000, 30001, 30002, 30003):
        pool.give_back(port, "", 1.0)
    assert pool.take(2, False, "", 2.0) == 30002
    assert pool.free == 0


def test_a_pair_does_not_meet_the_same_remote_again_soon() -> None:
    """For 120 s a freed pair is kept from its last remote while others are free."""
    pool = PortPool(30000, 30003)
    for remote in ("192.0.2.1", "192.0.2.2"):
        base = pool.take(2, False, remote, 0.0)
        pool.give_back(base, remote, 0.0)
        pool.give_back(base + 1, remote, 0.0)
    assert pool.take(2, False, "192.0.2.1", 60.0) == 30002
    pool.give_back(30002, "192.0.2.2", 60.0)
    pool.give_back(30003, "192.0.2.2", 60.0)
    assert pool.take(2, False, "192.0.2.1", 121.0) == 30000


def test_half_a_pair_in_use_keeps_the_other_half() -> None:
    """RTCP's port is not given to another call while RTP's is in use."""
    pool = PortPool(30000, 30001)
    base = pool.take(2, False, "", 0.0)
    pool.give_back(base + 1, "", 0.0)
    with pytest.raises(LimitReached):
        pool.take(1, False, "", 0.0)
    pool.give_back(base, "", 0.0)
    assert pool.take(1, False, "", 0.0) == base


def test_an_empty_pool_says_which_setting_it_is() -> None:
    """The operator learns which limit was reached."""
    pool = PortPool(30000, 30001)
    pool.take(2, False, "", 0.0)
    with pytest.raises(LimitReached, match=r"\[media\] ports"):
        pool.take(2, False, "", 0.0)


def test_ports_of_others_are_passed_over() -> None:
    """A local socket or an operator's forward on a pool port is never collided with."""
    pool = PortPool(30000, 30005)
    pool.excluded = frozenset({30001})
    assert pool.take(2, False, "", 0.0) == 30002


@given(st.lists(st.tuples(st.integers(1, 6), st.booleans()), max_size=30))
def test_no_port_is_given_twice(requests: list[tuple[int, bool]]) -> None:
    """Whatever is asked for, no two holders share a port, and runs are whole."""
    pool, used = PortPool(30000, 30063), set()
    for count, odd in requests:
        try:
            first = pool.take(count, odd, "", 0.0)
        except LimitReached:
            continue
        ports = set(range(first, first + count))
        assert not ports & used
        assert first % 2 == odd
        assert all(port in pool for port in ports)
        used |= ports


def test_signalling_prefers_in_order_and_then_spreads() -> None:
    """Preferred ports come first; then a place that depends on the endpoints only."""
    taken = {5060}
    chosen = choose_signalling_port(PHONE, "203.0.113.1", [5060, 5062], (20000, 20999),
                                    lambda port: port not in taken)
    assert chosen == 5062
    taken.add(5062)
    spread = [choose_signalling_port(PHONE, "203.0.113.1", [5060, 5062], (20000, 20999),
                                     lambda port: port not in taken) for _ in range(2)]
    assert spread[0] == spread[1]
    assert 20000 <= spread[0] <= 20999


def test_a_signalling_port_is_found_in_a_crowd() -> None:
    """Every port of a small range is found, whatever its width; one of a hundred in a large range soon
    though the taken ones lie side by side; a full range costs no more than a thousand questions."""
    for width in (1, 2, 100, 1000):
        for free in (20000, 20000 + width // 2, 20000 + width - 1):
            spare = 20000, 20000 + width - 1
            assert choose_signalling_port(PHONE, "h", [], spare, partial(eq, free)) == free
    asked: list[int] = []

    def is_free(port: int) -> bool:
        asked.append(port)
        return port >= 29900

    assert choose_signalling_port(PHONE, "h", [], (20000, 29999), is_free) >= 29900
    assert len(asked) < 500
    asked.clear()
    with pytest.raises(LimitReached):
        choose_signalling_port(PHONE, "h", [], (20000, 29899), is_free)
    assert len(set(asked)) == len(asked) == MOST_TRIED


def test_signalling_ports_run_out_with_a_sentence() -> None:
    """No free port names the setting."""
    with pytest.raises(LimitReached, match="outside_ports"):
        choose_signalling_port(PHONE, "203.0.113.1", [5060], (20000, 20003), lambda port: False)
