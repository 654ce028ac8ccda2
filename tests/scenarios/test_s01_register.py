"""Scenario 1: a phone registers with digest, and is called long after the last packet."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.lab.audio import assert_two_way, talk
from tests.lab.host import Host, LabError, wait_until
from tests.lab.lab import Lab
from tests.lab.namespaces import socket_in
from tests.lab.programs import Capture
from tests.scenarios.checks import Wiretap, assert_nothing_left, packets_seen
from tests.scenarios.phones import two_phones

pytestmark = pytest.mark.lab


def forget_flows(lab: Lab) -> None:
    """Delete every UDP entry of the gateway's conntrack table, as time does."""
    lab.gateway.run(["conntrack", "-D", "-p", "udp"])


def test_call_comes_in_long_after_the_last_packet(lab: Lab) -> None:
    """A registered phone is reached, and both hear each other, though conntrack has forgotten its flow."""
    natfix = lab.start_natfix()
    tap = Wiretap(lab)
    alice, bob = two_phones(lab)
    registration, = natfix.request("registrations")["registrations"]
    assert (registration["inside"], registration["outside"]) == ("192.168.1.10:5060", "203.0.113.1:5060")
    assert tap.seen_outside("SIP/2.0 401"), "digest was not asked for"
    forget_flows(lab)
    bob.dial(alice.uri)
    talk()
    assert_two_way(alice, bob)
    bob.hang_up()
    alice.wait_closed()
    assert_nothing_left(lab, natfix)
    tap.check()


def test_unregistered_phone_is_shut_off(make_lab: Callable[..., Lab]) -> None:
    """What the registrar's host sends anew comes in while the binding lasts, and no more after its end.

    With the documented firewall line: it comes from another port than the one that was registered with.
    """
    lab = make_lab(dnat_line=True)
    natfix = lab.start_natfix()
    tap, arriving = Wiretap(lab), lab.start(Capture("phone1", "", "udp and src port 5070"))
    alice, bob = two_phones(lab)
    ask(lab["provider"], 1)
    wait_until(lambda: packets_seen(arriving) == 1, 3.0, "a request of the registrar's host")
    alice.unregister()
    wait_until(lambda: not natfix.request("registrations")["registrations"], 5.0, "the binding's end")
    lab.gateway.run(["conntrack", "-D", "-p", "udp", "--sport", "5070"])
    ask(lab["provider"], 2)
    with pytest.raises(LabError, match="404"):
        bob.dial(alice.uri)
    assert packets_seen(arriving) == 1
    assert_nothing_left(lab, natfix)
    tap.check()


def ask(host: Host, number: int) -> None:
    """Send a MESSAGE from port 5070 of *host* to the gateway's port 5060."""
    text = "\r\n".join([
        "MESSAGE sip:alice@203.0.113.1:5060 SIP/2.0",
        f"Via: SIP/2.0/UDP {host.address}:5070;branch=z9hG4bKask{number}",
        f"From: <sip:provider@{host.address}>;tag=ask", f"To: <sip:alice@{host.address}>",
        f"Call-ID: ask{number}", f"CSeq: {number} MESSAGE", "Content-Length: 0", "", ""])
    with socket_in(host.namespace) as asking:
        asking.bind((host.address, 5070))
        asking.sendto(text.encode(), ("203.0.113.1", 5060))
