#!/usr/bin/env python3
"""A SIP server that says 200 to everything: REGISTER lasts an hour, INVITE gets a session description.

    answerer.py ADDRESS PORT
"""

from __future__ import annotations

import re
import socket
import sys

ECHOED = re.compile(rb"^(?:Via|From|To|Call-ID|CSeq): [^\r\n]+\r\n", re.MULTILINE)
CONTACT = re.compile(rb"^Contact: (<[^>\r\n]+>)", re.MULTILINE)
BUFFER = 8 << 20
SDP = (b"v=0\r\no=- 7 7 IN IP4 %b\r\ns=-\r\nc=IN IP4 %b\r\nt=0 0\r\nm=audio 40000 RTP/AVP 8\r\n"
       b"a=rtpmap:8 PCMA/8000\r\n")


def answer(request: bytes, own: bytes, port: int) -> bytes:
    """Return the 200 for *request*, b"" where it wants none."""
    method = request.partition(b" ")[0]
    if method == b"ACK":
        return b""
    lines = [line.replace(b"\r\n", b";tag=answerer\r\n") if line.startswith(b"To:") and b";tag=" not in line
             else line for line in ECHOED.findall(request)]
    body = SDP.replace(b"%b", own) if method == b"INVITE" else b""
    found = CONTACT.search(request)
    if method == b"REGISTER" and found is not None:
        lines.append(b"Contact: " + found[1] + b";expires=3600\r\n")
    elif method == b"INVITE":
        lines.append(b"Contact: <sip:bob@%b:%d>\r\nContent-Type: application/sdp\r\n" % (own, port))
    return b"SIP/2.0 200 OK\r\n" + b"".join(lines) + b"Content-Length: %d\r\n\r\n" % len(body) + body


def main(address: str, port: int) -> None:
    """Answer until killed."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.setsockopt(socket.SOL_SOCKET, 33, BUFFER)       # SO_RCVBUFFORCE
        own.bind((address, port))
        print("ready", flush=True)
        while True:
            request, source = own.recvfrom(4096)
            if reply := answer(request, address.encode(), port):
                own.sendto(reply, source)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
