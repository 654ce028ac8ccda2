"""The memory of retransmissions."""

from natfix.address import Endpoint
from natfix.repeats import LIFETIME, Repeats, Treated

HERE, THERE = Endpoint("192.168.1.10", 5060), Endpoint("192.0.2.1", 5060)


def test_only_the_same_bytes_on_the_same_path_are_a_repeat() -> None:
    """Another payload, sender or receiver is another message."""
    repeats, treated = Repeats(), Treated(((0, 1, b"x"),), [], "INVITE", "c")
    repeats.remember(HERE, THERE, b"INVITE", treated, 0.0)
    assert repeats.find(HERE, THERE, b"INVITE") is treated
    assert repeats.find(THERE, HERE, b"INVITE") is None
    assert repeats.find(HERE, THERE, b"INVITE ") is None


def test_a_repeat_is_known_for_64_t1() -> None:
    """Edits outlive a transaction's last retransmission, and are then forgotten."""
    repeats = Repeats()
    repeats.remember(HERE, THERE, b"1", Treated((), [], "", ""), 0.0)
    repeats.remember(HERE, THERE, b"2", Treated((), [], "", ""), LIFETIME + 1)
    assert repeats.find(HERE, THERE, b"1") is not None
    repeats.remember(HERE, THERE, b"3", Treated((), [], "", ""), 2 * LIFETIME + 2)
    assert repeats.find(HERE, THERE, b"1") is None
