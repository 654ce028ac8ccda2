"""SIP messages as text: under "## source -> destination" headings, and as tcpdump -A and -v print them.

Text has lost the line ends, and masked addresses have other lengths: Content-Length is made right, unless
it is one that no message has.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from natfix.address import Endpoint

LONGEST = 1 << 18               # characters of a message
MOST_BODY = 0xFFFF              # octets: a Content-Length above is what the message is about
TRANSPORTS = {"udp": "udp", "tcp": "tcp", "tls": "tcp", "ws": "tcp", "wss": "tcp", "sctp": "tcp"}

_HEADING = re.compile(r"## (\S{1,80}) -> (\S{1,80}) (\w{1,8})(.{0,80})")
_METHODS = ("INVITE|ACK|BYE|CANCEL|REGISTER|OPTIONS|PRACK|SUBSCRIBE|NOTIFY|PUBLISH|INFO|REFER|MESSAGE|UPDATE")
_START = re.compile(
    rf"(?:{_METHODS}) \S{{1,2000}} SIP/2\.0\s*+$|(?<![ ])SIP/2\.0 [1-6][0-9]{{2}}(?: .{{0,200}})?$")
_CONTENT_LENGTH = re.compile(rb"^((?:content-length|l)[ \t]*+:[ \t]*+)([0-9]{1,15}+)", re.I | re.M)


class Heading(NamedTuple):
    """What stands above a message."""

    source: Endpoint
    destination: Endpoint
    transport: str              # "udp", "tcp"; "" for what is no message
    is_cut: bool                # somebody left a part of the message out


def heading(line: str) -> Heading | None:
    """Read a line like "## 10.0.0.1:5060 -> 192.0.2.1:5060 udp"; None for others."""
    found = _HEADING.match(line)
    if found is None:
        return None
    source, destination, transport, rest = found.groups()
    return Heading(_endpoint(source), _endpoint(destination), TRANSPORTS.get(transport.lower(), ""),
                   "truncated" in rest)


def port_of(text: str) -> int | None:
    """Return the port that a text is; None for what is none."""
    is_number = text.isascii() and text.isdigit() and len(text) <= 5
    return int(text) if is_number and int(text) <= 0xFFFF else None


def _endpoint(text: str) -> Endpoint:
    host, colon, port = text.rpartition(":")
    number = port_of(port) if colon else None
    if number is not None:
        return Endpoint(host.strip("[]"), number)
    return Endpoint(text.strip("[]"), 0)


def start_line_in(line: str) -> str:
    """Return the SIP start line that *line* ends with, behind what tcpdump -A shows of headers; else ""."""
    found = _START.search(line) if "SIP/2.0" in line else None
    return found[0].rstrip() if found is not None else ""


def message_from_lines(lines: list[str]) -> bytes:
    """Return the message that *lines* spell, with the line ends that SIP has."""
    octets = [line.encode("utf-8", "surrogateescape") for line in lines]
    while octets and not octets[-1].strip():
        octets.pop()
    if b"" in octets:
        at = octets.index(b"")
        head, body = octets[:at], b"".join(line + b"\r\n" for line in octets[at + 1:])
    else:
        head, body = octets, b""
    text = b"\r\n".join(head) + b"\r\n"
    return _CONTENT_LENGTH.sub(lambda found: _right_length(found, len(body)), text) + b"\r\n" + body


def _right_length(found: re.Match[bytes], size: int) -> bytes:
    return found[1] + (b"%d" % size) if int(found[2]) <= MOST_BODY else found[0]
