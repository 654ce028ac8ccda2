"""SIP header values as spans: comma-separated lists, Via, addresses, URIs, host and port.

All offsets are absolute in the message's bytes, so that an edit needs no arithmetic. The expressions
have the names of RFC 3261, section 25.1.

The bytes are anybody's, so the expressions of natfix keep to three rules, which make their time linear:
a repeated character class is possessive; what follows a repeated group begins with something that the
group cannot begin with; what is searched for, not matched at a place, begins with one fixed character.
(Possessive *groups* would be shorter. Before Python 3.11.5 they match wrongly: cpython gh-106052.)
"""

from __future__ import annotations

import re
from typing import NamedTuple

from natfix.address import SIP_PORT, Endpoint, is_ipv4
from natfix.errors import MalformedMessage

Span = tuple[int, int]

MAX_VALUES = 128                # of one header line
MAX_PARAMS = 64                 # of one value; longer lists are an attack, not a message

# A label with "_" is no host name (RFC 1123, section 2.1), and in daily use.
HOST = rb"(\[[0-9A-Fa-f:.]{2,64}+\]|[A-Za-z0-9._-]{1,255}+)"
PORT = rb"([0-9]{1,5}+)(?![0-9])"
HOSTPORT = HOST + rb"(?::" + PORT + rb")?"
SENT_BY = HOST + rb"(?:\s*+:\s*+" + PORT + rb")?"      # COLON may have white space around it
QUOTED_STRING = rb'"(?:[^"\\]++|\\.)*"'
# RFC 3261 wants tokens and hosts; in practice a name or value is whatever ends at a separator.
PARAM = rb"([^\s;=,\"<>]++)(?:\s*+=\s*+(" + QUOTED_STRING + rb"|[^\s;,\"]*+))?"

_HOSTPORT = re.compile(SENT_BY)
_VIA = re.compile(
    rb"\s*+(?i:SIP)\s*+/\s*+2\.0\s*+/\s*+([^\s/;,]{1,32}+)\s++" + SENT_BY + rb"\s*+(?=[;,]|\Z)")
_URI = re.compile(
    rb"\s*+((?i:sips?+)):(?:([^@<>\"\s]*+)@)?" + HOSTPORT + rb"\s*+(?=[;?]|\Z)")
_OTHER_URI = re.compile(rb"\s*+(?:\*\s*+\Z|(?!(?i:sips?+):)[A-Za-z][A-Za-z0-9+.-]*+:)")
# LAQUOT after a display name, which is a quoted string or tokens.
_TO_BRACKET = re.compile(rb"\s*+(?:" + QUOTED_STRING + rb"|[^\"<;,:]++)*<([^<>]*+)>", re.S)
_PARAM = re.compile(rb"\s*+;[\s;]*+(?:" + PARAM + rb")?\s*+", re.S)
_SEPARATOR = re.compile(QUOTED_STRING + rb"|<[^<>]*+>|[,\"<]", re.S)


class HostPort(NamedTuple):
    """"host" or "host:port"; the span covers just that."""

    start: int
    end: int
    host: str                   # an IPv6 address with its brackets
    port: int | None            # 1 to 65535; None where it is left out

    def endpoint(self, default: int = SIP_PORT) -> Endpoint | None:
        """Return the endpoint; None where the host is not a dotted IPv4 address."""
        if not is_ipv4(self.host):
            return None
        return Endpoint(self.host, default if self.port is None else self.port)


class Uri(NamedTuple):
    """A sip: or sips: URI."""

    start: int
    end: int
    scheme: str                 # lower case
    user: str                   # as written, password included; "" without one
    hostport: HostPort
    params: dict[str, Span]     # by lower-case name; an empty span where there is no value


class Via(NamedTuple):
    """One hop of a Via header."""

    start: int
    end: int
    transport: str              # upper case
    sent_by: HostPort
    params: dict[str, Span]


class Address(NamedTuple):
    """A name-addr or addr-spec with its header parameters."""

    start: int
    end: int
    uri: Uri | None             # None for "*", and for URIs that are not SIP
    params: dict[str, Span]     # the header's; those inside of <> are the URI's


