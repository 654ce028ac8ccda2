"""Calls and bindings as rows, and back."""

import json

import pytest

from natfix.address import Endpoint
from natfix.dialogs import Call, CallKey, Dialog, ExchangeKey, Line, Role, Side, State
from natfix.registrations import Binding, BindingKey
from natfix.rows import Stream, binding_from_row, call_from_row, row_from_binding, row_from_call

PHONE, PROVIDER = Endpoint("192.168.1.10", 5060), Endpoint("198.51.100.7", 5060)
RTP, MAPPED = Endpoint("192.168.1.10", 4000), Endpoint("203.0.113.1", 30000)
SAID = (Line(0, "audio", RTP, None, ("198.51.100.9",), 2), Line(1, "image", None, None))


def stored(row: object) -> object:
    """Return *row* as the store gives it back."""
    return json.loads(json.dumps(row))


def test_a_binding_survives_the_store() -> None:
    """Spelling, registrar and expiry come back as they were."""
    binding = Binding(BindingKey(PHONE, "a@example.net"), "a", "192.168.1.10", "203.0.113.1:15060",
                      PROVIDER, 4600.0, 1000.0, "Phone/1")
    again = binding_from_row(stored(row_from_binding(binding)))
    assert row_from_binding(again) == row_from_binding(binding)
    assert again.holder == binding.holder


def test_a_binding_made_through_a_proxy_survives_the_store() -> None:
    """The proxy is part of its name; a row of before natfix knew of that has none."""
    proxy = Endpoint("192.168.1.2", 5060)
    row = row_from_binding(Binding(BindingKey(PHONE, "a@example.net", proxy), "a", str(PHONE), str(PHONE),
                                   PROVIDER, 4600.0, 1000.0))
    again = binding_from_row(stored(row))
    assert again.key.reached_at == proxy
    assert str(proxy) in again.holder
    del row["proxy"]
    assert binding_from_row(row).key.reached_at == PHONE


def test_a_call_survives_the_store() -> None:
    """Tags, peers, spelling, descriptions and mappings come back; what was proposed counts as agreed."""
    call = Call(CallKey(PHONE.host, "c1", "f", Role.CALLEE), "INVITE", PHONE, PROVIDER, 1.0, 7,
                "sip:a@example.net", "sip:b@example.net", {PROVIDER.host})
    dialog = Dialog("t", State.CONFIRMED, {Side.INSIDE: SAID})
    dialog.propose(ExchangeKey(False, 8), Side.OUTSIDE, SAID)
    call.dialogs["t"] = dialog
    call.written["contact", "203.0.113.1:15060"] = "192.168.1.10"
    again, media, outside = call_from_row(stored(row_from_call(call, [Stream(RTP, MAPPED)], MAPPED)))
    assert (again.key, again.peer, again.peers, again.written) == (
        call.key, call.peer, call.peers, call.written)
    assert again.dialogs["t"].agreed == {Side.INSIDE: SAID, Side.OUTSIDE: SAID}
    assert again.state is State.CONFIRMED
    assert media == [Stream(RTP, MAPPED)]
    assert outside == MAPPED


def test_refusals_survive_the_store() -> None:
    """An m-line that was answered with port 0 stays refused, unless an offer was under way."""
    call = Call(CallKey(PHONE.host, "c1", "f", Role.CALLER), "INVITE", PHONE, PROVIDER, 1.0)
    dialog = call.dialogs["t"] = Dialog("t", State.CONFIRMED, {Side.INSIDE: SAID}, refused=frozenset({1}))
    row = row_from_call(call, [], MAPPED)
    assert call_from_row(stored(row))[0].dialogs["t"].refused == {1}
    dialog.propose(ExchangeKey(True, 8), Side.INSIDE, SAID)
    assert call_from_row(stored(row_from_call(call, [], MAPPED)))[0].dialogs["t"].refused == set()
    del row["dialogs"][0]["refused"]
    assert call_from_row(row)[0].dialogs["t"].refused == set()


@pytest.mark.parametrize("row", [{}, {"key": []}, {"key": ["h", "c", "t", "nobody"]}])
def test_a_damaged_row_raises_what_the_reader_expects(row: dict[str, object]) -> None:
    """A row that was cut or written by something else is told apart from a bug."""
    with pytest.raises((KeyError, TypeError, ValueError)):
        call_from_row(row)
    with pytest.raises((KeyError, TypeError, ValueError)):
        binding_from_row(row)
