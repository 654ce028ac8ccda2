"""The engine's contract with its shell."""

from __future__ import annotations

import pytest

from natfix.address import Endpoint
from natfix.commands import Verdict
from natfix.edits import apply_edits
from natfix.engine import Path
from tests.datagram import Datagram, packet_bytes
from tests.playbook import PHONE, PROVIDER, World

FORWARD = Path("forward", "inside", "outside")


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize("raw", [b"", b"\x45", b"\x45" * 28, b"\x60" + bytes(60), bytes(2000)])
def test_what_is_no_packet_passes_with_a_note(world: World, raw: bytes) -> None:
    """Broken packets are accepted untouched, counted, and never raise."""
    outcome = world.engine.receive_packet(raw, FORWARD, world.now)
    assert outcome.verdict is Verdict.ACCEPT
    assert outcome.packet is None
    assert outcome.notes
    assert world.engine.counters["passed"] == 1


@pytest.mark.parametrize("payload", [
    b"\r\n\r\n", b"\0\0\0\0", b"jaK", bytes(20), b"INVITE sip:x SIP/2.0\r\nbroken",
])
def test_keep_alives_open_the_outgoing_half_only(world: World, payload: bytes) -> None:
    """The first packet of a flow decides its outside port, whatever is in it; it is not touched."""
    delivery = world.phone.sends(payload, PROVIDER)
    assert delivery.is_untouched
    mapping, = world.kernel.mappings()
    assert (mapping.inside, mapping.inward) == (PHONE, False)


def test_a_packet_past_the_outside_interface_is_not_touched(world: World) -> None:
    """What goes to a VPN link is not NATed there."""
    raw = packet_bytes(Datagram(PHONE, Endpoint("10.99.0.1", 5060), b"OPTIONS sip:x SIP/2.0\r\n\r\n"))
    outcome = world.engine.receive_packet(raw, Path("forward", "inside", "tun0"), world.now)
    assert outcome.packet is None
    assert outcome.commands == []


def test_time_never_runs_backwards(world: World) -> None:
    """A clock that jumps back neither revives nor ends anything."""
    world.phone.sends(b"\r\n\r\n", PROVIDER)
    due = world.engine.next_timeout()
    world.engine.handle_timer(world.now - 500.0)
    assert world.engine.next_timeout() == due


def test_a_refused_transaction_is_mended_by_a_resync(world: World) -> None:
    """When the kernel refuses, the packet is lost, SIP retransmits, and the call is whole again."""
    world.kernel.fail_next_apply = "for the test"
    world.phone.invites("sip:bob@provider.example")
    assert world.provider.inbox == []
    call = world.call(world.phone, world.provider)
    world.assert_two_way_audio(call)


def test_every_change_of_length_keeps_content_length_true(world: World) -> None:
    """Content-Length is the body's octets after the rewrite (RFC 3261, section 20.14)."""
    leg = world.phone.invites("sip:bob@provider.example")
    head, _, body = leg.delivery.arrived.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head


def test_a_packet_that_would_grow_beyond_its_bounds_passes_unchanged(world: World) -> None:
    """What would no longer fit into an IP packet is passed with a note, not lost."""
    world.other_phone.sends(b"\r\n\r\n", PROVIDER)      # so that the phone's port, and its text, grow
    text = (b"OPTIONS sip:bob@provider.example SIP/2.0\r\nVia: SIP/2.0/UDP 192.168.1.10;branch=z9hG4bK1\r\n"
            b"From: <sip:a@x>;tag=1\r\nTo: <sip:b@x>\r\nCall-ID: c\r\nCSeq: 1 OPTIONS\r\nX: ")
    delivery = world.phone.sends(text + b"x" * (65535 - 28 - 4 - len(text)) + b"\r\n\r\n", PROVIDER)
    assert delivery.is_untouched
    assert "packet" in delivery.rules()


def test_edits_say_where(world: World) -> None:
    """The outcome's edits are the places of all changes: applied to what came, they give what goes on."""
    first = world.phone.invites("sip:bob@provider.example").delivery
    again = world.transmit(first.source, first.destination, first.payload)
    for delivery in (first, again):
        assert apply_edits(delivery.payload, delivery.outcome.edits) == delivery.arrived != delivery.payload
