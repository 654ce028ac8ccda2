#!/usr/bin/env python3
"""Sends RTP streams, 50 packets a second each, and counts what comes: until its standard input ends.

    streams.py ADDRESS '[[own port, "host:port"], ...]'
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time

INTERVAL = 0.02         # seconds
PAYLOAD = b"\x80\x00" + bytes(170)      # 20 ms of G.711


def main(address: str, rows: list[tuple[int, str]]) -> None:
    """Send, and print how many packets were sent and received."""
    sockets = {port: _bound(address, port) for port in {port for port, _ in rows}}
    targets = [(sockets[port], _endpoint(target)) for port, target in rows]
    sent = received = 0
    due = time.monotonic()
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))[0]:
        due += INTERVAL
        for own, target in targets:
            own.sendto(PAYLOAD, target)
            sent += 1
        received += sum(_drain(own) for own in sockets.values())
    print(json.dumps({"sent": sent, "received": received}), flush=True)


def _bound(address: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((address, port))
    made.setblocking(False)
    return made


def _drain(own: socket.socket) -> int:
    count = 0
    try:
        while own.recv(2048):
            count += 1
    except BlockingIOError:
        return count
    return count


def _endpoint(text: str) -> tuple[str, int]:
    host, _, port = text.partition(":")
    return host, int(port)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
