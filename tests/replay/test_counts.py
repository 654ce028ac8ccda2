"""What is counted of an input."""

from __future__ import annotations

from natfix.replay.counts import MOST_INTERFACES, Counts


def test_warnings_are_sentences() -> None:
    """A cut file, cut packets and unknown link types are told, each in a sentence."""
    counts = Counts("x.pcap", packets=1200, cut=3)
    counts.stop("it ends within record 1201")
    counts.stop("a later problem is not the first one")
    counts.left_out["link type 9 is not known"] += 2
    first, second, third = counts.warnings()
    assert first == "x.pcap: it ends within record 1201; the 1,200 packets before were read."
    assert "3 packets were cut" in second
    assert "link type 9" in third
    assert counts.as_dict()["truncated"]


def test_interfaces_are_bounded() -> None:
    """A hostile file names no more interfaces than are kept."""
    counts = Counts("x")
    for number in range(2 * MOST_INTERFACES):
        counts.note_interface(str(number))
    assert len(counts.interfaces) == MOST_INTERFACES
