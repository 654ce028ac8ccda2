"""SIP over TCP in the engine: mappings of connections, headers both ways, restarts."""

from __future__ import annotations

import re
from itertools import count

import pytest

from natfix.address import Endpoint, network_from_text
from natfix.commands import AddMapping, Flow, Kind, Outcome, ReleaseStream, SendSegment, Verdict
from natfix.config import Settings
from natfix.engine import Engine, Path
from natfix.reports import AddressesChanged, Change, Restored, StreamOpened
from natfix.segment import ACK, FIN, PSH, RST, SYN, datagram, segment_from_bytes

PHONE, REGISTRAR = Endpoint("192.168.1.10", 41000), Endpoint("198.51.100.20", 5060)
OUTSIDE = Endpoint("203.0.113.1", 41777)
LINKS = AddressesChanged({"outside": "203.0.113.1"}, ((network_from_text("192.168.1.0/24"), "inside"),))
OUT, IN = Path("forward", "inside", "outside"), Path("forward", "outside", "inside")
WINDOW = 60000

REGISTER = """\
REGISTER sip:example.com SIP/2.0
Via: SIP/2.0/TCP 192.168.1.10:5060;branch=z9hG4bK1;rport;alias
From: <sip:alice@example.com>;tag=f1
To: <sip:alice@example.com>
Call-ID: register-1
CSeq: 1 REGISTER
Contact: <sip:alice@192.168.1.10:5060;transport=tcp>;expires=600
Content-Length: 0

"""
SDP = """\
v=0
o=- 1 1 IN IP4 192.168.1.10
s=-
c=IN IP4 192.168.1.10
t=0 0
m=audio 4000 RTP/AVP 0
"""


def wire(text: str, body: str = "") -> bytes:
    """Return a message with the line ends of the wire and the length of its body."""
    body = body.replace("\n", "\r\n")
    return text.replace("Content-Length: 0", f"Content-Length: {len(body)}").replace(
        "\n", "\r\n").encode() + body.encode()


class Line:
    """One TCP connection between a phone and a registrar, through an engine; nothing is lost on the way."""

    def __init__(
        self, engine: Engine, phone: Endpoint = PHONE, server: Endpoint = REGISTRAR,
        opened_by_phone: bool = True,
    ) -> None:
        self.engine = engine
        self.phone, self.server = phone, server
        self.clock = count(1000)
        self.numbers = {True: 5000, False: 90000}       # what each side sends next, in its own numbers
        self.seen = {True: 0, False: 0}                 # what each side expects next, in what it was shown
        self.outcomes: list[Outcome] = []
        self.got = {True: b"", False: b""}              # what each side got
        first = opened_by_phone
        self.send(first, SYN)
        flow = Flow(phone, server, server, OUTSIDE)
        engine.handle_report(StreamOpened(flow), next(self.clock))
        self.send(not first, SYN | ACK)
        self.send(first, ACK)

    def send(self, by_phone: bool, flags: int, payload: bytes = b"") -> Outcome:
        """Send a segment, take what comes out of the engine to its receiver, and have it acknowledged."""
        source, target = (self.phone, self.server) if by_phone else (self.server, self.phone)
        raw = datagram(SendSegment(source, target, self.numbers[by_phone], self.seen[by_phone], flags, WINDOW,
                                   b"", payload))
        self.numbers[by_phone] += len(payload) + bool(flags & SYN) + bool(flags & FIN)
        outcome = self.engine.receive_packet(raw, OUT if by_phone else IN, next(self.clock))
        self.outcomes.append(outcome)
        if outcome.verdict is Verdict.ACCEPT:
            self.arrives(not by_phone, outcome.packet or raw)
        for each in outcome.send:
            assert isinstance(each, SendSegment)
            self.arrives(each.destination == self.phone, datagram(each))
        return outcome

    def arrives(self, at_phone: bool, raw: bytes) -> None:
        """A segment comes to one side; data is acknowledged at once."""
        segment = segment_from_bytes(raw)
        if segment.flags & SYN:
            self.seen[at_phone] = segment.sequence + 1
        elif segment.payload and segment.sequence == self.seen[at_phone]:
            self.seen[at_phone] += len(segment.payload)
            self.got[at_phone] += segment.payload
            self.send(at_phone, ACK)

    def says(self, by_phone: bool, octets: bytes) -> bytes:
        """Send *octets*; return what the other side got of them."""
        before = len(self.got[not by_phone])
        self.send(by_phone, PSH | ACK, octets)
        return self.got[not by_phone][before:]

    def registers(self) -> None:
        """Register, and have it accepted."""
        shown = self.says(True, wire(REGISTER)).decode()
        self.says(False, answer_to(shown, 200))


