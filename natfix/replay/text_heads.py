"""The lines that introduce a packet: of fw monitor, FortiGate's sniffer, tcpdump, and ASA's show capture."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

from natfix.address import Endpoint
from natfix.replay.counts import LATEST
from natfix.replay.network import address_of
from natfix.replay.sip_text import port_of

FW_MONITOR, FORTIGATE, TCPDUMP, ASA = (
    "fw monitor text", "FortiGate sniffer text", "tcpdump text", "ASA capture text")
SERVICES = {"sip": 5060, "sip-tls": 5061, "sips": 5061}
MONTHS = {name: number for number, name in enumerate(
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"], 1)}
DAY = 86400.0                   # seconds


class Head(NamedTuple):
    """What such a line says."""

    format: str
    time: float = 0.0           # seconds since 1970; since midnight where the text has no date
    interface: str = ""
    stage: str = ""
    outgoing: bool | None = None
    protocol: str = ""          # "udp", "tcp", "icmp"; "" where it does not say
    source: Endpoint = Endpoint("", 0)
    destination: Endpoint = Endpoint("", 0)
    length: int = 0             # of the IP packet; 0: not said
    identification: int = 0
    has_data: bool = True       # of TCP: the segment carries some


_NUMBER = r"([0-9]{1,9})"
_CLOCK = r"([0-9]{1,2}):([0-9]{2}):([0-9]{2}(?:\.[0-9]{1,9})?)"
_DATE = r"(?:([0-9]{4})-([0-9]{2})-([0-9]{2})[ T])?"
_FW_MONITOR = re.compile(
    r"(?<![\w.@/-])([\w.@/-]{1,40}+):([iIoOeE][dDeEqQ]?)[0-9]{0,3}(?: ?\([^\[\]]{0,60}\))?"
    rf"\[{_NUMBER}\]:\s{{1,8}}(\S{{1,80}})\s{{1,8}}->\s{{1,8}}(\S{{1,80}})\s{{1,8}}"
    rf"\((\w{{1,12}})\)(?:\s{{1,8}}len={_NUMBER})?(?:\s{{1,8}}id={_NUMBER})?")
_FW_TIME = re.compile(rf"([0-9]{{1,2}})([A-Z][a-z]{{2}})([0-9]{{4}})\s{{1,4}}{_CLOCK}")
_FW_PORTS = re.compile(r"\s*+(UDP|TCP):\s{1,8}([0-9]{1,5})\s{1,8}->\s{1,8}([0-9]{1,5})(?![0-9])(.{0,40})")
_FORTIGATE = re.compile(
    rf"\s*+(?:{_DATE}{_CLOCK}|([0-9]{{1,10}}\.[0-9]{{1,9}}))\s{{1,8}}"
    r"(?:(\S{1,40})\s{1,4}(in|out|--)\s{1,4})?(\S{1,80}) -> (\S{1,80}): (.{0,80})")
_ARROW = re.compile(r"(?<!\S)([^\s,>()]{1,80}) > ([^\s,>()]{1,80}):(?:\s|$)(.{0,400})")
_TIME = re.compile(
    rf"{_DATE}(?<![0-9:]){_CLOCK}(?![0-9:])|(?<![0-9.])([0-9]{{9,10}}\.[0-9]{{1,9}})(?![0-9.])")
_ASA = re.compile(r"\s*+[0-9]{1,9}: ")
_PLACE = re.compile(r"\s(\S{1,40})\s{1,4}(In|Out|B|M|P)\s{1,4}(?:IP|ethertype)")
# What comes behind the time in a line that says nothing of UDP or TCP, or says it on the next line (-v).
_OTHER = re.compile(r"\s{1,4}(?:\S{1,40} {1,4}(?:In|Out|B|M|P) {1,4})?(?:[A-Z][\w.]{1,20}[ ,]|[\da-f:]{17} )")
_VERBOSE_ID = re.compile(r", id ([0-9]{1,5}),")
_IP_LENGTH = re.compile(r"length:? ([0-9]{1,5})\)")
_PAYLOAD_LENGTH = re.compile(r"(?:length:?|udp) ([0-9]{1,5})(?![0-9])")
SHORTEST_MESSAGE = 20       # octets: what is shorter keeps NAT mappings open
WAYS = {"in": False, "out": True, "In": False, "Out": True}


def endpoint(text: str) -> Endpoint:
    """Return what "10.0.0.1.5060", "10.0.0.1", "a.b.c.d" or "host.sip" names; port 0 where it has none."""
    if address_of(text) is not None:
        return Endpoint(text, 0)
    host, dot, port = text.rpartition(".")
    number = port_of(port) if dot and text.count(".") != 3 else None
    if number is not None:
        return Endpoint(host, number)
    if dot and port in SERVICES:
        return Endpoint(host, SERVICES[port])
    return Endpoint(text, 0)


def _seconds(
    year: str | None, month: str | int, day: str | int, hour: str, minute: str, second: str
) -> float:
    """Return a time as seconds since 1970; since midnight without a *year*; 0.0 for none there can be."""
    since_midnight = int(hour) * 3600 + int(minute) * 60 + float(second)
    if not year:
        return since_midnight
    try:
        midnight = datetime(int(year), int(month), int(day), tzinfo=UTC).timestamp()
    except ValueError:
        return 0.0
    return midnight + since_midnight if 0 <= midnight < LATEST - 5 * DAY else 0.0   # the hour may be 99


def fw_monitor_head(line: str) -> Head | None:
    """Read fw monitor's first line of a packet, whatever prompt or instance stands before it."""
    if "[" not in line:
        return None
    found = _FW_MONITOR.search(line)
    if found is None:
        return None
    interface, stage, size, source, destination, protocol, length, identification = found.groups()
    time = _FW_TIME.search(line, 0, found.start())
    seconds = 0.0
    if time is not None:
        day, month, year, *clock = time.groups()
        seconds = _seconds(year, MONTHS.get(month, 0), day, *clock)
    return Head(
        FW_MONITOR, seconds, interface, stage, None, protocol.lower(), Endpoint(source, 0),
        Endpoint(destination, 0), int(length or size), int(identification or 0), has_data=False)


