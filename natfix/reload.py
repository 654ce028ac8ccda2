"""What another configuration changes, and which of it a running natfix can take.

A setting that is not named here cannot change while natfix runs: who adds one has to decide.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from functools import partial
from typing import Any

from natfix import systemd
from natfix.config import ARRAYS, TABLES, Settings, names_to_resolve
from natfix.errors import ConfigError, NatfixError
from natfix.loop import Loop
from natfix.message_ids import kind
from natfix.parachute import Parachute
from natfix.quirks import Quirks
from natfix.reports import AddressesChanged
from natfix.resolver import asker
from natfix.startup import skeleton_from_settings

log = logging.getLogger("natfix")

Read = Callable[[], tuple[Settings, Quirks]]

# Tables, and of each the settings that are followed at once.
CHANGEABLE: dict[str, frozenset[str]] = {
    "inside": frozenset({"networks", "pbx"}),
    "outside": frozenset({"intranet"}),
    "media": frozenset({"ports", "policy", "release", "media_hosts", "accept_from", "silence"}),
    "signalling": frozenset({"ports", "outside_ports", "on_failure", "agent_name"}),
    "far_end": frozenset({"fix", "signs", "keep_open", "keep_open_every", "keep_open_longest"}),
    "limits": frozenset({
        "mappings", "mappings_per_host", "dialogs", "dialogs_per_host", "registrations_per_host",
        "remotes_per_dialog", "requests_per_host", "requests_per_peer", "packets_per_host",
    }),
    "daemon": frozenset({"log_level", "nameservers"}),
}
CHANGEABLE_ARRAYS = frozenset({"peer", "domain", "trunk"})
CURE = "restart natfix for it: systemctl restart natfix keeps calls, natfix down and natfix up do not"


def differences(old: Settings, new: Settings) -> list[str]:
    """Return the settings that differ, as they are written: "[media] ports", "[[peer]]", "quirks_files"."""
    return [name for name, _ in _differences(old, new)]


def refuse_fixed(old: Settings, new: Settings) -> None:
    """Raise ConfigError where something differs that a running natfix cannot take."""
    fixed = [name for name, is_changeable in _differences(old, new) if not is_changeable]
    if fixed:
        raise ConfigError(
            f"{', '.join(fixed)} cannot change while natfix runs, so nothing was changed: {CURE}")


def unreadable() -> tuple[Settings, Quirks]:
    """Stand for a configuration that was handed over as it is, and cannot be read again."""
    raise ConfigError("this natfix was started without a configuration that could be read again")


def _differences(old: Settings, new: Settings) -> Iterator[tuple[str, bool]]:
    if old.quirks_files != new.quirks_files:
        yield "quirks_files", True
    for table in TABLES:
        before, after = getattr(old, table), getattr(new, table)
        allowed = CHANGEABLE.get(table, frozenset())
        for each in fields(before):
            if getattr(before, each.name) != getattr(after, each.name):
                yield f"[{table}] {each.name}", each.name in allowed
    for array, (attribute, _) in ARRAYS.items():
        if getattr(old, attribute) != getattr(new, attribute):
            yield f"[[{array}]]", array in CHANGEABLE_ARRAYS


class Reload:
    """Takes the configuration anew while natfix runs: all that differs, or nothing."""

    def __init__(
        self, read: Read, settings: Settings, quirks: Quirks, loop: Loop, parachute: Parachute,
        followers: Sequence[Callable[[Settings], None]],
    ) -> None:
        """*read* reads the configuration and raises NatfixError; *followers* are told of the settings once
        rules and engine have them."""
        self._read = read
        self._settings = settings
        self._quirks = quirks
        self._loop = loop
        self._parachute = parachute
        self._followers = followers

    def __call__(self, _request: dict[str, Any]) -> dict[str, Any]:
        """Return what has changed; raises NatfixError, and everything is as before, where it cannot be."""
        systemd.notify_reloading()
        try:
            return {"changed": self._take()}
        finally:
            systemd.notify("READY=1")

    def on_hangup(self) -> None:
        """Do likewise on SIGHUP; the log says what came of it."""
        try:
            self({})
        except NatfixError as problem:
            log.error("natfix: goes on with the configuration it has: %s", problem,
                      extra=kind("configuration-refused"))

    def _take(self) -> list[str]:
        settings, quirks = self._read()
        changed = differences(self._settings, settings)
        refuse_fixed(self._settings, settings)
        if names_to_resolve(settings):
            asker(settings.daemon.nameservers)      # raises where they could not be asked for
        if list(quirks) != list(self._quirks) and "quirks_files" not in changed:
            changed.insert(0, "quirks")
        if changed:
            self._install(settings)
            now = self._loop.clock()
            self._loop.carry_out(self._loop.engine.reconfigure(settings, quirks, now), now)
            self._settings, self._quirks = settings, quirks
            for follow in self._followers:
                self._loop.guard(partial(follow, settings))
        log.info("natfix: configuration read again: %s", ", ".join(changed) or "nothing has changed",
                 extra=kind("reloaded"))
        return changed

    def _install(self, settings: Settings) -> None:
        """Put the rules in place that *settings* want; what the maps hold stays."""
        first = self._loop.skeleton.outside_interfaces[0]
        links = dict.fromkeys((first, *(each.interface for each in settings.links)), "")
        skeleton = self._parachute.follow(skeleton_from_settings(settings, AddressesChanged(links, ())))
        if skeleton != self._loop.skeleton:
            self._loop.kernel.install(skeleton)
            self._loop.skeleton = skeleton
