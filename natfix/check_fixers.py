"""Is somebody else on the path a fixer, too? What captures show, and what the running natfix has seen."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from natfix.control import request
from natfix.errors import FINDINGS, NatfixError
from natfix.findings import Finding, Host, Status
from natfix.interfaces import inside_networks, outside_address, outside_interface

TIMEOUT = 600.0     # seconds that a big capture may take
# What natfix-replay finds of other fixers; all else in a capture is told by natfix-replay itself.
FIXERS = frozenset({"D11", "D12", "D27", "D28", "D33"})
STATUSES = {"breaks": Status.ERROR, "hurts": Status.WARNING, "warns": Status.WARNING, "informs": Status.NOTE}

ALG_CURE = "switch it off in the provider's router; `natfix explain --alg` has commands"
# What the engine counts (natfix.fixers), by its rule: who it is, and the cure.
SEEN = {
    "already-right": (
        "{who} writes the outside address into its messages itself ({count} times): natfix leaves that "
        "alone, and media comes in only where you forward its ports",
        "switch off its own NAT settings (STUN, externaddr, external_media_address, \"public address\")"),
    "echo-changed": (
        "the registrar repeats another Contact than {who} was shown with ({count} times): a SIP ALG stands "
        "between natfix and the registrar", ALG_CURE),
}


def check_fixers(host: Host) -> Iterator[Finding]:
    """Does another box, a PBX or a phone fix the same messages?"""
    found = [finding for capture in host.captures for finding in _in_capture(host, capture)]
    found += seen_live(_status(host))
    yield from found
    if not any(finding.status in (Status.WARNING, Status.ERROR) for finding in found):
        yield Finding(Status.OK, "no other fixer was seen" if host.captures or found else
                      "nobody was asked: `natfix check --capture FILE` looks into a capture of a call, and "
                      "a running natfix reports what it sees")


def seen_live(status: dict[str, Any]) -> list[Finding]:
    """Return what the running natfix, whose *status* this is, has seen of other fixers."""
    found = []
    for what, count in status.get("other_fixers", {}).items():
        rule, _, who = what.partition(" ")
        if rule in SEEN:
            text, cure = SEEN[rule]
            found.append(Finding(Status.WARNING, text.format(who=who, count=count), cure))
    return found


def _status(host: Host) -> dict[str, Any]:
    try:
        return request(host.settings.daemon.control_socket, {"command": "status"}, timeout=2.0)
    except NatfixError:
        return {}


def _in_capture(host: Host, capture: str) -> Iterator[Finding]:
    """Have natfix-replay read *capture*, in a process of its own, and tell what concerns other fixers."""
    command = [sys.executable, "-m", "natfix.replay.main", "--format", "json", *_known(host), "--", capture]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False,
                              stdin=subprocess.DEVNULL)
        findings = json.loads(done.stdout)["findings"] if done.returncode in (0, FINDINGS) else None
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError):
        findings = None
        done = None
    if findings is None:
        said = (done.stderr.strip().splitlines() or [""])[-1] if done else ""
        raise NatfixError(said.removeprefix("natfix-replay: ") or f"{capture} cannot be read")
    for finding in findings:
        if finding["code"] in FIXERS:
            yield Finding(STATUSES[finding["severity"]], f"{capture}: {finding['title']} ({finding['code']})",
                          finding["remedy"])
    others = len({finding["code"] for finding in findings} - FIXERS)
    if others:
        yield Finding(Status.NOTE, f"{capture} shows {others} other kind{'s' * (others > 1)} of trouble",
                      f"natfix-replay {capture}")


def _known(host: Host) -> Iterator[str]:
    """Yield the options that tell natfix-replay what this gateway knows of itself."""
    links, settings = host.links(), host.settings
    outside = outside_interface(links, settings.outside)
    yield from ("--outside", outside_address(links, settings.outside, outside))
    for network, _ in inside_networks(links, settings, outside):
        yield from ("--inside", str(network))
