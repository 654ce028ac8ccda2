"""What the daemon keeps for those who look, asked as the control socket asks."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from natfix.errors import NatfixError
from natfix.journal import Decision, Journal
from natfix.packet import datagram
from natfix.seeing import Seeing
from tests.playbook import Delivery, World
from tests.schema import problems
from tests.standins import SKELETON


class Gateway:
    """A playbook's world whose decisions and events come to a journal, as the loop has them."""

    def __init__(self) -> None:
        self.world = World()
        self.journal = Journal()
        self.loop = SimpleNamespace(journal=self.journal, skeleton=SKELETON, clock=lambda: self.world.now,
                                    engine=self.world.engine, kernel=self.world.kernel)
        upkeep = SimpleNamespace(count=lambda flows, now, with_refused: self.world.poll_counters())
        self.seeing = Seeing(cast(Any, self.loop), cast(Any, upkeep))

    def ask(self, command: str, **more: Any) -> dict[str, Any]:
        self.play()
        return {"schema_version": 1, **self.seeing.handlers()[command]({"command": command, **more})}

    def play(self) -> None:
        self.journal.tell(self.world.engine.pop_events())
        for entry in self.world.log:
            if isinstance(entry, Delivery):
                is_inside = entry.source.host.startswith("192.168.")
                raw = datagram(entry.source, entry.destination, entry.payload)
                where = "forward lan0 wan0" if is_inside else "forward wan0 lan0"
                self.journal.record(Decision(entry.at, where, entry.outcome, False, raw))
        self.world.log.clear()


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


def test_notes_can_be_filtered(gateway: Gateway) -> None:
    """By a part of the Call-ID, by a host at either end or in a note, by a rule; and by count, after that."""
    world = gateway.world
    world.register(world.phone)
    call = world.call(world.other_phone, world.provider)
    everything = gateway.ask("notes")
    assert problems(everything, "notes") == []
    of_call = gateway.ask("notes", call=call.caller.call_id[:6])["decisions"]
    assert {entry["call_id"] for entry in of_call} == {call.caller.call_id}
    of_host = gateway.ask("notes", host=world.phone.endpoint.host)["decisions"]
    assert len(of_host) + len(of_call) == len(everything["decisions"])
    assert gateway.ask("notes", host=world.phone.endpoint.host[:-1])["decisions"] == []
    of_rule = gateway.ask("notes", rule="sdp-media")["decisions"]
    assert [entry["summary"].split()[0] for entry in of_rule] == ["INVITE"]
    assert gateway.ask("notes", host=world.phone.endpoint.host, count=1)["decisions"] == of_host[-1:]


def test_uas(gateway: Gateway) -> None:
    """Phone and provider are there, with their sides."""
    gateway.world.register(gateway.world.phone)
    answer = gateway.ask("uas")
    assert problems(answer, "uas") == []
    sides = {row["address"]: row["side"] for row in answer["uas"]}
    world = gateway.world
    assert sides == {str(world.phone.endpoint): "inside", str(world.provider.endpoint): "outside"}


def test_monitor_is_wired(gateway: Gateway) -> None:
    """Who follows gets the events from now on, until he goes."""
    rows: list[Mapping[str, Any]] = []

    def push(row: Mapping[str, Any]) -> bool:
        rows.append(row)
        return True

    end = gateway.seeing.streamers()["monitor"]({"command": "monitor"}, push)
    gateway.world.register(gateway.world.phone)
    gateway.play()
    assert [row["event"] for row in rows] == ["registered"]
    end()
    gateway.world.register(gateway.world.other_phone)
    gateway.play()
    assert len(rows) == 1


def test_filters_are_text(gateway: Gateway) -> None:
    """A request that is not what it should be is refused in a sentence."""
    with pytest.raises(NatfixError, match='"call" is to be text'):
        gateway.ask("notes", call=7)
