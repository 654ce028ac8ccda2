"""One-way audio, told from counters: each cause within five seconds, and no healthy call ever.

The playbook's calls, on the fake kernel; packets are counted there, five a second, and looked at as the live
shell does it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from natfix.address import Endpoint
from natfix.audio import LISTENER, YOUNG, Cause
from natfix.commands import Flow
from natfix.config import FarEnd
from natfix.happenings import Event
from natfix.reports import FlowCounters
from tests.playbook import Call, World
from tests.test_engine_far_end import call_in, far_phone, far_world, pbx_of, register

TICK = 0.2
IN_TIME = 5.0
STRANGER = Endpoint("198.51.100.77", 30000)


@dataclass
class Line:
    """A call whose packets flow as the test says, while the counters are looked at."""

    world: World
    call: Call
    events: list[Event] = field(default_factory=list)
    looked_up: list[Flow] = field(default_factory=list)

    @classmethod
    def place(cls, world: World | None = None, **sdp: str) -> Line:
        """The phone calls the provider, and is answered."""
        world = world or World()
        line = cls(world, world.call(world.phone, world.provider))
        line.settle()
        return line

    def settle(self) -> None:
        """Forget what happened until now."""
        self.events += self.world.engine.pop_events()
        self.events.clear()

    def run(self, seconds: float, out: bool = True, back: bool = True, strangers: bool = False,
            rtcp_back: float = 0.0, on_off: float = 0.0) -> list[str]:
        """Let time pass; return the alarms as "in nothing-arrives" and "over in".

        *rtcp_back* is the time between two RTCP packets from outside; *on_off* has what comes *back* pause
        every other so many seconds.
        """
        world = self.world
        phone, provider = self.call.caller.agent, self.call.callee.agent
        told = {agent: world.told_media(agent) for agent in (phone, provider)}
        found: list[str] = []
        for step in range(round(seconds / TICK)):
            world.advance(TICK)
            if out:
                world.trace_rtp(phone.rtp, told[phone])
            if back and (not on_off or step * TICK % (2 * on_off) < on_off):
                world.trace_rtp(provider.rtp, told[provider])
            if strangers:
                world.trace_rtp(STRANGER, told[provider])
            if rtcp_back and step % round(rtcp_back / TICK) == round(rtcp_back / TICK) - 1:
                world.trace_rtp(_beside(provider.rtp), _beside(told[provider]))
            found += self.look()
        return found

    def look(self) -> list[str]:
        """Look at the counters that it is time for."""
        world, audio = self.world, self.world.engine.audio
        flows = audio.due(world.now, 48)
        self.looked_up += flows
        refused = world.shown.refused()
        world.report(FlowCounters(world.shown.counters(flows), refused))
        audio.judge(world.now, refused)
        events = world.engine.pop_events()
        self.events += events
        return [_text(event) for event in events if event.kind in ("alarm", "alarm-over")]

    @property
    def state(self) -> str:
        row, = (row for row in self.world.engine.calls(self.world.now) if row["role"] == "caller")
        return str(row["audio"]["state"])


def _text(event: Event) -> str:
    direction = event.facts["direction"]
    return f"over {direction}" if event.kind == "alarm-over" else f"{direction} {event.facts['cause']}"


def _beside(endpoint: Endpoint) -> Endpoint:
    return endpoint._replace(port=endpoint.port + 1)


@pytest.fixture
def line() -> Line:
    return Line.place()


# -- what is wrong ----------------------------------------------------------------------------------------


def test_nothing_arrives_from_outside(line: Line) -> None:
    """Within five seconds of the answer, once; and it is over with the first packets."""
    assert line.run(IN_TIME, back=False) == ["in nothing-arrives"]
    assert line.state == "one-way"
    alarm = next(event for event in line.events if event.kind == "alarm")
    assert alarm.facts["why"] == f"nothing arrives from outside {line.world.provider.rtp}"
    assert line.run(20, back=False) == []
    assert line.run(3) == ["over in"]
    assert line.state == "flows"


def test_nothing_arrives_from_inside(line: Line) -> None:
    """A phone that sends nothing is told likewise."""
    assert line.run(IN_TIME, out=False) == ["out nothing-arrives"]


def test_strangers_are_the_cause(line: Line) -> None:
    """What comes from elsewhere, and is refused, is named as the cause, with how many there were."""
    assert line.run(IN_TIME, back=False, strangers=True) == ["in refused"]
    alarm = next(event for event in line.events if event.kind == "alarm")
    assert alarm.facts["why"].endswith("and were refused")
    assert int(alarm.facts["why"].split()[0]) >= 10


def test_a_private_address_is_the_cause() -> None:
    """The far end wants its audio at an address that nobody outside can reach."""
    world = World(far_end=FarEnd(signs=()))
    world.provider.rtp = Endpoint("10.9.9.9", 40000)
    line = Line.place(world)
    assert "out private-address" in line.run(IN_TIME, back=False)


def test_a_private_address_that_answers_is_none() -> None:
    """In a VPN, or a carrier's own network, such an address is reached: its packets prove it."""
    world = World(far_end=FarEnd(signs=()))
    world.provider.rtp = Endpoint("10.9.9.9", 40000)
    line = Line.place(world)
    assert line.run(15) == []