def split_values(raw: bytes, start: int, end: int) -> list[Span]:
    """Return the spans of a comma-separated list; commas in quotes and in <> do not count.

    White space around the commas is part of the spans. Raises MalformedMessage where a quote or a
    bracket is not closed, or the list is absurdly long.
    """
    if raw.find(b",", start, end) < 0:
        return [(start, end)]
    spans = []
    at = start
    for found in _SEPARATOR.finditer(raw, start, end):
        text = found[0]
        if text == b",":
            spans.append((at, found.start()))
            at = found.end()
            if len(spans) == MAX_VALUES:
                raise MalformedMessage(f"more than {MAX_VALUES} values in one header")
        elif len(text) == 1:
            raise MalformedMessage("a quote or bracket in a header is not closed")
    spans.append((at, end))
    return spans


def hostport_at(raw: bytes, start: int, end: int) -> HostPort:
    """Read the host, and port if there is one, at *start*; raises MalformedMessage where none is."""
    found = _HOSTPORT.match(raw, start, end)
    if found is None:
        raise MalformedMessage("not a host")
    return _hostport(found, 1)


def via_at(raw: bytes, start: int, end: int) -> Via:
    """Read one Via value, of which a comma may begin the next; raises MalformedMessage for nonsense."""
    found = _VIA.match(raw, start, end)
    if found is None:
        raise MalformedMessage("not a Via")
    stop, params = _header_params(raw, found.end(), end)
    return Via(start, stop, found[1].decode("latin-1").upper(), _hostport(found, 2), params)


def uri_at(raw: bytes, start: int, end: int) -> Uri:
    """Read the sip: or sips: URI that fills the span; raises MalformedMessage where it is none."""
    found = _URI.match(raw, start, end)
    if found is None:
        raise MalformedMessage("not a SIP URI")
    return _uri(raw, found, end)


def address_at(raw: bytes, start: int, end: int) -> Address:
    """Read one address, of which a comma may begin the next; raises MalformedMessage for nonsense."""
    bracket = _TO_BRACKET.match(raw, start, end)
    if bracket is not None:
        uri_start, uri_end = bracket.span(1)
        params_start = bracket.end()
    else:
        # RFC 3261, section 20.10: without <> all parameters are the header's.
        uri_start, uri_end = start, _bare_end(raw, start, end)
        params_start = uri_end
    found = _URI.match(raw, uri_start, uri_end)
    if found is None and _OTHER_URI.match(raw, uri_start, uri_end) is None:
        raise MalformedMessage("not an address")
    uri = None if found is None else _uri(raw, found, uri_end)
    stop, params = _header_params(raw, params_start, end)
    return Address(start, stop, uri, params)


def _hostport(found: re.Match[bytes], group: int) -> HostPort:
    """Return the host in *group* and the port in the next one."""
    host, text = found.group(group, group + 1)
    start, end = found.span(group)
    if text is None:
        return HostPort(start, end, host.decode(), None)
    port = int(text)
    if not 0 < port < 65536:
        raise MalformedMessage("a port is out of range")
    return HostPort(start, found.end(group + 1), host.decode(), port)


def _uri(raw: bytes, found: re.Match[bytes], end: int) -> Uri:
    scheme, user = found.group(1, 2)
    at = found.end()
    params: dict[str, Span] = {}
    if at < end:
        question = raw.find(b"?", at, end)      # headers; no parameter holds a "?"
        _, params = _params(raw, at, end if question < 0 else question)
    return Uri(
        found.start(1), end, scheme.decode().lower(), user.decode("latin-1") if user else "",
        _hostport(found, 3), params)


def _bare_end(raw: bytes, start: int, end: int) -> int:
    for mark in (b";", b","):
        found = raw.find(mark, start, end)
        end = found if found >= 0 else end
    return end


def _header_params(raw: bytes, start: int, end: int) -> tuple[int, dict[str, Span]]:
    """Return where the parameters end, and what they are."""
    stop, params = _params(raw, start, end)
    if stop < end and raw[stop:end].lstrip()[:1] not in (b"", b","):
        raise MalformedMessage("a header's parameters cannot be read")
    return stop, params


def _params(raw: bytes, at: int, end: int) -> tuple[int, dict[str, Span]]:
    """Return where what can be read as parameters ends, and their value spans by lower-case name.

    Of parameters with the same name the first counts.
    """
    params: dict[str, Span] = {}
    count = 0
    while at < end and (found := _PARAM.match(raw, at, end)) is not None:
        at = found.end()
        name, value = found.group(1, 2)
        if name is not None:
            span = found.span(2) if value is not None else (found.end(1), found.end(1))
            params.setdefault(name.decode("latin-1").lower(), span)
        count += 1
        if count > MAX_PARAMS:
            raise MalformedMessage(f"more than {MAX_PARAMS} parameters")
    return at, params
