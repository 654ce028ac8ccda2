"""Packets out of texts: terminal logs, forum posts, articles. Prose between them does not matter.

A text may hold several formats; its lines are looked at one by one, and lead to

    a head        of fw monitor, FortiGate, tcpdump, ASA: a packet begins
    a hex line    octets of the packet that began
    a SIP line    the message as characters (tcpdump -A, -v), or under a "## source -> destination" heading
    a log line    of the kernel's SIP helper
"""

from __future__ import annotations

import codecs
import html
import re
from collections import Counter
from collections.abc import Iterator
from datetime import datetime

from natfix.replay.counts import LATEST, Counts
from natfix.replay.hexdump import Dump, HexLine, hex_line
from natfix.replay.link import guess, ip_offset
from natfix.replay.model import Datagram, Frame, IpFacts, LogLine, PacketId
from natfix.replay.sip_text import Heading, heading, message_from_lines, start_line_in
from natfix.replay.source import Source, Unreadable
from natfix.replay.text_heads import DAY, HEADS, Head, tcpdump_head, timed_head, with_fw_ports
from natfix.sip.message import is_sip

LONGEST_LINE = 1 << 14          # characters: what is longer is looked at in pieces
MOST_LINES = 4096               # of one message
HEX, SIP, LOG = "hex dump", "SIP text", "kernel log"
LOG_MARKS = ("nf_ct_sip:", "nf_nat_sip:", "nf_conntrack: table full")
MOST_BEFORE_SIP = 120           # octets that a dump may show before the message: headers

_ESCAPE = re.compile(r"\x1b\[[0-9;?]{0,16}+[A-Za-z]|[\x00\x07\x08]")
_ARROWS = str.maketrans({"\u2013": "-", "\u2014": "-", "\u2192": "->", "\xa0": " "})
_ISO_TIME = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})[ T]([0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?)")
_CONTROLS = re.compile(rb"[\x00-\x06\x0e-\x1a\x1c-\x1f]")
_WIDE = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}

Record = Frame | Datagram | LogLine


def is_text(start: bytes) -> bool:
    """Tell whether a file that starts so is a text."""
    start = start[:4096]
    return start[:2] in _WIDE or len(_CONTROLS.findall(start)) * 100 <= len(start)


def records(source: Source, counts: Counts, label: str = "") -> Iterator[Record]:
    """Yield what packets and log lines a text holds; raises Unreadable at its end where there were none."""
    return _Text(source, counts, label).records()


def lines(source: Source) -> Iterator[str]:
    """Yield a text's lines without their ends; very long ones in pieces."""
    encoding = _WIDE.get(source.peek(2), "utf-8")
    errors = "surrogateescape" if encoding == "utf-8" else "replace"
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    rest = ""
    while True:
        octets = source.read()
        *whole, rest = (rest + decoder.decode(octets, not octets)).split("\n")
        for line in whole:
            yield from _pieces(line.rstrip("\r"))
        if len(rest) > LONGEST_LINE:
            yield from _pieces(rest)
            rest = ""
        if not octets:
            if rest:
                yield rest.rstrip("\r")
            return


def _pieces(line: str) -> Iterator[str]:
    for at in range(0, len(line) or 1, LONGEST_LINE):
        yield line[at:at + LONGEST_LINE]


