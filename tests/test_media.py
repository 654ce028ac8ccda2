"""SDP: what is mapped, what is released, what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from natfix.address import Endpoint
from natfix.commands import Kind
from natfix.config import Domain, Inside, Media, Peer, Settings
from tests.playbook import PROVIDER, World
from tests.streams import streams_of


def world_with(**media: object) -> World:
    networks = tuple(World().kernel.networks.values())
    return World(Settings(inside=Inside(networks), media=Media(**media)))   # type: ignore[arg-type]


def mapped(world: World) -> dict[int, int]:
    """Return the phone's media ports, inside to outside."""
    return {m.inside.port: m.outside.port for m in world.kernel.mappings() if m.kind is Kind.MEDIA}


def offer(world: World, sdp: str) -> bytes:
    """Send an INVITE with *sdp* and return the body that arrives outside."""
    delivery = world.phone.invites("sip:bob@provider.example", sdp=sdp).delivery
    assert delivery.arrived is not None
    return delivery.arrived.partition(b"\r\n\r\n")[2]


def sdp(*lines: str, host: str = "192.168.1.10") -> str:
    return "\n".join(["v=0", f"o=- 1 1 IN IP4 {host}", "s=-", f"c=IN IP4 {host}", "t=0 0", *lines, ""])


def test_every_line_of_a_stream_is_moved_together() -> None:
    """c=, m=, a=rtcp and o= name the outside endpoints; RTP is even, RTCP next to it."""
    world = world_with()
    body = offer(world, sdp("m=audio 4000 RTP/AVP 0", "a=rtcp:4001 IN IP4 192.168.1.10",
                            "m=video 4002 RTP/AVP 96"))
    assert b"192.168.1.10" not in body
    audio, video = streams_of(body)
    assert audio.rtp == Endpoint("203.0.113.1", mapped(world)[4000])
    assert audio.rtcp.port == audio.rtp.port + 1
    assert audio.rtp.port % 2 == 0
    assert video.rtp.port == mapped(world)[4002]


@pytest.mark.parametrize(("line", "ports"), [
    ("m=audio 4001 RTP/AVP 0", {4001, 4002}),
    ("m=audio 4000 RTP/AVP 0\na=rtcp:5555", {4000, 5555}),
    ("m=image 4000 udptl t38", {4000}),
    ("m=audio 4000/2 RTP/AVP 0", {4000, 4001, 4002, 4003}),
    ("m=audio 4000 RTP/AVP 0\na=rtcp:4000\na=rtcp-mux", {4000}),
    ("m=audio 0 RTP/AVP 0", set()),
    ("m=audio 9 RTP/AVP 0", set()),
])
def test_which_ports_a_line_needs(line: str, ports: set[int]) -> None:
    """Odd RTP, RTCP elsewhere, T.38 without RTCP, port/count, mux, and lines without media."""
    world = world_with()
    offer(world, sdp(line))
    assert set(mapped(world)) == ports


def test_port_count_is_a_run_of_ports() -> None:
    """"m=audio 4000/2" stays two pairs in a row outside (RFC 8866, section 5.14)."""
    world = world_with()
    body = offer(world, sdp("m=audio 4000/2 RTP/AVP 0"))
    first = mapped(world)[4000]
    assert [mapped(world)[4000 + step] for step in range(4)] == [first + step for step in range(4)]
    assert f"m=audio {first}/2 RTP/AVP".encode() in body


@pytest.mark.parametrize(("host", "port"), [
    ("127.0.0.1", 4000), ("239.1.1.1", 4000), ("169.254.1.1", 4000), ("192.168.1.10", 22),
    ("192.168.1.66", 4000), ("192.168.1.10", 5060),
])
def test_what_must_not_be_opened_is_refused_with_a_note(host: str, port: int) -> None:
    """No mapping to loopback, multicast, services, other hosts, or to signalling (design, section 7)."""
    world = world_with()
    leg = world.phone.invites("sip:bob@provider.example", sdp=sdp(f"m=audio {port} RTP/AVP 0", host=host))
    assert mapped(world) == {}
    assert "sdp-refused" in leg.delivery.rules()
    assert f"c=IN IP4 {host}".encode() in leg.delivery.arrived


