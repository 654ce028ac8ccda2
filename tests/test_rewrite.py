"""Headers: what is shown outside, what is restored inside, and what is left alone."""

from __future__ import annotations

import pytest

from natfix.address import Endpoint
from natfix.config import Inside, Settings
from natfix.engine import Engine
from natfix.quirks import quirks_from_text
from tests.playbook import OTHER_PHONE, PHONE, PROVIDER, World


@pytest.fixture
def world() -> World:
    """A phone whose outside port differs from its inside one, since another phone has that already."""
    made = World()
    made.other_phone.sends(b"\r\n\r\n", PROVIDER)
    made.phone.is_strict = False
    return made


def outside_port(world: World) -> int:
    return world.engine._mappings.find(PHONE).outside.port


def request(extra: str, method: str = "INVITE", sent_by: str = "192.168.1.10:5060") -> str:
    return (f"{method} sip:bob@provider.example SIP/2.0\nVia: SIP/2.0/UDP {sent_by};branch=z9hG4bK1;rport\n"
            f"From: <sip:alice@provider.example>;tag=1\nTo: <sip:bob@provider.example>\nCall-ID: c1\n"
            f"CSeq: 1 {method}\n{extra}\n\n")


@pytest.mark.parametrize(("header", "shown"), [
    ("Contact: <sip:alice@192.168.1.10:5060>", "Contact: <sip:alice@203.0.113.1:{port}>"),
    ("m: \"A <x>\" <sip:alice@192.168.1.10>;q=1", "m: \"A <x>\" <sip:alice@203.0.113.1:{port}>;q=1"),
    ("Contact: <sip:a@192.168.1.10>, <sip:b@192.168.1.10:5060>;x=\",\"",
     "Contact: <sip:a@203.0.113.1:{port}>, <sip:b@203.0.113.1:{port}>;x=\",\""),
    ("Contact: <sip:alice@192.168.1.10;maddr=192.168.1.10>",
     "Contact: <sip:alice@203.0.113.1:{port};maddr=203.0.113.1>"),
    ("Contact: <sip:alice@192.168.1.10:5060;alias=192.168.1.10~5060~1>",
     "Contact: <sip:alice@203.0.113.1:{port};alias=203.0.113.1~{port}~1>"),
    ("Record-Route: <sip:192.168.1.10;lr>", "Record-Route: <sip:203.0.113.1:{port};lr>"),
    ("P-Asserted-Identity: <sip:alice@192.168.1.10>", "P-Asserted-Identity: <sip:alice@203.0.113.1>"),
    ("Diversion: <sip:100@192.168.1.10>;reason=busy", "Diversion: <sip:100@203.0.113.1>;reason=busy"),
    ("Remote-Party-ID: <sip:alice@192.168.1.10>;party=calling",
     "Remote-Party-ID: <sip:alice@203.0.113.1>;party=calling"),
    ("Referred-By: <sip:alice@192.168.1.10>", "Referred-By: <sip:alice@203.0.113.1>"),
    ("P-Preferred-Identity: <sip:alice@192.168.1.10>", "P-Preferred-Identity: <sip:alice@203.0.113.1>"),
    ("History-Info: <sip:alice@192.168.1.10>;index=1", "History-Info: <sip:alice@203.0.113.1>;index=1"),
    ("Reply-To: <sip:alice@192.168.1.10>", "Reply-To: <sip:alice@203.0.113.1>"),
    ("Path: <sip:192.168.1.10:5060;lr>", "Path: <sip:203.0.113.1:{port};lr>"),
    ("Call-Info: <http://192.168.1.10:5060/me.png>;purpose=icon",
     "Call-Info: <http://203.0.113.1:{port}/me.png>;purpose=icon"),
    ("Contact: <sip:alice@192.168.1.10:5060;received=\"192.168.1.10:5060\">",
     "Contact: <sip:alice@203.0.113.1:{port};received=\"203.0.113.1:{port}\">"),
    ("Refer-To: <sip:alice@192.168.1.10:5060>", "Refer-To: <sip:alice@203.0.113.1:{port}>"),
    ("Warning: 399 192.168.1.10:5060 \"no\"", "Warning: 399 203.0.113.1:{port} \"no\""),
    ("Contact:\n <sip:alice@192.168.1.10:5060>", "Contact:\n <sip:alice@203.0.113.1:{port}>"),
])
def test_what_a_phone_says_of_itself_is_shown_outside(world: World, header: str, shown: str) -> None:
    """Every header of the design's table, in any spelling; nothing else in the line changes."""
    delivery = world.phone.sends(request(header))
    assert shown.format(port=outside_port(world)).replace("\n", "\r\n").encode() in delivery.arrived


@pytest.mark.parametrize("header", [
    "P-Asserted-Identity: <sip:alice@{}>", "P-Preferred-Identity: <sip:alice@{}>",
    "Diversion: <sip:alice@{}>", "History-Info: <sip:alice@{}>;index=1", "Remote-Party-ID: <sip:alice@{}>",
    "Reply-To: <sip:alice@{}>", "Referred-By: <sip:alice@{}>", "Refer-To: <sip:alice@{}:5060>",
    "Record-Route: <sip:{}:5060;lr>", "Warning: 399 {}:5060 \"no\"", "Call-Info: <http://{}:5060/me.png>",
])
def test_what_was_shown_comes_back_as_it_was_written(world: World, header: str) -> None:
    """Every header of the design's table, when the peer says in the dialog what it was shown."""
    own = header.format("192.168.1.10")
    name, _, value = own.partition(": ")
    world.phone.invites(world.provider.address, headers={name: value})
    shown = next(value for known, value in world.provider.last.fields if known == name.lower())
    callee = world.provider.accepts(world.provider.last)
    delivery = callee.sends("INFO", headers={name: shown})
    assert "192.168.1.10" not in shown
    assert delivery.arrived is not None
    assert f"\r\n{own}\r\n".encode() in delivery.arrived


