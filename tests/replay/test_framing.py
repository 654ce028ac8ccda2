"""SIP in a stream of octets."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natfix.replay import framing
from natfix.replay.framing import Framer, Piece
from natfix.replay.model import PacketId
from tests.replay.sip import audio, request, response
from tests.replay.wire import RTP_PHONE

INVITE, OK, BYE = request(sdp=audio(RTP_PHONE)), response(200), request("BYE", cseq=2)


def feed(*segments: bytes) -> list[Piece]:
    framer, pieces = Framer(), []
    for number, segment in enumerate(segments, 1):
        pieces += framer.feed(segment, PacketId(number))
    return pieces + list(framer.end("it ended"))


@given(st.lists(st.integers(0, len(INVITE + OK + BYE)), max_size=12))
def test_cut_anywhere(cuts: list[int]) -> None:
    """However a stream is cut into segments, the same messages come out, without keep-alives."""
    stream = INVITE + b"\r\n\r\n" + OK + b"\r\n" + BYE
    edges = [0, *sorted(cuts), len(stream)]
    got = feed(*(stream[start:end] for start, end in pairwise(edges) if start < end))
    assert [piece.payload for piece in got] == [INVITE, OK, BYE]
    assert not any(piece.problem for piece in got)


def test_packets() -> None:
    """A message names the packets that it came in, and no others."""
    got = feed(INVITE[:100], INVITE[100:] + OK + BYE[:10], BYE[10:])
    assert [[packet.number for packet in piece.packets] for piece in got] == [[1, 2], [2], [2, 3]]


def test_content_length_too_large() -> None:
    """A body that ends before its length, by the next message, is told with both numbers."""
    claimed = INVITE.replace(b"Content-Length: ", b"Content-Length: 1")
    broken, good = feed(claimed, OK)
    assert (broken.payload, good.payload) == (claimed, OK)
    assert "Content-Length is 1" in broken.problem
    assert "before the next message" in broken.problem


def test_content_length_too_small() -> None:
    """What a too small Content-Length leaves over is told, and the next message is found."""
    short = INVITE.replace(b"Content-Length: 9", b"Content-Length: ")
    whole, rest, good = feed(short + OK)
    assert short == whole.payload + b"\r\n" + rest.payload      # that line end could be a keep-alive
    assert good.payload == OK
    assert "too small" in rest.problem


@pytest.mark.parametrize("claim", [b"2147483648", b"999999999999999"])
def test_hostile_length(claim: bytes) -> None:
    """Nobody waits for a body of gigabytes."""
    (piece,) = feed(OK.replace(b"Content-Length: 0", b"Content-Length: " + claim))
    assert claim in piece.problem.encode()


def test_no_content_length() -> None:
    """Without Content-Length a message goes up to the next one, as far as that is there."""
    bare = INVITE.replace(b"Content-Length", b"X-Length")
    assert [piece.payload for piece in feed(bare + OK)] == [bare, OK]


def test_not_sip() -> None:
    """A connection that never carried SIP says nothing, and keeps little."""
    framer = Framer()
    for _ in range(100):
        assert not list(framer.feed(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 10, PacketId(1)))
        assert not list(framer.feed(bytes(1000), PacketId(1)))
    assert len(framer) <= framing.LONGEST_LINE
    assert not list(framer.end("x"))


def test_octet_by_octet() -> None:
    """The longest body may come in single octets; nobody copies it each time."""
    size = framing.LONGEST_BODY
    head = OK.replace(b"Content-Length: 0", b"Content-Length: %d" % size)
    (piece,) = feed(head, *[b"x"] * size)
    assert len(piece.payload) == len(head) + size
    assert len(piece.packets) == size + 1


def test_endless_head() -> None:
    """Headers without end are given up."""
    pieces = feed(b"INVITE sip:a@b SIP/2.0\r\n", *[b"X: " + b"y" * 1000 + b"\r\n"] * 100)
    assert "no end of its headers" in pieces[0].problem


@given(st.lists(st.binary(max_size=50) | st.sampled_from([INVITE, OK, b"\r\n", b"SIP/2.0 200 OK\r\n\r\n"]),
                max_size=8))
def test_any_octets(segments: list[bytes]) -> None:
    """No stream makes this raise."""
    feed(*filter(None, segments))
