"""What went over the cables of a lab, and which packet decided that something did not work."""

from __future__ import annotations

import re
import socket
import struct
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.lab.compare import CALL_ID, CSEQ
from tests.lab.namespaces import SWITCH
from tests.lab.pcap import Datagram
from tests.lab.programs import Capture
from tests.lab.topology import GATEWAY_ADDRESS, INSIDE, INSIDE2, OUTSIDE

if TYPE_CHECKING:
    from tests.lab.lab import Lab

Endpoint = tuple[str, int]
Key = tuple[bytes, bytes, bytes, bytes]
INSIDE_NET = "192.168."
GATEWAY = ("192.168.1.1", "192.168.2.1", GATEWAY_ADDRESS)
MORE_FRAGMENTS, OFFSET = 0x2000, 0x1FFF
TRYING = b"SIP/2.0 100"     # is for the next hop only
# What phones and proxies make up anew in each run: baresip's Contact user, and the parameters of a URI.
INVENTED = re.compile(r"-0x[0-9a-f]+(?=@)|;[^ ]*")
WRITTEN = 0.15      # seconds until tcpdump has written down what was just sent


class Tap:
    """Captures on every cable of a lab, for the whole of its life."""

    def __init__(self) -> None:
        self._captures: dict[str, Capture] = {}

    def start(self, lab: Lab) -> None:
        """Listen on the bridges, which see what any two hosts send each other."""
        for subnet in (INSIDE, INSIDE2, OUTSIDE):
            self._captures[subnet] = lab.start(Capture(SWITCH, subnet, "udp"))

    def read(self) -> Trace:
        """Return all that was captured so far."""
        time.sleep(WRITTEN)
        seen = {subnet: list(datagrams(capture.path)) for subnet, capture in self._captures.items()}
        return Trace([*seen[INSIDE], *seen[INSIDE2]], seen[OUTSIDE])


class Flow(NamedTuple):
    """Datagrams from one port to one other, as their sender sent them; *last* is when it sent the last."""

    source: Endpoint
    destination: Endpoint
    sent: int
    last: float
    arrived: Counter[Endpoint]      # how many reached the listener, by the port they arrived at
    shown: Counter[Endpoint]        # and from where they seemed to come
    astray: Counter[Endpoint]       # who else there got them

    @property
    def delivered(self) -> int:
        """How many reached the listener's host, at whatever port."""
        return sum(self.arrived.values())

    def __str__(self) -> str:
        text = f"{self.sent} packets {_text(self.source)} -> {_text(self.destination)}, "
        if self.source[0].startswith("203.") and self.destination[0].startswith(INSIDE_NET):
            return f"{text}an inside address"
        places = [f"{count} arrived at {_text(end)}" for end, count in self.arrived.most_common(2)]
        places += [f"{count} at {_text(end)}" for end, count in self.astray.most_common(1)]
        origin = f" from {_text(self.shown.most_common(1)[0][0])}" if self.shown else ""
        return f"{text}{', '.join(places) or 'none arrived'}{origin}"


class Trace:
    """Datagrams on the inside cables and on the outside ones."""

    def __init__(self, inside: list[Datagram], outside: list[Datagram]) -> None:
        self.inside, self.outside = inside, outside

    def lost_message(self) -> str:
        """Return a sentence on the first SIP message that no copy of reached the other side; "" for none."""
        entered: list[tuple[Datagram, str]] = []
        left: dict[str, set[Key]] = {INSIDE: set(), OUTSIDE: set()}
        for side, seen in ((INSIDE, self.inside), (OUTSIDE, self.outside)):
            messages = list(filter(_is_sip, seen))
            left[side] = {_key(each.payload) for each in messages if _is_emitted(each, side)}
            entered += [(each, side) for each in messages if _enters(each, side)]
        for each, side in sorted(entered, key=lambda pair: pair[0].time):
            across = left[INSIDE] | (left[OUTSIDE] if side == INSIDE else set())
            if _key(each.payload) not in across and not each.payload.startswith(TRYING):
                return _lost(each, side, self._answer(each))
        return ""

    def flows(self, speaker: str, ports: range, listener: str) -> list[Flow]:
        """Return what *speaker* (an address) sent from *ports*, and what of it reached *listener*."""
        own, other = (self._side(address) for address in (speaker, listener))
        arrived: dict[bytes, list[Datagram]] = defaultdict(list)
        for each in other:
            source, destination = each.source[0], each.destination[0]
            if destination == listener or (source != speaker and destination not in GATEWAY):
                arrived[_identity(each.payload)].append(each)
        sent: dict[tuple[Endpoint, Endpoint], list[Datagram]] = defaultdict(list)
        for each in own:
            if each.source[0] == speaker and each.source[1] in ports:
                sent[each.source, each.destination].append(each)
        return [Flow(*ends, len(packets), packets[-1].time, *_arrivals(packets, arrived, listener))
                for ends, packets in sent.items()]

    def audio(self, speaker: str, ports: range, listener: str) -> str:
        """Return a sentence on the latest media from *speaker* to *listener*: where it went, what arrived."""
        flows = self.flows(speaker, ports, listener)
        return str(max(flows, key=lambda flow: flow.last)) if flows else f"{speaker} sent nothing"

    def _side(self, address: str) -> list[Datagram]:
        return self.inside if address.startswith(INSIDE_NET) else self.outside

    def _answer(self, lost: Datagram) -> str:
        """Return the failure that the gateway itself answered with, "" where it was silent."""
        call_id, number, method, _ = _key(lost.payload)
        for each in (*self.inside, *self.outside):
            key = _key(each.payload)
            if _is_sip(each) and each.source[0] in GATEWAY and each.time >= lost.time \
                    and key[:3] == (call_id, number, method) and key[3][:1] in b"3456":
                return _title(each.payload)
        return ""


