"""The gateway: the engine on the fake kernel, on capture time."""

from __future__ import annotations

import pytest

from natfix.address import Endpoint
from natfix.config import Settings
from natfix.replay import gateway as module
from natfix.replay.gateway import Gateway, datagram_bytes
from natfix.sip.message import message_from_bytes
from tests.datagram import read_packet
from tests.replay.sip import OUTSIDE, PHONE, PROVIDER, audio, request, response

START = 1_700_000_000.0


@pytest.fixture
def gateway() -> Gateway:
    return Gateway(Settings(), ["192.168.1.0/24"], OUTSIDE.host)


def test_a_message_goes_out_and_its_answer_comes_back(gateway: Gateway) -> None:
    """natfix shows the phone outside and restores what comes back; the NAT is natfix's own."""
    out = gateway.transmit(PHONE, PROVIDER, request(), START)
    assert (out.source, out.destination, out.dropped, out.was_shown) == (OUTSIDE, PROVIDER, "", True)
    assert out.payload == request(via=OUTSIDE, contact=OUTSIDE)
    back = gateway.transmit(PROVIDER, OUTSIDE, response(via=OUTSIDE, seen_as=OUTSIDE), START + 1)
    assert (back.destination, back.payload) == (PHONE, response(via=PHONE, seen_as=PHONE))


def test_a_gateway_address_may_be_a_phone(gateway: Gateway) -> None:
    """Which inside address the gateway has is unknown: a PBX at .1 is a host like others."""
    assert gateway.transmit(Endpoint("192.168.1.1", 5060), PROVIDER, request(), START).was_shown


def test_timers_run_between_packets(gateway: Gateway) -> None:
    """A mapping whose flow has long ended is gone, and the list says from when to when it was held."""
    gateway.transmit(PHONE, PROVIDER, request(contact="", method="OPTIONS"), START)
    assert gateway.outside_of(PHONE) == OUTSIDE
    gateway.advance(START + 3600)
    assert gateway.outside_of(PHONE) is None
    (row,) = gateway.mappings()
    assert {**row, "holder": ""} == {
        "inside": str(PHONE), "outside": str(OUTSIDE), "kind": "signalling", "holder": "", "since": START,
        "until": pytest.approx(START + 120, abs=1)}


def test_media_mappings_are_listed(gateway: Gateway) -> None:
    """An offer makes a mapping for RTP and RTCP; it is still held at the end."""
    gateway.transmit(PHONE, PROVIDER, request(sdp=audio(Endpoint(PHONE.host, 12000))), START)
    rows = [row for row in gateway.mappings() if row["kind"] == "media"]
    assert {row["inside"] for row in rows} == {"192.168.1.10:12000", "192.168.1.10:12001"}
    assert all(row["until"] is None and row["holder"] for row in rows)


def test_a_stranger_is_dropped(gateway: Gateway) -> None:
    """Nobody comes in whom nothing has let in."""
    gateway.transmit(PHONE, PROVIDER, request(), START)
    stranger = Endpoint("198.51.100.99", 5060)
    assert not gateway.lets_in(stranger, PHONE)
    assert gateway.transmit(stranger, OUTSIDE, request(), START).dropped


def test_an_adopted_flow_lets_in(gateway: Gateway) -> None:
    """What began before the capture is taken for granted when that is asked for."""
    assert not gateway.lets_in(PROVIDER, PHONE)
    gateway.advance(START)
    gateway.adopt(PHONE, PROVIDER)
    assert gateway.lets_in(PROVIDER, PHONE)
    assert gateway.transmit(PROVIDER, OUTSIDE, request(), START).destination == PHONE


def test_a_port_that_is_not_diverted(gateway: Gateway) -> None:
    """SIP between ports that [signalling] does not name is not shown to natfix."""
    odd, peer = Endpoint(PHONE.host, 5070), Endpoint(PROVIDER.host, 5070)
    carried = gateway.transmit(odd, peer, request(via=odd), START)
    assert (carried.was_shown, carried.payload) == (False, request(via=odd))


def test_the_list_of_mappings_is_bounded(monkeypatch: pytest.MonkeyPatch, gateway: Gateway) -> None:
    """Ended mappings beyond the bound are counted."""
    monkeypatch.setattr(module, "MOST_MAPPINGS", 1)
    for number in range(3):
        phone = Endpoint(PHONE.host, 6000 + number)
        gateway.transmit(phone, PROVIDER, request(via=phone, contact=phone, branch=f"b{number}"), START)
    gateway.advance(START + 3600)
    assert len(gateway.mappings()) == 1
    assert gateway.mappings_left_out == 2


def test_datagram_bytes() -> None:
    """The packet that is made for the engine has right ends and lengths."""
    raw = datagram_bytes(PHONE, PROVIDER, b"payload")
    with pytest.raises(AssertionError, match="checksum"):
        read_packet(raw)            # nobody checks it in the queue
    assert (raw[-7:], len(raw), int.from_bytes(raw[2:4], "big")) == (b"payload", 35, 35)


def test_known_messages_are_not_read_again(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that was taken apart already is treated as it is; one of other bytes is read."""
    message = message_from_bytes(request())
    read = []
    monkeypatch.setattr("natfix.engine.message_from_bytes", lambda raw: read.append(raw) or message)
    assert gateway.transmit(PHONE, PROVIDER, message.raw, START, message).edits
    assert not read
    other = request(branch="z9hG4bK2")
    gateway.transmit(PHONE, PROVIDER, other, START, message)
    assert read == [other]
