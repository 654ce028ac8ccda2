"""What SDP can say, through the engine: several streams, RTCP, T.38, ICE, hairpins, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from natfix.address import Endpoint
from natfix.config import Limits, Media, Peer, Signalling
from tests.playbook import OUTSIDE, World, told
from tests.streams import streams_of


@pytest.fixture
def world() -> Iterator[World]:
    """A gateway with the documented line."""
    yield from told(World(dnat_accepted=True))


def offered(world: World, sdp: str) -> bytes:
    """Return the body that the provider sees of an offer of the phone's."""
    world.phone.invites(world.provider.address, sdp=sdp)
    return world.provider.last.body


# Streams

def test_audio_video_and_a_refused_stream(world: World) -> None:
    """Each stream has its own ports; port 0 stays 0; RTP and RTCP of each arrive."""
    body = offered(world, world.phone.sdp("m=video 12010 RTP/AVP 96", "m=audio 0 RTP/AVP 0"))
    audio, video, refused = streams_of(body)
    assert refused.rtp.port == 0
    for stream, inside_port in ((audio, 12000), (video, 12010)):
        for outside, port in ((stream.rtp, inside_port), (stream.rtcp, inside_port + 1)):
            trace = world.trace_rtp(Endpoint("198.51.100.20", 50000), outside)
            assert trace.destination == Endpoint("192.168.1.10", port)


def test_rtcp_on_another_port(world: World) -> None:
    """a=rtcp (RFC 3605) is rewritten to a port that leads to the one it named."""
    audio, = streams_of(offered(world, world.phone.sdp("a=rtcp:12345")))
    assert audio.rtcp.port != 12345
    assert world.trace_rtp(world.provider.rtp, audio.rtcp).destination == Endpoint("192.168.1.10", 12345)


def test_rtcp_with_an_address(world: World) -> None:
    """The address in a=rtcp is the outside one, as c= is."""
    audio, = streams_of(offered(world, world.phone.sdp("a=rtcp:12345 IN IP4 192.168.1.10")))
    assert audio.rtcp.host == OUTSIDE
    assert world.trace_rtp(world.provider.rtp, audio.rtcp).destination == Endpoint("192.168.1.10", 12345)


def test_an_odd_rtp_port(world: World) -> None:
    """Odd ports are legal: parity is kept (RFC 4787), RTCP is above."""
    audio, = streams_of(offered(world, world.phone.sdp(rtp=Endpoint("192.168.1.10", 12003))))
    assert audio.rtp.port % 2 == 1
    assert world.trace_rtp(world.provider.rtp, audio.rtcp).destination == Endpoint("192.168.1.10", 12004)


def test_rtcp_mux(world: World) -> None:
    """rtcp-mux (RFC 5761): RTCP may come to the RTP port."""
    audio, = streams_of(offered(world, world.phone.sdp("a=rtcp-mux")))
    assert world.trace_rtp(world.provider.rtp, audio.rtp).destination == world.phone.rtp


def test_several_ports_in_one_line(world: World) -> None:
    """"port/2" (RFC 8866, 5.14): both pairs are mapped, in a row."""
    body = offered(world, world.phone.sdp().replace("m=audio 12000", "m=audio 12000/2"))
    assert b"/2 RTP/AVP" in body
    first = streams_of(body.replace(b"/2", b""))[0].rtp
    for step in range(4):
        outside = Endpoint(first.host, first.port + step)
        assert world.trace_rtp(world.provider.rtp, outside).destination.port == 12000 + step


def test_t38(world: World) -> None:
    """A re-INVITE to udptl has one port, next to audio refused with port 0."""
    call = world.call(world.phone, world.provider)
    fax = world.phone.sdp().replace("m=audio 12000 RTP/AVP 8 101", "m=image 12050 udptl t38")
    call.caller.sends("INVITE", fax)
    image, = streams_of(world.provider.last.body)
    assert world.trace_rtp(Endpoint("198.51.100.20", 41000), image.rtp).destination.port == 12050
    assert Endpoint("192.168.1.10", 12051) not in world.media_mappings()


def test_media_level_connection_lines(world: World) -> None:
    """A c= of the m-line's own goes before the session's."""
    sdp = world.phone.sdp().replace("c=IN IP4 192.168.1.10\n", "") + "c=IN IP4 192.168.1.10\n"
    audio, = streams_of(offered(world, sdp))
    assert world.trace_rtp(world.provider.rtp, audio.rtp).destination == world.phone.rtp


