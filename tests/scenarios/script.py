"""SIPp scenarios written as ladders: a list of steps of one end, in the order in which they happen.

    caller, callee = Caller(), Callee()
    calls = scenario(
        caller.request("INVITE", 1, sdp(12000)), caller.receive(100, optional=True),
        caller.receive(200, rrs=True), caller.ack(1), caller.told(),
        caller.request("BYE", 2), caller.receive(200))
    answers = scenario(
        callee.receive("INVITE"), callee.answer(200, sdp(14000)), callee.receive("ACK"),
        callee.receive("BYE"), callee.reply(200))

An end that is :meth:`End.told` to go on waits for an INFO from its own host (see :func:`tell`), so that the
test decides when what happens, and no step depends on time.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from tests.agent import REASONS, Sip
from tests.lab.host import wait_until
from tests.lab.namespaces import socket_in

if TYPE_CHECKING:
    from tests.lab.lab import Lab
    from tests.lab.programs import Sipp

_told = itertools.count(1)


def sdp(
    port: int | str, direction: str = "", *, address: str = "[local_ip]", origin: str = "", version: int = 1
) -> str:
    """Return a PCMU session description; *address* goes into c=, *origin* into o= (default: the same)."""
    lines = ["v=0", f"o=- 3851 {version} IN IP4 {origin or address}", "s=-", f"c=IN IP4 {address}", "t=0 0",
             f"m=audio {port} RTP/AVP 0", "a=rtpmap:0 PCMU/8000"]
    return "\n".join(lines + ([f"a={direction}"] if direction else []))


def scenario(*steps: str) -> str:
    """Return the SIPp scenario (XML) that takes these steps."""
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<scenario name="steps">\n{"".join(steps)}</scenario>\n'


class End:
    """What both ends can do. Each method returns one step."""

    def __init__(self, user: str) -> None:
        self.user = user
        self.contact = f"Contact: <sip:{user}@[local_ip]:[local_port]>"

    def request(self, method: str, cseq: int, body: str = "", *headers: str) -> str:
        """Send a request: the first to who is called, all others to the peer's Contact."""
        start = f"{method} {self._target(method, cseq)} SIP/2.0"
        return _send([start, self._via(f"{method.lower()}{cseq}"), *self._routes(method, cseq),
                      *self._parties(method, cseq), "Call-ID: [call_id]", f"CSeq: {cseq} {method}",
                      self.contact, "Max-Forwards: 70", *headers], body, retransmit=True)

    def ack(self, cseq: int, body: str = "") -> str:
        """Acknowledge a 2xx."""
        return _send([f"ACK {self._target('ACK', cseq)} SIP/2.0", self._via(f"ack{cseq}"), "[routes]",
                      *self._parties("ACK", cseq), "Call-ID: [call_id]", f"CSeq: {cseq} ACK",
                      "Max-Forwards: 70"], body)

    def reply(self, status: int, body: str = "", *headers: str) -> str:
        """Answer the request that has just come, within a dialog."""
        return _send([_status_line(status), "[last_Via:]", "[last_Record-Route:]", "[last_From:]",
                      "[last_To:]", "[last_Call-ID:]", "[last_CSeq:]", self.contact, *headers], body)

    def receive(
        self, what: str | int, *, optional: bool = False, rrs: bool = False, auth: bool = False
    ) -> str:
        """Wait for a request (its method) or response (its status)."""
        kind = "response" if isinstance(what, int) else "request"
        flags = "".join(f' {name}="true"' for name, wanted in
                        (("optional", optional), ("rrs", rrs), ("auth", auth)) if wanted)
        return f'  <recv {kind}="{what}"{flags}/>\n'

    def told(self) -> str:
        """Wait until the test says go on."""
        return '  <recv request="INFO"/>\n'

    def pause(self, milliseconds: str) -> str:
        """Wait for some time."""
        return f'  <pause milliseconds="{milliseconds}"/>\n'

    def _via(self, branch: str) -> str:
        return ("Via: SIP/2.0/[transport] [local_ip]:[local_port];"
                f"branch=z9hG4bK[pid]-[call_number]-{self.user}-{branch};rport")

    def _target(self, method: str, cseq: int) -> str:
        return "[next_url]"

    def _routes(self, method: str, cseq: int) -> list[str]:
        return ["[routes]"]

    def _parties(self, method: str, cseq: int) -> list[str]:
        raise NotImplementedError


