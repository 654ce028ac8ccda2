"""Somebody outside forges messages into the call of two far phones."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.far.calls import Site
from tests.far.site import GATEWAY
from tests.lab.audio import assert_two_way, talk
from tests.lab.host import wait_until
from tests.lab.lab import Lab
from tests.lab.namespaces import socket_in
from tests.lab.pcap import datagrams_from_pcap
from tests.lab.programs import Capture

pytestmark = pytest.mark.lab
STRANGER = "203.0.113.99"
FORGED = {
    "BYE": "BYE sip:dora@{gateway} SIP/2.0",
    "CANCEL": "CANCEL sip:emil@{gateway} SIP/2.0",
    "486": "SIP/2.0 486 Busy Here",
    "481": "SIP/2.0 481 Gone",
}
CSEQ = {"BYE": "77 BYE", "CANCEL": "{cseq} CANCEL", "486": "{cseq} INVITE", "481": "77 BYE"}
HEADERS = """
Via: SIP/2.0/UDP {stranger}:5060;branch=z9hG4bKforged
Max-Forwards: 70
From: {from_}
To: {to}
Call-ID: {call_id}
CSeq: {method}
Content-Length: 0

"""


def answered(path: Path) -> bytes:
    """Return the first 2xx to an INVITE in a recording."""
    return next(each.payload for each in datagrams_from_pcap(path)
                if each.payload.startswith(b"SIP/2.0 200") and b" INVITE\r\n" in each.payload)


def header(message: bytes, name: str) -> str:
    """Return the value of a header."""
    found = re.search(rb"^%s: *(.*?)\r$" % name.encode(), message, re.M | re.I)
    assert found is not None, message
    return found[1].decode()


def forged(kind: str, real: bytes, knows_tags: bool) -> bytes:
    """Return a message of *kind* that means to be of the call that *real* has answered."""
    to = header(real, "To")
    text = FORGED[kind].format(gateway=GATEWAY) + HEADERS.format(
        stranger=STRANGER, from_=header(real, "From"), call_id=header(real, "Call-ID"),
        to=to if knows_tags else re.sub("tag=.*", "tag=guessed", to),
        method=CSEQ[kind].format(cseq=header(real, "CSeq").split()[0]))
    return text.replace("\n", "\r\n").encode()


def strange_notes(site: Site) -> int:
    """Return how often natfix has said that a sender is no peer of a call."""
    return site.natfix.log().count("not a peer of this call")


@pytest.mark.parametrize("kind", sorted(FORGED))
def test_forged(make_lab: Callable[..., Lab], kind: str) -> None:
    """A BYE with a guessed tag, a CANCEL and refusals with the right ones: noted, the call goes on and ends
    as its phones want it."""
    site = Site(make_lab, "port-restricted", "symmetric", phones=1)
    dora, emil = site.phone("dora"), site.phone("emil")
    capture = site.lab.start(Capture("gateway", "inside", "udp port 5060"))
    dora.dial(emil.uri)
    real = answered(capture.stop())
    sender: socket.socket = socket_in(site.lab["stranger"].namespace)
    sender.bind((STRANGER, 5060))
    knows_tags = kind != "BYE"
    for _ in range(3):
        sender.sendto(forged(kind, real, knows_tags), (GATEWAY, 5060))
    if knows_tags:
        wait_until(lambda: strange_notes(site), 5.0, "a note on the stranger")
    talk()
    sender.close()
    assert_two_way(dora, emil)
    assert not [event for event in dora.events + emil.events if event["type"] == "CALL_CLOSED"]
    assert {row["state"] for row in site.natfix.json("calls")["calls"]} == {"confirmed"}
    mark = len(emil.events)
    dora.hang_up()
    emil.wait_closed(since=mark)
    wait_until(site.holds_no_media, 10.0, "the end of all mappings")
