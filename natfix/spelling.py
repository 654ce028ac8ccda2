"""How a UA wrote its own address: with or without port, and what stands for it outside.

Most spellings follow from the endpoint: "host:port" is shown as "host:port", "host" as "host" where the
outside port is 5060. Only the rest has to be remembered.
"""

from __future__ import annotations

from natfix.address import SIP_PORT, Endpoint
from natfix.sip.fields import HostPort

GENERATION = 300.0          # seconds; an INVITE may ring for longer than Timer C's 3 minutes
MAX_PER_GENERATION = 65536


def shown_text(hostport: HostPort, outside: Endpoint) -> str:
    """Return how *outside* is written in the place of *hostport*: a port omitted stays so if it can."""
    if hostport.port is None and outside.port == SIP_PORT:
        return outside.host
    return f"{outside.host}:{outside.port}"


def inverse_text(shown: str, inside: Endpoint) -> str:
    """Return how the UA most likely wrote what is shown as *shown*."""
    if ":" not in shown and inside.port == SIP_PORT:
        return inside.host
    return f"{inside.host}:{inside.port}"


class Spelling:
    """Spellings of single transactions, by branch; forgotten after one to two generations."""

    def __init__(self) -> None:
        self._young: dict[tuple[str, str, str], str] = {}
        self._old: dict[tuple[str, str, str], str] = {}
        self._turned_at = 0.0

    def remember(self, branch: str, kind: str, shown: str, written: str, now: float) -> None:
        """Keep how *shown* was written in the transaction *branch*."""
        if now - self._turned_at > GENERATION or len(self._young) >= MAX_PER_GENERATION:
            self._young, self._old = {}, self._young
            self._turned_at = now
        self._young[branch, kind, shown] = written

    def recall(self, branch: str, kind: str, shown: str) -> str | None:
        """Return how it was written, None where that is not known."""
        key = (branch, kind, shown)
        return self._young.get(key) or self._old.get(key)
