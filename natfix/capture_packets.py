"""The packets of a `natfix capture`: a message as it arrived and as it left, each with its reasons.

The daemon tells messages and endpoints; the headers around them are made here. Addresses, ports, lengths and
checksums are right; time to live, identification and TCP's numbers are not those of the packets, but fit
each other, so that a reader can put streams together.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator
from typing import Any, NamedTuple

from natfix.address import Endpoint
from natfix.commands import SendSegment
from natfix.explained import is_edit, note_lines
from natfix.masking import masked
from natfix.packet import IP_HEADER, LONGEST, UDP, checksum, datagram
from natfix.segment import ACK, PSH
from natfix.segment import datagram as segment_datagram

BEFORE, AFTER = 0, 1
INTERFACES = (
    ("before", "as it arrived at the gateway"),
    ("after", "as natfix and the NAT let it go"),
)
TTL = (64, 63)              # a router has taken one (RFC 1812, section 5.3.1)
MOST_STREAMS = 4096         # TCP connections whose numbers are known
UNTREATED = {"drop": "DROPPED", "segment": "no message of this segment was treated"}
LONGEST_COMMENT = 30000     # octets; the format's bound is 65,535
WINDOW = 0xFFFF
MSS = LONGEST - 40          # octets of one segment that is made here

Row = dict[str, Any]


class CapturedPacket(NamedTuple):
    """One packet of the file."""

    interface: int
    data: bytes             # from the IP header on
    comment: str


class Packets:
    """Makes packets of the rows that the daemon pushes."""

    def __init__(self, with_secrets: bool = False) -> None:
        """Without *with_secrets*, credentials and keys are made unreadable (:mod:`natfix.masking`)."""
        self._with_secrets = with_secrets
        self._identification = 0
        self._sequences: dict[tuple[int, Endpoint, Endpoint], int] = {}

    def of(self, row: Row) -> Iterator[CapturedPacket]:
        """Yield a message's packets: before and after; one where it was dropped, or is natfix's own."""
        self._identification = self._identification % 0xFFFF + 1
        octets = b64decode(row.get("octets", ""))
        if "source" in row:
            yield from self._packets(BEFORE, row, (row["source"], row["destination"]), octets)
        if "shown_source" in row:
            shown = b64decode(row["shown_octets"]) if "shown_octets" in row else octets
            yield from self._packets(AFTER, row, (row["shown_source"], row["shown_destination"]), shown)

    def _packets(
        self, interface: int, row: Row, endpoints: tuple[list[Any], list[Any]], octets: bytes,
    ) -> Iterator[CapturedPacket]:
        source, destination = (Endpoint(*each) for each in endpoints)
        comment = "\n".join(REASONS[interface](row))[:LONGEST_COMMENT]
        if not self._with_secrets:
            octets, comment = masked(octets), masked(comment.encode()).decode()
        if row["protocol"] == UDP:
            data = datagram(source, destination, octets)
            yield CapturedPacket(interface, self._with_header(interface, data), comment)
            return
        for start in range(0, len(octets), MSS):
            data = self._segment(interface, source, destination, octets[start:start + MSS])
            yield CapturedPacket(interface, self._with_header(interface, data), "" if start else comment)

    def _with_header(self, interface: int, packet: bytes) -> bytes:
        """Fill in what the kernel fills in for natfix's own packets; both sides have one identification."""
        first, service, length, _, fragment, _, protocol, _, source, destination = \
            IP_HEADER.unpack_from(packet)
        fields = (first, service, length, self._identification, fragment, TTL[interface], protocol)
        right = checksum(IP_HEADER.pack(*fields, 0, source, destination))
        return IP_HEADER.pack(*fields, right, source, destination) + packet[IP_HEADER.size:]

    def _segment(self, interface: int, source: Endpoint, destination: Endpoint, octets: bytes) -> bytes:
        if len(self._sequences) > MOST_STREAMS:
            self._sequences.clear()
        sequence = self._sequences.get((interface, source, destination), 1)
        self._sequences[interface, source, destination] = (sequence + len(octets)) & 0xFFFFFFFF
        acknowledged = self._sequences.get((interface, destination, source), 1)
        return segment_datagram(SendSegment(
            source, destination, sequence, acknowledged, ACK | PSH, WINDOW, b"", octets))


def _before(row: Row) -> Iterator[str]:
    """Yield what became of a message, and why as much of it as was left alone was."""
    edits = sum(map(is_edit, row["notes"]))
    what = UNTREATED.get(row["verdict"], f"{edits} edit{'s' * (edits != 1)}" if edits else "accepted")
    where = f" ({row['where']})" if row["where"] else ""
    yield f"natfix: {what}{where}"
    for side, shown in (("source", "shown_source"), ("destination", "shown_destination")):
        if shown in row and row[side] != row[shown]:
            yield f"mapping: {_text(row[side])} -> {_text(row[shown])}"
    yield from (line.strip() for note in row["notes"] if not is_edit(note) for line in note_lines(note))


def _after(row: Row) -> Iterator[str]:
    """Yield what was changed, by which rule and RFC."""
    if row["verdict"] == "own":
        yield "natfix: its own packet"
        yield from (line for note in row["notes"] for line in note_lines(note))
        return
    edits = [note for note in row["notes"] if is_edit(note)]
    if "shown_octets" not in row:
        yield "natfix: nothing changed"
    elif edits:
        yield from (line for note in edits for line in note_lines(note))
    else:
        yield "natfix: changed as it was the first time"


REASONS = (_before, _after)


def _text(endpoint: list[Any]) -> str:
    return str(Endpoint(*endpoint))
