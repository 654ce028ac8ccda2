"""What a gateway did to each SIP message: the same message, captured on both of its sides."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from tests.lab.pcap import Datagram

CALL_ID = re.compile(rb"^(?:Call-ID|i)[ \t]*:[ \t]*([^\r\n]+)", re.IGNORECASE | re.MULTILINE)
CSEQ = re.compile(rb"^CSeq[ \t]*:[ \t]*(\d+)[ \t]+(\w+)", re.IGNORECASE | re.MULTILINE)

Key = tuple[bytes, bytes, bytes, bytes]


class Pair(NamedTuple):
    """One message before and after the gateway."""

    title: str
    goes_out: bool
    before: bytes
    after: bytes

    def changes(self) -> list[tuple[str, str]]:
        """Return the lines that differ, before and after; natfix never adds or removes one."""
        before, after = self.before.split(b"\r\n"), self.after.split(b"\r\n")
        return [(old.decode(errors="replace"), new.decode(errors="replace"))
                for old, new in zip(before, after, strict=False) if old != new]


def pair_messages(inside: Iterable[Datagram], outside: Iterable[Datagram], gateway: str) -> list[Pair]:
    """Pair the SIP messages of two captures; *gateway* is the gateway's outside address.

    The n-th copy of a message on one side is the n-th on the other; one that was lost has no pair.
    """
    waiting: dict[tuple[bool, Key], list[Datagram]] = defaultdict(list)
    for datagram in outside:
        waiting[datagram.source[0] == gateway, _key(datagram.payload)].append(datagram)
    pairs = []
    for datagram in inside:
        goes_out = any(datagram.source[0].startswith(prefix) for prefix in ("192.168.", "10.", "172.16."))
        if same := waiting[goes_out, _key(datagram.payload)]:
            outer = same.pop(0)
            before, after = (datagram, outer) if goes_out else (outer, datagram)
            pairs.append(Pair(_title(datagram.payload), goes_out, before.payload, after.payload))
    return pairs


def _key(payload: bytes) -> Key:
    """Call-ID, CSeq and kind: what no fixer ever changes."""
    call_id, cseq = CALL_ID.search(payload), CSEQ.search(payload)
    first = payload.split(b" ", 2)
    kind = first[1] if first[0] == b"SIP/2.0" else b"request"
    return (call_id[1] if call_id else b"", cseq[1] if cseq else b"", cseq[2] if cseq else b"", kind)


def _title(payload: bytes) -> str:
    first = payload.partition(b"\r\n")[0].decode(errors="replace")
    cseq = CSEQ.search(payload)
    if first.startswith("SIP/2.0 "):
        return f"{first[8:]} ({cseq[2].decode() if cseq else '?'})"
    return first.removesuffix(" SIP/2.0")
