"""Scenario 31: the operator's firewall is loaded anew in mid-call, by each of the programs that do that."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import NamedTuple

import pytest

from tests.lab.audio import talk
from tests.lab.gateway import RULES
from tests.lab.host import wait_until
from tests.lab.lab import Lab
from tests.lab.managers import Docker, Firewalld, Manager, rules_before
from tests.rule_sets.examples import example
from tests.rule_sets.test_examples import EXISTING_IPTABLES, rules_in_force
from tests.scenarios.checks import assert_nothing_left
from tests.scenarios.phones import two_phones
from tests.scenarios.rtp_gaps import received_stream, watch
from tests.scenarios.test_s22_flush import has_table

pytestmark = pytest.mark.lab

COUNTS = re.compile(r" \[\d+:\d+\]")
# As /etc/nftables.conf of Debian begins.
NFTABLES_CONF = "#!/usr/sbin/nft -f\nflush ruleset\n" + RULES.format(dnat_line="")
# What Docker does to iptables when it is restarted, and when a container with a port begins.
DOCKER_AGAIN = """\
iptables -D FORWARD -j DOCKER-USER
iptables -I FORWARD -j DOCKER-USER
iptables -F DOCKER-ISOLATION-STAGE-1
iptables -A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
iptables -A DOCKER-ISOLATION-STAGE-1 -i br-web ! -o br-web -j DOCKER-ISOLATION-STAGE-2
iptables -A DOCKER-ISOLATION-STAGE-1 -j RETURN
iptables -t nat -I DOCKER ! -i docker0 -p tcp --dport 8099 -j DNAT --to-destination 172.17.0.9:80
iptables -t nat -D DOCKER ! -i docker0 -p tcp --dport 8099 -j DNAT --to-destination 172.17.0.9:80
"""


class Firewall(NamedTuple):
    """How one is set up, and loaded anew."""

    before: Callable[[Lab], Manager]
    again: str | Callable[[Manager], None]
    goes: bool = False      # natfix's table goes with it


def by_example(make: Callable[[Lab], Manager], name: str) -> Callable[[Lab], Manager]:
    """Return what sets a manager up with one of nft/examples."""
    def load(lab: Lab) -> Manager:
        manager, text = make(lab), example(name)
        lab.path(name).write_text(text.text)
        manager.run(text.commands("Load"))
        return manager
    return load


def reload_and_restart(manager: Manager) -> None:
    """What firewalld's operator does: a reload, and then a restart of the service."""
    assert isinstance(manager, Firewalld)
    manager.run(["firewall-cmd --reload"])
    manager.restart()


FIREWALLS = {
    "nft": Firewall(
        rules_before("nft -f", NFTABLES_CONF), "nft -f before; sleep 0.3; nft -f before", goes=True),
    "iptables": Firewall(
        rules_before("iptables-nft-restore", EXISTING_IPTABLES), "iptables-nft-restore before"),
    "iptables-legacy": Firewall(
        rules_before("iptables-legacy-restore", EXISTING_IPTABLES), "iptables-legacy-restore before"),
    "docker": Firewall(by_example(lambda lab: Docker(lab, False), "docker.iptables"), DOCKER_AGAIN),
    "firewalld": Firewall(
        by_example(lambda lab: Firewalld(lab, "nftables"), "firewalld.sh"), reload_and_restart),
}


def rules_of_others(lab: Lab) -> list[str]:
    """Return all rules but natfix's, without what policies have counted."""
    return [COUNTS.sub("", rule) for rule in rules_in_force(lab) if not rule.startswith("ip natfix")]


@pytest.mark.parametrize("name", FIREWALLS)
def test_a_firewall_is_loaded_anew(make_lab: Callable[..., Lab], name: str) -> None:
    """natfix's table is there, at the latest 1 s later; the call goes on, RTP pauses for 1.2 s at most, and
    not at all where the table stayed; the operator's rules are those that he has loaded."""
    firewall = FIREWALLS[name]
    lab = make_lab(firewall=False)
    manager = firewall.before(lab)
    rules = rules_of_others(lab)
    natfix = lab.start_natfix()
    alice, bob = two_phones(lab)
    captures = watch(lab)
    alice.dial(bob.uri)
    talk(1.0)
    began = time.monotonic()
    if isinstance(firewall.again, str):
        manager.run([firewall.again])
    else:
        firewall.again(manager)
    loaded = time.monotonic()
    wait_until(lambda: has_table(lab), 1.0, "natfix's table", interval=0.05)
    print(f"{name}: loaded in {loaded - began:.2f} s, table there {time.monotonic() - loaded:.2f} s later")
    talk(2.0)
    assert rules_of_others(lab) == rules
    streams = [received_stream(capture.stop(), lab[host].address) for host, capture in captures.items()]
    print(f"{name}: {streams}")
    longest = 1.2 if firewall.goes else 0.4
    assert all(stream.packets > 100 and stream.longest_pause <= longest for stream in streams), streams
    assert (natfix.request("status")["shell"].get("rules_restored", 0) > 0) is firewall.goes
    assert ("it was put back" in natfix.log()) is firewall.goes
    alice.hang_up()
    bob.wait_closed()
    bob.dial(alice.uri)     # the registration's way in is there, too
    alice.hang_up()
    assert_nothing_left(lab, natfix)
