"""Pins how a relayed connection ends, what does not fit into it, and what is no SIP and never touched."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natfix.segment import (
    ACK,
    FIN,
    MASK,
    PSH,
    RST,
    SYN,
)
from natfix.stream import (
    IDLE,
    LINGER,
    MOST_LOAD,
    PATIENCE,
    Budget,
    State,
)
from natfix.stream_sender import LARGEST_WINDOW as SEGMENTS_AT_ONCE
from tests.stream_talk import (
    ANSWER,
    GROWN,
    PBX_ISN,
    REGISTER,
    SACK_PERMITTED,
    SIZE,
    Talk,
    numbers,
    same,
    stamps,
    to_sip,
    treat,
    untreated,
)

# -- what does not fit -------------------------------------------------------------------------------

def test_what_does_not_fit_is_asked_about() -> None:
    """Numbers far away, octets acknowledged that were not sent (RFC 5961, section 5); not too often."""
    for wrong in (lambda talk: talk.phone(1 << 20, REGISTER), lambda talk: talk.phone(SIZE, b"", 1),
                  lambda talk: talk.phone(SIZE, REGISTER, 1 << 31),
                  lambda talk: talk.phone(SIZE, REGISTER, flags=PSH)):
        talk = to_sip()
        assert wrong(talk) is None
        assert talk.own == [(0, SIZE, ACK, b"")]
        assert wrong(talk) is None
        assert talk.own == []
        talk.now += 1.0
        assert wrong(talk) is None
        assert talk.own == [(0, SIZE, ACK, b"")]


def test_handshakes_pass() -> None:
    """Their numbers were never moved; what a late one means, the ends know."""
    talk = to_sip()
    talk.phone(-1, flags=SYN)
    assert talk.as_it_came
    talk.pbx(-1, flags=SYN | ACK)
    assert talk.as_it_came


# -- the end ----------------------------------------------------------------------------------------

def test_a_reset_has_the_receivers_number() -> None:
    """It ends the connection there, too; late segments are answered as by a closed port."""
    talk = to_sip()
    wire = talk.phone(SIZE, flags=RST | ACK)
    assert (numbers(wire), wire and wire.flags) == ((GROWN, 0), RST | ACK)
    assert talk.stream.state is State.RESET
    assert talk.pbx(0, ANSWER, GROWN) is None
    assert talk.own == [(GROWN, 0 - PBX_ISN - 1 & MASK, RST, b"")]
    assert talk.pbx(0, b"", GROWN, flags=RST) is None
    assert talk.own == []


def test_a_reset_while_octets_are_on_their_way() -> None:
    """The receiver has them or not: it gets a reset for either, and answers one that is not exact."""
    talk = to_sip()
    talk.phone(SIZE, REGISTER)
    wire = talk.phone(2 * SIZE, flags=RST | ACK)
    assert numbers(wire) == (2 * GROWN, 0)
    assert [each[0] for each in talk.own] == [GROWN]


def test_farewell() -> None:
    """A connection whose ends count differently, or that owes octets, is reset at both ends; no other is."""
    talk = to_sip()
    talk.pbx(0, ANSWER, GROWN)      # which the phone has, or not
    assert [talk._relative(each)[0::2] for each in talk.stream.farewell()] == [
        (GROWN, RST), (0, RST), (len(ANSWER), RST)]
    talk.phone(SIZE, b"", len(ANSWER), flags=RST | ACK)
    assert talk.stream.farewell() == []
    plain = Talk(same)
    plain.phone(0, REGISTER)
    plain.pbx(0, b"", SIZE)
    assert plain.stream.farewell() == []
    plain.phone(SIZE, REGISTER[:20])
    assert len(plain.stream.farewell()) == 2


def test_a_reset_in_the_window_is_asked_about() -> None:
    """RFC 5961, section 3.2; one outside of it is not even that."""
    talk = to_sip()
    assert talk.phone(SIZE + 1, flags=RST) is None
    assert talk.own == [(0, SIZE, ACK, b"")]
    talk.now += 1.0
    for at in (SIZE - 1, 1 << 20):
        assert talk.phone(at, flags=RST) is None
        assert talk.own == []
    assert talk.stream.state is State.SIP


def test_each_direction_ends_by_itself() -> None:
    """After the phone's FIN the PBX may go on; after both and their acknowledgements all is over."""
    talk = to_sip()
    wire = talk.phone(SIZE, REGISTER[:30], flags=ACK | FIN)
    assert (numbers(wire), wire and wire.payload, wire and wire.flags) == (
        (GROWN, 0), REGISTER[:30], ACK | FIN | PSH)
    assert numbers(talk.pbx(0, b"", GROWN + 31)) == (0, SIZE + 31)
    wire = talk.pbx(0, ANSWER, GROWN + 31)
    assert (numbers(wire), wire and wire.payload) == ((0, SIZE + 31), ANSWER)
    assert numbers(talk.phone(SIZE + 31, b"", len(ANSWER))) == (GROWN + 31, len(ANSWER))
    wire = talk.pbx(len(ANSWER), b"", GROWN + 31, flags=ACK | FIN)
    assert (numbers(wire), wire and wire.flags) == ((len(ANSWER), SIZE + 31), ACK | FIN)
    assert talk.stream.state is State.SIP
    assert numbers(talk.phone(SIZE + 31, b"", len(ANSWER) + 1)) == (GROWN + 31, len(ANSWER) + 1)
    assert talk.stream.state is State.CLOSED
    assert talk.pbx(len(ANSWER), b"", GROWN + 31, flags=ACK | FIN) is None      # its ACK was lost
    assert talk.own == [(GROWN + 31, len(ANSWER) + 1, ACK, b"")]


