"""Who may use a mapping (design, section 7): attacks from outside, and by an inside host that is not what
it seems. Each is played against an open firewall, so that nothing but natfix stands in its way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from natfix.address import Endpoint
from natfix.commands import Kind, Verdict
from natfix.config import Inside, Limits, Media, Outside, Peer, Settings
from natfix.engine import Path
from natfix.kernel.base import KernelMapping
from natfix.kernel.fake import FakeKernel
from tests.agent import Agent
from tests.datagram import Datagram, packet_bytes
from tests.playbook import OTHER_PHONE, OUTSIDE, PHONE, PROVIDER, Delivery, World, told

STRANGER = Endpoint("198.51.100.66", 5060)
SERVER = "192.168.1.50"         # an inside host that speaks no SIP
FAR_NETWORK = "192.168.2.0/24"


@pytest.fixture
def world() -> Iterator[World]:
    """A gateway whose firewall lets through whatever is DNATed."""
    yield from told(World(dnat_accepted=True))


@pytest.fixture
def stranger(world: World) -> Agent:
    """A host outside that nobody has spoken to."""
    agent = world.agent("mallory", STRANGER, Endpoint(STRANGER.host, 40000))
    agent.is_strict = False
    return agent


def mappings(world: World, kind: Kind) -> dict[Endpoint, KernelMapping]:
    return {mapping.inside: mapping for mapping in world.kernel.mappings() if mapping.kind is kind}


def reaches(world: World, outside_port: int, source: Endpoint = STRANGER) -> str:
    """Return why a datagram from outside does not get inside; "" where it does."""
    return world.kernel.trace(source, Endpoint(OUTSIDE, outside_port), world.now).dropped


def small_world(limits: Limits, **options: object) -> World:
    """A world with narrow limits."""
    networks = tuple(FakeKernel().networks.values())
    settings = Settings(inside=Inside(networks), outside=Outside("outside"), limits=limits)
    return World(settings, dnat_accepted=True, **options)


# An SDP may name its own sender, another registered UA, or one of media_hosts

@pytest.mark.parametrize("rtcp", ["22 IN IP4 192.168.1.10", "12001 IN IP4 192.168.1.50",
                                  "53 IN IP4 192.168.1.50", "12001 IN IP4 127.0.0.1",
                                  "12001 IN IP4 203.0.113.1", "22",
                                  "12001 IN IP4 phone.example", "12001 IN IP4 0.0.0.0"])
def test_rtcp_opens_no_more_than_rtp_may(world: World, rtcp: str) -> None:
    """a=rtcp (RFC 3605) has an address and port of its own: the same rules hold for them as for c= and m=."""
    leg = world.phone.invites(world.provider.address, sdp=world.phone.sdp(f"a=rtcp:{rtcp}"))
    assert set(mappings(world, Kind.MEDIA)) == {world.phone.rtp}
    assert leg.delivery is not None
    assert f"a=rtcp:{rtcp}".encode() in (leg.delivery.arrived or b"")


def test_a_run_of_ports_ends_where_ports_end(world: World) -> None:
    """"65530/8" would run past the last port; the stream is left alone."""
    sdp = world.phone.sdp().replace("m=audio 12000", "m=audio 65530/8")
    leg = world.phone.invites(world.provider.address, sdp=sdp)
    assert mappings(world, Kind.MEDIA) == {}
    assert leg.delivery is not None
    assert "sdp-refused" in leg.delivery.rules()


def test_runs_that_overlap_take_no_port_for_good(world: World) -> None:
    """Descriptions whose "port/count" overlap cannot drain the pool: all ports come back with the call."""
    world.phone.is_strict = False
    before = world.engine.status(world.now)["media_pairs_free"]
    for port in (12002, 12000, 12006, 12004):
        sdp = world.phone.sdp().replace("m=audio 12000", f"m=audio {port}/2")
        leg = world.phone.invites(world.provider.address, sdp=sdp)
        world.provider.replies(world.provider.last, 486)
        leg.sends("ACK")
    fax = world.phone.sdp().replace("m=audio 12000 RTP/AVP 8 101", "m=image 12050/3 udptl t38")
    world.phone.invites(world.provider.address, sdp=fax)
    world.advance(600.0)
    assert mappings(world, Kind.MEDIA) == {}
    assert world.engine.status(world.now)["media_pairs_free"] == before


@pytest.mark.parametrize("host", ["192.168.001.010", "127.000.000.001", "198.51.100.010", "198.51.100.099"])
def test_an_address_with_leading_zeros_is_no_address(world: World, host: str) -> None:
    """Programs disagree whether they are octal: what natfix checks might not be what the kernel opens."""
    world.phone.invites(world.provider.address, sdp=world.phone.sdp(rtp=Endpoint(host, 12000)))
    assert mappings(world, Kind.MEDIA) == {}


def test_a_registration_of_somebody_else_makes_nobody_registered(world: World, stranger: Agent) -> None:
    """A REGISTER whose Contact names another inside host, accepted by an accomplice, opens nothing for it."""
    world.phone.contact = f"<sip:victim@{SERVER}:5060>"
    world.phone.proxy = STRANGER
    world.phone.registers()
    stranger.replies(stranger.last, 200, contact=f"{stranger.last['contact']};expires=3600")
    assert world.engine.registrations(world.now) == []
    world.phone.contact = f"<sip:alice@{PHONE}>"
    world.phone.invites(stranger.address, STRANGER, sdp=world.phone.sdp(rtp=Endpoint(SERVER, 12000)))
    assert Endpoint(SERVER, 12000) not in mappings(world, Kind.MEDIA)
    assert Endpoint(SERVER, 5060) not in mappings(world, Kind.SIGNALLING)


@pytest.mark.parametrize("header", ["Contact", "Record-Route", "Refer-To", "Path"])
def test_a_service_port_in_a_header_gets_no_mapping(world: World, header: str) -> None:
    """<sip:phone:22> in a header is left as it is: ports below 1024 are services."""
    value = f"<sip:alice@{PHONE.host}:22>"
    world.phone.invites(world.provider.address, headers={header: value})
    assert Endpoint(PHONE.host, 22) not in mappings(world, Kind.SIGNALLING)
    assert value in world.provider.last[header.lower()]


# Media is accepted from whom the call's messages name

def test_a_call_does_not_open_another_ones_port() -> None:
    """Who is called names the port of a call in another inside network: the caller is not let in there."""
    world = World(inside=("192.168.1.0/24", FAR_NETWORK), dnat_accepted=True)
    victim = world.agent("dora", Endpoint("192.168.2.10", 5060), Endpoint("192.168.2.10", 12000), PROVIDER)
    world.answer(victim.invites(world.provider.address), world.provider)
    named = mappings(world, Kind.MEDIA)[victim.rtp].outside
    accomplice = world.agent("mallory", STRANGER, named)
    world.answer(world.phone.invites(accomplice.address, STRANGER), accomplice)
    assert world.trace_rtp(world.phone.rtp, named).dropped.startswith("guard")


def test_a_call_does_not_open_a_signalling_port(world: World, stranger: Agent) -> None:
    """Who is called names the SIP port of another phone: media is not led there."""
    world.other_phone.sends(b"\r\n\r\n", PROVIDER)
    stranger.rtp = mappings(world, Kind.SIGNALLING)[OTHER_PHONE].outside
    world.answer(world.phone.invites(stranger.address, STRANGER), stranger)
    assert world.told_media(world.phone) == stranger.rtp
    assert world.trace_rtp(world.phone.rtp, stranger.rtp).destination != OTHER_PHONE


def test_the_peer_of_one_call_is_a_stranger_to_the_next(world: World, stranger: Agent) -> None:
    """Two calls of one phone on two ports: the peer of each reaches its own port, not the other one's."""
    world.call(world.phone, world.provider)
    first = mappings(world, Kind.MEDIA)[world.phone.rtp].outside
    sdp = world.phone.sdp(rtp=Endpoint(PHONE.host, 12010))
    world.answer(world.phone.invites(stranger.address, STRANGER, sdp), stranger)
    second = mappings(world, Kind.MEDIA)[Endpoint(PHONE.host, 12010)].outside
    assert reaches(world, first.port).startswith("guard")
    assert reaches(world, second.port) == ""
    assert reaches(world, second.port, Endpoint(PROVIDER.host, 41000)).startswith("guard")


