#!/usr/bin/env python3
"""Many phones on one host, each with a port of its own; they register and call, as told on standard input.

    phones.py ADDRESS FIRST-PORT PHONES SERVER:PORT

A line is ``register FIRST COUNT`` (addresses-of-record), ``call FIRST COUNT`` (calls that stay up) or
``more FIRST COUNT`` (calls that end at once, one after the other); "done" is the answer.
"""

from __future__ import annotations

import selectors
import socket
import sys
import time
from collections.abc import Callable, Iterable

WINDOW = 32             # requests that are under way at a time
FEW = 4                 # the same for calls that are placed beside others
AGAIN = 1.0             # seconds until a request is repeated
TRIES = 10
BUFFER = 8 << 20
HEAD = (
    "{method} sip:{target} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bK{serial}{method}{cseq};rport\r\n"
    "Max-Forwards: 70\r\nFrom: <sip:u{serial}@example.com>;tag=p{serial}\r\n"
    "To: <sip:{to}@example.com>{tag}\r\nCall-ID: {serial}-{kind}@phones\r\nCSeq: {cseq} {method}\r\n"
    "Contact: <sip:u{serial}@{own}>\r\nUser-Agent: Bench Phone\r\n"
)
SDP = ("v=0\r\no=- 1 1 IN IP4 {0}\r\ns=-\r\nc=IN IP4 {0}\r\nt=0 0\r\nm=audio {1} RTP/AVP 8\r\n"
       "a=rtpmap:8 PCMA/8000\r\n")
# RTP ports, of all phones together: they share an address. Calls that stay up have the lower half.
FIRST_RTP_PORT, HALF = 24000, 10000


class Phones:
    """All phones of one host."""

    def __init__(self, address: str, first_port: int, count: int, server: str) -> None:
        self.address, self.first_port, self.count = address, first_port, count
        host, _, port = server.partition(":")
        self.server = (host, int(port))
        self.selector = selectors.DefaultSelector()
        self.sockets = [self._bind(first_port + index) for index in range(count)]

    def _bind(self, port: int) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((self.address, port))
        made.setblocking(False)
        self.selector.register(made, selectors.EVENT_READ)
        return made

    def register(self, serials: Iterable[int]) -> None:
        """Register the addresses-of-record with these numbers, spread over the phones."""
        self._exchange(serials, lambda serial: self._request(serial, "REGISTER", 1, "Expires: 3600\r\n"))

    def call(self, serials: Iterable[int]) -> None:
        """Place calls that stay up."""
        self._exchange(serials, self._invite, self._acknowledge)

    def more(self, serials: Iterable[int]) -> None:
        """Place calls and end them."""
        serials = list(serials)
        self._exchange(serials, self._invite, self._acknowledge, FEW)
        self._exchange(serials, self._bye, window=FEW)

    def _acknowledge(self, serial: int) -> None:
        self._send(serial, self._request(serial, "ACK", 1, tag=";tag=answerer"))

    def _bye(self, serial: int) -> bytes:
        return self._request(serial, "BYE", 2, tag=";tag=answerer")

    def _invite(self, serial: int) -> bytes:
        pair = serial if serial < HALF else HALF + serial % HALF
        body = SDP.format(self.address, FIRST_RTP_PORT + 2 * pair)
        return self._request(serial, "INVITE", 1, "Content-Type: application/sdp\r\n", body=body)

    def _request(
        self, serial: int, method: str, cseq: int, more: str = "", tag: str = "", body: str = "",
    ) -> bytes:
        own = f"{self.address}:{self.first_port + serial % self.count}"
        kind = "register" if method == "REGISTER" else "call"
        to = f"u{serial}" if method == "REGISTER" else "bob"
        target = "example.com" if method == "REGISTER" else f"bob@{self.server[0]}:{self.server[1]}"
        head = HEAD.format(method=method, target=target, own=own, serial=serial, cseq=cseq, kind=kind,
                           to=to, tag=tag)
        return f"{head}{more}Content-Length: {len(body)}\r\n\r\n{body}".encode()

    def _send(self, serial: int, message: bytes) -> None:
        self.sockets[serial % self.count].sendto(message, self.server)

    def _exchange(
        self, serials: Iterable[int], request: Callable[[int], bytes],
        answered: Callable[[int], object] = lambda serial: None, window: int = WINDOW,
    ) -> None:
        """Send the requests, a window of them at a time, until each has its answer."""
        waiting = iter(serials)
        under_way: dict[int, tuple[float, bytes, int]] = {}
        exhausted = False
        while not exhausted or under_way:
            while not exhausted and len(under_way) < window:
                if (serial := next(waiting, None)) is None:
                    exhausted = True
                    break
                message = request(serial)
                under_way[serial] = (time.monotonic() + AGAIN, message, 1)
                self._send(serial, message)
            for serial in self._answers():
                if under_way.pop(serial, None) is not None:
                    answered(serial)
            self._repeat(under_way)

    def _answers(self) -> Iterable[int]:
        for key, _ in self.selector.select(AGAIN / 4):
            try:
                while True:
                    message = key.fileobj.recv(4096)        # type: ignore[union-attr]
                    at = message.index(b"\r\nCall-ID: ") + 11
                    yield int(message[at:message.index(b"-", at)])
            except BlockingIOError:
                continue

    def _repeat(self, under_way: dict[int, tuple[float, bytes, int]]) -> None:
        now = time.monotonic()
        for serial, (due, message, tries) in list(under_way.items()):
            if due < now:
                if tries == TRIES:
                    raise TimeoutError(f"nobody answers {message[:60]!r}")
                under_way[serial] = (now + AGAIN, message, tries + 1)
                self._send(serial, message)


def main(address: str, first_port: str, count: str, server: str) -> None:
    """Do what stands on standard input."""
    phones = Phones(address, int(first_port), int(count), server)
    print("ready", flush=True)
    for line in sys.stdin:
        what, first, number = line.split()
        getattr(phones, what)(range(int(first), int(first) + int(number)))
        print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