def test_a_steady_stream_that_stops(line: Line) -> None:
    """In mid-call, where no RTCP would tell a pause: within five seconds."""
    assert line.run(20) == []
    assert line.run(IN_TIME, back=False) == ["in nothing-arrives"]


def test_a_stream_and_its_rtcp_stop(line: Line) -> None:
    """Where RTCP was there it is waited for, and no longer than it may stay away."""
    assert line.run(20, rtcp_back=5.0) == []
    assert line.run(IN_TIME, back=False) == []
    assert line.run(5, back=False) == ["in nothing-arrives"]


def test_neither_direction_flows(line: Line) -> None:
    """An answer without any media is told for both directions, later than one-way audio is."""
    assert line.run(IN_TIME, out=False, back=False) == []
    assert sorted(line.run(5, out=False, back=False)) == ["in nothing-arrives", "out nothing-arrives"]


def test_a_far_phone_that_never_sends() -> None:
    """Where a relay would learn its source from its first packet there is no entry to count yet."""
    world = far_world()
    pbx = pbx_of(world)
    phone = far_phone(world)
    uri = register(pbx, phone)["contact"].strip("<>")
    line = Line(world, call_in(pbx, phone, uri))
    line.settle()
    found: list[str] = []
    for _ in range(25):
        world.advance(TICK)
        found += line.look()
    assert found == ["in nothing-arrives"]


def test_after_a_restart(line: Line) -> None:
    """A restarted natfix watches the calls that it finds."""
    assert line.run(5) == []
    line.world.restart()
    line.settle()
    assert line.run(5) == []
    assert line.run(IN_TIME + 3, back=False) == ["in nothing-arrives"]


def test_what_flaps_is_told_a_few_times(line: Line) -> None:
    """An alarm that comes and goes without end is counted, and told no more."""
    found: list[str] = []
    for _ in range(8):
        found += line.run(LISTENER + 5, back=False) + line.run(3)
    assert found.count("in nothing-arrives") <= 4
    assert line.world.engine.counters["one-way alarms"] >= 1


# -- what is not ------------------------------------------------------------------------------------------


def test_a_healthy_call(line: Line) -> None:
    """Audio both ways, for a minute, then BYE: no alarm, and nothing is watched any more."""
    assert line.run(60) == []
    assert line.state == "flows"
    line.call.hang_up()
    assert line.run(3) == []
    assert len(line.world.engine.audio) == 0


def test_before_the_answer() -> None:
    """Early media comes from one side only, for as long as it likes."""
    world = World()
    leg = world.phone.invites(world.provider.address)
    callee = world.provider.accepts(world.provider.last, 183, world.provider.sdp())
    line = Line(world, Call(leg, callee))
    line.settle()
    assert line.run(30, out=False) == []
    callee.answers(200)
    leg.sends("ACK")
    assert line.run(10) == []


def test_early_media_is_no_audio_of_the_call() -> None:
    """What was counted before the answer does not hide that nothing comes after it."""
    world = World()
    leg = world.phone.invites(world.provider.address)
    callee = world.provider.accepts(world.provider.last, 183, world.provider.sdp())
    line = Line(world, Call(leg, callee))
    line.run(10, out=False)
    callee.answers(200)
    leg.sends("ACK")
    assert line.run(IN_TIME, back=False) == ["in nothing-arrives"]


@pytest.mark.parametrize(("direction", "out", "back"), [
    ("sendonly", True, False), ("inactive", False, False), ("recvonly", False, True)])
def test_on_hold(line: Line, direction: str, out: bool, back: bool) -> None:
    """While the descriptions say so a direction is silent; after the resumption it is looked at anew."""
    assert line.run(12) == []
    answers = {"sendonly": "recvonly", "inactive": "inactive", "recvonly": "sendonly"}
    reinvite(line, f"a={direction}", f"a={answers[direction]}")
    assert line.run(30, out=out, back=back) == []
    assert line.state == "held"
    reinvite(line, "a=sendrecv", "a=sendrecv")
    assert line.run(10) == []
    reinvite(line, "a=inactive", "a=inactive")
    reinvite(line, "a=sendrecv", "a=sendrecv")
    assert line.run(IN_TIME, back=False) == ["in nothing-arrives"]


