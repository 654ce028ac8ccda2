"""A phone outside, behind a NAT of its own: it writes private addresses, its packets come from elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from natfix.address import Endpoint
from tests.agent import Agent, Sip

if TYPE_CHECKING:
    from tests.playbook import World

PBX = Endpoint("192.168.1.5", 5060)
PBX_OUTSIDE = Endpoint("203.0.113.1", 5060)     # the operator's forward


class FarAgent(Agent):
    """*endpoint* and *rtp* are what its NAT makes of it; *own* is its address behind that."""

    def __init__(self, world: World, user: str, endpoint: Endpoint, rtp: Endpoint, own: str = "192.168.1.10",
                 proxy: Endpoint = PBX_OUTSIDE) -> None:
        super().__init__(world, user, endpoint, rtp, proxy)
        self.own = own
        self.written_rtp = Endpoint(own, 7078)
        self.contact = f"<sip:{user}@{own}:5062>"
        self.sent_by = f"{own}:5062"
        self.asked: list[Sip] = []          # natfix's own OPTIONS
        self.answers_options = True
        world.agents.append(self)

    def receive(self, payload: bytes, source: Endpoint, destination: Endpoint) -> None:
        """natfix's own OPTIONS are answered beside what goes on; all else is taken as usual."""
        if not payload.startswith(b"OPTIONS "):
            super().receive(payload, source, destination)
            return
        request = Sip(payload)
        self.asked.append(request)
        if self.answers_options:
            self.sends(answer_to(request, self.endpoint), source)

    def sdp(self, *lines: str, rtp: Endpoint | None = None, version: int = 1) -> str:
        """An SDP that names its private address."""
        return super().sdp(*lines, rtp=rtp or self.written_rtp, version=version)


def answer_to(request: Sip, source: Endpoint) -> str:
    """Return a 200 to *request*, which has come to *source*."""
    via = request["via"].replace(";rport", f";rport={PBX_OUTSIDE.port};received={PBX_OUTSIDE.host}")
    return "\n".join((
        "SIP/2.0 200 OK", f"Via: {via}", f"From: {request['from']}",
        f"To: {request['to']};tag={source.port}", f"Call-ID: {request['call-id']}",
        f"CSeq: {request['cseq']}", "Content-Length: 0", "", ""))