def test_a_call_that_was_answered_shuts_out_the_forks_that_lost(world: World, stranger: Agent) -> None:
    """A callee that only rang may send media while it rings, and no more once another one has answered."""
    leg = world.phone.invites(world.provider.address)
    invite = world.provider.last
    early = world.provider.sdp(rtp=Endpoint(STRANGER.host, 40000))
    world.provider.accepts(invite, 183, early, tag="fork")
    mapped = mappings(world, Kind.MEDIA)[world.phone.rtp].outside
    assert reaches(world, mapped.port) == ""
    world.answer(leg, world.provider) if world.provider.last is invite else None
    world.provider.accepts(invite, 180, tag="winner").answers(200)
    world.advance(40.0)
    assert reaches(world, mapped.port).startswith("guard")


# Signalling: before the 2xx only answers, afterwards only from the registrar and a call's peers

def test_a_strangers_sip_from_a_sip_port_opens_nothing(world: World, stranger: Agent) -> None:
    """A packet from port 5060 is marked as SIP, whatever it is for; it still reaches no inside host."""
    world.register(world.phone)
    for port in (5060, 22, 12000, 30000):
        stranger.invites(f"sip:alice@{OUTSIDE}", Endpoint(OUTSIDE, port))
    assert world.phone.received("INVITE") == []
    assert set(mappings(world, Kind.SIGNALLING)) == {PHONE}


