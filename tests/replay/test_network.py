"""Network: inside, outside and vantage, from what packets say together."""

from __future__ import annotations

import pytest

from natfix.address import Endpoint
from natfix.replay.model import Direction, NetworkView, Side, Sighting, Vantage
from natfix.replay.network import Evidence, Given, direction_of, infer, is_private, is_public, side_of_copy
from natfix.replay.stages import Meetings
from tests.replay.sip import (
    MAPPED,
    OTHER_PHONE,
    OUTSIDE,
    PHONE,
    PROVIDER,
    article,
    request,
    response,
    sighting,
)

CLIENT = Endpoint("198.51.100.77", 5060)        # somebody else's public address


def view_of(*sightings: Sighting, given: Given | None = None) -> NetworkView:
    evidence, meetings = Evidence(), Meetings()
    for each in sightings:
        evidence.note(each)
        meetings.note(each)
    return infer(evidence, meetings.found, given or Given())


def facts(view: NetworkView) -> tuple[tuple[str, ...], str, Vantage]:
    return view.inside, view.outside, view.vantage


def test_private_and_public() -> None:
    """Documentation prefixes stand for public ones; loopback and multicast are neither."""
    assert all(map(is_private, ("10.1.2.3", "100.64.0.1", "fd00::1", "169.254.1.1")))
    assert all(map(is_public, ("8.8.8.8", "203.0.113.1", "2001:db8::1")))
    neither = ("127.0.1.1", "224.0.0.1", "a.b.c.d", "x.y")
    assert not any(is_private(host) or is_public(host) for host in neither)


def test_one_packet_on_both_sides() -> None:
    """What one packet's source became is the outside address."""
    view = view_of(sighting(request(), PHONE, PROVIDER, interface="lan"),
                   sighting(request(), MAPPED, PROVIDER, 1.1, 2, interface="wan"))
    assert facts(view) == (("192.168.1.0/24",), MAPPED.host, Vantage.BOTH)
    assert "192.168.1.10 became 203.0.113.1" in view.guesses[0]
    assert "(packet 1)" in view.guesses[0]


def test_all_interfaces() -> None:
    """A capture of Linux's "any" names interfaces, and says which packets left."""
    came = sighting(request(), PHONE, PROVIDER, interface="interface 1")
    left = sighting(request(), MAPPED, PROVIDER, 1.0, 2, interface="interface 2")
    came.outgoing, left.outgoing = False, True
    assert facts(view_of(came, left)) == (("192.168.1.0/24",), MAPPED.host, Vantage.ANY)


def test_an_answer_on_both_sides() -> None:
    """What one packet's destination was before is the outside address."""
    view = view_of(sighting(response(), PROVIDER, MAPPED), sighting(response(), PROVIDER, PHONE, 1.1, 2))
    assert facts(view) == (("192.168.1.0/24",), MAPPED.host, Vantage.ANY)


def test_both_realms_private() -> None:
    """A NAT between private networks is found by the copies, and no prefix covers both."""
    phone, nat, server = (Endpoint(f"10.0.0.{number}", 5060) for number in (10, 200, 201))
    view = view_of(sighting(request(), phone, server), sighting(request(), nat, server, 1.1, 2))
    assert facts(view) == (("10.0.0.0/26",), nat.host, Vantage.ANY)


def test_received_from_inside() -> None:
    """A private host that is told another ``received`` is inside; that address is outside."""
    view = view_of(sighting(request(), PHONE, PROVIDER),
                   sighting(response(seen_as=MAPPED), PROVIDER, PHONE, 1.1, 2))
    assert facts(view) == (("192.168.1.0/24",), MAPPED.host, Vantage.INSIDE)


def test_private_talks_to_public() -> None:
    """Without any echo the inside is known, the outside address is not, and that is said."""
    view = view_of(sighting(request(), PHONE, PROVIDER), sighting(request(branch="z2"), OTHER_PHONE, PHONE))
    assert facts(view) == (("192.168.1.0/24",), "", Vantage.INSIDE)
    assert "--outside" in view.guesses[-1]


def test_contact_names_the_outside() -> None:
    """A private host whose Contact is public has learned its outside address."""
    view = view_of(sighting(request(contact=MAPPED), PHONE, PROVIDER))
    assert view.outside == MAPPED.host


def test_seen_from_outside() -> None:
    """A private Via from a public source is a UA behind that source's NAT."""
    view = view_of(sighting(request(), MAPPED, PROVIDER),
                   sighting(response(seen_as=MAPPED), PROVIDER, MAPPED, 2.0, 2))
    assert facts(view) == (("192.168.1.0/24",), MAPPED.host, Vantage.OUTSIDE)


