"""Events of calls and registrations, as the engine makes them from whole calls."""

from __future__ import annotations

from natfix.happenings import MOST, Event, Happenings
from tests.playbook import World


def kinds(world: World) -> list[str]:
    return [event.kind for event in world.engine.pop_events()]


def test_a_call_from_begin_to_end() -> None:
    """Begun, ringing once, answered, ended by whom: each once, in this order, with the call itself."""
    world = World()
    call = world.call(world.phone, world.provider)
    call.hang_up()
    events = world.engine.pop_events()
    assert [event.kind for event in events] == ["call", "ringing", "answered", "ended"]
    assert {event.call.key.call_id for event in events if event.call} == {call.caller.call_id}
    assert events[-1].facts["why"] == "BYE from inside"
    assert world.engine.pop_events() == []


def test_a_refused_call_says_with_what() -> None:
    """A final failure ends a call with its status; a challenge is no end."""
    world = World()
    leg = world.phone.invites("sip:nobody@provider.example")
    world.provider.replies(world.provider.last, 407)
    leg.sends("ACK")
    events = world.engine.pop_events()
    assert [(event.kind, event.facts.get("why")) for event in events] == [
        ("call", None), ("challenged", "407 Proxy Authentication Required")]
    world.phone.invites("sip:busy@provider.example")
    world.provider.replies(world.provider.last, 486)
    assert world.engine.pop_events()[-1].facts["why"] == "486 Busy Here"


def test_a_call_that_nobody_answers() -> None:
    """The engine's own reason is in the event."""
    world = World()
    world.phone.invites("sip:nobody@provider.example")
    world.advance(300)
    assert world.engine.pop_events()[-1].facts["why"] == "nobody answered"


def test_registrations() -> None:
    """Registered once, not again at each refresh; unregistered, and expired where no refresh comes."""
    world = World()
    world.register(world.phone)
    world.register(world.phone)
    assert kinds(world) == ["registered"]
    world.register(world.phone, expires=0)
    assert kinds(world) == ["unregistered"]
    world.register(world.phone, expires=60)
    world.advance(61)
    assert kinds(world) == ["registered", "expired"]


def test_a_restart_resumes_calls() -> None:
    """What was before a restart is told as such, not as a new call."""
    world = World()
    world.call(world.phone, world.provider)
    world.restart()
    assert kinds(world) == ["resumed"]


def test_what_nobody_takes_is_bounded() -> None:
    """Of too many events the oldest are forgotten."""
    happened = Happenings()
    for number in range(MOST + 3):
        happened.tell(Event("call", float(number)))
    assert happened.pop()[0].at == 3.0