class Caller(End):
    """Calls [service]; *invites* is the CSeq of its last INVITE that begins the call (2 with a 407)."""

    def __init__(self, user: str = "alice", domain: str = "[local_ip]", invites: int = 1) -> None:
        super().__init__(user)
        self.domain, self.invites = domain, invites

    def ack_refusal(self, cseq: int) -> str:
        """Acknowledge a final failure: the same transaction as the INVITE (RFC 3261, section 17.1.1.3)."""
        return _send([f"ACK {self._target('INVITE', cseq)} SIP/2.0", self._via(f"invite{cseq}"),
                      *self._parties("ACK", cseq), "Call-ID: [call_id]", f"CSeq: {cseq} ACK",
                      "Max-Forwards: 70"], "")

    def _target(self, method: str, cseq: int) -> str:
        first = method == "INVITE" and cseq <= self.invites
        return "sip:[service]@[remote_ip]:[remote_port]" if first else "[next_url]"

    def _routes(self, method: str, cseq: int) -> list[str]:
        return [] if method == "INVITE" and cseq <= self.invites else ["[routes]"]

    def _parties(self, method: str, cseq: int) -> list[str]:
        tag = "" if method == "INVITE" and cseq <= self.invites else "[peer_tag_param]"
        return [f"From: <sip:{self.user}@{self.domain}>;tag=[pid]caller[call_number]",
                f"To: <sip:[service]@example.com>{tag}"]


class Callee(End):
    """Is called."""

    def __init__(self, user: str = "bob") -> None:
        super().__init__(user)
        self.tag = "[pid]callee[call_number]"

    def invited(self) -> str:
        """Wait for the first INVITE, and keep what its answers must repeat."""
        keep = "".join(f'<ereg regexp=".*" search_in="hdr" header="{header}:" assign_to="{name}"/>'
                       for name, header in (("from", "From"), ("to", "To"), ("cseq", "CSeq")))
        # SIPp finds one header by name; proxies write several Vias and a Record-Route above the caller's.
        keep += ('<ereg regexp="((Record-Route|Via): [^[:cntrl:]]*[[:cntrl:]]*)+" search_in="msg" '
                 'assign_to="above"/>')
        return (f'  <recv request="INVITE" rrs="true"><action>{keep}</action></recv>\n'
                f'  <Reference variables="above,from,to,cseq"/>\n')

    def answer(self, status: int, body: str = "", *headers: str, tag: str = "") -> str:
        """Answer the first INVITE, whatever has come since; a fork's branches have a *tag* each."""
        return _send([_status_line(status), "[$above]From:[$from]", f"To:[$to];tag={tag or self.tag}",
                      "Call-ID: [call_id]", "CSeq:[$cseq]", self.contact, *headers],
                     body, retransmit=status >= 200)

    def _parties(self, method: str, cseq: int) -> list[str]:
        return [f"From:[$to];tag={self.tag}", "To:[$from]"]


def tell(lab: Lab, end: Sipp, index: int = 0) -> None:
    """Have *end* go on in its call number *index*."""
    seen = messages_received(end) + messages_sent(end)
    tell_call(lab, end, list(dict.fromkeys(message["call-id"] for message in seen))[index])


def tell_call(lab: Lab, end: Sipp, call_id: str) -> None:
    """Have *end* go on in the call *call_id*: an INFO from its own host, that no gateway sees."""
    host = lab[end.host_name]
    number = next(_told)        # SIPp takes two that are the same for a retransmission
    text = "\r\n".join([
        f"INFO sip:go@{host.address} SIP/2.0",
        f"Via: SIP/2.0/UDP {host.address}:9;branch=z9hG4bKgo{number}",
        f"From: <sip:test@{host.address}>;tag=go", f"To: <sip:go@{host.address}>",
        f"Call-ID: {call_id}", f"CSeq: {number} INFO", "Content-Length: 0", "", ""])
    with socket_in(host.namespace) as go:
        go.sendto(text.encode(), (host.address, end.port))


def wait_received(end: Sipp, start: str, count: int = 1, timeout: float = 10.0) -> Sip:
    """Return the *count*-th message that *end* received whose first line starts with *start*."""
    def find() -> Sip | None:
        found = messages_received(end, start)
        return found[count - 1] if len(found) >= count else None
    found: Sip = wait_until(find, timeout, f"{start!r} number {count} at SIPp on {end.host_name}")
    return found


def messages_received(end: Sipp, start: str = "") -> list[Sip]:
    """Return what a running SIPp has received so far."""
    return [_sip(text) for way, text in end.messages() if way == "received" and text.startswith(start)]


def messages_sent(end: Sipp, start: str = "") -> list[Sip]:
    """Return what a running SIPp has sent so far."""
    return [_sip(text) for way, text in end.messages() if way == "sent" and text.startswith(start)]


def _status_line(status: int) -> str:
    return f"SIP/2.0 {status} {REASONS.get(status, 'Whatever')}"


def _send(lines: list[str], body: str, retransmit: bool = False) -> str:
    if body:
        lines = [*lines, "Content-Type: application/sdp"]
    text = "\n".join([*lines, "Content-Length: [len]", "", *body.splitlines()])
    attributes = ' retrans="500"' if retransmit else ""
    return f"  <send{attributes}><![CDATA[\n\n{text}\n\n]]></send>\n"


def _sip(text: str) -> Sip:
    return Sip(text.removesuffix("\n").replace("\n", "\r\n").encode())     # SIPp's log ends it with one more
