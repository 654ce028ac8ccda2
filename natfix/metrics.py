"""The daemon's counters for Prometheus: its text format, version 0.0.4.

No Call-ID, address or name is a label: a metric must not grow with what strangers send. Units are base units,
counters end in ``_total``; each line of METRICS is one metric.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from natfix.errors import NatfixError, NotPermitted

Answer = dict[str, Any]
Samples = dict[str, float]      # label's value ("" without label) -> value

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
GAUGE, COUNTER = "gauge", "counter"


class Metric(NamedTuple):
    """One metric: what it is called and means, and where in the daemon's status it stands."""

    name: str
    kind: str
    help: str
    label: str
    samples: Callable[[Answer], Samples]


def _at(*path: str) -> Callable[[Answer], Samples]:
    """Return what takes one number out of a status."""
    def samples(status: Answer) -> Samples:
        part: Any = status
        for key in path[:-1]:
            part = part.get(key, {})
        return {"": float(part.get(path[-1], 0))}
    return samples


def _each(*path: str, names: tuple[str, ...]) -> Callable[[Answer], Samples]:
    """Return what takes the numbers *names* out of a part of a status; one that is absent is nought."""
    def samples(status: Answer) -> Samples:
        part: Any = status
        for key in path:
            part = part.get(key, {})
        return {name.replace(" ", "_"): float(part.get(name, 0)) for name in names}
    return samples


def _with_prefix(prefix: str) -> Callable[[Answer], Samples]:
    """Return what takes every counter out of a status whose name begins with *prefix*."""
    def samples(status: Answer) -> Samples:
        counters = status.get("counters", {})
        return {name.removeprefix(prefix).replace(" ", "_"): float(value)
                for name, value in counters.items() if name.startswith(prefix)}
    return samples


def _levels(part: str) -> Callable[[Answer], Samples]:
    """Return what takes *part* ("used", "size") of every level out of a status."""
    def samples(status: Answer) -> Samples:
        return {name: float(level[part]) for name, level in status.get("levels", {}).items()}
    return samples


