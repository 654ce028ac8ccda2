"""Traces: the lost message and the flow that decide a failing cell are found, and named alike in each run."""

from __future__ import annotations

from tests.compare.trace import Trace
from tests.lab.pcap import Datagram

PHONE, PROVIDER, GATEWAY = ("192.168.1.10", 5060), ("203.0.113.50", 5060), ("203.0.113.1", 5060)


def sip(moment: float, start: str, source: tuple[str, int], destination: tuple[str, int],
        cseq: str = "1 INVITE") -> Datagram:
    """Return a SIP message as a datagram."""
    return Datagram(moment, source, destination, f"{start}\r\nCall-ID: one\r\nCSeq: {cseq}\r\n\r\n".encode())


def rtp(moment: float, sequence: int, source: tuple[str, int], destination: tuple[str, int]) -> Datagram:
    """Return an RTP packet as a datagram."""
    return Datagram(moment, source, destination, b"\x80\x00" + sequence.to_bytes(2, "big") + bytes(168))


def test_a_message_that_crossed_is_not_lost() -> None:
    """The copy on the other side counts, whatever addresses a gateway or proxy wrote into it."""
    trace = Trace([sip(1.0, "INVITE sip:bob@203.0.113.50 SIP/2.0", PHONE, PROVIDER)],
                  [sip(1.1, "INVITE sip:bob@203.0.113.60 SIP/2.0", GATEWAY, PROVIDER)])
    assert trace.lost_message() == ""


def test_the_first_lost_message_is_named() -> None:
    """What no copy of arrived is told with where it went; what phones make up anew in each run is not."""
    trace = Trace(
        [sip(1.0, "INVITE sip:bob@203.0.113.50 SIP/2.0", PHONE, PROVIDER)],
        [sip(1.1, "INVITE sip:bob@203.0.113.50 SIP/2.0", GATEWAY, PROVIDER),
         sip(2.0, "SIP/2.0 200 OK", PROVIDER, GATEWAY),
         sip(3.0, "BYE sip:alice-0x55a0cc12c7e0@192.168.1.10:5060;line=x SIP/2.0", PROVIDER, PHONE, "2 BYE")])
    assert trace.lost_message() == ("200 OK (INVITE), 203.0.113.50:5060 -> 203.0.113.1:5060, "
                                    "did not pass the gateway")
    del trace.outside[1]
    assert trace.lost_message() == ("BYE sip:alice@192.168.1.10:5060, 203.0.113.50:5060 -> "
                                    "192.168.1.10:5060, an inside address")


def test_a_flow_tells_what_arrived_and_where() -> None:
    """Packets are followed by their RTP header through whoever relays them."""
    ends = ("192.168.1.10", 12000), ("192.168.1.1", 23000), ("203.0.113.1", 23002), ("203.0.113.60", 14000)
    trace = Trace([rtp(float(n), n, *ends[:2]) for n in range(10)],
                  [rtp(float(n), n, *ends[2:]) for n in range(8)])
    flow, = trace.flows("192.168.1.10", range(12000, 12001), "203.0.113.60")
    assert (flow.sent, flow.delivered) == (10, 8)
    assert str(flow) == ("10 packets 192.168.1.10:12000 -> 192.168.1.1:23000, "
                         "8 arrived at 203.0.113.60:14000 from 203.0.113.1:23002")


def test_media_to_an_inside_address_and_no_media_at_all() -> None:
    """Both ways of hearing nothing have a sentence of their own."""
    trace = Trace([], [rtp(1.0, 1, ("203.0.113.60", 14000), ("192.168.1.10", 12000))])
    assert trace.audio("203.0.113.60", range(14000, 14001), "192.168.1.10") == (
        "1 packets 203.0.113.60:14000 -> 192.168.1.10:12000, an inside address")
    assert trace.audio("192.168.1.10", range(12000, 12001), "203.0.113.60") == "192.168.1.10 sent nothing"
