"""`natfix check`: looks at everything that must be right before natfix runs, and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from natfix.check_firewall import (
    check_forward,
    check_helpers,
    check_marks,
    check_nat,
    check_offload,
    check_rule_files,
)
from natfix.check_fixers import check_fixers
from natfix.check_host import (
    check_conntrack,
    check_kernel,
    check_links,
    check_packages,
    check_ports,
    check_queue,
    check_rights,
    check_routing,
)
from natfix.check_lists import check_lists
from natfix.check_outside import check_outside_links, on_each_link
from natfix.check_own import check_foreign_queue_rules, check_forwards, check_output, check_statics
from natfix.check_system import check_bridges, check_clock, check_conntrack_settings, check_source_filter
from natfix.config import DEFAULT_PATH, Settings, settings_from
from natfix.errors import DONE, FINDINGS, ConfigError, NatfixError, NotPermitted
from natfix.findings import Check, Finding, Host, Status
from natfix.quirks import all_quirks
from natfix.tables import printable

SCHEMA_VERSION = 1

# Code, name and checks. Codes are stable and public.
CHECKS: tuple[tuple[str, str, tuple[Check, ...]], ...] = (
    ("H02", "rights", (check_rights,)),
    ("H03", "kernel", (check_kernel,)),
    ("H04", "packages", (check_packages,)),
    ("H05", "links", (check_links, check_outside_links)),
    ("H06", "routing", (check_routing, on_each_link(check_source_filter))),
    ("H07", "forward", (on_each_link(check_forward),)),
    ("H08", "nat", (on_each_link(check_nat),)),
    ("H09", "helpers", (check_helpers,)),
    ("H10", "marks", (check_marks,)),
    ("H11", "offload", (check_offload,)),
    ("H12", "rule files", (check_rule_files,)),
    ("H13", "ports", (check_ports,)),
    ("H14", "conntrack", (check_conntrack, check_conntrack_settings)),
    ("H15", "queue", (check_queue, check_foreign_queue_rules)),
    ("H16", "output", (check_output,)),
    ("H17", "forwards", (on_each_link(check_forwards), check_statics)),
    ("H18", "bridges", (on_each_link(check_bridges),)),
    ("H19", "clock", (check_clock,)),
    ("H20", "fixers", (check_fixers,)),
    ("H21", "lists", (check_lists,)),
)
CONFIGURATION = ("H01", "configuration")
FOUND = (Status.WARNING, Status.ERROR)


def read_configuration(path: str) -> tuple[Settings, list[Finding], int]:
    """Return the settings in force, what is to be said of them, and the exit code of what is wrong.

    Where the configuration at *path* ("" for the usual place) is broken, the other checks go on with the
    defaults.
    """
    try:
        settings = settings_from(path)
        quirks = all_quirks(settings.quirks_files)
    except NatfixError as problem:
        wrong = [Finding(Status.ERROR, line) for line in str(problem).splitlines()]
        return Settings(), wrong, problem.exit_code
    source = path or DEFAULT_PATH
    if not Path(source).exists():
        source = f"there is no {source}, so the defaults hold"
    return settings, [Finding(Status.OK, f"{source}; {_many(len(quirks), 'quirk')}")], DONE


class Line(NamedTuple):
    """One finding, with the check that found it."""

    code: str
    name: str
    finding: Finding
    exit_code: int      # of the error behind it; FINDINGS or DONE where there is none


def check_all(host: Host, configuration: list[Finding], config_exit: int = DONE) -> list[Line]:
    """Return what all checks say of *host*; *configuration* is what was said of its files before.

    *config_exit* is the exit code of the error that the configuration ended in.
    """
    lines = [Line(*CONFIGURATION, finding, config_exit) for finding in configuration]
    said: set[str] = set()
    for code, name, checks in CHECKS:
        lines += (Line(code, name, *found) for check in checks for found in _findings(check, host, said))
    return lines


def _findings(check: Check, host: Host, said: set[str]) -> Iterator[tuple[Finding, int]]:
    """Yield what *check* finds; an error becomes a finding, the first time it is met."""
    try:
        for finding in list(check(host)):
            yield finding, FINDINGS if finding.status in FOUND else DONE
    except NatfixError as problem:
        if str(problem) in said:
            yield Finding(Status.NOTE, "not checked, for the reason above"), DONE
        else:
            said.add(str(problem))
            yield Finding(Status.ERROR, str(problem)), problem.exit_code


def exit_code(lines: list[Line]) -> int:
    """Return 0 where nothing was found, the code of a broken configuration or a missing right, else 6."""
    codes = {line.exit_code for line in lines}
    for code in (ConfigError.exit_code, NotPermitted.exit_code):
        if code in codes:
            return code
    return FINDINGS if codes - {DONE} else DONE


def as_text(lines: list[Line]) -> str:
    """Return the lines for people, and the sum below them."""
    widths = [max(len(line.name) for line in lines), max(len(status.value) for status in Status)]
    shown = []
    for line in lines:
        status = line.finding.status
        word = status.value.upper() if status in FOUND else status.value
        cure = f"  -> {line.finding.cure}" if line.finding.cure else ""
        shown.append(f"{line.name:{widths[0]}}  {word:{widths[1]}}  {printable(line.finding.text)}{cure}")
    warnings, errors = (sum(line.finding.status is status for line in lines) for status in FOUND)
    checks = _many(len({line.code for line in lines}), "check")
    return "\n".join([*shown, f"{checks}, {_many(warnings, 'warning')}, {_many(errors, 'error')}"])


def _many(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def as_document(lines: list[Line]) -> dict[str, Any]:
    """Return the lines for programs (schema ``check.json``)."""
    return {
        "schema_version": SCHEMA_VERSION,
        "exit_code": exit_code(lines),
        "checks": [_as_object(line) for line in lines],
    }


def _as_object(line: Line) -> dict[str, str]:
    status, text, cure = line.finding
    entry = {"code": line.code, "name": line.name, "status": status.value, "text": text}
    return {**entry, "cure": cure} if cure else entry
