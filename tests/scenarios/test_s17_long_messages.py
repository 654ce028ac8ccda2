"""Scenario 17: INVITEs that do not fit into a packet, or no longer do once the gateway has changed them."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tests.lab import namespaces
from tests.lab.audio import assert_two_way, talk
from tests.lab.lab import Lab
from tests.lab.programs import Capture, Sipp
from tests.lab.topology import INSIDE, OUTSIDE
from tests.scenarios.checks import assert_nothing_left
from tests.scenarios.crossing import assert_inverse, assert_shown
from tests.scenarios.script import messages_sent
from tests.scenarios.sipp_call import SippCall, audio_sdp

pytestmark = pytest.mark.lab

MTU = 1500
HEADERS = 28            # bytes of IP and UDP
FULL = MTU - HEADERS    # the longest payload of one packet
DONT_FRAGMENT, MORE_FRAGMENTS, OFFSET = 0x4000, 0x2000, 0x1FFF
SIZES = (1300, FULL - 4, FULL, 2000, 3000, 3900)


def test_invites_that_grow_past_the_mtu_arrive(lab: Lab) -> None:
    """Outgoing INVITEs of 1,300 to 3,900 bytes grow and arrive whole, with DF set or in fragments already.

    The phone's SIP port is taken outside, and it writes no port: so what it says of itself gets longer.
    """
    natfix = lab.start_natfix()
    take_sip_port(lab)
    packets = [lab.start(Capture("gateway", side, "udp")) for side in (INSIDE, OUTSIDE)]
    for size in SIZES:
        call = call_of_length(lab, size, "phone2", "remote1")
        sent, arrived = messages_sent(call.caller, "INVITE ")[0], call.offer
        assert arrived["subject"] == sent["subject"]
        assert len(arrived.payload) > len(sent.payload)
        assert_shown(arrived)
        assert_inverse(call.answer, messages_sent(call.caller))
        if size != SIZES[-1]:
            call.hang_up()
    media = call.start_media(8000, 14000)
    talk()
    assert_two_way(*media)
    call.hang_up()
    inside, outside = (ip_packets(capture.stop()) for capture in packets)
    assert (MTU, DONT_FRAGMENT) in inside, "no full packet with DF was sent"
    assert not [flags for _, flags in outside if flags & DONT_FRAGMENT and flags & (MORE_FRAGMENTS | OFFSET)]
    assert_nothing_left(lab, natfix)


def test_incoming_invites_that_grow_past_the_mtu_arrive(lab: Lab) -> None:
    """A provider's INVITE of just 1,500 bytes is longer inside, by one byte; it and longer ones arrive."""
    natfix = lab.start_natfix()
    registrar = lab.start(Sipp("provider", "s17_registrar.xml"))
    lab.start(Sipp("phone1", "s15_register.xml", to="203.0.113.50:5060", keys={"user": "alice"})).wait()
    registrar.wait()
    packets = [lab.start(Capture("gateway", side, "udp")) for side in (INSIDE, OUTSIDE)]
    for size in (FULL, 2000, 3900):
        call = call_of_length(lab, size, "provider", "phone1", to="203.0.113.1:5060", service="alice")
        sent, arrived = messages_sent(call.caller, "INVITE ")[0], call.offer
        assert arrived["subject"] == sent["subject"]
        assert arrived.uri == "sip:alice@192.168.1.10:5060"
        if size != 3900:
            call.hang_up()
    media = call.start_media(8000, 14000)
    talk()
    assert_two_way(*media)
    call.hang_up()
    inside, outside = (ip_packets(capture.stop()) for capture in packets)
    assert (MTU, DONT_FRAGMENT) in outside
    assert any(flags & MORE_FRAGMENTS for _, flags in inside)
    assert_nothing_left(lab, natfix)


def take_sip_port(lab: Lab) -> None:
    """Have phone1 use 5060 outside, so that phone2 gets another port."""
    with namespaces.socket_in(lab["phone1"].namespace) as phone:
        phone.bind((lab["phone1"].address, 5060))
        phone.sendto(b"OPTIONS sip:203.0.113.99 SIP/2.0\r\nVia: SIP/2.0/UDP 192.168.1.10;branch=z9hG4bK1\r\n"
                     b"From: <sip:a@192.168.1.10>;tag=1\r\nTo: <sip:203.0.113.99>\r\nCall-ID: first\r\n"
                     b"CSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n", ("203.0.113.99", 5060))


def call_of_length(lab: Lab, size: int, caller: str, callee: str, **options: str) -> SippCall:
    """Place a call whose INVITE has *size* bytes of payload, as its sender writes it."""
    short = padded_call(lab, 1, caller, callee, **options).start()
    length = len(messages_sent(short.caller, "INVITE ")[0].payload)
    short.hang_up()
    return padded_call(lab, size - length + 1, caller, callee, **options).start()


def padded_call(lab: Lab, length: int, caller: str, callee: str, **options: str) -> SippCall:
    """Return a call whose INVITE has a Subject of *length* bytes."""
    own = lab[caller].address
    return SippCall(lab, audio_sdp(own, 8000), audio_sdp(lab[callee].address, 14000), caller=caller,
                    callee=callee, via=own, contact=own, keys=({"pad": "x" * length}, {}),
                    files=("s17_caller.xml", "s13_callee.xml"), **options)      # type: ignore[arg-type]


def ip_packets(path: Path) -> list[tuple[int, int]]:
    """Return total length, and flags with fragment offset, of every IP packet in a pcap file."""
    raw, offset, found = path.read_bytes(), 24, []
    while offset + 16 <= len(raw):
        size = struct.unpack_from("<I", raw, offset + 8)[0]
        length, _, flags = struct.unpack_from("!HHH", raw, offset + 16 + 14 + 2)
        found.append((length, flags))
        offset += 16 + size
    return found
