"""Pins header values: where hosts, ports and parameters stand, in whatever way they are written."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import pytest
import sipmessage
from hypothesis import given
from hypothesis import strategies as st

from natfix.address import Endpoint
from natfix.errors import MalformedMessage
from natfix.sip.fields import (
    MAX_PARAMS,
    MAX_VALUES,
    Address,
    HostPort,
    Span,
    Uri,
    Via,
    address_at,
    hostport_at,
    split_values,
    uri_at,
    via_at,
)
from natfix.sip.message import message_from_bytes
from tests import corpus

TOO_LONG = 1.0      # seconds; 60,000 bytes in quadratic time take more, in linear time some milliseconds
NEEDS_DATA = pytest.mark.skipif(not corpus.is_there(), reason=corpus.MISSING)
BEFORE, AFTER = b"junk: <sip:x;y,", b";z=1, >\""     # around each value, so that offsets must be absolute

ADDRESS_HEADERS = (
    "contact", "from", "to", "route", "record-route", "path", "service-route", "p-asserted-identity",
    "p-preferred-identity", "diversion", "history-info", "remote-party-id", "reply-to", "refer-to",
    "referred-by",
)


def around(value: bytes) -> tuple[bytes, int, int]:
    """Return bytes that hold *value*, and its span."""
    return BEFORE + value + AFTER, len(BEFORE), len(BEFORE) + len(value)


def texts(raw: bytes, params: dict[str, Span]) -> dict[str, str]:
    """Return what the spans of parameters hold."""
    return {name: raw[slice(*span)].decode("latin-1") for name, span in params.items()}


# Host and port


@pytest.mark.parametrize(("text", "host", "port"), [
    (b"192.168.1.10", "192.168.1.10", None),
    (b"192.168.1.10:5060", "192.168.1.10", 5060),
    (b"host.example.com:1", "host.example.com", 1),
    (b"my_pbx-1.local", "my_pbx-1.local", None),
    (b"[2001:db8::1]:65535", "[2001:db8::1]", 65535),
    (b"first.example.com: 4000", "first.example.com", 4000),
    (b"h\r\n :\r\n 5060", "h", 5060),
])
def test_hostport(text: bytes, host: str, port: int | None) -> None:
    """The span covers host and port, and nothing else."""
    raw, start, end = around(text)
    assert hostport_at(raw, start, end) == (start, end, host, port)


@pytest.mark.parametrize("text", [
    b"", b":5060", b" host", b"h:0", b"h:65536", b"h:99999", b"[::1", b"[]", b"<h>", b"(h)", b"\xe4",
])
def test_no_hostport(text: bytes) -> None:
    """Nonsense and ports out of range are refused."""
    raw, start, end = around(text)
    with pytest.raises(MalformedMessage):
        hostport_at(raw, start, end)


def test_a_hostport_ends_before_what_is_no_port() -> None:
    """What follows is for the caller to judge."""
    assert hostport_at(b"host:;x", 0, 7).end == 4
    assert hostport_at(b"host:123456", 0, 11) == (0, 4, "host", None)


@pytest.mark.parametrize(("hostport", "expected"), [
    (HostPort(0, 0, "192.0.2.1", None), Endpoint("192.0.2.1", 5060)),
    (HostPort(0, 0, "192.0.2.1", 1), Endpoint("192.0.2.1", 1)),
    (HostPort(0, 0, "example.com", 5060), None),
    (HostPort(0, 0, "[2001:db8::1]", 5060), None),
    (HostPort(0, 0, "192.0.2.256", 5060), None),
])
def test_endpoints_are_ipv4(hostport: HostPort, expected: Endpoint | None) -> None:
    """A port left out is 5060 (RFC 3261, section 19.1.2); names are not resolved."""
    assert hostport.endpoint() == expected


def test_the_port_left_out_can_be_another() -> None:
    """sips: URIs, for instance, mean 5061."""
    assert HostPort(0, 0, "192.0.2.1", None).endpoint(5061) == Endpoint("192.0.2.1", 5061)


# Lists


@pytest.mark.parametrize(("text", "values"), [
    (b"", [b""]),
    (b"a", [b"a"]),
    (b"a,b , c", [b"a", b"b ", b" c"]),
    (b"a,,", [b"a", b"", b""]),
    (b'"a,b" <sip:c,d@e;x=f,g>;h="i,j",k', [b'"a,b" <sip:c,d@e;x=f,g>;h="i,j"', b"k"]),
    (b'"a\\",b",c', [b'"a\\",b"', b"c"]),
    (b'"\\\\",c', [b'"\\\\"', b"c"]),
    (b'a>,b', [b"a>", b"b"]),
    (b'"<",">"', [b'"<"', b'">"']),
])
def test_lists(text: bytes, values: list[bytes]) -> None:
    """Commas part values, but for those in quotes and angle brackets."""
    raw, start, end = around(text)
    assert [raw[slice(*span)] for span in split_values(raw, start, end)] == values


@pytest.mark.parametrize("text", [
    b'a,"b', b'"a\\",b', b"a,<b", b"<a<b>,c", b",".join([b"a"] * (MAX_VALUES + 1)),
])
def test_broken_lists(text: bytes) -> None:
    """An open quote or bracket hides where a value ends; an endless list is an attack."""
    raw, start, end = around(text)
    with pytest.raises(MalformedMessage):
        split_values(raw, start, end)


# URIs


@pytest.mark.parametrize(("text", "scheme", "user", "hostport", "params"), [
    (b"sip:192.0.2.1", "sip", "", b"192.0.2.1", {}),
    (b"SIPS:alice@192.0.2.1:5061", "sips", "alice", b"192.0.2.1:5061", {}),
    (b"sip:a:secret@h;LR;maddr=192.0.2.9;ttl=1", "sip", "a:secret", b"h", {
        "lr": "", "maddr": "192.0.2.9", "ttl": "1"}),
    (b"sip:a;x=1?y@h:1;z", "sip", "a;x=1?y", b"h:1", {"z": ""}),
    (b"sip:a,b@h?To=x;y@z&q=r", "sip", "a,b", b"h", {}),
    (b"sip:a@h;p=1?To=x;q=2", "sip", "a", b"h", {"p": "1"}),
    (b"sip:@h", "sip", "", b"h", {}),
    (b"sip:%61@[2001:db8::1]:5060;x", "sip", "%61", b"[2001:db8::1]:5060", {"x": ""}),
    (b"sip:a@h;alias=192.0.2.1~5060~1", "sip", "a", b"h", {"alias": "192.0.2.1~5060~1"}),
    (b"sip:a@h;x=1;X=2", "sip", "a", b"h", {"x": "1"}),
    (b"sip:a@h;", "sip", "a", b"h", {}),
    (b"sip:+49\xe4@h", "sip", "+49\xe4", b"h", {}),
])
def test_uris(text: bytes, scheme: str, user: str, hostport: bytes, params: dict[str, str]) -> None:
    """Scheme, user, host and port, and parameters, with the spans of all that may be replaced."""
    raw, start, end = around(text)
    uri = uri_at(raw, start, end)
    assert (uri.start, uri.end, uri.scheme, uri.user) == (start, end, scheme, user)
    assert raw[uri.hostport.start:uri.hostport.end] == hostport
    assert texts(raw, uri.params) == params


@pytest.mark.parametrize("text", [
    b"", b"*", b"sip", b"sip:", b"tel:+49", b"sip:a@", b"sip:a@h:x", b"sip:a@h:99999", b"sip:a@h:0",
    b"sip:a@b@h", b"<sip:a@h>", b"sip:a b@h", b"sip:a@h b", b"sip:a@h,c", b"sip:h:5060:5060", b"sip:a@h%eth0",
    b"http://h", b"sip:a@h" + b"".join(b";p%d" % number for number in range(MAX_PARAMS + 1)),
])
def test_no_uris(text: bytes) -> None:
    """Other schemes and nonsense are refused, an unescaped @ in the user name as well."""
    raw, start, end = around(text)
    with pytest.raises(MalformedMessage):
        uri_at(raw, start, end)


# Via


@pytest.mark.parametrize(("text", "transport", "sent_by", "params"), [
    (b"SIP/2.0/UDP 192.0.2.1", "UDP", b"192.0.2.1", {}),
    (b"sip/2.0/udp 192.0.2.1:5060;rport;branch=z9hG4bK.~!%*_+`'", "UDP", b"192.0.2.1:5060", {
        "rport": "", "branch": "z9hG4bK.~!%*_+`'"}),
    (b"SIP / 2.0 / UDP first.example.com: 4000;ttl=16 ;maddr=224.2.0.1 ;branch=z9hG4bKa7c6a8dlze.1", "UDP",
     b"first.example.com: 4000", {"ttl": "16", "maddr": "224.2.0.1", "branch": "z9hG4bKa7c6a8dlze.1"}),
    (b" SIP\r\n /2.0/\r\n\tTLS\r\n h ; Received = 192.0.2.2 ; RPORT = 1 ;x=\"a;b\"", "TLS", b"h", {
        "received": "192.0.2.2", "rport": "1", "x": '"a;b"'}),
    (b"SIP/2.0/TLS-SCTP [2001:db8::9:1];received=2001:db8::9:255;branch=1", "TLS-SCTP", b"[2001:db8::9:1]", {
        "received": "2001:db8::9:255", "branch": "1"}),
    (b"SIP/2.0/UDP h;;branch=1;", "UDP", b"h", {"branch": "1"}),
    (b"SIP/2.0/UDP h;branch=", "UDP", b"h", {"branch": ""}),
])
def test_vias(text: bytes, transport: str, sent_by: bytes, params: dict[str, str]) -> None:
    """White space may stand nearly everywhere (RFC 3261, section 20.42)."""
    raw, start, end = around(text)
    via = via_at(raw, start, end)
    assert (via.start, via.end, via.transport) == (start, end, transport)
    assert raw[via.sent_by.start:via.sent_by.end] == sent_by
    assert texts(raw, via.params) == params


def test_a_valueless_parameter_has_an_empty_span_behind_its_name() -> None:
    """There "=value" could be inserted."""
    raw = b"SIP/2.0/UDP h;rport;branch=1"
    assert via_at(raw, 0, len(raw)).params["rport"] == (19, 19)


@pytest.mark.parametrize("text", [
    b"", b"SIP/2.0/UDP", b"SIP/2.0/UDP ", b"SIP/3.0/UDP h", b"SIP/2.0 h", b"HTTP/2.0/UDP h",
    b"SIP/2.0/UDP h:x", b"SIP/2.0/UDP h i", b"SIP/2.0/UDP h:5060 (comment)", b"SIP/2.0/UDP h;x=\"",
    b"SIP/2.0/UDP h;x=1 y",
    b"SIP/2.0/UDP h:70000", b"SIP/2.0/UDP <h>",
])
def test_no_vias(text: bytes) -> None:
    """What is no Via is refused, rather than half of it read."""
    raw, start, end = around(text)
    with pytest.raises(MalformedMessage):
        via_at(raw, start, end)


def test_one_via_is_read_of_several() -> None:
    """A comma ends the value, also for one who did not split the list."""
    raw = b"SIP/2.0/UDP h;branch=1 , SIP/2.0/UDP i;branch=2;rport"
    via = via_at(raw, 0, len(raw))
    assert (raw[via.start:via.end], texts(raw, via.params)) == (b"SIP/2.0/UDP h;branch=1 ", {"branch": "1"})


# Addresses


@pytest.mark.parametrize(("text", "uri", "params"), [
    (b"<sip:a@h>", b"sip:a@h", {}),
    (b"<sip:a@h;lr>;lr2;q=0.5", b"sip:a@h;lr", {"lr2": "", "q": "0.5"}),
    (b"sip:a@h", b"sip:a@h", {}),
    (b"sip:a@h;expires=60;q=1", b"sip:a@h", {"expires": "60", "q": "1"}),
    (b"sip:a@h ; tag = x", b"sip:a@h ", {"tag": "x"}),
    (b"Alice Smith <sip:a@h>;tag=1", b"sip:a@h", {"tag": "1"}),
    (b"caller<sip:a@h>", b"sip:a@h", {}),
    (b'"A <sip:b@i>, \\" ;tag=2" \r\n <sip:a@h>\r\n ;tag=1', b"sip:a@h", {"tag": "1"}),
    (b'""<sip:a@h>', b"sip:a@h", {}),
    (b'<sip:a@h>;+sip.instance="<urn:uuid:1,2;3>";reg-id=1', b"sip:a@h", {
        "+sip.instance": '"<urn:uuid:1,2;3>"', "reg-id": "1"}),
    (b'<sip:a@h>;received="sip:192.0.2.1:5060"', b"sip:a@h", {"received": '"sip:192.0.2.1:5060"'}),
    (b"<sip:a@h?Replaces=1%3B2>;x", b"sip:a@h?Replaces=1%3B2", {"x": ""}),
    (b"< sip:a@h >", b"sip:a@h ", {}),
    (b"<sip:a@h>;;;", b"sip:a@h", {}),
    (b"*", None, {}),
    (b" * ", None, {}),
    (b"<tel:+49;phone-context=x>;tag=1", None, {"tag": "1"}),
    (b"tel:+49;tag=1", None, {"tag": "1"}),
    (b"<urn:service:sos>", None, {}),
    (b"<name:John_Smith>", None, {}),
    (b"<sip:a@h>, <sip:b@i>", b"sip:a@h", {}),
])
def test_addresses(text: bytes, uri: bytes | None, params: dict[str, str]) -> None:
    """Names hide nothing; without brackets all parameters are the header's (RFC 3261, section 20.10)."""
    raw, start, end = around(text)
    address = address_at(raw, start, end)
    assert address.start == start
    assert (None if address.uri is None else raw[address.uri.start:address.uri.end]) == uri
    assert texts(raw, address.params) == params


