"""Hypothesis strategies for SIP and SDP as they are in the field: odd, but legal; and then broken.

Everything is written by an *inside* user agent at an endpoint of the test's choice, which names itself in
many ways and others besides.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from natfix.address import SIP_PORT, Endpoint

METHODS = ("INVITE", "INVITE", "INVITE", "REGISTER", "SUBSCRIBE", "NOTIFY", "OPTIONS", "MESSAGE", "UPDATE",
           "PRACK", "BYE", "ACK", "CANCEL", "REFER", "INFO", "PUBLISH", "X-ODD")
FORMS_DIALOG = ("INVITE", "SUBSCRIBE")
COMPACT = {"Via": "v", "From": "f", "To": "t", "Contact": "m", "Call-ID": "i", "Content-Length": "l",
           "Content-Type": "c", "Supported": "k", "Refer-To": "r", "Referred-By": "b", "Event": "o",
           "Session-Expires": "x", "Subject": "s", "Allow-Events": "u"}
PUBLIC_HOSTS = ("198.51.100.20", "198.51.100.7", "provider.example", "sip.example.net")

text = st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789-.", min_size=1, max_size=12).map(
    lambda word: "x" + word)
users = st.one_of(text, st.sampled_from(["alice", "+4930123456", "%61lice", "alice;day=tue", "a.b_c~d*e'f"]))
ports = st.integers(1024, 65535)
endpoints = st.builds(
    Endpoint, st.integers(2, 250).map(lambda number: f"192.168.1.{number}"),
    st.one_of(st.just(SIP_PORT), st.just(SIP_PORT), ports.filter(lambda port: not 30000 <= port <= 39999)),
    st.just(""), st.just(""))


class Spoken(NamedTuple):
    """A generated request."""

    payload: bytes
    method: str
    contact: str    # URI of the sender's own first Contact, "" where it has none


# Addresses


@st.composite
def own_hostports(draw: DrawFn, own: Endpoint) -> str:
    """Draw how a UA writes its own address."""
    spellings = [str(own), str(own), f"{own.host}:{draw(ports)}"]
    if own.port == SIP_PORT:
        spellings += [own.host, own.host]
    return draw(st.sampled_from(spellings))


@st.composite
def other_hostports(draw: DrawFn) -> str:
    """Draw somebody else's address: a host name, a public address, an IPv6 one, a private one."""
    host = draw(st.sampled_from([*PUBLIC_HOSTS, "[2001:db8::9:1]", "10.9.8.7", "192.168.1.254"]))
    return host + draw(st.sampled_from(["", ":5060", ":5070"]))


def hostports(own: Endpoint) -> SearchStrategy[str]:
    """Draw the sender's address, or another one."""
    return st.one_of(own_hostports(own), own_hostports(own), other_hostports())


@st.composite
def uris(draw: DrawFn, hostport: SearchStrategy[str], own: Endpoint) -> str:
    """Draw a SIP URI, with the parameters that hold addresses as well."""
    scheme = draw(st.sampled_from(["sip:", "sip:", "sip:", "SIP:", "sips:"]))
    user = draw(st.one_of(st.just(""), users.map(lambda name: name + "@")))
    place = draw(hostport)
    parameters = draw(st.lists(st.sampled_from([
        ";transport=udp", ";lr", ";ob", ";user=phone", f";maddr={own.host}", ";line=8f3c", ";method=INVITE"]),
        max_size=2, unique=True))
    return f"{scheme}{user}{place}{''.join(parameters)}"


@st.composite
def addresses(draw: DrawFn, uri: SearchStrategy[str], parameters: tuple[str, ...] = ()) -> str:
    """Draw a name-addr with any display name, in which commas and brackets may hide."""
    name = draw(st.sampled_from(["", "", "Alice ", '"Alice" ', '"A, <sip:x@y>; \\" Z" ', '""', '"Ж" ']))
    chosen = draw(st.lists(st.sampled_from(parameters), max_size=2, unique=True)) if parameters else []
    return f"{name}<{draw(uri)}>{''.join(chosen)}"


# Headers


@st.composite
def vias(draw: DrawFn, own: Endpoint, branch: str) -> str:
    """Draw a topmost Via."""
    space = draw(st.sampled_from([" ", " ", "  ", "\t"]))
    transport = draw(st.sampled_from(["SIP/2.0/UDP", "SIP/2.0/UDP", "SIP / 2.0 / UDP", "sip/2.0/udp"]))
    place = str(own) if own.port != SIP_PORT else draw(st.sampled_from([str(own), own.host]))
    parameters = draw(st.permutations([f";branch={branch}", draw(st.sampled_from(["", ";rport", ";alias"]))]))
    return f"{transport}{space}{place}{''.join(parameters)}"


