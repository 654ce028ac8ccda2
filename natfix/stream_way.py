"""One direction of a relayed TCP connection: what its source sent and was told, and what its sink is owed."""

from __future__ import annotations

from natfix.address import Endpoint
from natfix.segment import DEFAULT_MSS, Segment, opening_of
from natfix.stream_framing import Framer
from natfix.stream_receiver import Receiver
from natfix.stream_sender import Sender

LARGEST_WINDOW = 1 << 18        # octets offered; an end that reads slowly must not fill natfix's memory
LARGEST_MSS = 65_000            # octets: IP and TCP options have to fit into a packet, too
STAMPS_LENGTH = 12              # octets of a segment that timestamps take (RFC 7323)


class Way:
    """One direction: what its source has sent and its sink is owed, and what the source was told."""

    __slots__ = ("echo", "edge", "framer", "largest", "load", "mss", "receiver", "scale", "sender", "sink",
                 "sink_scale", "source", "stamp", "told", "told_window")

    def __init__(self, syn: Segment, other: Segment, source: Endpoint, sink: Endpoint) -> None:
        """*syn* is the source's, *other* the sink's; own packets go from *source* to *sink*."""
        ours, theirs = opening_of(syn), opening_of(other)
        has_stamps = ours.timestamps and theirs.timestamps
        start = syn.sequence + 1
        self.source, self.sink = source, sink
        has_scales = ours.scale is not None and theirs.scale is not None
        self.scale, self.sink_scale = (ours.scale or 0, theirs.scale or 0) if has_scales else (0, 0)
        self.mss = min(theirs.mss, LARGEST_MSS) - STAMPS_LENGTH * has_stamps    # what the sink takes at once
        self.largest = DEFAULT_MSS          # octets of the source's largest segment: the path bears them
        self.receiver = Receiver(start)
        self.framer = Framer()
        self.sender = Sender(start, min(self.mss, self.largest), other.window)
        self.stamp = syn.timestamps[0] if has_stamps and syn.timestamps else None   # the source's last one
        self.echo = self.stamp              # the one of octets in order, for the source (RFC 7323, 4.3)
        self.told = start                   # what the source has seen acknowledged
        self.told_window = other.window     # the window field that it has seen, scaled
        self.edge = start                   # right edge of that window: never taken back
        self.load = 0                       # octets held for this direction, as the budget has them

    def measure(self) -> int:
        """Count what is held; return by how much it grew."""
        load = self.framer.held + self.sender.owed + self.receiver.ahead
        grown, self.load = load - self.load, load
        return grown

    @property
    def shift(self) -> int:
        """How far the sink's numbers are from the source's, as far as octets have gone on."""
        return self.sender.limit + self.framer.held - self.receiver.expected

    @property
    def acknowledged(self) -> int:
        """The number that the source is told to be next.

        What nobody looks at is acknowledged by the sink: then the ends can soon go on by themselves.
        """
        if self.framer.is_opaque and not self.shift:
            return max(self.told, self.sender.una)
        return self.receiver.expected

    @property
    def is_clean(self) -> bool:
        """Whether both ends could go on by themselves: the source repeats what the sink does not have.

        Of SIP it would repeat what it has said, not what natfix has made of it.
        """
        sender = self.sender
        has_all = sender.una == sender.limit or not self.framer.began
        return self.framer.is_opaque and not self.shift and self.told <= sender.una and has_all \
            and sender.next == sender.limit and not self.receiver.ahead

    @property
    def window(self) -> int:
        """The window field for the source: what the sink takes beyond what it is owed already.

        What natfix holds of a message does not count, else a message larger than the window would never come
        whole.
        """
        room = min(self.sender.window, LARGEST_WINDOW) - self.sender.owed
        return min(max(room, self.edge - self.receiver.expected, 0) >> self.sink_scale, 0xFFFF)

    def offer(self) -> int:
        """Return the window field for the source, which is told now, with what is acknowledged."""
        self.told_window = window = self.window
        self.told = self.acknowledged
        self.edge = self.told + (window << self.sink_scale)
        return window

    @property
    def has_news(self) -> bool:
        """Whether the source does not know what it could be told."""
        is_narrow = self.told_window != self.window and not self.receiver.is_finished
        return is_narrow or self.told != self.acknowledged

    def clear(self) -> None:
        """End at once: nothing is owed any more."""
        self.framer = Framer()
        self.sender = Sender(self.sender.highest, self.mss, 0)
        self.receiver = Receiver(self.receiver.expected)
