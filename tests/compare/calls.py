"""Scenarios 0 to 6: registrations, and calls between two."""

from __future__ import annotations

import time

from tests.compare.ends import GATEWAY, REMOTE, TRUNK, call, converse, finish
from tests.compare.parts import expect, hear_each_other, hears, part, told
from tests.compare.worlds import World
from tests.lab.audio import talk
from tests.lab.namespaces import write_sysctls
from tests.lab.programs import Kamailio, RtpAgent, Sipp
from tests.scenarios import test_s02_early_media as s02
from tests.scenarios import test_s04_update as s04
from tests.scenarios import test_s06_unanswered as s06
from tests.scenarios.phones import two_phones
from tests.scenarios.script import tell, wait_received
from tests.scenarios.test_s01_register import forget_flows
from tests.scenarios.test_s03_hold import HeldCall
from tests.scenarios.test_s05_late_offer import answered_in_ack, answered_in_prack

SHORT = 2       # seconds after which the kernel forgets a silent UDP flow here


@part(0, "plain")
def plain_call(world: World) -> None:
    """A phone calls out through its provider; both hear each other."""
    call(world, *two_phones(world))


@part(0, "busy")
def busy_call(world: World) -> None:
    """The callee is busy, and the caller is told so."""
    alice, bob = two_phones(world, auto_answer=False)
    alice.dial(bob.uri, timeout=0)
    bob.wait_incoming()
    bob.hang_up()
    reason = alice.wait_closed()["param"]
    expect("486" in reason, f"alice is told {reason!r}, not 486")


@part(1, "by time")
def called_after_a_pause(world: World) -> None:
    """A registered phone is called after a silence that outlasts the kernel's timeouts."""
    write_sysctls(world.gateway.namespace, {f"net/netfilter/nf_conntrack_udp_timeout{name}": str(SHORT)
                                            for name in ("", "_stream")})
    alice, bob = two_phones(world)
    time.sleep(SHORT + 1.5)
    call(world, bob, alice)


@part(1, "conntrack flushed")
def called_after_a_flush(world: World) -> None:
    """A registered phone is called after its conntrack entries were deleted."""
    alice, bob = two_phones(world)
    forget_flows(world)
    call(world, bob, alice)


@part(2, "early media by a proxy")
def early_media(world: World) -> None:
    """407, RTP of the far side before its reliable 183, both heard from the 183 on."""
    world.start(Kamailio(users={"alice": "secret"}, routes={"^bob": f"{REMOTE}:5060"}))
    bob = world.start(Sipp("remote1", s02.RINGS_WITH_MEDIA))
    alice = world.start(Sipp("phone1", s02.CALLS, to="203.0.113.50:5060", service="bob"))
    wait_received(bob, "INVITE")
    far = world.start(RtpAgent("remote1", 14000, to=told(bob).rtp, tone=880))
    time.sleep(0.3)
    tell(world, bob)
    wait_received(alice, "SIP/2.0 183")
    near = world.start(RtpAgent("phone1", 12000, to=told(alice).rtp, tone=440))
    talk()
    wait_received(bob, "PRACK")
    tell(world, bob)
    wait_received(bob, "ACK")
    near.stop()
    hear_each_other(world, near, far)
    finish(world, alice, bob)


@part(2, "far RTP before any answer", dnat_line=True)
def far_media_first(world: World) -> None:
    """What the callee sends before its answer is heard, and the call works afterwards."""
    bob = world.start(Sipp("remote1", s02.ANSWERS_WHEN_TOLD.replace("12000", "14000")))
    alice = world.start(Sipp("phone1", s02.PLAIN_CALLS.replace("14000", "12000"), to=f"{REMOTE}:5060"))
    wait_received(bob, "INVITE")
    near = world.start(RtpAgent("phone1", 12000, tone=440))
    far = world.start(RtpAgent("remote1", 14000, to=told(bob).rtp, tone=880))
    talk()
    near.stop()
    hears(world, near, far)
    tell(world, bob)
    wait_received(bob, "ACK")
    near = world.start(RtpAgent("phone1", 12000, to=told(alice).rtp, tone=440))
    talk()
    near.stop()
    hear_each_other(world, near, far)
    finish(world, alice, bob)


@part(2, "near RTP before its answer", **TRUNK)
def near_media_first(world: World) -> None:
    """A called phone that sends before its own answer is heard once that is through."""
    world.knock()
    alice = world.start(Sipp("phone1", s02.ANSWERS_WHEN_TOLD))
    bob = world.start(Sipp("remote1", s02.PLAIN_CALLS, to=f"{GATEWAY}:5060", service="alice"))
    wait_received(alice, "INVITE")
    near = world.start(RtpAgent("phone1", 12000, to=told(alice).rtp, tone=440))
    time.sleep(0.3)
    tell(world, alice)
    wait_received(bob, "SIP/2.0 200")
    far = world.start(RtpAgent("remote1", 14000, to=told(bob).rtp, tone=880))
    talk()
    near.stop()
    hear_each_other(world, near, far)
    finish(world, bob, alice)


class Held(HeldCall):
    """A held call whose ends send to where they were told."""

    def talk(self) -> None:
        converse(self.lab, self.alice, self.bob, 12000, 14000)      # type: ignore[arg-type]


