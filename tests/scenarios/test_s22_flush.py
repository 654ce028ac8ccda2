"""Scenario 22: somebody flushes the whole rule set in mid-call."""

from __future__ import annotations

import time

import pytest

from tests.lab.audio import talk
from tests.lab.host import wait_until
from tests.lab.lab import Lab
from tests.lab.pcap import datagrams_from_pcap
from tests.lab.programs import Capture
from tests.scenarios.checks import assert_nothing_left
from tests.scenarios.phones import two_phones
from tests.scenarios.rtp_gaps import received_stream, watch

pytestmark = pytest.mark.lab


def has_table(lab: Lab) -> bool:
    """Tell whether natfix's own table is there, with its elements."""
    listing = lab.gateway.run(["nft", "list", "table", "ip", "natfix"], check=False)
    return listing.returncode == 0 and "hook forward" in listing.stdout and "elements" in listing.stdout


def test_the_own_table_is_back_within_a_second(lab: Lab) -> None:
    """After `nft flush ruleset` the table is back in 1 s, RTP pauses for 1.2 s at most, the call goes on."""
    natfix = lab.start_natfix()
    alice, bob = two_phones(lab)
    captures = watch(lab)
    leaked = lab.start(Capture("gateway", "outside", "udp and src net 192.168.0.0/16"))
    alice.dial(bob.uri)
    talk(2.0)
    lab.gateway.run(["nft", "flush", "ruleset"])
    flushed = time.monotonic()
    wait_until(lambda: has_table(lab), 1.0, "natfix's table", interval=0.05)
    took = time.monotonic() - flushed
    talk(3.0)
    for host, capture in captures.items():
        stream = received_stream(capture.stop(), lab[host].address)
        assert stream.packets > 200, f"{host}: {stream}"
        assert stream.longest_pause <= 1.2, f"{host}: {stream}"
    escaped = len(datagrams_from_pcap(leaked.stop()))
    print(f"table back after {took:.2f} s; {escaped} packets left with an inside source")
    assert escaped <= 100, "RTP left with an inside source for longer than a second"
    alice.hang_up()
    bob.wait_closed()
    assert_nothing_left(lab, natfix)