@pytest.mark.parametrize("header", [
    "Contact: *",
    "Contact: <sip:alice@phone.example>",
    "Contact: <sip:alice@192.168.1.77:5060>",
    "Contact: <sip:alice@203.0.113.1:41000>",
    "Contact: <tel:+15551234>",
    "Contact: <sip:alice@192.168.1.10:22>",
    "Route: <sip:192.168.1.10;lr>",
    "Authorization: Digest username=\"a\", uri=\"sip:192.168.1.10\", response=\"x\"",
    "X-Unknown: 192.168.1.10:5060",
    "Subject: call me at 192.168.1.10",
    "Warning: 399 192.168.1.10:50600 \"no\"",
])
def test_what_is_not_the_senders_own_is_left_alone(world: World, header: str) -> None:
    """Someone else's address, names, credentials and unknown headers pass as they are."""
    delivery = world.phone.sends(request(header))
    assert f"\r\n{header}\r\n".encode() in delivery.arrived


def test_identities_need_a_dialog_to_restore_them(world: World) -> None:
    """Outside a dialog nobody could undo it, so From stays, with a note."""
    text = request("", "MESSAGE").replace("alice@provider.example", "alice@192.168.1.10")
    delivery = world.phone.sends(text)
    assert b"From: <sip:alice@192.168.1.10>;tag=1" in delivery.arrived
    assert "identity" in delivery.rules()


@pytest.mark.parametrize("sent_by", ["192.168.1.10:5060", "192.168.1.10", "192.168.1.10 : 5060"])
def test_via_comes_back_as_it_was_written(world: World, sent_by: str) -> None:
    """The response's topmost Via is what the UA wrote, to the byte, and tells of no NAT."""
    world.phone.sends(request("", "OPTIONS", sent_by))
    world.provider.replies(world.provider.last, 200)
    answer = world.phone.inbox[-1].payload
    assert f"Via: SIP/2.0/UDP {sent_by};branch=z9hG4bK1;rport=5060;received=192.168.1.10".encode() in answer


def test_a_via_with_another_port_gets_its_own_mapping(world: World) -> None:
    """A phone that sends from one port and listens on another (D29) is reached where it listens."""
    world.phone.sends(request("", "OPTIONS", "192.168.1.10:5070"))
    mapping = world.engine._mappings.find(Endpoint(PHONE.host, 5070))
    assert mapping is not None
    assert f"UDP {mapping.outside};".encode() in world.provider.inbox[-1].payload


def test_credentials_over_the_request_uri_keep_it(world: World) -> None:
    """An out-of-dialog request whose credentials quote its Request-URI is not touched there."""
    world.register(world.phone)
    uri = world.registered_uri(world.phone)
    text = (f"OPTIONS {uri} SIP/2.0\nVia: SIP/2.0/UDP {PROVIDER};branch=z9hG4bK7\nFrom: <sip:p@x>;tag=1\n"
            f"To: <{uri}>\nCall-ID: c7\nCSeq: 1 OPTIONS\nAuthorization: Digest uri=\"{uri}\"\n\n")
    delivery = world.provider.sends(text, world.resolve_uri(uri))
    assert delivery.arrived.startswith(f"OPTIONS {uri} ".encode())


def test_what_the_phone_wrote_itself_is_not_restored() -> None:
    """A STUN phone that names its outside address gets it back as it wrote it."""
    world = World()
    world.phone.contact = "<sip:alice@203.0.113.1:41000>"
    world.phone.sent_by = "203.0.113.1:41000"
    world.phone.is_strict = False
    world.register(world.phone)
    assert b"<sip:alice@203.0.113.1:41000>" in world.phone.inbox[-1].payload
    assert b"UDP 203.0.113.1:41000;" in world.phone.inbox[-1].payload


def test_a_quirk_takes_received_and_rport_away() -> None:
    """A device that ignores RFC 3581 is shown its Via without them."""
    quirks = quirks_from_text(
        '[[quirk]]\nname = "old"\nuser_agent = "Playbook"\nrepairs = ["ignores-rport"]\n', "test")
    networks = tuple(World().kernel.networks.values())
    settings = Settings(inside=Inside(networks))
    world = World(settings, Engine(settings, quirks))
    world.phone.is_strict = False
    world.phone.registers()
    world.provider.replies(world.provider.last, 401)
    answer = world.phone.inbox[-1].payload
    assert b"received=" not in answer
    assert b"rport" not in answer


def test_hairpin_shows_the_one_and_restores_the_other() -> None:
    """Two phones that talk by the outside address: each sees the other outside, itself inside."""
    world = World(dnat_accepted=True)
    world.register(world.phone)
    world.register(world.other_phone)
    call = world.call(world.phone, world.other_phone)
    invite = world.other_phone.received("INVITE")[-1]
    assert "203.0.113.1" in invite["contact"]
    assert invite.uri.endswith(f"@{OTHER_PHONE}")
    call.hang_up()


def test_a_quote_that_is_not_closed_is_left_alone() -> None:
    """A header that cannot be taken apart passes as it is; the rest of the message is still treated."""
    world = World()
    world.phone.is_strict = False
    sent = world.phone.begins("OPTIONS", "sip:bob@provider.example",
                              headers=[("P-Asserted-Identity", '"A, <sip:alice@192.168.1.10')])
    assert sent is not None
    assert world.engine.counters["rewritten"] == 1
