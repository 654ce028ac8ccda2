"""Pins one relayed connection, segment by segment: what goes on, and what natfix says itself."""

from __future__ import annotations

import struct

import pytest

from natfix.segment import (
    ACK,
    CWR,
    ECE,
    MASK,
    PSH,
    RST,
    URG,
    options_by_kind,
    timestamps_in,
)
from natfix.stream import (
    FAIR_SHARE,
    LARGEST_WINDOW,
    MOST_LOAD,
    Budget,
    State,
)
from tests.stream_talk import (
    ANSWER,
    GROWN,
    PHONE_ISN,
    REGISTER,
    SIZE,
    TREATED,
    WINDOW,
    Talk,
    numbers,
    same,
    stamps,
    to_sip,
    treat,
)

# -- messages -----------------------------------------------------------------------------------

def test_what_is_not_changed_goes_on_as_it_came() -> None:
    """Not an octet of packet or option differs, and natfix says nothing itself."""
    talk = Talk(same)
    for talking in (lambda: talk.phone(0), lambda: talk.phone(0, REGISTER, flags=PSH | ACK),
                    lambda: talk.pbx(0, b"", SIZE), lambda: talk.pbx(0, ANSWER, SIZE),
                    lambda: talk.phone(SIZE, b"\r\n\r\n", len(ANSWER))):
        talking()
        assert talk.as_it_came
        assert talk.own == []
    assert talk.stream.state is State.SIP
    assert not talk.stream.is_shifted


def test_a_changed_message_rides_on_its_packet() -> None:
    """From there on the ends' numbers differ, and each is told its own."""
    talk = Talk()
    wire = talk.phone(0, REGISTER, flags=PSH | ACK)
    assert (numbers(wire), wire and wire.payload, talk.own) == ((0, 0), TREATED, [])
    assert numbers(talk.pbx(0, b"", GROWN)) == (0, SIZE)
    wire = talk.pbx(0, ANSWER, GROWN)
    assert (numbers(wire), wire and wire.payload) == ((0, SIZE), ANSWER)
    assert numbers(talk.phone(SIZE, b"", len(ANSWER))) == (GROWN, len(ANSWER))
    wire = talk.phone(SIZE, REGISTER, len(ANSWER))
    assert (numbers(wire), wire and wire.payload) == ((GROWN, len(ANSWER)), TREATED)


def test_a_part_is_acknowledged_and_held() -> None:
    """Its sender could send no further before that; the whole goes with the packet that completes it."""
    talk = Talk()
    for at in range(SIZE - 1):
        assert talk.phone(at, REGISTER[at:at + 1]) is None
        assert talk.own == [(0, at + 1, ACK, b"")]
    wire = talk.phone(SIZE - 1, REGISTER[-1:])
    assert (numbers(wire), wire and wire.payload, talk.own) == ((0, 0), TREATED, [])


def test_several_messages_in_one_segment() -> None:
    """Each is treated; the last part waits."""
    talk = Talk()
    wire = talk.phone(0, REGISTER + b"\r\n" + REGISTER + REGISTER[:20])
    assert wire is not None
    assert wire.payload == TREATED + b"\r\n" + TREATED
    assert talk.own == []
    assert numbers(talk.pbx(0, b"", 2 * GROWN + 2)) == (0, 2 * SIZE + 22)


def test_a_message_that_outgrows_its_segment_goes_in_two() -> None:
    """No segment is longer than the sink's MSS, or than what the path has shown to bear."""
    talk = to_sip()
    big = b"MESSAGE sip:x SIP/2.0\r\nl: 900\r\n\r\n" + b"sip:inside" * 90
    wire = talk.phone(SIZE, big)
    grown = treat(True, big) or b""
    assert wire is not None
    assert wire.payload == grown[:len(big)]
    assert talk.own == [(GROWN + len(big), 0, ACK | PSH, grown[len(big):])]


def test_a_packet_that_grew_may_be_fragmented() -> None:
    """The path's MTU was that of a smaller one; identifications differ."""
    talk = Talk()
    first = talk.phone(0, REGISTER)
    second = talk.phone(SIZE, REGISTER)
    assert first is not None
    assert second is not None
    assert (first.fragment, second.fragment) == (0, 0)
    assert first.identification != second.identification


def test_a_message_can_be_taken_out() -> None:
    """It is acknowledged to its sender, and its receiver never hears of it."""
    talk = to_sip()
    assert talk.phone(SIZE, REGISTER.replace(b"inside", b"secret")) is None
    assert talk.own == [(0, 2 * SIZE, ACK, b"")]
    assert numbers(talk.phone(2 * SIZE, REGISTER)) == (GROWN, 0)


