"""Phones outside, behind NATs of their own, with a PBX inside: registrations, calls, media, release."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from natfix.address import Endpoint
from natfix.commands import Flow
from natfix.config import FarEnd, Media
from natfix.reports import PortsInUse
from tests.agent import Agent, Leg, Sip
from tests.far_agent import PBX, PBX_OUTSIDE, FarAgent
from tests.playbook import OUTSIDE, Call, World, told

FAR, FAR_RTP = Endpoint("198.51.100.7", 41000), Endpoint("198.51.100.7", 42000)
OTHER, OTHER_RTP = Endpoint("198.51.100.8", 51000), Endpoint("198.51.100.8", 52000)


def far_world(**options: object) -> World:
    """A gateway that forwards 5060 to a PBX inside, as operators do."""
    world = World(forwards={PBX_OUTSIDE: PBX}, **options)
    world.report(PortsInUse(frozenset(), {5060: PBX}))
    return world


@pytest.fixture
def world() -> Iterator[World]:
    """The same, told when a test fails."""
    yield from told(far_world())


def pbx_of(world: World) -> Agent:
    """A PBX inside that anchors media."""
    return world.agent("pbx", PBX, Endpoint(PBX.host, 14000))


def far_phone(world: World, rtp: Endpoint = FAR_RTP) -> FarAgent:
    return FarAgent(world, "dora", FAR, rtp)


def register(pbx: Agent, phone: FarAgent, expires: int = 3600) -> Sip:
    """Register *phone* and return what the PBX has got."""
    phone.registers(expires)
    request = pbx.last
    pbx.replies(request, 200, contact=f"{request['contact']};expires={expires}")
    return request


def call_out(pbx: Agent, phone: FarAgent) -> Call:
    """The far phone calls the PBX."""
    leg = phone.invites(f"sip:100@{OUTSIDE}")
    callee = pbx.accepts(pbx.last, 180)
    callee.answers(200)
    leg.sends("ACK")
    return Call(leg, callee)


def call_in(pbx: Agent, phone: FarAgent, uri: str) -> Call:
    """The PBX calls the far phone at the Contact that it has been shown."""
    leg = pbx.invites(uri, pbx.world.resolve_uri(uri))
    callee = phone.accepts(phone.last, 180)
    callee.answers(200)
    leg.sends("ACK")
    return Call(leg, callee)


def talk(world: World, pbx: Agent, phone: FarAgent) -> None:
    """The PBX sends first, which leads nowhere; then the phone, and from then on both are heard."""
    to_phone, to_pbx = world.told_media(pbx), world.told_media(phone)
    assert world.trace_rtp(pbx.rtp, to_phone).dropped
    assert world.trace_rtp(phone.rtp, to_pbx).dropped       # the packet that tells where it sends from
    hear_each_other(world, pbx, phone)


def hear_each_other(world: World, pbx: Agent, phone: FarAgent) -> None:
    to_phone, to_pbx = world.told_media(pbx), world.told_media(phone)
    out, back = world.trace_rtp(pbx.rtp, to_phone), world.trace_rtp(phone.rtp, to_pbx)
    assert (out.destination, out.source, out.dropped) == (phone.rtp, to_pbx, "")
    assert (back.destination, back.source, back.dropped) == (pbx.rtp, to_phone, "")


# Signalling

def test_a_far_phone_registers(world: World) -> None:
    """The PBX is shown where the phone's packets come from; the phone's own words come back to it."""
    pbx, phone = pbx_of(world), far_phone(world)
    request = register(pbx, phone)
    assert request["contact"] == f"<sip:dora@{FAR}>"
    assert phone.last["contact"] == f"{phone.contact};expires=3600"
    row = next(row for row in world.engine.registrations(world.now) if row["outside"] == str(FAR))
    assert row["signs"] == ["contact-private", "via-private"]
    assert (row["written"], row["expires_in"]) == ("192.168.1.10:5062", 3600)


def test_rport_is_asked_for(world: World) -> None:
    """A phone that knows no rport gets its answers through its NAT all the same, and never learns of it."""
    pbx, phone = pbx_of(world), far_phone(world)
    phone.via_parameters = ""
    request = register(pbx, phone)
    assert request["via"].endswith(";rport")
    assert phone.last.status == 200
    assert "rport" not in phone.last["via"]
    assert "received" not in phone.last["via"]


def test_several_contacts_and_an_end(world: World) -> None:
    """Each Contact that names the phone itself is shown, others stay; expires 0 ends the binding."""
    pbx, phone = pbx_of(world), far_phone(world)
    phone.registers(headers={"Contact": "<sip:dora@192.168.1.10:5062>, <sip:2@10.1.1.1>, <tel:1>"})
    assert pbx.last["contact"] == f"<sip:dora@{FAR}>, <sip:2@{FAR}>, <tel:1>"
    pbx.replies(pbx.last, 200, contact=f"<sip:dora@{FAR}>;expires=60, <sip:2@{FAR}>;expires=30")
    assert phone.last["contact"] == "<sip:dora@192.168.1.10:5062>;expires=60, <sip:2@10.1.1.1>;expires=30"
    register(pbx, phone, expires=0)
    assert all(not row["expires_in"] for row in world.engine.registrations(world.now))


def test_a_phone_that_is_right_is_left_alone(world: World) -> None:
    """One that has learnt its public endpoint is not touched, nor taken for a far phone."""
    pbx, phone = pbx_of(world), far_phone(world)
    phone.contact, phone.sent_by = f"<sip:dora@{FAR}>", str(FAR)
    delivery = phone.registers().delivery
    assert delivery is not None
    assert delivery.is_untouched
    assert world.engine.status(world.now)["far_ends"] == 0
    assert pbx.last["contact"] == f"<sip:dora@{FAR}>"


def test_it_can_be_switched_off() -> None:
    """[far_end] fix = "never" leaves them as they are; so does a list without their signs."""
    for settings in (FarEnd("never"), FarEnd(signs=("source-port-differs",))):
        world = far_world(far_end=settings)
        pbx, phone = pbx_of(world), far_phone(world)
        phone.sent_by = f"192.168.1.10:{FAR.port}"
        phone.registers()
        assert pbx.last["contact"] == phone.contact


def test_it_is_forgotten_in_the_end(world: World) -> None:
    """A registration that runs out, and two hours of silence, leave nothing in the table or the store."""
    pbx, phone = pbx_of(world), far_phone(world)
    register(pbx, phone, expires=60)
    world.advance(120)
    assert world.engine.status(world.now)["far_ends"] == 1
    world.advance(9000)
    assert world.engine.status(world.now)["far_ends"] == 0
    assert not [row for (table, _), row in world.rows.items() if table == "far_ends" and row.row]


# Media

def test_a_far_phone_calls(world: World) -> None:
    """Both are heard whoever sends first, by one entry; hanging up leaves nothing."""
    pbx, phone = pbx_of(world), far_phone(world)
    call = call_out(pbx, phone)
    assert world.told_media(pbx).host == OUTSIDE
    talk(world, pbx, phone)
    relayed = [state.flow for state in world.kernel.flows() if FAR_RTP in state.flow]
    assert relayed == [Flow(pbx.rtp, world.told_media(pbx), FAR_RTP, world.told_media(phone))]
    call.hang_up()
    world.advance(40)
    assert world.is_quiet()
    assert not [state for state in world.kernel.flows() if FAR_RTP in state.flow]


def test_a_far_phone_is_called(world: World) -> None:
    """At its registration, with the Request-URI that it wrote itself."""
    pbx, phone = pbx_of(world), far_phone(world)
    uri = register(pbx, phone)["contact"].strip("<>")
    call = call_in(pbx, phone, uri)
    talk(world, pbx, phone)
    call.hang_up(call.callee)
    world.advance(40)
    assert world.is_quiet()


def test_rtcp_has_a_relay_of_its_own(world: World) -> None:
    """RTCP is learnt beside RTP."""
    pbx, phone = pbx_of(world), far_phone(world)
    call_out(pbx, phone)
    rtcp_source, to_pbx = Endpoint(FAR.host, 43001), world.told_media(phone)
    world.trace_rtp(rtcp_source, to_pbx._replace(port=to_pbx.port + 1))
    trace = world.trace_rtp(Endpoint(PBX.host, 14001), world.told_media(pbx)._replace(
        port=world.told_media(pbx).port + 1))
    assert trace.destination == rtcp_source


def test_a_far_nat_rebinds(world: World) -> None:
    """Its media comes from another port in mid-call: learnt anew, once in a second."""
    pbx, phone = pbx_of(world), far_phone(world)
    call_out(pbx, phone)
    talk(world, pbx, phone)
    world.advance(5)
    phone.rtp = Endpoint(FAR.host, 49000)
    assert world.trace_rtp(phone.rtp, world.told_media(phone)).dropped
    hear_each_other(world, pbx, phone)
    phone.rtp = Endpoint(FAR.host, 49002)
    world.trace_rtp(phone.rtp, world.told_media(phone))
    assert world.trace_rtp(pbx.rtp, world.told_media(pbx)).destination.port == 49000
    world.advance(1)
    world.trace_rtp(phone.rtp, world.told_media(phone))
    hear_each_other(world, pbx, phone)


def test_a_stranger_takes_no_stream(world: World) -> None:
    """Who knows the port but sends from elsewhere is refused, before and after the phone has sent."""
    pbx, phone = pbx_of(world), far_phone(world)
    call_out(pbx, phone)
    stranger = Endpoint("198.51.100.99", 42000)
    assert world.trace_rtp(stranger, world.told_media(phone)).dropped.startswith("guard")
    talk(world, pbx, phone)
    assert world.trace_rtp(stranger, world.told_media(phone)).dropped.startswith("guard")
    hear_each_other(world, pbx, phone)
    assert world.kernel.refused()[world.told_media(phone)] == 2


def test_hanging_up_from_another_address(world: World) -> None:
    """A far NAT has got another outside address in mid-call, and its phone has registered from there: its BYE
    counts once the PBX has agreed to it."""
    pbx, phone = pbx_of(world), far_phone(world)
    register(pbx, phone)
    call = call_out(pbx, phone)
    talk(world, pbx, phone)
    phone.endpoint = Endpoint("198.51.100.77", 41000)
    register(pbx, phone)
    call.caller.sends("BYE")
    assert pbx.last.method == "BYE"
    assert world.engine.status(world.now)["calls"] == 1
    pbx.replies(pbx.last, 200)
    assert world.engine.status(world.now)["calls"] == 0


@pytest.mark.parametrize(("registers", "status"), [(True, 481), (False, 200)])
def test_a_bye_from_elsewhere_that_does_not_count(world: World, registers: bool, status: int) -> None:
    """Refused by the PBX; or from where nobody is registered, whatever the PBX says: the call goes on."""
    pbx, phone = pbx_of(world), far_phone(world)
    call = call_out(pbx, phone)
    talk(world, pbx, phone)
    phone.endpoint, own = Endpoint("198.51.100.77", 41000), phone.endpoint
    if registers:
        register(pbx, phone)
    call.caller.sends("BYE")
    pbx.replies(pbx.last, status)
    phone.endpoint = own
    world.advance(40)
    hear_each_other(world, pbx, phone)


def test_media_before_the_answer(world: World) -> None:
    """What a called phone sends before its own answer does not pin an entry that leads past its relay."""
    pbx, phone = pbx_of(world), far_phone(world)
    uri = register(pbx, phone)["contact"].strip("<>")
    leg = pbx.invites(uri, world.resolve_uri(uri))
    assert world.trace_rtp(phone.rtp, world.told_media(phone)).dropped
    callee = phone.accepts(phone.last, 180)
    callee.answers(200)
    leg.sends("ACK")
    talk(world, pbx, phone)


def test_hold_and_resume_keep_the_relay(world: World) -> None:
    """A re-INVITE with the same port changes nothing of the stream."""
    pbx, phone = pbx_of(world), far_phone(world)
    call = call_out(pbx, phone)
    talk(world, pbx, phone)
    before = world.told_media(pbx)
    for direction in ("a=sendonly", "a=sendrecv"):
        call.caller.sends("INVITE", phone.sdp(direction, version=2))
        pbx.replies(pbx.last, 200, pbx.sdp())
        call.caller.sends("ACK")
    assert world.told_media(pbx) == before
    hear_each_other(world, pbx, phone)


def test_a_restart_in_mid_call(world: World) -> None:
    """The stream goes on, hold survives the entry's end, and hanging up still clears everything."""
    pbx, phone = pbx_of(world), far_phone(world)
    call = call_out(pbx, phone)
    talk(world, pbx, phone)
    world.restart()
    world.report(PortsInUse(frozenset(), {5060: PBX}))
    hear_each_other(world, pbx, phone)
    world.kernel.flush_flows()
    world.trace_rtp(phone.rtp, world.told_media(phone))
    hear_each_other(world, pbx, phone)
    call.hang_up(call.callee)
    assert phone.received("BYE")
    world.advance(40)
    assert world.is_quiet()