def test_a_strangers_packets_by_a_forward_open_no_way_in(stranger: Agent) -> None:
    """What the operator forwards arrives as ever; but it makes nobody reachable, and no SDP opens a port."""
    forwards = {Endpoint(OUTSIDE, 5080): Endpoint(SERVER, 53)}
    world = World(dnat_accepted=True, forwards=forwards)
    mallory = world.agent("mallory", STRANGER)
    mallory.is_strict = False
    sdp = mallory.sdp(rtp=Endpoint(SERVER, 12000))
    mallory.invites(f"sip:victim@{OUTSIDE}", Endpoint(OUTSIDE, 5080), sdp)
    assert not any(mapping.inward for mapping in world.kernel.mappings())
    assert mappings(world, Kind.MEDIA) == {}


def test_the_contact_of_a_caller_lets_nobody_in_before_the_answer(world: World, stranger: Agent) -> None:
    """A ringing call opens the way to its own peer; the Contact and route set wait for the 2xx."""
    world.phone.invites(world.provider.address)
    world.provider.contact = f"<sip:bob@{STRANGER}>"
    world.provider.accepts(world.provider.last, 180)
    assert reaches(world, 5060) != ""
    world.provider.replies(world.provider.received("INVITE")[-1], 200, world.provider.sdp(), tag="late")
    assert reaches(world, 5060) == ""


def test_a_refused_call_lets_nobody_in(world: World, stranger: Agent) -> None:
    """The Contact of a redirection or a refusal is no peer of anything."""
    leg = world.phone.invites(world.provider.address)
    world.provider.replies(world.provider.last, 486, contact=f"<sip:bob@{STRANGER}>")
    leg.sends("ACK")
    assert reaches(world, 5060) != ""


# BYE, CANCEL and failures change state only if Call-ID, tags and peer address fit

