"""Who wants media where in a call, and what media was seen: what the rules about audio ask."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from natfix.address import Endpoint
from natfix.replay.model import (
    Context,
    Conversation,
    Direction,
    MediaKind,
    Passage,
    Side,
    Sighting,
    Stream,
    Vantage,
)
from natfix.replay.symptoms.reading import sdp_of
from natfix.sdp import Media, Session

SOME_AUDIO = 50         # RTP packets that are surely audio: a second of it
HOLD_HOST = "0.0.0.0"


class Said(NamedTuple):
    """One stream of a session description, as it stood in one copy of a message."""

    passage: Passage
    copy: Sighting
    session: Session
    media: Media

    @property
    def endpoint(self) -> Endpoint:
        connection = self.media.effective
        return Endpoint(connection.host if connection else "", self.media.port)

    @property
    def is_wanted(self) -> bool:
        """It asks for media now: no port 0, no hold by 0.0.0.0, and not only to send."""
        host = self.endpoint.host
        return self.media.port not in (0, 9) and host not in ("", HOLD_HOST) \
            and self.media.direction in ("sendrecv", "recvonly")


@lru_cache(maxsize=8)       # several rules ask the same of the conversation at hand
def said(conversation: Conversation, direction: Direction, side: Side) -> tuple[Said, ...]:
    """Return the streams of all descriptions that went one way, as seen on one side of the NAT."""
    return tuple(_said(conversation, direction, side))


def _said(conversation: Conversation, direction: Direction, side: Side) -> Iterator[Said]:
    for passage in conversation.passages:
        if passage.direction is not direction or passage.repeats is not None:
            continue
        copy = passage.at(side)
        session = sdp_of(copy.message) if copy is not None and copy.message is not None else None
        if copy is not None and session is not None:
            yield from (Said(passage, copy, session, media) for media in session.media)


def answer_time(conversation: Conversation) -> float | None:
    """Return when the call was answered, None where no 2xx to its INVITE was seen."""
    for transaction in conversation.of("INVITE"):
        final = transaction.final
        if final is not None and final.message is not None and final.message.status < 300:
            return final.time
    return None


def end_time(conversation: Conversation, context: Context) -> float:
    """Return when the call ended: by its BYE, else with the capture."""
    for transaction in conversation.of("BYE"):
        if transaction.requests:
            return transaction.requests[0].time
    return context.end or conversation.passages[-1].time


def rtp(conversation: Conversation, since: float = 0.0) -> list[Stream]:
    """Return the RTP streams that went on after *since*."""
    return [each for each in conversation.streams if each.kind is MediaKind.RTP and each.end > since]


def leaving(streams: list[Stream], context: Context) -> list[Stream]:
    """Return those that an inside host, or the gateway for it, sent to the outside."""
    return [each for each in streams if not _is_inside(each.destination.host, context)
            and each.destination.host != context.network.outside
            and (_is_inside(each.source.host, context) or each.source.host == context.network.outside)]


def arriving(streams: list[Stream], context: Context, side: Side | None = None) -> list[Stream]:
    """Return those from outside to an inside host, or to the gateway for it; as seen on *side* only."""
    return [each for each in streams if not _is_inside(each.source.host, context)
            and each.source.host != context.network.outside
            and (_is_inside(each.destination.host, context)
                 or each.destination.host == context.network.outside)
            and (side is None or each.side is side)]


def heard(streams: list[Stream], context: Context) -> list[Stream]:
    """Return those that came to an inside host; to the gateway where the capture does not show more."""
    is_shown = context.network.vantage in (Vantage.BOTH, Vantage.ANY)
    return arriving(streams, context, Side.INSIDE if is_shown else None)


def count(streams: list[Stream]) -> int:
    """Return the packets of all *streams*, each packet counted at one point only."""
    by_point: dict[tuple[str, str, Side], int] = {}
    for each in streams:
        key = each.stage, each.interface, each.side
        by_point[key] = by_point.get(key, 0) + each.packets
    return max(by_point.values(), default=0)


def _is_inside(host: str, context: Context) -> bool:
    return context.network.side_of(host) is Side.INSIDE
