"""Random histories of calls: whatever happens in whatever order, audio is where it was promised, the kernel
refuses nothing, and in the end nothing is left."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from natfix.address import Endpoint
from natfix.commands import Kind
from natfix.config import Media
from tests.agent import Agent, Leg
from tests.playbook import PROVIDER, Call, World

LONGEST = 90_000.0      # seconds; after a day, calls whose media nobody counts are given up, too
phone_numbers = st.integers(0, 2)
inside_ports = st.sampled_from([12000, 12002, 12005, 14000])
remote_ports = st.sampled_from([40000, 40002, 41001])


@dataclass
class Talk:
    """A call, and where its audio must flow; ``outside`` is what the provider was told."""

    phone: Agent
    inside_leg: Leg
    outside_leg: Leg
    inside: Endpoint
    remote: Endpoint
    outside: Endpoint
    is_held: bool = False

    @property
    def call(self) -> Call:
        return Call(self.inside_leg, self.outside_leg)


@dataclass
class Ringing:
    """An outgoing INVITE that nobody answered yet."""

    phone: Agent
    leg: Leg
    callee: Leg
    inside: Endpoint
    began: float = field(default=0.0)


@dataclass
class Between:
    """A call of two phones through the provider: four legs, and where each phone sends its audio."""

    phones: tuple[Agent, Agent]
    media: tuple[Endpoint, Endpoint]        # their own
    told: tuple[Endpoint, Endpoint]         # each of the other
    calls: tuple[Call, Call]


class Histories(RuleBasedStateMachine):
    """A gateway, three phones on the same ports, one provider."""

    @initialize(is_open=st.booleans(), policy=st.sampled_from(["auto", "full"]))
    def begin(self, is_open: bool, policy: str) -> None:
        self.world = World(media=Media(policy=policy), dnat_accepted=is_open)
        self.is_open = is_open
        self.betweens: list[Between] = []
        self.provider = self.world.provider
        self.phones = [self.world.phone, self.world.other_phone, self.world.agent(
            "dave", Endpoint("192.168.1.12", 5062), proxy=PROVIDER)]
        self.talks: list[Talk] = []
        self.ringing: list[Ringing] = []
        self.registered: dict[str, float] = {}

    # Registrations

    @rule(number=phone_numbers, expires=st.sampled_from([60, 3600]))
    def register(self, number: int, expires: int) -> None:
        phone = self.phones[number]
        self.world.register(phone, expires)
        self.registered[phone.user] = self.world.now + expires

    @rule(number=phone_numbers)
    def unregister(self, number: int) -> None:
        phone = self.phones[number]
        phone.registers(0)
        self.world.provider.replies(self.provider.last, 200, contact="")
        self.registered.pop(phone.user, None)

    # Calls

    @rule(number=phone_numbers, inside=inside_ports, remote=remote_ports)
    def call_out(self, number: int, inside: int, remote: int) -> None:
        phone = self.speaks(number, inside, remote)
        call = self.world.call(phone, self.provider)
        self.remember(phone, call.caller, call.callee)

    @rule(number=phone_numbers, inside=inside_ports, remote=remote_ports)
    def call_in(self, number: int, inside: int, remote: int) -> None:
        phone = self.phones[number]
        if self.registered.get(phone.user, 0.0) > self.world.now:
            call = self.world.call(self.provider, self.speaks(number, inside, remote))
            self.remember(phone, call.callee, call.caller)

    @rule(number=phone_numbers, other=phone_numbers, inside=inside_ports, its_inside=inside_ports)
    def call_each_other(self, number: int, other: int, inside: int, its_inside: int) -> None:
        caller, callee = self.phones[number], self.phones[other]
        if number == other or self.registered.get(callee.user, 0.0) <= self.world.now:
            return
        self.speaks(number, inside, 40000)
        self.speaks(other, its_inside, 40000)
        first = caller.invites(callee.address)
        invite, uri = self.provider.last, self.world.registered_uri(callee)
        second = self.provider.invites(uri, self.world.resolve_uri(uri), sdp=text_of(invite.body))
        told_callee = self.world.media_of(callee.last)
        callee_leg = callee.accepts(callee.last)
        callee_leg.answers()
        second.sends("ACK")
        provider_leg = self.provider.accepts(invite, 200, text_of(self.provider.last.body))
        told_caller = self.world.media_of(caller.last)
        first.sends("ACK")
        self.betweens.append(Between(
            (caller, callee), (caller.rtp, callee.rtp), (told_caller, told_callee),
            (Call(first, provider_leg), Call(second, callee_leg))))

    @precondition(lambda self: self.betweens)
    @rule(data=st.data())
    def hang_up_between(self, data: st.DataObject) -> None:
        between = self.betweens.pop(data.draw(st.integers(0, len(self.betweens) - 1)))
        for call in between.calls:
            call.hang_up()

    @rule(number=phone_numbers, inside=inside_ports)
    def ring(self, number: int, inside: int) -> None:
        phone = self.speaks(number, inside, 40000)
        leg = phone.invites(self.provider.address)
        callee = self.provider.accepts(self.provider.last)
        self.ringing.append(Ringing(phone, leg, callee, phone.rtp, self.world.now))

    @precondition(lambda self: self.ringing)
    @rule(data=st.data(), status=st.sampled_from([200, 486, 487]), remote=remote_ports)
    def answer(self, data: st.DataObject, status: int, remote: int) -> None:
        call = self.ringing.pop(data.draw(st.integers(0, len(self.ringing) - 1)))
        if self.world.now - call.began > 190.0:     # the engine may have given it up
            return
        call.phone.rtp = call.inside
        self.provider.rtp = Endpoint(PROVIDER.host, remote)
        if status == 200:
            call.callee.answers()
        else:
            call.callee.replies(status)
        call.leg.sends("ACK")
        if status == 200:
            told = self.told_in(call.callee)
            self.talks.append(Talk(call.phone, call.leg, call.callee, call.inside, self.provider.rtp, told))

    @precondition(lambda self: self.talks)
    @rule(data=st.data(), by_phone=st.booleans())
    def hang_up(self, data: st.DataObject, by_phone: bool) -> None:
        talk = self.drawn(data)
        self.talks.remove(talk)
        talk.call.hang_up(talk.inside_leg if by_phone else talk.outside_leg)

    @precondition(lambda self: self.talks)
    @rule(data=st.data(), by_phone=st.booleans())
    def hold(self, data: st.DataObject, by_phone: bool) -> None:
        talk = self.drawn(data)
        talk.is_held = not talk.is_held
        self.renegotiate(talk, by_phone, "a=inactive" if talk.is_held else "a=sendrecv")

    @precondition(lambda self: self.talks)
    @rule(data=st.data(), by_phone=st.booleans(), inside=inside_ports, remote=remote_ports)
    def move(self, data: st.DataObject, by_phone: bool, inside: int, remote: int) -> None:
        talk = self.drawn(data)
        if by_phone:
            talk.inside = Endpoint(talk.inside.host, inside)
        else:
            talk.remote = Endpoint(talk.remote.host, remote)
        self.renegotiate(talk, by_phone, "a=inactive" if talk.is_held else "a=sendrecv")

    # Time and trouble

    @rule(seconds=st.sampled_from([0.5, 3.0, 40.0, 150.0, 700.0]))
    def wait(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule()
    def flush_flows(self) -> None:
        self.world.kernel.flush_flows()
        self.world.advance(0.1)

    @rule()
    def restart(self) -> None:
        self.world.restart()

    @rule()
    def resync(self) -> None:
        self.world.kernel.resync(self.world.engine.desired())

    @rule()
    def change_address(self) -> None:
        """Everything that was promised is void; what is left must go by itself."""
        number = 1 + int(self.world.kernel.outside_address.rpartition(".")[2])
        self.world.change_outside_address(f"203.0.113.{number}")
        self.talks, self.betweens, self.ringing, self.registered = [], [], [], {}

    @precondition(lambda self: self.is_open)
    @rule(are_refused=st.booleans())
    def fill_the_conntrack_table(self, are_refused: bool) -> None:
        """No entry can be made any more: the elements do it, where the operator has the documented line."""
        self.world.kernel.refuse_entries = "the conntrack table is full" if are_refused else ""

    @precondition(lambda self: self.talks)
    @rule(data=st.data(), port=st.integers(50000, 50010))
    def the_provider_sends_from_elsewhere(self, data: st.DataObject, port: int) -> None:
        talk = self.drawn(data)
        trace = self.world.trace_rtp(Endpoint(PROVIDER.host, port), talk.outside)
        assert bool(trace.dropped) is not self.is_open, self.story(trace)

    # What must be true

    @invariant()
    def phones_hear_each_other(self) -> None:
        for between in getattr(self, "betweens", []):
            (media, other), (told, other_told) = between.media, between.told
            there = self.world.trace_rtp(media, told)
            assert there[:3] == (other_told, other, ""), self.story(there)
            back = self.world.trace_rtp(other, other_told)
            assert back[:3] == (told, media, ""), self.story(back)

    @invariant()
    def strangers_are_not_heard(self) -> None:
        for talk in getattr(self, "talks", []):
            trace = self.world.trace_rtp(Endpoint("198.51.100.66", talk.remote.port), talk.outside)
            assert trace.dropped, self.story(trace)

    @invariant()
    def audio_flows_as_promised(self) -> None:
        for talk in getattr(self, "talks", []):
            there = self.world.trace_rtp(talk.inside, talk.remote)
            assert (there.source, there.destination) == (talk.outside, talk.remote), self.story(there)
            back = self.world.trace_rtp(talk.remote, talk.outside)
            assert (back.dropped, back.destination) == ("", talk.inside), self.story(back)
        if hasattr(self, "world"):
            self.world.poll_counters()

    @invariant()
    def the_kernel_refuses_nothing(self) -> None:
        if hasattr(self, "world"):
            assert self.world.refusals == [], self.story("refused")

    @invariant()
    def what_is_counted_is_there(self) -> None:
        if hasattr(self, "world"):
            mappings = self.world.engine.mappings
            spare = [each for each in mappings if each.kind is Kind.SIGNALLING
                     and each.outside.port in mappings.spare]
            assert mappings.permissions == sum(len(each.remotes) for each in mappings), self.story("counted")
            assert mappings.spare_used == len(spare), self.story("counted")

    @invariant()
    def a_registered_phone_can_be_reached(self) -> None:
        for phone in getattr(self, "phones", []):
            if self.registered.get(phone.user, 0.0) > self.world.now:
                uri = self.world.registered_uri(phone)
                leg = self.provider.begins("OPTIONS", uri, self.world.resolve_uri(uri))
                assert leg.delivery is not None
                assert leg.delivery.arrived, self.story(leg.delivery)
                phone.replies(phone.last, 200)

    def teardown(self) -> None:
        """End everything; then nothing is left in the engine, the store and the kernel."""
        if not hasattr(self, "world"):
            return
        for call in (*(talk.call for talk in self.talks), *sum((each.calls for each in self.betweens), ())):
            call.hang_up()
        self.world.advance(LONGEST)
        engine, kernel = self.world.engine, self.world.kernel
        assert self.world.is_quiet(), self.story("calls or mappings are left")
        status = engine.status(self.world.now)
        assert status["media_pairs_free"] == status["media_pairs"], self.story("ports are left")
        assert kernel.flows() == [], self.story("flows are left")
        assert engine.next_timeout() is None, self.story("timers are left")

    # Helpers

    def speaks(self, number: int, inside: int, remote: int) -> Agent:
        """Set where a phone and the provider want audio next."""
        phone = self.phones[number]
        phone.rtp = Endpoint(phone.endpoint.host, inside)
        self.provider.rtp = Endpoint(PROVIDER.host, remote)
        return phone

    def remember(self, phone: Agent, inside_leg: Leg, outside_leg: Leg) -> None:
        told = self.world.told_media(self.provider)
        self.talks.append(Talk(phone, inside_leg, outside_leg, phone.rtp, self.provider.rtp, told))

    def told_in(self, leg: Leg) -> Endpoint:
        """Return what the provider was told in the INVITE of this leg."""
        assert leg.invite is not None
        return self.world.media_of(leg.invite)

    def renegotiate(self, talk: Talk, by_phone: bool, direction: str) -> None:
        talk.phone.rtp, self.provider.rtp = talk.inside, talk.remote
        asker, other = (talk.inside_leg, self.provider) if by_phone else (talk.outside_leg, talk.phone)
        asker.sends("INVITE", asker.agent.sdp(direction))
        other.replies(other.last, 200, other.sdp())
        asker.sends("ACK")
        talk.outside = self.world.told_media(self.provider)

    def drawn(self, data: st.DataObject) -> Talk:
        return self.talks[data.draw(st.integers(0, len(self.talks) - 1))]

    def story(self, what: object) -> str:
        note(self.world.story())
        return str(what)


def text_of(body: bytes) -> str:
    return body.decode().replace("\r\n", "\n")


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=int(os.environ.get("NATFIX_EXAMPLES", "100")) // 4, stateful_step_count=25, deadline=None,
    derandomize="NATFIX_RANDOM" not in os.environ, suppress_health_check=list(HealthCheck))