def hold_and_resume(world: World, style: str) -> None:
    """Hold and resume by either side; both hear each other before and after."""
    held = Held(world, style)
    held.talk()
    for holder, other in ((held.alice, held.bob), (held.bob, held.alice)):
        held.step(holder, other)
        held.step(holder, other)
    held.talk()
    held.hang_up()


@part(3, "a=inactive")
def hold_inactive(world: World) -> None:
    """Held by a=inactive."""
    hold_and_resume(world, "inactive")


@part(3, "0.0.0.0")
def hold_zero(world: World) -> None:
    """Held in the old way."""
    hold_and_resume(world, "zero")


@part(4, "")
def update_moves_media(world: World) -> None:
    """The caller moves its port while it rings, the callee its own after the answer."""
    bob = world.start(Sipp("remote1", s04.ANSWERS))
    alice = world.start(Sipp("phone1", s04.CALLS, to=f"{REMOTE}:5060"))
    wait_received(bob, "PRACK")
    converse(world, alice, bob, 12000, 14000)
    tell(world, alice)
    wait_received(bob, "UPDATE")
    wait_received(alice, "SIP/2.0 200", count=2)
    tell(world, bob)
    wait_received(bob, "ACK")
    converse(world, alice, bob, 13000, 14000, (520, 960))
    tell(world, bob)
    wait_received(alice, "UPDATE")
    wait_received(bob, "SIP/2.0 200")
    converse(world, alice, bob, 13000, 15000, (600, 1040))
    finish(world, alice, bob)


def late_offer(world: World, answered: object, outgoing: bool) -> None:
    """The callee makes the offer, and the caller answers it in ACK or PRACK."""
    near, far = (12000, 14000)
    calls, answers = answered(*((near, far) if outgoing else (far, near)))      # type: ignore[operator]
    if not outgoing:
        world.knock()
    rows = (("phone1", "remote1", f"{REMOTE}:5060") if outgoing else ("remote1", "phone1", f"{GATEWAY}:5060"))
    called = world.start(Sipp(rows[1], answers))
    caller = world.start(Sipp(rows[0], calls, to=rows[2], service="alice"))
    wait_received(called, "ACK")
    converse(world, *((caller, called) if outgoing else (called, caller)), near, far)
    finish(world, caller, called)


@part(5, "out, in ACK")
def late_out_ack(world: World) -> None:
    """A phone calls without an offer and answers in its ACK."""
    late_offer(world, answered_in_ack, outgoing=True)


@part(5, "out, in PRACK")
def late_out_prack(world: World) -> None:
    """A phone calls without an offer and answers in its PRACK."""
    late_offer(world, answered_in_prack, outgoing=True)


@part(5, "in, in ACK", **TRUNK)
def late_in_ack(world: World) -> None:
    """A PBX is called without an offer and gets the answer in the ACK."""
    late_offer(world, answered_in_ack, outgoing=False)


@part(5, "in, in PRACK", **TRUNK)
def late_in_prack(world: World) -> None:
    """A PBX is called without an offer and gets the answer in the PRACK."""
    late_offer(world, answered_in_prack, outgoing=False)


def refused_and_given_up(world: World, outgoing: bool) -> None:
    """A refused call, one that is given up while it rings, and one that works."""
    alice, bob = two_phones(world, auto_answer=False)
    caller, called = (alice, bob) if outgoing else (bob, alice)
    for refuse in (True, False):
        marks = len(caller.events), len(called.events)
        caller.dial(called.uri, timeout=0)
        called.wait_incoming(since=marks[1])
        (called if refuse else caller).hang_up()
        reason = caller.wait_closed(since=marks[0])["param"]
        expect(not refuse or "486" in reason, f"{caller.user} is told {reason!r}, not 486")
        called.wait_closed(since=marks[1])
    marks = len(caller.events), len(called.events)
    caller.dial(called.uri, timeout=0)
    called.wait_incoming(since=marks[1])
    called.accept()
    caller.wait_event("CALL_ESTABLISHED", since=marks[0])
    talk()
    hear_each_other(world, alice, bob)


@part(6, "busy, CANCEL; out")
def unanswered_out(world: World) -> None:
    """By an inside caller."""
    refused_and_given_up(world, outgoing=True)


@part(6, "busy, CANCEL; in")
def unanswered_in(world: World) -> None:
    """By an outside caller."""
    refused_and_given_up(world, outgoing=False)


@part(6, "503, no answer")
def failing_out(world: World) -> None:
    """503 of the far side, then nobody answers; the caller is told both."""
    alice, bob = two_phones(world, routes=s06.ROUTES)
    world.start(Sipp("remote1", s06.OUT_OF_ORDER, port=5070))
    # A proxy passes 503 on as 500 (RFC 3261, section 16.7), with its reason.
    for user, wanted in (("503", "Service Unavailable"), ("nobody", "408")):
        mark = len(alice.events)
        alice.dial(f"sip:{user}@203.0.113.50", timeout=0)
        reason = alice.wait_closed(since=mark)["param"]
        expect(wanted in reason, f"alice is told {reason!r}, not {wanted!r}")
    call(world, alice, bob)
