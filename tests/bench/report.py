"""What the bench has to show: each row's reach, what was measured, and where that stands in the JSON."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

Results = dict[str, Any]
PROFILES = {"engine": "engine_us", "daemon": "cpu_per_call"}      # by name, and the rows that each explains
PACKAGES = ("kamailio", "rtpengine-daemon", "sip-tester", "nftables", "iptables")


class Row(NamedTuple):
    """One line of the table; ``key`` is the dotted place of its figure in the results."""

    what: str
    key: str
    unit: str = ""
    at_most: float | None = None
    at_least: float | None = None

    @property
    def reach(self) -> str:
        """What is to be reached, as text."""
        if self.at_most is not None:
            return f"{'at most ' if self.at_most else ''}{self.at_most:g} {self.unit}".rstrip()
        if self.at_least is not None:
            return f"at least {self.at_least:g} {self.unit}".rstrip()
        return "published"

    def is_met(self, value: float) -> bool:
        """Tell whether *value* reaches what is to be reached."""
        return (self.at_most is None or value <= self.at_most) \
            and (self.at_least is None or value >= self.at_least)


ROWS = (
    Row("engine alone: INVITE with SDP, median", "engine_us.invite", "us", at_most=50),
    Row("engine alone: in-dialog message without body, median", "engine_us.in_dialog", "us", at_most=20),
    Row("of a far phone's call: INVITE with SDP, median", "engine_us.far.invite", "us"),
    Row("of a far phone's call: in-dialog message, median", "engine_us.far.in_dialog", "us"),
    Row("10,000 far NATs kept open by OPTIONS, of a core", "keep_open.options", "%"),
    Row("10,000 far NATs kept open by empty packets, of a core", "keep_open.packet", "%"),
    Row("CPU per call over Kamailio + rtpengine", "cpu_per_call.natfix_over_kamailio_rtpengine",
        at_most=0.30),
    Row("CPU per call over a queue that only accepts", "cpu_per_call.natfix_over_queue_accept_only",
        at_most=5),
    Row("of a call: the queue", "cpu_per_call.budget.queue_us", "us"),
    Row("of a call: the engine", "cpu_per_call.budget.engine_us", "us"),
    Row("of a call: kernel commands", "cpu_per_call.budget.kernel_commands_us", "us"),
    Row("of a call: the rest", "cpu_per_call.budget.rest_us", "us"),
    Row("added latency at 500 messages/s, p50", "latency_ms.p50", "ms", at_most=0.3),
    Row("added latency at 500 messages/s, p99", "latency_ms.p99", "ms", at_most=2),
    Row("calls per second, no failed call", "calls_per_second.sustained", at_least=400),
    Row("cost of one more call at 10,000 calls over 10", "cost_growth.at_10000_calls", at_most=1.1),
    Row("memory: 10,000 calls, 50,000 AORs, 500 endpoints", "memory_mb", "MB", at_most=200),
    Row("longest pause then", "longest_pause_ms", "ms", at_most=5),
    Row("RTP packets per second over masquerade", "rtp.over_masquerade", at_least=0.97),
    Row("natfix's CPU ticks during 50 RTP streams", "rtp.natfix_cpu_ticks", at_most=0),
    Row("packets queued during 50 RTP streams", "rtp.queued_packets", at_most=0),
    Row("nft list ruleset at 100 calls/s, longest", "nft.list_ruleset_s", "s", at_most=1),
    Row("operator's nft commands at 100 calls/s, longest", "nft.own_commands_s", "s", at_most=1),
    Row("natfix-replay: 100,000 SIP messages", "replay.per_100000_messages_s", "s", at_most=15),
    Row("natfix-replay: peak memory", "replay.peak_mb", "MB", at_most=200),
    Row("natfix-replay: a GB of RTP", "replay.rtp_s_per_gb", "s"),
    Row("natfix-replay: a capture of one call", "replay.small_capture_s", "s", at_most=0.4),
)


def value_at(results: Results, key: str) -> float | None:
    """Return the figure at a dotted *key*; None where it was not measured."""
    found: Any = results
    for part in key.split("."):
        if not isinstance(found, dict) or part not in found:
            return None
        found = found[part]
    return None if found is None else float(found)


def missed(results: Results) -> list[Row]:
    """Return the rows that were measured and do not reach what they should."""
    return [row for row in ROWS
            if (value := value_at(results, row.key)) is not None and not row.is_met(value)]


def table(results: Results) -> str:
    """Return the rows that were measured as text in columns."""
    lines = [("what", "reach", "measured", "")]
    for row in ROWS:
        value = value_at(results, row.key)
        if value is not None:
            figure = f"{value:.4g}{_extra(results, row)} {row.unit}".rstrip()
            lines.append((row.what, row.reach, figure, _verdict(row, value)))
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
                     for line in lines)


def section(results: Results) -> str:
    """Return the README's section: table, surroundings, and the profile where a mark is missed."""
    lines = ["| what | reach | measured | |", "|---|---|---|---|"]
    for row in ROWS:
        value = value_at(results, row.key)
        if value is None:
            lines.append(f"| {row.what} | {row.reach} | not measured | |")
            continue
        figure = f"{value:.4g}{_extra(results, row)} {row.unit}".rstrip()
        lines.append(f"| {row.what} | {row.reach} | {figure} | {_verdict(row, value)} |")
    lines += ["", *heading(results).replace(f", load {results['load_average']}", "").splitlines()]
    keys = [row.key for row in missed(results)]
    for profile, about in PROFILES.items():
        if profile in results["profiles"] and any(key.startswith(about) for key in keys):
            lines += ["", f"Where the time goes, {profile}:", "", "```", *results["profiles"][profile], "```"]
    return "\n".join(lines)


def _verdict(row: Row, value: float) -> str:
    if row.reach == "published":
        return ""
    return "ok" if row.is_met(value) else "missed"


def _extra(results: Results, row: Row) -> str:
    if row.key != "rtp.over_masquerade":
        return ""
    low, high = results["rtp"]["interval_95"]
    return f" ({low:.3f} to {high:.3f})"


def surroundings() -> Results:
    """Return date, kernel, processor and versions: what the figures were measured on."""
    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "kernel": platform.release(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "peers": _versions(PACKAGES),
    }


def heading(around: Results) -> str:
    """Return *around* as text."""
    peers = ", ".join(f"{name} {version}" for name, version in around["peers"].items())
    return (f"{around['date']}, kernel {around['kernel']}, {around['cores']} cores of {around['processor']}, "
            f"load {around['load_average']}, Python {around['python']}\n{peers}")


def write_json(path: Path, results: Results) -> None:
    """Write *results* to *path*."""
    path.write_text(json.dumps(results, indent=2) + "\n")


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "?")


def _versions(packages: Iterable[str]) -> dict[str, str]:
    found = {}
    for package in packages:
        done = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", package],
                              capture_output=True, text=True, check=False)
        found[package] = done.stdout or "absent"
    return found
