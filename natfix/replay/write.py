"""The repaired capture: each message as it was and as natfix would have let it go, with the reasons.

A pcapng file with four interfaces, so that Wireshark can show any side of it: what came to the gateway
(`inside:before`, `outside:before`) and what natfix sends on (`outside:after`, `inside:after`). The reasons
are packet comments. It holds the SIP messages that were carried by UDP; media is not natfix's to change.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from natfix.address import is_ipv4
from natfix.commands import Note
from natfix.errors import ConfigError, MalformedPacket
from natfix.packet import packet_from_bytes, rebuild
from natfix.pcapng import RAW, PcapngWriter
from natfix.replay.gateway import datagram_bytes
from natfix.replay.model import Direction
from natfix.replay.result import Result
from natfix.replay.spool import Row

INTERFACES = {
    "inside:before": "what came to the gateway from inside",
    "outside:after": "the same as natfix sends it on",
    "outside:before": "what came to the gateway from outside",
    "inside:after": "the same as natfix sends it on",
    "other": "what natfix does not touch",
}
WAYS = {
    Direction.OUTWARD: ("inside:before", "outside:after"),
    Direction.INWARD: ("outside:before", "inside:after"),
}
ASIDE = ("other", "other")


def write_repaired(path: str, result: Result) -> None:
    """Write the repaired capture of *result* to *path*; nothing of it is left where that fails.

    Raises ConfigError where *path* is one of the captures, OSError where it cannot be written.
    """
    for file in result.input["files"]:
        if os.path.exists(path) and os.path.exists(file["name"]) and os.path.samefile(path, file["name"]):
            raise ConfigError(f"-o {path} is the capture itself: name another file")
    target, partial = Path(path), Path(f"{path}.part")
    try:
        with PcapngWriter(partial.open("wb"), "natfix-replay") as writer:
            numbers = {name: writer.add_interface(name, words, RAW) for name, words in INTERFACES.items()}
            for row in result.rows():
                for name, data, comment in _packets(row):
                    writer.add_packet(numbers[name], round(row.time * 1e6) * 1000, data, comment=comment)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _packets(row: Row) -> Iterator[tuple[str, bytes, str]]:
    """Yield interface, IP packet and comment: the message before natfix, and after it."""
    before, after = WAYS.get(row.direction, ASIDE)
    data = _before(row)
    if not data:
        return
    said = [f"packet {row.packets[0]} of the capture", *map(_left_alone, row.left_alone)]
    if row.dropped:
        said.append(f"natfix does not let it go on: {row.dropped}")
    yield before, data, "\n".join(said)
    if row.source is not None and row.destination is not None and not row.dropped:
        changes = [_change(note) for note in row.edits] or ["natfix changes nothing"]
        data = datagram_bytes(row.source, row.destination, row.after)
        yield after, _with_checksums(data), "\n".join(changes)


def _before(row: Row) -> bytes:
    """Return the datagram as it was captured, with right checksums; b"" where there was none.

    A capture on the host that sends shows the checksums that its network card had yet to fill in.
    """
    if row.transport != "udp" or not row.before:
        return b""
    if row.datagram:
        return _with_checksums(row.datagram)
    if is_ipv4(row.seen_source.host) and is_ipv4(row.seen_destination.host):
        return _with_checksums(datagram_bytes(row.seen_source, row.seen_destination, row.before))
    return b""


def _with_checksums(datagram: bytes) -> bytes:
    """Return an IPv4/UDP datagram with right checksums; anything else as it is."""
    try:
        packet = packet_from_bytes(datagram)
        return rebuild(packet, packet.payload, 1)
    except MalformedPacket:
        return datagram


def _change(note: Note) -> str:
    why = "; ".join(filter(None, (note.reason, note.rfc)))
    return f"natfix {note.rule}: {note.header} {note.old!r} -> {note.new!r} ({why})"


def _left_alone(note: Note) -> str:
    what = " ".join(filter(None, (note.header, note.old)))
    return f"natfix leaves it alone: {note.reason}" + (f" ({what})" if what else "")
