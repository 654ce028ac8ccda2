"""Echoes: what a peer would have written in answer to natfix, place by place."""

from __future__ import annotations

from natfix.address import Endpoint
from natfix.edits import apply_edits
from natfix.replay.echoes import MOST_ENDPOINTS, Echoed, Known, counterfactual
from natfix.sip.message import message_from_bytes
from tests.replay.sip import MAPPED, OTHER_PHONE, OUTSIDE, PHONE, PROVIDER, TO, request, response

SHOWN = {("contact", "192.168.1.10:5060"): "203.0.113.1:5060", ("route", "192.168.1.10"): "203.0.113.1"}
ECHOED = Echoed(PHONE, OUTSIDE, frozenset({MAPPED}), "203.0.113.1:5060", SHOWN)


def changed(payload: bytes, echoed: Echoed = ECHOED) -> bytes:
    """Return *payload* as the peer would have written it, and check that the places are named."""
    echoes = counterfactual(message_from_bytes(payload), echoed)
    assert all(echo.header for echo in echoes)
    return apply_edits(payload, tuple(echo[:3] for echo in echoes))


def test_via_of_a_response() -> None:
    """The topmost Via comes back as natfix showed it, with the address and port that the peer saw."""
    wanted = response(via=OUTSIDE, seen_as=OUTSIDE)
    assert changed(response(via=PHONE, seen_as=MAPPED)) == wanted
    assert changed(response(via=MAPPED, seen_as=MAPPED)) == wanted
    assert changed(wanted) == wanted


def test_parameters_are_only_filled_where_they_are() -> None:
    """A peer that adds no ``received`` adds none to natfix's Via either."""
    assert changed(response(via=PHONE)) == response(via=OUTSIDE)


def test_via_of_an_unknown_request() -> None:
    """Where the request was not captured, the UA's own endpoint or its foreign one is put as natfix's."""
    unknown = ECHOED._replace(via="")
    assert changed(response(via=PHONE), unknown) == response(via=OUTSIDE)
    assert changed(response(via=MAPPED), unknown) == response(via=OUTSIDE)
    assert changed(response(via=OTHER_PHONE), unknown) == response(via=OTHER_PHONE)


def test_bindings() -> None:
    """A registrar lists what it was shown; other bindings of the AOR stay, as do other methods' Contacts."""
    def ok(contact: object, method: str = "REGISTER") -> bytes:
        return response(via=OUTSIDE, method=method, contact=f"sip:alice@{contact}")

    for written in (PHONE, MAPPED):
        assert changed(ok(written)) == ok(OUTSIDE)
    assert changed(ok(OTHER_PHONE)) == ok(OTHER_PHONE)
    assert changed(ok(PHONE, "INVITE")) == ok(PHONE, "INVITE")


def test_request_uri() -> None:
    """Requests go to the Contact that natfix has shown."""
    for host in (PHONE, MAPPED):
        bye = request("BYE", via=PROVIDER, contact="", uri=f"sip:alice@{host}", to=TO + ";tag=b")
        assert changed(bye) == bye.replace(f"alice@{host}".encode(), b"alice@203.0.113.1:5060")
    other = request("BYE", via=PROVIDER, contact="", uri="sip:alice@example.com")
    assert changed(other) == other


def test_route() -> None:
    """A Route that names the UA itself names what natfix showed in its Record-Route."""
    route = "Route: <sip:192.168.1.10;lr>, <sip:x.y;lr>"
    notify = request("NOTIFY", via=PROVIDER, contact="", headers=(route,))
    assert changed(notify) == notify.replace(b"<sip:192.168.1.10;lr>", b"<sip:203.0.113.1;lr>")


def test_what_was_never_shown_is_not_echoed() -> None:
    """Before natfix has shown a Contact, nobody can name it."""
    invite = request(via=PROVIDER, contact="", uri=f"sip:alice@{MAPPED}")
    assert changed(invite, ECHOED._replace(shown={})) == invite


def test_nonsense_changes_nothing() -> None:
    """Headers that cannot be read are left as they are, and stop no other rule."""
    raw = request(via=PROVIDER, contact="", uri="tel:+123", headers=('Route: <sip:"',))
    assert changed(raw) == raw


def test_known() -> None:
    """What was learned is found again: the asker of a transaction, the endpoint behind another NAT's."""
    known = Known()
    ask, answer = (message_from_bytes(raw) for raw in (request(), response()))
    known.sent(ask, PHONE, "203.0.113.1:5060")
    known.translated(PHONE, MAPPED)
    known.shown(PHONE, "contact", "192.168.1.10:5060", "203.0.113.1:5060")
    assert known.asked(answer) == (PHONE, "203.0.113.1:5060")
    assert known.behind(MAPPED) == PHONE
    echoed = known.echoed(answer, PHONE, OUTSIDE)
    assert (echoed.via, echoed.foreign) == ("203.0.113.1:5060", frozenset({MAPPED}))
    assert known.echoed(answer, OTHER_PHONE, OUTSIDE).via == ""
    assert known.asked(message_from_bytes(response(branch="z9hG4bK2"))) is None


def test_known_is_bounded() -> None:
    """Of too many endpoints the oldest is forgotten."""
    known = Known()
    for number in range(MOST_ENDPOINTS + 1):
        known.translated(Endpoint("192.168.1.10", number), Endpoint("203.0.113.1", number))
    assert known.behind(Endpoint("203.0.113.1", 0)) is None
    assert known.behind(Endpoint("203.0.113.1", 1)) is not None
