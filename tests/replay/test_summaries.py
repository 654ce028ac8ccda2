"""Summaries: rows of passages and conversations."""

from __future__ import annotations

from natfix.replay.conversations import Conversations
from natfix.replay.model import Passage, Repair
from natfix.replay.summaries import dialog_row, packet_ref, row_from_passage, summary_of
from tests.replay.sip import MAPPED, PHONE, PROVIDER, TO, record, request, response, sighting
from tests.replay.small import finding


def test_one_line_per_message() -> None:
    """A request says its target, a response its status and method, a record its length."""
    assert summary_of(sighting(request(), PHONE, PROVIDER)) == "INVITE sip:bob@example.com"
    assert summary_of(sighting(response(), PROVIDER, PHONE)) == "200 Reason (INVITE)"
    assert summary_of(record(PHONE, PROVIDER, length=502)) == "UDP, 502 octets, header only"
    broken = sighting(request(), PHONE, PROVIDER)
    broken.message, broken.problem = None, "two CSeqs"
    assert summary_of(broken) == "unreadable: two CSeqs"
    assert len(summary_of(sighting(request(uri="sip:" + "x" * 5000), PHONE, PROVIDER))) < 400


def test_the_row_is_of_the_copy_that_was_shown() -> None:
    """Of two copies the row has the one that natfix was shown, with its packet, and all packets' numbers."""
    inner = sighting(request(), PHONE, PROVIDER, number=1)
    outer = sighting(request(via=MAPPED), MAPPED, PROVIDER, number=2)
    passage = Passage([inner, outer], repair=Repair(outer.payload, b"after"))
    row = row_from_passage(passage)
    assert (row.seen_source, row.before, row.datagram) == (MAPPED, outer.payload, outer.ip)
    assert [packet_ref(packet) for packet in row.packets] == [1, 2]


def test_what_was_cut_has_no_datagram() -> None:
    """There is nothing to be repaired in a packet that is not whole, nor in TCP's."""
    for sort in (sighting(request(), PHONE, PROVIDER, cut=True),
                 sighting(request(), PHONE, PROVIDER, transport="tcp")):
        assert row_from_passage(Passage([sort], repair=Repair(sort.payload, sort.payload))).datagram == b""


def test_a_dialog_says_how_it_went() -> None:
    """Of several attempts with credentials the last one's answer counts; ACK and CANCEL are no attempts."""
    conversations = Conversations()
    for number, payload in enumerate((
        request(), response(407), request("ACK", contact=""),
        request(branch="z9hG4bK2", cseq=2), response(486, branch="z9hG4bK2", cseq=2),
        request("BYE", branch="z9hG4bK3", cseq=3, to=TO + ";tag=b"),
    ), 1):
        conversations.add(Passage([sighting(payload, PHONE, PROVIDER, float(number), number)]))
    (held,) = conversations.rest()
    row = dialog_row(held.conversation, [finding(code="D05"), finding(), finding()], left_out=4)
    assert (row["method"], row["status"], row["messages"]) == ("INVITE", 486, 10)
    assert (row["start"], row["end"], row["packets"]) == (1.0, 6.0, [1, 6])
    assert row["findings"] == ["D01", "D05"]


def test_a_dialog_of_which_only_the_end_was_seen() -> None:
    """An ACK alone is a dialog, too."""
    conversations = Conversations()
    conversations.add(Passage([sighting(request("ACK"), PHONE, PROVIDER)]))
    (held,) = conversations.rest()
    row = dialog_row(held.conversation, [])
    assert (row["method"], row["status"]) == ("ACK", 0)
