"""Scenario 29: natfix leaves when the last call has ended."""

from __future__ import annotations

import pytest

from tests.lab.audio import assert_two_way, talk
from tests.lab.host import LabError, wait_until
from tests.lab.lab import Lab
from tests.lab.programs import Baresip
from tests.scenarios.phones import two_phones
from tests.scenarios.rtp_gaps import received_stream, watch

pytestmark = pytest.mark.lab


def test_the_running_call_ends_by_itself(lab: Lab) -> None:
    """A second phone is told 503 meanwhile; the first call loses no packet, and then nothing is left."""
    before = lab.gateway.run(["nft", "-s", "list", "ruleset"]).stdout
    natfix = lab.start_natfix()
    alice, bob = two_phones(lab)
    carol = lab.start(Baresip("phone2", "carol", tone=660))
    alice.dial(bob.uri)
    captures = watch(lab)
    draining = lab.gateway.popen(natfix.command("down", "--drain"), "down")
    draining.wait_for("1 call left, new ones are refused")
    with pytest.raises(LabError, match="503"):
        carol.dial(bob.uri)
    talk()
    assert_two_way(alice, bob)
    for host, capture in captures.items():
        stream = received_stream(capture.stop(), lab[host].address)
        assert stream.packets > 100, f"{host}: {stream}"
        assert stream.lost == 0, f"{host}: {stream}"
    assert draining.poll() is None
    alice.hang_up()
    bob.wait_closed()
    assert draining.wait(20.0) == 0
    assert "natfix: no call is left" in draining.output()
    wait_until(lambda: not natfix.control_socket.exists(), 5.0, "the end of the control socket")
    assert lab.gateway.run(["nft", "-s", "list", "ruleset"]).stdout == before
    assert "mark=67108864" not in lab.gateway.run(["conntrack", "-L"]).stdout