# -- what is lost, repeated, reordered --------------------------------------------------------------

def test_what_is_ahead_is_kept_and_told() -> None:
    """With SACK, at once (RFC 5681, section 4.2); it goes on with what was missing."""
    talk = Talk()
    assert talk.phone(30, REGISTER[30:]) is None
    assert talk.own == [(0, 0, ACK, b"")]
    blocks = options_by_kind(talk.reaction.send[0].options)[5]
    assert struct.unpack("!II", blocks) == ((PHONE_ISN + 31) & MASK, (PHONE_ISN + 1 + SIZE) & MASK)
    wire = talk.phone(0, REGISTER[:30])
    assert wire is not None
    assert wire.payload == TREATED
    assert talk.own == [(0, SIZE, ACK, b"")]        # likewise at once: its sender waits to repair


def test_without_sack_none_is_sent() -> None:
    """Who did not permit it would not understand it (RFC 2018, section 2)."""
    talk = Talk(options=b"")
    talk.phone(30, REGISTER[30:])
    assert [each.options for each in talk.reaction.send] == [b""]


def test_repeated_octets_are_acknowledged_and_no_more() -> None:
    """Natfix has them; it does not send them twice because they came twice."""
    talk = Talk()
    talk.phone(0, REGISTER)
    assert talk.phone(0, REGISTER) is None
    assert talk.own == [(0, SIZE, ACK, b"")]


def test_what_was_acknowledged_is_repeated_by_natfix() -> None:
    """Byte for byte, until its receiver has it; a duplicate acknowledgement goes no further."""
    talk = Talk()
    talk.phone(0, REGISTER)
    assert talk.wait() == [(0, 0, ACK | PSH, TREATED)]
    assert talk.wait() == [(0, 0, ACK | PSH, TREATED)]
    assert numbers(talk.pbx(0)) == (0, SIZE)        # news for the phone
    assert talk.pbx(0) is None                      # none
    talk.pbx(0, b"", GROWN)
    assert talk.stream.handle_timer(talk.now + 60.0).send == []


def test_three_duplicates_repeat_at_once() -> None:
    """RFC 5681, without waiting for the timer."""
    talk = to_sip()
    for each in range(1, 5):
        talk.phone(each * SIZE, REGISTER)
    for _ in range(3):
        assert talk.own == []
        talk.pbx(0, b"", GROWN)
    assert talk.own == [(GROWN, 0, ACK | PSH, TREATED * 4)]


def test_a_partly_new_segment_gives_what_is_new() -> None:
    """Linux joins segments when it repeats them."""
    talk = Talk()
    talk.phone(0, REGISTER[:40])
    wire = talk.phone(0, REGISTER)
    assert wire is not None
    assert wire.payload == TREATED


def test_a_silent_end_ends_the_connection() -> None:
    """What natfix has acknowledged and cannot deliver: both ends are told, after two minutes."""
    talk = to_sip()
    talk.phone(SIZE, REGISTER)
    sent: list[tuple[int, int, int, bytes]] = []
    while talk.stream.state is State.SIP:
        sent = talk.wait()
    assert 120.0 < talk.now - 100.0 < 200.0
    assert [(number, flags) for number, _, flags, _ in sent] == [(GROWN, RST), (0, RST)]
    assert [note.rule for note in talk.reaction.notes] == ["stream-reset"]


# -- windows --------------------------------------------------------------------------------------

