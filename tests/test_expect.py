"""Expectations: what one key may hold, and the words for what it may not."""

from __future__ import annotations

from typing import Any

import pytest

from natfix.address import Endpoint, network_from_text
from natfix.expect import (
    ADVERTISED,
    ENDPOINT,
    HOST,
    INTERFACE,
    MARK,
    NETWORK,
    PATH,
    PORT,
    SOCKET_PATH,
    Expectation,
    Unexpected,
    endpoint_from_setting,
    list_of,
    one_of,
    optional,
    port_range,
    suggestion,
    toml_text,
    whole_number,
)

COLOUR = one_of("red", "green", "blue")

TAKEN = [
    (whole_number(1, 9), 1, 1),
    (whole_number(1, 9), 9, 9),
    (COLOUR, "green", "green"),
    (optional(HOST), "", ""),
    (optional(HOST), "192.0.2.1", "192.0.2.1"),
    (list_of(PORT), [], ()),
    (list_of(PORT), [5060, 5062], (5060, 5062)),
    (port_range(1024), [1024, 65535], (1024, 65535)),
    (NETWORK, "10.0.0.0/8", network_from_text("10.0.0.0/8")),
    (NETWORK, "10.1.2.3", network_from_text("10.1.2.3/32")),
    (MARK, 0x80000000, 0x80000000),
    (MARK, 1, 1),
    (ENDPOINT, "192.0.2.1", "192.0.2.1"),
    (ENDPOINT, "192.0.2.1:65535", "192.0.2.1:65535"),
    (ADVERTISED, "192.0.2.1", "192.0.2.1"),
    (ADVERTISED, "stun:stun.example.net", "stun:stun.example.net"),
    (ADVERTISED, "stun:192.0.2.1:65535", "stun:192.0.2.1:65535"),
    (INTERFACE, "eth0.10@if3", "eth0.10@if3"),
    (PATH, "/a", "/a"),
    (SOCKET_PATH, "/" + "x" * 106, "/" + "x" * 106),
]

REFUSED = [
    (whole_number(1, 9), 0),
    (whole_number(1, 9), 10),
    (whole_number(1, 9), True),
    (whole_number(1, 9), 5.0),
    (whole_number(1, 9), "5"),
    (COLOUR, "pink"),
    (COLOUR, ["red"]),
    (COLOUR, ""),
    (optional(HOST), 0),
    (HOST, "127.0.0.1"),
    (HOST, "224.0.0.1"),
    (HOST, "169.254.1.1"),
    (HOST, "::1"),
    (HOST, "example.org"),
    (HOST, "192.0.2.256"),
    (list_of(PORT), 5060),
    (list_of(PORT, 1), []),
    (list_of(PORT, 0, 2), [1, 2, 3]),
    (list_of(PORT), [5060, 5060]),
    (list_of(PORT), [0]),
    (port_range(1024), [1023, 2000]),
    (port_range(1024), [2000, 2000]),
    (port_range(1024), [2000, 65536]),
    (port_range(1024), [2000]),
    (port_range(1024), [2000, True]),
    (port_range(1024), "2000-3000"),
    (NETWORK, "10.0.0.1/8"),
    (NETWORK, "10.0.0.0/33"),
    (NETWORK, 10),
    (MARK, 0),
    (MARK, 3),
    (MARK, 1 << 32),
    (MARK, True),
    (ENDPOINT, "192.0.2.1:"),
    (ENDPOINT, "192.0.2.1:0"),
    (ENDPOINT, "192.0.2.1:65536"),
    (ENDPOINT, "192.0.2.1:5060x"),
    (ENDPOINT, "127.0.0.1:5060"),
    (ADVERTISED, "stun.example.net"),
    (ADVERTISED, "stun:"),
    (ADVERTISED, "stun:a:65536"),
    (ADVERTISED, "stun:a:0"),
    (ADVERTISED, "127.0.0.1"),
    (INTERFACE, "a" * 16),
    (INTERFACE, "a b"),
    (INTERFACE, ""),
    (PATH, "relative"),
    (PATH, "/a\0b"),
    (SOCKET_PATH, "/" + "x" * 107),
]


@pytest.mark.parametrize(("expected", "value", "read"), TAKEN)
def test_takes(expected: Expectation, value: Any, read: Any) -> None:
    """What an expectation allows is read, bounds included."""
    assert expected.read(value) == read


@pytest.mark.parametrize(("expected", "value"), REFUSED)
def test_refuses(expected: Expectation, value: Any) -> None:
    """What an expectation does not allow is refused, never bent into shape."""
    with pytest.raises(Unexpected):
        expected.read(value)


def test_misspelt_word_is_suggested() -> None:
    """A word that is nearly right is answered with the right one."""
    with pytest.raises(Unexpected, match=r'must be "red", "green" or "blue"; did you mean "green"\?'):
        COLOUR.read("gren")


def test_far_word_gets_no_suggestion() -> None:
    """A word that resembles nothing gets no guess."""
    assert suggestion("zzzz", ("red", "green")) == ""


def test_wrong_entry_is_named() -> None:
    """A list with a wrong entry says which one, and what was expected of it."""
    with pytest.raises(Unexpected, match="has 70000, which must be a whole number from 1 to 65535"):
        list_of(PORT).read([5060, 70000])


def test_doubled_entry_is_named() -> None:
    """A list that holds a value twice says which one."""
    with pytest.raises(Unexpected, match="names 5060 twice"):
        list_of(PORT).read([5060, 5061, 5060])


def test_endpoint_takes_the_default_port() -> None:
    """An endpoint without a port has the default one; one with a port keeps it."""
    assert endpoint_from_setting("192.0.2.1", 5060) == Endpoint("192.0.2.1", 5060)
    assert endpoint_from_setting("192.0.2.1:15060", 5060) == Endpoint("192.0.2.1", 15060)


@pytest.mark.parametrize(("value", "written"), [
    (True, "true"),
    (["a", 1], '["a", 1]'),
    ("x\ny", '"x\\ny"'),
    ("x" * 100, '"' + "x" * 56 + "..."),
])
def test_values_are_shown_as_written(value: Any, written: str) -> None:
    """A message shows a value in TOML's spelling, on one line and short."""
    assert toml_text(value) == written
