"""The octets of an input: a file or standard input, gunzipped on the way.

Nothing that a file holds makes this raise: where its octets end too early, ``problem`` says why.
"""

from __future__ import annotations

import os
import sys
import zlib
from contextlib import suppress
from types import TracebackType
from typing import BinaryIO

from natfix.errors import NatfixError

CHUNK = 1 << 18                 # octets; one read
GZIP = b"\x1f\x8b\x08"
STDIN = "-"


class Unreadable(NatfixError):
    """An input that is no capture, or cannot be opened: one sentence says why, and what helps."""


class Source:
    """A stream of octets that knows how far it is."""

    def __init__(self, path: str) -> None:
        """Open *path* ("-": standard input); raises Unreadable."""
        self.path = path
        self.size = 0               # of the file, octets; 0 where nobody knows
        self.position = 0           # read so far, before gunzip
        self.problem = ""           # why it ended before its end
        self._file = _opened(path)
        with suppress(OSError):
            self.size = os.fstat(self._file.fileno()).st_size
        self._packed = self._read_file()
        self.is_compressed = self._packed.startswith(GZIP)
        self._inflater = zlib.decompressobj(wbits=31)
        self._plain = b""           # read already, but not taken
        if not self.is_compressed:
            self._plain, self._packed = self._packed, b""

    def peek(self, size: int) -> bytes:
        """Return the next octets without taking them: *size*, or fewer where it ends before."""
        while len(self._plain) < size:
            more = self._more()
            if not more:
                break
            self._plain += more
        return self._plain[:size]

    def read(self) -> bytes:
        """Return the next octets, as many as come easily; b"" at the end."""
        plain, self._plain = self._plain, b""
        return plain or self._more()

    def close(self) -> None:
        """Close the file; standard input stays open."""
        if self.path != STDIN:
            self._file.close()

    def __enter__(self) -> Source:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def _more(self) -> bytes:
        return self._inflated() if self.is_compressed else self._read_file()

    def _inflated(self) -> bytes:
        """Return some more plain octets; never more than CHUNK, however well they were packed."""
        while True:
            self._packed = self._packed or self._read_file()
            if not self._packed:
                if not self._inflater.eof and not self.problem:
                    self.problem = "its gzip data ends too early"
                return b""
            if self._inflater.eof and not self._next_member():
                return b""
            try:
                plain = self._inflater.decompress(self._packed, CHUNK)
            except zlib.error:
                self.problem = "its gzip data is corrupt"
                return b""
            self._packed = self._inflater.unused_data or self._inflater.unconsumed_tail
            if plain:
                return plain

    def _next_member(self) -> bool:
        """Begin another gzip file behind the one that ended; padding there means nothing (RFC 1952, 2.2)."""
        if not self._packed.startswith(GZIP[:1]):
            return False
        self._inflater = zlib.decompressobj(wbits=31)
        return True

    def _read_file(self) -> bytes:
        try:
            octets = self._file.read(CHUNK)
        except OSError as error:
            self.problem = f"it cannot be read further: {error.strerror}"
            return b""
        self.position += len(octets)
        return octets


def _opened(path: str) -> BinaryIO:
    if path == STDIN:
        return sys.stdin.buffer
    try:
        return open(path, "rb")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no file can be called so"
        raise Unreadable(f"{path}: {reason}.") from None
