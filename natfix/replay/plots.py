"""Media over time, one small plot per stream: packets per second, gaps, and directions without any.

As with ladders, only geometry is made here; the template draws it. All plots of one call share their time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from natfix.replay.model import Conversation, MediaKind, NetworkView, Passage, Side, Stream
from natfix.sip.message import Message

WIDTH, HEIGHT = 1000.0, 40.0    # of a plot, in its own units
MOST_PLOTS = 12                 # of one call
HEADROOM = 1.15                 # the highest rate reaches so far below the top
LEAST_SPAN = 1.0                # seconds; of a plot's axis
PLOTTED = (MediaKind.RTP, MediaKind.UDPTL)
TALK = 3.0                      # seconds of media in one direction, before its absence in the other is shown


class Gap(NamedTuple):
    """A silence."""

    x: float
    width: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Plot:
    """One stream, or a direction in which there is none (``stream`` None)."""

    way: str                        # "outward", "inward", "inside", "outside", "" where it is not known
    where: str                      # on which side it was captured, "" where that says nothing
    stream: Stream | None
    path: str = ""                  # of an SVG path, filled
    gaps: tuple[Gap, ...] = ()
    peak: float = 0.0               # packets per second
    mean: float = 0.0


@dataclass(frozen=True, slots=True)
class Plots:
    """The media of one call."""

    rows: tuple[Plot, ...]
    start: float
    seconds: float
    left_out: int


def plots_of(conversation: Conversation, network: NetworkView) -> Plots | None:
    """Return plots of a call's media, None where it has none."""
    streams = [each for each in conversation.streams if each.kind in PLOTTED and each.packets > 1]
    if not streams:
        return None
    start = min(each.start for each in streams)
    end = max(each.end for each in streams)
    answered = _answer_time(conversation)
    if answered:
        start = min(start, answered)
    seconds = max(end - start, LEAST_SPAN)
    highest = max(_rate(each) for each in streams)
    streams.sort(key=lambda each: (_WAYS.index(_way(each, network)), each.side != Side.INSIDE, each.start))
    sides = {each.side for each in streams}
    rows = [_plot(each, network, start, seconds, highest, len(sides) > 1) for each in streams[:MOST_PLOTS]]
    rows += _missing(streams, network, conversation)
    return Plots(tuple(rows), start, seconds, max(0, len(streams) - MOST_PLOTS))


_WAYS = ("outward", "inward", "inside", "outside", "")


def _way(stream: Stream, network: NetworkView) -> str:
    """Return in which direction a stream crosses the gateway."""
    source, destination = network.side_of(stream.source.host), network.side_of(stream.destination.host)
    if network.outside in (stream.source.host, stream.destination.host):
        return "outward" if stream.source.host == network.outside else "inward"
    return _BY_SIDES.get((source, destination), "")


_BY_SIDES = {
    (Side.INSIDE, Side.OUTSIDE): "outward", (Side.OUTSIDE, Side.INSIDE): "inward",
    (Side.INSIDE, Side.INSIDE): "inside", (Side.OUTSIDE, Side.OUTSIDE): "outside",
}


def _missing(streams: list[Stream], network: NetworkView, conversation: Conversation) -> Iterable[Plot]:
    """Yield the direction that has no media, where the other has, and the call was answered."""
    ways = {_way(stream, network) for stream in streams if stream.kind is MediaKind.RTP}
    longest = max((stream.end - stream.start for stream in streams), default=0.0)
    if longest < TALK or not _answer_time(conversation):
        return
    for way, other in (("outward", "inward"), ("inward", "outward")):
        if way not in ways and other in ways:
            yield Plot(way, "", None)


def _answer_time(conversation: Conversation) -> float:
    """Return when the call was answered, 0.0 where it was not."""
    for transaction in conversation.of("INVITE"):
        final = transaction.final
        if final is not None and _is_success(final):
            return final.time
    return 0.0


def _is_success(passage: Passage) -> bool:
    message: Message | None = passage.message
    return message is not None and message.status < 300


def _rate(stream: Stream) -> float:
    return max(stream.bins, default=0) / stream.bin_width


def _plot(
    stream: Stream, network: NetworkView, start: float, seconds: float, highest: float, names_side: bool,
) -> Plot:
    scale = WIDTH / seconds
    gaps = tuple(
        Gap(round((begin - start) * scale, 1), round(max((end - begin) * scale, 1.0), 1), end - begin)
        for begin, end in stream.gaps)
    lasted = max(stream.end - stream.start, stream.bin_width)
    where = str(stream.side) if names_side and stream.side is not Side.UNKNOWN else stream.stage
    return Plot(_way(stream, network), where, stream, _path(stream, start, scale, highest), gaps,
                _rate(stream), stream.packets / lasted)


def _path(stream: Stream, start: float, scale: float, highest: float) -> str:
    """Return steps, one per bin; what came in the last, unfinished one is taken by its own length."""
    if highest <= 0 or not stream.bins:
        return ""
    x = (stream.start - start) * scale
    parts = [f"M{x:.1f} {HEIGHT:.0f}"]
    for place, count in enumerate(stream.bins):
        begins = stream.start + place * stream.bin_width
        ends = min(begins + stream.bin_width, max(stream.end, begins + 0.1))
        rate = count / max(ends - begins, stream.bin_width / 2)
        y = HEIGHT - min(rate / (highest * HEADROOM), 1.0) * HEIGHT
        parts.append(f"V{y:.1f}H{(ends - start) * scale:.1f}")
    return "".join([*parts, f"V{HEIGHT:.0f}Z"])
