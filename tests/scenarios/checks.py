"""What every scenario asserts besides audio: nobody can tell that there is NAT, and nothing is left over."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from tests.agent import Sip
from tests.lab.counters import media_flows
from tests.lab.host import LabError, wait_until
from tests.lab.pcap import datagrams_from_pcap, sip_messages
from tests.lab.programs import Capture

if TYPE_CHECKING:
    from tests.lab.gateway import Natfix
    from tests.lab.lab import Lab

INSIDE_ADDRESS = re.compile(r"\b192\.168\.\d+\.\d+")
OUTSIDE_ADDRESS = re.compile(r"\b203\.0\.113\.1\b")
URI_HOSTPORT = re.compile(r"sips?:(?:[^@>;?\s]*@)?([^;>?\s]+)")
MEDIA_OBJECTS = ("media_out", "media_in", "media_allowed", "media_open")   # of natfix's own nft table
# Where an address may stand that no fixer may touch: it is a name, or a digest was computed over it.
UNTOUCHED = ("call-id", "in-reply-to", "replaces", "authorization", "proxy-authorization")
PATIENCE = 8.0      # seconds from a call's end until nothing of its media may be left; unloaded, it takes 2


class Wiretap:
    """Records the SIP on both sides of the gateway; *trunk* is the endpoint of a declared trunk inside."""

    def __init__(self, lab: Lab, trunk: str = "") -> None:
        self.trunk = trunk
        self.outside = lab.start(Capture("gateway", "outside", "udp port 5060"))
        self.inside = lab.start(Capture("gateway", "inside", "udp port 5060"))

    def check(self) -> None:
        """Fail where a message outside names an inside address, or a UA inside gets what it did not write."""
        assert_no_inside_address(messages(self.outside.stop()))
        assert_inverse(self.inside.stop(), self.trunk)

    def seen_outside(self, text: str) -> int:
        """Return how many messages outside have *text* in them so far."""
        return sum(text in message.payload.decode() for message in messages(self.outside.path))


def messages(pcap: Path) -> list[Sip]:
    """Return the SIP messages of a capture."""
    return [Sip(datagram.payload) for datagram in sip_messages(pcap)]


def assert_no_inside_address(seen: list[Sip]) -> None:
    """No line of any message that a fixer may touch names an inside address."""
    assert seen, "nothing was captured outside"
    named = [f"{message.start}: {line}" for message in seen for line in _lines(message)
             if INSIDE_ADDRESS.search(line)]
    assert not named, "\n".join(named)


def assert_inverse(pcap: Path, trunk: str = "") -> None:
    """What arrives at each inside UA names only what that UA wrote itself.

    No message has the gateway's outside address in it; a response repeats Via, From and To of its request;
    a request goes to a Contact that the UA has written, or to a *trunk* as it is declared.
    """
    written: dict[str, list[Sip]] = defaultdict(list)
    arrived: dict[str, list[Sip]] = defaultdict(list)
    for datagram in sip_messages(pcap):
        message = Sip(datagram.payload)
        if INSIDE_ADDRESS.match(datagram.source[0]):
            written[datagram.source[0]].append(message)
        else:
            arrived[datagram.destination[0]].append(message)
    assert arrived, "nothing was captured inside"
    for address, received in arrived.items():
        for message in received:
            _assert_own_words(address, message, written[address], trunk)


def assert_nothing_left(lab: Lab, natfix: Natfix) -> None:
    """A few seconds after the last call's end nothing of it is left, in natfix or in the kernel."""
    try:
        wait_until(lambda: not left_over(lab, natfix), PATIENCE, "the end of all media state", interval=0.2)
    except LabError:
        raise AssertionError("left over:\n" + "\n".join(left_over(lab, natfix))) from None
    assert natfix.json("calls")["calls"] == []


def left_over(lab: Lab, natfix: Natfix) -> list[str]:
    """Return what calls have in natfix and in the kernel now, one line each."""
    calls = [f"natfix calls: {call}" for call in natfix.request("calls")["calls"]]
    return calls + [f"nft {element}" for element in media_elements(lab)] \
        + [f"conntrack {flow}" for flow in media_flows(lab.gateway, minimum=0)]


def media_elements(lab: Lab) -> list[str]:
    """Return the elements of natfix's media maps and sets."""
    listing = json.loads(lab.gateway.run(["nft", "-j", "list", "table", "ip", "natfix"]).stdout)["nftables"]
    objects = [entry[kind] for entry in listing for kind in ("map", "set") if kind in entry]
    return [f"{item['name']}: {element}" for item in objects if item["name"] in MEDIA_OBJECTS
            for element in item.get("elem", ())]


def packets_seen(capture: Capture) -> int:
    """Return how many datagrams a running capture has written down."""
    return len(datagrams_from_pcap(capture.path))


def _assert_own_words(address: str, message: Sip, written: list[Sip], trunk: str) -> None:
    shown = [line for line in _lines(message) if OUTSIDE_ADDRESS.search(line)]
    assert not shown, f"{address} got {message.start} with {shown}"
    if message.is_request:
        targets = {_hostport(contact) for own in written for contact in own.all("contact")} | {trunk}
        assert _hostport(message.uri) in targets, f"{address} got {message.start}, but wrote {targets}"
        return
    request = next((own for own in written if own.is_request and own.branch == message.branch), None)
    assert request is not None, f"{address} got {message.start} to no request of its own"
    assert _plain_via(message) == _plain_via(request)
    assert message["from"] == request["from"]
    assert _uri(message["to"]) == _uri(request["to"]), f"{message['to']} for {request['to']}"


def _lines(message: Sip) -> list[str]:
    headers = [f"{name}: {value}" for name, value in message.fields if name not in UNTOUCHED]
    # A CNAME is a name that RTCP repeats (RFC 3550, section 6.5.1), whatever it looks like.
    body = [line for line in message.body.decode().splitlines() if " cname:" not in line]
    return [message.start, *headers, *body]


def _plain_via(message: Sip) -> str:
    """Return the topmost Via without what a server adds to it (RFC 3581, section 4)."""
    return re.sub(r";(received|rport)(=[^;,]*)?", "", message.all("via")[0])


def _uri(address: str) -> str:
    """Return the URI of an address, with or without angle brackets."""
    return re.sub(r".*<|>.*|;tag=.*", "", address)


def _hostport(text: str) -> str:
    found = URI_HOSTPORT.search(text)
    return found[1] if found else ""