class _Text:
    """A text that is being read; at most one packet is pending."""

    def __init__(self, source: Source, counts: Counts, label: str) -> None:
        self._source, self._counts, self._label = source, counts, label
        self._formats: Counter[str] = Counter()
        self._number = 0
        self._head: Head | None = None
        self._heading: Heading | None = None
        self._dump = Dump()
        self._message: list[str] = []
        self._time, self._days = 0.0, 0.0

    def records(self) -> Iterator[Record]:
        """Yield the records."""
        for number, line in enumerate(lines(self._source), 1):
            yield from self._take(line.lstrip("\ufeff"), number)
        yield from self._flush()
        self._counts.finish(self._source, 0, self._number)
        if not self._formats:
            raise Unreadable(
                f"{self._source.path}: a text in which natfix finds no packets; it knows those of fw "
                "monitor, tcpdump -X, FortiGate's sniffer (verbosity 6) and ASA's show capture.")

    def _take(self, line: str, number: int) -> Iterator[Record]:
        if self._heading is not None and not line.startswith("## "):
            self._keep(line)
            return
        plain = _plain(line)
        if any(mark in plain for mark in LOG_MARKS):
            self._note_format(LOG)
            yield LogLine(PacketId(number, self._label), _log_time(plain), plain.strip())
            return
        above = heading(plain)
        if above is not None:
            yield from self._flush()
            self._heading = above
            return
        octets = hex_line(plain)
        if octets is not None and (self._head is not None or octets.offset == 0 or self._dump.data):
            yield from self._take_hex(octets)
            return
        yield from self._take_head(plain, line)

    def _take_hex(self, octets: HexLine) -> Iterator[Record]:
        if not self._dump.add(octets):
            yield from self._flush()
            self._dump.add(octets)

    def _take_head(self, plain: str, line: str) -> Iterator[Record]:
        head = self._head
        if head is not None:
            more = with_fw_ports(head, plain)
            if more is not None:
                self._head = more
                return
        new = next(filter(None, (reader(plain) for reader in HEADS)), None)
        if new is None:
            new = tcpdump_head(plain, head)
            if new is not None and head is not None and not head.source.host and plain[:1].isspace():
                self._head = None               # the second line of the packet whose first one is pending
        if new is None:
            new = timed_head(plain)
        if new is not None:
            yield from self._flush()
            self._head = new
            rest = with_fw_ports(new, plain[plain.rfind(")") + 1:]) if new.stage else None
            self._head = rest or new
        elif head is not None:
            self._take_message_line(plain, line)

    def _take_message_line(self, plain: str, line: str) -> None:
        """Take a line behind a head: it may belong to a message that is printed as characters."""
        if self._message:
            self._keep(line.removeprefix("\t"))
            return
        start = start_line_in(plain)
        if start:
            self._keep(start)

    def _keep(self, line: str) -> None:
        if len(self._message) < MOST_LINES:
            self._message.append(line)

    def _flush(self) -> Iterator[Record]:
        """Yield the packet that is pending."""
        head, above, dump, message = self._head, self._heading, self._dump, self._message
        self._head, self._heading, self._dump, self._message = None, None, Dump(), []
        if above is not None:
            if above.transport and message:
                self._note_format(SIP)
                yield self._datagram(
                    Head(SIP, protocol=above.transport, source=above.source, destination=above.destination),
                    message_from_lines(message), above.is_cut)
        elif dump.data:
            self._note_format(head.format if head is not None else HEX)
            yield self._dumped(head or Head(HEX), bytes(dump.data))
        elif head is not None and head.source.host and head.protocol and (message or head.has_data):
            self._note_format(head.format)
            yield self._datagram(head, message_from_lines(message) if message else b"")
        elif head is not None:
            self._number += 1                   # another protocol, a handshake, a keep-alive
            self._counts.packets += 1

    def _dumped(self, head: Head, data: bytes) -> Record:
        """Return the packet of a dump; fw monitor -x may leave its headers out."""
        link = guess(data, head.length)
        if ip_offset(link, data) < 0 and head.source.host:
            at = next((at for at in range(min(len(data), MOST_BEFORE_SIP)) if is_sip(data[at:])), len(data))
            return self._datagram(head, data[at:])
        self._number += 1
        if head.interface:
            self._counts.note_interface(head.interface)
        return Frame(self._number, self._when(head), link, data, len(data), head.interface,
                     head.stage or self._label, head.outgoing, self._label)

    def _datagram(self, head: Head, payload: bytes, is_cut: bool = False) -> Datagram:
        self._number += 1
        if head.interface:
            self._counts.note_interface(head.interface)
        return Datagram(
            (PacketId(self._number, self._label),), self._when(head), head.stage or self._label,
            head.interface, head.outgoing, head.protocol, head.source, head.destination, payload, b"",
            IpFacts(identification=head.identification, length=head.length, cut=is_cut))

    def _when(self, head: Head) -> float:
        """Return a packet's time; clocks without a date go on counting behind midnight."""
        if head.time and head.time < DAY:
            if head.time + self._days < self._time - DAY / 2 and self._days < LATEST / 2:
                self._days += DAY
            self._time = head.time + self._days
            return self._time
        return head.time

    def _note_format(self, name: str) -> None:
        self._formats[name] += 1
        self._counts.format = self._formats.most_common(1)[0][0]


def _plain(line: str) -> str:
    """Return a line without what terminals and web pages put into it."""
    if "&" in line:
        line = html.unescape(line)
    if "\x1b" in line or "\x08" in line:
        line = _ESCAPE.sub("", line)
    return line if line.isascii() else line.translate(_ARROWS).replace("->>", "->")


def _log_time(line: str) -> float:
    """Return a log line's time where it has the year; else 0.0."""
    found = _ISO_TIME.search(line)
    if found is None:
        return 0.0
    try:
        return datetime.fromisoformat(f"{found[1]}T{found[2]}+00:00").timestamp()
    except ValueError:
        return 0.0