# Two far phones, and a PBX that leaves media to them

class Proxied:
    """A call between two far phones that a proxying PBX hands on, SDP unchanged."""

    def __init__(self, world: World, caller: FarAgent, called: FarAgent) -> None:
        self.world, self.caller, self.called = world, caller, called
        self.pbx = pbx_of(world)
        self.pbx.is_strict = False
        self.uris = {phone: register(self.pbx, phone)["contact"].strip("<>") for phone in (caller, called)}
        self.leg = caller.invites(f"sip:{called.user}@{OUTSIDE}")
        invite = self.pbx.last
        self._hand_on(invite.payload, called, first_line=f"INVITE {self.uris[called]} SIP/2.0")
        self.callee = called.accepts(called.last, 180)
        self._hand_back(self.pbx.last)
        self.callee.answers(200)
        self._hand_back(self.pbx.last)
        self.leg.hop = PBX_OUTSIDE
        self.leg.sends("ACK")
        self._hand_on(self.pbx.last.payload, called, first_line=f"ACK {self.uris[called]} SIP/2.0")

    def _hand_on(self, payload: bytes, to: FarAgent, first_line: str) -> None:
        rest = payload.partition(b"\r\n")[2]
        via = f"Via: SIP/2.0/UDP {PBX};branch=z9hG4bKpbx{self.pbx.serial()}\r\nRecord-Route: <sip:{PBX};lr>"
        rest = rest.replace(b";rport", b";rport=%d;received=%s" % (self.caller.endpoint.port,
                                                                 self.caller.endpoint.host.encode()), 1)
        self.world.transmit(PBX, to.endpoint, f"{first_line}\r\n{via}\r\n".encode() + rest)

    def _hand_back(self, response: Sip) -> None:
        head, _, rest = response.payload.partition(b"\r\n")
        lines = rest.split(b"\r\n")
        lines.remove(next(line for line in lines if line.startswith(b"Via:")))
        self.world.transmit(PBX, self.caller.endpoint, b"\r\n".join([head, *lines]))


