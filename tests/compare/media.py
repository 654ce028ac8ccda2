"""Scenarios 12 to 20: what session descriptions and other messages can hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.compare.ends import GATEWAY, PHONE, REMOTE, finish
from tests.compare.parts import expect, hear_each_other, part, told
from tests.compare.worlds import World
from tests.lab.audio import talk
from tests.lab.programs import Baresip, Kamailio, Linphone, RtpAgent, Sipp
from tests.lab.programs.sipp import SCENARIOS
from tests.scenarios import test_s15_requests as s15
from tests.scenarios import test_s16_candidates as s16
from tests.scenarios import test_s17_long_messages as s17
from tests.scenarios import test_s20_public_addresses as s20
from tests.scenarios.phones import ALICE_AND_BOB, behind_two_proxies, open_phones
from tests.scenarios.script import (
    Callee,
    messages_received,
    messages_sent,
    scenario,
    sdp,
    tell,
    wait_received,
)
from tests.scenarios.sipp_call import SippCall, audio_sdp
from tests.scenarios.test_s12_three_streams import three_streams
from tests.scenarios.test_s14_fax import fax_sdp
from tests.scenarios.test_s18_proxies import CONFIG as PHONE_BEHIND_PBX
from tests.scenarios.test_s19_names import NAME

ANSWER = audio_sdp(REMOTE, 14000)
SOME = 20       # packets that show that a stream flows
RTCP = 2        # reports in 3.7 s; one is sent every second
RETRANSMIT = ' retrans="500"'    # of a 2xx to INVITE, which gets an ACK
callee = Callee()
# Unlike s20_callee.xml and s15_notifier.xml these follow a route set of more than one proxy.
HANGS_UP = scenario(
    callee.invited(), callee.answer(200, sdp(14000)), callee.receive("ACK"), callee.told(),
    callee.request("BYE", 1), callee.receive(200))
NOTIFIER = scenario(
    callee.invited().replace("INVITE", "SUBSCRIBE"),
    callee.answer(200, "", "Expires: 600").replace(RETRANSMIT, ""),
    *(step for cseq in (1, 2) for step in (
        callee.request("NOTIFY", cseq, "", "Event: dialog", "Subscription-State: active;expires=600"),
        callee.receive(200), *([callee.told()] if cseq == 1 else []))),
    callee.receive("SUBSCRIBE"), callee.reply(200, "", "Expires: 0"),
    callee.request("NOTIFY", 3, "", "Event: dialog", "Subscription-State: terminated;reason=timeout"),
    callee.receive(200))


def heard_on_both(world: World, pair: tuple[RtpAgent, RtpAgent]) -> None:
    """Let two RTP endpoints talk, and fail unless both are heard."""
    talk()
    pair[0].stop()
    hear_each_other(world, *pair)


@part(12, "a phone refuses the third")
def video_and_refused_text(world: World) -> None:
    """A phone is offered audio, video and text; it refuses text, the others flow both ways."""
    provider = world.start(Kamailio())
    alice = world.start(Baresip("phone1", "alice", registrar=provider.address, tone=440, video=True))
    alice.register()
    caller = world.start(Sipp(
        "remote1", "s13_caller.xml", to=f"{provider.address}:5060", service="alice",
        keys={"sdp": three_streams(REMOTE, 14000, 14004), "via": f"{REMOTE}:5060",
              "contact": f"{REMOTE}:5060"}))
    alice.wait_event("CALL_ESTABLISHED")
    expect(told(caller, 2).port == 0, f"text is not refused: {told(caller, 2).rtp}")
    audio, video = (world.start(RtpAgent("remote1", port, to=told(caller, index).rtp, tone=tone))
                    for index, port, tone in ((0, 14000, 880), (1, 14002, 0)))
    talk()
    hear_each_other(world, alice, audio)
    expect(video.received >= SOME, f"bob gets {video.received} packets of video")
    flows = world.tap.read().flows(REMOTE, range(14002, 14003), PHONE)
    expect(flows and flows[0].delivered >= SOME, f"alice gets no video: {flows}")
    tell(world, caller)
    alice.wait_closed()


@part(12, "the callee refuses the third")
def three_streams_offered(world: World) -> None:
    """A phone offers three streams, the callee refuses one; two flow both ways."""
    placed = SippCall(world, three_streams(PHONE, 12000, 12004), three_streams(REMOTE, 14000, 0)).start()
    audio = placed.start_media(12000, 14000)
    video = placed.start_media(12002, 14002, caller_tone=660, callee_tone=1100, index=1)
    talk()
    for pair in (audio, video):
        hear_each_other(world, *pair)
    finish(world, placed.caller, placed.callee)


def with_rtcp(world: World, port: int, lines: Sequence[str], options: dict[str, Any]) -> None:
    """Place a call whose offer has *lines*; RTP and RTCP must arrive at both ends."""
    mux = {"rtcp_mux": True} if "rtcp_mux" in options else {}
    placed = SippCall(world, audio_sdp(PHONE, port, *lines),
                      audio_sdp(REMOTE, 14000, *(lines if mux else ()))).start()
    pair = placed.start_media(port, 14000, options=(options, mux))
    heard_on_both(world, pair)
    own = (options.get("rtcp_port", port + 1), 14001)
    for (agent, other), sent_from in zip((pair, pair[::-1]), own[::-1], strict=True):
        trace = world.tap.read()
        speaker, listener = world[other.host_name].address, world[agent.host_name].address
        expect(agent.rtcp_received >= RTCP, f"{agent.host_name} gets {agent.rtcp_received} RTCP reports: "
               f"{trace.audio(speaker, range(sent_from, sent_from + 1), listener)}")
    finish(world, placed.caller, placed.callee)


@part(13, "a=rtcp")
def rtcp_elsewhere(world: World) -> None:
    """RTCP at a port of its own (RFC 3605)."""
    with_rtcp(world, 12000, ("a=rtcp:12345",), {"rtcp_port": 12345})


@part(13, "rtcp-mux")
def rtcp_with_rtp(world: World) -> None:
    """RTCP on RTP's port (RFC 5761)."""
    with_rtcp(world, 12000, ("a=rtcp-mux",), {"rtcp_mux": True})