def test_an_end_that_has_left_is_not_disturbed() -> None:
    """It has said and got everything, and natfix owes the other end some: what that one says now would be
    answered by a reset, which is not to reach it before what it is owed."""
    talk = to_sip()
    talk.pbx(0, flags=ACK | FIN)
    talk.phone(SIZE, b"", 1)
    talk.phone(SIZE, REGISTER, 1, flags=ACK | FIN)          # is lost behind natfix
    talk.phone(SIZE, REGISTER, 1, flags=ACK | FIN)
    assert talk.own == [(1, 2 * SIZE + 1, ACK, b"")]
    assert talk.pbx(1, b"", GROWN) is None
    assert talk.pbx(1, b"", GROWN, window=100) is None
    assert talk.own == []
    assert talk.phone(2 * SIZE + 1, flags=RST) is None
    assert talk.stream.state is State.SIP
    assert [each[3] for each in talk.wait()] == [treat(True, REGISTER)]


def test_an_old_acknowledgement_is_no_probe() -> None:
    """The FIN's number is behind its sender: a segment without octets there asks nothing."""
    talk = to_sip()
    talk.phone(SIZE, flags=ACK | FIN)
    talk.pbx(0, b"", GROWN + 1)
    talk.pbx(0, ANSWER, GROWN + 1)
    assert numbers(talk.phone(SIZE, b"", len(ANSWER))) == (GROWN + 1, len(ANSWER))


def test_a_fin_that_is_lost_is_repeated() -> None:
    """Natfix has acknowledged nothing yet, and repeats it all the same."""
    talk = to_sip()
    talk.phone(SIZE, flags=ACK | FIN)
    assert talk.wait() == [(GROWN, 0, ACK | FIN, b"")]
    assert talk.phone(SIZE, flags=ACK | FIN) is None
    assert [each[1:3] for each in talk.own] == [(SIZE + 1, ACK)]


def test_how_long_a_connection_is_kept() -> None:
    """Handshake, idle and end have their times; packets begin the second anew."""
    talk = Talk(is_open=False)
    assert talk.stream.next_timeout() == 100.0 + PATIENCE
    assert talk.stream.is_over(100.0 + PATIENCE)
    talk.now = 110.0
    talk.phone(0)
    assert talk.stream.next_timeout() == 110.0 + IDLE
    assert not talk.stream.is_over(110.0 + IDLE - 1.0)
    talk.phone(0, flags=RST)
    assert talk.stream.next_timeout() == 110.0 + LINGER
    assert talk.stream.is_over(110.0 + LINGER)


