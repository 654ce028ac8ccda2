"""Keeping the NATs of registered far UAs open: what is sent to them, when, and what their answers tell.

Nobody is sent anything whose REGISTER was not answered 2xx, nor longer than that says. A keep-alive comes
from the endpoint that the UA has sent its REGISTER to, so that its NAT takes it for an answer. What the UA
sends by itself does as well, so a UA that sees to its NAT itself is sent nothing.
"""

from __future__ import annotations

from collections import Counter
from zlib import crc32

from natfix.address import Endpoint
from natfix.commands import Note, SendPacket
from natfix.config import FarEnd as FarEndSettings
from natfix.deadlines import NEVER, Deadlines
from natfix.errors import MalformedMessage
from natfix.far_ends import FarEnd, FarEnds
from natfix.far_fix import aor_of
from natfix.mappings import Mappings
from natfix.packet import Packet
from natfix.pulse import ANSWER_WAIT
from natfix.realms import Realms
from natfix.sip.message import Message
from natfix.turn import Turn

KEEP_ALIVE = "keep-alive"           # the deadlines' name
BRANCH = "z9hG4bKnatfix"            # of natfix's own OPTIONS; they are known again after a restart, too
EMPTY = b"\0\0\0\0"                 # no SIP, no STUN: as Kamailio's nathelper and others send it
MOST_SOURCES = 65536
OVERDUE = 5.0                       # seconds after which a UA has not refreshed as it was told: it is asked
APART = 0.002                       # seconds between two keep-alives: 500 a second, never a burst
SPREAD = 0.1                        # by how much of it an interval is shortened, so that all spread evenly


