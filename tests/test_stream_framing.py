"""Pins the cutting of a connection's octets into messages, and that nothing is cut where it is in doubt."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natfix.stream_framing import LONGEST_HEAD, LONGEST_LINE, LONGEST_MESSAGE, Framer, Piece

REGISTER = b"REGISTER sip:example.org SIP/2.0\r\nCSeq: 1 REGISTER\r\nContent-Length: 0\r\n\r\n"
MESSAGE = b"MESSAGE sip:bob@example.org SIP/2.0\r\nl:  5\r\nX: content-length: 9\r\n\r\nhello"
ANSWER = b"SIP/2.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length :\r\n 4\r\n\r\n\r\n\r\n"
BARE = b"SIP/2.0 180 Ringing\nVia: x\n\n"
ALL = [REGISTER, MESSAGE, ANSWER, BARE]


def cut(octets: bytes, step: int = 1) -> tuple[list[bytes], list[bytes], Framer]:
    """Return the messages and the other octets in a stream that comes in pieces of *step*."""
    framer = Framer()
    pieces = [piece for at in range(0, len(octets), step) for piece in framer.feed(octets[at:at + step])]
    return ([piece.octets for piece in pieces if piece.is_message],
            [piece.octets for piece in pieces if not piece.is_message], framer)


@pytest.mark.parametrize("step", [1, 2, 3, 7, 50, 10_000])
def test_messages_are_cut_by_their_content_length(step: int) -> None:
    """However the octets come, the messages are the same; line ends between them are no part of any."""
    messages, others, framer = cut(b"\r\n\r\n" + b"\r\n".join(ALL) + REGISTER, step)
    assert messages == [*ALL, REGISTER]
    assert b"".join(others) == b"\r\n" * 5
    assert (framer.began, framer.is_opaque, framer.held) == (True, False, 0)


@settings(deadline=None)
@given(st.lists(st.sampled_from([*ALL, b"\r\n", b"\r\n\r\n"]), max_size=8), st.randoms(use_true_random=False))
def test_nothing_is_lost_or_changed(parts: list[bytes], chance: object) -> None:
    """The pieces together are what came, and each message is one piece, for any sizes of segments."""
    octets, framer, pieces = b"".join(parts), Framer(), list[Piece]()
    while octets:
        size = chance.randint(1, 60)    # type: ignore[attr-defined]
        pieces += framer.feed(octets[:size])
        octets = octets[size:]
    assert b"".join(piece.octets for piece in pieces) == b"".join(parts)
    assert [piece.octets for piece in pieces if piece.is_message] == [each for each in parts if each.strip()]


@pytest.mark.parametrize(("octets", "held"), [
    (b"GET /sip HTTP/1.1\r\n", 4), (b"POST http://sip:5060/ SIP HTTP/1.1\r\n", 25),
    (b"\x16\x03\x01\x02\x00", 0), (b"\x00\x01\x00\x08", 0), (b"\x40\x00", 0), (b"HTTP/1.1 200 OK\r\n", 4),
    (b"SIP/2.0 999 No\r\n", 8), (b"SIP/2.0 2000 No\r\n", 11), (b"SIP/3.0 200 OK\r\n", 4),
    (b"INVITE sip:x SIP/2.01\r\n", 20), (b"INVITE sip:x\r\n", 12), (b"INVITE  sip:x y SIP/2.0\r\n", 14),
    (b" INVITE sip:x SIP/2.0\r\n", 0), (b"INVITE x SIP/2.0\r\n", 8), (b"220 mail.example.org ESMTP\r\n", 20),
])
def test_what_cannot_become_sip_is_not_held(octets: bytes, held: int) -> None:
    """As soon as no start line can come of it the stream is opaque for ever, SIP behind it included."""
    framer = Framer()
    for at in range(held):
        assert framer.feed(octets[at:at + 1]) == []
    assert framer.feed(octets[held:held + 1]) == [Piece(octets[:held + 1], False)]
    assert framer.is_opaque
    assert not framer.began
    assert framer.feed(REGISTER) == [Piece(REGISTER, False)]


def test_every_beginning_of_a_start_line_is_held() -> None:
    """Until its line end has come nothing of it goes on."""
    for octets in (*ALL, b"SIP/2.0 200\r\n\r\n", b"sip/2.0  404 \r\n\r\n", b"A tel:+1 sip/2.0 \r\n\r\n"):
        line = octets.split(b"\n")[0] + b"\n"
        framer = Framer()
        for at in range(len(line)):
            assert not framer.began, line
            assert framer.feed(line[at:at + 1]) == [], line
        assert framer.began, line


def test_a_line_can_be_too_long() -> None:
    """A start line that does not end is not waited for."""
    assert cut(b"INVITE sip:" + b"x" * LONGEST_LINE, 100)[2].is_opaque
    assert not cut(b"INVITE sip:" + b"x" * (LONGEST_LINE - 12), 100)[2].is_opaque


@pytest.mark.parametrize("head", [
    b"Content-Length: 5\r\nContent-Length: 6\r\n", b"Content-Length: 5, 5\r\n", b"Content-Length: -5\r\n",
    b"Content-Length: +5\r\n", b"Content-Length:\r\n", b"Content-Length: 0x5\r\n", b"l: 5\r\nL: 55\r\n",
    b"Content-Length: " + b"9" * 40 + b"\r\n", b"Content-Length: %d\r\n" % LONGEST_MESSAGE,
    b"Content-Length: 5\r\n 5\r\n",
])
def test_a_length_in_doubt_ends_the_cutting(head: bytes) -> None:
    """Two readers could take it differently: it goes on as it came, and so does all that follows."""
    octets = b"REGISTER sip:x SIP/2.0\r\n" + head + b"\r\n"
    messages, others, framer = cut(octets + REGISTER, 1000)
    assert messages == []
    assert b"".join(others) == octets + REGISTER
    assert framer.is_opaque
    assert framer.why


def test_the_same_length_twice_is_no_doubt() -> None:
    """It says the same to every reader."""
    octets = b"REGISTER sip:x SIP/2.0\r\nl: 5\r\nContent-Length: 5\r\n\r\nhello"
    assert cut(octets)[0] == [octets]


def test_a_head_can_be_too_long() -> None:
    """What natfix would hold is bounded, and goes on as it came."""
    octets = REGISTER[:-2] + b"X: " + b"x" * LONGEST_HEAD
    messages, others, framer = cut(octets, 1400)
    assert (messages, framer.held, framer.is_opaque) == ([], 0, True)
    assert b"".join(others) == octets


def test_octets_between_messages_end_the_cutting() -> None:
    """Where a message has to begin and none does, the messages before were cut, and nothing is any more."""
    messages, others, framer = cut(REGISTER + b"hel:lo" + REGISTER, 1000)
    assert messages == [REGISTER]
    assert others == [b"hel:lo" + REGISTER]
    assert (framer.began, framer.is_opaque) == (True, True)


def test_giving_up() -> None:
    """What was held comes out once."""
    framer = Framer()
    framer.feed(REGISTER[:30])
    assert framer.give_up("the end") == [Piece(REGISTER[:30], False)]
    assert framer.give_up("again") == []
    assert framer.why == "the end"


def test_a_long_message_octet_by_octet_is_cheap() -> None:
    """The work for each octet does not grow with what is held: 300,000 steps are over at once."""
    body = b"x" * (LONGEST_MESSAGE - 100)
    octets = b"MESSAGE sip:x SIP/2.0\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    assert cut(octets)[0] == [octets]
    head = b"MESSAGE sip:x SIP/2.0\r\nX: " + b"x" * (LONGEST_HEAD - 100) + b"\r\n\r\n"
    assert cut(head)[0] == [head]
