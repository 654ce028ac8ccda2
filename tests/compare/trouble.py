"""Scenarios 21 to 25: what happens to the gateway, what strangers try, and what else the gateway does."""

from __future__ import annotations

import socket
import time

from tests.compare.ends import GATEWAY, PHONE, REMOTE, call, finish
from tests.compare.parts import Failed, expect, hear_each_other, media, part, told
from tests.compare.trace import INSIDE_NET
from tests.compare.worlds import World
from tests.lab.audio import talk
from tests.lab.namespaces import socket_in
from tests.lab.programs import Kamailio, RtpAgent
from tests.scenarios.phones import ALICE_AND_BOB, open_phones, two_phones
from tests.scenarios.rtp_gaps import Stream, received_stream, watch
from tests.scenarios.script import wait_received
from tests.scenarios.sipp_call import SippCall, audio_sdp
from tests.scenarios.test_s21_crash import AROUND
from tests.scenarios.test_s25_beside import FORWARD

BARESIP_PORTS = range(10000, 10100, 2)
FLUSH_PAUSE = 1.2       # seconds that audio may pause after a flush
# Who is named in the description, and whose port it is there.
FORBIDDEN = {
    "the gateway inside": ("192.168.1.1", 12000, "gateway"),
    "the gateway outside": (GATEWAY, 12000, "gateway"),
    "an unregistered host": ("192.168.1.11", 12000, "phone2"),
    "loopback": ("127.0.0.1", 12000, "gateway"),
    "a service's port": (PHONE, 22, "phone1"),
}


class Watch:
    """Counts the RTP that arrives at both phones of a call."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.captures = watch(world)

    def streams(self) -> dict[str, Stream]:
        """Return what arrived at each host so far."""
        time.sleep(0.2)
        found = {}
        for host, other in (("phone1", "remote1"), ("remote1", "phone1")):
            listener, speaker = (self.world[name].address for name in (host, other))
            try:
                found[host] = received_stream(self.captures[host].path, listener)
            except AssertionError:
                lost = self.world.tap.read().audio(speaker, BARESIP_PORTS, listener)
                raise Failed(f"{host} does not hear {other}: {lost}") from None
        return found


@part(21, "mid-call", crashes=True)
def crash(world: World) -> None:
    """No RTP is lost around the crash; hold, resume and BYE work after the restart."""
    alice, bob = two_phones(world)
    watch = Watch(world)
    bob.dial(alice.uri)
    talk(AROUND / 2)
    world.crash()
    talk(AROUND / 2)
    world.recover()
    talk(1.0)
    for host, stream in watch.streams().items():
        expect(stream.packets > 400 and not stream.lost,
               f"{host} hears {stream.packets * 0.02:.0f} of 11 s, {stream.lost} packets lost in between")
    alice.hold()
    alice.resume()
    talk()
    hear_each_other(world, alice, bob)
    bob.hang_up()
    alice.wait_closed()


@part(21, "registered phone afterwards", crashes=True)
def crash_and_call(world: World) -> None:
    """A registered phone is called after a crash and a restart, without registering again."""
    alice, bob = two_phones(world)
    world.crash()
    world.recover()
    call(world, bob, alice)


@part(22, "")
def flush(world: World) -> None:
    """Audio pauses for 1.2 s at most, and the call can be ended."""
    alice, bob = two_phones(world)
    watch = Watch(world)
    alice.dial(bob.uri)
    talk(2.0)
    before = watch.streams()
    world.gateway.run(["nft", "flush", "ruleset"])
    talk(3.0)
    for host, stream in watch.streams().items():
        leaked = len(_leaked(world))
        pause = max(stream.longest_pause, 5.0 - stream.packets * 0.02)
        expect(pause <= FLUSH_PAUSE, f"{host} hears {before[host].packets * 0.02:.0f} s before and "
               f"{(stream.packets - before[host].packets) * 0.02:.0f} of 3 s after; {leaked} packets left "
               "with an inside source")
    alice.hang_up()
    bob.wait_closed()


def _leaked(world: World) -> list[object]:
    return [each for each in world.tap.read().outside if each.source[0].startswith(INSIDE_NET)]


@part(23, "")
def stranger(world: World) -> None:
    """RTP from an address that no description names is not delivered; the call goes on."""
    placed = SippCall(world, audio_sdp(PHONE, 12000), audio_sdp(REMOTE, 14000)).start()
    near, far = placed.start_media(12000, 14000)
    other = world.start(RtpAgent("stranger", 15000, to=told(placed.callee).rtp, tone=660))
    talk()
    near.stop()
    hear_each_other(world, near, far)
    strange = sum(row[5] == other.stop()["ssrc"] for row in near.result["received"])
    expect(not strange, f"alice gets {strange} packets of a stranger: {media(world, other, near)}")
    finish(world, placed.caller, placed.callee)


@part(24, "")
def forbidden(world: World) -> None:
    """Whatever an SDP names that is not its sender's: what the far end sends there does not arrive."""
    for what, (address, port, victim) in FORBIDDEN.items():
        with socket_in(world[victim].namespace) as trap:
            trap.bind(("0.0.0.0", port))
            trap.setblocking(False)
            placed = SippCall(world, audio_sdp(address, port), audio_sdp(REMOTE, 14000))
            world.start(placed.callee)
            world.start(placed.caller)
            _attack(world, placed)
            count = _arrived(trap)
            expect(not count, f"c={address}, m={port} ({what}): {count} packets from outside reach it")