@st.composite
def contacts(draw: DrawFn, own: Endpoint, method: str) -> list[str]:
    """Draw the Contacts of a request: one, several, none, or the registrar's "*"."""
    if method == "REGISTER" and draw(st.integers(0, 9)) == 0:
        return ["*"]
    parameters = (";expires=60", ";q=0.7", ';+sip.instance="<urn:uuid:0>"', ";audio")
    mine = addresses(uris(own_hostports(own), own), parameters)
    others = addresses(uris(other_hostports(), own), parameters)
    return [draw(mine), *draw(st.lists(st.one_of(mine, others), max_size=2))]


@st.composite
def optional_headers(draw: DrawFn, own: Endpoint) -> list[tuple[str, str]]:
    """Draw headers that a message may have, also such that no rule is about."""
    place = hostports(own)
    uri = uris(place, own)
    address = addresses(uri)
    others = uris(other_hostports(), own)
    strategies: dict[str, SearchStrategy[str]] = {
        "Record-Route": addresses(uris(place, own).map(lambda value: f"{value};lr")),
        "Route": addresses(others.map(lambda value: f"{value};lr")),
        "Path": addresses(uri),
        "P-Asserted-Identity": address,
        "P-Preferred-Identity": address,
        "Diversion": address.map(lambda value: f"{value};reason=no-answer"),
        "History-Info": address.map(lambda value: f"{value};index=1"),
        "Remote-Party-ID": address.map(lambda value: f"{value};party=calling"),
        "Reply-To": address,
        "Refer-To": address,
        "Referred-By": address,
        "Warning": place.map(lambda value: f'399 {value} "no, <really>"'),
        "Call-Info": place.map(lambda value: f"<http://{value}/photo.jpg>;purpose=icon"),
        "Authorization": uri.map(lambda value: f'Digest username="a, b", uri="{value}", response="00"'),
        "X-Internal-Address": place,
        "Subject": place.map(lambda value: f"call {value} now"),
        "Supported": st.just("replaces, 100rel,timer"),
        "Session-Expires": st.just("1800;refresher=uac"),
        "Event": st.just("presence"),
        "User-Agent": st.sampled_from(["Playbook/1.0", "Yet Another (UA) 7", "ünïcode"]),
        "Max-Forwards": st.just("70"),
        "Expires": st.sampled_from(["0", "60", "3600"]),
        "Date": st.just("Sat, 13 Nov 2010 23:29:00 GMT"),
        "Unknown-Without-Value": st.just(""),
    }
    names = draw(st.lists(st.sampled_from(sorted(strategies)), max_size=6))
    return [(name, draw(strategies[name])) for name in names]


@st.composite
def written_header(draw: DrawFn, name: str, value: str) -> str:
    """Draw how a header is written: case, compact form, space around the colon, folding."""
    if name in COMPACT and draw(st.booleans()):
        name = COMPACT[name]
    name = draw(st.sampled_from([name, name, name.lower(), name.upper()]))
    colon = draw(st.sampled_from([": ", ": ", ":", " : ", ":\t", ":\r\n  "]))
    trailing = draw(st.sampled_from(["", "", " "]))
    if '"' not in value and draw(st.integers(0, 3)) == 0:
        where = ">;" if "<" in value else ";"       # no white space inside a URI
        value = value.replace(where, f"{where[:-1]}\r\n\t;", 1)
    return f"{name}{colon}{value}{trailing}"


# Bodies


