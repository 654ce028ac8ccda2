"""Scenario 30: two outside links; fail-over in mid-call, the next call by the other one, which goes down."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.lab.audio import assert_two_way, talk
from tests.lab.gateway import Natfix
from tests.lab.host import wait_until
from tests.lab.lab import Lab
from tests.lab.programs import Capture
from tests.scenarios.checks import assert_nothing_left, messages
from tests.scenarios.phones import two_phones

pytestmark = pytest.mark.lab

FIRST, SECOND = "203.0.113.1", "198.51.100.1"
CONFIGURATION = """
[inside]
networks = ["192.168.1.0/24"]
[outside]
interface = "outside"
mark = 0x100
[[link]]
interface = "outside2"
mark = 0x200
"""
# The operator's: both links translated, a table of routes for each, answers by the link of the question.
OPERATOR = (
    "nft add rule ip nat postrouting oifname outside2 masquerade",
    "sysctl -qw net.ipv4.conf.outside2.rp_filter=2 net.ipv4.conf.outside.rp_filter=2",
    "ip route add 203.0.113.0/24 dev outside table 100",
    "ip rule add fwmark 0x100 lookup 100",
    "ip rule add fwmark 0x200 lookup 200",
)
BY_SECOND = ("ip route replace default via 198.51.100.60 dev outside2 table 200",
             "ip route replace 203.0.113.48/28 via 198.51.100.60 dev outside2")     # provider, remote phone


def on_gateway(lab: Lab, *commands: str) -> None:
    for command in commands:
        lab.gateway.run(command.split())


def audio_packets(natfix: Natfix) -> tuple[int, int]:
    """Return the packets of the one call's audio, out and in."""
    call, = natfix.json("calls")["calls"]
    audio, = [stream for stream in call["streams"] if stream["media"] == "audio"]
    return audio["packets_out"], audio["packets_in"]


def test_fail_over_and_a_link_that_ends(make_lab: Callable[..., Lab]) -> None:
    """A call by the first link is heard on, and ended, after routes lead by the second one; the next call is
    shown with the second link's address and heard; that one is heard again after its link was down."""
    lab = make_lab(two_links=True)
    on_gateway(lab, *OPERATOR)
    for host in ("provider", "remote1"):
        lab[host].run(["ip", "route", "add", "198.51.100.0/24", "via", "203.0.113.61"])
    natfix = Natfix(lab, CONFIGURATION).start()
    alice, bob = two_phones(lab)
    outside = lab.start(Capture("gateway", "outside", "udp port 5060"))
    outside2 = lab.start(Capture("gateway", "outside2", "udp port 5060"))

    alice.dial(bob.uri)
    talk()
    on_gateway(lab, *BY_SECOND)
    before = audio_packets(natfix)
    talk()
    assert all(now > then + 50 for now, then in zip(audio_packets(natfix), before, strict=True))
    assert_two_way(alice, bob)
    alice.hang_up()
    bob.wait_closed()

    alice.dial(bob.uri)
    talk()
    assert_two_way(alice, bob)
    on_gateway(lab, "ip link set outside2 down", "ip link set outside2 up", *BY_SECOND)
    before = audio_packets(natfix)
    wait_until(lambda: all(now > then + 50 for now, then in zip(audio_packets(natfix), before, strict=True)),
               15.0, "audio after the link was down", interval=0.5)
    alice.hang_up()
    bob.wait_closed()
    assert_nothing_left(lab, natfix)
    for capture, host, other in ((outside, FIRST, SECOND), (outside2, SECOND, FIRST)):
        offers = [message.body.decode() for message in messages(capture.stop())
                  if message.start.startswith("INVITE sip:bob")]
        assert any(f"c=IN IP4 {host}" in offer for offer in offers)
        assert not any(other in offer for offer in offers)
