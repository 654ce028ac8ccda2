"""Ladder diagrams: who stands where, what was captured, what natfix makes of it, and what else happened."""

from __future__ import annotations

from itertools import pairwise

import pytest

from natfix.address import Endpoint
from natfix.commands import Note
from natfix.replay import ladder as ladders
from natfix.replay.ladder import Arrow, Ladder, Rung, ladder_of, ladder_of_records
from natfix.replay.model import Conversation, PacketId, Side
from natfix.replay.result import Result
from tests.replay.scenes_of_reports import (
    AUDIO,
    FAR_AUDIO,
    broken_by_alg,
    hostile,
    icmp,
    one_way,
    result_of,
    stream,
)
from tests.replay.sip import OTHER_PHONE, PHONE, PROVIDER, article, request, response, sighting
from tests.replay.small import START, call


def ladder(result: Result) -> Ladder:
    return ladder_of(result.conversations[0], result.network)


def messages(result: Result) -> list[Rung]:
    return [rung for rung in ladder(result).rungs if rung.kind == "message"]


def looks(arrows: tuple[Arrow, ...]) -> list[str]:
    return [arrow.look for arrow in arrows]


def test_columns_are_inside_gateway_outside() -> None:
    """An inside UA, the gateway with its address, and the peer, from left to right."""
    columns = ladder(result_of(call())).columns
    assert [(column.role, column.names) for column in columns] == [
        ("inside", ("192.168.1.10",)), ("gateway", ("203.0.113.1",)), ("outside", ("198.51.100.20",))]
    assert all(one.x < other.x for one, other in pairwise(columns))


def test_agents_are_named() -> None:
    """A column says what the host calls itself."""
    invite = request(headers=("User-Agent: Phone/1",))
    columns = ladder(result_of([sighting(invite, PHONE, PROVIDER)])).columns
    assert columns[0].agent == "Phone/1"


def test_what_was_not_captured_is_told_apart() -> None:
    """A capture from inside shows each message up to the gateway, and dots beyond."""
    invite, _, answer, *_ = messages(result_of(call()))
    assert looks(invite.captured) == ["seen", "unseen"]
    assert looks(answer.captured) == ["unseen", "seen"]
    assert [arrow.label for arrow in invite.captured] == ["INVITE · SDP", ""]
    assert invite.captured[0].end == invite.captured[1].start


def test_both_sides() -> None:
    """Captured on both sides, both halves are there, with the ports where they are not 5060."""
    invite = messages(broken_by_alg())[0]
    assert looks(invite.captured) == ["seen", "seen"]
    assert [arrow.note for arrow in invite.captured] == ["", "40625 → 5060"]
    assert [arrow.label for arrow in invite.captured] == ["INVITE · SDP", ""]


def test_natfix_changes_the_far_half() -> None:
    """Up to the gateway it is as captured; behind it stands what natfix changed."""
    invite, _, answer, *_, bye = messages(result_of(call()))
    assert looks(invite.repaired) == ["seen", "changed"]
    assert invite.repaired[1].label == "Via, Contact, SDP"
    assert answer.repaired[1].end == invite.repaired[0].start
    assert looks(bye.repaired) in (["seen", "same"], ["seen", "changed"])


def test_names_of_many_headers() -> None:
    """Where there is no room for all names, the number of the others is told; Content-Length goes unnamed."""
    notes = [Note("x", name, "1", "2") for name in ("Via", "Contact", "c=", "m=", "Content-Length", "Route")]
    assert ladders.changed(notes) == "Via, Contact, SDP, Route"
    more = [Note("x", name, "1", "2") for name in ("P-Asserted-Identity", "Record-Route", "Path")]
    assert ladders.changed([*notes, *more]) == "Via, Contact, SDP, Route +3"


def test_retransmissions_and_responses() -> None:
    """A retransmission is marked; responses to other methods than the first name theirs."""
    result = result_of([*call(), sighting(response(method="BYE", via=PROVIDER, branch="z9hG4bK1b", cseq=2),
                                          PHONE, PROVIDER, START + 60.1, 9)])
    rungs = messages(result)
    assert [rung.is_repeat for rung in rungs] == [False, True, False, False, False, False]
    assert [rung.label for rung in rungs][-1] == "200 Reason (BYE)"


def test_drops() -> None:
    """What natfix does not let through ends at the gateway."""
    result = result_of(call())
    repair = result.conversations[0].passages[0].repair
    assert repair is not None
    repair.dropped = "policy"
    (arrow,) = messages(result)[0].repaired
    assert (arrow.look, arrow.label) == ("dropped", "not let through")