@st.composite
def media_lines(draw: DrawFn, host: str) -> list[str]:
    """Draw one m-line with what belongs to it."""
    port = draw(st.one_of(st.integers(1024, 65000), st.integers(10000, 10010), st.sampled_from([0, 9, 22])))
    kind, proto = draw(st.sampled_from([
        ("audio", "RTP/AVP"), ("audio", "RTP/AVP"), ("video", "RTP/SAVPF"), ("image", "udptl"),
        ("application", "TCP/MSRP"), ("audio", "UDP/TLS/RTP/SAVPF")]))
    count = draw(st.sampled_from(["", "", "", "/2"]))
    lines = [f"m={kind} {port}{count} {proto} {'t38' if proto == 'udptl' else '0 8 101'}"]
    extra = draw(st.lists(st.sampled_from([
        f"c=IN IP4 {host}", "c=IN IP4 0.0.0.0", "c=IN IP4 media.example.net", "c=IN IP6 2001:db8::1",
        "c=IN IP4 198.51.100.7", "c=IN IP4 224.2.1.1/127/3",
        f"a=rtcp:{port + 1}", f"a=rtcp:{port + 3} IN IP4 {host}", "a=rtcp-mux", "a=sendrecv", "a=sendonly",
        "a=inactive", "a=recvonly", "a=rtpmap:101 telephone-event/8000", "b=AS:64", "i=some words",
        f"a=candidate:1 1 UDP 2130706431 {host} {port} typ host",
        f"a=candidate:1 2 UDP 2130706430 {host} {port + 1} typ host",
        f"a=candidate:2 1 UDP 1694498815 203.0.113.77 40000 typ srflx raddr {host} rport {port}",
        "a=candidate:3 1 TCP 2105458943 2001:db8::1 9 typ host tcptype active",
        "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:bm90IGEgcmVhbCBrZXkgYXQgYWxsIGp1c3QgdGVzdA==",
        f"a=alt:1 1 : 0 0 {host} {port}", "x=?", "a="]), max_size=5))
    return lines + sorted(extra, key=lambda line: "icba".find(line[0]) % 5)    # RFC 8866's order


@st.composite
def descriptions(draw: DrawFn, own: Endpoint) -> str:
    """Draw an SDP of 0 to 4 m-lines."""
    host = draw(st.sampled_from([own.host, own.host, own.host, own.host, "198.51.100.7", "127.0.0.1"]))
    connection = draw(st.sampled_from([
        [f"c=IN IP4 {host}"], [f"c=IN IP4 {host}"], [f"c=IN IP4 {host}"], [], ["c=IN IP6 2001:db8::1"],
        ["c=IN IP4 0.0.0.0"], ["c=IN IP4 media.example.net"]]))
    origin_host = draw(st.sampled_from([host, host, "pc.example.net", "127.0.0.1"]))
    lines = ["v=0", f"o=- 20518 {draw(st.integers(0, 2**40))} IN IP4 {origin_host}", "s=-", *connection,
             "t=0 0", *draw(st.sampled_from([[], ["a=sendonly"], ["a=ice-lite"], ["a=group:BUNDLE 0 1"]]))]
    for media in draw(st.lists(media_lines(host), min_size=draw(st.sampled_from([0, 1, 1, 2])), max_size=4)):
        lines += media
    ending = draw(st.sampled_from(["\r\n", "\r\n", "\r\n", "\n"]))
    return ending.join(lines) + draw(st.sampled_from([ending, ending, ""]))


@st.composite
def bodies(draw: DrawFn, own: Endpoint) -> tuple[str, str]:
    """Draw Content-Type ("" for no body) and body: SDP, multipart with it, or something else."""
    description = draw(descriptions(own))
    parts = (
        f"--b1\r\nContent-Type: application/sdp\r\n\r\n{description}\r\n--b1\r\n"
        f"Content-Type: text/plain\r\nContent-Disposition: render\r\n\r\nI am at {own.host}\r\n--b1--\r\n")
    return draw(st.sampled_from([
        ("application/sdp", description), ("application/sdp", description), ("application/sdp", description),
        ("Application/SDP;charset=utf-8", description), ('multipart/mixed;boundary="b1"', parts),
        ("multipart/alternative; boundary=b1", parts), ("text/plain", f"I am at {own}"),
        ("application/dtmf-relay", "Signal=5\r\nDuration=160\r\n"), ("", "")]))


# Messages


@st.composite
def requests(draw: DrawFn, own: Endpoint, methods: tuple[str, ...] = METHODS) -> Spoken:
    """Draw a request that a UA at *own* sends outside a dialog (or first in one that natfix missed)."""
    method = draw(st.sampled_from(methods))
    number = draw(st.integers(0, 10**9))
    own_contacts = draw(contacts(own, method)) if method not in ("BYE", "ACK", "CANCEL", "MESSAGE") else []
    identity = addresses(uris(hostports(own), own))
    fields = [("From", draw(identity) + f";tag=f{number}"), ("To", draw(identity)),
              ("Call-ID", f"{number}@{own.host}"), ("CSeq", f"{draw(st.integers(1, 2**31 - 1))} {method}")]
    if draw(st.booleans()):
        fields += [("Contact", contact) for contact in own_contacts]
    elif own_contacts:
        fields.append(("Contact", draw(st.sampled_from([", ", ","])).join(own_contacts)))
    fields += draw(optional_headers(own))
    content_type, body = draw(bodies(own))
    if content_type:
        fields.append(("Content-Type", content_type))
    if draw(st.integers(0, 4)):
        fields.append(("Content-Length", str(len(body.encode()))))
    further = draw(st.lists(st.sampled_from(["SIP/2.0/UDP 10.9.8.7;branch=z9hG4bKother"]), max_size=1))
    via = [draw(written_header("Via", draw(vias(own, f"z9hG4bK{number}")))), *(f"Via: {v}" for v in further)]
    lines = via + [draw(written_header(*field)) for field in draw(st.permutations(fields))]
    uri = draw(uris(other_hostports(), own))
    head = "\r\n".join([f"{method} {uri} SIP/2.0", *lines])
    return Spoken(f"{head}\r\n\r\n{body}".encode(), method, _first_uri(own_contacts))


