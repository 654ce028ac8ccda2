"""What one key of a natfix file may hold: the reader of its value, and the words that name what is expected.

An expectation never repairs a value: it takes it, or raises Unexpected. Without a text that means
"must be" and the expectation's own words; a text is the whole predicate ("names 5060 twice").
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from natfix.address import UNUSABLE, Endpoint, contains, is_ipv4, network_from_text

MAX_PATH = 4096             # bytes; PATH_MAX of Linux
MAX_SOCKET_PATH = 107       # bytes; sun_path of struct sockaddr_un holds 108 with its zero
MAX_NAME = 253              # characters; RFC 1035, section 2.3.4, without the root's dot
_LABEL = "[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
NAME = re.compile(rf"(?:{_LABEL}\.){{1,20}}(?![0-9]+\Z){_LABEL}")
INTERFACE_NAME = re.compile(r"[^\s/:]{1,15}")   # IFNAMSIZ is 16 with its zero; see dev_valid_name()


class Unexpected(ValueError):
    """A value that an expectation refuses; its text, if any, is the predicate."""


class Expectation(NamedTuple):
    """One kind of value."""

    text: str                       # completes "must be ..."
    read: Callable[[Any], Any]      # takes what TOML gave; raises Unexpected


def whole_number(first: int, last: int, unit: str = "") -> Expectation:
    """A whole number from *first* to *last*, of *unit* (a plural, for the message)."""
    def read(value: Any) -> int:
        if type(value) is not int or not first <= value <= last:    # True is an int to isinstance
            raise Unexpected
        return value
    bounds = f"from {first} to {last}" if first < last else f"that is {first}"
    return Expectation(f"a whole number {f'of {unit} ' if unit else ''}{bounds}", read)


def one_of(*words: str) -> Expectation:
    """One of a closed set of words."""
    allowed = " or ".join(filter(None, (", ".join(map(quoted, words[:-1])), quoted(words[-1]))))

    def read(value: Any) -> str:
        if value in words:
            return str(value)
        close = suggestion(value, words)
        raise Unexpected(f"must be {allowed}; {close}" if close else "")
    return Expectation(allowed, read)


def text(words: str, accept: Callable[[str], object]) -> Expectation:
    """A string for which *accept* is true; *words* say when that is so."""
    def read(value: Any) -> str:
        if not isinstance(value, str) or not accept(value):
            raise Unexpected
        return value
    return Expectation(words, read)


def optional(inner: Expectation) -> Expectation:
    """What *inner* takes, or "" for natfix's own choice."""
    return Expectation(f'{inner.text}, or ""', lambda value: "" if value == "" else inner.read(value))


def list_of(inner: Expectation, first: int = 0, last: int = 256) -> Expectation:
    """An array of *first* to *last* different values that *inner* takes, read to a tuple."""
    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise Unexpected
        if not first <= len(value) <= last:
            raise Unexpected(f"must have {first} to {last} entries")
        entries = tuple(_entry(inner, item) for item in value)
        for index, entry in enumerate(entries):
            if entry in entries[:index]:
                raise Unexpected(f"names {entry} twice")
        return entries
    return Expectation(f"an array, each entry {inner.text}", read)


def port_range(lowest: int) -> Expectation:
    """Two UDP ports, first and last of a range, neither below *lowest*."""
    def read(value: Any) -> tuple[int, int]:
        if not isinstance(value, list) or len(value) != 2 or any(type(port) is not int for port in value):
            raise Unexpected
        first, last = value
        if not lowest <= first < last <= 65535:
            raise Unexpected
        return first, last
    return Expectation(f"two UDP ports [first, last], from {lowest} to 65535, first below last", read)


def _entry(inner: Expectation, item: Any) -> Any:
    try:
        return inner.read(item)
    except Unexpected as problem:
        raise Unexpected(f"has {toml_text(item)}, which {predicate(inner, problem)}") from None


def _read_network(value: Any) -> Any:
    if not isinstance(value, str):
        raise Unexpected
    try:
        return network_from_text(value)
    except ValueError as problem:
        raise Unexpected(f"is not an IPv4 network such as \"192.168.1.0/24\": {problem}") from None


def _read_mark(value: Any) -> int:
    if type(value) is not int or not 0 < value <= 0x80000000 or value.bit_count() != 1:
        raise Unexpected
    return value


def _is_host(value: str) -> bool:
    """Tell whether an SDP or a peer can be at *value*; loopback, multicast and the like cannot."""
    return is_ipv4(value) and not contains(UNUSABLE, value)


