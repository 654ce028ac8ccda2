"""How full the tables are that the engine keeps: what there is of each thing, and how much of it is taken."""

from __future__ import annotations

from typing import NamedTuple

from natfix.dialogs import Calls
from natfix.mappings import MOST_PERMISSIONS, Mappings
from natfix.ports import PortPool
from natfix.registrations import Registrations
from natfix.streams import Streams


class Level(NamedTuple):
    """Something bounded."""

    used: int
    size: int

    @property
    def share(self) -> float:
        """From 0 to 1; 0 where there is no bound."""
        return self.used / self.size if self.size else 0.0


class Levels:
    """Asked by the shell, which tells the operator before something runs out."""

    def __init__(
        self, mappings: Mappings, calls: Calls, registrations: Registrations, streams: Streams,
        pool: PortPool,
    ) -> None:
        self._mappings = mappings
        self._calls = calls
        self._registrations = registrations
        self._streams = streams
        self._pool = pool

    def refuse_calls(self, reason: str) -> None:
        """Let no call begin from now on, because of *reason*; "": let them. Those that run go on."""
        self._calls.closed = reason

    def now(self) -> dict[str, Level]:
        """Return the level of each table; this counts nothing, so it may be asked often."""
        mappings, pool = self._mappings, self._pool
        return {
            "media_ports": Level(pool.size - pool.free, pool.size),
            "signalling_ports": Level(mappings.spare_used, len(mappings.spare)),
            "mappings": Level(len(mappings), mappings.limit),
            "permissions": Level(mappings.permissions, MOST_PERMISSIONS),
            "dialogs": Level(len(self._calls), self._calls.limit),
            "registrations": Level(len(self._registrations), self._registrations.limit),
            "streams": Level(len(self._streams), self._streams.limit),
        }
