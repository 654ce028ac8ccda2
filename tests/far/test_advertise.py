"""A gateway that sits behind a NAT itself: what it shows is an address that others see, told or learnt."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.far.calls import OPEN, CallingSite
from tests.far.site import USERS
from tests.far.test_pbx_behind import FORWARD, PBX
from tests.lab.host import wait_until
from tests.lab.lab import Lab
from tests.lab.programs import Kamailio
from tests.lab.programs.stun_server import StunServer

pytestmark = pytest.mark.lab
SEEN, HIDDEN, STUN = "203.0.113.7", "10.0.0.2", "203.0.113.50"
SERVER = "192.168.1.5"
# The box of the provider's, with the forwards that its owner has made in it.
UPSTREAM = """
table ip nat {
    chain prerouting {
        type nat hook prerouting priority dstnat;
        iifname "outside" udp dport { 5060, 30000-39999 } dnat to HIDDEN
    }
    chain postrouting {
        type nat hook postrouting priority srcnat;
        oifname "outside" masquerade
    }
}
table ip filter {
    chain input {
        type filter hook input priority filter;
        iifname "outside" ct state new drop
    }
}
"""


class HiddenSite(CallingSite):
    """A gateway behind an upstream NAT, a PBX inside, and *advertise*."""

    registrar = SEEN

    def __init__(self, make_lab: Callable[..., Lab], *kinds: str, advertise: str) -> None:
        self.lab = make_lab("double-nat", kinds=kinds)
        self.lab["upstream"].run(["nft", "-f", "-"], input=UPSTREAM.replace("HIDDEN", HIDDEN))
        self.rules(FORWARD.format(pbx=PBX))
        self.stun = self.lab.start(StunServer())
        self.natfix = self.lab.start_natfix(
            f'[inside]\npbx = ["{PBX}"]\n[outside]\nadvertise = "{advertise}"\n')
        self.pbx = self.lab.start(Kamailio("pbx", users=USERS, aliases=(SEEN,)))


@pytest.mark.parametrize("advertise", [SEEN, f"stun:{STUN}"])
def test_calls(make_lab: Callable[..., Lab], advertise: str) -> None:
    """Told or learnt: far phones and inside ones call each other, and nothing is left."""
    site = HiddenSite(make_lab, "port-restricted", "symmetric", advertise=advertise)
    assert site.natfix.json("status")["outside_address"] == SEEN
    dora, emil, ines = site.phone("dora"), site.phone("emil"), site.phone("ines", PBX)
    for caller, called in ((dora, ines), (ines, dora), (dora, emil)):
        site.call(caller, called)
    assert HIDDEN not in site.natfix.run("registrations")


def test_a_silent_server(make_lab: Callable[..., Lab]) -> None:
    """The last good answer is kept, also over a restart, and the log says what is wrong."""
    site = HiddenSite(make_lab, "port-restricted", advertise=f"stun:{STUN}")
    assert site.stun.process is not None
    site.stun.process.kill()
    site.natfix.stop()
    site.natfix.start()
    assert site.natfix.json("status")["outside_address"] == SEEN
    wait_until(lambda: f"the STUN server {STUN} " in site.natfix.log(), 5.0, "a word on the server")
    assert f"{SEEN} is shown until then" in site.natfix.log()


class HiddenServer(CallingSite):
    """One server with PBX and natfix among its phones, behind a NAT box that only forwards."""

    registrar = SEEN

    def __init__(self, make_lab: Callable[..., Lab], *kinds: str) -> None:
        self.lab = make_lab("hidden-server", kinds=kinds)
        self.lab["upstream"].run(["nft", "-f", "-"], input=UPSTREAM.replace("HIDDEN", SERVER))
        self.rules(OPEN + "insert rule inet firewall forward ip saddr 192.168.1.0/24 accept\n")
        self.natfix = self.lab.start_natfix(
            f'[outside]\nadvertise = "{SEEN}"\nintranet = ["192.168.1.0/24"]\n[gateway]\npbx = "local"\n')
        self.pbx = self.lab.start(Kamailio("gateway", users=USERS, aliases=(SEEN,)))


def test_a_server_behind_a_nat(make_lab: Callable[..., Lab]) -> None:
    """sipXecs' case: far phones reach it at the NAT's address, those around it directly."""
    site = HiddenServer(make_lab, "port-restricted", "symmetric")
    dora, emil, ines = site.phone("dora"), site.phone("emil"), site.phone("ines", SERVER)
    for caller, called in ((dora, ines), (ines, dora), (dora, emil)):
        site.call(caller, called)


def test_media_that_ends_on_the_server(make_lab: Callable[..., Lab]) -> None:
    """The same with a UA on the server itself, as of a PBX that anchors media."""
    site = HiddenServer(make_lab, "symmetric")
    dora, box = site.phone("dora"), site.phone("fritz", SERVER, host="gateway", sip_port=5070)
    site.call(dora, box)
    site.call(box, dora)
