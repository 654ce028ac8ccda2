"""What is counted while an input is read, for JSON's ``input`` and for the warnings."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from natfix.replay.source import Source

MOST_INTERFACES = 256
LATEST = 253_402_300_800.0      # seconds since 1970: the year 10000, which no calendar function takes
MOST_NEIGHBOURS = 4096


@dataclass(slots=True)
class Counts:
    """One input's numbers; times are seconds since 1970, 0.0 where the input has none."""

    name: str                               # as given on the command line
    format: str = ""                        # "pcap", "pcapng", "snoop", "fw monitor", "fw monitor text", ...
    packets: int = 0
    sip: int = 0                            # messages
    media: int = 0                          # packets of RTP, RTCP, UDPTL, STUN, DTLS
    start: float = 0.0
    end: float = 0.0
    links: set[str] = field(default_factory=set)
    interfaces: dict[str, None] = field(default_factory=dict)      # names, in order of appearance
    neighbours: dict[str, str] = field(default_factory=dict)       # SIP host: its packets' source MAC address
    cut: int = 0                            # packets with less than they had on the wire
    left_out: Counter[str] = field(default_factory=Counter)        # packets that nobody can read, by why
    truncated: bool = False                 # something behind the last packet could not be read
    problem: str = ""                       # what

    def note_interface(self, name: str) -> None:
        """Take an interface's name."""
        if len(self.interfaces) < MOST_INTERFACES:
            self.interfaces[name] = None

    def note_neighbour(self, host: str, address: bytes) -> None:
        """Take the source MAC address of a host's packet: the host's own, or its next hop's."""
        if host not in self.neighbours and len(self.neighbours) < MOST_NEIGHBOURS:
            self.neighbours[host] = address.hex(":")

    def finish(self, source: Source, left: int, number: int) -> None:
        """Note the end of the file behind record *number*, with *left* octets that make no record."""
        if source.problem or left:
            self.stop(source.problem or f"it ends within record {number + 1}")

    def stop(self, problem: str) -> None:
        """Note that what follows cannot be read."""
        self.truncated = True
        self.problem = self.problem or problem

    def warnings(self) -> list[str]:
        """Return sentences about what could not be read."""
        sentences = []
        if self.problem:
            sentences.append(f"{self.name}: {self.problem}; the {self.packets:,} packets before were read.")
        if self.cut:
            sentences.append(f"{self.name}: {self.cut:,} packets were cut by the capture's snap length "
                             "(tcpdump -s 0 keeps them whole).")
        sentences += [f"{self.name}: {count:,} packets were left out: {reason}."
                      for reason, count in self.left_out.items()]
        return sentences

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "name": self.name, "format": self.format, "packets": self.packets, "sip": self.sip,
            "media": self.media, "start": self.start, "end": self.end, "link_types": sorted(self.links),
            "interfaces": [*self.interfaces], "cut": self.cut, "truncated": self.truncated,
            "problem": self.problem, "left_out": dict(self.left_out),
        }