@pytest.mark.parametrize("connection", ["0.0.0.0", "media.example.net"])
def test_what_names_no_address_stays(world: World, connection: str) -> None:
    """An unset address and a host name pass as they are; o= names the outside address all the same."""
    body = offered(world, world.phone.sdp().replace("c=IN IP4 192.168.1.10", f"c=IN IP4 {connection}"))
    assert f"c=IN IP4 {connection}".encode() in body
    assert b"192.168.1.10" not in body
    assert not world.media_mappings()


def test_port_9_stays(world: World) -> None:
    """The discard port of a trickling offer is no place to send to."""
    body = offered(world, world.phone.sdp(rtp=Endpoint("192.168.1.10", 9)))
    assert b"m=audio 9 " in body
    assert not world.media_mappings()


def test_a_phone_that_writes_the_outside_address_itself(world: World) -> None:
    """Already right (STUN, static NAT setting): the whole message is left alone."""
    phone = world.phone
    phone.contact, phone.sent_by = f"<sip:alice@{OUTSIDE}:5060>", f"{OUTSIDE}:5060"
    delivery = phone.invites(world.provider.address, sdp=phone.sdp(rtp=Endpoint(OUTSIDE, 12000))).delivery
    assert delivery is not None
    assert delivery.is_untouched, delivery.changes()


def test_a_phone_that_has_learnt_its_outside_endpoint(world: World) -> None:
    """After ICE a phone names its outside endpoint in a re-INVITE; its mapping stays for the call."""
    call = world.call(world.phone, world.provider)
    learnt, ports = world.told_media(world.provider), world.media_mappings()
    call.caller.sends("INVITE", world.phone.sdp(rtp=learnt, version=2))
    world.provider.replies(world.provider.last, 200, world.provider.sdp())
    call.caller.sends("ACK")
    world.advance(600.0)
    assert world.media_mappings() == ports
    world.assert_two_way_audio(call)
    call.hang_up()
    world.advance(40.0)
    assert not world.media_mappings()


def test_ice_candidates(world: World) -> None:
    """The host candidate that equals c=/m= is shown outside with it; all others stay."""
    candidates = ("a=candidate:1 1 UDP 2130706431 192.168.1.10 12000 typ host",
                  "a=candidate:1 2 UDP 2130706430 192.168.1.10 12001 typ host",
                  "a=candidate:2 1 UDP 2130706431 10.0.0.7 12000 typ host",
                  "a=candidate:3 1 TCP 2105458943 192.168.1.10 9 typ host tcptype active",
                  "a=candidate:4 1 UDP 1694498815 198.51.100.99 4000 typ srflx raddr 10.0.0.7 rport 12000")
    body = offered(world, world.phone.sdp(*candidates)).decode()
    audio, = streams_of(body.encode())
    assert f"a=candidate:1 1 UDP 2130706431 {audio.rtp.host} {audio.rtp.port} typ host" in body
    assert f"a=candidate:1 2 UDP 2130706430 {audio.rtcp.host} {audio.rtcp.port} typ host" in body
    assert candidates[2] in body
    assert candidates[3] in body
    assert "198.51.100.99 4000 typ srflx" in body


def test_remote_candidates_open_the_filter(world: World) -> None:
    """Media may come from any candidate of the callee's (RFC 8445)."""
    leg = world.phone.invites(world.provider.address)
    callee = world.provider.accepts(world.provider.last)
    callee.answers(sdp=world.provider.sdp(
        "a=candidate:1 1 UDP 2130706431 198.51.100.88 4000 typ host"))
    leg.sends("ACK")
    mapped = world.media_mappings()[world.phone.rtp]
    assert world.trace_rtp(Endpoint("198.51.100.88", 4000), mapped).destination == world.phone.rtp


def test_the_filter_has_a_limit_and_keeps_what_matters() -> None:
    """Of too many candidates some are left out, but not the address that the callee's media is sent to."""
    world = World(limits=Limits(remotes_per_dialog=3), dnat_accepted=True)
    leg = world.phone.invites(world.provider.address)
    callee = world.provider.accepts(world.provider.last)
    candidates = [f"a=candidate:{number} 1 UDP 100 100.64.0.{number} 4000 typ host" for number in range(1, 9)]
    callee.answers(sdp=world.provider.sdp(*candidates))
    leg.sends("ACK")
    mapped = world.media_mappings()[world.phone.rtp]
    heard = [number for number in range(1, 9)
             if not world.trace_rtp(Endpoint(f"100.64.0.{number}", 4000), mapped).dropped]
    assert len(heard) <= 3
    assert not world.trace_rtp(Endpoint(world.provider.rtp.host, 50000), mapped).dropped