def test_what_was_treated_is_delivered_before_a_release() -> None:
    """Both directions have left SIP, and lengths are as they were: the source would repeat other octets."""
    talk = Talk(lambda _from_inside, octets: octets.replace(b"inside", b"INSIDE"))
    talk.pbx(0)
    talk.phone(0, REGISTER)
    talk.pbx(0, b"HTTP/1.1 400 No\r\n\r\n")
    wire = talk.phone(SIZE, b"GET / HTTP/1.1\r\n", 19)
    assert wire is not None
    assert wire.payload == b"GET / HTTP/1.1\r\n"
    assert (talk.stream.state, talk.stream.is_shifted, talk.reaction.released) == ("opaque", False, False)
    talk.pbx(19, b"", SIZE)
    assert not talk.reaction.released
    talk.pbx(19, b"", SIZE + 16)
    assert talk.reaction.released


NUMBERS = st.sampled_from([0, 0, 0, 30, SIZE, GROWN]) | st.integers(-300, 300) | st.integers(0, MASK)
OPTIONS = st.binary(max_size=40).map(lambda options: options + bytes(-len(options) % 4))
PAYLOADS = st.sampled_from([b"", b"x", REGISTER[:30], REGISTER[30:], REGISTER, REGISTER * 30, b"x" * 3000])
FLAGS = st.sampled_from([ACK, ACK, ACK, ACK | FIN, RST]) | st.integers(0, 0xFFF)
ANY_SEGMENTS = st.lists(
    st.tuples(st.booleans(), NUMBERS, PAYLOADS, NUMBERS, FLAGS, st.integers(0, 0xFFFF), OPTIONS), max_size=30)


@settings(deadline=None)
@given(ANY_SEGMENTS, st.sampled_from([0, 1, 60, 1460, 65535]), st.booleans())
def test_any_segments_are_borne(
    segments: list[tuple[bool, int, bytes, int, int, int, bytes]], mss: int, has_stamps: bool
) -> None:
    """Whatever strangers send: nothing is raised, what goes out is well formed, all is bounded."""
    budget = Budget()
    options = b"\x02\x04" + mss.to_bytes(2) + (stamps(5, 0) if has_stamps else SACK_PERMITTED)
    talk = Talk(budget=budget, options=options)
    for from_inside, *segment in segments:
        (talk.phone if from_inside else talk.pbx)(*segment)
        assert len(talk.reaction.send) <= 2 * SEGMENTS_AT_ONCE + 1
        assert len(talk.wait()) <= 2
        assert budget.used == talk.stream.held <= MOST_LOAD


# -- what is not SIP ----------------------------------------------------------------------------------

def test_tls_is_released_with_its_first_octets() -> None:
    """Natfix has held and said nothing: the kernel can move the connection alone."""
    talk = Talk(untreated)
    talk.phone(0)
    talk.phone(0, b"\x16\x03\x01\x00\x05hello")
    assert (talk.as_it_came, talk.own, talk.reaction.released) == (True, [], True)
    assert talk.stream.state is State.RELEASED
    talk.pbx(0, b"\x16\x03\x03", 10)
    assert (talk.as_it_came, talk.own, talk.reaction.released) == (True, [], True)


