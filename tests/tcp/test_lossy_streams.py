"""Streams over bad links: whatever is lost, late or cut small, each octet arrives once, as it should be."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.lab.lab import Lab
from tests.lab.programs.bad_link import BadLink
from tests.tcp.lines import (
    OWN,
    REQUEST_IN,
    REQUEST_OUT,
    RESPONSE_IN,
    Line,
    Transfer,
    connect_all,
    listener,
    message,
    messages,
    receive,
)

pytestmark = pytest.mark.lab
CONFIG = """
[limits]
packets_per_host = 0
requests_per_host = 0
requests_per_peer = 0
[daemon]
log_level = "info"
"""
# Octets of one write, the largest segment (0: as the link does), and how many messages go each way.
LINES = [
    (1, 0, 200), (1, 88, 60), (1, 1200, 200), (3, 700, 220), (7, 0, 250), (40, 100, 60), (53, 0, 250),
    (100, 200, 120), (200, 300, 150), (333, 0, 300), (536, 536, 250), (700, 600, 250), (1000, 0, 330),
    (1400, 0, 330), (1460, 0, 340), (2000, 1000, 330), (4096, 0, 340), (5000, 0, 340), (20000, 1000, 340),
    (50000, 0, 340),
]


def test_ten_thousand_messages(make_lab: Callable[..., Lab]) -> None:
    """10,000 messages both ways with 5 % of all packets lost at each hop and 10 % late: both byte streams of
    twenty connections are, by their hashes, those that natfix has to make of them."""
    assert sum(2 * count for _, _, count in LINES) == 10000
    lab = make_lab()
    natfix = lab.start_natfix(CONFIG)
    links = [lab.start(BadLink(host)) for host in ("phone1", "gateway", "provider")]
    with listener(lab) as waiting:
        lines = connect_all(lab, waiting, [largest for _, largest, _ in LINES])
        speak_first(lines)
        transfers = [each for number, line in enumerate(lines) for each in both_ways(line, number)]
        for transfer in transfers:
            transfer.start()
        for transfer in transfers:
            transfer.join()
        wrong = [(LINES[at // 2], "in" if at % 2 else "out", each.problem)
                 for at, each in enumerate(transfers) if each.problem or each.arrived != each.expected]
        assert wrong == []
        for line in lines:
            line.close()
    assert natfix.json("status")["counters"]["streams sip"] == len(LINES)
    assert min(link.lost() for link in links) > 500


def speak_first(lines: list[Line]) -> None:
    """Send a request from each phone: a SIP client speaks first."""
    for line in lines:
        line.near.sendall(message(REQUEST_OUT, 0).replace(OWN, line.inside))
    for line in lines:
        expected = message(REQUEST_OUT, 0).replace(OWN, line.outside)
        assert receive(line.far, len(expected)) == expected


def both_ways(line: Line, number: int) -> list[Transfer]:
    """Return the messages of one line, out and in."""
    write, _, count = LINES[number]
    out = messages([REQUEST_OUT], count, number)
    inward = messages([REQUEST_IN, RESPONSE_IN], count, 1000 + number)
    return [Transfer(line.near, line.far, out, line.inside, line.outside, write),
            Transfer(line.far, line.near, inward, line.outside, line.inside, write)]