@pytest.fixture
def far_phones(world: World) -> tuple[FarAgent, FarAgent]:
    """Two phones behind two NATs, with the same private address."""
    return FarAgent(world, "dora", FAR, FAR_RTP), FarAgent(world, "emil", OTHER, OTHER_RTP)


def test_two_latches_are_joined(world: World, far_phones: tuple[FarAgent, FarAgent]) -> None:
    """Each is told the gateway; once both have sent they hear each other, past the PBX."""
    dora, emil = far_phones
    Proxied(world, dora, emil)
    assert {world.told_media(phone).host for phone in far_phones} == {OUTSIDE}
    assert world.trace_rtp(dora.rtp, world.told_media(dora)).dropped
    assert world.trace_rtp(emil.rtp, world.told_media(emil)).dropped
    world.assert_two_way_audio(Call(Leg(dora, "", "", ""), Leg(emil, "", "", "")))


def test_behind_one_nat_they_talk_there(world: World) -> None:
    """Two phones behind the same far NAT are told each other's own addresses."""
    dora = FarAgent(world, "dora", FAR, FAR_RTP)
    emil = FarAgent(world, "emil", FAR._replace(port=41002), FAR_RTP._replace(port=42002), own="192.168.1.11")
    Proxied(world, dora, emil)
    assert world.told_media(dora) == emil.written_rtp
    assert world.told_media(emil) == dora.written_rtp


def test_full_never_releases() -> None:
    """NATPass's FULL: through the gateway in any case."""
    world = far_world(media=Media(policy="full"))
    dora = FarAgent(world, "dora", FAR, FAR_RTP)
    emil = FarAgent(world, "emil", FAR._replace(port=41002), FAR_RTP._replace(port=42002), own="192.168.1.11")
    Proxied(world, dora, emil)
    assert {world.told_media(phone).host for phone in (dora, emil)} == {OUTSIDE}
    world.trace_rtp(dora.rtp, world.told_media(dora))
    world.trace_rtp(emil.rtp, world.told_media(emil))
    world.assert_two_way_audio(Call(Leg(dora, "", "", ""), Leg(emil, "", "", "")))
