"""Registrations, trunks and other dialogs through the engine; routes, spellings, conflicts, strangers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from natfix.address import Endpoint
from natfix.commands import Kind
from natfix.config import Trunk
from tests.agent import Agent, Leg
from tests.playbook import OUTSIDE, PHONE, PROVIDER, World, told

GRACE = 32.0        # seconds that a binding's hole outlives it


@pytest.fixture
def world() -> Iterator[World]:
    """A gateway whose operator did without the documented line."""
    yield from told(World())


@pytest.fixture
def open_world() -> Iterator[World]:
    """A gateway with ``ct status dnat accept``."""
    yield from told(World(dnat_accepted=True))


def signalling(world: World) -> dict[Endpoint, bool]:
    """Return which outside endpoints are mapped, and whether they let anybody in."""
    return {mapping.outside: mapping.inward for mapping in world.kernel.mappings()
            if mapping.kind is Kind.SIGNALLING}


def ring(world: World, agent: Agent) -> Leg:
    """The provider sends an INVITE to a phone's registered Contact."""
    uri = world.registered_uri(agent)
    return world.provider.invites(uri, world.resolve_uri(uri))


# Bindings

def test_a_register_opens_nothing_before_its_2xx(world: World) -> None:
    """From the first packet only the outgoing half exists; the inward half needs the registrar's consent."""
    world.phone.registers()
    assert signalling(world) == {Endpoint(OUTSIDE, 5060): False}
    world.provider.replies(world.provider.last, 401)
    assert signalling(world) == {Endpoint(OUTSIDE, 5060): False}


def test_a_binding_is_listed(world: World) -> None:
    """Status knows who is registered, where, and until when."""
    world.register(world.phone)
    row, = world.engine.registrations(world.now)
    assert "alice" in str(row)


def test_a_binding_ends_with_its_time(open_world: World) -> None:
    """After the time the registrar granted, and 32 s of grace, nobody reaches the phone."""
    world = open_world
    world.register(world.phone, expires=60)
    world.advance(59.0)
    assert ring(world, world.phone).delivery.arrived    # type: ignore[union-attr]
    world.phone.replies(world.phone.last, 486, contact="")
    world.advance(1.0 + GRACE + 300.0)
    assert ring(world, world.phone).delivery.arrived is None    # type: ignore[union-attr]
    assert world.engine.registrations(world.now) == []


@pytest.mark.parametrize(("contact", "header", "lifetime"), [
    (";expires=60", "", 60.0), ("", "90", 90.0), (";expires=60", "90", 60.0), ("", "", 3600.0),
    (";expires=\"60\"", "", 3600.0), (";expires=99999999999999999999", "", 3600.0)],
    ids=["parameter", "header", "both", "none", "quoted", "endless"])
def test_the_registrar_says_how_long(open_world: World, contact: str, header: str, lifetime: float) -> None:
    """The Contact's parameter goes before the header, and both before what was asked (RFC 3261, 10.2.4)."""
    world = open_world
    world.phone.registers(3600)
    headers = {"Expires": header} if header else {}
    world.provider.replies(world.provider.last, 200, headers=headers,
                           contact=f"{world.provider.last['contact']}{contact}")
    world.advance(lifetime - 1.0)
    assert len(world.engine.registrations(world.now)) == 1
    world.advance(2.0)
    assert world.engine.registrations(world.now) == []


def test_a_refreshed_binding_goes_on(world: World) -> None:
    """Each 2xx sets the time anew."""
    leg = world.register(world.phone, expires=60)
    for _ in range(5):
        world.advance(50.0)
        leg.sends("REGISTER", headers={"Expires": "60"})
        world.provider.replies(world.provider.last, 200,
                               contact=f"{world.provider.last['contact']};expires=60")
    assert ring(world, world.phone).delivery.arrived    # type: ignore[union-attr]


def test_unregistering_closes_the_hole(open_world: World) -> None:
    """Expires: 0 and its 2xx."""
    world = open_world
    leg = world.register(world.phone)
    leg.sends("REGISTER", headers={"Expires": "0"})
    world.provider.replies(world.provider.last, 200, contact="")
    world.advance(130.0)
    assert ring(world, world.phone).delivery.arrived is None    # type: ignore[union-attr]


def test_unregistering_everything(open_world: World) -> None:
    """Contact: * with Expires: 0."""
    world = open_world
    leg = world.register(world.phone)
    world.phone.contact, contact = "*", world.phone.contact
    leg.sends("REGISTER", headers={"Expires": "0"})
    assert world.provider.last["contact"] == "*"
    world.provider.replies(world.provider.last, 200, contact="")
    world.phone.contact = contact
    world.advance(130.0)
    assert world.engine.registrations(world.now) == []


