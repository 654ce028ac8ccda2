"""Scenario 21: natfix is killed in mid-call."""

from __future__ import annotations

import pytest

from tests.lab.audio import assert_two_way, talk
from tests.lab.gateway import Natfix
from tests.lab.host import wait_until
from tests.lab.lab import Lab
from tests.scenarios.checks import assert_nothing_left
from tests.scenarios.phones import two_phones
from tests.scenarios.rtp_gaps import received_stream, watch

pytestmark = pytest.mark.lab

AROUND = 10.0       # seconds of audio watched around the crash


def is_stored(natfix: Natfix, text: str) -> bool:
    """Tell whether the store has *text* on disk: it is written just after the answer is let go."""
    files = natfix.state_file.parent.glob(natfix.state_file.name + "*")
    return any(text.encode() in file.read_bytes() for file in files)


def test_a_crash_costs_no_packet_and_the_call_goes_on(lab: Lab) -> None:
    """kill -9 and a restart: no RTP is lost at either end; hold, resume and BYE work, nothing is left."""
    natfix = lab.start_natfix()
    alice, bob = two_phones(lab)
    captures = watch(lab)
    bob.dial(alice.uri)
    talk(AROUND / 2)
    natfix.kill()
    talk(AROUND / 2)
    natfix.start()
    talk(1.0)
    for host, capture in captures.items():
        stream = received_stream(capture.stop(), lab[host].address)
        assert stream.packets > 400, f"{host}: {stream}"
        assert stream.lost == 0, f"{host}: {stream}"
    call, = natfix.request("calls")["calls"]
    assert call["state"] == "confirmed"
    alice.hold()
    alice.resume()
    captures = watch(lab)       # baresip 1.0.0 records nothing after a hold, so the packets are counted
    talk(3.0)
    for host, capture in captures.items():
        assert received_stream(capture.stop(), lab[host].address).packets > 100, host
    bob.hang_up()
    alice.wait_closed()
    assert_nothing_left(lab, natfix)


def test_a_registered_phone_is_called_after_a_crash(lab: Lab) -> None:
    """The binding survives kill -9: the phone is reached without registering again."""
    natfix = lab.start_natfix()
    alice, bob = two_phones(lab)
    wait_until(lambda: is_stored(natfix, alice.uri[4:]), 5.0, "the binding in the store")
    natfix.kill()
    natfix.start()
    assert len(natfix.request("registrations")["registrations"]) == 1
    bob.dial(alice.uri)
    talk()
    assert_two_way(alice, bob)
    bob.hang_up()
    alice.wait_closed()
    assert_nothing_left(lab, natfix)
