"""A PBX on the gateway itself, with phones inside and phones behind NATs of their own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.far.calls import OPEN, CallingSite
from tests.far.site import GATEWAY, USERS
from tests.lab.audio import talk
from tests.lab.far_nat import KINDS
from tests.lab.host import wait_until
from tests.lab.lab import Lab
from tests.lab.programs import Baresip, Kamailio

pytestmark = pytest.mark.lab
INSIDE = "192.168.1.1"
LOCAL = '[gateway]\npbx = "local"\n'
FORWARD = """
table ip forwards {
    chain prerouting {
        type nat hook prerouting priority dstnat;
        iifname "outside" udp dport 5060 dnat to 192.168.1.1
    }
}
"""


class OwnSite(CallingSite):
    """A gateway with a Kamailio of its own, natfix, and phones by name."""

    def __init__(self, make_lab: Callable[..., Lab], *kinds: str, rules: str = OPEN,
                 **kamailio: object) -> None:
        self.lab = make_lab("pbx-on-gateway", kinds=kinds)
        self.rules(rules)
        self.natfix = self.lab.start_natfix(LOCAL)
        self.pbx = self.lab.start(Kamailio("gateway", users=USERS, **kamailio))


@pytest.mark.parametrize("kind", KINDS)
def test_phones_on_both_sides(make_lab: Callable[..., Lab], kind: str) -> None:
    """A far phone and an inside one, by a PBX that listens on both sides: calls in both directions."""
    site = OwnSite(make_lab, kind, further=(INSIDE,))
    dora, ines = site.phone("dora"), site.phone("ines", INSIDE)
    site.call(dora, ines)
    site.call(ines, dora)


def test_one_address_for_all(make_lab: Callable[..., Lab]) -> None:
    """The same account works inside and outside: all phones know the PBX by the outside address."""
    site = OwnSite(make_lab, "port-restricted")
    dora, ines, emil = site.phone("dora"), site.phone("ines"), site.phone("emil", host="remote1")
    for caller, called in ((ines, dora), (ines, emil), (emil, ines), (dora, emil)):
        site.call(caller, called)


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
    box = site.phone("fritz", host="gateway", sip_port=5070)
    site.call(dora, box)
    site.call(box, dora)


def test_bound_to_the_inside(make_lab: Callable[..., Lab]) -> None:
    """A PBX that listens at the gateway's inside address only, reached by the operator's forward."""
    site = OwnSite(make_lab, "port-restricted", rules=OPEN + FORWARD, address=INSIDE, aliases=(GATEWAY,))
    dora, ines = site.phone("dora"), site.phone("ines", INSIDE)
    site.call(dora, ines)
    site.call(ines, dora)


def test_a_call_goes_on(make_lab: Callable[..., Lab]) -> None:
    """Media that ends on the gateway survives natfix's death, its restart, and a far NAT that forgets."""
    site = OwnSite(make_lab, "port-restricted")
    dora, box = site.phone("dora"), site.phone("fritz", host="gateway", sip_port=5070)
    dora.dial("sip:fritz@203.0.113.1")
    talk()
    site.natfix.kill()
    assert_more_is_heard(dora, box)
    site.natfix.start()
    assert_more_is_heard(dora, box)
    site.lab.far_nats["nat1"].rebind()
    assert_more_is_heard(dora, box)
    box.hang_up()       # the PBX does not know the new way to the far phone, which hangs up by itself
    dora.hang_up()
    wait_until(site.holds_no_media, 60.0, "the end of all mappings")


def assert_more_is_heard(first: Baresip, second: Baresip) -> None:
    """Fail unless both hear more of each other from now on."""
    ends = ((first, second), (second, first))
    before = [end.heard(other.tone).seconds for end, other in ends]
    talk()
    for heard, (end, other) in zip(before, ends, strict=True):
        assert end.heard(other.tone).seconds > heard + 1.0, f"{end.user} hears {other.user} no more"