def test_not_shown_to_natfix() -> None:
    """TCP passes natfix by: nothing is claimed of it."""
    result = result_of([sighting(request(), PHONE, PROVIDER, transport="tcp")])
    assert not ladder(result).has_repairs
    assert looks(messages(result)[0].repaired) == ["aside", "aside"]


def test_between_inside_hosts() -> None:
    """A call that does not cross the gateway goes straight, without a gateway's column."""
    result = result_of([sighting(request(), PHONE, OTHER_PHONE)])
    assert [column.role for column in ladder(result).columns] == ["inside", "inside"]
    assert looks(messages(result)[0].captured) == ["seen"]


def test_media_icmp_and_pauses() -> None:
    """The ladder shows when media begins, which ICMP errors came, and where nothing happened for long."""
    rungs = ladder(one_way()).rungs
    assert [rung.kind for rung in rungs] == [
        "message", "message", "message", "message", "media", "icmp", "pause", "message"]
    media, error, pause = rungs[4], rungs[5], rungs[6]
    assert media.captured[0].label == "RTP begins"
    assert media.captured[0].end == ladder(one_way()).columns[1].x, "seen inside, it has not crossed yet"
    assert error.captured[0].label == "ICMP port-unreachable"
    assert pause.label == "57.0 s later"


def test_media_of_hosts_that_send_nothing_else() -> None:
    """A media server without a column stands with the others of its side, or gets the first one there."""
    inside_only = result_of([sighting(request(), PHONE, OTHER_PHONE)])
    conversation = inside_only.conversations[0]
    conversation.streams = [stream(AUDIO, FAR_AUDIO, START, 5)]
    found = ladder_of(conversation, inside_only.network)
    assert [column.role for column in found.columns] == ["inside", "inside", "outside"]


def test_headers_only_with_stages() -> None:
    """The Check Point article: the port changes from stage to stage, and the answer goes nowhere."""
    result = result_of(article())
    assert result.context is not None
    found = ladder_of_records(result.context.records, result.network)
    request_rung, answer = found.rungs
    assert request_rung.captured[0].note == "5060, then 17973 → 5060"
    assert request_rung.captured[1].note == "40625 → 5060"
    assert answer.captured[1].note == "5060 → 17973"
    assert not found.has_repairs


def test_many_hosts_share_columns() -> None:
    """A scan over a hundred peers does not make a hundred columns; a message between two of them is seen."""
    peers = [Endpoint(f"198.51.100.{number}", 5060) for number in range(1, 101)]
    result = result_of(sighting(request(branch=f"z9hG4bK{number}"), PHONE, peer, START + number, number)
                       for number, peer in enumerate(peers, 1))
    found = ladder(result)
    assert len(found.columns) == 1 + 1 + ladders.MOST_HOSTS
    assert found.columns[-1].names[-1] == "198.51.100.100"
    assert all(rung.captured for rung in found.rungs if rung.kind == "message")


@pytest.mark.parametrize("count", [ladders.MOST_RUNGS, ladders.MOST_RUNGS + 7])
def test_long_calls_are_cut(count: int) -> None:
    """Of a call with very many messages the first ones are shown, and the others counted."""
    passages = result_of(call()).conversations[0].passages
    conversation = Conversation("1", (passages * count)[:count])
    found = ladder_of(conversation, result_of(call()).network)
    assert sum(rung.kind == "message" for rung in found.rungs) == ladders.MOST_RUNGS
    assert found.left_out == count - ladders.MOST_RUNGS


def test_hostile_labels_are_short() -> None:
    """Whatever a reason phrase or an ICMP error says, no label is long."""
    labels = [arrow.label for rung in ladder(hostile()).rungs for arrow in rung.captured]
    assert max(map(len, labels)) <= ladders.MOST_LABEL + 12


def test_icmp_errors_alike() -> None:
    """A host that complains of each packet is one rung, with their number, on the side where it was seen."""
    result = one_way()
    conversation = result.conversations[0]
    conversation.errors = [icmp(90 + number, START + 3 + number / 50) for number in range(100)]
    found = ladder_of(conversation, result.network)
    (rung,) = (rung for rung in found.rungs if rung.kind == "icmp")
    assert rung.captured[0].label == "ICMP port-unreachable (100 times)"
    assert rung.captured[0].end == found.columns[1].x


def test_icmp_of_unknown_hosts() -> None:
    """An error whose sender has no column is a rung without an arrow, with its text."""
    result = result_of(call())
    conversation = result.conversations[0]
    conversation.errors = [icmp()]
    assert any(rung.kind == "icmp" and rung.packets == (PacketId(90),)
               for rung in ladder_of(conversation, result.network).rungs)
    assert result.network.side_of(PHONE.host) is Side.INSIDE
