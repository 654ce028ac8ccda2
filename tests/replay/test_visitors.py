"""Visitors: who asked for whom, how it was answered, and who is a peer."""

from __future__ import annotations

from natfix.address import Endpoint
from natfix.replay.model import Context, Direction, NetworkView, Passage, Vantage
from natfix.replay.visitors import MOST_USERS, MOST_VISITORS, Visitors
from tests.replay.sip import PHONE, PROVIDER, record, request, response, sighting


def context() -> Context:
    return Context(NetworkView(("192.168.1.0/24",), "203.0.113.1", Vantage.INSIDE))


def passage(payload: bytes, source: Endpoint, destination: Endpoint, direction: Direction) -> Passage:
    return Passage([sighting(payload, source, destination)], direction)


def test_what_a_visitor_asked() -> None:
    """Methods, users, name and answers are counted; what belongs to a dialog is not."""
    ctx = context()
    visitors = Visitors(ctx)
    for payload in (
        request("REGISTER", to="<sip:100@x>", headers=("User-Agent: thing",)), request(uri="sip:101@x"),
        request("BYE"), request(to="<sip:bob@x>;tag=b"),
    ):
        visitors.note(passage(payload, PROVIDER, PHONE, Direction.INWARD))
    for status in (100, 404, 404):
        visitors.note(passage(response(status), PHONE, PROVIDER, Direction.OUTWARD))
    visitor = ctx.visitors[PROVIDER.host]
    assert visitor.requests == {"REGISTER": 1, "INVITE": 1}
    assert list(visitor.users) == ["100", "101"]
    assert visitor.answers == {404: 2}
    assert (visitor.user_agent, visitor.is_known) == ("thing", False)


def test_who_is_asked_is_known() -> None:
    """A host that an inside UA turns to is a peer; answers that it gives are not counted as its own."""
    ctx = context()
    visitors = Visitors(ctx)
    visitors.note(passage(request("REGISTER"), PHONE, PROVIDER, Direction.OUTWARD))
    visitors.note(passage(response(200, "REGISTER"), PROVIDER, PHONE, Direction.INWARD))
    assert ctx.visitors[PROVIDER.host].is_known
    assert ctx.visitors[PROVIDER.host].answers == {}


def test_repetitions_and_records_do_not_count() -> None:
    """A retransmission is no second request; without a message there is nothing to count."""
    ctx = context()
    visitors = Visitors(ctx)
    first = passage(request(), PROVIDER, PHONE, Direction.INWARD)
    again = passage(request(), PROVIDER, PHONE, Direction.INWARD)
    again.repeats = first
    for each in (first, again, Passage([record(PROVIDER, PHONE)], Direction.INWARD)):
        visitors.note(each)
    assert ctx.visitors[PROVIDER.host].requests == {"INVITE": 1}


def test_memory_is_bounded() -> None:
    """A flood from everywhere, for everybody, fills no memory."""
    ctx = context()
    visitors = Visitors(ctx)
    for number in range(MOST_VISITORS + 10):
        source = Endpoint(f"198.18.{number // 256}.{number % 256}", 5060)
        visitors.note(passage(request(uri="sip:1@x"), source, PHONE, Direction.INWARD))
    for number in range(MOST_USERS + 10):
        payload = request(uri=f"sip:{number}@x")
        visitors.note(passage(payload, Endpoint("198.18.0.0", 1), PHONE, Direction.INWARD))
    assert len(ctx.visitors) == MOST_VISITORS
    assert len(ctx.visitors["198.18.0.0"].users) == MOST_USERS


def test_nonsense_names_nobody() -> None:
    """A target that is no SIP URI, and a To that cannot be read, are no users."""
    ctx = context()
    visitors = Visitors(ctx)
    for payload in (request(uri="tel:+1555"), request("REGISTER", to="<<<")):
        visitors.note(passage(payload, PROVIDER, PHONE, Direction.INWARD))
    assert ctx.visitors[PROVIDER.host].users == {}
