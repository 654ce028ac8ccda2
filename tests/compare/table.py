"""The verdicts of a whole run: valid or not, as a table for the README, as JSON."""

from __future__ import annotations

import platform
import re
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.compare.cell import FAILS, NOT_PLAYED, WORKS, Cell, json_from_cell
from tests.compare.parts import TITLES
from tests.compare.worlds import WORLDS, helper_parameters

BEGIN, END = "<!-- tools/compare --write: begin -->", "<!-- tools/compare --write: end -->"
CONTROL = 0  # the scenario that shows that a peer is set up rightly
CONTROLLED = ("helper", "proxy")
PACKAGES = ("kamailio", "rtpengine-daemon", "baresip-core", "sip-tester", "linphone-cli")
HEAD = """\
Each scenario consists of one to four parts, each in a lab of its own, and works if all do: whoever should be
heard is recognised by his tone (or counted, packet by packet), and whatever should arrive does. How messages
look is not judged. What fails is played once more, and the second try counts. A failing cell names what
decided its first failing part: the packet that went astray, or the audio that was missing. The first row is
the control: where it fails with `nf_nat_sip` or with Kamailio, the run is invalid. All four stand behind the
same firewall, with `policy drop`.

- **{masquerade}**: nothing but the gateway's own `masquerade`. Nobody outside helps phones behind a NAT here.
- **{helper}**: the kernel's helper on UDP port 5060, with the settings it comes with ({parameters}).
- **{proxy}**: Kamailio with nathelper, and rtpengine, on the gateway, configured as the `kamailio.cfg` that
  Debian ships does, with Path. Every phone has it as its outbound proxy; the firewall lets SIP and its media
  ports in. For the phones outside that have NATs of their own (26 to 29) it is their registrar itself.
- **{natfix}**: no setting but the trunk (8; parts of 2, 5, 17) and, in 18, the phone behind a proxy inside.
  In 26 to 29 the PBX is inside, a Kamailio that knows nothing of NAT, and port 5060 is forwarded to it.
"""


class Invalid(Exception):
    """A run that says nothing about the peers; the text says why."""


def check(cells: Iterable[Cell]) -> None:
    """Raise Invalid unless a plain call and a busy one work with the kernel's helper and the proxy."""
    control = {cell.world: cell for cell in cells if cell.scenario == CONTROL}
    for world in CONTROLLED:
        if world not in control:
            raise Invalid(f"the control calls were not played with {WORLDS[world].title}")
        verdict, evidence = control[world].verdict, control[world].evidence
        if verdict == NOT_PLAYED:
            raise Invalid(f"{WORLDS[world].title} was not played: this machine lacks {evidence}")
        if verdict != WORKS:
            raise Invalid(f"a control call fails with {WORLDS[world].title}: {evidence}")


def table_from_cells(cells: Iterable[Cell]) -> str:
    """Return a Markdown table: one row per scenario, one column per world."""
    found = {(cell.scenario, cell.world): cell for cell in cells}
    worlds = [key for key in WORLDS if any(world == key for _, world in found)]
    lines = [
        "| | scenario | " + " | ".join(WORLDS[key].title for key in worlds) + " |",
        "|--:|---|" + "---|" * len(worlds),
    ]
    for scenario in sorted({scenario for scenario, _ in found}):
        row = [_text(found.get((scenario, key))) for key in worlds]
        lines.append(f"| {scenario or ''} | {TITLES[scenario]} | {' | '.join(row)} |")
    totals = [_total(cell for cell in found.values() if cell.world == key) for key in worlds]
    lines.append(f"| | **scenarios that work** | {' | '.join(totals)} |")
    return "\n".join(lines)


def section_from_cells(cells: list[Cell]) -> str:
    """Return what stands between the README's markers: when and where, what is compared, the table."""
    parameters = ", ".join(f"`{name}={value}`" for name, value in helper_parameters().items())
    titles = {key: world.title for key, world in WORLDS.items()}
    return f"{HEAD.format(parameters=parameters, **titles)}\n{table_from_cells(cells)}\n\n{footer()}"


def footer() -> str:
    """Return date, kernel, processor and versions, as one sentence."""
    facts = machine()
    versions = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    return (
        f"{facts['date']}, Linux {facts['kernel']}, {facts['processors']} x {facts['processor']}; {versions}."
    )


def machine() -> dict[str, Any]:
    """Return what the run ran on."""
    cpu = Path("/proc/cpuinfo").read_text()
    name = re.search(r"model name\s*: (.*)", cpu)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "kernel": platform.release(),
        "processor": name[1] if name else platform.machine(),
        "processors": len(re.findall(r"(?m)^processor", cpu)),
        "helper": helper_parameters(),
        "packages": {package: _version(package) for package in PACKAGES},
    }


def document_from_cells(cells: list[Cell], seconds: float) -> dict[str, Any]:
    """Return the run for JSON."""
    rows: dict[str, dict[str, Any]] = {}
    for cell in cells:
        rows.setdefault(str(cell.scenario), {})[cell.world] = json_from_cell(cell)
    return {
        **machine(),
        "seconds": round(seconds),
        "works": {
            key: sum(
                cell.verdict == WORKS for cell in cells if cell.world == key and cell.scenario != CONTROL
            )
            for key in WORLDS
        },
        "scenarios": rows,
    }


def write_section(path: Path, section: str) -> None:
    """Put *section* between the markers of *path*; raises Invalid where they are not there."""
    text = path.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise Invalid(f"{path} lacks the lines {BEGIN} and {END}")
    path.write_text(f"{before}{BEGIN}\n{section}\n{END}{after}")


def _text(cell: Cell | None) -> str:
    if cell is None:
        return ""
    evidence = cell.evidence.replace("|", "\\|").replace("<", "&lt;")
    works = "works at the second try" if cell.at_second_try else "works"
    return {WORKS: works, FAILS: f"**fails**: {evidence}",
            NOT_PLAYED: f"not played: this machine lacks {evidence}"}.get(cell.verdict, f"n/a: {evidence}")


def _total(cells: Iterable[Cell]) -> str:
    verdicts = [cell.verdict for cell in cells if cell.scenario != CONTROL]
    if NOT_PLAYED in verdicts:
        return NOT_PLAYED
    return f"**{verdicts.count(WORKS)} of {verdicts.count(WORKS) + verdicts.count(FAILS)}**"


def _version(package: str) -> str:
    done = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Version}", package], capture_output=True, text=True, check=False
    )
    return done.stdout.partition("+")[0] or "not installed"
