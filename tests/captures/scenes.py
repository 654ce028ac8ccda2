"""What the captures of pcaps/ show: one call each, with natfix and without."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.captures.recording import INTERFACES
from tests.compare import calls, media, parties
from tests.compare.cell import MODULES, PROBLEMS
from tests.compare.parts import PARTS, Failed
from tests.compare.worlds import Masquerade, Setting, WithNatfix, World

assert {calls, media, parties} <= set(MODULES)      # importing them is what fills PARTS


@dataclass(frozen=True)
class Scene:
    """One capture: a world, and what happens in it."""

    world: type[World]
    play: Callable[[Any], None]
    setting: Setting = field(default_factory=Setting)
    options: dict[str, object] = field(default_factory=dict)     # of the lab
    interfaces: tuple[str, ...] = INTERFACES


# File name: scenario and part of tests/compare. Each is recorded behind a plain masquerade and behind natfix.
SCENARIOS = {
    "call": (0, "plain"),
    "busy": (0, "busy"),
    "called-after-a-pause": (1, "by time"),
    "early-media": (2, "early media by a proxy"),
    "hold": (3, "a=inactive"),
    "fork": (7, ""),
    "two-phones-same-ports": (9, "two phones"),
    "inside-to-inside": (10, "one subnet"),
    "blind-transfer": (11, "blind, by the inside"),
    "fax": (14, ""),
}


def _whatever_comes(play: Callable[[Any], None]) -> Callable[[Any], None]:
    """Behind a masquerade most of it fails, which is what the capture is to show."""
    def tried(world: World) -> None:
        with contextlib.suppress(Failed, *PROBLEMS):
            play(world)
    return tried


def _scenes() -> dict[str, Scene]:
    parts = {(part.scenario, part.name): part for part in PARTS}
    found = {}
    for name, key in SCENARIOS.items():
        part = parts[key]
        found[f"{name}-masquerade"] = Scene(
            Masquerade, _whatever_comes(part.play), part.setting, part.options)
        found[f"{name}-natfix"] = Scene(WithNatfix, part.play, part.setting, part.options)
    return found


SCENES: dict[str, Scene] = _scenes()
