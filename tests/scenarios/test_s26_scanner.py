"""Scenario 26: a scanner outside (sipvicious), a registered phone inside, and those who may call it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.lab.audio import assert_two_way, talk
from tests.lab.host import wait_until
from tests.lab.lab import Lab
from tests.lab.namespaces import call_in
from tests.lab.programs import Baresip, Capture
from tests.name_server import NameServer
from tests.scenarios.phones import two_phones

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(shutil.which("svmap") is None, reason="not installed: svmap (tools/test installs it)"),
]
OUTSIDE = "203.0.113.1"
LISTED = "sip.listed.test"
SCANS = (
    ("svmap", "-p", "5060-5069"), ("svmap", "-p", "5060-5069", "-m", "INVITE"),
    ("svwar", "-e", "100-109"), ("svcrack", "-u", "alice", "-r", "1-20"),
)
SETTINGS = """
[daemon]
nameservers = ["{dns}"]
[[peer]]
address = "sip.listed.test"
[[domain]]
name = "*.test"
"""


@pytest.fixture
def lab(make_lab: Callable[..., Lab]) -> Lab:
    """A gateway whose firewall accepts whatever is DNATed: only natfix stands in the scanner's way."""
    return make_lab(dnat_line=True, remotes=2)


@pytest.fixture
def dns(lab: Lab) -> Iterator[NameServer]:
    """The provider's DNS server: SRV records lead to remote2."""
    provider = lab["provider"]
    with call_in(provider.namespace, lambda: NameServer(provider.address, 53)) as server:
        server.put(f"_sip._udp.{LISTED}", "SRV", f"10 10 5060 node1.{LISTED}.")
        server.put(f"node1.{LISTED}", "A", lab["remote2"].address)
        yield server


def scan(lab: Lab, host: str, *command: str) -> str:
    """Run one of sipvicious's tools on *host* against the gateway's outside address; return what it says."""
    done = lab[host].run(["env", f"HOME={lab.directory}", *command, OUTSIDE], check=False, timeout=60)
    return done.stdout + done.stderr


def test_a_scanner_sees_nothing_and_who_may_call_calls(lab: Lab, dns: NameServer) -> None:
    """No device, no extension, no password for a stranger, and not one packet for the phone; the same
    scan from a peer that is listed by name finds the phone; the registrar's call and that peer's come in."""
    natfix = lab.start_natfix(SETTINGS.format(dns=f"{lab['provider'].address}:53"))
    alice, bob = two_phones(lab)
    wait_until(lambda: natfix.json("status")["names"][0]["addresses"] == [lab["remote2"].address], 10.0,
               "natfix knows the peer's address")
    seen = lab.start(Capture("phone1", expression=f"src host {lab['stranger'].address}"))
    with ThreadPoolExecutor() as scanners:
        scans = [scanners.submit(scan, lab, "stranger", *command) for command in SCANS]
        bob.dial(alice.uri)
        talk()
        found = [each.result() for each in scans]
    assert_two_way(alice, bob)
    bob.hang_up()
    alice.wait_closed()
    assert ["found nothing" in text for text in found] == [True] * len(SCANS), found
    seen.stop()
    assert seen.messages("udp") == []
    assert "baresip" in scan(lab, "remote2", "svmap", "-p", "5060")
    carol = lab.start(Baresip("remote2", "carol", tone=660))
    carol.dial(f"sip:alice@{OUTSIDE}")
    talk()
    assert_two_way(alice, carol)
    assert natfix.json("status")["refused_packets"] == 0        # none was sent to a media port
