"""Edits: replacements collected against the original bytes, and applied once.

Everything outside of them stays byte for byte as it came; nothing is parsed and printed again.
"""

from __future__ import annotations

from bisect import bisect_left

from natfix.commands import Note

EditTuple = tuple[tuple[int, int, bytes], ...]      # (start, end, new bytes), ordered and apart


class Edits:
    """The edits of one message, with the notes that give their reasons."""

    __slots__ = ("_edits", "_raw", "delta", "notes")

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._edits: list[tuple[int, int, bytes]] = []      # in order of their offsets
        self.notes: list[Note] = []
        self.delta = 0              # bytes that the result is longer (or, negative, shorter)

    def __bool__(self) -> bool:
        return bool(self._edits)

    def replace(self, start: int, end: int, new: bytes, note: Note | None = None) -> None:
        """Put *new* in the place of the original bytes from *start* to *end* (an insertion if equal).

        Bytes that are replaced by themselves are no edit, and their note is dropped. Raises ValueError
        where the span lies outside of the original, or another edit has some of it already: both are
        our own mistakes.
        """
        if not 0 <= start <= end <= len(self._raw):
            raise ValueError(f"{start} to {end} is no span of {len(self._raw)} bytes")
        if self._raw[start:end] == new:
            return
        edits = self._edits
        place = bisect_left(edits, (start, end))
        if place and edits[place - 1][1] > start:
            raise ValueError(f"{start} to {end} overlaps an edit before it")
        if place < len(edits) and (edits[place][0] < end or edits[place][:2] == (start, end)):
            raise ValueError(f"{start} to {end} overlaps an edit after it")
        edits.insert(place, (start, end, new))
        self.delta += len(new) - (end - start)
        if note is not None:
            self.notes.append(note)

    def delta_after(self, offset: int) -> int:
        """Return how many bytes longer (or shorter) the part from *offset* on has become."""
        return sum(len(new) - (end - start) for start, end, new in self._edits if start >= offset)

    def apply(self) -> bytes:
        """Return the bytes with every edit made."""
        return apply_edits(self._raw, self.as_tuple())

    def as_tuple(self) -> EditTuple:
        """Return the edits as data, for :func:`apply_edits` on the same bytes at a later time."""
        return tuple(self._edits)


def apply_edits(raw: bytes, edits: EditTuple) -> bytes:
    """Return *raw* with *edits* (of :meth:`Edits.as_tuple`) made in one splice."""
    parts: list[bytes] = []
    at = 0
    for start, end, new in edits:
        parts += (raw[at:start], new)
        at = end
    parts.append(raw[at:])
    return b"".join(parts)
