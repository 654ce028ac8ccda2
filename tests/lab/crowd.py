#!/usr/bin/env python3
"""Many RTP endpoints in one program: each sends ten packets a second and counts what arrives, by sender.

It reads rows [port, "host:port"] from a JSON file, prints ``ready`` once all ports are bound, and takes
lines on standard input: ``go`` starts all streams, a port number stops the one that is sent from there. At
the end of its input it writes OUTPUT: {port: {"sent": N, "received": {"host:port ssrc": N}}}. A stream's
SSRC is the number of its port, so that one that goes astray is seen.
"""

from __future__ import annotations

import json
import selectors
import socket
import struct
import sys
import time
from collections import Counter
from pathlib import Path

INTERVAL = 0.1          # seconds between two packets of a stream
PAYLOAD = b"\xff" * 160     # PCMU silence


class Crowd:
    """All endpoints of one host."""

    def __init__(self, address: str, rows: list[tuple[int, str]]) -> None:
        self.targets = {port: _endpoint(text) for port, text in rows}
        self.sent = {port: 0 for port, _ in rows}
        self.received: dict[int, Counter[str]] = {port: Counter() for port, _ in rows}
        self.active: set[int] = set()
        self.selector = selectors.DefaultSelector()
        self.sockets = {port: self._bind(address, port) for port, _ in rows}
        self.selector.register(sys.stdin.buffer.raw, selectors.EVENT_READ, None)    # type: ignore[attr-defined]

    def run(self) -> None:
        """Send and count until standard input ends."""
        due = time.monotonic()
        while True:
            for key, _ in self.selector.select(max(0.0, due - time.monotonic())):
                if key.data is not None:
                    self._receive(key.data)
                elif not self._obey():
                    return
            if time.monotonic() >= due:
                due += INTERVAL
                for port in sorted(self.active):
                    self._send(port)

    def write(self, path: Path) -> None:
        """Write what was counted."""
        path.write_text(json.dumps({port: {"sent": self.sent[port], "received": self.received[port]}
                                    for port in self.sent}))

    def _bind(self, address: str, port: int) -> socket.socket:
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        opened.bind((address, port))
        opened.setblocking(False)
        self.selector.register(opened, selectors.EVENT_READ, port)
        return opened

    def _obey(self) -> bool:
        """Take what stands on standard input; False at its end."""
        text = sys.stdin.buffer.raw.read(4096)      # type: ignore[attr-defined]
        for line in text.decode().split():
            if line == "go":
                self.active = set(self.targets)
            else:
                self.active.discard(int(line))
        return bool(text)

    def _send(self, port: int) -> None:
        header = struct.pack("!BBHII", 0x80, 0, self.sent[port] & 0xFFFF, self.sent[port] * 800, port)
        self.sockets[port].sendto(header + PAYLOAD, self.targets[port])
        self.sent[port] += 1

    def _receive(self, port: int) -> None:
        try:
            data, (host, source) = self.sockets[port].recvfrom(2048)
        except OSError as problem:
            print(f"{port}: {problem}", flush=True)
            return
        ssrc = struct.unpack_from("!I", data, 8)[0] if len(data) >= 12 else -1
        self.received[port][f"{host}:{source} {ssrc}"] += 1


def _endpoint(text: str) -> tuple[str, int]:
    host, _, port = text.partition(":")
    return host, int(port)


def main(address: str, rows: str, output: str) -> None:
    """Run a crowd on *address*, as the file *rows* says; write the file *output*."""
    crowd = Crowd(address, json.loads(Path(rows).read_text()))
    print("ready", flush=True)
    crowd.run()
    crowd.write(Path(output))


if __name__ == "__main__":
    main(*sys.argv[1:])