def test_only_the_registrar_gets_in(open_world: World) -> None:
    """The inward half accepts the address that answered the REGISTER, whatever its port; nobody else."""
    world = open_world
    world.register(world.phone)
    uri = world.registered_uri(world.phone)
    sibling = world.agent("sibling", Endpoint(PROVIDER.host, 5080))
    assert sibling.invites(uri, world.resolve_uri(uri)).delivery.arrived    # type: ignore[union-attr]
    scanner = world.agent("scanner", Endpoint("198.51.100.66", 5060))
    delivery = scanner.invites(uri, world.resolve_uri(uri)).delivery
    assert delivery is not None
    assert delivery.arrived is None


def test_the_registrar_lists_several_bindings(world: World) -> None:
    """The own binding is restored, somebody else's stays as it is."""
    world.phone.registers()
    other = "<sip:alice@198.51.100.99:5060>;expires=7"
    world.provider.replies(world.provider.last, 200,
                           contact=f"{other}, {world.provider.last['contact']};expires=3600")
    assert world.phone.last.all("contact") == [other, f"{world.phone.contact};expires=3600"]


@pytest.mark.parametrize("contact", [
    "<sip:alice@192.168.1.10>", "sip:alice@192.168.1.10:5060",
    '"A, B" <sip:alice@192.168.1.10:5060;ob>;q=0.5',
    "<sip:192.168.1.10:5060>", "<sip:alice@192.168.1.10:5060;transport=udp>;+sip.instance=\"<urn:uuid:1>\""])
def test_contacts_come_back_as_they_were_written(world: World, contact: str) -> None:
    """Port omitted, no brackets, display name, no user, parameters: the echo is the phone's own text."""
    world.phone.contact = contact
    world.phone.registers()
    world.provider.replies(world.provider.last, 200, contact=world.provider.last["contact"])
    assert "192.168.1.10" not in world.provider.last["contact"]
    assert world.phone.last["contact"] == contact


def test_a_via_without_port_or_rport(world: World) -> None:
    """The provider answers to sent-by, port 5060 by default; the phone gets its own Via back."""
    world.phone.sent_by, world.phone.via_parameters = "192.168.1.10", ""
    world.register(world.phone)
    assert world.phone.last["via"].startswith("SIP/2.0/UDP 192.168.1.10;branch=")


def test_maddr_is_shown_and_restored(world: World) -> None:
    """A UA that repeats its address in maddr, of Via and Contact, gets both back, also in a Request-URI."""
    world.phone.via_parameters = ";maddr=192.168.1.10;rport"
    world.phone.contact = "<sip:alice@192.168.1.10:5060;maddr=192.168.1.10>"
    world.register(world.phone)
    register = world.provider.received("REGISTER")[-1]
    assert "192.168.1.10" not in register["via"] + register["contact"]
    world.assert_two_way_audio(world.call(world.provider, world.phone))


# Outside ports

def test_two_phones_with_one_port(world: World) -> None:
    """The second phone gets another outside port; both are called at their own Contact."""
    world.register(world.phone)
    world.register(world.other_phone)
    assert len(signalling(world)) == 2
    for phone in (world.phone, world.other_phone):
        phone.rtp = Endpoint(phone.endpoint.host, 12000)
        world.assert_two_way_audio(world.call(world.provider, phone))


def test_a_moved_port_is_written_where_none_was(world: World) -> None:
    """A Via and Contact without port get one where the outside port is not 5060, and lose it again."""
    world.register(world.phone)
    other = world.other_phone
    other.sent_by, other.via_parameters = "192.168.1.11", ""
    other.contact = "<sip:carol@192.168.1.11>"
    world.register(other)
    assert other.last["via"].startswith("SIP/2.0/UDP 192.168.1.11;branch=")
    assert other.last["contact"] == "<sip:carol@192.168.1.11>;expires=3600"
    world.assert_two_way_audio(world.call(world.provider, other))


def test_a_phone_keeps_its_outside_port(world: World) -> None:
    """After its mapping ended the same phone gets the same port, though another phone came in between."""
    world.register(world.phone)
    world.register(world.other_phone)
    port = world.resolve_uri(world.registered_uri(world.other_phone))
    for phone in (world.phone, world.other_phone):
        leg = phone.registers(expires=0)
        world.provider.replies(world.provider.last, 200, contact="")
        assert leg.final == 200
    world.advance(1000.0)
    assert not signalling(world)
    world.register(world.other_phone)
    assert world.resolve_uri(world.registered_uri(world.other_phone)) == port


def test_the_operators_forward_is_respected() -> None:
    """A DNAT rule of the operator's on 5060 keeps working beside phones that use 5060 inside."""
    pbx, outside = Endpoint("192.168.1.5", 5060), Endpoint(OUTSIDE, 5060)
    world = World(forwards={outside: pbx})
    world.busy_ports = frozenset({5060})
    world.restart()
    world.register(world.phone)
    assert outside not in signalling(world)
    forwarded = world.agent("pbx", pbx)
    stranger = world.agent("stranger", Endpoint("198.51.100.66", 5060))
    stranger.invites(f"sip:pbx@{OUTSIDE}", outside)
    assert forwarded.last.method == "INVITE"


