"""Edits against the original bytes: collected, never overlapping, applied once.

Nothing is parsed and printed again, so every byte outside an edit stays as it was.
"""

from __future__ import annotations

from natfix.commands import Note

EditTuple = tuple[tuple[int, int, bytes], ...]      # (start, end, new bytes), in order


class Edits:
    """The edits of one message, and the note of each."""

    __slots__ = ("_edits", "_raw", "notes")

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._edits: list[tuple[int, int, bytes]] = []
        self.notes: list[Note] = []

    def __bool__(self) -> bool:
        return bool(self._edits)

    def replace(self, start: int, end: int, new: bytes, note: Note | None = None) -> None:
        """Put *new* in the place of raw[start:end]; the same bytes again are no edit.

        Raises ValueError where that overlaps another edit, or lies outside: either is a bug of ours.
        """
        if not 0 <= start <= end <= len(self._raw):
            raise ValueError(f"edit {start}:{end} lies outside the message")
        if self._raw[start:end] == new:
            return
        for other_start, other_end, _ in self._edits:
            if start == other_start or (start < other_end and other_start < end):
                raise ValueError(f"edit {start}:{end} overlaps {other_start}:{other_end}")
        self._edits.append((start, end, new))
        if note is not None:
            self.notes.append(note)

    def delta_after(self, offset: int) -> int:
        """Return by how many bytes the part from *offset* on grows."""
        return sum(len(new) - (end - start) for start, end, new in self._edits if start >= offset)

    def as_tuple(self) -> EditTuple:
        """Return the edits in order, to be kept and applied again to a retransmission."""
        return tuple(sorted(self._edits))


def apply_edits(raw: bytes, edits: EditTuple) -> bytes:
    """Return *raw* with *edits* (in order, as from :meth:`Edits.as_tuple`) applied in one splice."""
    parts: list[bytes] = []
    position = 0
    for start, end, new in edits:
        parts += (raw[position:start], new)
        position = end
    parts.append(raw[position:])
    return b"".join(parts)
