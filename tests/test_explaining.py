"""`natfix explain CALL`, from calls of the playbook: by its schema, and what the kernel holds."""

from __future__ import annotations

from typing import Any

import pytest

from natfix.errors import NatfixError
from natfix.explaining import held_for
from tests.schema import problems
from tests.test_seeing import Gateway


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


def explained(gateway: Gateway, call_id: str) -> dict[str, Any]:
    """Ask for a call, and check the answer's shape."""
    answer = gateway.ask("explain", call=call_id)
    assert problems(answer, "explain-call") == []
    return answer


def test_a_live_call(gateway: Gateway) -> None:
    """Messages, edits, elements and entries of one inside party, and what both sides agreed on."""
    world = gateway.world
    call = world.call(world.phone, world.provider)
    answer = explained(gateway, call.caller.call_id)
    assert [event["event"] for event in answer["events"]] == ["call", "ringing", "answered"]
    assert len(answer["messages"]) == 5
    party, = answer["parties"]
    assert (party["state"], party["outside"]) == ("confirmed", "203.0.113.1:5060")
    assert {element["set"] for element in party["elements"]} == {"signalling_out", "media_out"}
    assert all(element["present"] for element in party["elements"])
    ports = {(entry["source"], entry["destination"]) for entry in party["entries"]}
    assert (str(world.phone.rtp), str(world.provider.rtp)) in ports
    assert all(entry["present"] for entry in party["entries"])
    stream, = party["streams"]
    assert (stream["inside"], stream["remote"]) == (str(world.phone.rtp), str(world.provider.rtp))


def test_what_somebody_flushed_is_missing(gateway: Gateway) -> None:
    """The kernel is asked at that moment: an entry that has gone is shown as such."""
    world = gateway.world
    call = world.call(world.phone, world.provider)
    world.kernel.counters = lambda flows: {}        # type: ignore[method-assign]
    party, = explained(gateway, call.caller.call_id)["parties"]
    assert party["entries"]
    assert not any(entry["present"] for entry in party["entries"])


def test_an_ended_call(gateway: Gateway) -> None:
    """Its messages and its end are there for a while; the kernel holds nothing of its media."""
    world = gateway.world
    call = world.call(world.phone, world.provider)
    call.hang_up()
    world.advance(40)
    answer = explained(gateway, call.caller.call_id)
    assert answer["events"][-1]["why"] == "BYE from inside"
    party, = answer["parties"]
    assert party["state"] == "ended"
    assert not any("media" in element["set"] for element in party["elements"])
    assert "audio" not in party


def test_both_parties_inside(gateway: Gateway) -> None:
    """A call between two phones here has two parties under one Call-ID."""
    world = gateway.world
    for phone in (world.phone, world.other_phone):
        world.register(phone)
    uri = world.registered_uri(world.other_phone)
    leg = world.phone.invites(uri, world.resolve_uri(uri))
    world.answer(leg, world.other_phone)
    answer = explained(gateway, leg.call_id)
    assert sorted(party["role"] for party in answer["parties"]) == ["callee", "caller"]


def test_which_call(gateway: Gateway) -> None:
    """No call, and more than one, are a sentence each."""
    world = gateway.world
    world.call(world.phone, world.provider)
    world.call(world.other_phone, world.provider)
    with pytest.raises(NatfixError, match="2 calls have that in their Call-ID: '"):
        gateway.ask("explain", call="@test")
    for nothing in ("no such", ""):
        with pytest.raises(NatfixError, match="no call has that"):
            gateway.ask("explain", call=nothing)


def test_others_elements_are_not_shown(gateway: Gateway) -> None:
    """What another call holds of the same phone is not this call's."""
    world = gateway.world
    first = world.call(world.phone, world.provider)
    world.phone.rtp = world.phone.rtp._replace(port=13000)
    world.call(world.phone, world.provider)
    gateway.play()
    history, = gateway.seeing.chronicle.find(first.caller.call_id)
    held = held_for(history.calls[0], world.engine.mappings)
    assert {flow.source.port for flow in held.flows} & {13000, 13001} == set()