@part(13, "odd port")
def odd_port(world: World) -> None:
    """RTP at an odd port."""
    with_rtcp(world, 12001, (), {})


@part(14, "")
def fax(world: World) -> None:
    """Audio becomes a fax by a re-INVITE; its datagrams arrive at both ends."""
    keys = [{"second_sdp": fax_sdp(PHONE, 12010)}, {"second_sdp": fax_sdp(REMOTE, 14010)}]
    placed = SippCall(world, audio_sdp(PHONE, 12000), ANSWER, keys=keys,
                      files=("s14_caller.xml", "s14_callee.xml")).start()
    heard_on_both(world, placed.start_media(12000, 14000))
    placed.tell(placed.caller)
    wait_received(placed.callee, "ACK ", count=2)
    rows = ((placed.caller, 12010, 440), (placed.callee, 14010, 880))
    near, far = (world.start(RtpAgent(end.host_name, port, to=told(end).rtp, tone=tone, no_rtcp=True))
                 for end, port, tone in rows)
    heard_on_both(world, (near, far))
    finish(world, placed.caller, placed.callee)


@part(15, "requests outside of dialogs")
def lone_requests(world: World) -> None:
    """MESSAGE, OPTIONS and PUBLISH reach their receivers, bodies untouched, and are answered."""
    provider = world.start(Kamailio())
    s15.register(world, "alice", "bob")
    for method, sender, receiver, kind, body in s15.ONE_REQUEST:
        keys = {"user": sender, "domain": provider.address, "type": kind, "body": body}
        request = (SCENARIOS / "s15_request.xml").read_text().replace("[method]", method)
        waiting = world.start(Sipp(s15.HOSTS[receiver], "s15_reply.xml", keys={"user": receiver}))
        sending = world.start(Sipp(s15.HOSTS[sender], request, to=f"{provider.address}:5060", keys=keys,
                                   service=receiver, timeout=6.0))
        sending.wait()
        waiting.wait(10.0)
        received = messages_received(waiting)[0].body.decode().strip()
        expect(received == body.strip(), f"the body of {method} became {received!r}")


@part(15, "NOTIFY, conntrack flushed")
def notifications(world: World) -> None:
    """NOTIFY reaches the subscriber, also after conntrack was flushed, until the subscription ends."""
    provider = world.start(Kamailio())
    s15.register(world, "bob")
    keys = ({"domain": provider.address}, {"domain": provider.address})
    placed = SippCall(world, "", "", files=("s15_subscriber.xml", NOTIFIER), keys=keys,
                      to=f"{provider.address}:5060")
    world.start(placed.callee)
    world.start(placed.caller)
    wait_received(placed.callee, "SIP/2.0 200", 1)
    world.gateway.run(["conntrack", "-D", "-p", "udp"])
    placed.tell(placed.callee)
    wait_received(placed.callee, "SIP/2.0 200", 2)
    finish(world, placed.caller, placed.callee)


