"""Copies of what natfix treats, for those who watch calls: HEPv3 for capture servers, lines of JSON.

The loop hands over what it has decided after the verdict; a thread makes datagrams of it. What it cannot keep
up with is dropped and counted: no packet ever waits for a listener. Credentials and keys are made unreadable
first (:mod:`natfix.masking`).
"""

from __future__ import annotations

import json
import logging
import queue
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from natfix.address import Endpoint
from natfix.config import Export
from natfix.errors import NatfixError
from natfix.expect import endpoint_from_setting
from natfix.hep import datagram
from natfix.journal import Decision, entry_from_decision
from natfix.masking import masked
from natfix.wall import wall

WAITING = 2048          # decisions that wait for the thread
LONGEST_LINE = 60000    # octets of a datagram of JSON
LEVELS = ("full", "short", "off")
MOST_LEVELS = 1000      # calls with a level of their own

log = logging.getLogger("natfix")


class Exporter:
    """Sends copies from a thread of its own."""

    def __init__(self, settings: Export) -> None:
        """Nothing is resolved and nothing connected; without an address in *settings* nothing is done."""
        self._hep = _endpoint(settings.hep)
        self._json = _endpoint(settings.json)
        self._agent = settings.hep_id
        self._level = settings.level
        self._levels: dict[str, str] = {}       # Call-ID -> its own level
        self.counters: Counter[str] = Counter()
        self._waiting: queue.Queue[Decision | None] = queue.Queue(WAITING)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._thread = threading.Thread(target=self._send_all, name="export", daemon=True)
        if self._hep is not None or self._json is not None:
            self._thread.start()

    def listeners(self) -> list[Callable[[Decision], None]]:
        """Return what the journal has to call: nothing where nobody is to have copies."""
        return [self.offer] if self._thread.is_alive() else []

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Take `natfix export LEVEL`; raises NatfixError where that cannot be."""
        level, call_id = request.get("level"), request.get("call", "")
        if level not in LEVELS or not isinstance(call_id, str):
            raise NatfixError(f"a level is one of {', '.join(LEVELS)}")
        if not self._thread.is_alive():
            raise NatfixError("nobody gets copies: name a listener in natfix.toml, [export] hep or json, and "
                              "restart natfix")
        self.set_level(level, call_id)
        return {"level": level}

    def offer(self, decision: Decision) -> None:
        """Take a decision, or drop and count it; never waits."""
        outcome = decision.outcome
        if not outcome.summary or self.level_of(outcome.call_id) == "off":
            return
        try:
            self._waiting.put_nowait(decision)
        except queue.Full:
            self.counters["dropped"] += 1

    def level_of(self, call_id: str) -> str:
        """Return how much of a call is exported: "full", "short" or "off"."""
        return self._levels.get(call_id, self._level)

    def set_level(self, level: str, call_id: str = "") -> None:
        """Export *level* of the call *call_id*, or of all that have no level of their own."""
        if not call_id:
            self._level = level
            return
        self._levels.pop(call_id, None)
        if len(self._levels) >= MOST_LEVELS:
            del self._levels[next(iter(self._levels))]
        self._levels[call_id] = level

    def close(self) -> None:
        """Send what waits, for at most a second, and end the thread."""
        if self._thread.is_alive():
            try:
                self._waiting.put(None, timeout=1.0)
            except queue.Full:
                return
            self._thread.join(1.0)
        self._socket.close()

    def _send_all(self) -> None:
        while (decision := self._waiting.get()) is not None:
            try:
                self._send(decision)
            except Exception:       # a copy that cannot be made must not end all others
                self.counters["failed"] += 1
                log.debug("export", exc_info=True)

    def _send(self, decision: Decision) -> None:
        is_short = self.level_of(decision.outcome.call_id) == "short"
        if self._hep is not None and not is_short:
            for packet in self._hep_copies(decision):
                self._put(packet, self._hep)
        if self._json is not None:
            line = json.dumps(_event(decision, is_short), ensure_ascii=False).encode()
            self._put(line[:LONGEST_LINE] + b"\n", self._json)

    def _hep_copies(self, decision: Decision) -> Iterator[bytes]:
        """Yield each message twice: as it was before NAT and natfix, and as it is behind them."""
        for treated in decision.outcome.treated:
            for ends, octets in (((treated.source, treated.destination), treated.octets),
                                 ((treated.shown_source, treated.shown_destination), treated.shown_octets)):
                yield datagram(
                    masked(octets), treated.protocol, *ends, wall(decision.at), self._agent, treated.call_id)

    def _put(self, packet: bytes, target: Endpoint) -> None:
        try:
            self._socket.sendto(packet, (target.host, target.port))
            self.counters["sent"] += 1
        except OSError:             # nobody listens, no route, the buffer is full
            self.counters["failed"] += 1


def _endpoint(text: str) -> Endpoint | None:
    return endpoint_from_setting(text, 0) if text else None


def _event(decision: Decision, is_short: bool) -> dict[str, Any]:
    entry = entry_from_decision(decision)
    if is_short:
        entry["notes"] = sorted({note["rule"] for note in entry["notes"]})
    return entry
