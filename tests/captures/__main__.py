"""tools/captures: make the captures of pcaps/ anew, in the lab: calls of real programs, and faults."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.captures.every_fault import FAULTS
from tests.captures.faults import record_fault
from tests.captures.recording import recording
from tests.captures.scenes import SCENES, Scene
from tests.lab import leftovers
from tests.lab.host import PROJECT

FOLDER = PROJECT / "pcaps"
FAULT_FOLDER = FOLDER / "faults"
FAULT_HEAD = """\
# Faults

One fault each, named for the finding of `natfix-replay` that it shows (`natfix explain D12`); those with
`-not-` nearly show it, and are healthy; those called `device-` show what `rules/quirks.toml` can repair.
Scripted ends talk through the lab's gateway, whose NAT, firewall or ALG is set up wrongly; some have one
that forgets flows after a second, so that the captures are short.
Both sides of the gateway are recorded at once. `tools/captures` makes them anew and writes this table.

| file | shows | findings |
| --- | --- | --- |
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Record the captures that are asked for; 0, or 130 when interrupted."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    leftovers.sweep()
    try:
        for name in options.names or [*SCENES, *FAULTS]:
            path = file_of(name)
            if name in SCENES:
                record(SCENES[name], path)
            else:
                record_fault(FAULTS[name], path)
            print(f"{path.relative_to(PROJECT)}: {path.stat().st_size // 1024} kB")
    except KeyboardInterrupt:
        return 130
    (FAULT_FOLDER / "README.md").write_text(faults_readme())
    return 0


def file_of(name: str) -> Path:
    """Return where the capture called *name* is."""
    if name in SCENES:
        return FOLDER / f"{name}.pcapng"
    return FAULT_FOLDER / f"{name}.{'log' if isinstance(FAULTS[name].play, str) else 'pcapng'}"


def record(scene: Scene, path: Path) -> None:
    """Play one scene and write what passed the gateway to *path*."""
    with scene.world(scene.setting, **scene.options) as world, recording(world, path, scene.interfaces):
        scene.play(world)


def faults_readme() -> str:
    """Return what pcaps/faults/README.md has to say."""
    rows = [f"| `{file_of(name).name}` | {found.shows} | {', '.join(found.codes) or 'none'} |"
            for name, found in sorted(FAULTS.items())]
    return FAULT_HEAD + "\n".join(rows) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tools/captures", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*SCENES, *FAULTS, []], metavar="NAME",
                        help=f"only these: {', '.join([*SCENES, *FAULTS])}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
