"""tools/captures: make the captures of pcaps/ anew, by real programs in the lab."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.captures.recording import recording
from tests.captures.scenes import SCENES, Scene
from tests.lab import leftovers
from tests.lab.host import PROJECT

FOLDER = PROJECT / "pcaps"


def main(arguments: Sequence[str] | None = None) -> int:
    """Record the captures that are asked for; 0, or 130 when interrupted."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    leftovers.sweep()
    wanted = options.names or list(SCENES)
    try:
        for name in wanted:
            path = FOLDER / f"{name}.pcapng"
            record(SCENES[name], path)
            print(f"{path.relative_to(PROJECT)}: {path.stat().st_size // 1024} kB")
    except KeyboardInterrupt:
        return 130
    return 0


def record(scene: Scene, path: Path) -> None:
    """Play one scene and write what passed the gateway to *path*."""
    with scene.world(scene.setting, **scene.options) as world, recording(world, path, scene.interfaces):
        scene.play(world)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tools/captures", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*SCENES, []], metavar="NAME",
                        help=f"only these: {', '.join(SCENES)}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