def _attack(world: World, placed: SippCall) -> None:
    """Have the callee send to where the description that reached it says, if one did."""
    try:
        wait_received(placed.callee, "ACK ", timeout=3.0)
    except Exception:       # dropped on its way: nothing can be opened
        _end(placed)
        return
    target = told(placed.callee)
    with socket_in(world[placed.callee.host_name].namespace) as attacker:
        attacker.bind((REMOTE, 14000))
        for number in range(25):
            attacker.sendto(b"\x80\x00" + number.to_bytes(2, "big") + bytes(168), (target.host, target.port))
            time.sleep(0.02)
    finish(world, placed.caller, placed.callee)


def _end(placed: SippCall) -> None:
    for sipp in (placed.caller, placed.callee):
        assert sipp.process is not None
        sipp.process.kill()


def _arrived(trap: socket.socket) -> int:
    count = 0
    while True:
        try:
            count += bool(trap.recv(2048))
        except BlockingIOError:
            return count


@part(25, "forward of 5060", pbx="192.168.1.5:5060", remotes=2)
def beside_a_forward(world: World) -> None:
    """A call to a PBX by the operator's forward, and one to a registered phone, at once."""
    world.forward(FORWARD)
    world.start(Kamailio())
    alice, bob = open_phones(world, ALICE_AND_BOB)
    placed = SippCall(world, audio_sdp("203.0.113.61", 16000), audio_sdp("192.168.1.5", 12000),
                      caller="remote2", callee="pbx", to=f"{GATEWAY}:5060").start()
    bob.dial(alice.uri)
    far, near = placed.start_media(16000, 12000, caller_tone=660, callee_tone=1100)
    talk()
    far.stop()
    bob.hang_up()
    alice.wait_closed()
    hear_each_other(world, near, far)
    hear_each_other(world, alice, bob)


@part(25, "two inside subnets", second_phones=1)
def between_subnets(world: World) -> None:
    """A call from one inside subnet to the other."""
    placed = SippCall(world, audio_sdp(PHONE, 12000), audio_sdp("192.168.2.10", 14000),
                      callee="second1").start()
    pair = placed.start_media(12000, 14000)
    talk()
    pair[0].stop()
    hear_each_other(world, *pair)
    finish(world, placed.caller, placed.callee)