@pytest.mark.parametrize("text", [
    b"", b" ", b"alice", b"**", b"<>", b"<alice>", b"<sip:>", b"<sip:a@h", b"sip:a@h>", b"<sip:a@h:x>",
    b"sip:a b@h", b'"Mr. J. User <sip:a@h>', b"<sip:a@h> x", b"<sip:a@h>;x=1 y", b'<sip:a@h>;x="',
    b"<sip:a@h:0>", b"<sip:a@b@h>", b"<<sip:a@h>>",
    b"<sip:a@h>;" + b";".join(b"p%d" % number for number in range(MAX_PARAMS + 1)),
])
def test_no_addresses(text: bytes) -> None:
    """Nonsense is refused, a SIP URI that cannot be read as well."""
    raw, start, end = around(text)
    with pytest.raises(MalformedMessage):
        address_at(raw, start, end)


# Any bytes

Reader = Callable[[bytes, int, int], object]
READERS: tuple[Reader, ...] = (split_values, hostport_at, uri_at, via_at, address_at)
BEGINNINGS = (
    b"", b"sip:", b"sip:a", b"sip:a@h", b"SIP/2.0/UDP ", b"SIP/2.0/UDP h", b"<sip:a@h>", b'"', b"<", b"SIP",
    b"SIP/2.0/UDP h:", b"<sip:a@h>;x=", b"<sip:a@h;x",
)
PIECES = st.lists(st.sampled_from([
    b"sip:", b"SIP/2.0/UDP ", b"<", b">", b'"', b"\\", b";", b"=", b",", b"@", b":", b"?", b"a", b"1",
    b"192.0.2.1", b"[", b"]", b" ", b"\r\n ", b";tag=", b"*", b"\xff", b"\0", b"5060", b"branch",
]), max_size=20).map(b"".join)