def test_the_old_hold(line: Line) -> None:
    """c=0.0.0.0 wants nothing, and says nothing of what comes."""
    assert line.run(5) == []
    phone = line.call.caller.agent
    held = phone.sdp(rtp=Endpoint("0.0.0.0", phone.rtp.port), version=2)
    line.call.caller.sends("INVITE", held)
    line.world.provider.replies(line.world.provider.last, 200, line.world.provider.sdp(version=2))
    line.call.caller.sends("ACK")
    assert line.run(30, back=False) == []
    assert line.run(30, out=False, back=False) == []


def reinvite(line: Line, offer: str, answer: str) -> None:
    """The phone offers anew, and is answered."""
    line.call.caller.sends("INVITE", line.call.caller.agent.sdp(offer, version=2))
    callee = line.call.callee.agent
    callee.replies(callee.last, 200, callee.sdp(answer, version=2))
    line.call.caller.sends("ACK")


def test_an_alarm_ends_with_the_hold(line: Line) -> None:
    """What both sides agree not to send is missed no more."""
    assert line.run(IN_TIME, back=False) == ["in nothing-arrives"]
    reinvite(line, "a=inactive", "a=inactive")
    assert line.run(2, out=False, back=False) == ["over in"]


@pytest.mark.parametrize("pause", [1.5, 4.0, 12.0])
def test_silence_suppression(line: Line, pause: float) -> None:
    """A sender that pauses while nobody speaks, and whose RTCP comes, is healthy (RFC 3389)."""
    assert line.run(120, on_off=pause, rtcp_back=5.0) == []


def test_silence_suppression_without_rtcp(line: Line) -> None:
    """Once a stream has made a pause it may make others, however long."""
    assert line.run(12, on_off=1.5) == []
    assert line.run(60, back=False) == []


def test_a_mailbox_records(line: Line) -> None:
    """It plays, then it listens: its RTCP shows that it is there."""
    assert line.run(20, rtcp_back=5.0) == []
    assert line.run(60, back=False, rtcp_back=5.0) == []


def test_a_listener_who_never_spoke(line: Line) -> None:
    """RTCP alone, from the start, may be somebody muted: he is given time, but not for ever."""
    assert line.run(LISTENER - 8, back=False, rtcp_back=2.0) == []
    assert line.run(10, back=False, rtcp_back=2.0) == ["in nothing-arrives"]


def test_strangers_beside_a_good_stream(line: Line) -> None:
    """A scanner at the port of a call that goes well is no cause of anything."""
    assert line.run(20, strangers=True) == []


def test_fax(line: Line) -> None:
    """T.38 sends in turns and pauses at will; it is not judged."""
    assert line.run(5) == []
    image = [agent.sdp(version=2).replace("m=audio", "m=image").replace("RTP/AVP 8 101", "udptl t38")
             for agent in (line.call.caller.agent, line.call.callee.agent)]
    line.call.caller.sends("INVITE", image[0])
    line.world.provider.replies(line.world.provider.last, 200, image[1])
    line.call.caller.sends("ACK")
    for _ in range(150):
        line.world.advance(TICK)
        assert line.look() == []


def test_released_media() -> None:
    """Phones that talk directly send nothing through the gateway."""
    world = World()
    for phone in (world.phone, world.other_phone):
        world.register(phone)
    leg = world.phone.invites(world.registered_uri(world.other_phone), world.resolve_uri(
        world.registered_uri(world.other_phone)))
    line = Line(world, world.answer(leg, world.other_phone))
    line.settle()
    for _ in range(100):
        world.advance(TICK)
        assert line.look() == []


def test_accounting_is_off() -> None:
    """Where nobody counts, nothing is said."""
    line = Line.place()
    counters = line.world.shown.counters
    line.world.shown.counters = lambda flows: {     # type: ignore[method-assign]
        flow: state._replace(packets=-1, reply_packets=-1) for flow, state in counters(flows).items()}
    assert line.run(20, back=False) == []
    assert line.state == "uncounted"


# -- cost -------------------------------------------------------------------------------------------------


def test_who_is_looked_at() -> None:
    """New calls each second, old ones that go well every two, and of too many the new ones first."""
    line = Line.place()
    line.run(YOUNG + 1)
    line.looked_up.clear()
    line.run(10)
    assert 4 <= sum(flow.source == line.world.phone.rtp for flow in line.looked_up) <= 6
    world = line.world
    fresh = world.call(world.other_phone, world.provider)
    world.advance(3)
    flow, = world.engine.audio.due(world.now, 1)[:1]
    assert flow.source == fresh.caller.agent.rtp


def test_causes_are_those_of_the_schemas() -> None:
    """The words of the JSON are those of the engine."""
    folder = Path(__file__).parents[1] / "natfix" / "schemas"
    monitor = json.loads((folder / "monitor.json").read_text())
    assert monitor["properties"]["cause"]["enum"] == [cause.value for cause in Cause]