@pytest.mark.parametrize("method", ["BYE", "CANCEL", "INVITE", "UPDATE"])
def test_a_strangers_request_in_a_call_changes_nothing(method: str) -> None:
    """By a forward of the operator's a stranger reaches the phone: Call-ID and tags alone end no call, move
    no media."""
    world = World(dnat_accepted=True, forwards={Endpoint(OUTSIDE, 5060): PHONE})
    call = world.call(world.phone, world.provider)
    before = world.engine.calls(world.now)[0]["streams"]
    mallory = world.agent("mallory", STRANGER)
    world.phone.is_strict = mallory.is_strict = False
    forged = call.callee.agent
    lines = [f"{method} sip:alice@{PHONE} SIP/2.0", f"Via: SIP/2.0/UDP {STRANGER};branch=z9hG4bKforged",
             f"From: {call.callee.own}", f"To: {call.callee.remote}", f"Call-ID: {call.caller.call_id}",
             f"CSeq: 4711 {method}", f"Contact: <sip:m@{STRANGER}>", "Content-Type: application/sdp",
             "Content-Length: 0", "", forged.sdp(rtp=Endpoint(STRANGER.host, 40000))]
    delivery = mallory.sends("\n".join(lines), Endpoint(OUTSIDE, 5060))
    assert delivery.arrived is not None
    assert "stranger" in delivery.rules()
    world.phone.replies(world.phone.last, 200)
    world.advance(40.0)
    assert world.engine.calls(world.now)[0]["streams"] == before
    heard = world.trace_rtp(world.provider.rtp, world.told_media(world.provider))
    assert (heard.dropped, heard.destination) == ("", world.phone.rtp)


# Quotas, bounded tables; what nobody answers goes first

def test_a_flood_of_calls_does_not_shut_real_ones_out() -> None:
    """A host's table of calls is full of unanswered ones: the oldest of these gives way to a new call."""
    world = small_world(Limits(dialogs_per_host=8), forwards={Endpoint(OUTSIDE, 5060): PHONE})
    world.call(world.phone, world.provider)
    mallory = world.agent("mallory", STRANGER)
    for _ in range(40):
        mallory.invites(f"sip:alice@{OUTSIDE}", Endpoint(OUTSIDE, 5060))
    next_one = world.call(world.phone, world.provider)
    world.assert_two_way_audio(next_one)
    assert len(world.engine.calls(world.now)) <= 8
    world.advance(400.0)
    assert len(world.engine.calls(world.now)) == 2


def test_a_flood_of_calls_does_not_empty_the_media_pool() -> None:
    """One phone rings at hundreds whom nobody answers: each call takes ports, and the oldest give theirs up.
    Another phone's calls have theirs, what the flood gave up leads nowhere, and in the end all are free."""
    world = World(media=Media(ports=(30000, 30063)), dnat_accepted=True)
    for number in range(100):
        world.phone.rtp = Endpoint(PHONE.host, 14000 + 2 * number)
        world.phone.invites(world.provider.address)
    world.assert_two_way_audio(world.call(world.other_phone, world.provider))
    status = world.engine.status(world.now)
    assert status["counters"]["gave-way"] == 100 - 28      # of 32 pairs the last eighth was left
    assert status["media_pairs_free"] == 3
    mapped = {mapping.inside.port for mapping in world.engine._mappings if mapping.kind is Kind.MEDIA
              and mapping.inside.host == PHONE.host}
    assert min(mapped) == 14000 + 2 * 72
    world.advance(400.0)
    status = world.engine.status(world.now)
    assert status["media_pairs"] - status["media_pairs_free"] == 1      # the call that was answered


def test_a_pbx_that_is_named_may_have_all_ports() -> None:
    """The last eighth of the pool is for hosts that have little, and for those that the operator names."""
    networks = tuple(FakeKernel().networks.values())
    world = World(Settings(inside=Inside(networks, pbx=(PHONE.host,)), outside=Outside("outside"),
                           media=Media(ports=(30000, 30063))))
    for number in range(32):
        world.phone.rtp = Endpoint(PHONE.host, 14000 + 2 * number)
        world.phone.invites(world.provider.address)
    status = world.engine.status(world.now)
    assert status["media_pairs_free"] == 0
    assert "gave-way" not in status["counters"]