def test_what_was_held_is_delivered_before_the_release() -> None:
    """It was acknowledged: natfix owes it, and goes when the receiver has it."""
    talk = Talk(untreated)
    for at, octet in enumerate(b"POS"):
        assert talk.phone(at, bytes([octet])) is None
    wire = talk.phone(3, b"T / HTTP/1.1\r\n")
    assert (numbers(wire), wire and wire.payload) == ((0, 0), b"POST / HTTP/1.1\r\n")
    assert (talk.reaction.released, talk.stream.state) == (False, "opaque")
    assert [note.rule for note in talk.reaction.notes] == ["stream-not-sip"]
    wire = talk.phone(17, REGISTER)         # SIP behind HTTP is HTTP's body
    assert (numbers(wire), wire and wire.payload) == ((17, 0), REGISTER)
    assert talk.own == []
    wire = talk.pbx(0, b"", 10)
    assert (numbers(wire), talk.reaction.released) == ((0, 10), True)


def test_who_is_asked_may_not_speak_first() -> None:
    """Only who opens a connection can have SIP to say before anything was said; keep-alives say nothing."""
    talk = Talk(untreated)
    talk.pbx(0, b"\r\n\r\n")
    assert talk.stream.state is State.UNDECIDED
    talk.pbx(4, ANSWER)
    assert (talk.as_it_came, talk.own, talk.reaction.released) == (True, [], True)


def test_the_other_side_must_speak_sip_too() -> None:
    """Else its direction goes as it comes, and nothing in it is ever a message."""
    talk = to_sip()
    talk.treat = untreated
    for octets in (b"HTTP/1.1 400 Bad Request\r\n\r\n", ANSWER):
        wire = talk.pbx(0 if octets[:1] == b"H" else 28, octets, GROWN)
        assert wire is not None
        assert wire.payload == octets
    assert talk.stream.state is State.SIP


def test_a_peer_may_open_the_connection() -> None:
    """Then it speaks first, and what comes from inside is treated as such all the same."""
    talk = Talk(opened_by_inside=False)
    talk.pbx(0, REGISTER)
    assert (talk.as_it_came, talk.stream.state) == (True, "sip")
    wire = talk.phone(0, ANSWER, SIZE)
    assert wire is not None
    assert wire.payload == ANSWER.replace(b"inside", b"outside")


def test_a_doubtful_length_makes_a_direction_opaque() -> None:
    """What is held goes on as it came, and so does all that follows, in the right numbers."""
    talk = to_sip()
    doubtful = b"MESSAGE sip:x SIP/2.0\r\nl: 5\r\nl: 6\r\n\r\nhello!"
    wire = talk.phone(SIZE, doubtful)
    assert wire is not None
    assert wire.payload == doubtful
    assert [note.rule for note in talk.reaction.notes] == ["stream-opaque"]
    wire = talk.phone(SIZE + len(doubtful), REGISTER)
    assert (numbers(wire), wire and wire.payload) == ((GROWN + len(doubtful), 0), REGISTER)
    assert talk.reaction.notes == []


BEGINNINGS = (
    b"POST /x HTTP/1.1\r\nHost: pbx\r\nContent-Length: 100000\r\n\r\n", b"GET / HTTP/1.1\r\nX: ",
    b"\x16\x03\x01\x02\x00\x01\x00", b"\x00\x01\x00\x80\x21\x12\xa4\x42", b"\x40\x00\x03\xe8", b"USER x\r\n",
    b"OPTIONS * HTTP/1.1\r\n", b"SIP/1.0 200 OK\r\n", b"EHLO x\r\n", b"\r\n\r\nPOST / HTTP/1.1\r\n",
)


@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_slipstreaming(beginning: bytes) -> None:
    """SIP at the start of a segment, at a hundred alignments: nothing is treated, no octet is changed."""
    for pad in range(100):
        talk = Talk(untreated)
        talk.phone(0)
        at = 0
        for octets in (beginning, b"x" * (pad * 15), REGISTER, b"\r\n" * (pad % 3) + REGISTER):
            if not octets:
                continue
            wire = talk.phone(at, octets)
            at += len(octets)
            if talk.reaction.released:
                assert talk.as_it_came
            assert wire is not None
            assert wire.payload == octets
            talk.pbx(0, b"", at)
            assert talk.as_it_came
        talk.pbx(0, ANSWER, at)
        assert talk.as_it_came
        assert talk.stream.state is State.RELEASED