METRICS = (
    Metric("natfix_uptime_seconds", GAUGE, "Since the daemon started.", "", _at("uptime")),
    Metric("natfix_calls", GAUGE, "Calls that have not ended.", "", _at("calls")),
    Metric("natfix_subscriptions", GAUGE, "Subscriptions that have not ended.", "", _at("subscriptions")),
    Metric("natfix_registrations", GAUGE, "Bindings of inside UAs.", "", _at("registrations")),
    Metric("natfix_far_ends", GAUGE, "UAs outside that sit behind NATs of their own.", "", _at("far_ends")),
    Metric("natfix_mappings", GAUGE, "Inside endpoints with an outside endpoint.", "kind",
           lambda status: {kind: float(status.get(key, 0)) for kind, key in (
               ("signalling", "signalling_mappings"), ("media", "media_mappings"), ("relay", "relays"))}),
    Metric("natfix_flows", GAUGE, "Conntrack entries that natfix keeps.", "", _at("flows")),
    Metric("natfix_streams", GAUGE, "TCP connections that natfix relays.", "state",
           _each("streams", names=("undecided", "sip", "opaque", "closed", "reset"))),
    Metric("natfix_media_pairs", GAUGE, "Pairs of media ports in all.", "", _at("media_pairs")),
    Metric("natfix_media_pairs_free", GAUGE, "Pairs of media ports that nobody has.", "",
           _at("media_pairs_free")),
    Metric("natfix_level_used", GAUGE, "How much is taken of everything bounded.", "resource",
           _levels("used")),
    Metric("natfix_level_size", GAUGE, "How much of it there is; 0 where that is not known.", "resource",
           _levels("size")),
    Metric("natfix_shortages", GAUGE, "Alarms that something is about to run out, or cannot be written.", "",
           lambda status: {"": float(len(status.get("shortages", ())))}),
    Metric("natfix_packets_total", COUNTER, "Packets that were led to natfix.", "", _at("shell", "packets")),
    Metric("natfix_verdicts_total", COUNTER, "Packets that did not go on as they came.", "result",
           _each("shell", names=("changed", "dropped"))),
    Metric("natfix_messages_total", COUNTER, "SIP messages by what became of them.", "result",
           _each("counters", names=("rewritten", "unchanged", "repeated", "passed", "refused"))),
    Metric("natfix_passed_total", COUNTER, "Packets that were left alone, and why.", "reason",
           _with_prefix("passed ")),
    Metric("natfix_sent_total", COUNTER, "Packets of natfix's own.", "", _at("shell", "sent")),
    Metric("natfix_not_sent_total", COUNTER, "Packets of natfix's own that the kernel refused.", "",
           _at("shell", "not_sent")),
    Metric("natfix_strangers_packets", GAUGE, "Media packets from strangers that the guard dropped, an hour.",
           "", _at("refused_packets")),
    Metric("natfix_over_rate_total", COUNTER, "Packets dropped because their host began too much.", "",
           _at("counters", "over rate")),
    Metric("natfix_queue_waiting", GAUGE, "Packets that wait for a verdict.", "", _at("queue", "waiting")),
    Metric("natfix_queue_dropped_total", COUNTER, "Packets lost before natfix saw them.", "reason",
           _each("queue", names=("queue_full", "socket_full"))),
    Metric("natfix_kernel_refusals_total", COUNTER, "Changes of the maps that the kernel refused.", "",
           _at("shell", "kernel_refusals")),
    Metric("natfix_entries_refused_total", COUNTER, "Conntrack entries that could not be had.", "",
           _at("shell", "entries_refused")),
    Metric("natfix_resyncs_total", COUNTER, "Times that the kernel was brought back in line.", "",
           _at("shell", "resyncs")),
    Metric("natfix_rules_restored_total", COUNTER, "Times that natfix's table had gone.", "",
           _at("shell", "rules_restored")),
    Metric("natfix_errors_total", COUNTER, "Faults of natfix's own.", "", _at("shell", "errors")),
    Metric("natfix_state_file_failures_total", COUNTER, "Commits of the state file that failed.", "",
           _at("state_file", "failed_writes")),
)


def metrics_text(status: Answer | None) -> str:
    """Return the metrics that *status*, the daemon's answer, makes; None: it does not run."""
    return "".join(_lines(status))


def _lines(status: Answer | None) -> Iterator[str]:
    yield "# HELP natfix_up Whether the daemon answers.\n# TYPE natfix_up gauge\n"
    yield f"natfix_up {int(status is not None)}\n"
    if status is None:
        return
    yield "# HELP natfix_info The daemon's version.\n# TYPE natfix_info gauge\n"
    yield f'natfix_info{{version="{_escaped(str(status["version"]))}"}} 1\n'
    for metric in METRICS:
        yield f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {metric.kind}\n"
        for label, value in metric.samples(status).items():
            labels = f'{{{metric.label}="{_escaped(label)}"}}' if metric.label else ""
            yield f"{metric.name}{labels} {value:.15g}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def write_textfile(path: str, text: str) -> None:
    """Put *text* at *path* at once, for node_exporter's textfile collector: it never reads half of it.

    Raises NotPermitted or NatfixError where that cannot be done.
    """
    target, draft = Path(path), ""
    try:
        with tempfile.NamedTemporaryFile("w", dir=target.parent, prefix=".natfix-", delete=False) as file:
            draft = file.name
            file.write(text)
        os.chmod(draft, 0o644)
        os.replace(draft, target)
    except PermissionError:
        raise NotPermitted(f"{path} cannot be written: run this as root") from None
    except OSError as problem:
        if draft:       # of a full disk
            Path(draft).unlink(missing_ok=True)
        raise NatfixError(f"{path} cannot be written: {problem.strerror}") from None