def test_a_call_that_gave_way_and_is_answered_gets_ports_by_its_next_offer() -> None:
    """It is a call like others: its messages are made right, and a re-INVITE brings audio."""
    world = World(media=Media(ports=(30000, 30063)), dnat_accepted=True)
    first = world.phone.invites(world.provider.address)
    callee = world.provider.last
    for number in range(1, 40):
        world.phone.rtp = Endpoint(PHONE.host, 14000 + 2 * number)
        world.phone.invites(world.provider.address)
    world.provider.accepts(callee, 200)
    assert first.final == 200
    sent = first.sends("INVITE", sdp=world.phone.sdp())
    assert sent.arrived is not None
    assert b"c=IN IP4 " + OUTSIDE.encode() in sent.arrived


def test_answered_calls_give_way_to_nothing() -> None:
    """Where all places are taken by calls that were answered, the next one is refused, with a note."""
    world = small_world(Limits(dialogs_per_host=2))
    for _ in range(2):
        world.call(world.phone, world.provider)
    leg = world.phone.invites(world.provider.address)
    assert leg.delivery is not None
    assert "limit" in leg.delivery.rules()
    assert [row["state"] for row in world.engine.calls(world.now)] == ["confirmed", "confirmed"]


def test_one_host_cannot_take_the_whole_pool() -> None:
    """What one inside host may map is bounded; the next host still gets its ports."""
    world = small_world(Limits(mappings_per_host=8))
    for port in range(12000, 12100, 2):
        world.phone.invites(world.provider.address, sdp=world.phone.sdp(rtp=Endpoint(PHONE.host, port)))
    assert sum(inside.host == PHONE.host for inside in mappings(world, Kind.MEDIA)) <= 8
    world.assert_two_way_audio(world.call(world.other_phone, world.provider))


def test_what_a_call_remembers_is_bounded(world: World) -> None:
    """A UA that names itself by ever other ports does not make its call grow without end."""
    world.phone.is_strict = False
    leg = world.phone.invites(world.provider.address)
    for port in range(2000, 2300):
        leg.sends("INFO", headers={"P-Asserted-Identity": f"<sip:alice@{PHONE.host}:{port}>"})
    row = next(change.row for (table, _), change in world.rows.items() if table == "calls" and change.row)
    assert len(row["written"]) <= 100


# Release only where both ends may reach each other

def test_another_network_is_not_named_to_a_phone() -> None:
    """Phones of two inside networks meet at the gateway: neither learns the other's own address."""
    world = World(inside=("192.168.1.0/24", FAR_NETWORK), dnat_accepted=True)
    far = world.agent("dora", Endpoint("192.168.2.10", 5060), Endpoint("192.168.2.10", 12000), PROVIDER)
    far.invites(world.provider.address)
    shown = world.told_media(world.provider)
    world.provider.rtp = shown
    world.call(world.phone, world.provider)
    assert world.told_media(world.phone) == shown


def test_media_that_is_open_to_all_is_open_on_calls_only() -> None:
    """accept_from = "any" opens the ports of a call for its life, and none of those that are free."""
    networks = tuple(FakeKernel().networks.values())
    settings = Settings(inside=Inside(networks), outside=Outside("outside"), media=Media(accept_from="any"))
    world = World(settings, dnat_accepted=True)
    call = world.call(world.phone, world.provider)
    mapped = mappings(world, Kind.MEDIA)[world.phone.rtp].outside
    assert reaches(world, mapped.port) == ""
    assert reaches(world, mapped.port + 100).startswith("guard")
    call.hang_up()
    world.advance(3.0)
    assert reaches(world, mapped.port).startswith("guard")


# How fast one host may begin something (design, section 7: quotas)

OPTIONS = ("OPTIONS sip:{0} SIP/2.0\r\nVia: SIP/2.0/UDP {1};branch=z9hG4bK{2}\r\nFrom: <sip:x@{1}>;tag=x\r\n"
           "To: <sip:{0}>\r\nCall-ID: {2}@flood\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n")


