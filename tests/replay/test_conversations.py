"""Conversations: transactions, retransmissions, media, stations; and bounds."""

from __future__ import annotations

import pytest

from natfix.address import Endpoint
from natfix.replay import conversations as module
from natfix.replay.conversations import Conversations, Held, MediaIndex, Stations, registered
from natfix.replay.model import (
    Context,
    Conversation,
    IcmpError,
    MediaKind,
    NetworkView,
    PacketId,
    Passage,
    Side,
    Sighting,
    Stream,
)
from natfix.replay.network import direction_of, side_of_copy
from tests.replay.sip import MAPPED, OTHER_PHONE, PHONE, PROVIDER, TO, audio, request, response, sighting

VIEW = NetworkView(("192.168.1.0/24",), MAPPED.host)
RTP, FAR_RTP = Endpoint(PHONE.host, 12000), Endpoint("198.51.100.21", 40000)


def passage(*sightings: Sighting) -> Passage:
    for each in sightings:
        each.side = side_of_copy(VIEW, each.source.host, each.destination.host)
    ends = sightings[0].source.host, sightings[-1].destination.host
    return Passage([*sightings], direction_of(VIEW, *ends))


def out(payload: bytes, time: float = 1.0, number: int = 1) -> Passage:
    return passage(sighting(payload, PHONE, PROVIDER, time, number))


def back(payload: bytes, time: float = 1.0, number: int = 1) -> Passage:
    return passage(sighting(payload, PROVIDER, PHONE, time, number))


def collected(*passages: Passage) -> Held:
    conversations = Conversations()
    for each in passages:
        assert conversations.add(each) is not None
    (held,) = conversations.rest()
    return held


def shape(conversation: Conversation) -> list[tuple[str, int, int]]:
    return [(each.method, len(each.requests), len(each.responses)) for each in conversation.transactions]


def test_transactions() -> None:
    """The ACK to a failure belongs to its INVITE, the one to a 2xx does not; CANCEL is by itself."""
    conversation = collected(
        out(request()), back(response(407)), out(request("ACK", contact="")),
        out(request(branch="z9hG4bK2", cseq=2)),
        out(request("CANCEL", branch="z9hG4bK2", cseq=2, contact="")),
        back(response(branch="z9hG4bK2", cseq=2)),
        out(request("ACK", branch="z9hG4bK3", cseq=2, contact="", to=TO + ";tag=b")),
    ).conversation
    assert shape(conversation) == [("INVITE", 2, 1), ("INVITE", 1, 1), ("CANCEL", 1, 0), ("ACK", 1, 0)]
    assert conversation.is_call
    final = conversation.transactions[0].final
    assert final is not None
    assert final.message is not None
    assert final.message.status == 407


def test_transactions_without_magic_cookie() -> None:
    """Before RFC 3261 a transaction is known by CSeq and tags."""
    conversation = collected(
        out(request(branch="x")), back(response(branch="x")), out(request(branch="x", cseq=2))).conversation
    assert shape(conversation) == [("INVITE", 1, 1), ("INVITE", 1, 0)]


def test_retransmissions() -> None:
    """The same bytes on the same way repeat the first passage; another message does not."""
    first, again, ringing = out(request()), out(request(), 1.5), back(response(180))
    collected(first, again, ringing, late := back(response(180), 2.0), other := back(response(183), 2.1))
    assert (first.repeats, again.repeats, ringing.repeats) == (None, first, None)
    assert (late.repeats, other.repeats) == (ringing, None)


def test_unreadable_messages_are_in_no_conversation() -> None:
    """What has no Call-ID that could be trusted is not collected."""
    broken = sighting(request(), PHONE, PROVIDER)
    broken.message = None
    assert Conversations().add(passage(broken)) is None


