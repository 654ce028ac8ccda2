"""What it costs to keep far phones' NATs open: OPTIONS out, answers in, without the kernel."""

from __future__ import annotations

import time
from collections import Counter

from natfix.address import Endpoint, network_from_text
from natfix.commands import SendPacket
from natfix.config import FarEnd, Outside, Settings
from natfix.engine import Engine, Path
from natfix.packet import datagram
from natfix.reports import AddressesChanged
from tests.agent import Sip
from tests.bench.messages import OUTSIDE, PBX
from tests.bench.report import Results

INWARD, OUTWARD = Path("forward", "outside", "inside", 1), Path("forward", "inside", "outside", 1)
EVERY = 25          # seconds
TICK = 0.1          # seconds between two looks at the timer, as in the daemon
COMMON = "From: <sip:u{n}@x>;tag=a\r\nTo: <sip:u{n}@x>\r\nCall-ID: c{n}@x\r\nCSeq: 1 REGISTER\r\n"
VIA = "Via: SIP/2.0/UDP 192.168.1.10:5062;branch=z9hG4bK{n};rport"
REGISTER = ("REGISTER sip:x SIP/2.0\r\n" + VIA + "\r\nMax-Forwards: 70\r\n" + COMMON
            + "Contact: <sip:u{n}@192.168.1.10:5062>\r\nExpires: 86400\r\nContent-Length: 0\r\n\r\n")
ACCEPTED = ("SIP/2.0 200 OK\r\n" + VIA + "={source.port};received={source.host}\r\n" + COMMON
            + "Contact: <sip:u{n}@{source}>;expires=86400\r\nContent-Length: 0\r\n\r\n")


def measure(phones: int, seconds: int) -> Results:
    """Return the percentage of a core that *phones* take, by kind, over *seconds* of the engine's time."""
    return {"keep_open": {kind: round(_percent(kind, phones, seconds), 2) for kind in ("options", "packet")}}


def _percent(kind: str, phones: int, seconds: int) -> float:
    engine, now = registered(kind, phones)
    until, spent, sent = now + seconds, 0.0, Counter[Endpoint]()
    while now < until:
        now += TICK
        began = time.process_time()
        packets = due(engine, now)
        spent += time.process_time() - began
        sent.update(packet.destination for packet in packets)
        answers = [answer_to(packet) for packet in packets if kind == "options"]
        began = time.process_time()
        for answer in answers:
            engine.receive_packet(answer, INWARD, now)
        spent += time.process_time() - began
    assert len(sent) == phones, f"{len(sent)} of {phones} phones were sent something"
    return 100 * spent / seconds


def registered(kind: str, phones: int) -> tuple[Engine, float]:
    """Return an engine with *phones* that registered one after the other, and what time it is then."""
    engine, now = Engine(Settings(outside=Outside("outside"), far_end=FarEnd(
        keep_open=kind, keep_open_every=EVERY, keep_open_longest=EVERY))), 1_000_000.0
    inside = ((network_from_text("192.168.1.0/24"), "inside"),)
    engine.handle_report(AddressesChanged({"outside": OUTSIDE}, inside), now)
    for n in range(phones):
        source = Endpoint(f"198.51.{n % 250}.{n // 250 + 1}", 20000 + n)
        request, response = (text.format(n=n, source=source).encode() for text in (REGISTER, ACCEPTED))
        engine.receive_packet(datagram(source, PBX, request), INWARD, now)
        engine.receive_packet(datagram(PBX, source, response), OUTWARD, now)
        now += EVERY / phones
    engine.pop_changes()
    return engine, now


def due(engine: Engine, now: float) -> list[SendPacket]:
    """Return what the engine wants sent at *now*."""
    packets: list[SendPacket] = []
    while (timer := engine.next_timeout()) is not None and timer <= now:
        packets += engine.handle_timer(now).send
    return packets


def answer_to(packet: SendPacket) -> bytes:
    """Return a phone's 200 to an OPTIONS, as it waits in the queue."""
    request = Sip(packet.payload)
    lines = [f"{name}: {request[name.lower()]}" for name in ("Via", "From", "To", "Call-ID", "CSeq")]
    text = "\r\n".join(["SIP/2.0 200 OK", *lines, "Contact: <sip:u@192.168.1.10:5062>", "Supported: gruu",
                        "Allow: INVITE, ACK, BYE, CANCEL, OPTIONS, REFER, NOTIFY, INFO, MESSAGE, UPDATE",
                        "Content-Length: 0", "", ""])
    return datagram(packet.destination, PBX, text.encode())
