"""SIP messages that were taken apart once, and need not be again: as plain data, or edited."""

from __future__ import annotations

from itertools import chain
from typing import Any

from natfix.edits import EditTuple
from natfix.errors import MalformedMessage
from natfix.sip.fields import HostPort, Via
from natfix.sip.message import Header, Message

Parts = tuple[Any, ...]


def parts_of(message: Message) -> Parts:
    """Return all that was read in *message*, as :mod:`marshal` takes it."""
    try:
        via = message.via
        via_parts = via.start, via.end, via.transport, tuple(via.sent_by), via.params
    except MalformedMessage:
        via_parts = None
    return (
        message.is_request, message.method, message.status, message.reason, message.request_uri,
        tuple(chain.from_iterable(message.headers)), message.body, message.call_id, message.from_tag,
        message.to_tag, message.cseq, message.cseq_method,
        via_parts, message.branch)


def message_from_parts(raw: bytes, parts: Parts) -> Message:
    """Return the message that :func:`parts_of` took apart; *raw* is what it was read from."""
    (is_request, method, status, reason, request_uri, flat, body, call_id, from_tag, to_tag, cseq,
     cseq_method, via, branch) = parts
    values = iter(flat)
    headers = [tuple.__new__(Header, header) for header in zip(values, values, values, strict=True)]
    if via is not None:
        start, end, transport, sent_by, params = via
        via = Via(start, end, transport, HostPort(*sent_by), params)
    return Message(
        raw, is_request, method, status, reason, request_uri, headers, body, call_id, from_tag, to_tag, cseq,
        cseq_method, _firsts(headers), via, branch)


def moved(message: Message, edits: EditTuple, raw: bytes) -> Message:
    """Return what *message* is in *raw*, which has *edits* in it.

    That is what reading *raw* would give, where each edit replaces some of a header's value, or of the
    Request-URI, by text without white space, and none touches what the message is told by: Call-ID, CSeq,
    tags, branch, Content-Length.
    """
    shift, place = 0, 0         # of what is behind the edits so far, which are so many
    ends = [(end, len(new) - (end - start)) for start, end, new in edits]
    ends.append((len(message.raw) + 1, 0))
    limit, grown = ends[0]
    headers: list[Header] = []
    for name, start, end in (("", *message.request_uri), *message.headers, ("", *message.body)):
        while limit <= start:
            shift, place = shift + grown, place + 1
            limit, grown = ends[place]
        start += shift
        while limit <= end:
            shift, place = shift + grown, place + 1
            limit, grown = ends[place]
        headers.append(tuple.__new__(Header, (name, start, end + shift)))
    request_uri, body = headers.pop(0), headers.pop()
    return Message(
        raw, message.is_request, message.method, message.status, message.reason, request_uri[1:], headers,
        body[1:], message.call_id, message.from_tag, message.to_tag, message.cseq, message.cseq_method,
        _firsts(headers), None, message.branch)


def _firsts(headers: list[Header]) -> dict[str, Header]:
    """Return the topmost header of each name."""
    return {header[0]: header for header in reversed(headers)}
