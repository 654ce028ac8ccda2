"""Spellings of endpoints."""

import pytest

from natfix.address import Endpoint
from natfix.sip.fields import HostPort
from natfix.spelling import GENERATION, Spelling, inverse_text, shown_text

INSIDE = Endpoint("192.168.1.10", 5060)


@pytest.mark.parametrize(("written", "outside", "shown"), [
    (None, Endpoint("203.0.113.1", 5060), "203.0.113.1"),
    (5060, Endpoint("203.0.113.1", 5060), "203.0.113.1:5060"),
    (None, Endpoint("203.0.113.1", 15060), "203.0.113.1:15060"),
])
def test_an_omitted_port_stays_omitted_where_it_can(
    written: int | None, outside: Endpoint, shown: str,
) -> None:
    """A UA that names no port is shown without one, if the outside port is the default too."""
    assert shown_text(HostPort(0, 0, INSIDE.host, written), outside) == shown


def test_the_usual_spellings_follow_from_the_endpoint() -> None:
    """Nothing has to be remembered for "host:port", nor for "host" on port 5060."""
    assert inverse_text("203.0.113.1:15060", INSIDE) == "192.168.1.10:5060"
    assert inverse_text("203.0.113.1", INSIDE) == "192.168.1.10"


def test_the_rest_is_remembered_for_as_long_as_a_call_may_ring() -> None:
    """A spelling survives one generation, and is gone after two."""
    spelling = Spelling()
    spelling.remember("b1", "via", "203.0.113.1:15060", "192.168.1.10", 0.0)
    spelling.remember("b2", "via", "x", "y", GENERATION + 1)
    assert spelling.recall("b1", "via", "203.0.113.1:15060") == "192.168.1.10"
    spelling.remember("b3", "via", "x", "y", 2 * GENERATION + 2)
    assert spelling.recall("b1", "via", "203.0.113.1:15060") is None
    assert spelling.recall("b3", "contact", "x") is None