def test_multipart(world: World) -> None:
    """One SDP part inside multipart/mixed is rewritten; the other part and the boundaries stay."""
    body = ("--b\nContent-Type: application/sdp\n\n" + world.phone.sdp() +
            "\n--b\nContent-Type: text/plain\n\nI am 192.168.1.10\n--b--\n")
    world.phone.invites(world.provider.address, sdp=body,
                        headers={"Content-Type": "multipart/mixed;boundary=b"})
    seen = world.provider.last.body.decode()
    assert f"c=IN IP4 {OUTSIDE}" in seen
    assert "I am 192.168.1.10" in seen


def test_no_content_length_stays_none(world: World) -> None:
    """Over UDP a body needs none, and none is added (RFC 3261, 18.3)."""
    leg = world.phone.invites(world.provider.address)
    assert leg.delivery is not None
    payload = b"\r\n".join(line for line in leg.delivery.payload.split(b"\r\n")
                           if not line.startswith(b"Content-Length"))
    arrived = world.phone.sends(payload.replace(b"z9hG4bK", b"z9hG4bKx")).arrived or b""
    assert b"Content-Length" not in arrived
    assert OUTSIDE.encode() in arrived.partition(b"\r\n\r\n")[2]


# Who may use a mapping

@pytest.mark.parametrize("host", ["127.0.0.1", "224.2.3.4", "255.255.255.255", "169.254.1.1", "192.168.1.1",
                                  "203.0.113.1", "192.168.1.77"])
def test_addresses_that_get_no_mapping(world: World, host: str) -> None:
    """Loopback, multicast, broadcast, link-local, the gateway's own, an unregistered host."""
    world.phone.invites(world.provider.address, sdp=world.phone.sdp(rtp=Endpoint(host, 12000)))
    assert not world.media_mappings()


def test_a_port_below_1024_gets_no_mapping(world: World) -> None:
    """Port 22 is a service; the stream is left alone with a note."""
    leg = world.phone.invites(world.provider.address, sdp=world.phone.sdp(rtp=Endpoint("192.168.1.10", 22)))
    assert not world.media_mappings()
    assert leg.delivery is not None
    assert "sdp-refused" in leg.delivery.rules()


def test_another_registered_phone_may_be_named(world: World) -> None:
    """A PBX that lets two of its phones talk to the provider directly."""
    world.register(world.other_phone)
    offered(world, world.phone.sdp(rtp=world.other_phone.rtp))
    assert world.other_phone.rtp in world.media_mappings()


def test_a_media_host_may_be_named() -> None:
    """[media] media_hosts: media servers that never register."""
    world = World(media=Media(media_hosts=("192.168.1.50",)))
    offered(world, world.phone.sdp(rtp=Endpoint("192.168.1.50", 20000)))
    assert Endpoint("192.168.1.50", 20000) in world.media_mappings()


def test_a_stranger_is_not_heard_but_counted(world: World) -> None:
    """RTP from an address that nobody announced."""
    call = world.call(world.phone, world.provider)
    mapped = world.media_mappings()[world.phone.rtp]
    for _ in range(3):
        assert world.trace_rtp(Endpoint("198.51.100.66", 4000), mapped).dropped.startswith("guard")
    world.poll_counters()
    assert world.engine.status(world.now)["refused_packets"] == 3
    world.assert_two_way_audio(call)


def test_a_stream_that_the_remote_began(world: World) -> None:
    """Early media makes an entry of the other orientation: it is counted, kept and opened anew as it is."""
    leg = world.phone.invites(world.provider.address)
    mapped = world.told_media(world.provider)
    for _ in range(3):
        assert world.trace_rtp(world.provider.rtp, mapped).destination == world.phone.rtp
    callee = world.provider.accepts(world.provider.last)
    callee.answers()
    leg.sends("ACK")
    world.trace_rtp(world.phone.rtp, world.provider.rtp)
    world.poll_counters()
    stream = world.engine.calls(world.now)[0]["streams"][0]
    assert (stream["packets_out"], stream["packets_in"]) == (1, 3)
    world.kernel.flush_flows()
    world.advance(0.1)
    world.kernel.dnat_accepted = False
    assert not world.trace_rtp(world.provider.rtp, mapped).dropped


def test_media_from_anybody_where_policy_says_so() -> None:
    """accept_from = "any"."""
    world = World(media=Media(accept_from="any"), dnat_accepted=True)
    world.call(world.phone, world.provider)
    mapped = world.media_mappings()[world.phone.rtp]
    assert world.trace_rtp(Endpoint("198.51.100.66", 4000), mapped).destination == world.phone.rtp


def test_media_never() -> None:
    """media = "never": headers are fixed, the SDP is not."""
    world = World(media=Media(policy="never"))
    body = offered(world, world.phone.sdp())
    assert b"c=IN IP4 192.168.1.10" in body
    assert OUTSIDE in world.provider.last["contact"]


