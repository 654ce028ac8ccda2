"""Scenario 28: another configuration in mid-call."""

from __future__ import annotations

import pytest

from tests.lab.audio import talk
from tests.lab.lab import Lab
from tests.scenarios.checks import assert_nothing_left
from tests.scenarios.phones import two_phones
from tests.scenarios.rtp_gaps import received_stream, watch

pytestmark = pytest.mark.lab

MORE = """
[media]
ports = [12000, 12999]
policy = "full"

[far_end]
keep_open = "never"

[[peer]]
address = "203.0.113.99"
"""


def test_a_reload_costs_no_packet(lab: Lab) -> None:
    """Ports, policy, peers and keep-alives change: no RTP is lost, the next call has a new port."""
    natfix = lab.start_natfix()
    alice, bob = two_phones(lab)
    captures = watch(lab)
    bob.dial(alice.uri)
    talk(3.0)
    old = natfix.config.read_text()
    natfix.config.write_text(old + MORE)
    assert "[media] ports" in natfix.run("reload")
    talk(3.0)
    for host, capture in captures.items():
        stream = received_stream(capture.stop(), lab[host].address)
        assert stream.packets > 200, f"{host}: {stream}"
        assert stream.lost == 0, f"{host}: {stream}"
    alice.hold()
    alice.resume()
    call, = natfix.request("calls")["calls"]
    assert {stream["outside"].rpartition(":")[2][:2] for stream in call["streams"]} == {"30"}
    bob.hang_up()
    alice.wait_closed()
    bob.dial(alice.uri)
    captures = watch(lab)
    talk(2.0)
    calls = natfix.request("calls")["calls"]
    latest = next(call for call in calls if call["state"] == "confirmed")
    assert {stream["outside"].rpartition(":")[2][:2] for stream in latest["streams"]} == {"12"}
    for host, capture in captures.items():
        assert received_stream(capture.stop(), lab[host].address).packets > 50, host
    bob.hang_up()
    alice.wait_closed()
    assert_nothing_left(lab, natfix)
