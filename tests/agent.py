"""User agents for playbook tests: they write SIP as real ones do, and notice every trace of NAT.

An agent reads what it receives with a parser of its own, answers to where RFC 3261 and 3581 say, and
raises AssertionError when a message does not fit what it wrote itself: its Via, From, To, Contact, the
Request-URI of requests to it. So each test of a call is also a test that a UA cannot tell there is NAT.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from natfix.address import SIP_PORT, Endpoint

if TYPE_CHECKING:
    from tests.playbook import Delivery, World

COMPACT = {"v": "via", "f": "from", "t": "to", "m": "contact", "i": "call-id", "l": "content-length",
           "c": "content-type", "k": "supported", "e": "content-encoding", "s": "subject"}
REASONS = {100: "Trying", 180: "Ringing", 183: "Session Progress", 200: "OK", 202: "Accepted",
           401: "Unauthorized", 407: "Proxy Authentication Required", 408: "Request Timeout",
           481: "Call/Transaction Does Not Exist", 486: "Busy Here", 487: "Request Terminated",
           488: "Not Acceptable Here", 503: "Service Unavailable"}
URI_HOSTPORT = re.compile(r"sips?:(?:[^@>;?]*@)?([^:;>?\s]+)(?::(\d+))?")
Headers = Mapping[str, str] | Iterable[tuple[str, str]]


class Sip:
    """A SIP message as a test reads it: start line, headers by long lower-case name, body."""

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        head, _, self.body = payload.partition(b"\r\n\r\n")
        text = re.sub(r"\r\n[ \t]+", " ", head.decode())
        self.start, *lines = text.split("\r\n")
        split = (line.partition(":") for line in lines)
        self.fields = [(_long_name(name), value.strip()) for name, _, value in split]
        first, second = self.start.split(" ", 2)[:2]
        self.is_request = not first.startswith("SIP/")
        self.method = first if self.is_request else self["cseq"].split()[1]
        self.uri = second if self.is_request else ""
        self.status = 0 if self.is_request else int(second)

    def __getitem__(self, name: str) -> str:
        """The first header of that name, "" where there is none."""
        return next((value for known, value in self.fields if known == name), "")

    def all(self, name: str) -> list[str]:
        """Every value of a header, commas split (as a test may: it has none in quotes)."""
        values = [value for known, value in self.fields if known == name]
        return [part.strip() for value in values for part in value.split(",")]

    @property
    def branch(self) -> str:
        return _parameter(self["via"], "branch")


class Arrived(NamedTuple):
    """A datagram in an agent's inbox."""

    message: Sip
    source: Endpoint
    payload: bytes