def datagrams(path: Path) -> Iterator[Datagram]:
    """Yield the UDP datagrams of a pcap file that tcpdump still writes, put together from their fragments."""
    pieces: dict[tuple[bytes, bytes], dict[int, tuple[bytes, bool]]] = defaultdict(dict)
    for moment, packet in _ip_packets(path):
        start, flags = (packet[0] & 15) * 4, struct.unpack_from("!H", packet, 6)[0]
        data = packet[start:struct.unpack_from("!H", packet, 2)[0]]
        if flags & (MORE_FRAGMENTS | OFFSET):
            found = pieces[packet[12:20], packet[4:6]]
            found[(flags & OFFSET) * 8] = data, not flags & MORE_FRAGMENTS
            data = _joined(found)
        if len(data) >= 8:
            sport, dport = struct.unpack_from("!HH", data)
            yield Datagram(moment, (socket.inet_ntoa(packet[12:16]), sport),
                           (socket.inet_ntoa(packet[16:20]), dport), data[8:])


def _ip_packets(path: Path) -> Iterator[tuple[float, bytes]]:
    raw, offset = path.read_bytes(), 24
    while offset + 16 <= len(raw):
        seconds, micros, size, _ = struct.unpack_from("<IIII", raw, offset)
        frame = raw[offset + 16:offset + 16 + size]
        offset += 16 + size
        if len(frame) == size and frame[12:14] == b"\x08\x00" and size >= 34:
            yield seconds + micros / 1e6, frame[14:]


def _joined(pieces: dict[int, tuple[bytes, bool]]) -> bytes:
    """Return a datagram once all its fragments are there."""
    data, complete = b"", False
    while not complete and len(data) in pieces:
        piece, complete = pieces[len(data)]
        data += piece
    return data if complete else b""


def _arrivals(sent: Iterable[Datagram], arrived: dict[bytes, list[Datagram]], listener: str
              ) -> tuple[Counter[Endpoint], Counter[Endpoint], Counter[Endpoint]]:
    found = [same[0] for each in sent if (same := arrived.get(_identity(each.payload)))]
    right = [each for each in found if each.destination[0] == listener]
    return (Counter(each.destination for each in right), Counter(each.source for each in right),
            Counter(each.destination for each in found if each.destination[0] != listener))


def _identity(payload: bytes) -> bytes:
    """What no relay changes: of RTP its header (sequence, timestamp, SSRC), else all."""
    is_rtp = len(payload) >= 12 and payload[0] >> 6 == 2 and not 200 <= payload[1] <= 204
    return payload[2:12] if is_rtp else payload


def _is_sip(datagram: Datagram) -> bool:
    return b"SIP/2.0" in datagram.payload.partition(b"\n")[0]


def _enters(datagram: Datagram, side: str) -> bool:
    """Tell whether a host of *side* sent this to the gateway, or to where it should get through it."""
    source, destination = datagram.source[0], datagram.destination[0]
    if source in GATEWAY or source.startswith(INSIDE_NET) != (side == INSIDE):
        return False
    if side == OUTSIDE:
        return destination == GATEWAY_ADDRESS or destination.startswith(INSIDE_NET)
    return destination in GATEWAY or destination.rpartition(".")[0] != source.rpartition(".")[0]


def _is_emitted(datagram: Datagram, side: str) -> bool:
    """Tell whether the gateway sent this to a host of *side*, or let it through."""
    source = datagram.source[0]
    return source in GATEWAY or source.startswith(INSIDE_NET) != (side == INSIDE)


def _key(payload: bytes) -> Key:
    """Call-ID, CSeq and kind: what stays on both sides of a gateway, also of a proxy."""
    call_id, cseq = CALL_ID.search(payload), CSEQ.search(payload)
    first = payload.split(b" ", 2)
    kind = first[1] if first[0] == b"SIP/2.0" else b"request " + first[0]
    return (call_id[1].strip() if call_id else b"", cseq[1] if cseq else b"", cseq[2] if cseq else b"", kind)


def _title(payload: bytes) -> str:
    first = INVENTED.sub("", payload.partition(b"\r\n")[0].decode(errors="replace"))
    cseq = CSEQ.search(payload)
    if first.startswith("SIP/2.0 "):
        return f"{first[8:]} ({cseq[2].decode() if cseq else '?'})"
    return first.removesuffix(" SIP/2.0")


def _lost(datagram: Datagram, side: str, answer: str) -> str:
    size = f" of {len(datagram.payload)} bytes" if len(datagram.payload) > 1400 else ""
    text = f"{_title(datagram.payload)}{size}, {_text(datagram.source)} -> {_text(datagram.destination)}, "
    if side == OUTSIDE and datagram.destination[0].startswith(INSIDE_NET):
        return f"{text}an inside address"
    return f"{text}the gateway answered {answer}" if answer else f"{text}did not pass the gateway"


def _text(endpoint: Endpoint) -> str:
    return f"{endpoint[0]}:{endpoint[1]}"
