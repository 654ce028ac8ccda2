"""From octets to sightings."""

from __future__ import annotations

from natfix.replay.datagrams import Datagrams
from natfix.replay.messages import CUT, INCOMPLETE, is_damaged_sip, sighting_from, sighting_in_stream
from natfix.replay.model import Datagram, PacketId
from tests.replay.sip import audio, request
from tests.replay.wire import PHONE, PROVIDER, RTP_PHONE, frame, udp

INVITE = request(sdp=audio(RTP_PHONE))


def datagram(payload: bytes) -> Datagram:
    got = Datagrams().take(frame(udp(PHONE, PROVIDER, payload), link=101), 0)
    assert got is not None
    return got


def test_readable() -> None:
    """A message is taken apart, and keeps its datagram."""
    got = sighting_from(datagram(INVITE))
    assert got.message is not None
    assert (got.message.method, got.problem, got.payload) == ("INVITE", "", INVITE)
    assert got.ip.endswith(INVITE)


def test_unreadable() -> None:
    """What cannot be read says why; what the capture lacks half of is never taken for a message."""
    assert "CSeq" in sighting_from(datagram(INVITE.replace(b"CSeq: 1 ", b"CSeq: x "))).problem
    whole = datagram(INVITE[:-50])
    assert "Content-Length" in sighting_from(whole).problem
    for facts, problem in ((whole.facts._replace(cut=True), CUT),
                           (whole.facts._replace(incomplete=True), INCOMPLETE)):
        for payload in (whole.payload, INVITE[:100]):
            got = sighting_from(whole._replace(facts=facts, payload=payload))
            assert (got.message, got.problem) == (None, problem)


def test_in_stream() -> None:
    """A message out of a connection has all its packets, and no datagram."""
    got = sighting_in_stream(datagram(b"x"), (PacketId(1), PacketId(2)), INVITE)
    assert (got.packets, got.ip, got.problem) == ((PacketId(1), PacketId(2)), b"", "")


def test_damaged() -> None:
    """Junk before a message at a SIP port is a damaged message; elsewhere it is nothing."""
    assert is_damaged_sip(datagram(b"\0junk" + INVITE))
    assert not is_damaged_sip(datagram(b"NOTIFY * HTTP/1.1\r\n"))