class Agent:
    """One UA at one endpoint: phone, PBX, registrar, proxy or gateway.

    ``contact`` and ``sent_by`` are what it writes of itself (defaults: host and port spelled out);
    ``rtp`` is where it wants audio; ``proxy`` is where its first requests go.
    """

    def __init__(
        self, world: World, user: str, endpoint: Endpoint, rtp: Endpoint | None = None,
        proxy: Endpoint | None = None, domain: str = "provider.example",
    ) -> None:
        self.world = world
        self.user = user
        self.endpoint = endpoint
        self.rtp = rtp or Endpoint(endpoint.host, 40000)
        self.proxy = proxy
        self.address = f"sip:{user}@{domain}"
        self.contact = f"<sip:{user}@{endpoint}>"
        self.sent_by = str(endpoint)
        self.via_parameters = ";rport"
        self.user_agent = "Playbook/1.0"
        self.is_registered = False
        self.is_strict = True           # raises where it notices that there is NAT
        self.inbox: list[Arrived] = []
        self.keepalives: list[bytes] = []
        self.legs: dict[tuple[str, str], Leg] = {}      # by Call-ID and own tag
        self._sent: dict[tuple[str, str], Sip] = {}     # requests by branch and method
        self._serial = itertools.count(1)

    def __repr__(self) -> str:
        return f"{self.user}@{self.endpoint}"

    # Sending

    def sends(self, message: str | bytes, to: Endpoint | None = None) -> Delivery:
        """Send a message; text gets CRLF and a right Content-Length, bytes go as they are."""
        payload = message if isinstance(message, bytes) else wire_bytes(message)
        if is_request(payload):
            sip = Sip(payload)
            self._sent[sip.branch, sip.method] = sip
        destination = to or self.proxy
        assert destination is not None, f"{self} has no proxy: say to=..."
        return self.world.transmit(self.endpoint, destination, payload)

    def serial(self) -> int:
        """Return a number that this agent did not use yet."""
        return next(self._serial)

    def begins(self, method: str, uri: str, to: Endpoint | None = None, sdp: str = "",
               headers: Headers = (), target: str = "") -> Leg:
        """Send a request outside any dialog to *uri* and return its leg."""
        own = f"<{self.address}>;tag={self.user}{self.serial()}"
        leg = Leg(self, f"{self.serial()}-{self.user}@test", own, f"<{target or uri}>", uri, to or self.proxy)
        self.legs[leg.call_id, leg.own_tag] = leg
        leg.sends(method, sdp, headers)
        return leg

    def invites(self, uri: str, to: Endpoint | None = None, sdp: str | None = None,
                headers: Headers = ()) -> Leg:
        """Send an INVITE, with an offer of audio unless *sdp* says otherwise ("" for none)."""
        return self.begins("INVITE", uri, to, self.sdp() if sdp is None else sdp, headers)

    def registers(self, expires: int = 3600, to: Endpoint | None = None, headers: Headers = ()) -> Leg:
        """Send a REGISTER for the own address-of-record."""
        self.is_registered = expires > 0
        _, _, domain = self.address.partition("@")
        return self.begins("REGISTER", f"sip:{domain}", to, "",
                           [("Expires", str(expires)), *_pairs(headers)], target=self.address)

    def replies(self, request: Sip, status: int, sdp: str = "", headers: Headers = (),
                contact: str | None = None, tag: str | None = None) -> Delivery:
        """Answer *request*, to where RFC 3261 section 18.2.2 and RFC 3581 section 4 say."""
        arrived = next(item for item in self.inbox if item.message is request)
        via, destination = self._answered_via(request["via"], arrived.source)
        if ";tag=" not in request["to"] and status > 100:
            tag = tag or f"{self.user}-{request['call-id']}"
        vias = [value for name, value in request.fields if name == "via"]
        lines = [f"SIP/2.0 {status} {REASONS[status]}", f"Via: {via}"]
        lines += [f"Via: {value}" for value in vias[1:]]
        lines += [f"Record-Route: {value}" for name, value in request.fields if name == "record-route"]
        lines += [f"From: {request['from']}", f"To: {request['to']}" + (f";tag={tag}" if tag else "")]
        lines += [f"Call-ID: {request['call-id']}", f"CSeq: {request['cseq']}"]
        if contact is None and status < 300 and request.method != "REGISTER":
            contact = self.contact
        return self.sends(_message(lines, contact, [*_pairs(headers), ("Server", self.user_agent)], sdp),
                          destination)

    def accepts(self, request: Sip, status: int = 180, sdp: str = "", headers: Headers = (),
                tag: str = "") -> Leg:
        """Answer an INVITE with *status* and return the callee's leg of the dialog."""
        tag = tag or f"{self.user}{self.serial()}"
        leg = Leg(self, request["call-id"], f"{request['to']};tag={tag}", request["from"], cseq=1000)
        leg.invite = request
        leg.learn(request, request.all("record-route"))
        self.legs[leg.call_id, tag] = leg
        leg.replies(status, sdp, headers)
        return leg

    def sdp(self, *lines: str, rtp: Endpoint | None = None, version: int = 1) -> str:
        """An SDP with one audio line at *rtp*; *lines* follow."""
        rtp = rtp or self.rtp
        return "\n".join([
            "v=0", f"o={self.user} 4711 {version} IN IP4 {rtp.host}", "s=-", f"c=IN IP4 {rtp.host}", "t=0 0",
            f"m=audio {rtp.port} RTP/AVP 8 101", "a=rtpmap:8 PCMA/8000", "a=rtpmap:101 telephone-event/8000",
            *lines, ""])

    # Receiving

    def receive(self, payload: bytes, source: Endpoint, destination: Endpoint) -> None:
        """Take a datagram into the inbox, and check that it fits what this agent wrote."""
        if not payload.startswith(b"SIP/") and not is_request(payload):
            self.keepalives.append(payload)
            return
        message = Sip(payload)
        self.inbox.append(Arrived(message, source, payload))
        if message["content-length"]:
            assert int(message["content-length"]) == len(message.body), "Content-Length is not the body's"
        leg = self._leg_of(message)
        if self.is_strict and message.is_request:
            self._check_request(message, leg)
        elif self.is_strict:
            self._check_response(message)
        if leg is not None:
            leg.takes(message)

    @property
    def last(self) -> Sip:
        """The newest message received."""
        assert self.inbox, f"{self} has received nothing"
        return self.inbox[-1].message

    def received(self, what: str | int) -> list[Sip]:
        """Return the requests of a method, or the responses of a status."""
        return [item.message for item in self.inbox
                if what == (item.message.method if item.message.is_request else item.message.status)]

    def _check_response(self, response: Sip) -> None:
        request = self._sent.get((response.branch, response.method))
        assert request is not None, f"{self}: a response with a branch that it never sent: {response['via']}"
        assert _without_received(response["via"]) == _without_received(request["via"]), "Via differs"
        for name in ("from", "call-id", "cseq"):
            assert response[name] == request[name], f"{name} differs: {request[name]} / {response[name]}"
        assert response["to"].startswith(request["to"]), f"To differs: {request['to']} / {response['to']}"
        assert _parameter(response["via"], "received") in ("", self.endpoint.host), "received tells of NAT"
        assert _parameter(response["via"], "rport") in ("", str(self.endpoint.port)), "rport tells of NAT"

    def _check_request(self, request: Sip, leg: Leg | None) -> None:
        own = _between(self.contact, "<", ">")
        if request.method == "ACK" and leg is not None and leg.invite is not None:
            own = own if request.uri == own else leg.invite.uri     # of a failure: the INVITE's
        if leg is not None:
            assert request.uri == own, f"Request-URI {request.uri} is not the own Contact {own}"
            assert request["to"] == leg.own, f"To differs: {leg.own} / {request['to']}"
            assert request["from"].split(";tag")[0] == leg.remote.split(";tag")[0], (
                f"From differs: {leg.remote} / {request['from']}")
        elif self.is_registered and f"{self.user}@" in request.uri:
            assert request.uri == own, f"Request-URI {request.uri} is not the registered Contact {own}"

    def _leg_of(self, message: Sip) -> Leg | None:
        own = message["to" if message.is_request else "from"]
        return self.legs.get((message["call-id"], _parameter(own, "tag")))

    def _answered_via(self, via: str, source: Endpoint) -> tuple[str, Endpoint]:
        sent_by = _hostport("sip:" + via.split()[1].split(";")[0], SIP_PORT)
        if ";rport" in via and ";rport=" not in via:
            marked = via.replace(";rport", f";rport={source.port};received={source.host}")
            return marked, source
        if sent_by.host != source.host:
            return f"{via};received={source.host}", Endpoint(source.host, sent_by.port)
        return via, sent_by


