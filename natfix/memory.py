"""What outlives the process: rows for the store, and taking up again what store and kernel kept."""

from __future__ import annotations

from typing import Any

from natfix.address import Endpoint
from natfix.callflow import CallFlow
from natfix.commands import Kind
from natfix.dialogs import CallKey, Calls
from natfix.errors import LimitReached
from natfix.far_ends import FarEnds
from natfix.kernel.base import KernelMapping
from natfix.mappings import Mapping, Mappings, is_relay_key
from natfix.media import MediaKeeper
from natfix.realms import Realms
from natfix.registering import Registering
from natfix.registrations import BindingKey, Registrations
from natfix.reports import Change, Restored
from natfix.rows import (
    Stream,
    binding_from_row,
    call_from_row,
    far_end_from_row,
    row_from_binding,
    row_from_call,
    row_from_far_end,
)
from natfix.signalling import Signalling

RESTORED = ("restored",)                    # holds a mapping until its element would have ended by itself
SHOWN = frozenset({"via", "contact", "route"})      # what a mapping from before has been shown in, likely
DAMAGED = (KeyError, TypeError, ValueError, AttributeError, IndexError, LimitReached)


class Memory:
    """Writes and reads the engine's tables as rows."""

    def __init__(
        self, realms: Realms, mappings: Mappings, calls: Calls, registrations: Registrations,
        signalling: Signalling, registering: Registering, media: MediaKeeper, flow: CallFlow,
        far_ends: FarEnds,
    ) -> None:
        self._realms = realms
        self._mappings = mappings
        self._calls = calls
        self._registrations = registrations
        self._signalling = signalling
        self._registering = registering
        self._media = media
        self._flow = flow
        self._far_ends = far_ends

    def restore(self, report: Restored, now: float) -> int:
        """Take up the state from before a restart; the kernel is the truth about mappings.

        Returns how many rows were damaged and left out.
        """
        damaged = 0
        for mapping in report.mappings:
            self._restore_mapping(mapping, now)
        for change in report.rows:
            if change.row is None:
                continue
            try:
                self._restore_row(change.table, change.row, now)
            except DAMAGED:
                damaged += 1
        return damaged

    def _restore_mapping(self, known: KernelMapping, now: float) -> None:
        mapping = self._add_known(known.kind, known.inside, known.outside)
        if mapping is not None:
            mapping.inward = known.inward
            mapping.shown |= SHOWN
            mapping.kernel_until = now + known.lifetime
            self._mappings.hold(mapping, RESTORED, now + known.lifetime, now)

    def _add_known(self, kind: Kind, inside: Endpoint, outside: Endpoint) -> Mapping | None:
        """Enter a mapping from before, unless it is there, clashes, or has another outside address."""
        if not self._realms.still_shows(inside, outside.host) and self._realms.outside_of(inside.host):
            return None
        mapping = self._mappings.find(inside)
        if mapping is not None or self._mappings.find_outside(outside) is not None:
            return mapping if mapping is not None and mapping.kind is kind else None
        if kind is not Kind.SIGNALLING and inside != outside:
            self._media.pool.claim(outside.port)
        mapping = self._mappings.add(kind, inside, outside)
        mapping.mark = self._realms.mark_of(outside.host) if kind is Kind.MEDIA else 0
        return mapping

    def _restore_row(self, table: str, row: dict[str, Any], now: float) -> None:
        if table == "ports":
            self._signalling.remembered[Endpoint(*row["inside"])] = int(row["port"])
        elif table == "registrations":
            self._restore_binding(row, now)
        elif table == "calls":
            self._restore_call(row, now)
        elif table == "far_ends":
            self._far_ends.restore(far_end_from_row(row), now)

    def _restore_binding(self, row: dict[str, Any], now: float) -> None:
        binding = binding_from_row(row)
        if binding.expires_at <= now or binding.key.reached_at.stream:
            self._registrations.changed.add(binding.key)    # a connection from before is reset, see streaming
            return
        mapping = self._signalling.map_endpoint(binding.key.reached_at, now)
        mapping.shown |= SHOWN
        if binding.key.proxy is None:
            mapping.agent = binding.agent
        self._registrations.add(binding)
        self._registering.open(mapping, binding, now)
        mapping.holders.pop(RESTORED, None)

    def _restore_call(self, row: dict[str, Any], now: float) -> None:
        call, media, outside = call_from_row(row)
        if call.ended_at is not None:
            return
        signalling = None
        if outside is not None and not call.inside.stream:
            signalling = self._add_known(Kind.SIGNALLING, call.inside, outside)
        self._calls.add(call)
        for stream in media:
            kind = Kind.RELAY if is_relay_key(stream.inside) else Kind.MEDIA
            mapping = self._add_known(kind, stream.inside, stream.outside)
            if mapping is not None:
                if mapping.relay is not None:
                    mapping.relay.source = stream.source
                self._media.hold(call, mapping, now)
                mapping.holders.pop(RESTORED, None)
        if signalling is not None:
            signalling.shown |= SHOWN
        self._flow.resume(call, signalling, now)

    def pop_changes(self) -> list[Change]:
        """Return what the store has to write since the last call."""
        changes = [self._call_change(key) for key in self._calls.changed]
        changes += [self._binding_change(key) for key in self._registrations.changed]
        changes += [self._port_change(inside) for inside in self._signalling.changed]
        changes += [self._far_end_change(source) for source in self._far_ends.changed]
        self.forget_changes()
        return changes

    def forget_changes(self) -> None:
        """Leave nothing for :meth:`pop_changes`."""
        for table in (self._calls, self._registrations, self._signalling, self._far_ends):
            table.changed.clear()

    def _call_change(self, key: CallKey) -> Change:
        name = "\n".join((key.inside_host, key.call_id, key.caller_tag, key.role.value))
        call = self._calls.get(key)
        if call is None or call.ended_at is not None:
            return Change("calls", name, None)
        media = [Stream(inside, mapping.outside, mapping.relay.source if mapping.relay else None)
                 for inside in call.held if (mapping := self._mappings.find(inside)) is not None]
        signalling = self._mappings.find(call.inside)
        return Change("calls", name, row_from_call(call, media, signalling.outside if signalling else None))

    def _binding_change(self, key: BindingKey) -> Change:
        binding = self._registrations.find(key)
        name = "\n".join((*map(str, filter(None, key)), *filter(None, (key.reached_at.link,))))
        return Change("registrations", name, row_from_binding(binding) if binding else None)

    def _port_change(self, inside: Endpoint) -> Change:
        port = self._signalling.remembered.get(inside)
        name = " ".join(filter(None, (str(inside), inside.link)))
        return Change("ports", name, {"inside": list(inside), "port": port} if port else None)

    def _far_end_change(self, source: Endpoint) -> Change:
        far = self._far_ends.find(source)
        return Change("far_ends", str(source), row_from_far_end(far) if far else None)
