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

# Notes that the engine counts, and what each says of the path.
SEEN = {
    "already-right": (
        "phones or PBXs have written the outside address into {count} messages themselves: natfix leaves "
        "that alone, and their media comes in only where you forward its ports",
        "natfix notes --rule already-right tells which; switch off their NAT settings (STUN, externaddr)"),
    "echo-changed": (
        "the registrar has {count} times repeated another Contact than it was shown: a SIP ALG stands "
        "between natfix and the registrar",
        "switch it off in the provider's router; `natfix explain --alg` has commands"),
}


def check_fixers(host: Host) -> Iterator[Finding]:
    """Does another box, a PBX or a phone fix the same messages?"""
    found = [finding for capture in host.captures for finding in _in_capture(host, capture)]
    status = _status(host)
    found += seen_live(host, status)
    yield from found
    if not any(finding.status in (Status.WARNING, Status.ERROR) for finding in found):
        yield Finding(Status.OK, "no other fixer was seen" if host.captures or status else
                      "nobody was asked: `natfix check --capture FILE` looks into a capture of a call, and "
                      "a running natfix reports what it sees")


def seen_live(host: Host, status: dict[str, Any]) -> Iterator[Finding]:
    """Yield what the running natfix, whose *status* this is, has seen of other fixers."""
    for rule, (text, cure) in SEEN.items():
        count = status.get("counters", {}).get(rule, 0)
        # A PBX on the gateway has the outside address, and may name it.
        is_own = rule == "already-right" and host.settings.gateway.pbx == "local"
        if count and not is_own:
            yield Finding(Status.WARNING, text.format(count=count), cure)


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