def answer_to(request: str, status: int, body: str = "", contact: str = "") -> bytes:
    """Return the response of a server that echoes what it got."""
    kept = [line for line in request.split("\r\n") if re.match("Via|From|To|Call-ID|CSeq|Contact", line)]
    kept = [f"To: <sip:x@y>;tag=t{status}" if line.startswith("To:") and ";tag" not in line else line
            for line in kept if not (contact and line.startswith("Contact"))]
    extra = [f"Contact: {contact}"] if contact else []
    head = "\n".join([f"SIP/2.0 {status} Said", *kept, *extra, "Content-Length: 0", "", ""])
    return wire(head, body)


@pytest.fixture
def engine() -> Engine:
    """An engine that knows its links."""
    made = Engine(Settings())
    made.handle_report(LINKS, 999)
    return made


def test_contact_and_via_name_the_connection(engine: Engine) -> None:
    """Whatever port a phone listens at, outside it is shown at the port that its connection has."""
    shown = Line(engine).says(True, wire(REGISTER))
    assert b"SIP/2.0/TCP 203.0.113.1:41777;branch=z9hG4bK1" in shown
    assert b"<sip:alice@203.0.113.1:41777;transport=tcp>" in shown
    assert b"192.168" not in shown


def test_the_registrars_answer_names_what_the_phone_wrote(engine: Engine) -> None:
    """Via and Contact come back as the phone wrote them, ports included; the binding is listed."""
    line = Line(engine)
    shown = line.says(True, wire(REGISTER)).decode()
    told = line.says(False, answer_to(shown, 200))
    assert b"Via: SIP/2.0/TCP 192.168.1.10:5060;branch" in told
    assert b"<sip:alice@192.168.1.10:5060;transport=tcp>" in told
    (row,) = engine.registrations(2000)
    assert (row["aor"], row["outside"]) == ("alice@example.com", "203.0.113.1:41777")


def test_a_call_to_the_phone_comes_by_the_connection_that_it_opened(engine: Engine) -> None:
    """The Request-URI is the phone's own Contact again, its answer's SDP gets mapped media ports."""
    line = Line(engine)
    line.registers()
    invite = wire("""\
INVITE sip:alice@203.0.113.1:41777;transport=tcp SIP/2.0
Via: SIP/2.0/TCP 198.51.100.20:5060;branch=z9hG4bK2
From: <sip:bob@example.com>;tag=b1
To: <sip:alice@example.com>
Call-ID: call-1
CSeq: 1 INVITE
Contact: <sip:bob@198.51.100.20:5060;transport=tcp>
Content-Type: application/sdp
Content-Length: 0

""", SDP.replace("192.168.1.10", "198.51.100.21"))
    told = line.says(False, invite)
    assert told.startswith(b"INVITE sip:alice@192.168.1.10:5060;transport=tcp SIP/2.0")
    reply = answer_to(told.decode(), 200, SDP, "<sip:alice@192.168.1.10:5060;transport=tcp>").replace(
        b"Content-Length", b"Content-Type: application/sdp\r\nContent-Length")
    shown = line.says(True, reply)
    assert b"c=IN IP4 203.0.113.1" in shown
    assert b"192.168" not in shown
    made = [command for outcome in line.outcomes for command in outcome.commands
            if isinstance(command, AddMapping)]
    assert Endpoint("192.168.1.10", 4000) in {command.inside for command in made}
    assert {command.kind for command in made} == {Kind.MEDIA}
    (row,) = engine.calls(2000)
    assert row["state"] == "confirmed"


def test_two_phones_may_have_the_same_outside_port(engine: Engine) -> None:
    """Linux gives several connections one port where their servers differ: each has a mapping of its own."""
    first = Line(engine)
    second = Line(engine, Endpoint("192.168.1.11", 41000), Endpoint("198.51.100.30", 5060))
    shown = first.says(True, wire(REGISTER)).decode()
    request = REGISTER.replace("192.168.1.10", "192.168.1.11").replace("bK1", "bK2")
    other = second.says(True, wire(request)).decode()
    assert b"192.168.1.10:5060" in first.says(False, answer_to(shown, 200))
    assert b"192.168.1.11:5060" in second.says(False, answer_to(other, 200))


def test_a_port_that_the_kernel_has_given_anew_is_the_new_connections(engine: Engine) -> None:
    """A connection that ended unseen gives way, with its binding, to the one that has its port now."""
    Line(engine).registers()
    shown = Line(engine, Endpoint("192.168.1.11", 41000)).says(
        True, wire(REGISTER.replace("192.168.1.10", "192.168.1.11")))
    assert b"203.0.113.1:41777" in shown
    assert engine.registrations(2000) == []


