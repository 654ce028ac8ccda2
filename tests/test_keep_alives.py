"""The NATs of registered far phones are kept open: who is sent what and when, and what their answers tell."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natfix.address import Endpoint
from natfix.commands import SendPacket
from natfix.config import FarEnd
from natfix.reports import PortsInUse
from tests.far_agent import PBX, PBX_OUTSIDE, FarAgent
from tests.playbook import World
from tests.test_engine_far_end import FAR, far_phone, far_world, pbx_of, register

EVERY = 25
FIXED = FarEnd(keep_open_longest=EVERY)
EMPTY = FarEnd(keep_open="packet", keep_open_longest=EVERY)


def registered(world: World, expires: int = 3600) -> FarAgent:
    phone = far_phone(world)
    register(pbx_of(world), phone, expires)
    return phone


def row_of(world: World, source: Endpoint = FAR) -> dict[str, object]:
    return next(row for row in world.engine.registrations(world.now) if row["outside"] == str(source))


def sent_at(world: World, seconds: float, step: float = 0.5) -> list[float]:
    """Let time pass; return when natfix sent something itself, in seconds from now."""
    began, seen, times = world.now, len(world.kernel.sent), []
    while world.now < began + seconds:
        world.advance(step)
        times += [world.now - began] * (len(world.kernel.sent) - seen)
        seen = len(world.kernel.sent)
    return times


def test_options_keep_the_nat_open() -> None:
    """From where the phone has registered, to where its packets come from, in its own words, in time."""
    world = far_world(far_end=FIXED)
    phone = registered(world)
    times = sent_at(world, 100)
    assert len(times) == 4
    assert max(after - before for before, after in pairwise(times)) <= EVERY
    assert {(packet.source, packet.destination) for packet in world.kernel.sent} == {(PBX_OUTSIDE, FAR)}
    request = phone.asked[0]
    assert request.uri == "sip:dora@192.168.1.10:5062"
    for names in ({asked["call-id"] for asked in phone.asked}, {asked.branch for asked in phone.asked}):
        assert len(names) == 4


def test_answers_are_for_natfix_alone() -> None:
    """The PBX sees none of it; `natfix registrations` tells how soon the phone has answered."""
    world = far_world(far_end=FIXED)
    pbx, phone = pbx_of(world), far_phone(world)
    register(pbx, phone)
    seen = len(pbx.inbox)
    assert row_of(world)["reachability"] == "unknown"
    phone.answers_options = False
    world.advance(EVERY)
    world.advance(0.25)
    late = phone.asked[-1]
    phone.answers_options = True
    phone.receive(late.payload, PBX_OUTSIDE, FAR)
    assert len(pbx.inbox) == seen
    row = row_of(world)
    assert row["reachability"] == "reachable"
    assert 200 < float(str(row["answer_ms"])) < 3000
    assert (row["registrar"], world.engine.counters["keep-alives answered"]) == (str(PBX), 1)


def test_an_answer_after_a_restart() -> None:
    """A natfix that does not know that it has asked still keeps the answer from the PBX."""
    world = far_world(far_end=FIXED)
    pbx, phone = pbx_of(world), far_phone(world)
    register(pbx, phone)
    phone.answers_options = False
    world.advance(EVERY)
    seen = len(pbx.inbox)
    world.restart()
    phone.answers_options = True
    phone.receive(phone.asked[-1].payload, PBX_OUTSIDE, FAR)
    assert len(pbx.inbox) == seen


def test_a_restart_goes_on() -> None:
    """Registrations come from the store; keep-alives go on, spread over the first interval."""
    world = far_world(far_end=FIXED)
    phone = registered(world)
    world.advance(60)
    world.restart()
    world.report(PortsInUse(frozenset(), {5060: PBX}))
    before = len(phone.asked)
    world.advance(EVERY)
    assert len(phone.asked) == before + 1
    assert phone.asked[-1].uri == phone.asked[0].uri


def test_empty_packets() -> None:
    """Four octets, which nothing answers, at the same pace."""
    world = far_world(far_end=EMPTY)
    phone = registered(world)
    assert len(sent_at(world, 100)) == 4
    assert phone.keepalives == [b"\0\0\0\0"] * 4
    assert row_of(world)["reachability"] == "unknown"


def test_it_can_be_switched_off() -> None:
    """keep_open = "never", and fix = "never", send nothing at all."""
    for settings in (FarEnd(keep_open="never"), FarEnd(fix="never")):
        world = far_world(far_end=settings)
        phone = far_phone(world)
        phone.registers()
        pbx_of(world)
        world.advance(600)
        assert world.kernel.sent == []


def test_only_as_long_as_it_is_registered() -> None:
    """Nothing before the 2xx, nothing after a 503, an end by the phone, or the end of what was granted."""
    world = far_world(far_end=FIXED)
    pbx, phone = pbx_of(world), far_phone(world)
    phone.registers()
    request = pbx.last
    world.advance(100)
    pbx.replies(request, 503)
    world.advance(100)
    assert world.kernel.sent == []
    register(pbx, phone, 60)
    assert sent_at(world, 300)[-1] < 60
    register(pbx, phone)
    assert sent_at(world, 30)
    register(pbx, phone, 0)
    assert sent_at(world, 300) == []


def test_a_call_is_no_registration() -> None:
    """A far phone that only calls is sent nothing."""
    world = far_world(far_end=FIXED)
    pbx, phone = pbx_of(world), far_phone(world)
    phone.invites("sip:100@203.0.113.1")
    pbx.replies(pbx.last, 200, pbx.sdp())
    world.advance(300)
    assert world.kernel.sent == []


def test_who_keeps_it_open_himself_is_not_asked() -> None:
    """A phone that sends CRLFs of its own, often enough, is left in peace."""
    world = far_world(far_end=FIXED)
    phone = registered(world)
    for _ in range(20):
        world.advance(15)
        phone.sends(b"\r\n\r\n")
    assert world.kernel.sent == []


def test_who_is_gone_is_not_flooded() -> None:
    """Three unanswered make it unreachable, with one note; then it is asked ever less often."""
    world = far_world(far_end=FIXED)
    phone = registered(world)
    world.advance(60)
    phone.answers_options = False
    asked = len(phone.asked)
    world.advance(60)
    assert row_of(world)["reachability"] == "unreachable"
    world.advance(3000)
    assert world.story().count("far-unreachable") == 1
    assert len(phone.asked) - asked <= 12
    phone.sends(b"\r\n\r\n")
    assert row_of(world)["reachability"] == "reachable"
    phone.answers_options = True
    assert len(sent_at(world, 100)) == 4


def test_who_answers_no_options_gets_empty_packets() -> None:
    """Some firewalls and phones drop OPTIONS; their NATs are kept open all the same."""
    world = far_world(far_end=FIXED)
    phone = far_phone(world)
    phone.answers_options = False
    register(pbx_of(world), phone)
    world.advance(EVERY + 20)
    assert len(phone.asked) == 3
    world.advance(100)
    assert len(phone.asked) == 3
    assert len(phone.keepalives) >= 4
    assert row_of(world)["reachability"] == "unknown"


def test_any_final_answer_will_do() -> None:
    """A 100 is none, a 404 is one."""
    world = far_world(far_end=FIXED)
    pbx, phone = pbx_of(world), far_phone(world)
    phone.answers_options = False
    register(pbx, phone)
    world.advance(EVERY)
    seen = len(pbx.inbox)
    trying = phone.asked[-1]
    for status, reachability in (("100 Trying", "unknown"), ("404 Not Found", "reachable")):
        lines = [f"SIP/2.0 {status}"] + [f"{name}: {trying[name.lower()]}" for name in
                                         ("Via", "From", "To", "Call-ID", "CSeq")]
        phone.sends("\n".join([*lines, "Content-Length: 0", "", ""]))
        assert row_of(world)["reachability"] == reachability
    assert len(pbx.inbox) == seen


def test_what_looks_like_an_answer_from_a_stranger() -> None:
    """It goes nowhere, and makes nobody known."""
    world = far_world(far_end=FIXED)
    pbx, phone = pbx_of(world), registered(world)
    world.advance(EVERY)
    seen = len(pbx.inbox)
    stranger = world.agent("eve", Endpoint("198.51.100.99", 5060))
    stranger.sends("\n".join((
        "SIP/2.0 200 OK", f"Via: {phone.asked[-1]['via']}", "From: <sip:a@b>;tag=1", "To: <sip:c@d>;tag=2",
        "Call-ID: x", "CSeq: 1 OPTIONS", "Content-Length: 0", "", "")), PBX_OUTSIDE)
    assert len(pbx.inbox) == seen
    assert len(world.engine.registrations(world.now)) == 1


def test_another_outside_address_ends_them() -> None:
    """Its NAT lets nothing in from an address that the phone has never sent to."""
    world = far_world(far_end=FIXED)
    registered(world)
    world.advance(60)
    world.change_outside_address("203.0.113.77")
    assert sent_at(world, 300) == []


def test_who_moved_is_followed() -> None:
    """The same phone registers from another port of its NAT: that is kept open, the old one no more."""
    world = far_world(far_end=FIXED)
    pbx, phone = pbx_of(world), far_phone(world)
    leg = phone.registers()
    pbx.replies(pbx.last, 200, contact=f"{pbx.last['contact']};expires=3600")
    phone.endpoint = Endpoint(FAR.host, 41777)
    leg.sends("REGISTER", headers=[("Expires", "3600")])
    pbx.replies(pbx.last, 200, contact=f"{pbx.last['contact']};expires=3600")
    world.kernel.sent.clear()
    world.advance(100)
    assert {packet.destination for packet in world.kernel.sent} == {phone.endpoint}


@pytest.mark.parametrize("settings", [FIXED, EMPTY], ids=lambda settings: settings.keep_open)
def test_many_are_spread(settings: FarEnd) -> None:
    """Two hundred that register in one moment are asked one by one, not all in one moment."""
    world = far_world(far_end=settings)
    pbx = pbx_of(world)
    for number in range(200):
        phone = FarAgent(world, f"u{number}", Endpoint(f"198.51.{number % 250}.7", 20000 + number), FAR)
        register(pbx, phone)
        world.agents.remove(phone)
    most = 0
    for _ in range(300):
        before = len(world.kernel.sent)
        world.advance(0.1)
        most = max(most, len(world.kernel.sent) - before)
    assert len({packet.destination for packet in world.kernel.sent}) == 200
    assert most <= 51


@given(st.lists(st.tuples(
    st.sampled_from(["register", "refuse", "end", "invite", "rubbish", "wait", "hour"]), st.integers(0, 3)),
    max_size=12), st.sampled_from(["options", "packet", "refresh"]))
def test_nobody_else_is_ever_sent_anything(steps: list[tuple[str, int]], kind: str) -> None:
    """Whatever comes: only who was answered 2xx, no longer than that says, from where it has sent to."""
    world = far_world(far_end=FarEnd(keep_open=kind))
    pbx = pbx_of(world)
    phones = [FarAgent(world, f"u{n}", Endpoint(f"198.51.100.{n + 7}", 41000), FAR) for n in range(4)]
    until = dict.fromkeys((phone.endpoint for phone in phones), 0.0)

    def check(packets: Sequence[SendPacket]) -> int:
        for packet in packets:
            assert packet.source == PBX_OUTSIDE
            assert until[packet.destination] > world.now
        return 0

    world.kernel.send = check   # type: ignore[method-assign]
    for what, number in steps:
        phone = phones[number]
        if what in ("register", "end"):
            register(pbx, phone, 90 if what == "register" else 0)
            until[phone.endpoint] = world.now + 90 if what == "register" else 0.0
        elif what == "refuse":
            phone.registers()
            pbx.replies(pbx.last, 503)
        elif what == "invite":
            phone.invites("sip:100@203.0.113.1")
        elif what == "rubbish":
            phone.sends(b"\0\0\0\0")
        else:
            world.advance(40 if what == "wait" else 3600)


def silences(forgets: float, hours: int = 3) -> tuple[World, list[float]]:
    """A phone that registers every five minutes, whose NAT *forgets*; return when it did not answer."""
    world = far_world(far_end=FarEnd())
    pbx, phone = pbx_of(world), far_phone(world)
    lost, used = [], world.now
    for _ in range(12 * hours):
        leg_at = world.now
        register(pbx, phone)
        used = world.now
        while world.now < leg_at + 300:
            phone.answers_options = world.now + 1 - used < forgets
            seen = len(phone.asked)
            world.advance(1.0)
            if len(phone.asked) > seen and phone.answers_options:
                used = world.now
            elif len(phone.asked) > seen:
                lost.append(world.now)
    return world, lost


def test_longer_silences_are_found() -> None:
    """A NAT that remembers for ten minutes is asked every two."""
    world, lost = silences(600)
    assert not lost
    assert 100 < int(str(row_of(world)["survived"])) <= 120
    assert len(sent_at(world, 290, 1.0)) <= 3


def test_a_silence_that_is_too_long_is_not_tried_again() -> None:
    """A NAT that remembers for a minute costs the phone a few moments, each right before it registers."""
    world, lost = silences(60)
    assert 1 <= len(lost) <= 9      # three times, with the second and third attempts
    assert max(lost) - min(lost) < 1500
    assert 50 < int(str(row_of(world)["survived"])) < 60
