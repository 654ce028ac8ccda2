#!/usr/bin/env python3
"""Sends requests that nobody has seen before, so many a second, and prints how many it has sent.

METHOD may be JUNK: requests and responses that begin nothing, and random bytes.

    flooder.py METHOD SOURCE:PORT DESTINATION:PORT RATE SECONDS
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from itertools import count, cycle
from random import Random

HEAD = (
    "{method} sip:bob@{peer} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bKflood{serial};rport\r\n"
    "Max-Forwards: 70\r\nFrom: <sip:mallory@{peer}>;tag=f{serial}\r\nTo: <sip:bob@{peer}>\r\n"
    "Call-ID: {serial}@flood\r\nCSeq: 1 {method}\r\nContact: <sip:mallory@{own}>\r\n"
)
SDP = ("v=0\r\no=- 1 1 IN IP4 {0}\r\ns=-\r\nc=IN IP4 {0}\r\nt=0 0\r\nm=audio {1} RTP/AVP 8\r\n"
       "a=rtpmap:8 PCMA/8000\r\n")
FIRST_RTP_PORT, RTP_PORTS = 10000, 40000
MAX_BEHIND = 0.05       # seconds; what was missed is not sent in one burst


def message(method: str, own: str, peer: str, serial: int) -> bytes:
    """Return the request with this *serial* number; *own* and *peer* are "address:port"."""
    body = ""
    head = HEAD.format(method=method, own=own, peer=peer, serial=serial)
    if method == "INVITE":
        head += "Content-Type: application/sdp\r\n"
        body = SDP.format(own.partition(":")[0], FIRST_RTP_PORT + 2 * serial % RTP_PORTS)
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


def junk(own: str, peer: str) -> Iterator[bytes]:
    """Yield what belongs to no call: ACK, BYE, CANCEL, responses and random bytes, over and over."""
    chance = Random(1)
    return cycle([_junk(chance, own, peer, serial) for serial in range(1000)])


def _junk(chance: Random, own: str, peer: str, serial: int) -> bytes:
    kind = chance.choice(["ACK", "BYE", "CANCEL", "200", "180", "random"])
    if kind == "random":
        return b"@flood%d" % serial + chance.randbytes(chance.randrange(1, 900))
    if not kind.isdigit():
        return message(kind, own, peer, serial)
    _, _, rest = message("INVITE", peer, own, serial).partition(b"\r\n")
    return f"SIP/2.0 {kind} X\r\n".encode() + rest


def requests(method: str, own: str, peer: str) -> Iterator[bytes]:
    """Yield what to send."""
    if method == "JUNK":
        return junk(own, peer)
    return (message(method, own, peer, serial) for serial in count())


def main(method: str, own: str, peer: str, rate: str, seconds: str) -> None:
    """Send until time is up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(_endpoint(own))
        target = _endpoint(peer)
        began = due = time.monotonic()
        sent = 0
        made = requests(method, own, peer)
        while (now := time.monotonic()) < began + float(seconds):
            if due > now:
                time.sleep(due - now)
            sender.sendto(next(made), target)
            sent += 1
            due = max(due, now - MAX_BEHIND) + 1 / float(rate)
    print("sent", sent, flush=True)


def _endpoint(text: str) -> tuple[str, int]:
    host, _, port = text.partition(":")
    return host, int(port)


if __name__ == "__main__":
    main(*sys.argv[1:])
