"""The SIP packets of the last moments, in memory that outlives the process.

What a message changes is in the state file an eighth of a second later (:mod:`natfix.store`). A call that was
begun in between would be unknown after ``kill -9``: its answer would pass unfixed, and one side hear nothing.
So each packet is copied here before its verdict, which takes 1 us, and who starts after a crash shows
those of the last second to the engine once more. That finds its mappings in the kernel; what is in the state
file already is a repetition to it.

The file stands beside the control socket, below /run, which is memory: writing there waits for no disk.
"""

from __future__ import annotations

import logging
import mmap
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

from natfix.message_ids import kind
from natfix.ownership import hand_over
from natfix.packet import Path

SUFFIX = ".recent"
HALF = 2 << 20          # bytes; at 3,000 packets a second one half has the last second
KEEP = 1.0              # seconds; the state file is behind by an eighth of one
OLDEST = 32.0           # seconds after which nobody repeats a message (RFC 3261, section 17.1.1.2)
FORMAT = b"natfix-recent-1\n"
USED = struct.Struct("=QQ")             # of a half: how manieth it is, bytes in use
ENTRY = struct.Struct("=dIHI")          # when, mark, length of the path's text, of the packet
PATH_TEXTS = 3          # hook, interfaces
HEAD = len(FORMAT) + USED.size

log = logging.getLogger("natfix")


class Seen(NamedTuple):
    """A packet as it came."""

    at: float       # of the loop's clock
    path: Path
    raw: bytes


class Recent:
    """Two halves of a file in memory, of which one is written while the other has what came before."""

    def __init__(self, path: str) -> None:
        """Open or make the file at *path*, "" for none; the log says it where that fails."""
        self._memory: mmap.mmap | None = None
        self._half, self._serial, self._used = 0, 0, 0
        try:
            self._memory = _mapped(path) if path else None
        except OSError as problem:
            log.warning("packets of the last moments cannot be kept in %s (%s): after a crash, calls that "
                        "had just begun may stay without audio", path, problem.strerror,
                        extra=kind("state-file"))

    def packets(self, now: float) -> list[Seen]:
        """Return what came within KEEP of the last packet, the oldest first; nothing if that was long ago."""
        if self._memory is None:
            return []
        halves = sorted((self._head_of(half), half) for half in (0, 1))
        found = [seen for (_, used), half in halves for seen in self._entries(half, used)]
        return [seen for seen in found if seen.at >= found[-1].at - KEEP and found[-1].at > now - OLDEST]

    def begin(self) -> None:
        """Forget what there was, which is in the state file, and be ready for :meth:`put`."""
        if self._memory is not None:
            for half in (0, 1):
                self._memory[half * HALF:half * HALF + HEAD] = FORMAT + USED.pack(0, 0)
            self._half, self._serial, self._used = 0, 1, 0

    def put(self, raw: bytes, path: Path, now: float) -> None:
        """Keep a packet; one that fits no half is left out."""
        names = "\0".join((path.hook, path.in_interface, path.out_interface)).encode(errors="replace")
        entry = ENTRY.pack(now, path.mark, len(names), len(raw)) + names + raw
        if self._memory is None or len(entry) > HALF - HEAD:
            return
        if self._used + len(entry) > HALF - HEAD:
            self._half, self._serial, self._used = 1 - self._half, self._serial + 1, 0
        start = self._half * HALF
        at = start + HEAD + self._used
        self._memory[at:at + len(entry)] = entry
        self._used += len(entry)
        # Last, so that whoever is killed before has not written a part of an entry.
        self._memory[start + len(FORMAT):start + HEAD] = USED.pack(self._serial, self._used)

    def close(self) -> None:
        """Let go; what was put stays."""
        if self._memory is not None:
            self._memory.close()
            self._memory = None

    def _head_of(self, half: int) -> tuple[int, int]:
        assert self._memory is not None
        head = self._memory[half * HALF:half * HALF + HEAD]
        if not head.startswith(FORMAT):
            return 0, 0
        serial, used = USED.unpack_from(head, len(FORMAT))
        return serial, min(used, HALF - HEAD)

    def _entries(self, half: int, used: int) -> Iterator[Seen]:
        assert self._memory is not None
        at = half * HALF + HEAD
        end = at + used
        while at + ENTRY.size <= end:
            when, mark, names, length = ENTRY.unpack_from(self._memory, at)
            at += ENTRY.size
            if at + names + length > end:
                return
            text = self._memory[at:at + names].decode(errors="replace").split("\0")
            if len(text) == PATH_TEXTS:
                raw = self._memory[at + names:at + names + length]
                yield Seen(when, Path(text[0], text[1], text[2], mark), raw)
            at += names + length


def _mapped(path: str) -> mmap.mmap:
    """Return the file at *path* in memory, made where there is none; raises OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        hand_over(path)
        # In memory it can be too late to hear that there is no room: writing there would end natfix (SIGBUS).
        os.posix_fallocate(descriptor, 0, 2 * HALF)
        return mmap.mmap(descriptor, 2 * HALF)
    finally:
        os.close(descriptor)
