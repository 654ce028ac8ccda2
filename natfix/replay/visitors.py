"""Visitors: what each host, inside or out, asked for over all its conversations: so strangers show."""

from __future__ import annotations

from natfix.errors import MalformedMessage
from natfix.replay.model import Context, Direction, Passage, Visitor
from natfix.sip.fields import address_at, uri_at
from natfix.sip.message import Message

MOST_VISITORS = 4096
MOST_USERS = 200            # that are remembered of one visitor
IN_DIALOG = frozenset({"ACK", "BYE", "CANCEL", "PRACK", "UPDATE", "INFO", "NOTIFY"})


class Visitors:
    """Takes every passage once; what it learns stands in the context."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def note(self, passage: Passage) -> None:
        """Take one passage."""
        message = passage.message
        if message is None:
            return
        last = passage.last
        if message.is_request and passage.direction is Direction.OUTWARD:
            known = self._visitor(passage, last.destination.host)
            if known is not None:
                known.is_known = True
        if message.is_request and passage.repeats is None:
            self._note_request(passage, message)
        elif message.status >= 200:
            visitor = self._context.visitors.get(last.destination.host)
            if visitor is not None:
                visitor.answers[message.status] = visitor.answers.get(message.status, 0) + 1

    def _note_request(self, passage: Passage, message: Message) -> None:
        visitor = self._visitor(passage, passage.first.source.host)
        if visitor is not None and message.cseq_method == "NOTIFY":
            visitor.notifies = True
        if visitor is None or message.to_tag or message.cseq_method in IN_DIALOG:
            return
        visitor.last_packet = passage.first.packet
        visitor.user_agent = visitor.user_agent or message.user_agent
        visitor.requests[message.cseq_method] = visitor.requests.get(message.cseq_method, 0) + 1
        user = _asked_for(message)
        if user and len(visitor.users) < MOST_USERS:
            visitor.users.setdefault(user, passage.first.packet)

    def _visitor(self, passage: Passage, host: str) -> Visitor | None:
        visitors = self._context.visitors
        visitor = visitors.get(host)
        if visitor is None and len(visitors) < MOST_VISITORS:
            packet = passage.first.packet
            side = self._context.network.side_of(host)
            visitor = visitors[host] = Visitor(host, side, passage.time, packet, packet)
        return visitor


def _asked_for(message: Message) -> str:
    """Return the user that a request is for: of a REGISTER the one in To."""
    header = message.first("to") if message.cseq_method == "REGISTER" else None
    try:
        if header is None:
            return uri_at(message.raw, *message.request_uri).user
        uri = address_at(message.raw, header.start, header.end).uri
        return uri.user if uri is not None else ""
    except MalformedMessage:
        return ""