def is_name(value: str) -> bool:
    """Tell whether *value* is a full domain name; its last label is no number, so that no address is one."""
    return len(value) <= MAX_NAME and NAME.fullmatch(value) is not None


def _is_nameserver(value: str) -> bool:
    """Tell whether *value* is an IPv4 address, loopback too, with or without a port."""
    host, colon, port = value.partition(":")
    return is_ipv4(host) and (not colon or _is_port(port))


def _is_port(text: str) -> bool:
    return re.fullmatch(r"[1-9]\d{0,4}", text, re.ASCII) is not None and int(text) <= 65535


def _is_endpoint(value: str) -> bool:
    host, colon, port = value.partition(":")
    return _is_host(host) and (not colon or _is_port(port))


def endpoint_from_setting(value: str, default_port: int) -> Endpoint:
    """Return the endpoint that a value read by :data:`ENDPOINT` names."""
    host, _, port = value.partition(":")
    return Endpoint(host, int(port or default_port))


def _is_advertised(value: str) -> bool:
    if not value.startswith("stun:"):
        return _is_host(value)
    server = re.fullmatch(r"stun:[A-Za-z0-9.-]{1,253}(?::([1-9][0-9]{0,4}))?", value)
    return server is not None and int(server[1] or 0) <= 65535


def _is_path(value: str) -> bool:
    return value.startswith("/") and "\0" not in value and len(value.encode()) <= MAX_PATH


PORT = whole_number(1, 65535)
HOST = text('an IPv4 address of a host, as in "192.0.2.10"', _is_host)
AGENT_NAME = text('a name of 1 to 64 printable ASCII characters, as in "Phone/1.0"',
                  re.compile(r"[!-~]([ -~]{0,62}[!-~])?").fullmatch)
DOMAIN = text('a domain, as in "example.com", "*.example.com" for all below it, or "*" for all others',
              re.compile(r"\*|(\*\.)?[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63}){0,10}").fullmatch)
PEER = text('an IPv4 address or a full name of a host, as in "192.0.2.10" or "sip.example.net"',
            lambda value: _is_host(value) or is_name(value))
NAMESERVER = text('an IPv4 address, with or without a port, as in "192.0.2.53" or "127.0.0.1:5353"',
                  _is_nameserver)
LISTENER = text('an IPv4 address and a UDP port, as in "127.0.0.1:9060"',
                lambda value: ":" in value and _is_nameserver(value))
ENDPOINT = text('an IPv4 address, with or without a UDP port, as in "192.0.2.10:5060"', _is_endpoint)
ADVERTISED = text('an IPv4 address, or "stun:" and a STUN server, as in "stun:stun.example.net:3478"',
                  _is_advertised)
NETWORK = Expectation('an IPv4 network, as in "192.168.1.0/24"', _read_network)
INTERFACE = text('the name of a network interface, as in "eth0"', INTERFACE_NAME.fullmatch)
MARK = Expectation("one single bit of 32, as in 0x04000000", _read_mark)
PATH = text('an absolute path, as in "/var/lib/natfix/state.sqlite"', _is_path)
PAGE_PLACE = text(
    'an IPv4 address and a port, as in "127.0.0.1:8060", or the path of a Unix socket',
    lambda value: _is_path(value) if value.startswith("/") else ":" in value and _is_nameserver(value))
SOCKET_PATH = text(
    f'an absolute path of at most {MAX_SOCKET_PATH} bytes, as in "/run/natfix/control.sock"',
    lambda value: _is_path(value) and len(value.encode()) <= MAX_SOCKET_PATH,
)


def suggestion(word: Any, known: Sequence[str]) -> str:
    """Return 'did you mean "..."?' where one of *known* is close to *word*, else ""."""
    close = difflib.get_close_matches(str(word), known, n=1, cutoff=0.5)
    return f"did you mean {quoted(close[0])}?" if close else ""


def predicate(expected: Expectation, problem: Unexpected) -> str:
    """Return what is said of a value that *expected* refused with *problem*."""
    return str(problem) or f"must be {expected.text}"


def quoted(word: str) -> str:
    return f'"{word}"'


def toml_text(value: Any) -> str:
    """Return *value* as its author may have written it, cut to a length that fits a message."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        written = quoted(value.encode("unicode_escape").decode())
    elif isinstance(value, list):
        written = f"[{', '.join(map(toml_text, value))}]"
    else:
        written = str(value)
    return written if len(written) <= 60 else f"{written[:57]}..."
