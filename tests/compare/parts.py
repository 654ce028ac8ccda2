"""What a scenario consists of, and when a part of it has passed: who hears whom, which message arrives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.compare.worlds import Setting, World
from tests.lab.audio import Talker
from tests.lab.host import LabError
from tests.lab.programs import Baresip, RtpAgent, Sipp
from tests.scenarios.script import messages_received
from tests.scenarios.sipp_call import Stream, streams_of

TITLES = {
    0: "a plain outgoing call; a busy callee",
    1: "REGISTER with digest, a call long after",
    2: "407, early media, PRACK, RTP before the answer",
    3: "hold and resume by either side",
    4: "UPDATE moves the media port",
    5: "late offer, answered in ACK or PRACK",
    6: "busy, CANCEL, 503, no answer, then a call",
    7: "forked call, two early dialogs",
    8: "fifty parallel calls on one trunk",
    9: "phones with the same ports, one port for all calls",
    10: "inside phone to inside phone by the provider",
    11: "blind and attended transfer",
    12: "audio, video and a refused stream",
    13: "RTCP elsewhere, rtcp-mux, odd RTP port",
    14: "T.38 re-INVITE",
    15: "SUBSCRIBE, NOTIFY, MESSAGE, OPTIONS, PUBLISH",
    16: "ICE candidates",
    17: "INVITEs of 1,300 to 3,900 bytes",
    18: "a proxy on each side: Record-Route, Path, Service-Route",
    19: "host names, port 9, no Content-Length",
    20: "a phone that writes public addresses itself",
    21: "kill -9 in mid-call",
    22: "nft flush ruleset in mid-call",
    23: "RTP from a stranger",
    24: "SDP that names what is not the sender's",
    25: "beside a forward of 5060; two inside subnets",
    26: "phones behind NATs of their own: a full cone calls each of four kinds",
    27: "likewise: an address-restricted cone calls",
    28: "likewise: a port-restricted cone calls",
    29: "likewise: a symmetric NAT calls",
}


class Failed(Exception):
    """A scenario did not work; the text is the evidence."""


@dataclass(frozen=True)
class Part:
    """One thing to do in one lab."""

    scenario: int
    name: str
    play: Callable[[Any], None]
    setting: Setting
    options: dict[str, object] = field(default_factory=dict)     # of the lab
    crashes: bool = False       # is about the process that gets SIP through NAT, and its death


PARTS: list[Part] = []


def part(scenario: int, name: str, *, crashes: bool = False, trunk: str = "", peer: str = "",
         natfix: str = "", pbx: str = "", **options: object
         ) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make the decorated function, that takes a world, a part of *scenario*."""
    def register(play: Callable[..., None]) -> Callable[..., None]:
        PARTS.append(Part(scenario, name, play, Setting(trunk, peer, natfix, pbx), options, crashes))
        return play
    return register


def hear_each_other(world: World, first: Talker, second: Talker) -> None:
    """Fail unless each of two recognised the other's tone."""
    hears(world, second, first)
    hears(world, first, second)


def hears(world: World, listener: Talker, speaker: Talker) -> None:
    """Fail, with what became of the packets, unless *listener* recognised the tone of *speaker*."""
    heard = listener.heard(speaker.tone, listener.tone)
    if not heard.recognised:
        raise Failed(f"{name_of(world, listener)} does not hear {name_of(world, speaker)}: "
                     f"{media(world, speaker, listener)}")


def media(world: World, speaker: Any, listener: Any) -> str:
    """Return what became of the RTP from *speaker* to *listener*."""
    return world.tap.read().audio(_address(world, speaker), _ports(speaker), _address(world, listener))


def expect(condition: object, evidence: str) -> None:
    """Fail with *evidence* unless *condition*."""
    if not condition:
        raise Failed(evidence)


def told(end: Sipp, index: int = 0) -> Stream:
    """Return where the last description that *end* received wants its stream *index*.

    Raises LabError where there is none: then a message is lost, which the trace tells more of.
    """
    described = [streams for message in messages_received(end) if (streams := streams_of(message))]
    if not described:
        raise LabError(f"{end.host_name} has received no description")
    return described[-1][index]


def name_of(world: World, talker: Any) -> str:
    """Return how a report calls a phone or an RTP endpoint."""
    return str(getattr(talker, "user", "") or f"{talker.host_name}:{talker.port}")


def _address(world: World, talker: Any) -> str:
    return world[talker.host_name].address


def _ports(talker: Any) -> range:
    if isinstance(talker, RtpAgent):
        return range(talker.port, talker.port + 1)
    if isinstance(talker, Baresip):
        return range(talker.rtp_ports[0], talker.rtp_ports[1] + 1, 2)
    return range(talker.rtp_port, talker.rtp_port + 1)
