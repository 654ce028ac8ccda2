"""Scenarios 7 to 11: calls with more than two parties, and many calls at once."""

from __future__ import annotations

import random
import time

from tests.compare.ends import REMOTE, call, finish
from tests.compare.parts import Failed, expect, hear_each_other, hears, media, part, told
from tests.compare.worlds import World
from tests.lab.audio import talk
from tests.lab.host import wait_until
from tests.lab.programs import Baresip, Kamailio, Linphone, RtpAgent, RtpCrowd, Sipp
from tests.scenarios import test_s07_fork as s07
from tests.scenarios import test_s08_trunk as s08
from tests.scenarios import test_s09_same_ports as s09
from tests.scenarios.script import messages_received, messages_sent, tell, tell_call, wait_received


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


@part(8, "", remotes=2, trunk=f"{s08.PBX}:5060", peer=s08.PROVIDER)
def fifty_calls(world: World) -> None:
    """Fifty calls at once on one 5-tuple keep their media, whoever hangs up first."""
    world.start(Kamailio(routes=s08.OUTSIDE_ROUTES))
    world.start(Kamailio("pbx", routes=s08.INSIDE_ROUTES, hide_topology=True))
    counted = s08.place_counted_calls(world)
    compared = [s08.place_compared_call(world, number) for number in range(1, 6)]
    rows = inside_rows(world)
    crowds = (world.start(RtpCrowd("pbx", rows)),
              world.start(RtpCrowd("remote1", [(each.outside_port, each.shown) for each in counted])))
    for crowd in crowds:
        crowd.go()
    talk()
    order: list[s08.Counted | s08.Compared] = [*counted, *compared]
    random.Random(8).shuffle(order)
    for number, each in enumerate(order):
        s08.end(world, each, crowds)
        if number == len(order) // 2:
            talk(1.0)
    deaf = [each for each in counted if not both_counted(each, *crowds)]
    if deaf:
        first = deaf[0]
        raise Failed(f"{len(deaf)} of {len(counted)} calls lack audio; "
                     f"{missing_direction(world, first, dict(rows)[first.inside_port])}")
    for pair in compared:
        hear_each_other(world, pair.inside, pair.outside)


def inside_rows(world: World) -> list[tuple[int, str]]:
    """Return (own port, where its RTP is wanted) of every counted call, as the inside ends know it."""
    rows = []
    for sipp in (each for each in world.programs if isinstance(each, Sipp) and each.host_name == "pbx"):
        said = s08.by_call(messages_sent(sipp))
        rows += [(said[call_id].port, stream.rtp)
                 for call_id, stream in s08.by_call(messages_received(sipp)).items() if call_id in said]
    return rows


def both_counted(each: s08.Counted, inside: RtpCrowd, outside: RtpCrowd) -> bool:
    """Tell whether each end of a call got what the other sent; an SSRC is the port it was sent from."""
    def got(crowd: RtpCrowd, port: int, ssrc: int) -> int:
        return sum(count for who, count in crowd.received(port).items() if who.endswith(f" {ssrc}"))
    return (got(inside, each.inside_port, each.outside_port) >= outside.sent(each.outside_port) - s08.LOST
            and got(outside, each.outside_port, each.inside_port) >= inside.sent(each.inside_port) - s08.LOST)


def missing_direction(world: World, each: s08.Counted, target: str) -> str:
    """Return what became of the RTP of a counted call, in the direction that is worse."""
    trace = world.tap.read()
    flows = [*trace.flows(s08.PBX, range(each.inside_port, each.inside_port + 1), REMOTE),
             *trace.flows(REMOTE, range(each.outside_port, each.outside_port + 1), s08.PBX)]
    worst = min(flows, key=lambda flow: flow.delivered / flow.sent, default=None)
    return str(worst or f"nothing was sent to {target}")


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
    for peer in (one, two):
        expect(phone.heard_from(peer).recognised,
               f"the phone does not hear {peer.port}: {media(world, peer, phone)}")
    hears(world, one, phone)
    tell_call(world, near, first)
    phone = world.start(RtpAgent("phone1", 10000, to=answers[second].rtp, tone=520))
    talk()
    phone.stop()
    hear_each_other(world, phone, two)


def inside_to_inside(world: World, host: str) -> None:
    """Alice calls carol, who is inside as well, through their provider."""
    provider = world.start(Kamailio())
    alice = world.start(Baresip("phone1", "alice", registrar=provider.address, tone=440))
    carol = world.start(Baresip(host, "carol", registrar=provider.address, tone=880))
    alice.register()
    carol.register()
    call(world, alice, carol)


@part(10, "one subnet")
def in_one_subnet(world: World) -> None:
    """Both in one subnet."""
    inside_to_inside(world, "phone2")


@part(10, "two subnets", second_phones=1)
def in_two_subnets(world: World) -> None:
    """Each in a subnet of its own."""
    inside_to_inside(world, "second1")


def blind_transfer(world: World, rows: tuple[tuple[str, str, int], ...]) -> None:
    """The second of *rows* calls or is called by the first, which sends it on to the third."""
    provider = world.start(Kamailio())
    stays, sends, third = (world.start(Baresip(host, user, registrar=provider.address, tone=tone))
                           for host, user, tone in rows)
    for phone in (stays, sends, third):
        phone.register()
    stays.dial(sends.uri)
    sends.transfer(third.uri)
    third.wait_event("CALL_ESTABLISHED")
    sends.wait_closed()
    talk()
    hear_each_other(world, stays, third)


@part(11, "blind, by the inside")
def transferred_by_the_inside(world: World) -> None:
    """Bob calls alice, she sends him on to carol, inside as well."""
    blind_transfer(world, (("remote1", "bob", 880), ("phone1", "alice", 660), ("phone2", "carol", 440)))


@part(11, "blind, by the outside", remotes=2)
def transferred_by_the_outside(world: World) -> None:
    """Alice calls bob, he sends her on to dave, outside as well."""
    blind_transfer(world, (("phone1", "alice", 440), ("remote1", "bob", 660), ("remote2", "dave", 880)))


@part(11, "attended")
def attended_transfer(world: World) -> None:
    """Alice has bob on hold and carol on the line, and connects them."""
    provider = world.start(Kamailio())
    rows = (("phone1", "alice", 660), ("remote1", "bob", 880), ("phone2", "carol", 440))
    alice, bob, carol = (world.start(Linphone(host, user, registrar=provider.address, tone=tone))
                         for host, user, tone in rows)
    for phone in (alice, bob, carol):
        phone.register()
    first = alice.dial(bob.uri)
    alice.hold()
    alice.wait_printed("is now (paused)")
    second = alice.dial(carol.uri)
    for phone in (bob, carol):
        phone.record()
    mark = carol.mark()
    alice.transfer_to_call(first, second)
    carol.wait_printed(r"Call 2 with \S+ (connected)", mark)
    talk()
    hear_each_other(world, bob, carol)
