"""The observer's kernel: rules that only copy, and a memory of what natfix would have done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from natfix.address import network_from_text
from natfix.commands import AddMapping, SendPacket
from natfix.errors import KernelRefused
from natfix.kernel.observed import ObservedKernel, observer_text
from tests.kernel.wires import MEDIA, REMOTE, RTP, RTP_OUT, SIP, SIP_REMOTE, SKELETON, Wires, wires
from tests.namespace import kernel_test

pytestmark = kernel_test

MAPPING = AddMapping(MEDIA, RTP, RTP_OUT, lifetime=300.0, owner="call", inward=True)


class Watched:
    """A gateway with an observer, on a clock that stands still until it is set."""

    def __init__(self, wired: Wires) -> None:
        self.wires = wired
        self.now = 1000.0
        self.kernel = wired.gateway.call(lambda: ObservedKernel(SKELETON.mark, lambda: self.now))

    def do(self, what: str, *arguments: object) -> object:
        return self.wires.gateway.call(lambda: getattr(self.kernel, what)(*arguments))


@pytest.fixture
def watched() -> Iterator[Watched]:
    with wires() as made:
        made.firewall()
        watched = Watched(made)
        yield watched
        watched.kernel.close()


def test_commands_change_nothing(watched: Watched) -> None:
    """Mappings and flows can be read back, and the kernel has no element, no entry, no packet."""
    watched.do("install", SKELETON)
    rules, entries = watched.wires.rules(), watched.wires.entries()
    watched.do("apply", [MAPPING])
    mapping, = watched.kernel.mappings()
    assert (mapping.inside, mapping.outside) == (RTP, RTP_OUT)
    assert watched.do("send", [SendPacket(SIP, SIP_REMOTE, b"x")]) == 0
    assert watched.do("open_stream", SIP, SIP_REMOTE) is None
    assert watched.do("refused") == {}
    assert (watched.wires.rules(), watched.wires.entries()) == (rules, entries)


def test_what_ends_is_forgotten(watched: Watched) -> None:
    """The memory is bounded in time: what the engine no longer holds ends as it would in the kernel."""
    watched.do("install", SKELETON)
    watched.do("apply", [MAPPING])
    watched.now += 301.0
    watched.do("apply", [])
    assert watched.kernel.mappings() == []


def test_rules_only_copy(watched: Watched) -> None:
    """A SIP packet goes its way while nobody listens to the copies, and its entry has no mark."""
    watched.do("install", SKELETON)
    phone, remote = watched.wires.bind(SIP.host, SIP.port), watched.wires.bind(REMOTE, SIP_REMOTE.port)
    phone.sendto(b"OPTIONS", SIP_REMOTE[:2])
    data, source = remote.recvfrom(100)
    remote.sendto(b"SIP/2.0 200", source)
    assert (data, phone.recv(100)) == (b"OPTIONS", b"SIP/2.0 200")
    entry, = watched.wires.entries("dport=5060")
    assert "mark=0" in entry
    assert "packets 2" in watched.wires.gateway.run("nft list counter ip natfix diverted")


def test_damage_is_seen(watched: Watched) -> None:
    """The observer's table is watched over as the other one is."""
    watched.do("install", SKELETON)
    assert watched.do("is_intact")
    watched.wires.gateway.run("nft flush chain ip natfix divert")
    assert not watched.do("is_intact")


def test_not_over_a_natfix_that_fixed(watched: Watched) -> None:
    """A table that calls may depend on is not replaced; the sentence says what to do."""
    watched.wires.install()
    before = watched.wires.rules()
    with pytest.raises(KernelRefused, match="`natfix down` removes them"):
        watched.do("install", SKELETON)
    assert watched.wires.rules() == before


def test_switched_on_over_an_observer(watched: Watched) -> None:
    """What an observer that died has left is no hindrance to a natfix that fixes, and leaves no trace."""
    watched.wires.install()
    fixing = watched.wires.rules()
    watched.wires.remove()
    watched.do("install", SKELETON)
    watched.wires.install()
    assert sorted(watched.wires.rules().splitlines()) == sorted(fixing.splitlines())


def test_removed(watched: Watched) -> None:
    """After remove() the rules are as before; again is no error."""
    before = watched.wires.rules()
    watched.do("install", SKELETON)
    watched.do("remove")
    watched.do("remove")
    assert watched.wires.rules() == before


def test_settings_in_the_rules() -> None:
    """Several ports, networks that are left alone and a PBX on the gateway have their rules."""
    skeleton = replace(SKELETON, sip_ports=(5060, 5070), own_pbx=True, queue=7,
                       intranet=(network_from_text("10.8.0.0/16"),))
    rules = observer_text(skeleton)
    assert "ct original proto-dst { 5060, 5070 } goto through" in rules
    assert "        ip daddr { 10.8.0.0/16 } return" in rules
    assert '        oifname { "outside" } meta l4proto udp ct original proto-dst' in rules
    assert "log group 7" in rules
    assert "#" not in rules.partition("\n")[2].replace("    # By the first", "")
