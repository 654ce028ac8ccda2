"""The four properties of the engine, on messages as odd as they are in the field (design, section 3).

Byte-preserving; deterministic and idempotent; inverse; does no harm and never raises.
"""

from __future__ import annotations

import os
import re

from hypothesis import HealthCheck, example, given, note, settings
from hypothesis import strategies as st

from natfix.address import Endpoint
from natfix.commands import Verdict
from natfix.config import FarEnd
from natfix.engine import Path
from tests import judge
from tests.agent import Agent
from tests.datagram import Datagram, packet_bytes, read_packet
from tests.playbook import PROVIDER, Delivery, World
from tests.strategies import FORMS_DIALOG, Spoken, answers, conversations, endpoints, mutated, requests

EXAMPLES = int(os.environ.get("NATFIX_EXAMPLES", "100"))    # per property
PUBLIC = Endpoint("198.51.100.200", 5060)
PATH = Path("forward", "inside", "outside")

properties = settings(max_examples=EXAMPLES, deadline=None, derandomize="NATFIX_RANDOM" not in os.environ,
                      suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
broken = mutated(conversations().map(lambda conversation: conversation[1].payload))


def said(own: Endpoint, payload: bytes, **tables: object) -> tuple[World, Agent, Delivery]:
    """Send *payload* from a UA at *own* to the provider, in a new world; both take anything."""
    world = World(dnat_accepted=True, **tables)
    world.agents = [world.provider]
    phone = world.agent("phone", own, proxy=PROVIDER)
    phone.is_strict = world.provider.is_strict = False
    delivery = world.transmit(own, PROVIDER, payload)
    note(world.story())
    return world, phone, delivery


@properties
@given(conversations())
def test_byte_preserving(conversation: tuple[Endpoint, Spoken]) -> None:
    """Undoing the notes restores every byte, and an independent parser reads no other difference."""
    own, spoken = conversation
    _, _, delivery = said(own, spoken.payload)
    assert delivery.arrived is not None, delivery.dropped
    assert judge.undone(spoken.payload, delivery.arrived, delivery.notes)
    assert judge.unexplained(spoken.payload, delivery.arrived, delivery.notes) == []


@properties
@given(conversations())
def test_content_length_is_right(conversation: tuple[Endpoint, Spoken]) -> None:
    """What had a right Content-Length has a right one afterwards; what had none gets none."""
    own, spoken = conversation
    _, _, delivery = said(own, spoken.payload)
    head, _, body = (delivery.arrived or b"").partition(b"\r\n\r\n")
    lengths = re.findall(rb"(?im)^(?:content-length|l)[ \t]*:\s*(\d+)", head)
    assert lengths in ([], [str(len(body)).encode()])


@properties
@given(conversations())
def test_deterministic(conversation: tuple[Endpoint, Spoken]) -> None:
    """The same packet at the same time has the same outcome in another engine, reasons included."""
    own, spoken = conversation
    first, second = (said(own, spoken.payload)[2] for _ in range(2))
    assert first.arrived == second.arrived
    assert first.outcome == second.outcome


@properties
@given(conversations())
def test_idempotent(conversation: tuple[Endpoint, Spoken]) -> None:
    """A retransmission leaves as the same bytes and asks nothing new of the kernel."""
    own, spoken = conversation
    world, _, first = said(own, spoken.payload)
    world.advance(0.5)
    again = world.transmit(own, PROVIDER, spoken.payload)
    assert again.arrived == first.arrived
    assert again.outcome.commands == []


@properties
@given(conversations())
def test_inverse_in_the_response(conversation: tuple[Endpoint, Spoken]) -> None:
    """What the provider echoes comes back as the UA wrote it: as if it had answered without any NAT."""
    own, spoken = conversation
    world, phone, delivery = said(own, spoken.payload)
    assert delivery.trace is not None
    assert delivery.arrived is not None
    further = ("contact", "m", "path") if spoken.method == "REGISTER" else ()
    answer = judge.echo(delivery.arrived, delivery.trace.source, further)
    back = world.transmit(PROVIDER, delivery.trace.source, answer)
    note(str(back))
    assert phone.inbox, back.dropped
    assert phone.inbox[-1].payload == judge.echo(spoken.payload, own, further)


@properties
@given(conversations(FORMS_DIALOG))
def test_inverse_in_requests_of_the_dialog(conversation: tuple[Endpoint, Spoken]) -> None:
    """A request to any Contact that was shown reaches the UA with the Contact that it wrote."""
    own, spoken = conversation
    world, phone, delivery = said(own, spoken.payload)
    assert delivery.trace is not None
    assert delivery.arrived is not None
    world.transmit(PROVIDER, delivery.trace.source, judge.echo(delivery.arrived, delivery.trace.source))
    for written, shown in zip(contact_uris(spoken.payload), contact_uris(delivery.arrived), strict=True):
        if written != shown:
            world.transmit(PROVIDER, delivery.trace.source, in_dialog(delivery.arrived, shown))
            note(world.story())
            assert phone.inbox[-1].message.uri == written.decode()


@properties
@given(endpoints, st.sampled_from(FORMS_DIALOG), st.data())
def test_answers_of_a_phone(own: Endpoint, method: str, data: st.DataObject) -> None:
    """What a called phone says of itself is shown with its notes, and what comes back to that is restored."""
    world, phone, hello = said(own, b"\r\n\r\n")
    assert hello.trace is not None
    asked = in_dialog(b"", b"sip:phone@" + str(hello.trace.source).encode(), method)
    world.transmit(PROVIDER, hello.trace.source, asked)
    answer = data.draw(answers(own, asked))
    delivery = world.transmit(own, PROVIDER, answer)
    note(world.story())
    assert delivery.arrived is not None
    assert judge.undone(answer, delivery.arrived, delivery.notes)
    assert judge.unexplained(answer, delivery.arrived, delivery.notes) == []
    for written, shown in zip(contact_uris(answer), contact_uris(delivery.arrived), strict=True):
        if written != shown:
            world.transmit(PROVIDER, hello.trace.source, in_dialog(b"", shown, "INFO", b";tag=phone"))
            note(world.story())
            assert phone.inbox[-1].message.uri == written.decode()


@properties
@given(endpoints, requests(PUBLIC))
def test_does_no_harm(own: Endpoint, spoken: Spoken) -> None:
    """A message that names none of its sender's inside addresses is not touched."""
    _, _, delivery = said(own, spoken.payload)
    assert delivery.is_untouched, delivery.changes()


@properties
@given(endpoints, requests(PUBLIC))
def test_does_no_harm_on_the_way_in(own: Endpoint, spoken: Spoken) -> None:
    """What comes from outside and names nothing that natfix has shown is not touched, far ends apart."""
    world, phone, hello = said(own, b"\r\n\r\n", far_end=FarEnd("never"))
    assert hello.trace is not None
    delivery = world.transmit(PROVIDER, hello.trace.source, spoken.payload)
    note(world.story())
    assert delivery.is_untouched, delivery.changes()
    assert phone.inbox[-1].payload == spoken.payload


@properties
@given(broken, st.booleans())
@example(b"INVITE sip:a@b SIP/2.0\r\n\r\n", False)
def test_never_raises(payload: bytes, is_incoming: bool) -> None:
    """Broken messages pass, in both directions; whatever is changed stays a packet, and has its notes."""
    own = Endpoint("192.168.1.10", 5060)
    world, phone, delivery = said(own, b"\r\n\r\n")
    world.agents.remove(phone)
    world.agents.remove(world.provider)
    assert delivery.trace is not None
    ends = (PROVIDER, delivery.trace.source) if is_incoming else (own, PROVIDER)
    packet = Datagram(*((PROVIDER, own) if is_incoming else ends), payload)
    outcome = world.engine.receive_packet(packet_bytes(packet), PATH, world.now)
    world.kernel.apply(outcome.commands)
    assert outcome.verdict is Verdict.ACCEPT
    if outcome.packet is not None:
        changed = read_packet(outcome.packet)
        assert changed[:2] == packet[:2]
        assert judge.undone(payload, changed.payload, outcome.notes)
    world.advance(300.0)
    assert world.refusals == []


@properties
@given(st.binary(max_size=60), st.integers(0, 30), st.binary(max_size=3))
def test_broken_packets_pass(payload: bytes, at: int, junk: bytes) -> None:
    """Cut, wrong lengths, other protocols: never raises, never changed, a note says why."""
    world = World()
    raw = packet_bytes(Datagram(Endpoint("192.168.1.10", 5060), PROVIDER, payload))
    for packet in (raw[:at], raw[:at] + junk + raw[at + len(junk):], payload):
        outcome = world.engine.receive_packet(packet, PATH, world.now)
        assert outcome.verdict is Verdict.ACCEPT
        assert outcome.packet is None
        assert outcome.notes


def contact_uris(payload: bytes) -> list[bytes]:
    """Return the URIs in the Contacts of a generated message, in order."""
    values = [line.partition(b":")[2] for line in judge.logical_lines(payload)[1:]
              if judge.header_name(line) in ("contact", "m")]
    unquoted = (re.sub(rb'"(?:\\.|[^"\\])*"', b"", value) for value in values)
    return [uri for value in unquoted for uri in re.findall(rb"<(sips?:[^>]*)>", value, re.IGNORECASE)]


def in_dialog(request: bytes, uri: bytes, method: str = "INFO", tag: bytes = b"") -> bytes:
    """Return a request to *uri* from the UAS of *request*, in that dialog; without one in another."""
    named = (line.partition(b":") for line in judge.logical_lines(request))
    fields = {judge.header_name(name + b":"): value.strip() for name, _, value in named}
    ends = {b"From": fields.get("to", b"<sip:bob@provider.example>") + b";tag=uas",
            b"To": fields.get("from", b"<sip:phone@provider.example>") + tag,
            b"Call-ID": fields.get("call-id", b"4711@provider")}
    lines = [method.encode() + b" " + uri + b" SIP/2.0",
             b"Via: SIP/2.0/UDP 198.51.100.20:5060;branch=z9hG4bKin" + method.encode(),
             *(name + b": " + value for name, value in ends.items()), b"CSeq: 1 " + method.encode()]
    return b"\r\n".join([*lines, b"", b""])
