"""A STUN server: it answers Binding requests, and nothing else (RFC 8489)."""

from __future__ import annotations

import socket
import struct
import sys
from typing import TYPE_CHECKING

from tests.lab.host import Process

if TYPE_CHECKING:
    from tests.lab.lab import Lab

PORT = 3478
COOKIE = 0x2112A442


class StunServer:
    """A STUN server on *host*."""

    def __init__(self, host: str = "provider") -> None:
        self.host_name = host
        self.process: Process | None = None

    def start(self, lab: Lab) -> None:
        """Start it and wait until it listens."""
        host = lab[self.host_name]
        self.process = host.popen([sys.executable, "-m", __name__, host.address], "stun-server")
        self.process.wait_for("listening")


def answer(request: bytes, source: tuple[str, int]) -> bytes:
    """Return the success response that tells *source* where it is, in XOR-MAPPED-ADDRESS."""
    host = int.from_bytes(socket.inet_aton(source[0])) ^ COOKIE
    value = struct.pack("!BBHI", 0, 1, source[1] ^ COOKIE >> 16, host)
    return struct.pack("!HHI", 0x0101, 4 + len(value), COOKIE) + request[8:20] + \
        struct.pack("!HH", 0x0020, len(value)) + value


def serve(address: str) -> None:
    """Answer for ever."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        line.bind((address, PORT))
        print("listening", flush=True)
        while True:
            request, source = line.recvfrom(2048)
            if len(request) >= 20 and request[:2] == b"\0\1":
                line.sendto(answer(request, source), source)


if __name__ == "__main__":
    serve(sys.argv[1])
