"""Media packets, summed up as streams: RTP, RTCP, STUN and DTLS by their looks, UDPTL where an SDP names it.

This sees every packet of a capture that is not SIP, so it works on octets, and builds objects only for
streams. The table is bounded: streams that have been silent longest are finished and set aside; of those
the ones with most packets are kept.
"""

from __future__ import annotations

import heapq
import re
from struct import Struct

from natfix.address import Endpoint
from natfix.replay.ip import host_of, packed_host
from natfix.replay.model import Frame, MediaKind, PacketId, Side, Stream

MOST_ACTIVE = 4096
MOST_FINISHED = 6000
MOST_NAMES = 20_000             # endpoints that SDP or SIP named
IDLE = 120.0                    # seconds after which a stream can be set aside
UNCONFIRMED = 5.0               # seconds that a single packet waits for the second one of its source
MOST_BINS = 600
MOST_GAPS = 20
SHORTEST_GAP = 1.0              # seconds
LOWEST_PORT = 1024              # well-known ports carry no media
SHORTEST_UDPTL = 6              # octets: ITU-T T.38, 9.1; shorter ones keep NAT mappings open
MOST_MEDIA = 32                 # of one SDP
# RFC 3550, appendix A.1: how far sequence numbers may go ahead, or come late.
MOST_DROPPED, MOST_LATE = 3000, 100

COOKIE = b"\x21\x12\xa4\x42"    # RFC 5389, section 6
OLD_STUN_TYPES = (b"\0\x01", b"\x01\x01", b"\x01\x11")      # RFC 3489: binding
DTLS_VERSIONS = (b"\xfe\xff", b"\xfe\xfd", b"\x01\x00")
DTLS_TYPES = range(20, 26)      # RFC 6347; 25 is RFC 9146's
RTCP_TYPES = range(200, 208)    # RFC 3550, 4585, 3611
# RTP payload types that nothing else looks like: 64 to 95 could be RTCP (RFC 5761, section 4).
RTP_TYPES = frozenset((*range(64), *range(96, 128)))

_U16 = Struct("!H")
_SEQUENCE = Struct("!xBH")
_SDP_LINE = re.compile(
    rb"^(?:c=IN IP[46] ([^\s/]{1,64}+)|m=([a-z]{1,16}+) ([0-9]{1,5}+)\S{0,8}+ (\S{1,32}+))", re.M)

# What a stream is looked up by: addresses, ports and SSRC as in the packet, a mark of the kind, the place.
Key = tuple[bytes, str, str, bool | None, str]


class Seen:
    """A stream while it lasts."""

    __slots__ = (
        "bin_width", "bins", "end", "ends", "first", "frame", "gaps", "is_confirmed", "kind", "last", "lost",
        "octets", "packets", "payload_types", "sequence", "ssrc", "start")

    def __init__(self, kind: MediaKind, ends: bytes, ssrc: bytes, frame: Frame) -> None:
        self.kind, self.ends, self.ssrc = kind, ends, ssrc
        self.frame = frame._replace(data=b"")
        self.start = self.end = frame.time
        self.first = self.last = frame.number
        self.packets = self.octets = self.lost = 0
        self.sequence = -1
        self.is_confirmed = kind is not MediaKind.RTP
        self.payload_types: set[int] = set()
        self.bin_width = 1.0
        self.bins: list[int] = []
        self.gaps: list[tuple[float, float]] = []      # length, start: the longest, as a heap

    def count(self, time: float, number: int, size: int) -> None:
        """Take one packet with *size* octets of payload."""
        self.packets += 1
        self.octets += size
        silence = time - self.end
        if silence > SHORTEST_GAP:
            add = heapq.heappush if len(self.gaps) < MOST_GAPS else heapq.heappushpop
            add(self.gaps, (silence, self.end))
        place = int((time - self.start) / self.bin_width)
        bins = self.bins
        if 0 <= place < len(bins):
            bins[place] += 1
        else:
            self._widen(time)
        if silence > 0:
            self.end = time
        self.last = number

    def _widen(self, time: float) -> None:
        """Count a packet behind the last bin, or before the first."""
        place = max(0, int((time - self.start) / self.bin_width))
        while place >= MOST_BINS:
            self.bins = [sum(self.bins[at:at + 2]) for at in range(0, len(self.bins), 2)]
            self.bin_width *= 2
            place = int((time - self.start) / self.bin_width)
        self.bins += [0] * (place + 1 - len(self.bins))
        self.bins[place] += 1

    def follow(self, payload_type: int, sequence: int) -> None:
        """Take an RTP header's numbers."""
        step = (sequence - self.sequence) & 0xFFFF
        if self.sequence < 0 or step == 0:
            pass
        elif step == 1:
            self.is_confirmed = True
        elif step < MOST_DROPPED:
            self.lost += step - 1
            self.is_confirmed = True
        elif step > 0x10000 - MOST_LATE:
            self.lost -= self.lost > 0
            self.is_confirmed = True
            return
        self.sequence = sequence
        if payload_type not in self.payload_types:
            self.payload_types.add(payload_type)

    def stream(self) -> Stream:
        """Return what was seen."""
        frame = self.frame
        source, destination = _split(self.ends)
        return Stream(
            self.kind, frame.stage, Side.UNKNOWN,
            _endpoint(source), _endpoint(destination),
            int.from_bytes(self.ssrc, "big") if self.ssrc else None, self.payload_types,
            self.start, self.end, PacketId(self.first, frame.file), PacketId(self.last, frame.file),
            self.packets, self.octets, self.lost, self.bin_width, self.bins,
            sorted((start, start + length) for length, start in self.gaps),
            frame.interface, frame.outgoing)


