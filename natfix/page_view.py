"""What the status page shows: the daemon's answers as one HTML document.

SIP text comes from strangers. The template escapes all that is put into it, control characters are spelled
out, nothing of it becomes a link, an id or a class, and the page's policy allows no script and nothing from
elsewhere.
"""

from __future__ import annotations

import base64
import hashlib
from collections import OrderedDict, deque
from collections.abc import Iterable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from natfix.tables import duration

TEMPLATES = Path(__file__).parent / "templates"
REFRESH = 5             # seconds between two loads of the page by itself
SAMPLES = 60            # kept of each stream
MOST_STREAMS = 2000     # that samples are kept of; those of the calls that came first go
MOST_ROWS = 200         # of each table
LONGEST = 200           # characters of one field
PLOT_WIDTH, PLOT_HEIGHT = 120, 24

Answer = dict[str, Any]
Point = tuple[float, int, int]      # when, packets from inside, packets from outside


class Snapshot(NamedTuple):
    """The daemon's answers at one moment; *problem* says why there are none."""

    status: Answer
    calls: list[Answer]
    registrations: list[Answer]
    uas: list[Answer]
    decisions: list[Answer]
    problem: str = ""


def no_snapshot(problem: str) -> Snapshot:
    """Return what there is to show where the daemon does not answer, because of *problem*."""
    return Snapshot({}, [], [], [], [], problem)


class Rates:
    """Packets per second of each stream, from the counters of several snapshots."""

    def __init__(self) -> None:
        self._points: OrderedDict[str, deque[Point]] = OrderedDict()

    def take(self, calls: Iterable[Answer], now: float) -> None:
        """Remember the counters of *calls* at *now*, and forget the streams that are gone."""
        seen: OrderedDict[str, deque[Point]] = OrderedDict()
        for stream in (stream for call in calls for stream in call["streams"]):
            if len(seen) < MOST_STREAMS and "packets_out" in stream:
                points = self._points.get(stream["outside"], deque(maxlen=SAMPLES))
                points.append((now, stream["packets_out"], stream["packets_in"]))
                seen[stream["outside"]] = points
        self._points = seen

    def of(self, outside: str) -> list[tuple[float, float]]:
        """Return what left and what came in each interval, in packets a second, oldest first."""
        points = list(self._points.get(outside, ()))
        return [(max(0, out - out_before) / (at - before), max(0, came - came_before) / (at - before))
                for (before, out_before, came_before), (at, out, came) in pairwise(points) if at > before]


def page(snapshot: Snapshot, rates: Rates, query: str = "") -> str:
    """Return the document; only rows in which *query* occurs are shown, whatever its case."""
    template, style = _template()
    rows = {name: _found(getattr(snapshot, name), query)
            for name in ("calls", "registrations", "uas", "decisions")}
    rows["decisions"].reverse()
    totals = {name: len(found) for name, found in rows.items()}
    return template.render(
        snapshot=snapshot, query=query, rates=rates, totals=totals, most=MOST_ROWS, refresh=REFRESH,
        style=Markup(style), **{name: found[:MOST_ROWS] for name, found in rows.items()})


def policy() -> str:
    """Return the Content-Security-Policy: this style sheet, and nothing else from anywhere."""
    digest = base64.b64encode(hashlib.sha256(_template()[1].encode()).digest()).decode()
    return (f"default-src 'none'; style-src 'sha256-{digest}'; form-action 'self'; base-uri 'none'; "
            "frame-ancestors 'none'")


@cache
def _template() -> tuple[Template, str]:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, finalize=_shown,
        trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(duration=duration, plot=plot, last=_last)
    return environment.get_template("page.html"), (TEMPLATES / "page.css").read_text()


def _shown(value: Any) -> Any:
    """Return what a field shows: of one line, bounded, without anything that steers a display."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    text = value if len(value) <= LONGEST else value[:LONGEST - 1] + "…"
    return text if text.isprintable() else "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _found(rows: list[Answer], query: str) -> list[Answer]:
    wanted = query.casefold()
    return [row for row in rows if not wanted or wanted in " ".join(_texts(row)).casefold()]


def _texts(value: Any) -> Iterable[str]:
    """Yield every text and number in a row."""
    if isinstance(value, dict):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)
    else:
        yield str(value)


def plot(points: list[tuple[float, float]], side: int) -> str:
    """Return the points of a polyline of what left (*side* 0) or came in (1), PLOT_WIDTH by PLOT_HEIGHT."""
    highest = max((max(point) for point in points), default=0.0) or 1.0
    step = PLOT_WIDTH / max(SAMPLES - 2, 1)
    first = PLOT_WIDTH - step * (len(points) - 1)
    scale = (PLOT_HEIGHT - 2) / highest
    return " ".join(f"{first + step * index:.1f},{PLOT_HEIGHT - 1 - scale * point[side]:.1f}"
                    for index, point in enumerate(points))


def _last(points: list[tuple[float, float]], side: int) -> str:
    return f"{points[-1][side]:.0f}" if points else "-"