def with_fw_ports(head: Head, line: str) -> Head | None:
    """Add what fw monitor's second line of a packet says; None where *line* is none."""
    found = _FW_PORTS.match(line)
    if found is None or head.format != FW_MONITOR:
        return None
    protocol, source, destination, rest = found.groups()
    return head._replace(
        protocol=protocol.lower(), source=head.source._replace(port=port_of(source) or 0),
        destination=head.destination._replace(port=port_of(destination) or 0),
        has_data=protocol == "UDP" or "P" in rest.split(" seq", 1)[0])


def fortigate_head(line: str) -> Head | None:
    """Read a line of ``diagnose sniffer packet``."""
    if " -> " not in line:
        return None
    found = _FORTIGATE.match(line)
    if found is None:
        return None
    *date_and_clock, relative, interface, way, source, destination, rest = found.groups()
    time = float(relative) if relative else _seconds(*date_and_clock)
    kind = rest.lstrip().split(" ", 1)[0].rstrip(":")
    protocol = {"udp": "udp", "icmp": "icmp", "icmp6": "icmp"}.get(kind, "tcp")
    return Head(
        FORTIGATE, time, interface or "", "", WAYS.get(way or ""), protocol, endpoint(source),
        endpoint(destination), has_data=(protocol == "udp" or kind == "psh") and not _is_short(rest))


def tcpdump_head(line: str, before: Head | None) -> Head | None:
    """Read a line of tcpdump or ASA; *before* is the head of a packet whose line was broken (tcpdump -v)."""
    if " > " not in line:
        return None
    found = _ARROW.search(line)
    if found is None:
        return None
    source, destination, rest = found.groups()
    prefix = line[:found.start()]
    time = _TIME.search(prefix)
    if time is None and (before is None or before.source.host):
        return None
    protocol = _protocol(rest)
    if not protocol:
        return None
    head = before if time is None and before is not None else _with_prefix(prefix, time)
    has_data = (protocol == "udp" or "[P" in rest or " P " in rest) and not _is_short(rest)
    return head._replace(
        protocol=protocol, source=endpoint(source), destination=endpoint(destination), has_data=has_data)


def timed_head(line: str) -> Head | None:
    """Read a line of tcpdump that says nothing of ends: the first of two (-v), or of another protocol."""
    time = _TIME.match(line)
    if time is None or _OTHER.match(line, time.end()) is None:
        return None
    identification, length = _VERBOSE_ID.search(line), _IP_LENGTH.search(line)
    return _with_prefix(line, time)._replace(
        identification=int(identification[1]) if identification else 0,
        length=int(length[1]) if length else 0)


def _with_prefix(prefix: str, time: re.Match[str] | None) -> Head:
    *date_and_clock, epoch = time.groups() if time is not None else (None,) * 7
    place = _PLACE.search(f"{prefix} IP")
    interface, way = place.groups() if place is not None else ("", "")
    seconds = float(epoch) if epoch else _seconds(*date_and_clock) if time is not None else 0.0
    return Head(ASA if _ASA.match(prefix) else TCPDUMP, seconds, interface, "", WAYS.get(way))


def _is_short(rest: str) -> bool:
    """Tell whether a line's payload is shorter than any message: tcpdump has nothing to say of those."""
    length = _PAYLOAD_LENGTH.search(rest)
    return rest.strip() == "SIP" or (length is not None and int(length[1]) < SHORTEST_MESSAGE)


def _protocol(rest: str) -> str:
    for word, protocol in _PROTOCOLS.items():
        if word in rest:
            return protocol
    return ""


# What of a line tells the protocol; TCP's first, since SIP over TCP is named, too.
_PROTOCOLS = {
    "Flags [": "tcp", " ack ": "tcp", "ICMP": "icmp", "icmp": "icmp", "UDP": "udp", "udp": "udp",
    "SIP": "udp", "sip": "udp",
}
HEADS: tuple[Callable[[str], Head | None], ...] = (fw_monitor_head, fortigate_head)
