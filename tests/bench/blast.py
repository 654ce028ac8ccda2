#!/usr/bin/env python3
"""Sends RTP-sized packets to one address as fast as the kernel takes them, and prints how many.

    blast.py SOURCE:PORT DESTINATION:PORT SECONDS

Many packets go with each system call (sendmmsg), so that the time goes into their way, not into Python.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import time

PAYLOAD = b"\x80\x00" + bytes(170)      # 20 ms of G.711
BATCH = 64


class Vector(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_char_p), ("length", ctypes.c_size_t))


class Header(ctypes.Structure):
    """struct mmsghdr; the socket is connected, so no name is needed."""

    _fields_ = (
        ("name", ctypes.c_void_p), ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.POINTER(Vector)), ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t), ("flags", ctypes.c_int),
        ("sent", ctypes.c_uint),
    )


def main(source: str, destination: str, seconds: str) -> None:
    """Send until time is up."""
    libc = ctypes.CDLL(None, use_errno=True)
    vector = Vector(PAYLOAD, len(PAYLOAD))
    headers = (Header * BATCH)(*[Header(vectors=ctypes.pointer(vector), vector_count=1)] * BATCH)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.bind(_endpoint(source))
        own.connect(_endpoint(destination))
        descriptor, sent = own.fileno(), 0
        end = time.monotonic() + float(seconds)
        while time.monotonic() < end:
            count = libc.sendmmsg(descriptor, headers, BATCH, 0)
            if count < 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            sent += count
    print(sent)


def _endpoint(text: str) -> tuple[str, int]:
    host, _, port = text.partition(":")
    return host, int(port)


if __name__ == "__main__":
    main(*sys.argv[1:])
