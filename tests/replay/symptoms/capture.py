"""A capture made of sightings, put together as the replay does it, for tests of the rules."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from natfix.address import Endpoint
from natfix.replay.conversations import Conversations, MediaIndex, Stations
from natfix.replay.model import (
    Context,
    Conversation,
    Finding,
    IcmpError,
    IpFacts,
    LogLine,
    MediaKind,
    NetworkView,
    PacketId,
    Side,
    Sighting,
    Stream,
    Vantage,
)
from natfix.replay.network import side_of_copy
from natfix.replay.passages import Passages
from natfix.replay.symptoms import abuse, gateways, transport
from natfix.replay.visitors import Visitors
from tests.replay.sip import PHONE, PROVIDER, sighting

MODULES = (gateways, transport, abuse)
GATEWAY = "203.0.113.1"
EXT = Endpoint(GATEWAY, 40625)


class Capture:
    """What was captured; each message is one packet more."""

    def __init__(self, vantage: Vantage = Vantage.INSIDE, outside: str = GATEWAY,
                 inside: tuple[str, ...] = ("192.168.1.0/24",), log: Iterable[str] = ()) -> None:
        self.view = NetworkView(inside, outside, vantage)
        self.context = Context(self.view)
        self.context.log += [LogLine(PacketId(number), 0.0, text) for number, text in enumerate(log, 1)]
        self.sightings: list[Sighting] = []
        self.time = 100.0
        self.number = 0

    def sip(self, payload: bytes, source: Endpoint = PHONE, destination: Endpoint = PROVIDER,
            file: str = "", after: float = 0.05, **facts: object) -> Sighting:
        """Add one message that was seen at one point, *after* seconds later than the one before."""
        self.time += after
        self.number += 1
        copy = sighting(payload, source, destination, self.time, self.number, file, **facts)
        self.sightings.append(copy)
        return copy

    def out(self, payload: bytes, shown: bytes | None = None, source: Endpoint = PHONE, ext: Endpoint = EXT,
            destination: Endpoint = PROVIDER, after: float = 0.05, **facts: object) -> None:
        """Add a message that leaves: inside, and *shown* behind the NAT."""
        self.sip(payload, source, destination, "inside", after, **facts)
        self.sip(payload if shown is None else shown, ext, destination, "outside", 0.001, **facts)

    def back(self, payload: bytes, shown: bytes | None = None, destination: Endpoint = PHONE,
             ext: Endpoint = EXT, source: Endpoint = PROVIDER, after: float = 0.05) -> None:
        """Add a message that comes in: outside, and *shown* inside."""
        self.sip(payload, source, ext, "outside", after)
        self.sip(payload if shown is None else shown, source, destination, "inside", 0.001)

    def rtp(self, source: Endpoint, destination: Endpoint, packets: int = 500) -> Stream:
        """Add a stream."""
        self.number += packets
        stream = Stream(
            MediaKind.RTP, "", side_of_copy(self.view, source.host, destination.host), source, destination, 7,
            {0}, self.time, self.time + packets / 50, PacketId(self.number - packets + 1),
            PacketId(self.number), packets)
        self.context.streams.append(stream)
        return stream

    def icmp(self, sender: str, code: str, source: Endpoint, destination: Endpoint, mtu: int = 0) -> None:
        """Add an ICMP error about a packet from *source* to *destination*."""
        self.number += 1
        self.context.errors.append(IcmpError(
            (PacketId(self.number),), self.time, "", Side.INSIDE, sender, code, "udp", source, destination,
            mtu))

    def unreadable(self, payload: bytes, problem: str, source: Endpoint = PHONE,
                   destination: Endpoint = PROVIDER, ip: bytes = b"E", **facts: object) -> None:
        """Add SIP that cannot be read."""
        self.number += 1
        copy = Sighting(
            (PacketId(self.number),), self.time, "", "", None, "udp", source, destination, payload, None,
            problem, IpFacts(**facts), ip)      # type: ignore[arg-type]
        copy.side = side_of_copy(self.view, source.host, destination.host)
        self.context.unreadable.append(copy)

    def conversations(self) -> list[Conversation]:
        """Put the sightings together."""
        passages, collected = Passages(self.view), Conversations()
        stations, visitors = Stations(self.context), Visitors(self.context)
        found = [*(each for copy in self.sightings for each in passages.add(copy)), *passages.finish()]
        for passage in found:
            stations.note(passage)
            visitors.note(passage)
            if passage.message is None and not passage.first.payload:
                self.context.records.append(passage)
            collected.add(passage)
        index = MediaIndex(self.context.streams, self.context.errors)
        held = [*collected.rest()]
        for each in held:
            index.attach(each)
            stations.note_registrations(each.conversation)
        return [each.conversation for each in held]

    def findings(self) -> list[Finding]:
        """Return what all rules of gateways, transport and abuse find."""
        return list(self._findings())

    def _findings(self) -> Iterator[Finding]:
        for conversation in self.conversations():
            for module in MODULES:
                for rule in module.CONVERSATION:
                    yield from rule(conversation, self.context)
        for module in MODULES:
            for station in self.context.stations.values():
                for station_rule in module.STATION:
                    yield from station_rule(station, self.context)
            for capture_rule in module.CAPTURE:
                yield from capture_rule(self.context)

    def codes(self) -> list[str]:
        """Return the codes of what is found."""
        return [finding.code for finding in self.findings()]

    def only(self, code: str) -> Finding:
        """Return the one finding, which has this code, names packets and says all that has to be said."""
        findings = self.findings()
        assert [each.code for each in findings] == [code], findings
        check(findings[0])
        return findings[0]


def check(finding: Finding) -> None:
    """No finding without evidence, place and remedy; in sentences, with the packets that it names."""
    assert finding.packets
    assert finding.where
    assert len(finding.title) < 140
    for words in (finding.evidence, finding.cause, finding.remedy):
        assert words.rstrip().endswith("."), words
        assert "  " not in words
        assert ".." not in words.replace("...", "")
    numbers = {str(packet) for packet in finding.packets}
    named = re.findall(r"\b(?:packet|packets) ([0-9a-z:]+(?:, [0-9a-z:]+)*)", finding.evidence.lower())
    assert {each for group in named for each in group.split(", ") if each[-1].isdigit()} <= numbers, finding


def repeat(capture: Capture, payload: bytes, times: int, first: float = 0.5) -> None:
    """Send *payload* again, as RFC 3261's Timer A or E does."""
    for count in range(times):
        capture.sip(payload, after=first * 2 ** count)
