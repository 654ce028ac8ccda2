"""Scenarios 7 to 11: calls with more than two parties, and many calls at once."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import NamedTuple

from tests.compare.ends import GATEWAY, REMOTE, call, finish
from tests.compare.parts import Failed, expect, hear_each_other, hears, media, part, told
from tests.compare.trace import Flow
from tests.compare.worlds import World
from tests.lab.audio import talk
from tests.lab.host import wait_until
from tests.lab.programs import Baresip, Kamailio, RtpAgent, RtpCrowd, Sipp
from tests.scenarios import test_s07_fork as s07
from tests.scenarios import test_s08_trunk as s08
from tests.scenarios import test_s09_same_ports as s09
from tests.scenarios.phones import attended_transfer, blind_transfer, open_phones
from tests.scenarios.script import messages_received, messages_sent, tell, tell_call, wait_received

CALLS = 50
TRUNK = {"trunk": f"{s08.PBX}:5060", "peer": s08.PROVIDER}


@part(7, "", remotes=3)
def forked_call(world: World) -> None:
    """Early media of two branches is heard, and then the one that answers."""
    fork = world.start(Sipp("provider", s07.FORKS))
    alice = world.start(Sipp("phone1", s07.CALLS, to="203.0.113.50:5060"))
    wait_received(fork, "INVITE")
    wait_received(alice, "SIP/2.0 183", count=2)
    near = world.start(RtpAgent("phone1", 12000, to=told(alice).rtp, tone=440))
    early = [world.start(RtpAgent(host, port, to=told(fork).rtp, tone=tone))
             for host, port, tone in (("remote2", 14000, 660), ("remote3", 16000, 880))]
    talk()
    near.stop()
    for branch in early:
        expect(near.heard_from(branch).recognised,
               f"alice does not hear the early media of {branch.host_name}: {media(world, branch, near)}")
    tell(world, fork)
    wait_received(fork, "ACK")
    near = world.start(RtpAgent("phone1", 12000, to=told(alice).rtp, tone=520))
    right = world.start(RtpAgent("remote3", 16000, to=told(fork).rtp, tone=960))
    talk()
    near.stop()
    hear_each_other(world, near, right)
    finish(world, alice, fork)


def fifty_calls(world: World, outgoing: bool) -> None:
    """Place fifty calls from one SIPp to another, all on one 5-tuple; every RTP packet is counted."""
    rows = [[(first + 2 * n,) for n in range(CALLS)] for first in (12000, 14000)]
    ends = (("pbx", rows[0]), ("provider", rows[1]))
    (caller_host, caller_rows), (called_host, called_rows) = ends if outgoing else ends[::-1]
    called = world.start(Sipp(called_host, s08.ANSWERS, calls=CALLS, rows=called_rows))
    caller = world.start(Sipp(caller_host, s08.CALLS, calls=CALLS, rows=caller_rows, rate=20,
                              to=f"{s08.PROVIDER if outgoing else GATEWAY}:5060"))
    wait_until(lambda: s08.answered(called) == CALLS, 15.0, "fifty calls")
    pairs = read_pairs(*((caller, called) if outgoing else (called, caller)))
    crowds = talk_at_once(world, "pbx", "provider", pairs)
    end_in_any_order([lambda pair=pair: s08.end(world, s08.Counted(  # type: ignore[misc]
        pair.call_id, caller, pair.inside_port, pair.outside_port, ""), crowds) for pair in pairs])
    compare_counts(world, pairs, *crowds)


@part(8, "out", **TRUNK)
def fifty_calls_out(world: World) -> None:
    """A PBX calls out."""
    fifty_calls(world, outgoing=True)


@part(8, "in", **TRUNK)
def fifty_calls_in(world: World) -> None:
    """A PBX is called."""
    world.knock()
    fifty_calls(world, outgoing=False)


@part(8, "in and out, a PBX that is a proxy", remotes=2, **TRUNK)
def fifty_calls_of_a_pbx(world: World) -> None:
    """Fifty calls in and out by a PBX that is a proxy: 45 of SIPp counted, 5 of baresip compared."""
    world.start(Kamailio(routes=s08.OUTSIDE_ROUTES))
    world.start(Kamailio("pbx", routes=s08.INSIDE_ROUTES, hide_topology=True))
    counted = s08.place_counted_calls(world)
    compared = [s08.place_compared_call(world, number) for number in range(1, 6)]
    inside = [each for each in world.programs if isinstance(each, Sipp) and each.host_name == "pbx"]
    outside = [each for each in world.programs if isinstance(each, Sipp) and each.host_name == "remote1"]
    pairs = [pair for near in inside for far in outside for pair in read_pairs(near, far)]
    crowds = talk_at_once(world, "pbx", "remote1", pairs)
    end_in_any_order([lambda each=each: s08.end(world, each, crowds)    # type: ignore[misc]
                      for each in (*counted, *compared)])
    compare_counts(world, pairs, *crowds)
    for each in compared:
        hear_each_other(world, each.inside, each.outside)


class Pair(NamedTuple):
    """One of many calls: the port of each end, and where each was told to send."""

    call_id: str
    inside_port: int
    outside_port: int
    inside_target: str
    outside_target: str


def read_pairs(near: Sipp, far: Sipp) -> list[Pair]:
    """Return the calls that two SIPp have with each other."""
    own, peers = s08.by_call(messages_sent(near)), s08.by_call(messages_sent(far))
    told_near, told_far = s08.by_call(messages_received(near)), s08.by_call(messages_received(far))
    return [Pair(call_id, own[call_id].port, peers[call_id].port, told_near[call_id].rtp,
                 told_far[call_id].rtp) for call_id in own if call_id in peers]


def talk_at_once(world: World, inside: str, outside: str, pairs: list[Pair]) -> tuple[RtpCrowd, RtpCrowd]:
    """Have all calls talk in both directions; the crowds still do so afterwards."""
    crowds = (world.start(RtpCrowd(inside, [(pair.inside_port, pair.inside_target) for pair in pairs])),
              world.start(RtpCrowd(outside, [(pair.outside_port, pair.outside_target) for pair in pairs])))
    for crowd in crowds:
        crowd.go()
    talk()
    return crowds


def end_in_any_order(endings: list[Callable[[], None]]) -> None:
    """End calls in an order that is random, and the same each time, with some talk in the middle."""
    random.Random(8).shuffle(endings)
    for number, end in enumerate(endings):
        end()
        if number == len(endings) // 2:
            talk(1.0)


def compare_counts(world: World, pairs: list[Pair], inside: RtpCrowd, outside: RtpCrowd) -> None:
    """Fail where an end of a call did not get what the other sent; an SSRC is the port it was sent from."""
    hosts = world[inside.host_name].address, world[outside.host_name].address
    deaf = [pair for pair in pairs if lost(inside, pair.inside_port, outside, pair.outside_port)
            or lost(outside, pair.outside_port, inside, pair.inside_port)]
    if deaf:
        flows = [*flows_of(world, hosts[0], deaf[0].inside_port, hosts[1]),
                 *flows_of(world, hosts[1], deaf[0].outside_port, hosts[0])]
        worst = min(flows, key=lambda flow: flow.delivered / flow.sent, default="nothing was sent")
        raise Failed(f"{len(deaf)} of {len(pairs)} calls lack audio, such as {worst}")


def lost(listener: RtpCrowd, port: int, speaker: RtpCrowd, source: int) -> bool:
    """Tell whether what came to *port* is less than what was sent from *source*."""
    got = sum(count for who, count in listener.received(port).items() if who.endswith(f" {source}"))
    return got < speaker.sent(source) - s08.LOST


def flows_of(world: World, speaker: str, port: int, listener: str) -> list[Flow]:
    """Return what was sent from one port to *listener*."""
    return world.tap.read().flows(speaker, range(port, port + 1), listener)


def same_ports(world: World, count: int) -> None:
    """Phones that all use 5060 and 10000 are called and call at the same time."""
    provider = world.start(Kamailio())
    pairs = [s09.start_pair(world, provider, number) for number in range(count)]
    for number, (inside, outside) in enumerate(pairs):
        caller, called = (inside, outside) if number % 2 else (outside, inside)
        caller.dial(called.uri, timeout=0)
    for pair in pairs:
        for phone in pair:
            phone.wait_event("CALL_ESTABLISHED")
    talk()
    for inside, outside in pairs:
        hear_each_other(world, inside, outside)


@part(9, "two phones", phones=2)
def two_with_the_same_ports(world: World) -> None:
    """Two phones."""
    same_ports(world, 2)


@part(9, "ten phones", phones=10)
def ten_with_the_same_ports(world: World) -> None:
    """Ten phones."""
    same_ports(world, 10)


@part(9, "one port, again after 1 s", remotes=2)
def one_port_again(world: World) -> None:
    """A phone with one media port calls again 1 s after hanging up, twice."""
    provider = world.start(Kamailio())
    rows = (("phone1", "alice", 440), ("remote1", "bob", 880), ("remote2", "carol", 1200))
    alice, bob, carol = (
        world.start(Baresip(host, user, registrar=provider.address, tone=tone,
                            rtp_ports=s09.ONE_PORT if user == "alice" else (14000, 14099)))
        for host, user, tone in rows)
    for phone in (alice, bob, carol):
        phone.register()
    for peer in (bob, carol, carol):
        call(world, alice, peer)
        time.sleep(1.0)


@part(9, "one port in two dialogs")
def one_port_in_two_dialogs(world: World) -> None:
    """A phone uses one media port in two calls at once; the second keeps its audio when the first ends."""
    far = world.start(Sipp("remote1", s09.ANSWERS, calls=2, rows=[(14000,), (16000,)]))
    near = world.start(Sipp("phone1", s09.CALLS, to=f"{REMOTE}:5060", calls=2))
    wait_until(lambda: len(messages_received(far, "ACK")) == 2, 10.0, "two answered calls")
    offers, answers = (s08.by_call(messages_received(end, start))
                       for end, start in ((far, "INVITE"), (near, "SIP/2.0 200")))
    own = s08.by_call(messages_sent(far, "SIP/2.0 200"))
    ports = {call_id: stream.port for call_id, stream in own.items()}
    first, second = sorted(ports, key=ports.__getitem__)
    one = world.start(RtpAgent("remote1", ports[first], to=offers[first].rtp, tone=660))
    two = world.start(RtpAgent("remote1", ports[second], to=offers[second].rtp, tone=880))
    phone = world.start(RtpAgent("phone1", 10000, to=answers[first].rtp, tone=440))
    talk()
    phone.stop()
    expect(phone.heard_from(one).recognised, f"the phone does not hear bob: {media(world, one, phone)}")
    hears(world, one, phone)
    tell_call(world, near, first)
    phone = world.start(RtpAgent("phone1", 10000, to=answers[second].rtp, tone=520))
    talk()
    phone.stop()
    hear_each_other(world, phone, two)


def inside_to_inside(world: World, host: str) -> None:
    """Alice calls carol, who is inside as well, through their provider."""
    world.start(Kamailio())
    alice, carol = open_phones(world, (("phone1", "alice", 440), (host, "carol", 880)))
    call(world, alice, carol)


@part(10, "one subnet")
def in_one_subnet(world: World) -> None:
    """Both in one subnet."""
    inside_to_inside(world, "phone2")


@part(10, "two subnets", second_phones=1)
def in_two_subnets(world: World) -> None:
    """Each in a subnet of its own."""
    inside_to_inside(world, "second1")


@part(11, "blind, by the inside")
def transferred_by_the_inside(world: World) -> None:
    """Bob calls alice, she sends him on to carol, inside as well."""
    world.start(Kamailio())
    rows = (("remote1", "bob", 880), ("phone1", "alice", 660), ("phone2", "carol", 440))
    hear_each_other(world, *blind_transfer(world, rows))


@part(11, "blind, by the outside", remotes=2)
def transferred_by_the_outside(world: World) -> None:
    """Alice calls bob, he sends her on to dave, outside as well."""
    world.start(Kamailio())
    rows = (("phone1", "alice", 440), ("remote1", "bob", 660), ("remote2", "dave", 880))
    hear_each_other(world, *blind_transfer(world, rows))


@part(11, "attended")
def transferred_with_consultation(world: World) -> None:
    """Alice has bob on hold and carol on the line, and connects them."""
    world.start(Kamailio())
    bob, carol, _ = attended_transfer(world)
    hear_each_other(world, bob, carol)
