"""No new calls: while natfix waits for the last ones to end, who begins another is told 503 at once.

A call that was let through unfixed would have one-way audio; 503 has phones say so, and PBXs and providers
try another way (RFC 3261, section 21.5.4). Everything else is treated as ever: registrations, and all
requests of calls that have begun, retransmissions and credentials included.
"""

from __future__ import annotations

import re
import zlib
from collections import OrderedDict
from collections.abc import Callable, Collection

from natfix.address import Endpoint
from natfix.commands import Note, Outcome, SendPacket, Verdict
from natfix.errors import MalformedMessage, MalformedPacket
from natfix.packet import Packet, packet_from_bytes
from natfix.sip.message import Message, message_from_bytes
from natfix.turn import summary_of

RETRY_AFTER = 60        # seconds
MOST_REFUSED = 4096     # calls whose ACK is taken; a stray one does no harm
RPORT = re.compile(r";\s*rport(?=[;,\s]|$)", re.IGNORECASE)


class Draining:
    """Refuses calls that are none of those that run."""

    def __init__(self, running: Collection[str], outside_of: Callable[[Endpoint], Endpoint | None]) -> None:
        """*running* are the Call-IDs of the calls that run; *outside_of* tells what stands outside for an
        inside endpoint at the link that it names."""
        self._running = frozenset(running)
        self._outside_of = outside_of
        self._refused: OrderedDict[str, None] = OrderedDict()

    def judge(self, raw: bytes, hook: str, in_interface: str = "") -> Outcome | None:
        """Return what is done to a packet that begins a call, None where the engine has to treat it."""
        try:
            packet = packet_from_bytes(raw)
            message = message_from_bytes(packet.payload)
        except (MalformedPacket, MalformedMessage):
            return None
        if not message.is_request or message.call_id in self._running:
            return None
        if message.method == "ACK" and message.call_id in self._refused:
            return Outcome(verdict=Verdict.DROP, call_id=message.call_id, summary=summary_of(message))
        if message.method != "INVITE" or message.to_tag:
            return None
        asked = packet.destination
        if hook == "forward":
            asked = self._outside_of(asked._replace(link=in_interface)) or asked
        return self._refuse(packet, message, asked)

    def _refuse(self, packet: Packet, message: Message, source: Endpoint) -> Outcome:
        self._refused[message.call_id] = None
        if len(self._refused) > MOST_REFUSED:
            self._refused.popitem(last=False)
        note = Note("draining", reason="natfix is being switched off: no new calls", rfc="RFC 3261, 21.5.4")
        outcome = Outcome(verdict=Verdict.DROP, notes=[note], call_id=message.call_id,
                          summary=summary_of(message))
        outcome.send = [SendPacket(source, packet.source, _unavailable(message, packet.source))]
        return outcome


def _unavailable(request: Message, source: Endpoint) -> bytes:
    """Return a 503; the same one for each retransmission, by the To tag that it makes of the Call-ID."""
    vias = [request.raw[each.start:each.end].decode("latin-1") for each in request.all("via")]
    vias[:1] = [RPORT.sub(f";rport={source.port};received={source.host}", each, count=1) for each in vias[:1]]
    tag = f"{zlib.crc32(request.call_id.encode('latin-1')):08x}"
    lines = [
        "SIP/2.0 503 Service Unavailable", *(f"Via: {via}" for via in vias),
        f"From: {request.text('from')}", f"To: {request.text('to')};tag={tag}",
        f"Call-ID: {request.call_id}", f"CSeq: {request.cseq} INVITE", f"Retry-After: {RETRY_AFTER}",
        "Content-Length: 0", "", "",
    ]
    return "\r\n".join(lines).encode("latin-1")