class MediaTable:
    """All streams of all inputs."""

    def __init__(self) -> None:
        self._active: dict[Key, Seen] = {}
        self._finished: list[tuple[int, int, Stream]] = []      # packets, number: a heap
        self._names: dict[bytes, MediaKind] = {}
        self._number = 0
        self.forgotten = 0          # finished streams that are not kept

    def name(self, endpoint: bytes, kind: MediaKind) -> None:
        """Say that packets of *kind* are expected at *endpoint*: address and port, packed.

        OTHER names an endpoint of which everything is to be counted: keep-alives to a SIP port.
        """
        if kind is MediaKind.OTHER and endpoint in self._names:
            return
        self._names.pop(endpoint, None)
        self._names[endpoint] = kind
        if len(self._names) > MOST_NAMES:
            del self._names[next(iter(self._names))]

    def name_from_sdp(self, body: bytes) -> None:
        """Name the endpoints at which a session description expects media."""
        session = b""
        media: list[tuple[bytes, int, MediaKind]] = []
        for address, kind, port, protocol in _SDP_LINE.findall(body):
            if not address:
                is_fax = kind == b"image" and protocol.lower() == b"udptl"
                media.append((session, int(port), MediaKind.UDPTL if is_fax else MediaKind.RTP))
            elif media:
                media[-1] = (packed_host(address), *media[-1][1:])
            else:
                session = packed_host(address)
        for host, number, expected in media[:MOST_MEDIA]:
            if host and 0 < number < 0x10000:
                self.name(host + _U16.pack(number), expected)

    def take(self, frame: Frame, ends: bytes, at: int, size: int) -> bool:
        """Take a UDP payload of *size* octets that begins at *at*; return whether it is media.

        *ends* are both addresses and both ports, packed.
        """
        data = frame.data
        head = data[at:at + 12]
        ssrc, mark, kind = b"", b"", MediaKind.RTP
        if len(head) == 12 and size >= 12 and 0x80 <= head[0] < 0xC0 and head[1] & 0x7F in RTP_TYPES:
            ssrc = head[8:]
        else:
            found = self._kind(ends, head, size)
            if found is None:
                return False
            kind, ssrc, mark = found
        key = (ends + ssrc + mark, frame.interface, frame.stage, frame.outgoing, frame.file)
        seen = self._active.get(key)
        if seen is None:
            seen = self._open(key, kind, ends, ssrc, frame)
            if seen is None:
                return False
        seen.count(frame.time, frame.number, size)
        if kind is MediaKind.RTP:
            second, sequence = _SEQUENCE.unpack_from(head)
            seen.follow(second & 0x7F, sequence)
        return kind is not MediaKind.OTHER

    def streams(self) -> list[Stream]:
        """Return all streams so far, in the order of their first packets."""
        named = [seen.stream() for seen in self._active.values() if self._is_stream(seen)]
        named += [stream for _, _, stream in self._finished]
        return sorted(named, key=lambda stream: stream.start)

    def _kind(self, ends: bytes, head: bytes, size: int) -> tuple[MediaKind, bytes, bytes] | None:
        """Tell what a payload is that is not RTP: its kind, its SSRC, a mark to look its stream up by."""
        if size < 0:
            return None
        if len(head) >= 8:
            first = head[0]
            if 0x80 <= first < 0xC0 and head[1] in RTCP_TYPES and _words(head) * 4 + 4 <= size:
                return MediaKind.RTCP, head[4:8], b"c"
            if first < 4 and size >= 20 and (head[4:8] == COOKIE or self._is_old_stun(head, size)):
                return MediaKind.STUN, b"", b"s"
            if first in DTLS_TYPES and size >= 13 and head[1:3] in DTLS_VERSIONS:
                return MediaKind.DTLS, b"", b"d"
        source, destination = _split(ends)
        expected = self._names.get(source) or self._names.get(destination)
        if expected is None:
            return None
        if expected is MediaKind.UDPTL and size >= SHORTEST_UDPTL:
            return MediaKind.UDPTL, b"", b"u"
        return MediaKind.OTHER, b"", b"o"

    @staticmethod
    def _is_old_stun(head: bytes, size: int) -> bool:
        """Tell whether it is STUN of RFC 3489, which had no cookie: the length must fit."""
        return head[:2] in OLD_STUN_TYPES and _words(head) + 20 == size

    def _open(self, key: Key, kind: MediaKind, ends: bytes, ssrc: bytes, frame: Frame) -> Seen | None:
        """Begin a stream; None where it is none."""
        if kind is MediaKind.RTP and not self._may_be_rtp(ends):
            return None
        if len(self._active) >= MOST_ACTIVE:
            self._make_room(frame.time)
        seen = self._active[key] = Seen(kind, ends, ssrc, frame)
        return seen

    def _may_be_rtp(self, ends: bytes) -> bool:
        return min(_U16.unpack(ends[-4:-2]), _U16.unpack(ends[-2:])) >= (LOWEST_PORT,)

    def _make_room(self, now: float) -> None:
        """Set a quarter of the table aside at least: lone packets first, then what is silent longest."""
        active = self._active
        for key, seen in [*active.items()]:
            patience = IDLE if self._is_stream(seen) else UNCONFIRMED
            if now - seen.end > patience:
                self._finish(key)
        excess = len(active) - MOST_ACTIVE * 3 // 4
        if excess > 0:
            for key in heapq.nsmallest(excess, active, key=lambda each: active[each].end):
                self._finish(key)

    def _finish(self, key: Key) -> None:
        seen = self._active.pop(key)
        if not self._is_stream(seen):
            return
        self._number += 1
        entry = (seen.packets, self._number, seen.stream())
        if len(self._finished) < MOST_FINISHED:
            heapq.heappush(self._finished, entry)
        else:
            heapq.heappushpop(self._finished, entry)
            self.forgotten += 1

    def _is_stream(self, seen: Seen) -> bool:
        """Tell whether it is what it looks like: RTP goes on in sequence, or an SDP named one of its ends."""
        return seen.is_confirmed or any(
            self._names.get(end) is MediaKind.RTP for end in _split(seen.ends))


def _words(head: bytes) -> int:
    """Return the length that RTCP and STUN headers have in one place; RTCP's unit is 32 bits."""
    return head[2] << 8 | head[3]


def _endpoint(packed: bytes) -> Endpoint:
    return Endpoint(host_of(packed[:-2]), _U16.unpack(packed[-2:])[0])


def _split(ends: bytes) -> tuple[bytes, bytes]:
    """Return both packed endpoints."""
    half = (len(ends) - 4) // 2
    return ends[:half] + ends[-4:-2], ends[half:half * 2] + ends[-2:]