def spans_of(found: object) -> list[Span]:
    """Return every span in what a reader returns."""
    match found:
        case list():
            return list(found)
        case HostPort():
            return [found[:2]]
        case Uri():
            return [found[:2], found.hostport[:2], *found.params.values()]
        case Via():
            return [found[:2], found.sent_by[:2], *found.params.values()]
        case Address():
            return [found[:2], *found.params.values(), *(spans_of(found.uri) if found.uri else [])]
    raise AssertionError(found)


@given(st.one_of(st.binary(max_size=60), PIECES), st.sampled_from(READERS))
def test_any_bytes_are_read_or_malformed(text: bytes, reader: Reader) -> None:
    """Nothing else is raised, and every span lies in the value."""
    raw, start, end = around(text)
    try:
        found = reader(raw, start, end)
    except MalformedMessage:
        return
    assert all(start <= first <= last <= end for first, last in spans_of(found))


@given(PIECES)
def test_host_and_port_are_what_their_span_says(text: bytes) -> None:
    """Reading a span again gives the same host and port."""
    with contextlib.suppress(MalformedMessage):
        address = address_at(text, 0, len(text))
        if address.uri is not None:
            hostport = address.uri.hostport
            assert hostport_at(text, hostport.start, hostport.end) == hostport


@given(PIECES)
def test_lists_are_parted_at_commas_only(text: bytes) -> None:
    """The values, joined with commas, are the list again."""
    with contextlib.suppress(MalformedMessage):
        assert b",".join(text[slice(*span)] for span in split_values(text, 0, len(text))) == text