class KeepAlives:
    """Plans and makes keep-alives, and takes the answers."""

    def __init__(self, settings: FarEndSettings, ends: FarEnds, realms: Realms, mappings: Mappings,
                 deadlines: Deadlines, counters: Counter[str]) -> None:
        self.follow(settings)
        self._ends = ends
        self._realms = realms
        self._mappings = mappings
        self._deadlines = deadlines
        self._counters = counters
        self._next_slot = 0.0
        self._sources: dict[str, Endpoint] = {}     # Call-ID of the REGISTERs -> where they last came from

    def follow(self, settings: FarEndSettings) -> None:
        """Take other settings; :meth:`resume` plans by them."""
        self._kind = settings.keep_open if settings.fix == "auto" else "never"
        self._every, self._longest = float(settings.keep_open_every), float(settings.keep_open_longest)

    # -- what comes from outside ------------------------------------------------------------------

    def take(self, packet: Packet, message: Message | None, now: float) -> tuple[bool, list[Note]]:
        """Take note of a packet from outside; True where it answers an OPTIONS of natfix's own.

        Such an answer is for nobody else, whoever sent it.
        """
        far = self._ends.find(packet.source)
        is_answer = message is not None and not message.is_request and self._is_own(message)
        if is_answer:
            self._counters["keep-alives answered"] += 1
        if far is None:
            return is_answer, []
        if not is_answer:
            is_back = far.pulse.hear(now)
        elif message is not None and message.status >= 200:
            is_back = far.pulse.answer(message.cseq, now)
            self._plan(far, now)
        else:
            return True, []
        if not is_back:
            return is_answer, []
        self._plan(far, now)
        return is_answer, [_note("far-reachable", far, "it is heard again")]

    def _is_own(self, message: Message) -> bool:
        """Tell whether a response is to an OPTIONS of natfix's own: only the top Via can tell that."""
        if message.cseq_method != "OPTIONS" or not message.branch.startswith(BRANCH):
            return False
        try:
            return message.via.sent_by.host in self._realms.own_hosts
        except MalformedMessage:
            return False

    # -- when ----------------------------------------------------------------------------------------

    def on_response(self, turn: Turn, far: FarEnd) -> None:
        """Take note of who has accepted a UA's REGISTER, and of where that has sent it."""
        message = turn.message
        if message.cseq_method != "REGISTER" or not 200 <= message.status < 300 or turn.sender is None:
            return
        far.registrar, far.reached_at = turn.sender.inside, turn.sender.outside
        if far.is_registered(turn.now):
            self._take_over(far, message, turn.now)
            self.on_registered(far, turn.now)

    def _take_over(self, far: FarEnd, message: Message, now: float) -> None:
        """The same UA (Call-ID) has registered from elsewhere before: its NAT has forgotten it meanwhile."""
        old = self._ends.find(self._sources.pop(message.call_id, far.source))
        self._sources[message.call_id] = far.source
        if len(self._sources) > MOST_SOURCES:
            del self._sources[next(iter(self._sources))]
        if old is None or old is far:
            return
        self._ends.bind(old, aor_of(message), 0.0, now)
        far.pulse.inherit(old.pulse, self._every, now)

    def on_registered(self, far: FarEnd, now: float) -> None:
        """Plan for a UA whose REGISTER was accepted now, or before and that still holds."""
        far.pulse.register(now)
        self._plan(far, now)

    def resume(self, now: float) -> None:
        """Plan for all that are known from before a restart, one after the other."""
        for far in self._ends:
            if self._kind != "never" and far.is_registered(now):
                self._deadlines.set((KEEP_ALIVE, far.source), now + self._every * _share(far.source))

    def _plan(self, far: FarEnd, now: float) -> None:
        self._deadlines.set((KEEP_ALIVE, far.source), max(self._due(far), now))

    def _due(self, far: FarEnd) -> float:
        """Return when the next keep-alive is due; NEVER where none is."""
        pulse = far.pulse
        if pulse.waiting:
            return pulse.sent_at + ANSWER_WAIT
        if self._kind == "never":
            return NEVER
        if pulse.missed:
            return pulse.sent_at + pulse.retry_after(self._every)
        if self._kind == "refresh" and pulse.told:
            overdue = max(pulse.heard_at, pulse.sent_at) + pulse.told + OVERDUE
            return min(overdue, pulse.speaks_at()) if self._is_probing(far) else overdue
        silence = pulse.allowed(self._every, self._longest)
        return max(pulse.heard_at, pulse.sent_at) + silence * (1 - SPREAD * _share(far.source))

    def _is_probing(self, far: FarEnd) -> bool:
        """Tell whether a UA that refreshes by itself is to be asked just before, how its NAT is."""
        pulse = far.pulse
        return (self._longest > self._every and pulse.gap > 0 and not pulse.is_deaf
                and pulse.sent_at < pulse.registered_at)

    def handle_deadline(self, source: Endpoint, now: float) -> tuple[list[SendPacket], list[Note]]:
        """Do what is due for the far UA at *source*."""
        far = self._ends.find(source)
        if far is None or not far.is_registered(now):
            return [], []
        notes = []
        pulse = far.pulse
        if pulse.waiting and now >= pulse.sent_at + ANSWER_WAIT and pulse.miss(now):
            notes.append(_note("far-silent", far, "it answers no OPTIONS; empty packets keep its NAT open")
                         if pulse.is_deaf else
                         _note("far-unreachable", far, "it has not answered three times"))
        due = self._due(far)
        if due > now or not self._has_slot(far, now):
            self._deadlines.set((KEEP_ALIVE, source), max(due, pulse.slot))
            return [], notes
        pulse.slot = 0.0
        return self._send(far, now), notes

    def _has_slot(self, far: FarEnd, now: float) -> bool:
        """Tell whether it is the UA's turn; where many are due at once each gets a time of its own."""
        if far.pulse.slot and far.pulse.slot <= now:
            return True
        if self._next_slot <= now and not far.pulse.slot:
            self._next_slot = now + APART
            return True
        if not far.pulse.slot:
            far.pulse.slot, self._next_slot = self._next_slot, self._next_slot + APART
        return False

    # -- what ------------------------------------------------------------------------------------------

    def _send(self, far: FarEnd, now: float) -> list[SendPacket]:
        outside, pulse = self.way_to(far), far.pulse
        if outside is None:
            return []       # until it registers anew
        if self._kind == "packet" or pulse.is_deaf:
            pulse.sent_at, payload = now, EMPTY
        else:
            pulse.ask(now)
            payload = _options(far, outside, now)
        self._counters["keep-alives"] += 1
        self._plan(far, now)
        return [SendPacket(outside, far.source, payload)]

    def way_to(self, far: FarEnd) -> Endpoint | None:
        """Return the outside endpoint that the UA's NAT lets in from; None where it is not the PBX's."""
        outside, registrar = far.reached_at, far.registrar
        if outside is None or registrar is None or outside.host not in self._realms.own_hosts:
            return None
        holder, mapping = self._mappings.find_outside(outside), self._mappings.find(registrar)
        if (holder and holder.inside != registrar) or (mapping and mapping.outside != outside):
            return None
        return outside


def _options(far: FarEnd, outside: Endpoint, now: float) -> bytes:
    """Return an OPTIONS for a UA as it knows itself (RFC 3261, section 11); any answer will do."""
    user = next(reversed(far.written), "")
    uri = f"sip:{user}{'@' if user else ''}{far.written_for(user) or far.source}"
    token = f"{crc32(str(far.source).encode()):08x}{far.pulse.serial:x}"
    return "\r\n".join((
        f"OPTIONS {uri} SIP/2.0",
        f"Via: SIP/2.0/UDP {outside};branch={BRANCH}{token}x{int(now * 1000) & 0xFFFFFF:x};rport",
        "Max-Forwards: 70",
        f"From: <sip:keep-alive@{outside}>;tag={token}",
        f"To: <{uri}>",
        f"Call-ID: {token}@{outside.host}",
        f"CSeq: {far.pulse.serial} OPTIONS",
        "Accept: application/sdp",
        "Content-Length: 0",
        "", "",
    )).encode("latin-1")


def _share(source: Endpoint) -> float:
    """Return a number from 0 to 1 that is always the same for a UA, and evenly spread over many."""
    return crc32(str(source).encode()) / 0xFFFFFFFF


def _note(rule: str, far: FarEnd, reason: str) -> Note:
    return Note(rule, reason=f"{far.source}: {reason}")
