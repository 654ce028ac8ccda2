"""A PBX behind the gateway, however its operator lets SIP in to it, with phones inside and far ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.far.calls import CallingSite
from tests.far.site import GATEWAY, USERS
from tests.lab.lab import Lab
from tests.lab.programs import Kamailio

pytestmark = pytest.mark.lab
OTHER_PBX = "192.168.1.11"
PBX, DMZ_PBX, OWN_OUTSIDE = "192.168.1.5", "192.168.2.5", "203.0.113.5"
FORWARD = """
table ip forwards {{
    chain prerouting {{
        type nat hook prerouting priority dstnat;
        iifname "outside" udp dport 5060 dnat to {pbx}
    }}
}}
insert rule inet firewall forward iifname "outside" ip daddr {pbx} udp dport 5060 accept
"""
# An outside address that is the PBX's alone, both ways.
STATIC = """
table ip static {{
    chain prerouting {{
        type nat hook prerouting priority dstnat;
        ip daddr 203.0.113.5 dnat to {pbx}
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat - 1;
        oifname "outside" ip saddr {pbx} snat to 203.0.113.5
    }}
}}
insert rule inet firewall forward iifname "outside" ip daddr {pbx} udp dport 5060 accept
"""


# Two PBXs at one outside address, told apart by the port.
TWO = """
table ip forwards {{
    chain prerouting {{
        type nat hook prerouting priority dstnat;
        iifname "outside" udp dport 5060 dnat to {pbx}
        iifname "outside" udp dport 5070 dnat to 192.168.1.11:5060
    }}
}}
insert rule inet firewall forward iifname "outside" udp dport 5060 ct status dnat accept
"""


class BehindSite(CallingSite):
    """A gateway with a PBX behind it, and *rules* of the operator's that let SIP in."""

    def __init__(self, make_lab: Callable[..., Lab], *kinds: str, rules: str = FORWARD, dmz: bool = False,
                 own_outside: str = "", config: str = "", inside_phones: int = 1) -> None:
        pbx = DMZ_PBX if dmz else PBX
        self.lab = make_lab("pbx-inside", kinds=kinds, dmz=dmz, phones=2, inside_phones=inside_phones)
        if own_outside:
            self.lab.gateway.run(["ip", "address", "add", f"{own_outside}/24", "dev", "outside"])
        self.rules(rules.format(pbx=pbx))
        self.natfix = self.lab.start_natfix("[inside]\n" + (config or f'pbx = ["{pbx}"]\n'))
        self.pbx = self.lab.start(Kamailio("pbx", users=USERS, aliases=(GATEWAY, OWN_OUTSIDE)))


def test_port_forward(make_lab: Callable[..., Lab]) -> None:
    """The PBX beside the phones, SIP forwarded to it."""
    site = BehindSite(make_lab, "port-restricted", "symmetric")
    dora, emil, ines = site.phone("dora"), site.phone("emil"), site.phone("ines", PBX)
    site.call(dora, ines)
    site.call(ines, dora)
    site.call(dora, emil)


def test_dmz(make_lab: Callable[..., Lab]) -> None:
    """The PBX in a network of its own, between which and the phones the gateway only routes."""
    site = BehindSite(make_lab, "port-restricted", "symmetric", dmz=True)
    dora, emil, ines = site.phone("dora"), site.phone("emil"), site.phone("ines", DMZ_PBX)
    site.call(dora, ines)
    site.call(ines, dora)
    site.call(dora, emil)


def test_an_outside_address_of_its_own(make_lab: Callable[..., Lab]) -> None:
    """1:1 NAT: the PBX, and all that it hands on, is seen at its own outside address."""
    config = f'pbx = ["{PBX}"]\n[[static]]\ninside = "{PBX}"\noutside = "{OWN_OUTSIDE}"\n'
    site = BehindSite(make_lab, "port-restricted", "symmetric", rules=STATIC, own_outside=OWN_OUTSIDE,
                      config=config)
    dora, emil = site.phone("dora", OWN_OUTSIDE), site.phone("emil", OWN_OUTSIDE)
    ines = site.phone("ines", PBX)
    site.call(dora, ines)
    site.call(ines, dora)
    site.call(dora, emil)


def test_two_pbxs(make_lab: Callable[..., Lab]) -> None:
    """Each has the outside port of its own forward, for what it receives and for what it sends."""
    config = f'pbx = ["{PBX}", "{OTHER_PBX}"]\n[signalling]\nports = [5060, 5070]\n'
    site = BehindSite(make_lab, "port-restricted", "symmetric", rules=TWO, config=config, inside_phones=2)
    site.lab.start(Kamailio("phone2", users=USERS, aliases=(GATEWAY,)))
    second = f"{GATEWAY}:5070"
    dora, emil, ines = site.phone("dora"), site.phone("emil"), site.phone("ines", PBX)
    fritz, jane = site.phone("fritz", second), site.phone("dora", second, host="far2b", tone=1300)
    for caller, called in ((dora, emil), (ines, dora), (fritz, jane), (jane, fritz)):
        site.call(caller, called)
    assert "-> '203.0.113.1:5070'" in site.natfix.log()