def test_media_hosts_may_be_named() -> None:
    """A media server of the operator's may stand in any phone's SDP."""
    world = world_with(media_hosts=("192.168.1.66",))
    body = offer(world, sdp("m=audio 4000 RTP/AVP 0", host="192.168.1.66"))
    assert b"c=IN IP4 203.0.113.1" in body


def test_host_names_and_ipv6_are_not_ours() -> None:
    """A name in c= passes with a note; IPv6 passes."""
    world = world_with()
    body = sdp("m=audio 4000 RTP/AVP 0", host="media.example")
    assert offer(world, body).decode().replace("\r\n", "\n") == body
    six = sdp("m=audio 4000 RTP/AVP 0").replace("IP4 192.168.1.10", "IP6 2001:db8::1")
    assert offer(world, six).decode().replace("\r\n", "\n") == six


def test_a_host_candidate_moves_with_its_connection() -> None:
    """The candidate equal to c=/m= is shown outside with it; the others stay (RFC 8839)."""
    world = world_with()
    body = offer(world, sdp(
        "m=audio 4000 RTP/AVP 0", "a=candidate:1 1 UDP 2130706431 192.168.1.10 4000 typ host",
        "a=candidate:2 1 UDP 1694498815 198.18.0.9 61000 typ srflx raddr 192.168.1.10 rport 4000",
        "a=candidate:3 1 UDP 2130706430 10.9.9.9 4000 typ host"))
    port = mapped(world)[4000]
    assert f"a=candidate:1 1 UDP 2130706431 203.0.113.1 {port} typ host".encode() in body
    assert b"198.18.0.9 61000 typ srflx" in body
    assert b"10.9.9.9 4000 typ host" in body


def test_policy_never_leaves_sdp_alone() -> None:
    """[media] policy = "never": headers only."""
    world = world_with(policy="never")
    body = sdp("m=audio 4000 RTP/AVP 0")
    assert offer(world, body).decode().replace("\r\n", "\n") == body
    assert mapped(world) == {}


def test_a_peer_may_have_a_policy_of_its_own() -> None:
    """[[peer]] media overrides the general policy for messages to that peer."""
    base = world_with()
    settings = replace(base.settings, peers=(Peer(PROVIDER.host, "never"),))
    world = World(settings)
    assert b"192.168.1.10" in offer(world, sdp("m=audio 4000 RTP/AVP 0"))


def hairpin_call(world: World) -> tuple[Endpoint, Endpoint]:
    """Two inside phones call each other; return where each was told to send audio."""
    world.register(world.phone)
    world.register(world.other_phone)
    world.call(world.phone, world.other_phone)
    return world.told_media(world.phone), world.told_media(world.other_phone)


def test_two_phones_of_one_subnet_talk_directly() -> None:
    """Released: each is told the other's own address."""
    world = World(dnat_accepted=True)
    assert hairpin_call(world) == (world.other_phone.rtp, world.phone.rtp)


@pytest.mark.parametrize("chosen", [
    {"media": Media(policy="full")}, {"domains": (Domain("provider.example", "full"),)}], ids=["", "domain"])
def test_full_keeps_media_on_the_gateway(chosen: dict[str, Any]) -> None:
    """Policy "full", of all or of a domain: each is told an outside port, and is heard through it."""
    networks = tuple(World().kernel.networks.values())
    world = World(Settings(inside=Inside(networks), **chosen), dnat_accepted=True)
    to_phone, to_other = hairpin_call(world)
    assert {to_phone.host, to_other.host} == {"203.0.113.1"}
    assert world.trace_rtp(world.phone.rtp, to_phone).destination == world.other_phone.rtp
    assert world.trace_rtp(world.other_phone.rtp, to_other).destination == world.phone.rtp


def test_an_empty_pool_leaves_what_belongs_to_a_call_unfixed() -> None:
    """Port pool empty: a second stream for a running call passes as it is, and the note says which setting
    it is."""
    world = world_with(ports=(30000, 30001))
    call = world.call(world.phone, world.provider)
    sent = call.caller.sends("INVITE", sdp=sdp("m=audio 4100 RTP/AVP 0"))
    assert sent.arrived is not None
    assert b"m=audio 4100" in sent.arrived
    assert "limit" in sent.rules()