def test_port_forward_users_still_register(world: World) -> None:
    """A phone on a port of its own, to a provider on a port of its own: diverted by its mapping."""
    phone = world.agent("dave", Endpoint("192.168.1.12", 5062), proxy=PROVIDER)
    world.register(phone)
    world.assert_two_way_audio(world.call(world.provider, phone))
    assert Endpoint(OUTSIDE, 5062) in signalling(world)


# Trunks

def test_a_declared_trunk_is_called_without_registering() -> None:
    """[[trunk]]: the provider reaches a PBX that never sent a packet."""
    world = World(trunks=(Trunk(inside=PHONE.host, peers=(PROVIDER.host,)),))
    leg = world.provider.invites(f"sip:4711@{OUTSIDE}", Endpoint(OUTSIDE, 5060))
    assert world.phone.last.uri == f"sip:4711@{PHONE.host}"
    world.assert_two_way_audio(world.answer(leg, world.phone))
    world.advance(100_000.0)
    again = world.provider.invites(f"sip:4711@{OUTSIDE}", Endpoint(OUTSIDE, 5060))
    assert again.delivery is not None
    assert again.delivery.arrived


# Routes

def test_a_proxy_that_record_routes(world: World) -> None:
    """The provider's proxy stays in the path: requests in the dialog go through it, both ways."""
    world.register(world.phone)
    proxy = f"<sip:{PROVIDER};lr>"
    world.provider.is_strict = False    # it is a proxy here: requests to others pass through it
    uri = world.registered_uri(world.phone)
    far = world.agent("far", Endpoint("198.51.100.50", 5060))
    leg = world.provider.begins("INVITE", uri, world.resolve_uri(uri), world.provider.sdp(),
                                {"Record-Route": proxy, "Contact": far.contact})
    callee = world.phone.accepts(world.phone.last)
    callee.answers()
    leg.sends("ACK")
    callee.sends("BYE")
    assert world.provider.last["route"] == proxy
    assert world.provider.last.uri == far.contact.strip("<>")


def test_an_inside_proxy_record_routes(world: World) -> None:
    """What an inside PBX writes of itself in Record-Route is shown outside and comes back in Route."""
    own_route = "<sip:192.168.1.10:5060;lr>"
    leg = world.phone.invites(world.provider.address, headers={"Record-Route": own_route})
    assert world.provider.last["record-route"] == f"<sip:{OUTSIDE}:5060;lr>"
    callee = world.provider.accepts(world.provider.last)
    callee.answers()
    assert world.phone.last["record-route"] == own_route
    leg.sends("ACK")
    callee.sends("BYE")
    assert world.phone.last["route"] == own_route


def test_path(world: World) -> None:
    """RFC 3327: the Path of an inside edge proxy is shown outside and echoed back restored."""
    leg = world.phone.registers(headers={"Path": "<sip:192.168.1.10:5060;lr>"})
    assert world.provider.last["path"] == f"<sip:{OUTSIDE}:5060;lr>"
    world.provider.replies(world.provider.last, 200, contact=world.provider.last["contact"],
                           headers={"Path": world.provider.last["path"],
                                    "Service-Route": f"<sip:{PROVIDER};lr>"})
    assert world.phone.last["path"] == "<sip:192.168.1.10:5060;lr>"
    assert world.phone.last["service-route"] == f"<sip:{PROVIDER};lr>"
    assert leg.final == 200


# Identities

def test_identities_in_a_dialog_are_shown_and_restored(world: World) -> None:
    """From with the phone's own address: rewritten, and given back in every message of the dialog."""
    world.phone.address = "sip:alice@192.168.1.10"
    leg = world.phone.invites(world.provider.address,
                              headers={"P-Preferred-Identity": "<sip:alice@192.168.1.10>"})
    assert "192.168.1.10" not in world.provider.last["from"] + world.provider.last["p-preferred-identity"]
    callee = world.provider.accepts(world.provider.last)
    callee.answers()
    leg.sends("ACK")
    callee.sends("BYE")
    assert "192.168.1.10" in world.phone.last["to"]


def test_an_address_of_record_at_the_own_address(world: World) -> None:
    """From and To of a REGISTER have no dialog to restore them: they are left alone."""
    world.phone.address = "sip:alice@192.168.1.10"
    delivery = world.phone.registers().delivery
    assert delivery is not None
    assert world.provider.last["from"].startswith("<sip:alice@192.168.1.10>")
    assert "identity" in delivery.rules()
