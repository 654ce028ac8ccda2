"""A call between two SIPp that lasts until the test says so, with media that goes to where the session
descriptions say *as they arrived*: what a gateway did to them decides who hears whom."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from tests.agent import Sip
from tests.lab.programs import RtpAgent, Sipp
from tests.scenarios.script import tell, wait_received

if TYPE_CHECKING:
    from tests.lab.lab import Lab

CONNECTION = re.compile(r"c=IN IP4 ([^\s/]+)")
RTCP = re.compile(r"a=rtcp:(\d+)(?: IN IP4 (\S+))?")


class Stream(NamedTuple):
    """One m-line as its receiver reads it."""

    kind: str
    host: str
    port: int
    rtcp_host: str
    rtcp_port: int
    lines: list[str]        # the m-line and all that belongs to it

    @property
    def rtp(self) -> str:
        """Where RTP is wanted, "address:port"."""
        return f"{self.host}:{self.port}"


def streams_of(message: Sip) -> list[Stream]:
    """Return the m-lines of a message's session description, read by the rules of RFC 8866 and 3605."""
    session, *sections = re.split(r"(?m)^(?=m=)", message.body.decode())
    found = []
    for section in sections:
        kind, port = re.findall(r"m=(\S+) (\d+)", section)[0]
        host = (CONNECTION.search(section) or CONNECTION.search(session) or [""] * 2)[1]
        rtcp = RTCP.search(section)
        rtcp_port = int(port) if "a=rtcp-mux" in section else int(rtcp[1]) if rtcp else int(port) + 1
        found.append(Stream(kind, host, int(port), (rtcp and rtcp[2]) or host, rtcp_port,
                            section.splitlines()))
    return found


def media_lines(message: Sip) -> list[str]:
    """Return a description's lines but o=, which says who speaks, not where media goes."""
    return [line for line in message.body.decode().splitlines() if not line.startswith("o=")]


def audio_sdp(address: str, port: int, *attributes: str, session: Sequence[str] = ()) -> str:
    """Return a plain PCMU description of *address* and *port*, with further lines."""
    return sdp_text(address, [f"m=audio {port} RTP/AVP 0", "a=rtpmap:0 PCMU/8000", *attributes], session)


def sdp_text(address: str, media: Sequence[str], session: Sequence[str] = ()) -> str:
    """Return a description with o= and c= of *address*, the session's lines and the media's lines."""
    lines = ["v=0", f"o=- 3851 1 IN IP4 {address}", "s=-", f"c=IN IP4 {address}", "t=0 0", *session, *media]
    return "\r\n".join(lines) + "\r\n"


class SippCall:
    """*caller* (a host) calls *callee* with the description *offer*, and gets *answer*.

    *to* is where the INVITE is sent, by default the callee itself. *contact* and *via* are what the
    caller writes of itself, by default its own address and port. *files* are other SIPp scenarios for
    the two ends; *keys* further ``-key`` variables, of the caller and of the callee.
    """

    def __init__(self, lab: Lab, offer: str, answer: str, *, caller: str = "phone1", callee: str = "remote1",
                 to: str = "", contact: str = "", via: str = "", port: int = 5060, callee_port: int = 5060,
                 files: tuple[str, str] = ("s13_caller.xml", "s13_callee.xml"), service: str = "bob",
                 keys: Sequence[dict[str, str]] = ({}, {})) -> None:
        self.lab = lab
        own = f"{lab[caller].address}:{port}"
        named = {"contact": contact or own, "via": via or own, "sdp": offer, **keys[0]}
        self.callee = Sipp(callee, files[1], port=callee_port, keys={"sdp": answer, **keys[1]})
        self.caller = Sipp(caller, files[0], to=to or f"{lab[callee].address}:{callee_port}", port=port,
                           service=service, keys=named)

    def start(self) -> SippCall:
        """Place it and wait until the ACK has arrived."""
        self.lab.start(self.callee)
        self.lab.start(self.caller)
        wait_received(self.callee, "ACK ")
        return self

    @property
    def offer(self) -> Sip:
        """The INVITE as the callee received it."""
        return wait_received(self.callee, "INVITE ")

    @property
    def answer(self) -> Sip:
        """The 200 as the caller received it."""
        return wait_received(self.caller, "SIP/2.0 200")

    def tell(self, end: Sipp) -> None:
        """Have *end* go on, where its scenario waits for INFO."""
        tell(self.lab, end)

    def hang_up(self) -> None:
        """Have the caller hang up, and wait for the end of both."""
        self.tell(self.caller)
        self.caller.wait()
        self.callee.wait()

    def start_media(self, caller_port: int, callee_port: int, *, caller_tone: int = 440,
                    callee_tone: int = 880, index: int = 0,
                    options: Sequence[dict[str, object]] = ({}, {})) -> tuple[RtpAgent, RtpAgent]:
        """Start an RTP endpoint at each end for stream *index*; each sends to where it was told to.

        *options* are further ones of :class:`RtpAgent`, the caller's and the callee's.
        """
        offered, answered = streams_of(self.offer)[index], streams_of(self.answer)[index]
        rows = ((self.caller, caller_port, answered, caller_tone, options[0]),
                (self.callee, callee_port, offered, callee_tone, options[1]))
        agents = [RtpAgent(end.host_name, port, to=stream.rtp, tone=tone,
                           **{"rtcp_to": stream.rtcp_port, **more})
                  for end, port, stream, tone, more in rows]
        for agent in agents:
            self.lab.start(agent)
        return agents[0], agents[1]