def test_a_peers_own_media_policy() -> None:
    """[[peer]] media goes before [media] policy."""
    world = World(peers=(Peer("198.51.100.20", media="never"),))
    assert b"c=IN IP4 192.168.1.10" in offered(world, world.phone.sdp())


# Many

def test_two_phones_with_the_same_ports(world: World) -> None:
    """Same SIP and RTP ports on two hosts: each has its own outside ports."""
    first = world.call(world.phone, world.provider)
    world.assert_two_way_audio(first)
    world.other_phone.rtp = Endpoint(world.other_phone.rtp.host, world.phone.rtp.port)
    second = world.call(world.other_phone, world.provider)
    world.assert_two_way_audio(second)
    assert len(set(world.media_mappings().values())) == 4


def test_one_media_port_in_two_dialogs(world: World) -> None:
    """One inside endpoint is one outside endpoint in both; the first hang-up leaves the other call whole."""
    first = world.call(world.phone, world.provider)
    shown = world.told_media(world.provider)
    second = world.call(world.phone, world.provider)
    assert world.told_media(world.provider) == shown
    first.hang_up()
    world.advance(40.0)
    world.assert_two_way_audio(second)


def test_calling_again_one_second_after_hanging_up(world: World) -> None:
    """The fixed media port is still mapped; the old call's end does not take it from the new one."""
    first = world.call(world.phone, world.provider)
    first.hang_up()
    world.advance(1.0)
    second = world.call(world.phone, world.provider)
    world.advance(60.0)
    world.assert_two_way_audio(second)


def test_fifty_calls_of_one_pbx(world: World) -> None:
    """One 5-tuple, fifty dialogs, ended in another order than begun: each keeps its own audio."""
    pbx, calls = world.phone, []
    for number in range(50):
        pbx.rtp = Endpoint(pbx.endpoint.host, 20000 + 2 * number)
        world.provider.rtp = Endpoint(world.provider.endpoint.host, 40000 + 2 * number)
        calls.append((world.call(pbx, world.provider), pbx.rtp, world.provider.rtp,
                      world.told_media(world.provider)))
    for index in sorted(range(50), key=lambda number: number * 37 % 50):
        calls[index][0].hang_up()
        calls[index] = (None, *calls[index][1:])    # type: ignore[assignment]
        world.advance(3.0)
        for call, inside, remote, outside in calls:
            if call is not None:
                assert world.trace_rtp(remote, outside).destination == inside
                assert world.trace_rtp(inside, remote).source == outside
    assert not world.media_mappings()


def test_the_port_pool_is_empty() -> None:
    """The INVITE is dropped with a note that says which limit, and counted; repeated when there is a pair
    again, it makes a call with audio."""
    world = World(media=Media(ports=(30000, 30001)))
    first = world.call(world.phone, world.provider)
    world.phone.rtp = Endpoint(world.phone.rtp.host, 14000)
    leg = world.phone.invites(world.provider.address)
    assert leg.delivery is not None
    assert leg.delivery.arrived is None
    assert "limit" in leg.delivery.rules()
    first.hang_up()
    world.advance(3.0)
    again = world.phone.sends(leg.delivery.payload, leg.delivery.destination)
    assert again.arrived is not None
    assert b"c=IN IP4 203.0.113.1" in again.arrived
    counters = world.engine.status(world.now)["counters"]
    assert (counters["limit"], counters["refused"]) == (1, 1)


def test_the_port_pool_is_empty_and_on_failure_is_pass() -> None:
    """Where the operator wants it, the offer passes unfixed; the call itself goes on."""
    world = World(media=Media(ports=(30000, 30001)), signalling=Signalling(on_failure="pass"))
    world.call(world.phone, world.provider)
    world.phone.rtp = Endpoint(world.phone.rtp.host, 14000)
    leg = world.phone.invites(world.provider.address)
    assert leg.delivery is not None
    assert "limit" in leg.delivery.rules()
    assert b"c=IN IP4 192.168.1.10" in world.provider.last.body


def test_a_hosts_quota() -> None:
    """One inside host cannot take all mappings; others go on."""
    world = World(limits=Limits(mappings_per_host=3))
    world.call(world.phone, world.provider)
    world.phone.rtp = Endpoint(world.phone.rtp.host, 14000)
    leg = world.phone.invites(world.provider.address)
    assert leg.delivery is not None
    assert "limit" in leg.delivery.rules()
    world.assert_two_way_audio(world.call(world.other_phone, world.provider))


def test_freed_ports_are_used_last(world: World) -> None:
    """The pair that was unused longest is taken first."""
    first = world.call(world.phone, world.provider)
    used = world.told_media(world.provider)
    first.hang_up()
    world.advance(40.0)
    world.call(world.phone, world.provider)
    assert world.told_media(world.provider) != used