def test_a_window_is_what_the_receiver_has_left() -> None:
    """Beyond what natfix owes it; in the receiver's own scale, and never taken back."""
    talk = to_sip()
    wire = talk.pbx(0, b"", GROWN, window=50)
    assert wire is not None
    assert wire.window == WINDOW        # 8000 octets were promised before
    talk = Talk()
    talk.pbx(0, window=50)
    assert talk.phone(0, REGISTER[:40]) is None
    assert [each.window for each in talk.reaction.send] == [50]     # what is no whole does not count
    talk.phone(40, REGISTER[40:])
    assert talk.phone(0, REGISTER) is None
    assert [each.window for each in talk.reaction.send] == [(50 * 8 + 40 - SIZE) // 8]


def test_a_closed_window_closes_for_the_sender_and_is_probed() -> None:
    """Natfix probes for what it owes, and tells the sender when the window opens."""
    talk = Talk()
    talk.pbx(0, window=0)
    assert talk.phone(0, REGISTER) is None
    assert talk.own == [(0, SIZE, ACK, b"")]
    assert talk.reaction.send[0].window == 0
    assert talk.wait() == [(0, 0, ACK, TREATED[:1])]
    assert talk.pbx(0, window=0) is None
    wire = talk.pbx(0, window=WINDOW)
    assert wire is not None
    assert wire.window > 0
    assert talk.own == [(0, 0, ACK | PSH, TREATED)]


def test_what_a_sender_may_have_on_its_way_is_bounded() -> None:
    """However large its receiver's window: memory is natfix's own."""
    talk = Talk(same)
    wire = talk.pbx(0, window=0xFFFF)
    assert wire is not None
    assert wire.window << 3 == LARGEST_WINDOW


def test_a_full_stream_takes_no_more() -> None:
    """What would be too much is not acknowledged; it comes again."""
    talk = to_sip()
    talk.stream._ways[True].load = MOST_LOAD
    assert talk.phone(SIZE, REGISTER) is None
    assert talk.own == [(0, SIZE, ACK, b"")]


def test_all_streams_share_one_memory() -> None:
    """Where it is used up, those that hold little go on, and those that hold much wait."""
    budget = Budget(most=FAIR_SHARE + 2000)
    greedy, modest = Talk(budget=budget), Talk(budget=budget)
    head = b"MESSAGE sip:x SIP/2.0\r\nl: 99999\r\n\r\n"
    greedy.phone(0, head)
    at = len(head)
    while greedy.own and greedy.own[-1][1] == at:
        greedy.phone(at, b"x" * 1000)
        at += 1000
    assert budget.used == greedy.stream.held > FAIR_SHARE
    wire = modest.phone(0, REGISTER)
    assert wire is not None
    assert wire.payload == TREATED


# -- signs of life ----------------------------------------------------------------------------------

@pytest.mark.parametrize("payload", [b"", b"\0"])
def test_keep_alive_probes_go_to_the_other_end(payload: bytes) -> None:
    """With the number that it takes for one; so does the answer: a dead end is noticed by the other."""
    talk = to_sip()
    wire = talk.phone(SIZE - 1, payload)
    assert (numbers(wire), wire and wire.payload) == ((GROWN - 1, 0), payload)
    assert talk.own == []
    assert numbers(talk.pbx(0, b"", GROWN)) == (0, SIZE)


def test_a_probe_is_answered_where_natfix_owes_something() -> None:
    """The receiver's answer would go down among those that are about octets."""
    talk = to_sip()
    talk.phone(SIZE, REGISTER)
    assert talk.phone(2 * SIZE - 1) is None
    assert talk.own == [(0, 2 * SIZE, ACK, b"")]


def test_timestamps_are_those_of_the_ends() -> None:
    """Natfix's own segments carry the last ones seen (RFC 7323), never an older one."""
    talk = Talk(options=stamps(5, 0), has_stamps=True)
    talk.pbx(0, options=stamps(70, 5))
    talk.phone(0, options=stamps(8, 70))
    assert talk.phone(0, REGISTER[:20], options=stamps(9, 70)) is None
    assert [each.options for each in talk.reaction.send] == [stamps(70, 9)]
    wire = talk.phone(20, REGISTER[20:], options=stamps(7, 70))
    assert wire is not None
    assert wire.options == stamps(9, 70)


def test_what_is_ahead_has_no_timestamp_to_echo() -> None:
    """RFC 7323, section 4.3: the sender measures by the segment that was missing."""
    talk = Talk(options=stamps(5, 0), has_stamps=True)
    talk.pbx(0, options=stamps(70, 6))
    assert talk.phone(30, REGISTER[30:], options=stamps(9, 70)) is None
    assert timestamps_in(talk.reaction.send[0].options) == (70, 6)


def test_octets_of_natfix_carry_the_acknowledgement() -> None:
    """A window that opens with a part of a message: one segment answers, not two."""
    talk = to_sip()
    talk.phone(SIZE, window=0)
    assert talk.pbx(0, ANSWER, GROWN) is None
    assert talk.phone(SIZE, REGISTER[:10]) is None
    assert talk.own == [(0, SIZE + 10, ACK | PSH, ANSWER)]


def test_congestion_is_told() -> None:
    """ECN's flags ride on the packets that they came on (RFC 3168); urgent is nothing."""
    talk = to_sip()
    wire = talk.phone(SIZE, REGISTER, flags=ACK | ECE | CWR | URG)
    assert wire is not None
    assert wire.flags == ACK | ECE | CWR | PSH