@part(16, "phones with ICE")
def phones_with_ice(world: World) -> None:
    """Two phones that check candidates (RFC 8445) call each other, both ways."""
    world.start(Kamailio())
    alice, bob = open_phones(world, ALICE_AND_BOB, Linphone, ice=True)
    for caller, called in ((alice, bob), (bob, alice)):
        mark = called.mark()
        caller.dial(called.uri)
        talk()
        hear_each_other(world, alice, bob)
        caller.hang_up()
        called.wait_closed(mark)
        alice.record()
        bob.record()


@part(16, "a phone that checks nothing")
def unchecked_candidates(world: World) -> None:
    """Both describe candidates and send to c= and m=, as who checks nothing does."""
    own = (s16.HOST_RTP.format(PHONE, 12000), s16.HOST_RTCP.format(PHONE, 12001))
    placed = SippCall(world, audio_sdp(PHONE, 12000, *s16.CREDENTIALS, *own, *s16.OTHERS),
                      audio_sdp(REMOTE, 14000, *s16.CREDENTIALS, *s16.FAR)).start()
    heard_on_both(world, placed.start_media(12000, 14000))
    finish(world, placed.caller, placed.callee)


@part(17, "outgoing")
def long_out(world: World) -> None:
    """INVITEs of 1,300 to 3,900 bytes go out, and the last call is heard."""
    s17.take_sip_port(world)
    for size in s17.SIZES:
        placed = s17.call_of_length(world, size, "phone2", "remote1")
        sent, arrived = messages_sent(placed.caller, "INVITE ")[0], placed.offer
        expect(sent["subject"] == arrived["subject"], f"an INVITE of {size} bytes arrives as another one")
        if size != s17.SIZES[-1]:
            finish(world, placed.caller, placed.callee)
    heard_on_both(world, placed.start_media(8000, 14000))
    finish(world, placed.caller, placed.callee)


@part(17, "incoming", trunk=f"{PHONE}:5060", peer="203.0.113.50")
def long_in(world: World) -> None:
    """A provider's INVITE that fills a packet comes in to a phone that has registered."""
    registrar = world.start(Sipp("provider", "s17_registrar.xml"))
    world.start(Sipp("phone1", "s15_register.xml", to="203.0.113.50:5060", keys={"user": "alice"})).wait()
    registrar.wait()
    placed = s17.call_of_length(world, s17.FULL, "provider", "phone1", to=f"{GATEWAY}:5060", service="alice")
    heard_on_both(world, placed.start_media(8000, 14000))
    finish(world, placed.caller, placed.callee)


@part(18, "", natfix=PHONE_BEHIND_PBX)
def two_proxies(world: World) -> None:
    """Calls both ways through two record-routing proxies, each hung up by the callee."""
    alice, bob = behind_two_proxies(world)
    for caller, callee in ((alice, bob), (bob, alice)):
        closed = len(caller.events)
        caller.dial(callee.uri)
        talk()
        callee.hang_up()
        caller.wait_closed(since=closed)
        hear_each_other(world, alice, bob)


@part(19, "host names")
def host_names(world: World) -> None:
    """A phone that writes its name everywhere; the far end answers to where RTP comes from."""
    placed = SippCall(world, audio_sdp(NAME, 12000), ANSWER, contact=f"{NAME}:5060").start()
    near = world.start(RtpAgent("phone1", 12000, to=told(placed.caller).rtp, tone=440))
    far = world.start(RtpAgent("remote1", 14000, tone=880, latch=True))
    heard_on_both(world, (near, far))
    finish(world, placed.caller, placed.callee)


@part(19, "port 9")
def discard_port(world: World) -> None:
    """A stream at port 9 ("not yet") does not cost the call."""
    placed = SippCall(world, audio_sdp(PHONE, 9), ANSWER).start()
    finish(world, placed.caller, placed.callee)


@part(19, "no Content-Length")
def no_content_length(world: World) -> None:
    """An INVITE without Content-Length works as any other."""
    placed = SippCall(world, audio_sdp(PHONE, 12000), ANSWER,
                      files=("s19_caller.xml", "s13_callee.xml")).start()
    heard_on_both(world, placed.start_media(12000, 14000))
    finish(world, placed.caller, placed.callee)


@part(20, "", dnat_line=True)
def public_addresses(world: World) -> None:
    """A phone that writes the public address, behind forwards of its media ports, and is hung up on."""
    world.gateway.run(["nft", "-f", "-"], input=s20.FORWARD)
    own = f"{GATEWAY}:5066"
    placed = SippCall(world, audio_sdp(GATEWAY, 12000), ANSWER, contact=own, via=own,
                      files=("s20_caller.xml", HANGS_UP)).start()
    heard_on_both(world, placed.start_media(12000, 14000))
    placed.tell(placed.callee)
    placed.callee.wait(10.0)
    placed.caller.wait(10.0)

