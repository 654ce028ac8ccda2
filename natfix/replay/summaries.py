"""Conversations and passages summed up as rows, before they are forgotten."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from natfix.replay.model import Conversation, Finding, PacketId, Passage, Sighting, Stream, Transaction
from natfix.replay.spool import Row
from natfix.sip.message import Message

MOST_TEXT = 300             # characters of a header or a Request-URI in a summary


def packet_ref(packet: PacketId) -> int | str:
    """Return a packet as JSON names it: its number, or "file:number" where there are several inputs."""
    return str(packet) if packet.file else packet.number


def summary_of(sighting: Sighting) -> str:
    """Return a message in one line: "INVITE sip:bob@example.com", "200 OK (INVITE)"."""
    message = sighting.message
    if message is None:
        if not sighting.payload:
            return f"{sighting.transport.upper()}, {sighting.facts.length} octets, header only"
        return f"unreadable: {sighting.problem}"
    if message.is_request:
        start, end = message.request_uri
        return f"{message.method} {message.raw[start:end][:MOST_TEXT].decode('latin-1')}"
    return f"{message.status} {message.reason[:MOST_TEXT]} ({message.cseq_method})"


def row_from_passage(passage: Passage) -> Row:
    """Return all that the outputs need of a passage."""
    repair = passage.repair
    copy = passage.first
    call_id = copy.message.call_id if copy.message is not None else ""
    if repair is None:
        return Row(
            passage.time, passage.packets, summary_of(copy), call_id, passage.direction, copy.transport,
            copy.source, copy.destination, copy.payload, copy.payload, (), (), datagram=copy.ip,
            is_repeat=passage.repeats is not None)
    copy = next((each for each in passage.sightings if each.payload is repair.before), copy)
    is_whole = copy.transport == "udp" and not copy.facts.cut and not copy.facts.incomplete
    return Row(
        passage.time, passage.packets, summary_of(copy), call_id, passage.direction, copy.transport,
        copy.source, copy.destination, repair.before, repair.after, repair.edits, repair.left_alone,
        repair.dropped, repair.source, repair.destination, copy.ip if is_whole else b"",
        passage.repeats is not None)


def dialog_row(conversation: Conversation, findings: Iterable[Finding], left_out: int = 0) -> dict[str, Any]:
    """Return a conversation as JSON shows it among ``dialogs``."""
    passages = conversation.passages
    first = passages[0].first.message
    assert first is not None
    opening = _opening(conversation)
    final = opening.final.message if opening is not None and opening.final is not None else None
    return {
        "call_id": conversation.call_id,
        "method": opening.method if opening is not None else first.cseq_method,
        "from": _text(first, "from"),
        "to": _text(first, "to"),
        "direction": str(passages[0].direction),
        "start": passages[0].time,
        "end": passages[-1].time,
        "status": final.status if final is not None else 0,
        "messages": len(passages) + left_out,
        "repeats": sum(passage.repeats is not None for passage in passages),
        "packets": [packet_ref(passages[0].first.packet), packet_ref(passages[-1].last.packets[-1])],
        "streams": [_stream_row(stream) for stream in conversation.streams],
        "findings": sorted({finding.code for finding in findings}),
    }


def _opening(conversation: Conversation) -> Transaction | None:
    """Return the transaction that says how it went: the last answered one of the first one's method."""
    transactions = [each for each in conversation.transactions if each.method not in ("ACK", "CANCEL")]
    method = transactions[0].method if transactions else ""
    same = [each for each in transactions if each.method == method]
    answered = [each for each in same if each.final is not None]
    return next(iter([*answered[-1:], *same[-1:]]), None)


def _text(message: Message, name: str) -> str:
    return message.text(name)[:MOST_TEXT]


def _stream_row(stream: Stream) -> dict[str, Any]:
    return {
        "kind": str(stream.kind), "side": str(stream.side), "stage": stream.stage,
        "source": str(stream.source), "destination": str(stream.destination),
        "packets": stream.packets, "lost": stream.lost, "start": stream.start, "end": stream.end,
        "first_packet": packet_ref(stream.first_packet), "last_packet": packet_ref(stream.last_packet),
    }
