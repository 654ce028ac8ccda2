"""The parts of header values that name hosts, as spans (RFC 3261, section 25.1).

Every pattern is linear: each repetition is bounded, or followed by what it cannot match itself.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from natfix.address import SIP_PORT, Endpoint, is_ipv4
from natfix.errors import MalformedMessage

Span = tuple[int, int]

MAX_VALUES = 128        # in one header line; more is an attack
MAX_PARAMETERS = 64

_WS = rb"[ \t\r\n]{0,16}"
_HOSTPORT = re.compile(
    rb"(?P<host>\[[0-9A-Fa-f:.]{2,64}\]|[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,253}[A-Za-z0-9._])?)"
    rb"(?:" + _WS + rb":" + _WS + rb"(?P<port>[0-9]{1,5})(?![0-9]))?"
)
_SENT_PROTOCOL = re.compile(
    _WS.join((b"", rb"SIP", rb"/", rb"2\.0", rb"/", rb"([A-Za-z0-9-]{1,16})[ \t\r\n]{1,16}")),
    re.IGNORECASE,
)
_PARAMETER = re.compile(
    _WS + rb";" + _WS + rb"([^ \t\r\n;=,<>\"?]{1,64})"
    rb"(?:" + _WS + rb"=" + _WS + rb"(\"(?:[^\"\\]|\\.)*\"|[^ \t\r\n;,<>\"?]*))?",
    re.DOTALL,
)
_QUOTED = re.compile(rb"\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
_BREAK = re.compile(rb"[\",<]")
_SCHEME = re.compile(rb"(sips?):", re.IGNORECASE)


class HostPort(NamedTuple):
    """A host and an optional port; the span covers both, just as they are written."""

    start: int
    end: int
    host: str
    port: int | None

    def endpoint(self, default: int = SIP_PORT) -> Endpoint | None:
        """Return the endpoint that is named, None where the host is not an IPv4 address."""
        return Endpoint(self.host, self.port or default) if is_ipv4(self.host) else None


class Uri(NamedTuple):
    """A sip: or sips: URI; ``params`` holds the spans of its parameters' values."""

    start: int
    end: int
    scheme: str
    user: str
    hostport: HostPort
    params: dict[str, Span]


class Via(NamedTuple):
    """One Via value; a parameter without a value has an empty span."""

    start: int
    end: int
    transport: str
    sent_by: HostPort
    params: dict[str, Span]


class Address(NamedTuple):
    """A name-addr or addr-spec with its header parameters; ``uri`` is None for "*", tel: and the like."""

    start: int
    end: int
    uri: Uri | None
    params: dict[str, Span]


def split_values(raw: bytes, start: int, end: int) -> list[Span]:
    """Split a header value at its commas; those in quotes and angle brackets do not count.

    Raises MalformedMessage where a quote or bracket stays open.
    """
    if raw.find(b",", start, end) < 0:
        return [(start, end)]
    values: list[Span] = []
    begun = position = start
    while (match := _BREAK.search(raw, position, end)) is not None:
        position = match.end()
        if match[0] == b",":
            values.append((begun, match.start()))
            begun = position
        else:
            position = _after_enclosed(raw, match.start(), end)
    values.append((begun, end))
    if len(values) > MAX_VALUES:
        raise MalformedMessage("too many values in one header")
    return values


def _after_enclosed(raw: bytes, start: int, end: int) -> int:
    """Return where the quoted string or bracket that begins at *start* ends."""
    if raw.startswith(b"<", start):
        closing = raw.find(b">", start, end)
        if closing >= 0:
            return closing + 1
    elif (match := _QUOTED.match(raw, start, end)) is not None:
        return match.end()
    raise MalformedMessage("a quote or angle bracket stays open")


def hostport_at(raw: bytes, start: int, end: int) -> HostPort:
    """Read a host and port at *start*; raises MalformedMessage where there is none."""
    match = _HOSTPORT.match(raw, start, end)
    if match is None:
        raise MalformedMessage("no host")
    port = int(match["port"]) if match["port"] else None
    if port is not None and not 0 < port <= 0xFFFF:
        raise MalformedMessage("no such port")
    return HostPort(match.start(), match.end(), match["host"].decode("ascii"), port)


def via_at(raw: bytes, start: int, end: int) -> Via:
    """Read one Via value; raises MalformedMessage where it is none."""
    match = _SENT_PROTOCOL.match(raw, start, end)
    if match is None:
        raise MalformedMessage("no SIP/2.0 Via")
    sent_by = hostport_at(raw, match.end(), end)
    params = _parameters(raw, sent_by.end, end)
    return Via(start, end, match[1].decode("ascii").upper(), sent_by, params)


def uri_at(raw: bytes, start: int, end: int) -> Uri:
    """Read a sip: or sips: URI; raises MalformedMessage for any other."""
    match = _SCHEME.match(raw, start, end)
    if match is None:
        raise MalformedMessage("no sip: URI")
    user_start = match.end()
    at = raw.rfind(b"@", user_start, end)
    host_start = at + 1 if at >= 0 else user_start
    hostport = hostport_at(raw, host_start, end)
    user = raw[user_start:at].decode("latin-1") if at >= 0 else ""
    params = _parameters(raw, hostport.end, end) if hostport.end < end else {}
    return Uri(start, end, match[1].decode("ascii").lower(), user, hostport, params)


def address_at(raw: bytes, start: int, end: int) -> Address:
    """Read one address value: "name" <uri>;params, or uri;params, whose parameters are the header's.

    Raises MalformedMessage where a quote or bracket stays open.
    """
    while start < end and raw[start] in b" \t\r\n":
        start += 1
    after_name = start
    if raw.startswith(b'"', start):
        after_name = _after_enclosed(raw, start, end)
    opening = raw.find(b"<", after_name, end)
    if opening < 0:
        return _bare_address(raw, start, end)
    closing = raw.find(b">", opening, end)
    if closing < 0:
        raise MalformedMessage("an angle bracket stays open")
    return Address(start, end, _uri_or_none(raw, opening + 1, closing), _parameters(raw, closing + 1, end))


def _bare_address(raw: bytes, start: int, end: int) -> Address:
    """Without brackets a semicolon ends the URI (RFC 3261, section 20.10)."""
    semicolon = raw.find(b";", start, end)
    stop = semicolon if semicolon >= 0 else end
    return Address(start, end, _uri_or_none(raw, start, stop), _parameters(raw, stop, end))


def _uri_or_none(raw: bytes, start: int, end: int) -> Uri | None:
    try:
        return uri_at(raw, start, end)
    except MalformedMessage:
        return None


def _parameters(raw: bytes, start: int, end: int) -> dict[str, Span]:
    """Return the value spans of ;name=value parameters; of one that comes twice, the first."""
    params: dict[str, Span] = {}
    position = start
    while position < end and (match := _PARAMETER.match(raw, position, end)) is not None:
        name = match[1].decode("latin-1").lower()
        params.setdefault(name, match.span(2) if match[2] is not None else (match.end(), match.end()))
        position = match.end()
        if len(params) > MAX_PARAMETERS:
            raise MalformedMessage("too many parameters")
    return params
