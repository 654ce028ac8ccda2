"""What every property test asks of one message before and after: are the notes the whole truth?"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from sipmessage import Message as IndependentMessage
from sipmessage import Request

from natfix.address import Endpoint
from natfix.commands import Note

FOLD = re.compile(rb"\r\n[ \t]+")
HEADER_END = re.compile(rb"\r\n(?![ \t])")
SDP_LINE = re.compile(r"[a-z]=")
ECHOED = {"via": "v", "from": "f", "to": "t", "call-id": "i", "cseq": "", "record-route": ""}


def undone(before: bytes, after: bytes, notes: Iterable[Note]) -> bool:
    """Tell whether *after* is *before* with each edit of *notes* made once, and not a byte else."""
    edits = Counter(
        (note.old.encode("latin-1"), note.new.encode("latin-1")) for note in notes if note.is_edit)
    return _undo(before, after, 0, 0, edits)


def _undo(before: bytes, after: bytes, at: int, there: int, edits: Counter[tuple[bytes, bytes]]) -> bool:
    same = _common_prefix(before, after, at, there)
    at, there = at + same, there + same
    if not +edits:
        return at == len(before) and there == len(after)
    for old, new in list(+edits):
        for back in range(min(len(old), len(new)), -1, -1):     # an edit may begin with what stays
            if before.startswith(old, at - back) and after.startswith(new, there - back):
                edits[old, new] -= 1
                if _undo(before, after, at - back + len(old), there - back + len(new), edits):
                    return True
                edits[old, new] += 1
    return False


def _common_prefix(before: bytes, after: bytes, at: int, there: int) -> int:
    """Return how far both go on alike; doubling steps, since messages are mostly alike."""
    same, step = 0, 256
    while step:
        if before[at + same:at + same + step] == after[there + same:there + same + step] \
                and at + same + step <= len(before) and there + same + step <= len(after):
            same += step
        else:
            step //= 2
    return same


def unexplained(before: bytes, after: bytes, notes: Iterable[Note]) -> list[str]:
    """Return what an independent parser reads differently though no note says so.

    Raises ValueError where that parser cannot read *before*; it must be able to read *after* then.
    """
    told = {_place(note) for note in notes if note.is_edit}
    first, second = _read(before), _read(after)
    assert first.keys() == second.keys(), f"headers came or went: {first.keys() ^ second.keys()}"
    return [place for place in first if first[place] != second[place] and place not in told]


def _place(note: Note) -> str:
    name = note.header.lower()
    return "body" if SDP_LINE.match(name) else name


def _read(payload: bytes) -> dict[str, Any]:
    head, blank, body = payload.partition(b"\r\n\r\n")
    lines = FOLD.sub(b" ", head).split(b"\r\n")
    start = re.sub(rb"(?i) (sips?:)", lambda scheme: scheme[0].lower(), lines[0])   # it knows no "SIP:"
    tidy = [start, *(re.sub(rb"^([^:\s]+)[ \t]*:", rb"\1:", line) for line in lines[1:])]
    message = IndependentMessage.parse(b"\r\n".join(tidy) + blank + body)
    if isinstance(message, Request):
        read: dict[str, Any] = {"method": message.method, "request-uri": str(message.uri)}
    else:
        read = {"status": (message.code, message.phrase)}
    read["body"] = message.body
    for name in message.headers.keys():     # noqa: SIM118 (no mapping: it has no iterator)
        read.setdefault(name.lower(), []).extend(message.headers.getlist(name))
    return read


def logical_lines(payload: bytes) -> list[bytes]:
    """Return start line and headers, each with its folded lines."""
    return HEADER_END.split(payload.partition(b"\r\n\r\n")[0])


def header_name(line: bytes) -> str:
    """Return the long lower-case name of a header line."""
    name = line.partition(b":")[0].strip().lower().decode(errors="replace")
    return next((known for known, compact in ECHOED.items() if name == compact != ""), name)


def echo(request: bytes, received: Endpoint | None = None, further: tuple[str, ...] = ()) -> bytes:
    """Return the 200 that a UAS makes of *request* by RFC 3261 section 8.2.6.2: the headers as they came.

    *received* is where the request came from, for the topmost Via (RFC 3581), None for a UAS that marks
    none; *further* names more headers.
    """
    lines, is_first_via = [b"SIP/2.0 200 OK"], True
    for line in logical_lines(request)[1:]:
        name = header_name(line)
        if name == "via" and is_first_via and received is not None:
            line, is_first_via = _marked(line, received), False
        if name == "to" and b"tag=" not in line:
            line += b";tag=uas"
        if name in ECHOED or name in further:
            lines.append(line)
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _marked(via: bytes, received: Endpoint) -> bytes:
    host, port = (str(part).encode() for part in received[:2])
    return re.sub(rb";rport(?![=\w])", b";rport=" + port, via.rstrip()) + b";received=" + host