def test_a_flood_with_one_call_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one Call-ID only so many passages are held; the others are counted."""
    monkeypatch.setattr(module, "MOST_PER_CALL", 3)
    conversations = Conversations()
    kept = [conversations.add(out(request(cseq=number + 1))) for number in range(5)]
    assert [each is not None for each in kept] == [True, True, True, False, False]
    (held,) = conversations.rest()
    assert (len(held.conversation.passages), held.left_out) == (3, 2)


def test_what_is_over_retires_first() -> None:
    """When too much is held, first goes what is over, then what has been idle longest."""
    conversations = Conversations(most_octets=12_000)
    conversations.add(out(request(call_id="call", sdp=audio(RTP))))
    conversations.add(back(response(call_id="call", sdp=audio(RTP))))
    for number in range(3):
        conversations.add(out(request("OPTIONS", call_id=f"{number}", branch=f"z9hG4bK{number}")))
    conversations.add(back(response(method="OPTIONS", call_id="1", branch="z9hG4bK1")))
    conversations.add(out(request("OPTIONS", call_id="3", branch="z9hG4bK3")))
    gone = [held.conversation.call_id for held in conversations.retired()]
    assert gone == ["1", "call"]
    assert conversations.add(out(request("BYE", call_id="call", cseq=2, contact=""))) is not None
    rest = {held.conversation.call_id: held.is_remainder for held in conversations.rest()}
    assert rest.pop("call")
    assert not any(rest.values())
    assert [*conversations.rest()] == []


@pytest.mark.parametrize(("payloads", "is_over"), [
    ([request()], False), ([request(), response()], False), ([request(), response(407)], True),
    ([request(), response(407), request("ACK", contact="")], True),
    ([request(), response(407), request(branch="z9hG4bK2", cseq=2)], False),
    ([request(), response(), request("ACK", branch="z9hG4bK2", contact="")], False),
    ([request("BYE", contact=""), response(method="BYE")], True),
    ([request("SUBSCRIBE"), response(method="SUBSCRIBE")], False),
    ([request("REGISTER"), response(method="REGISTER")], True),
])
def test_over(payloads: list[bytes], is_over: bool) -> None:
    """A conversation is over with the answer to BYE, to a request outside of dialogs, or a failure."""
    conversations = Conversations()
    for payload in payloads:
        conversations.add(out(payload))
    assert ("1" in conversations._over) is is_over


def stream(source: Endpoint, destination: Endpoint, start: float = 2.0, end: float = 10.0) -> Stream:
    return Stream(MediaKind.RTP, "", Side.INSIDE, source, destination, 1, {0}, start, end, PacketId(5),
                  PacketId(9))


def test_media_is_attached() -> None:
    """Streams at the SDP's endpoints, RTCP next to them, and where NAT shows them, in the call's time."""
    inner = sighting(request(sdp=audio(RTP)), PHONE, PROVIDER)
    outer = sighting(request(sdp=audio(RTP)), MAPPED, PROVIDER, interface="wan")
    held = collected(passage(inner, outer), back(response(sdp=audio(FAR_RTP)), 60.0))
    wanted = [
        stream(RTP, FAR_RTP), stream(Endpoint(FAR_RTP.host, 40001), Endpoint(RTP.host, 12001)),
        stream(Endpoint("198.51.100.99", 7), Endpoint(MAPPED.host, 12000)),
        stream(FAR_RTP, PROVIDER, 61.0, 90.0),
    ]
    others = [stream(Endpoint(RTP.host, 14000), PROVIDER), stream(RTP, FAR_RTP, 1000.0, 1010.0)]
    MediaIndex([*wanted, *others], []).attach(held)
    assert {id(each) for each in held.conversation.streams} == {id(each) for each in wanted}


@pytest.mark.parametrize("last", [request("BYE", contact=""), response(480)], ids=["BYE", "480"])
def test_the_next_call_has_media_of_its_own(last: bytes) -> None:
    """Phones use their ports again: what is before a call, or begins when that has ended, is another's."""
    held = collected(
        out(request(sdp=audio(RTP))), back(response(183, sdp=audio(FAR_RTP)), 5.0), back(last, 60.0))
    own, late = stream(RTP, FAR_RTP, 5.0, 90.0), stream(RTP, FAR_RTP, 70.0, 90.0)
    earlier = stream(RTP, FAR_RTP, -50.0, -1.0)
    MediaIndex([own, late, earlier], []).attach(held)
    assert held.conversation.streams == [own]


