#!/usr/bin/env python3
"""An RTP endpoint as a program: sends a tone as PCMU every 20 ms and writes down all that arrives.

Run in a namespace; needs nothing but the standard library. It prints ``ready`` once its sockets are
bound, and on SIGTERM (or after --seconds) writes PREFIX.json and PREFIX.wav and ends.
"""

from __future__ import annotations

import argparse
import json
import random
import selectors
import signal
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any

if __package__ in (None, ""):       # started as a file, in whatever directory
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.lab import tones

PTIME = 0.02            # seconds per packet; RFC 3551 section 4.2
SAMPLES = 160           # per packet
RTCP_INTERVAL = 1.0     # seconds; more often than RFC 3550 section 6.2 asks, so that short tests see it
RTCP_TYPES = range(200, 205)


class RtpEndpoint:
    """One socket for RTP, one for RTCP; ``received`` holds a row per datagram."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.sequence = options.first_sequence
        self.ssrc = random.getrandbits(32)
        self.sent = self.rtcp_sent = 0
        self.received: list[list[Any]] = []     # [time, source, port, sequence, timestamp, ssrc, type]
        self.rtcp_received: list[list[Any]] = []
        self.audio: dict[int, list[tuple[int, bytes]]] = {}
        self.media = tones.mulaw_from_samples(tones.tone(options.tone, 1.0))
        self.selector = selectors.DefaultSelector()
        self.rtp = self._bind(options.port)
        self.rtcp = self.rtp if options.rtcp_mux else self._bind(options.rtcp_port or options.port + 1)
        self.stopping = False

    def run(self) -> None:
        """Send and record until told to stop."""
        start = time.monotonic()
        end = start + self.options.seconds if self.options.seconds else float("inf")
        next_rtp, next_rtcp = start + self.options.delay, start + self.options.delay + 0.1
        while not self.stopping and (now := time.monotonic()) < end:
            if now >= next_rtp:
                self._send_rtp()
                next_rtp += PTIME
            if now >= next_rtcp:
                self._send_rtcp()
                next_rtcp += RTCP_INTERVAL
            for key, _ in self.selector.select(max(0.0, min(next_rtp, next_rtcp) - time.monotonic())):
                self._receive(key.fileobj)      # type: ignore[arg-type]

    def write(self, prefix: str) -> None:
        """Write PREFIX.json (what was sent and received), PREFIX.wav (the longest stream heard) and
        PREFIX-SSRC.wav (each)."""
        result = {
            "sent": self.sent, "rtcp_sent": self.rtcp_sent, "ssrc": self.ssrc,
            "first_sequence": self.options.first_sequence,
            "received": self.received, "rtcp_received": self.rtcp_received,
        }
        Path(f"{prefix}.json").write_text(json.dumps(result))
        longest = max(self.audio.values(), key=len, default=[])
        _write_audio(Path(f"{prefix}.wav"), longest)
        for ssrc, packets in self.audio.items():
            _write_audio(Path(f"{prefix}-{ssrc}.wav"), packets)

    def _bind(self, port: int) -> socket.socket:
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        opened.bind((self.options.address, port))
        opened.setblocking(False)
        self.selector.register(opened, selectors.EVENT_READ)
        return opened

    def _send_rtp(self) -> None:
        if not self.options.to:
            return
        start = self.sent * SAMPLES % tones.RATE
        header = struct.pack("!BBHII", 0x80, 0, self.sequence & 0xFFFF, self.sent * SAMPLES, self.ssrc)
        self._send(self.rtp, header + self.media[start:start + SAMPLES], self.options.to)
        self.sequence += 1
        self.sent += 1

    def _send_rtcp(self) -> None:
        if not self.options.to or self.options.no_rtcp:
            return
        host, port = self.options.to
        target = (host, self.options.rtcp_to or (port if self.options.rtcp_mux else port + 1))
        # An empty receiver report and an SDES item (RFC 3550, sections 6.4.2 and 6.5).
        report = struct.pack("!BBHI", 0x80, 201, 1, self.ssrc)
        name = b"\x01\x06natfix\x00\x00\x00\x00"
        description = struct.pack("!BBHI", 0x81, 202, 1 + len(name) // 4, self.ssrc) + name
        self._send(self.rtcp, report + description, target)
        self.rtcp_sent += 1

    def _send(self, opened: socket.socket, data: bytes, target: tuple[str, int]) -> None:
        try:
            opened.sendto(data, target)
        except OSError as problem:      # an ICMP error of an earlier packet shows up here
            print(f"send: {problem}", flush=True)

    def _receive(self, opened: socket.socket) -> None:
        try:
            data, (host, port) = opened.recvfrom(65536)
        except OSError as problem:
            print(f"receive: {problem}", flush=True)
            return
        now = time.time()
        if len(data) >= 2 and data[1] in RTCP_TYPES:
            self.rtcp_received.append([now, host, port, data[1]])
        elif len(data) >= 12 and data[0] >> 6 == 2:
            self._take_rtp(now, host, port, data)
        else:
            self.received.append([now, host, port, -1, 0, 0, -1])
        if self.options.latch and opened is self.rtp:
            self.options.to = (host, port)

    def _take_rtp(self, now: float, host: str, port: int, data: bytes) -> None:
        _, kind, sequence, timestamp, ssrc = struct.unpack_from("!BBHII", data)
        self.received.append([now, host, port, sequence, timestamp, ssrc, kind & 0x7F])
        self.audio.setdefault(ssrc, []).append((timestamp, data[12:]))


def _write_audio(path: Path, packets: list[tuple[int, bytes]]) -> None:
    tones.write_wav(path, tones.samples_from_mulaw(b"".join(data for _, data in sorted(packets))))


def endpoint_from_text(text: str) -> tuple[str, int]:
    """Return ("203.0.113.60", 20000) for "203.0.113.60:20000"."""
    host, _, port = text.partition(":")
    return host, int(port)


def main() -> None:
    """Parse the command line, run, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="0.0.0.0")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--to", type=endpoint_from_text, default=None, help="HOST:PORT; without: only record")
    parser.add_argument("--tone", type=int, default=0, help="hertz; 0 is silence")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before the first packet")
    parser.add_argument("--seconds", type=float, default=0.0, help="0: until SIGTERM")
    parser.add_argument("--first-sequence", type=int, default=1)
    parser.add_argument("--rtcp-port", type=int, default=0, help="own RTCP port, where it is not port + 1")
    parser.add_argument("--rtcp-to", type=int, default=0, help="the peer's RTCP port, likewise")
    parser.add_argument("--rtcp-mux", action="store_true")
    parser.add_argument("--no-rtcp", action="store_true")
    parser.add_argument("--latch", action="store_true", help="send to where the last packet came from")
    parser.add_argument("--output", required=True, help="prefix of the .json and .wav files")
    options = parser.parse_args()
    endpoint = RtpEndpoint(options)

    def stop(*_: object) -> None:
        endpoint.stopping = True
    signal.signal(signal.SIGTERM, stop)
    print("ready", flush=True)
    endpoint.run()
    endpoint.write(options.output)


if __name__ == "__main__":
    main()