@pytest.mark.parametrize("filler", [
    b" ", b"\r\n ", b"a", b"1", b";", b"; ", b" ;", b";a", b";a=", b";a=1", b'"', b'""', b'\\"', b"\\", b"<",
    b">", b"<>", b",", b", ", b"@", b":", b"=", b"?", b';a="', b'; "', b"a ",
])
def test_no_bytes_take_more_than_linear_time(filler: bytes) -> None:
    """The longest value of the worst bytes is read, or refused, in some milliseconds, by each reader."""
    for beginning in BEGINNINGS:
        raw = beginning + filler * (60000 // len(filler))
        for text in (raw, raw + b"!", raw + b">"):
            for reader in READERS:
                begun = time.process_time()
                with contextlib.suppress(MalformedMessage):
                    reader(text, 0, len(text))
                assert time.process_time() - begun < TOO_LONG, (reader, text[:40])


# Messages by others


@NEEDS_DATA
def test_values_by_others_are_read() -> None:
    """Of every message of the data folder nearly all addresses and Vias are read."""
    refused: set[bytes] = set()
    read = 0
    for item in [*corpus.messages(), *corpus.captured()]:
        with contextlib.suppress(MalformedMessage):
            message = message_from_bytes(item.raw)
            for header in message.headers:
                reader = via_at if header.name == "via" else address_at
                if header.name in (*ADDRESS_HEADERS, "via"):
                    try:
                        for start, end in split_values(message.raw, header.start, header.end):
                            assert isinstance(reader(message.raw, start, end), tuple)
                            read += 1
                    except MalformedMessage:
                        refused.add(message.raw[header.start:header.end])
    assert read > 20000
    assert len(refused) < 15


@NEEDS_DATA
def test_another_parser_reads_the_same_values() -> None:
    """Wherever the package sipmessage accepts a value as well, hosts, ports and users agree."""
    compared = 0
    for item in [*corpus.messages(), *corpus.captured()[::10]]:
        with contextlib.suppress(MalformedMessage):
            message = message_from_bytes(item.raw)
            for header in message.headers:
                compared += compare_with_other(message.raw, header.name, header.start, header.end, item.where)
    assert compared > 2000


def compare_with_other(raw: bytes, name: str, start: int, end: int, where: str) -> int:
    """Compare the values of one header with what the package sipmessage finds; return how many there were."""
    text = " ".join(raw[start:end].decode("latin-1").split())
    try:
        if name == "via":
            others = [(via.transport, via.host, via.port) for via in sipmessage.Via.parse_many(text)]
        elif name in ADDRESS_HEADERS:
            parsed = sipmessage.Address.parse_many(text)
            others = [(a.uri.scheme, a.uri.host, a.uri.port) for a in parsed if a.uri.scheme != "tel"]
        else:
            return 0
    except ValueError:
        return 0
    ours = list(_values(raw, name, start, end))
    assert ours == others, where
    return len(ours)


def _values(raw: bytes, name: str, start: int, end: int) -> list[tuple[str, str, int | None]]:
    found = []
    for first, last in split_values(raw, start, end):
        if name == "via":
            via = via_at(raw, first, last)
            found.append((via.transport, via.sent_by.host, via.sent_by.port))
        elif (uri := address_at(raw, first, last).uri) is not None:
            found.append((uri.scheme, uri.hostport.host, uri.hostport.port))
    return found