def test_errors_are_attached() -> None:
    """ICMP errors about a conversation's packets or media are its own; others are not."""
    held = collected(out(request(sdp=audio(RTP))), back(response(), 30.0))

    def error(source: Endpoint, destination: Endpoint, time: float = 5.0) -> IcmpError:
        return IcmpError((PacketId(7),), time, "", Side.INSIDE, PHONE.host, "port-unreachable", "udp", source,
                         destination)

    wanted = [error(PROVIDER, PHONE), error(FAR_RTP, RTP, 6.0)]
    others = [error(PROVIDER, OTHER_PHONE), error(PROVIDER, PHONE, 5000.0)]
    MediaIndex([], [*wanted, *others]).attach(held)
    assert held.conversation.errors == wanted




def register(number: int = 1, seen_as: Endpoint = MAPPED, status: int = 200) -> list[Passage]:
    branch, time = f"z9hG4bK{number}", float(number)
    ask = request("REGISTER", branch=branch, cseq=number)
    contact = "sip:alice@192.168.1.10:5060" if status == 200 else ""
    answer = response(
        status, "REGISTER", branch=branch, cseq=number, seen_as=seen_as, contact=contact, expires=300)
    inner = sighting(ask, PHONE, PROVIDER, time, 10 * number)
    outer = sighting(ask, seen_as, PROVIDER, time, 10 * number + 1, interface="wan")
    return [passage(inner, outer), back(answer, time + 0.1, 10 * number + 2)]


def test_registered() -> None:
    """A row says what was asked, granted, echoed, and how the registrar saw the phone."""
    row = registered(collected(*register()).conversation.transactions[0])
    assert (row.aor, row.source, row.status, row.expires) == ("bob@example.com", PHONE, 200, 300)
    assert (row.received, row.rport, row.seen_as) == (MAPPED.host, MAPPED.port, MAPPED)
    assert row.contacts == ("sip:alice@192.168.1.10:5060",)
    assert row.echoed == ("sip:alice@192.168.1.10:5060",)
    assert [packet.number for packet in row.packets] == [10, 12]


def test_registered_without_answer() -> None:
    """Where no answer was seen, or a challenge, nothing was granted."""
    asked = registered(collected(register()[0]).conversation.transactions[0])
    assert (asked.status, asked.expires, asked.received, asked.rport) == (0, None, "", None)
    refused = registered(collected(*register(status=401)).conversation.transactions[0])
    assert (refused.status, refused.expires, refused.echoed) == (401, None, ())


def test_stations() -> None:
    """A station knows its registrations, and when it last spoke to and heard each peer."""
    context = Context(VIEW)
    stations = Stations(context)
    passages = [*register(1), *register(2)]
    for each in passages:
        stations.note(each)
    stations.note_registrations(collected(*passages).conversation)
    (station,) = context.stations.values()
    assert (station.endpoint, station.side) == (PHONE, Side.INSIDE)
    assert [row.time for row in station.registrations] == [1.0, 2.0]
    assert station.sent_last == {PROVIDER: (2.0, PacketId(20))}
    assert station.heard_last == {PROVIDER: (2.1, PacketId(22))}


def test_stations_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan from inside makes only so many stations; the others are counted."""
    monkeypatch.setattr(module, "MOST_STATIONS", 2)
    context = Context(VIEW)
    stations = Stations(context)
    for number in range(4):
        stations.note(passage(sighting(request(), Endpoint(PHONE.host, 6000 + number), PROVIDER)))
    assert len(context.stations) == 2
    assert stations.left_out == 2
