"""SIP over TCP between sockets: messages, what natfix has to make of them, and connections that carry them.

What natfix has to make of a message is said by the message's own pattern, not by natfix: "OWN" stands for the
inside end where the phone is, and for the outside one where its peer is.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.lab import namespaces

if TYPE_CHECKING:
    from tests.lab.lab import Lab

PROXY = "203.0.113.50"
PORT = 5060
OWN = b"OWN"
PATIENCE = 60.0         # seconds until a stream counts as stuck
# None of them offers audio: what natfix has to write would depend on the ports that it chooses.
REQUEST_OUT = """MESSAGE sip:bob@example.com SIP/2.0
Via: SIP/2.0/TCP OWN;branch=z9hG4bK{0}
Max-Forwards: 70
From: <sip:alice@example.com>;tag=a{0}
To: <sip:bob@example.com>
Call-ID: out-{0}@example.com
CSeq: {0} MESSAGE
Contact: <sip:alice@OWN;transport=tcp>
Content-Type: text/plain
Content-Length: {1}

"""
REQUEST_IN = """MESSAGE sip:alice@OWN;transport=tcp SIP/2.0
Via: SIP/2.0/TCP 203.0.113.50:5060;branch=z9hG4bK{0}
Max-Forwards: 70
From: <sip:bob@example.com>;tag=b{0}
To: <sip:alice@example.com>
Call-ID: in-{0}@example.com
CSeq: {0} MESSAGE
Contact: <sip:bob@203.0.113.50;transport=tcp>
Content-Type: text/plain
Content-Length: {1}

"""
RESPONSE_IN = """SIP/2.0 200 OK
Via: SIP/2.0/TCP OWN;branch=z9hG4bK{0}
From: <sip:alice@example.com>;tag=a{0}
To: <sip:bob@example.com>;tag=b{0}
Call-ID: out-{0}@example.com
CSeq: {0} MESSAGE
Content-Length: {1}

"""


def message(pattern: str, number: int, body: bytes = b"") -> bytes:
    """Return message *number* of a connection, with OWN in it."""
    return pattern.format(number, len(body)).replace("\n", "\r\n").encode() + body


def messages(patterns: list[str], count: int, seed: int) -> Iterator[bytes]:
    """Give *count* messages of all *patterns*, with bodies of any octets and CRLFs between them."""
    chance = random.Random(seed)
    for number in range(1, count + 1):
        body = chance.randbytes(chance.choice((0, 0, 10, 200, 900, 3000)))
        yield message(chance.choice(patterns), number, body.replace(OWN, b"own"))
        if chance.random() < 0.05:
            yield b"\r\n\r\n"


class Line:
    """One TCP connection of a phone to the proxy through the gateway, with both of its ends."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.near, self.far = near, far
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.settimeout(PATIENCE)

    @property
    def inside(self) -> bytes:
        """What the phone calls itself."""
        return "{}:{}".format(*self.near.getsockname()).encode()

    @property
    def outside(self) -> bytes:
        """What the proxy sees of it."""
        return "{}:{}".format(*self.far.getpeername()).encode()

    def close(self) -> None:
        """End both ends."""
        self.near.close()
        self.far.close()


def connect(lab: Lab, waiting: socket.socket, phone: str = "phone1", largest: int = 0) -> Line:
    """Return a line whose segments have at most *largest* octets of payload (0: as the link does)."""
    line, = connect_all(lab, waiting, [largest], phone)
    return line


def connect_all(lab: Lab, waiting: socket.socket, sizes: list[int], phone: str = "phone1") -> list[Line]:
    """Return a line for each of *sizes*, connected at once; masquerade keeps the ports that it finds free."""
    ends: dict[int, socket.socket] = {}
    for largest in sizes:
        near = namespaces.socket_in(lab[phone].namespace, socket.AF_INET, socket.SOCK_STREAM)
        if largest:
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, largest)
        near.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            near.connect((PROXY, PORT))
        ends[near.getsockname()[1]] = near
    accepted = [waiting.accept() for _ in sizes]
    far_ends = {port: far for far, (_, port) in accepted}
    return [Line(near, far_ends[port]) for port, near in ends.items()]


@contextmanager
def listener(lab: Lab, host: str = "provider", port: int = PORT) -> Iterator[socket.socket]:
    """Give a listening socket of the proxy for the time of the block."""
    made = namespaces.socket_in(lab[host].namespace, socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((lab[host].address, port))
        made.listen(100)
        made.settimeout(PATIENCE)
        yield made
    finally:
        made.close()


def receive(end: socket.socket, size: int) -> bytes:
    """Return *size* octets, fewer where the stream ends before."""
    data = b""
    while len(data) < size and (part := end.recv(size - len(data))):
        data += part
    return data


class Transfer:
    """Messages on their way through one direction of a line, in writes of *write* octets."""

    def __init__(self, sender: socket.socket, receiver: socket.socket, patterns: Iterable[bytes],
                 written: bytes, shown: bytes, write: int) -> None:
        """OWN in *patterns* is *written* where they are sent, and has to be *shown* where they arrive."""
        patterns = list(patterns)
        self._sender, self._receiver, self._write = sender, receiver, write
        self._data = b"".join(patterns).replace(OWN, written)
        expected = b"".join(patterns).replace(OWN, shown)
        self.size = len(expected)
        self.expected = hashlib.sha256(expected).hexdigest()
        self.arrived = ""
        self.problem = ""
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._send, self._receive)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        try:
            for start in range(0, len(self._data), self._write):
                self._sender.sendall(self._data[start:start + self._write])
        except OSError as problem:
            self.problem += f"sending: {problem} "

    def _receive(self) -> None:
        digest, count = hashlib.sha256(), 0
        try:
            while count < self.size and (part := self._receiver.recv(min(65536, self.size - count))):
                digest.update(part)
                count += len(part)
        except OSError as problem:
            self.problem += f"receiving: {problem} "
        self.arrived = digest.hexdigest()
        if count < self.size:
            self.problem += f"{count} of {self.size} octets arrived"


def wait_for(condition: Callable[[], object], timeout: float, what: str) -> None:
    """Wait until *condition* holds; an AssertionError says *what* did not."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {timeout} s"
        time.sleep(0.05)
