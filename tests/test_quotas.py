"""How fast one host may begin something."""

from __future__ import annotations

import pytest

from natfix.quotas import BURST, MOST_HOSTS, MOST_SHOWN, OTHERS, Quotas, Rates, begins_something

HOST = "192.168.1.10"
RATES = Rates(inside=10, outside=20)


def admitted(quotas: Quotas, count: int, now: float, host: str = HOST, is_inside: bool = True) -> int:
    """Return how many of *count* packets at once are admitted."""
    return sum(quotas.admit(host, is_inside, now) for _ in range(count))


def test_a_burst_is_let_through_and_then_the_rate() -> None:
    """A bucket holds BURST seconds' worth; afterwards exactly the rate gets through."""
    quotas = Quotas(RATES, ())
    assert admitted(quotas, 1000, 0.0) == 10 * BURST
    assert admitted(quotas, 1000, 1.0) == 10
    assert admitted(quotas, 1000, 1.25) == 2


def test_a_packet_costs_more_while_natfix_is_behind() -> None:
    """Where packets come faster than they are treated, a flood is bounded by a quarter of the rate."""
    quotas = Quotas(RATES, ())
    quotas.is_behind = True
    assert admitted(quotas, 1000, 0.0) == 10 * BURST // 4
    assert admitted(quotas, 1000, 2.0) == 10 * 2 // 4
    quotas.is_behind = False
    assert admitted(quotas, 1000, 3.0) == 10 + 2       # what was less than the price is still there


def test_what_goes_on_counts_while_natfix_is_behind_only() -> None:
    """ACK, BYE and responses are never dropped here, unless packets come faster than they are treated."""
    quotas = Quotas(RATES, ())
    assert all(quotas.admit(HOST, True, 0.0, begins=False) for _ in range(1000))
    quotas.is_behind = True
    assert sum(quotas.admit(HOST, True, 0.0, begins=False) for _ in range(1000)) == 10 * BURST


def test_a_quiet_host_saves_up_no_more_than_the_burst() -> None:
    """A day of silence gives no more than BURST seconds' worth."""
    quotas = Quotas(RATES, ())
    assert quotas.admit(HOST, True, 0.0)
    assert admitted(quotas, 1000, 86400.0) == 10 * BURST


def test_hosts_have_buckets_of_their_own() -> None:
    """Who floods takes nothing from another host."""
    quotas = Quotas(RATES, ())
    admitted(quotas, 1000, 0.0)
    assert quotas.admit("192.168.1.11", True, 0.0)
    assert not quotas.admit(HOST, True, 0.0)


def test_outside_hosts_have_their_own_rate() -> None:
    """[limits] requests_per_peer holds for hosts outside."""
    assert admitted(Quotas(RATES, ()), 1000, 0.0, "203.0.113.9", is_inside=False) == 20 * BURST


@pytest.mark.parametrize("rates", [Rates(0, 20), Rates(10, 0)])
def test_zero_is_no_bound(rates: Rates) -> None:
    """Where the operator writes 0 everything is admitted, and nothing is kept."""
    quotas = Quotas(rates, ())
    assert admitted(quotas, 1000, 0.0, is_inside=not rates.inside) == 1000
    assert not quotas.over


def test_named_hosts_have_no_bound() -> None:
    """Peers, trunks and PBXs that the operator names may send as much as they like."""
    assert admitted(Quotas(RATES, {HOST}), 1000, 0.0) == 1000


def test_what_is_over_is_counted_by_host() -> None:
    """Each host has its own count, those beyond the first ones a common one."""
    quotas = Quotas(Rates(1, 1), ())
    for number in range(MOST_SHOWN + 3):
        admitted(quotas, int(BURST) + 2, 0.0, f"10.0.0.{number}")
    assert quotas.over["10.0.0.0"] == 2
    assert quotas.over[OTHERS] == 6


def test_forged_sources_take_no_more_than_their_places() -> None:
    """The buckets are bounded: of too many hosts the one that was quiet longest is forgotten."""
    quotas = Quotas(RATES, ())
    admitted(quotas, 1000, 0.0)
    for number in range(MOST_HOSTS):
        assert quotas.admit(f"host{number}", True, 0.0)
    assert len(quotas._buckets) == MOST_HOSTS
    assert quotas.admit(HOST, True, 0.0)


def test_one_note_a_second() -> None:
    """The journal hears of a flood once a second and host, with the setting that bounds it."""
    quotas = Quotas(Rates(1, 1), ())
    admitted(quotas, 10, 0.0)
    first = quotas.note(HOST, True, 0.0)
    assert first is not None
    assert first.reason == f"[limits] requests_per_host is reached by {HOST}"
    assert quotas.note(HOST, True, 0.9) is None
    assert quotas.note(HOST, True, 1.0) is not None
    admitted(quotas, 10, 1.0, "203.0.113.9", is_inside=False)
    outside = quotas.note("203.0.113.9", False, 1.0)
    assert outside is not None
    assert "requests_per_peer" in outside.reason


@pytest.mark.parametrize("payload", [
    b"INVITE sip:a@b SIP/2.0", b"\r\nREGISTER sip:b SIP/2.0", b"options sip:b S"])
def test_what_begins(payload: bytes) -> None:
    """A request that may begin something is known by its first word."""
    assert begins_something(payload)


@pytest.mark.parametrize("payload", [
    b"BYE sip:a@b SIP/2.0", b"ACK sip:a@b SIP/2.0", b"CANCEL sip:a@b SIP/2.0", b"SIP/2.0 200 OK", b"\r\n\r\n",
    b"", b"INVITED guests"])
def test_what_goes_on(payload: bytes) -> None:
    """What belongs to a running call, answers, and what is no SIP are not counted."""
    assert not begins_something(payload)