def arrived_of_flood(world: World, source: Endpoint, target: Endpoint, count: int) -> int:
    """Send *count* OPTIONS at once; return how many the gateway lets go on."""
    sent = [world.transmit(source, target, OPTIONS.format(target, source, number).encode())
            for number in range(count)]
    return sum(delivery.outcome.verdict is Verdict.ACCEPT for delivery in sent)


def test_an_inside_host_that_floods_is_slowed_and_nobody_else() -> None:
    """Beyond its burst a host's requests are dropped, counted, and noted once; another phone's call comes
    about, and the host's own call can end."""
    world = small_world(Limits(requests_per_host=10))
    running = world.call(world.phone, world.provider)
    assert arrived_of_flood(world, PHONE, PROVIDER, 100) == 49      # the burst of 50, less the INVITE
    world.assert_two_way_audio(world.call(world.other_phone, world.provider))
    running.hang_up()
    status = world.engine.status(world.now)
    assert status["over_rate"] == {PHONE.host: 51}
    assert status["counters"]["over rate"] == 51
    notes = [note for entry in world.log if isinstance(entry, Delivery) for note in entry.notes]
    assert [note.reason for note in notes if note.rule == "rate"] == [
        f"[limits] requests_per_host is reached by {PHONE.host}"]


def test_a_slowed_host_goes_on_a_moment_later() -> None:
    """The bucket fills again: nobody is shut out for having been fast."""
    world = small_world(Limits(requests_per_host=10))
    arrived_of_flood(world, PHONE, PROVIDER, 100)
    world.advance(1.0)
    assert arrived_of_flood(world, PHONE, PROVIDER, 100) == 10


def test_an_outside_host_that_floods_is_slowed_and_nobody_else() -> None:
    """What a registrar floods a phone with is bounded; another provider's answers come in."""
    world = small_world(Limits(requests_per_peer=10))
    world.register(world.phone)
    assert arrived_of_flood(world, PROVIDER, Endpoint(OUTSIDE, PHONE.port), 100) == 50
    world.assert_two_way_audio(world.call(world.phone, world.provider))
    assert world.engine.status(world.now)["over_rate"] == {PROVIDER.host: 50}


def test_new_ports_count_as_requests() -> None:
    """A host that sends anything from ever new ports takes mappings, so these count too."""
    world = small_world(Limits(requests_per_host=10))
    sent = [world.transmit(Endpoint(PHONE.host, 10000 + number), PROVIDER, b"\r\n") for number in range(60)]
    assert sum(delivery.outcome.verdict is Verdict.DROP for delivery in sent) == 10
    assert world.transmit(Endpoint(PHONE.host, 10000), PROVIDER, b"\r\n").is_untouched


def test_what_the_operator_names_has_no_rate() -> None:
    """A provider that a [[peer]] names may send as much as it likes."""
    networks = tuple(FakeKernel().networks.values())
    settings = Settings(inside=Inside(networks), outside=Outside("outside"), peers=(Peer(PROVIDER.host),),
                        limits=Limits(requests_per_peer=10))
    world = World(settings, dnat_accepted=True)
    world.register(world.phone)
    assert arrived_of_flood(world, PROVIDER, Endpoint(OUTSIDE, PHONE.port), 100) == 100


def test_between_inside_hosts_there_is_no_rate() -> None:
    """What inside networks say to each other directly is none of natfix's business."""
    world = small_world(Limits(requests_per_host=10))
    path = Path("forward", "inside", "inside2")
    target = Endpoint("192.168.2.20", 5060)
    raws = [packet_bytes(Datagram(PHONE, target, OPTIONS.format(target, PHONE, number).encode()))
            for number in range(100)]
    outcomes = [world.engine.receive_packet(raw, path, world.now) for raw in raws]
    assert {outcome.verdict for outcome in outcomes} == {Verdict.ACCEPT}