@dataclass
class Leg:
    """One UA's end of a dialog, or of a transaction outside one."""

    agent: Agent
    call_id: str
    own: str                        # From of what this UA sends
    remote: str                     # To of what it sends; gets its tag from the first response
    target: str = ""                # the other side's Contact URI
    hop: Endpoint | None = None     # where requests without a route go; None: to the target
    cseq: int = 0
    routes: list[str] = field(default_factory=list)
    final: int = 0                  # status of the last response
    invite: Sip | None = None       # received
    sent: Sip | None = None         # the last request sent, but for ACK and CANCEL
    sent_to: Endpoint | None = None
    delivery: Delivery | None = None

    @property
    def own_tag(self) -> str:
        return _parameter(self.own, "tag")

    @property
    def remote_tag(self) -> str:
        return _parameter(self.remote, "tag")

    def learn(self, message: Sip, routes: Sequence[str]) -> None:
        """Take the remote target and the route set (RFC 3261, section 12.1) of the first dialog."""
        if not message.is_request and self.remote_tag not in ("", _parameter(message["to"], "tag")):
            return
        if not message.is_request and ";tag=" in message["to"]:
            self.remote = message["to"]
        if message["contact"] and message.method != "REGISTER" and message.status < 300:
            self.target = _between(message["contact"], "<", ">")
            self.routes = list(routes)
            self.hop = None

    def takes(self, message: Sip) -> None:
        """Follow a message of this dialog: status, tag, target refresh."""
        if not message.is_request:
            self.final = message.status
            self.learn(message, message.all("record-route")[::-1])
        elif message["contact"]:
            self.target = _between(message["contact"], "<", ">")

    def fork(self, response: Sip) -> Leg:
        """Return another leg for a response with another To tag (RFC 3261, section 13.2.2.4)."""
        leg = Leg(self.agent, self.call_id, self.own, response["to"], cseq=self.cseq, sent=self.sent)
        leg.learn(response, response.all("record-route")[::-1])
        return leg

    def sends(self, method: str, sdp: str = "", headers: Headers = ()) -> Delivery:
        """Send a request; in a dialog once the remote tag is known.

        CANCEL, and the ACK of a failure, go the way of the request they belong to (RFC 3261, 9.1, 17.1.1.3).
        """
        agent, sent = self.agent, self.sent
        if sent is not None and (method == "CANCEL" or (method == "ACK" and self.final >= 300)):
            uri, branch, hop = sent.uri, sent.branch, self.sent_to
        else:
            uri, branch, hop = self.target, f"z9hG4bK{agent.user}{agent.serial()}", self._next_hop()
        self.cseq += method not in ("ACK", "CANCEL")
        via = f"SIP/2.0/UDP {agent.sent_by};branch={branch}{agent.via_parameters}"
        lines = [f"{method} {uri} SIP/2.0", f"Via: {via}", "Max-Forwards: 70"]
        lines += [f"Route: {route}" for route in self.routes]
        remote = sent["to"] if method == "CANCEL" and sent is not None else self.remote
        lines += [f"From: {self.own}", f"To: {remote}", f"Call-ID: {self.call_id}",
                  f"CSeq: {self.cseq} {method}"]
        contact = None if method in ("ACK", "CANCEL", "BYE") else agent.contact
        text = _message(lines, contact, [*_pairs(headers), ("User-Agent", agent.user_agent)], sdp)
        if method not in ("ACK", "CANCEL"):
            self.sent, self.sent_to = Sip(wire_bytes(text)), hop
        self.delivery = agent.sends(text, hop)
        return self.delivery

    def replies(self, status: int, sdp: str = "", headers: Headers = ()) -> Delivery:
        """Answer the INVITE that began this dialog."""
        assert self.invite is not None, "this leg has received no INVITE"
        return self.agent.replies(self.invite, status, sdp, headers, tag=self.own_tag)

    def answers(self, status: int = 200, sdp: str | None = None, headers: Headers = ()) -> Delivery:
        """Answer the INVITE that began this dialog with audio."""
        return self.replies(status, self.agent.sdp() if sdp is None else sdp, headers)

    def _next_hop(self) -> Endpoint:
        if self.hop is not None:
            return self.hop
        next_uri = _between(self.routes[0], "<", ">") if self.routes else self.target
        return self.agent.world.resolve(_hostport(next_uri, SIP_PORT))


