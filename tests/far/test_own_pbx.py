"""A PBX on the gateway itself, with phones inside and phones behind NATs of their own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.far.site import GATEWAY, HOSTS, TONES, USERS
from tests.lab.audio import assert_two_way, talk
from tests.lab.far_nat import KINDS
from tests.lab.gateway import Natfix
from tests.lab.host import wait_until
from tests.lab.lab import Lab
from tests.lab.programs import Baresip, Kamailio

pytestmark = pytest.mark.lab
INSIDE = "192.168.1.1"
LOCAL = '[gateway]\npbx = "local"\n'
# What an operator who runs a PBX on his gateway has in his firewall.
OPEN = 'insert rule inet firewall input iifname "outside" udp dport 5060 accept\n'


class OwnSite:
    """A gateway with a Kamailio of its own, natfix, and phones by name."""

    def __init__(self, make_lab: Callable[..., Lab], *kinds: str, rules: str = OPEN, config: str = LOCAL,
                 **kamailio: object) -> None:
        self.lab = make_lab("pbx-on-gateway", kinds=kinds)
        self.lab.gateway.run(["nft", "-f", "-"], input=rules)
        self.natfix: Natfix = self.lab.start_natfix(config)
        self.pbx = self.lab.start(Kamailio("gateway", users=USERS, **kamailio))

    def phone(self, name: str, registrar: str = GATEWAY) -> Baresip:
        """Start a phone, and register it."""
        phone = self.lab.start(Baresip(HOSTS[name], name, registrar=registrar, password=USERS[name],
                                       tone=TONES[name]))
        phone.register()
        return phone

    def call(self, caller: Baresip, called: Baresip) -> None:
        """Call, compare the audio of both, hang up, and see nothing left."""
        mark = len(called.events)
        caller.dial(f"sip:{called.user}@{caller.registrar}")
        talk()
        assert_two_way(caller, called)
        caller.hang_up()
        called.wait_closed(since=mark)
        wait_until(self.holds_nothing, 10.0, "the end of all mappings")

    def holds_nothing(self) -> bool:
        """Tell whether natfix holds no media any more."""
        status = self.natfix.json("status")
        return status["media_mappings"] == status["relays"] == status["flows"] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_phones_on_both_sides(make_lab: Callable[..., Lab], kind: str) -> None:
    """A far phone and an inside one, by a PBX that listens on both sides: calls in both directions."""
    site = OwnSite(make_lab, kind, further=(INSIDE,))
    dora, ines = site.phone("dora"), site.phone("ines", INSIDE)
    site.call(dora, ines)
    site.call(ines, dora)


@pytest.mark.parametrize("kinds", [("port-restricted", "symmetric"), ("symmetric", "full-cone")])
def test_both_far(make_lab: Callable[..., Lab], kinds: tuple[str, str]) -> None:
    """Two far phones: the PBX hands the one's words on to the other, and media stays in the kernel."""
    site = OwnSite(make_lab, *kinds)
    dora, emil = site.phone("dora"), site.phone("emil")
    site.call(dora, emil)
    site.call(emil, dora)


def test_a_ua_on_the_gateway(make_lab: Callable[..., Lab]) -> None:
    """Media that ends on the gateway itself, as of a PBX that anchors it."""
    site = OwnSite(make_lab, "symmetric")
    dora = site.phone("dora")
    box = site.lab.start(Baresip("gateway", "fritz", registrar=GATEWAY, password=USERS["fritz"],
                                 sip_port=5070, tone=TONES["fritz"]))
    box.register()
    site.call(dora, box)
    site.call(box, dora)


def test_bound_to_the_inside(make_lab: Callable[..., Lab]) -> None:
    """A PBX that listens at the gateway's inside address only, reached by the operator's forward."""
    forward = OPEN + """
table ip forwards {
    chain prerouting {
        type nat hook prerouting priority dstnat;
        iifname "outside" udp dport 5060 dnat to 192.168.1.1
    }
}
"""
    site = OwnSite(make_lab, "port-restricted", rules=forward, address=INSIDE, aliases=(GATEWAY,))
    dora, ines = site.phone("dora"), site.phone("ines", INSIDE)
    site.call(dora, ines)
    site.call(ines, dora)