def test_what_begins_as_something_else_is_let_go(engine: Engine) -> None:
    """HTTP with a REGISTER inside stays as it is, and the kernel moves it alone from then on."""
    line = Line(engine)
    post = b"POST / HTTP/1.1\r\nContent-Length: 900\r\n\r\n"
    assert line.says(True, post) == post
    commands = [command for outcome in line.outcomes for command in outcome.commands]
    assert {type(command) for command in commands} == {ReleaseStream}
    assert line.says(True, wire(REGISTER)) == wire(REGISTER)
    assert not engine.registrations(2000)
    assert engine.status(2000)["signalling_mappings"] == 0


def test_tls_is_recognised_and_left_alone(engine: Engine) -> None:
    """A handshake passes as it came; it is counted, for `natfix status` to say what still helps."""
    hello = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"
    assert Line(engine).says(True, hello) == hello
    assert engine.status(2000)["counters"]["streams tls"] == 1
    assert engine.status(2000)["streams"] == {}


def test_a_connection_that_natfix_did_not_see_begin_is_not_touched(engine: Engine) -> None:
    """What is in the middle of something passes as it is, whatever it looks like."""
    raw = datagram(SendSegment(PHONE, REGISTRAR, 1, 1, PSH | ACK, WINDOW, b"", wire(REGISTER)))
    outcome = engine.receive_packet(raw, OUT, 1000)
    assert (outcome.verdict, outcome.packet) == (Verdict.ACCEPT, None)
    assert engine.status(2000)["signalling_mappings"] == 0


def test_a_pbx_is_called_on_a_connection_from_outside(engine: Engine) -> None:
    """Where the operator forwards SIP over TCP to a PBX, its answers name what it was called at."""
    line = Line(engine, opened_by_phone=False)
    shown = line.says(False, wire(REGISTER.replace("192.168.1.10", "198.51.100.20"))).decode()
    assert shown == wire(REGISTER.replace("192.168.1.10", "198.51.100.20")).decode()
    told = line.says(True, answer_to(shown, 302, contact="<sip:pbx@192.168.1.10:5060;transport=tcp>"))
    assert b"Contact: <sip:pbx@203.0.113.1:41777;transport=tcp>" in told


def test_the_end_of_a_connection_ends_what_is_reached_by_it(engine: Engine) -> None:
    """After a reset there is no binding and no mapping, and the store forgets the connection."""
    line = Line(engine)
    line.registers()
    line.send(True, RST)
    later = 3000.0
    while (due := engine.next_timeout()) is not None and due < later:
        engine.handle_timer(due)
    assert engine.registrations(later) == []
    assert engine.status(later)["signalling_mappings"] == 0
    assert [change.row for change in engine.pop_changes() if change.table == "streams"] == [None]


def test_after_a_restart_connections_are_reset_on_both_sides() -> None:
    """Both ends are made to say their numbers, and get a RST that fits; a new connection works."""
    before = Engine(Settings())
    before.handle_report(LINKS, 999)
    line = Line(before)
    line.registers()
    rows = tuple(change for change in before.pop_changes() if change.row is not None)
    engine = Engine(Settings())
    engine.handle_report(LINKS, 2000)
    engine.handle_report(Restored((), rows), 2000)
    asked = engine.handle_timer(2001).send
    assert {(each.source, each.destination) for each in asked} == {(REGISTRAR, PHONE), (OUTSIDE, REGISTRAR)}
    for by_phone, source in ((True, REGISTRAR), (False, OUTSIDE)):
        ends = (PHONE, REGISTRAR) if by_phone else (REGISTRAR, PHONE)
        raw = datagram(SendSegment(*ends, 777, 888, ACK, WINDOW, b"", b""))
        outcome = engine.receive_packet(raw, OUT if by_phone else IN, 2002)
        (reset,) = outcome.send
        assert outcome.verdict is Verdict.DROP
        assert isinstance(reset, SendSegment)
        assert (reset.source, reset.destination, reset.sequence, reset.flags) == (source, ends[0], 888, RST)
    assert b"203.0.113.1:41777" in Line(engine).says(True, wire(REGISTER))


def test_a_damaged_row_is_counted(engine: Engine) -> None:
    """A store that holds nonsense stops nothing."""
    engine.handle_report(Restored((), (Change("streams", "x", {"inside": 5}),)), 2000)
    assert engine.status(2000)["counters"]["damaged rows"] == 1
