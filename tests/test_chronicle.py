"""Histories of calls: whole for live ones, kept a while for ended ones, bounded for all."""

from __future__ import annotations

import pytest

from natfix import chronicle
from natfix.chronicle import MOST_ENDED, MOST_MESSAGES, Chronicle
from natfix.journal import Decision
from tests.playbook import Delivery, World


def feed(kept: Chronicle, world: World) -> None:
    """Give the chronicle all that has happened, as the journal does: events first."""
    kept.on_events(world.engine.pop_events())
    for entry in world.log:
        if isinstance(entry, Delivery):
            kept.on_decision(Decision(entry.at, "forward lan0 wan0", entry.outcome, False))
    world.log.clear()


@pytest.fixture
def world() -> World:
    return World()


def test_a_call_is_kept_whole(world: World) -> None:
    """Each message once, with where it came in and went out, and its notes; registrations are not kept."""
    kept = Chronicle()
    world.register(world.phone)
    call = world.call(world.phone, world.provider)
    feed(kept, world)
    history, = kept.find(call.caller.call_id)
    methods = [message.line.split()[0 if message.line[0] != "S" else 1] for message in history.messages]
    assert methods == ["INVITE", "100", "180", "200", "ACK"]
    invite = history.messages[0]
    assert (invite.source, invite.shown_source.host) == (world.phone.endpoint, "203.0.113.1")
    assert {note.rule for note in invite.notes} >= {"via", "contact", "sdp-media"}
    assert kept.find("nothing like it") == []


@pytest.mark.parametrize(("protocol", "is_dropped"), [(17, True), (6, False)])
def test_what_is_dropped(world: World, protocol: int, is_dropped: bool) -> None:
    """A datagram that is dropped is a message that is; a segment's goes on in another segment."""
    kept = Chronicle()
    call = world.call(world.phone, world.provider)
    kept.on_events(world.engine.pop_events())
    first = next(entry for entry in world.log if isinstance(entry, Delivery))
    first.outcome.treated[:] = [each._replace(protocol=protocol) for each in first.outcome.treated]
    kept.on_decision(Decision(first.at, "forward lan0 wan0", first.outcome, True))
    message, = kept.find(call.caller.call_id)[0].messages
    assert message.dropped is is_dropped


def test_a_part_of_the_call_id_is_enough(world: World) -> None:
    """All that have it are found; the whole Call-ID finds one even where it is a part of another."""
    kept = Chronicle()
    calls = [world.call(world.phone, world.provider), world.call(world.other_phone, world.provider)]
    feed(kept, world)
    assert len(kept.find("@test")) == 2
    for call in calls:
        assert [history.call_id for history in kept.find(call.caller.call_id)] == [call.caller.call_id]


def test_ended_calls_make_room(world: World) -> None:
    """Of ended calls the last MOST_ENDED are kept; a live one stays, however old it is."""
    kept = Chronicle()
    live = world.call(world.phone, world.provider)
    ended = []
    for _ in range(MOST_ENDED + 2):
        call = world.call(world.other_phone, world.provider)
        call.hang_up()
        ended.append(call.caller.call_id)
        feed(kept, world)
    assert len(kept.find(live.caller.call_id)[0].messages) == 5
    assert [call_id in kept._ended for call_id in ended[:3]] == [False, False, True]
    assert kept.find(ended[-1])[0].messages[-1].line == "SIP/2.0 200 OK"


def test_a_talkative_call_forgets_its_first_messages(world: World) -> None:
    """One call keeps its last MOST_MESSAGES, and says how many there were before."""
    kept = Chronicle()
    call = world.call(world.phone, world.provider)
    for _ in range(MOST_MESSAGES):
        call.caller.sends("INFO")
    feed(kept, world)
    history, = kept.find(call.caller.call_id)
    assert (len(history.messages), history.forgotten) == (MOST_MESSAGES, 5)


def test_memory_is_bounded_in_all(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where live calls have more than MOST_BYTES, what was untouched for longest goes first."""
    monkeypatch.setattr(chronicle, "MOST_BYTES", 20_000)
    kept = Chronicle()
    calls = []
    for number in range(8):
        world.phone.rtp = world.phone.rtp._replace(port=12000 + 2 * number)
        calls.append(world.call(world.phone, world.provider).caller.call_id)
        feed(kept, world)
    assert kept._bytes <= 20_000
    sizes = [len(kept.find(call_id)[0].messages) for call_id in calls]
    assert (sizes[0], sizes[-1]) == (0, 5)
    assert kept.find(calls[0])[0].forgotten == 5
    histories = [kept.find(call_id)[0] for call_id in calls]
    assert kept._bytes == sum(message.weight for history in histories for message in history.messages)


def test_hostile_text_is_cut(world: World) -> None:
    """A Request-URI of 10 kB takes no more than a line."""
    kept = Chronicle()
    leg = world.phone.invites("sip:" + "x" * 10_000 + "@provider.example")
    feed(kept, world)
    history, = kept.find(leg.call_id)
    assert len(history.messages[0].line) <= chronicle.LONGEST_LINE
    assert history.messages[0].weight < 20_000


def test_nothing_stays_of_calls_that_nobody_answered(world: World) -> None:
    """Live histories end with their calls, however those end."""
    kept = Chronicle()
    for _ in range(5):
        world.phone.invites(world.provider.address)
        world.provider.replies(world.provider.last, 407)
    world.phone.invites(world.provider.address)
    world.advance(400)
    feed(kept, world)
    assert not kept._live
    assert len(kept._ended) == 6
