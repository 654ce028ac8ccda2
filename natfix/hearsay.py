"""What parties outside have said of inside hosts, in session descriptions that natfix left as they were.

A PBX that the operator trusts may name any inside host, since it hands on what its phones have said. It also
hands on what was said outside: whoever has accounts there could name an inside host by one of them, and be
let in to it by the other. A description that is handed on keeps its o= line (RFC 8866, section 5.2).
"""

from __future__ import annotations

from natfix.address import Endpoint
from natfix.sdp import Session

MOST = 4096         # endpoints; the oldest is forgotten first

Word = tuple[bytes, Endpoint]


def name_of(raw: bytes, session: Session) -> bytes:
    """Return what tells a session from others: username and sess-id of o=; b"" where it cannot be read."""
    if session.origin is None:
        return b""
    start = raw.rfind(b"o=", session.start, session.origin.start)
    return b" ".join(raw[start:session.origin.start].split()[:2])


class Hearsay:
    """Endpoints that outsiders have named, bounded."""

    def __init__(self) -> None:
        self._said: dict[Word, None] = {}

    def note(self, name: bytes, endpoint: Endpoint) -> None:
        """Remember that the session *name* of somebody outside wants media at *endpoint*."""
        self._said.pop((name, endpoint), None)
        if len(self._said) >= MOST:
            del self._said[next(iter(self._said))]
        self._said[name, endpoint] = None

    def has(self, name: bytes, endpoint: Endpoint) -> bool:
        """Tell whether that is what somebody outside has said."""
        return (name, endpoint) in self._said