@st.composite
def conversations(draw: DrawFn, methods: tuple[str, ...] = METHODS) -> tuple[Endpoint, Spoken]:
    """Draw an inside endpoint and a request of the UA there."""
    own = draw(endpoints)
    return own, draw(requests(own, methods))


@st.composite
def answers(draw: DrawFn, own: Endpoint, asked: bytes) -> bytes:
    """Draw the 2xx that a UA at *own* gives to the INVITE or SUBSCRIBE *asked* (given without folding)."""
    echoed = [line for line in asked.decode().partition("\r\n\r\n")[0].split("\r\n")
              if line.partition(":")[0] in ("Via", "From", "To", "Call-ID", "CSeq", "Record-Route")]
    lines = [line + (";tag=phone" if line.startswith("To:") else "") for line in echoed]
    content_type, body = draw(bodies(own))
    fields = [("Contact", contact) for contact in draw(contacts(own, "INVITE"))]
    fields += [field for field in draw(optional_headers(own)) if field[0] not in ("Record-Route", "Route")]
    fields += [("Content-Type", content_type)] if content_type else []
    fields += [("Content-Length", str(len(body.encode())))]
    lines += [draw(written_header(*field)) for field in draw(st.permutations(fields))]
    status = draw(st.sampled_from(["200 OK", "202 Accepted", "200 ", "299 Ünusual: but <fine>"]))
    return "\r\n".join([f"SIP/2.0 {status}", *lines, "", body]).encode()


@st.composite
def mutated(draw: DrawFn, messages: SearchStrategy[bytes]) -> bytes:
    """Draw a message with one to four things broken."""
    payload = draw(messages)
    for breakage in draw(st.lists(st.sampled_from(BREAKAGES), min_size=1, max_size=4)):
        at = draw(st.integers(0, max(len(payload) - 1, 0)))
        payload = breakage(payload, at, draw(st.binary(max_size=8)))
    return payload


def _cut(payload: bytes, at: int, junk: bytes) -> bytes:
    return payload[:at]


def _insert(payload: bytes, at: int, junk: bytes) -> bytes:
    return payload[:at] + junk + payload[at:]


def _overwrite(payload: bytes, at: int, junk: bytes) -> bytes:
    return payload[:at] + junk + payload[at + len(junk):]


def _delete(payload: bytes, at: int, junk: bytes) -> bytes:
    return payload[:at] + payload[at + 1 + len(junk):]


def _repeat_line(payload: bytes, at: int, junk: bytes) -> bytes:
    lines = payload.split(b"\r\n")
    where = at % len(lines)
    return b"\r\n".join([*lines[:where], lines[where], *lines[where:]])


def _drop_line(payload: bytes, at: int, junk: bytes) -> bytes:
    lines = payload.split(b"\r\n")
    where = at % len(lines)
    return b"\r\n".join(lines[:where] + lines[where + 1:])


def _bare_newlines(payload: bytes, at: int, junk: bytes) -> bytes:
    return payload[:at] + payload[at:].replace(b"\r\n", b"\n")


def _huge_number(payload: bytes, at: int, junk: bytes) -> bytes:
    digits = list(re.finditer(rb"\d+", payload))
    if not digits:
        return payload
    chosen = digits[at % len(digits)]
    return payload[:chosen.start()] + b"9" * (40 if at % 2 else 400) + payload[chosen.end():]


def _long_run(payload: bytes, at: int, junk: bytes) -> bytes:
    return payload[:at] + (junk[:1] or b" ") * 500 + payload[at:]


BREAKAGES: tuple[Callable[[bytes, int, bytes], bytes], ...] = (
    _cut, _insert, _overwrite, _delete, _repeat_line, _drop_line, _bare_newlines, _huge_number, _long_run)


def _first_uri(values: list[str]) -> str:
    match = re.search(r"<([^<>\"]*)>[^<>]*$", values[0].rpartition('" ')[2]) if values else None
    return match[1] if match else ""
