"""Pins one relayed connection, segment by segment: what goes on, what natfix says itself, and how it ends."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natfix.commands import SendSegment, Verdict
from natfix.segment import (
    ACK,
    CWR,
    ECE,
    FIN,
    MASK,
    PSH,
    RST,
    SYN,
    URG,
    options_by_kind,
    segment_from_bytes,
)
from natfix.stream import (
    FAIR_SHARE,
    IDLE,
    LARGEST_WINDOW,
    LINGER,
    MOST_LOAD,
    PATIENCE,
    Budget,
    Reaction,
    State,
    Stream,
)
from natfix.stream_sender import LARGEST_WINDOW as SEGMENTS_AT_ONCE
from tests.segments import Wire, read_segment, segment_bytes
from tests.tcp_ends import INSIDE, OUTSIDE, PEER

PHONE_ISN, PBX_ISN = 0xFFFFFFF0, 0x7FFFFFFE
REGISTER = b"REGISTER sip:example.org SIP/2.0\r\nContact: <sip:inside>\r\nContent-Length: 0\r\n\r\n"
ANSWER = b"SIP/2.0 200 OK\r\nContact: <sip:inside>\r\nContent-Length: 0\r\n\r\n"
TREATED = REGISTER.replace(b"inside", b"outside")
MSS = b"\x02\x04\x05\xb4"
SACK_PERMITTED, SCALE_2, SCALE_3 = b"\x04\x02\x01\x01", b"\x01\x03\x03\x02", b"\x01\x03\x03\x03"
WINDOW = 1000       # as it stands in all segments; the phone's counts fourfold, the PBX's eightfold


def same(_from_inside: bool, octets: bytes) -> bytes:
    """Change nothing."""
    return octets


def treat(from_inside: bool, octets: bytes) -> bytes | None:
    """Let what comes from inside grow by one octet for each Contact; take out what says so."""
    if b"secret" in octets:
        return None
    return octets.replace(b"sip:inside", b"sip:outside") if from_inside else octets


def untreated(_from_inside: bool, octets: bytes) -> bytes:
    """Fail: nothing of this is SIP."""
    raise AssertionError(octets)


def stamps(value: int, echo: int) -> bytes:
    """Return the option that carries timestamps."""
    return b"\1\1\x08\x0a" + struct.pack("!II", value, echo)


class Talk:
    """A connection that is open, whose numbers count from 0 behind the SYNs."""

    def __init__(
        self, treat: Callable[[bool, bytes], bytes | None] = treat, opened_by_inside: bool = True,
        options: bytes = SACK_PERMITTED, budget: Budget | None = None, is_open: bool = True,
        has_stamps: bool = False,
    ) -> None:
        self.treat = treat
        self.now = 100.0
        flags = (SYN, SYN | ACK) if opened_by_inside else (SYN | ACK, SYN)
        phone = Wire(INSIDE, PEER, PHONE_ISN, (PBX_ISN + 1) * (not opened_by_inside) & MASK, flags[0], 4000,
                     MSS + SCALE_2 + options)
        pbx = Wire(PEER, INSIDE, PBX_ISN, (PHONE_ISN + 1) * opened_by_inside & MASK, flags[1], 8000,
                   MSS + SCALE_3 + options)
        first, second = (segment_from_bytes(segment_bytes(wire)) for wire in (phone, pbx))
        if not opened_by_inside:
            first, second = second, first
        self.stream = Stream(first, second, OUTSIDE, opened_by_inside, self.now, budget)
        self.reaction = Reaction()
        self.wire = phone
        if is_open:
            (self.phone if opened_by_inside else self.pbx)(0, options=stamps(6, 0) * has_stamps)

    def phone(self, at: int, payload: bytes = b"", acknowledges: int = 0, flags: int = ACK,
              window: int = WINDOW, options: bytes = b"") -> Wire | None:
        """Let the phone send; return what reaches the PBX by the packet that came."""
        self.wire = Wire(INSIDE, PEER, (PHONE_ISN + 1 + at) & MASK, (PBX_ISN + 1 + acknowledges) & MASK,
                         flags, window, options, payload)
        return self._send(True)

    def pbx(self, at: int, payload: bytes = b"", acknowledges: int = 0, flags: int = ACK,
            window: int = WINDOW, options: bytes = b"") -> Wire | None:
        """Let the PBX send; return what reaches the phone by the packet that came."""
        self.wire = Wire(PEER, INSIDE, (PBX_ISN + 1 + at) & MASK, (PHONE_ISN + 1 + acknowledges) & MASK,
                         flags, window, options, payload)
        return self._send(False)

    def _send(self, from_inside: bool) -> Wire | None:
        raw = segment_bytes(self.wire)
        self.reaction = self.stream.receive(segment_from_bytes(raw), from_inside, self.now, self.treat)
        if self.reaction.verdict is Verdict.DROP:
            assert self.reaction.packet is None
            return None
        return read_segment(self.reaction.packet or raw)

    @property
    def as_it_came(self) -> bool:
        return self.reaction.verdict is Verdict.ACCEPT and self.reaction.packet is None

    @property
    def own(self) -> list[tuple[int, int, int, bytes]]:
        """Natfix's own segments: numbers as the ends count them, flags, octets; the addresses are right."""
        return [self._relative(each) for each in self.reaction.send]

    @staticmethod
    def _relative(each: SendSegment) -> tuple[int, int, int, bytes]:
        isns = PBX_ISN, PHONE_ISN
        if each.destination == PEER:
            assert each.source == OUTSIDE
            isns = PHONE_ISN, PBX_ISN
        else:
            assert (each.source, each.destination) == (PEER, INSIDE)
        return ((each.sequence - isns[0] - 1) & MASK, (each.acknowledgement - isns[1] - 1) & MASK, each.flags,
                each.payload)

    def wait(self) -> list[tuple[int, int, int, bytes]]:
        """Let time pass until something is due, and return what natfix sends."""
        due = self.stream.next_timeout()
        assert due is not None
        assert due >= self.now
        self.now = due
        self.reaction = self.stream.handle_timer(self.now)
        return self.own


def numbers(wire: Wire | None) -> tuple[int, int]:
    """Return a wire's numbers as the ends count them."""
    assert wire is not None
    isns = (PHONE_ISN, PBX_ISN) if wire.source == INSIDE else (PBX_ISN, PHONE_ISN)
    return (wire.sequence - isns[0] - 1) & MASK, (wire.acknowledgement - isns[1] - 1) & MASK


def to_sip() -> Talk:
    """Return a connection on which a REGISTER has grown by one octet and was acknowledged."""
    talk = Talk()
    talk.phone(0, REGISTER)
    talk.pbx(0, b"", len(TREATED))
    assert (talk.stream.state, talk.stream.is_shifted) == ("sip", True)
    return talk


SIZE, GROWN = len(REGISTER), len(TREATED)


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


def test_congestion_is_told() -> None:
    """ECN's flags ride on the packets that they came on (RFC 3168); urgent is nothing."""
    talk = to_sip()
    wire = talk.phone(SIZE, REGISTER, flags=ACK | ECE | CWR | URG)
    assert wire is not None
    assert wire.flags == ACK | ECE | CWR | PSH


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