def is_request(payload: bytes) -> bool:
    """Tell a SIP request from a response, a keep-alive and anything else."""
    return payload.partition(b"\r\n")[0].endswith(b" SIP/2.0")


def wire_bytes(text: str) -> bytes:
    """Return a message as it is sent: CRLF, and a right Content-Length where it has that header."""
    head, _, body = text.replace("\r\n", "\n").partition("\n\n")
    encoded = body.replace("\n", "\r\n").encode()
    head = re.sub(r"(?im)^(content-length|l)( *:[ \t]*)\S*$", rf"\g<1>\g<2>{len(encoded)}", head.rstrip("\n"))
    return head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + encoded


def _message(lines: list[str], contact: str | None, headers: list[tuple[str, str]], sdp: str) -> str:
    named = {name.lower() for name, _ in headers}
    if contact and "contact" not in named:
        lines.append(f"Contact: {contact}")
    lines += [f"{name}: {value}" for name, value in headers]
    if sdp and "content-type" not in named:
        lines.append("Content-Type: application/sdp")
    return "\n".join([*lines, "Content-Length: 0", "", sdp])


def _pairs(headers: Headers) -> list[tuple[str, str]]:
    return list(headers.items() if isinstance(headers, Mapping) else headers)


def _long_name(name: str) -> str:
    name = name.strip().lower()
    return COMPACT.get(name, name)


def _match(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    return match[1] if match else ""


def _parameter(value: str, name: str) -> str:
    return _match(rf";\s*{name}=([^;,\s>]+)", value)


def _without_received(via: str) -> str:
    return re.sub(r";(?:received=[^;]*|rport(?:=\d*)?)", "", via)


def _between(text: str, first: str, last: str) -> str:
    return text.partition(first)[2].partition(last)[0] if first in text else text.split(";")[0]


def _hostport(uri: str, default_port: int) -> Endpoint:
    match = URI_HOSTPORT.match(uri)
    assert match is not None, f"not a SIP URI: {uri}"
    return Endpoint(match[1], int(match[2] or default_port))
