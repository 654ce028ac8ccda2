"""One message's turn: what is known about it while it is being treated."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from natfix.commands import Note, Treated
from natfix.config import Settings
from natfix.dialogs import Call
from natfix.edits import Edits
from natfix.far_ends import FarEnd
from natfix.mappings import Mapping
from natfix.packet import Packet
from natfix.sip.message import Message


@dataclass(slots=True, eq=False)
class Turn:
    """A message, its two ends, and the edits and notes collected so far.

    ``sender`` and ``receiver`` are the signalling mappings of whichever end is inside; both are set
    where two inside UAs talk through the gateway's outside address (hairpinning, RFC 4787, REQ-9).
    ``far_sender`` and ``far_receiver`` are set where the outside end sits behind a NAT of its own.
    """

    packet: Packet
    message: Message
    edits: Edits
    now: float
    sender: Mapping | None
    receiver: Mapping | None
    sender_call: Call | None = None
    receiver_call: Call | None = None
    far_sender: FarEnd | None = None
    far_receiver: FarEnd | None = None
    is_short: bool = False      # a port or a place for its call is missing: natfix.engine, _refuses
    session: bytes = b""        # what tells its session description from others, see natfix.hearsay
    notes: list[Note] = field(default_factory=list)     # why something was left alone

    @property
    def is_stream(self) -> bool:
        """Tell whether the message came out of a TCP connection."""
        return bool(self.packet.source.stream)

    def leave(self, rule: str, header: str, reason: str, old: str = "") -> None:
        """Note why something was left alone."""
        self.notes.append(Note(rule, header, old, old, reason))

    def lack(self, header: str, reason: str, old: str) -> None:
        """Note that a limit is reached, and what is left alone for that."""
        self.is_short = True
        self.leave("limit", header, reason, old)


def summary_of(message: Message) -> str:
    """Return what a message is, in a few words."""
    if message.is_request:
        start, end = message.request_uri
        return f"{message.method} {message.raw[start:end].decode('latin-1')}"
    return f"{message.status} ({message.cseq_method})"


def treated(
    message: Message, packet: Packet, sender: Mapping | None, receiver: Mapping | None, protocol: int,
    octets: bytes,
) -> Treated:
    """Return what went where, with *octets* in the place of the message."""
    return Treated(
        message.call_id, protocol, packet.source, receiver.outside if receiver else packet.destination,
        packet.payload, sender.outside if sender else packet.source, packet.destination, octets)


def waits(message: Message, methods: Collection[str], settings: Settings) -> bool:
    """Tell whether a message for which there is no room begins something by one of *methods*, and is dropped:
    UDP repeats it (RFC 3261, section 17.1.1.2). A call that comes about without audio helps nobody; what
    belongs to a call passes."""
    return settings.signalling.on_failure == "drop" and message.is_request \
        and message.method in methods and not message.to_tag
