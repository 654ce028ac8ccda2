"""One relayed connection that tests speak on segment by segment, in numbers that count from 0."""

from __future__ import annotations

import struct
from collections.abc import Callable

from natfix.commands import SendSegment, Verdict
from natfix.segment import (
    ACK,
    MASK,
    SYN,
    segment_from_bytes,
)
from natfix.stream import (
    Budget,
    Reaction,
    Stream,
)
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
