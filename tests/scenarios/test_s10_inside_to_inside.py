"""Scenario 10: two inside phones that call each other through the provider."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.lab.audio import assert_two_way, talk
from tests.lab.counters import media_flows
from tests.lab.lab import Lab
from tests.lab.programs import Kamailio
from tests.scenarios.checks import assert_nothing_left
from tests.scenarios.crossing import Crossing
from tests.scenarios.phones import open_phones
from tests.scenarios.sipp_call import streams_of

pytestmark = pytest.mark.lab


@pytest.fixture
def place(make_lab: Callable[..., Lab]) -> Callable[..., tuple[str, int]]:
    """Return a function: alice calls carol; returns where carol was told to send, and what crossed."""
    def run(carol_host: str, config: str = "", **sizes: int) -> tuple[str, int]:
        lab = make_lab(**sizes)
        natfix = lab.start_natfix(config)
        lab.start(Kamailio())
        crossing = Crossing(lab)
        alice, carol = open_phones(lab, (("phone1", "alice", 440), (carol_host, "carol", 880)))
        alice.dial(carol.uri)
        talk()
        relayed = len(media_flows(lab.gateway))
        alice.hang_up()
        carol.wait_closed()
        assert_two_way(alice, carol)
        crossing.stop()
        [offer] = [message for host, message in crossing.came_in()
                   if host == carol.address and message.method == "INVITE"] or [None]
        if carol_host.startswith("phone"):
            crossing.assert_right(between_inside=True)
        assert_nothing_left(lab, natfix)
        return (streams_of(offer)[0].host if offer else ""), relayed
    return run


def test_audio_goes_directly_where_it_can(place: Callable[..., tuple[str, int]]) -> None:
    """In one subnet the phones are told each other's own addresses; no RTP crosses the gateway."""
    assert place("phone2") == ("192.168.1.10", 0)


def test_full_sends_audio_through_the_gateway(place: Callable[..., tuple[str, int]]) -> None:
    """With `policy = "full"` both send to the gateway's outside address, and it relays RTP and RTCP."""
    host, relayed = place("phone2", '[media]\npolicy = "full"\n')
    assert host == "203.0.113.1"
    assert relayed >= 1


def test_two_subnets_use_the_gateway(place: Callable[..., tuple[str, int]]) -> None:
    """Phones of two inside subnets are not told to reach each other past the gateway (release = "subnet")."""
    _, relayed = place("second1", second_phones=1)
    assert relayed >= 1
