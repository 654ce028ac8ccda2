"""Two spellings of one message side by side, with the characters marked that differ.

What natfix changed is known to the octet, with the reason of each change. What some other box on the path
changed is found by comparison, and nobody knows its reasons.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from difflib import SequenceMatcher
from typing import NamedTuple

from natfix.commands import Note
from natfix.replay.as_text import printable
from natfix.replay.model import Repair

MOST_LINES = 400            # of a message that are compared line by line; beyond that as one piece
MOST_TOKENS = 200           # of a line that are compared one by one
TOKEN = re.compile(r"[\w.]+|[^\w.]")    # an address is one token, so that no single digits are marked


class Piece(NamedTuple):
    """Some characters of a line, ready to be shown."""

    text: str
    is_changed: bool = False


class Line(NamedTuple):
    """What stands on one line, or on several where a change spans them."""

    before: tuple[Piece, ...]
    after: tuple[Piece, ...]
    notes: tuple[Note, ...] = ()    # why they differ, where that is known

    @property
    def is_changed(self) -> bool:
        return any(piece.is_changed for piece in (*self.before, *self.after))


class _Segment(NamedTuple):
    """Some text before and after; both are the same where nothing was changed."""

    before: str
    after: str
    note: Note | None = None


def lines_of(payload: bytes) -> list[str]:
    """Return the lines of a message as they can be shown."""
    return [_shown(line) for line in _lines(_text(payload))]


def diff_of_repair(repair: Repair) -> list[Line]:
    """Return what natfix changed, with its reasons."""
    segments = [*_segments_of_edits(repair)]
    if "".join(segment.after for segment in segments) != _text(repair.after):
        return diff_of_payloads(repair.before, repair.after)
    return [*_as_lines(segments)]


def diff_of_payloads(before: bytes, after: bytes) -> list[Line]:
    """Return what differs between two copies of a message."""
    return [*_as_lines(_segments_of_lines(_lines(_text(before)), _lines(_text(after))))]


def _text(payload: bytes) -> str:
    """Return text of the same length as *payload*, so that offsets hold."""
    return payload.decode("latin-1")


def _lines(text: str) -> list[str]:
    """Return the lines without their ends; the message's last line ends as well, and begins no new one."""
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def _segments_of_edits(repair: Repair) -> Iterator[_Segment]:
    text, at = _text(repair.before), 0
    for (start, end), note in sorted(zip(repair.spans, repair.edits, strict=False), key=lambda each: each[0]):
        if start < at:
            return
        yield _Segment(text[at:start], text[at:start])
        yield _Segment(text[start:end], note.new, note)
        at = end
    yield _Segment(text[at:], text[at:])


def _segments_of_lines(before: list[str], after: list[str]) -> Iterator[_Segment]:
    if len(before) > MOST_LINES or len(after) > MOST_LINES:
        yield _Segment("\n".join(before), "\n".join(after))
        return
    for is_same, old, new in _runs(before, after, str):
        if is_same:
            yield from _whole_lines(old, new)
            continue
        for is_same_name, one, other in _runs(old, new, _name):
            if is_same_name:
                yield from _pairs(one, other)
            else:
                yield from _whole_lines(one, other)


def _runs(
    before: list[str], after: list[str], key: Callable[[str], str],
) -> Iterator[tuple[bool, list[str], list[str]]]:
    """Yield runs of lines that agree by *key*, and those in between."""
    matcher = SequenceMatcher(None, [*map(key, before)], [*map(key, after)], autojunk=False)
    for tag, start, end, other_start, other_end in matcher.get_opcodes():
        yield tag == "equal", before[start:end], after[other_start:other_end]


def _pairs(before: list[str], after: list[str]) -> Iterator[_Segment]:
    for one, other in zip(before, after, strict=True):
        yield from _segments_of_line(one, other)
        yield _Segment("\n", "\n")


def _whole_lines(before: list[str], after: list[str]) -> Iterator[_Segment]:
    yield _Segment("\n".join(before), "\n".join(after))
    yield _Segment("\n", "\n")


def _name(line: str) -> str:
    """Return a header's or an SDP line's name: lines of one name are compared with each other."""
    name, colon, _ = line.partition(":")
    return name if colon and "=" not in name else line[:2]


def _segments_of_line(before: str, after: str) -> Iterator[_Segment]:
    one, other = TOKEN.findall(before), TOKEN.findall(after)
    if len(one) > MOST_TOKENS or len(other) > MOST_TOKENS:
        yield _Segment(before, after)
        return
    for _, start, end, other_start, other_end in SequenceMatcher(None, one, other, False).get_opcodes():
        yield _Segment("".join(one[start:end]), "".join(other[other_start:other_end]))


def _as_lines(segments: Iterable[_Segment]) -> Iterator[Line]:
    """Break segments into lines where both sides do: at a line's end that was not changed."""
    line: list[_Segment] = []
    for segment in segments:
        if segment.before != segment.after:
            line.append(segment)
            continue
        *ended, rest = segment.before.replace("\r\n", "\n").split("\n")
        for text in ended:
            yield _line([*line, _Segment(text, text)])
            line = []
        if rest:
            line.append(_Segment(rest, rest))
    if line:
        yield _line(line)


def _line(segments: list[_Segment]) -> Line:
    before = [Piece(_shown(each.before), each.before != each.after) for each in segments if each.before]
    after = [Piece(_shown(each.after), each.before != each.after) for each in segments if each.after]
    return Line(tuple(before), tuple(after), tuple(each.note for each in segments if each.note is not None))


def _shown(text: str) -> str:
    """Return text that was taken octet by octet as what it means, and so that it can be shown."""
    with contextlib.suppress(UnicodeEncodeError, UnicodeDecodeError):
        text = text.encode("latin-1").decode()
    return "\n".join(map(printable, text.replace("\r\n", "\n").split("\n")))