def test_several_sites_seen_from_outside() -> None:
    """Of several NATs the one with most packets is meant; the others are mentioned."""
    view = view_of(sighting(request(), MAPPED, PROVIDER), sighting(request(cseq=2), MAPPED, PROVIDER),
                   sighting(request(via=OTHER_PHONE, branch="z9"), CLIENT, PROVIDER))
    assert view.outside == MAPPED.host
    assert any(CLIENT.host in guess for guess in view.guesses)


def test_a_remote_phone_behind_its_own_nat() -> None:
    """A private PBX that serves remote phones is inside; their NATs are not its own."""
    pbx = Endpoint("10.0.0.5", 5060)
    view = view_of(sighting(request(), MAPPED, pbx), sighting(response(seen_as=MAPPED), pbx, MAPPED, 2.0, 2))
    assert view.inside == ("10.0.0.0/24",)
    assert view.outside == ""


def test_a_host_with_two_addresses_is_no_nat() -> None:
    """Another address of the same site in Via, loopback, or a host that is seen itself prove no NAT."""
    for via in (Endpoint("192.168.2.10", 5060), Endpoint("127.0.1.1", 5060), PROVIDER):
        view = view_of(sighting(request(via=via), PHONE, OTHER_PHONE))
        assert facts(view) == (("192.168.1.0/24",), "", Vantage.INSIDE)
        assert "no NAT" in view.guesses[0]


def test_nobody_is_inside() -> None:
    """Public hosts among themselves have no NAT to be fixed."""
    view = view_of(sighting(request(via=CLIENT), CLIENT, PROVIDER))
    assert facts(view) == ((), "", Vantage.OUTSIDE)


def test_the_operator_knows_better() -> None:
    """--inside and --outside stand above every guess, and the sentences say so."""
    view = view_of(sighting(request(), PHONE, PROVIDER), sighting(response(seen_as=MAPPED), PROVIDER, PHONE),
                   given=Given(("198.51.100.0/24",), "192.0.2.7"))
    assert facts(view) == (("198.51.100.0/24",), "192.0.2.7", Vantage.INSIDE)
    assert [guess for guess in view.guesses if "as given" in guess] == view.guesses


def test_masked_addresses() -> None:
    """The letters of a pasted fw monitor text are placed by the stages."""
    view = view_of(*article())
    assert [view.side_of(host) for host in ("a.b.c.d", "w.x.y.z", "n.n.n.n")] == [
        Side.INSIDE, Side.OUTSIDE, Side.OUTSIDE]
    assert (view.outside, view.vantage) == ("n.n.n.n", Vantage.BOTH)


def test_sides_of_copies_and_directions() -> None:
    """A copy with an inside address was taken inside; for the way, the outside address is ours."""
    view = NetworkView(("192.168.1.0/24",), MAPPED.host)
    phone, nat, provider, other = PHONE.host, MAPPED.host, PROVIDER.host, OTHER_PHONE.host
    assert side_of_copy(view, phone, provider) is side_of_copy(view, provider, phone) is Side.INSIDE
    assert side_of_copy(view, nat, provider) is side_of_copy(view, provider, CLIENT.host) is Side.OUTSIDE
    assert side_of_copy(view, "x", provider) is Side.UNKNOWN
    assert direction_of(view, phone, provider) is direction_of(view, nat, provider) is Direction.OUTWARD
    assert direction_of(view, provider, nat) is Direction.INWARD
    assert direction_of(view, phone, other) is direction_of(view, phone, nat) is Direction.INTERNAL
    assert direction_of(view, provider, CLIENT.host) is Direction.EXTERNAL
    assert direction_of(view, "x", nat) is Direction.UNKNOWN


@pytest.mark.parametrize("host", ["", "x" * 300, "1.2.3", "::gg", "1.2.3.4.5", "\x00"])
def test_nonsense_is_nobody(host: str) -> None:
    """Whatever stands in a header, it is an address or it is not."""
    assert not is_private(host)
    assert not is_public(host)
    assert NetworkView(("192.168.1.0/24",)).side_of(host) is Side.UNKNOWN


def test_evidence_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan of the whole Internet fills no memory."""
    monkeypatch.setattr("natfix.replay.network.MOST", 10)
    evidence = Evidence()
    for number in range(100):
        evidence.note(sighting(request(), Endpoint(f"198.51.100.{number}", 5060), OUTSIDE))
    assert len(evidence.pairs) == 10
    assert len(evidence.hidden.counts) == len(evidence.hidden.first) == 10
