"""The playbook itself: what it sends, what it notices, how it keeps time."""

from __future__ import annotations

import pytest

from natfix.address import Endpoint
from natfix.commands import AddMapping, Kind, Outcome, Verdict
from tests.agent import Sip, wire_bytes
from tests.datagram import Datagram, packet_bytes, read_packet
from tests.playbook import PHONE, PROVIDER, START, World
from tests.standins import StandInEngine
from tests.streams import streams_of

OPTIONS = """OPTIONS sip:provider.example SIP/2.0
Via: SIP/2.0/UDP 192.168.1.10:5060;branch=z9hG4bK1
From: <sip:alice@provider.example>;tag=1
To: <sip:provider.example>
Call-ID: 1@test
CSeq: 1 OPTIONS
Content-Length: 0

"""


def replaced(old: bytes, new: bytes) -> StandInEngine:
    """An engine that replaces *old* by *new* in every packet."""
    def answer(raw: bytes) -> Outcome:
        packet = read_packet(raw)
        return Outcome(packet=packet_bytes(packet._replace(payload=packet.payload.replace(old, new))))
    return StandInEngine(answer)


# Bytes

def test_a_packet_is_read_as_it_was_written() -> None:
    """Both ends of tests/datagram.py agree, odd lengths included."""
    datagram = Datagram(PHONE, PROVIDER, b"seven b", identification=7)
    assert read_packet(packet_bytes(datagram)) == datagram


@pytest.mark.parametrize("at", [2, 10, 24, 26, 30], ids=str)
def test_a_wrong_byte_in_a_packet_is_noticed(at: int) -> None:
    """What the engine hands back is checked as a network card would."""
    raw = bytearray(packet_bytes(Datagram(PHONE, PROVIDER, b"payload")))
    raw[at] ^= 1
    with pytest.raises(AssertionError, match=r"length|checksum"):
        read_packet(bytes(raw))


def test_text_becomes_a_message() -> None:
    """CRLF, and the Content-Length of the body as it is sent."""
    assert wire_bytes("A: 1\nl: 0\n\nv=0\ns=-\n") == b"A: 1\r\nl: 10\r\n\r\nv=0\r\ns=-\r\n"


def test_agents_read_any_spelling() -> None:
    """Compact names, folding and commas do not matter to the agents' own parser."""
    message = Sip(b"SIP/2.0 200 OK\r\nv: one,\r\n two\r\nCSEQ : 4 BYE\r\nVIA:three\r\n\r\nbody")
    assert (message.status, message.method, message.body) == (200, "BYE", b"body")
    assert message.all("via") == ["one", "two", "three"]


def test_agents_read_sdp() -> None:
    """A media c= and a=rtcp go before the session's c= and the next port."""
    streams = streams_of(b"v=0\r\nc=IN IP4 1.1.1.1\r\nm=audio 10 RTP/AVP 0\r\nm=video 20 RTP/AVP 0\r\n"
                         b"c=IN IP4 2.2.2.2\r\na=rtcp:99\r\n")
    assert [[str(stream.rtp), str(stream.rtcp)] for stream in streams] == [
        ["1.1.1.1:10", "1.1.1.1:11"], ["2.2.2.2:20", "2.2.2.2:99"]]


# Without natfix's engine

def test_the_engine_sees_what_the_kernel_diverts() -> None:
    """Inside addresses at the IP layer in both directions, with hook and interfaces."""
    engine = StandInEngine()
    world = World(engine=engine)
    delivery = world.phone.sends(OPTIONS)
    assert delivery.is_untouched
    raw, path, now = engine.asked[0]
    assert read_packet(raw)[:2] == (PHONE, PROVIDER)
    assert (path.hook, path.in_interface, path.out_interface, now) == ("forward", "inside", "outside", START)


def test_agents_notice_nat() -> None:
    """Without natfix the phone is told an address that is not its own."""
    world = World(engine=StandInEngine())
    world.phone.sends(OPTIONS.replace("z9hG4bK1", "z9hG4bK1;rport"))
    with pytest.raises(AssertionError, match="tells of NAT"):
        world.provider.replies(world.provider.last, 200)


def test_agents_notice_an_unrestored_via() -> None:
    """A response must carry the Via that its UA wrote."""
    world = World(engine=replaced(b"192.168.1.10", b"203.0.113.1"))
    world.phone.sends(OPTIONS)
    with pytest.raises(AssertionError, match="Via differs"):
        world.provider.replies(world.provider.last, 200)


def test_masquerade_alone_has_no_audio() -> None:
    """The provider is told an inside address: it sends where nobody can hear."""
    world = World(engine=StandInEngine())
    world.phone.is_strict = False
    call = world.phone.invites(world.provider.address)
    leg = world.provider.accepts(world.provider.last)
    leg.answers()
    assert call.final == 200
    with pytest.raises(AssertionError, match="does not hear"):
        world.assert_hears(world.phone, world.provider)


# Failures and time

def test_a_refused_command_drops_the_packet() -> None:
    """As in the live shell: the packet that needed the kernel is dropped, then all is resynced."""
    engine = StandInEngine(lambda raw: Outcome(commands=[
        AddMapping(Kind.SIGNALLING, PHONE, Endpoint("203.0.113.1", 15060), 300.0)]))
    world = World(engine=engine)
    world.kernel.fail_next_apply = "no memory"
    assert world.phone.sends(OPTIONS).dropped == "the kernel refused: no memory"
    delivery = world.phone.sends(OPTIONS)
    assert delivery.trace is not None
    assert delivery.trace.source.port == 15060


def test_natfix_may_drop() -> None:
    """A DROP verdict ends the packet's way; its story says so."""
    world = World(engine=StandInEngine(lambda raw: Outcome(verdict=Verdict.DROP)))
    delivery = world.phone.sends(OPTIONS)
    assert (delivery.arrived, delivery.dropped) == (None, "natfix")
    assert "DROPPED: natfix" in world.story()


def test_a_story_shows_what_changed() -> None:
    """The difference of a message is told line by line."""
    world = World(engine=replaced(b"192.168.1.10", b"203.0.113.1"))
    delivery = world.phone.sends(OPTIONS)
    assert delivery.changes() == ["-Via: SIP/2.0/UDP 192.168.1.10:5060;branch=z9hG4bK1",
                                  "+Via: SIP/2.0/UDP 203.0.113.1:5060;branch=z9hG4bK1"]
    assert delivery.changes()[1] in world.story()


def test_time_stops_at_every_timer() -> None:
    """The engine's timer is handled when it is due, not at the end of the wait."""
    engine = StandInEngine()
    world = World(engine=engine)
    engine.timer = START + 3.0
    engine.timer_answer = lambda: Outcome(summary=str(world.now))
    world.advance(10.0)
    assert (engine.timer_calls, world.now) == (1, START + 10.0)


def test_a_timer_that_stands_still_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that is always due would have the live shell spin."""
    monkeypatch.setattr("tests.playbook.MAX_STEPS", 10)
    engine = StandInEngine()
    world = World(engine=engine)
    monkeypatch.setattr(engine, "next_timeout", lambda: START)
    with pytest.raises(AssertionError, match="stands still"):
        world.advance(1.0)
