"""Inputs, recognised by their content: captures, and texts that hold packets."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from natfix.replay import pcap_reader, pcapng_reader, snoop, texts
from natfix.replay.counts import Counts
from natfix.replay.model import Datagram, Frame, LogLine
from natfix.replay.source import Source, Unreadable

LOOK = 1 << 16                  # octets that a format is told by

Record = Frame | Datagram | LogLine
Records = Iterator[Record]

# Other formats of captures and archives that people hand in, by how they begin.
KNOWN = {
    b"BZh": "bzip2: uncompress it first",
    b"\xfd7zXZ\0": "xz: uncompress it first",
    b"\x28\xb5\x2f\xfd": "zstd: uncompress it first",
    b"PK\x03\x04": "a zip archive: unpack it first",
    b"GMBU": "Microsoft's network monitor format: `editcap -F pcapng IN OUT` converts it",
    b"RTSS": "Microsoft's network monitor format: `editcap -F pcapng IN OUT` converts it",
    b"TRSNIFF data": "NetXRay's sniffer format: `editcap -F pcapng IN OUT` converts it",
    b"\x7fELF": "a program",
    b"%PDF": "a PDF document: save its text",
}


def opened(path: str, label: str, counts: Counts) -> tuple[Source, Records]:
    """Open *path* and return its records, which are read as they are asked for.

    *label* is what the packets' file is called, and their stage; ``counts`` is filled. Raises Unreadable.
    """
    source = Source(path)
    try:
        return source, _records(source, label, counts)
    except Unreadable:
        source.close()
        raise


def _records(source: Source, label: str, counts: Counts) -> Records:
    start = source.peek(LOOK)
    if not start:
        raise Unreadable(f"{source.path}: {source.problem or 'the file is empty'}.")
    for recognised, name, reader in _BINARY:
        if recognised(start):
            counts.format = name
            return reader(source, counts, label)    # which may know the name better
    for magic, what in KNOWN.items():
        if start.startswith(magic):
            raise Unreadable(f"{source.path}: {what}.")
    if texts.is_text(start):
        return texts.records(source, counts, label)
    raise Unreadable(f"{source.path}: not a capture that natfix knows (it begins with {start[:4].hex(' ')}); "
                     "`editcap -F pcapng IN OUT` of Wireshark converts most others.")


_BINARY: tuple[tuple[Callable[[bytes], bool], str, Callable[[Source, Counts, str], Records]], ...] = (
    (pcap_reader.is_pcap, "pcap", pcap_reader.frames),
    (pcapng_reader.is_pcapng, "pcapng", pcapng_reader.frames),
    (snoop.is_snoop, "snoop", snoop.frames),
)
