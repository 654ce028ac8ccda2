"""Plots of media: rates and gaps in their places, directions told apart, silence shown as such."""

from __future__ import annotations

import re

import pytest

from natfix.address import Endpoint
from natfix.replay.model import Conversation, MediaKind, NetworkView, Side, Stream
from natfix.replay.plots import HEADROOM, HEIGHT, MOST_PLOTS, WIDTH, Plots, plots_of
from tests.replay.scenes_of_reports import AUDIO, FAR_AUDIO, one_way, result_of, stream
from tests.replay.small import START, call

VIEW = NetworkView(("192.168.1.0/24",), "203.0.113.1")


def plots(*streams: Stream) -> Plots:
    found = plots_of(Conversation("1", streams=[*streams]), VIEW)
    assert found is not None
    return found


def test_a_steady_stream() -> None:
    """Fifty packets per second fill the plot evenly, from the stream's begin to its end."""
    found = plots(stream(AUDIO, FAR_AUDIO, START, 10))
    (row,) = found.rows
    assert (row.way, row.peak, row.mean) == ("outward", 50.0, 50.0)
    (height,) = {float(y) for y in re.findall(r"V([\d.]+)H", row.path)}
    assert height == pytest.approx(HEIGHT - HEIGHT / HEADROOM, abs=0.1)
    assert row.path.startswith("M0.0 ")
    assert f"H{WIDTH:.1f}V" in row.path


def test_both_directions_share_the_axis() -> None:
    """A stream that begins later begins further right; the same rate has the same height."""
    later = stream(FAR_AUDIO, AUDIO, START + 5, 5)
    first, second = plots(later, stream(AUDIO, FAR_AUDIO, START, 10)).rows
    assert (first.way, second.way) == ("outward", "inward")
    assert second.path.startswith("M500.0 ")


def test_gaps() -> None:
    """A silence is marked where it was, as wide as it was long."""
    (row,) = plots(stream(AUDIO, FAR_AUDIO, START, 20, gaps=[(START + 5, START + 10)])).rows
    (gap,) = row.gaps
    assert (gap.x, gap.width, gap.seconds) == (250.0, 250.0, 5.0)


def test_the_direction_without_media() -> None:
    """Of an answered call with media one way, the other way is a row of its own; never without an answer."""
    result = one_way()
    found = plots_of(result.conversations[0], result.network)
    assert found is not None
    assert [(row.way, row.stream is None) for row in found.rows] == [("outward", False), ("inward", True)]
    assert len(plots(stream(AUDIO, FAR_AUDIO, START, 50)).rows) == 1


def test_a_few_packets_prove_no_silence() -> None:
    """Where there was hardly any media, nothing is said of the other direction."""
    result = result_of(call(), [stream(AUDIO, FAR_AUDIO, START + 1, 2)])
    found = plots_of(result.conversations[0], result.network)
    assert found is not None
    assert len(found.rows) == 1


def test_both_sides_are_named() -> None:
    """A stream that was seen on both sides has two rows, the inside one first."""
    mapped = Endpoint("203.0.113.1", 30000)
    found = plots(stream(mapped, FAR_AUDIO, START, 5, side=Side.OUTSIDE), stream(AUDIO, FAR_AUDIO, START, 5))
    assert [(row.way, row.where) for row in found.rows] == [("outward", "inside"), ("outward", "outside")]


def test_calls_without_media() -> None:
    """No media, no plot; RTCP is none."""
    assert plots_of(Conversation("1"), VIEW) is None
    control = stream(AUDIO, FAR_AUDIO, START, 5)
    control.kind = MediaKind.RTCP
    assert plots_of(Conversation("1", streams=[control]), VIEW) is None


def test_odd_numbers() -> None:
    """Streams without bins, of no length, with times that cannot be: a plot, and no exception."""
    odd = stream(AUDIO, FAR_AUDIO, 0.0, 0)
    odd.packets = 2
    far = stream(AUDIO, FAR_AUDIO, START, 3)
    far.end = START - 9
    rows = plots(odd, far).rows
    assert len(rows) == 2
    assert all(re.fullmatch(r"[-MVHZ0-9. ]*", row.path) for row in rows)


def test_many_streams_are_cut() -> None:
    """Of very many streams some are drawn, and the others counted."""
    found = plots(*(stream(AUDIO, FAR_AUDIO, START, 5) for _ in range(MOST_PLOTS + 4)))
    assert (len(found.rows), found.left_out) == (MOST_PLOTS, 4)
