"""Phones behind NATs that forget them soon: natfix keeps those open, so that the phones can be called."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.far.calls import OPEN, CallingSite, Site
from tests.far.site import USERS
from tests.far.test_own_pbx import LOCAL
from tests.lab.audio import assert_two_way, talk
from tests.lab.far_nat import PORT_RESTRICTED, SYMMETRIC
from tests.lab.host import LabError, wait_until
from tests.lab.lab import Lab
from tests.lab.programs import Kamailio

pytestmark = pytest.mark.lab
FORGOTTEN = 14      # seconds after which the far NAT forgets
QUIET = 30.0        # seconds in which nobody calls
CONFIG = '[far_end]\nkeep_open = "{kind}"\nkeep_open_every = 10\nkeep_open_longest = {longest}\n'


def site_of(make_lab: Callable[..., Lab], nat: str, kind: str, longest: int = 10) -> Site:
    """A site whose far NAT has a short memory."""
    site = Site(make_lab, nat, PORT_RESTRICTED, phones=1, config=CONFIG.format(kind=kind, longest=longest))
    for name in ("udp_timeout", "udp_timeout_stream"):
        site.lab["nat1"].run(["sysctl", "-qw", f"net.netfilter.nf_conntrack_{name}={FORGOTTEN}"])
    return site


def far_row(site: Site | OwnSite) -> dict[str, Any]:
    """Return what `natfix registrations` says of the far phone."""
    rows = site.natfix.json("registrations")["registrations"]
    return next(row for row in rows if "signs" in row and row["aor"].startswith("dora"))


def wait_for(site: Site | OwnSite, state: str, timeout: float) -> None:
    """Wait until `natfix registrations` calls the far phone *state*."""
    wait_until(lambda: far_row(site)["reachability"] == state, timeout, f"dora is {state}", interval=0.5)


def entries(site: Site) -> list[str]:
    """Return the gateway's conntrack entries with the far NAT."""
    listing = site.lab.gateway.run(["conntrack", "-L", "-p", "udp"]).stdout
    return [line for line in listing.splitlines() if "203.0.113.71" in line]


def test_it_is_forgotten_otherwise(make_lab: Callable[..., Lab]) -> None:
    """With keep_open = "never" the INVITE does not get through the far NAT any more."""
    site = site_of(make_lab, PORT_RESTRICTED, "never")
    site.phone("dora")
    emil = site.phone("emil")
    time.sleep(QUIET)
    with pytest.raises(LabError):
        emil.dial("sip:dora@203.0.113.1", timeout=5.0)
    assert far_row(site)["reachability"] == "unknown"


@pytest.mark.parametrize("kind", ["options", "packet", "refresh"])
@pytest.mark.parametrize("nat", [PORT_RESTRICTED, SYMMETRIC])
def test_it_can_be_called(make_lab: Callable[..., Lab], nat: str, kind: str) -> None:
    """After a silence of twice the NAT's memory, by every means; the gateway has no entry too many."""
    site = site_of(make_lab, nat, kind)
    dora, emil = site.phone("dora"), site.phone("emil")
    time.sleep(QUIET)
    assert len(entries(site)) <= 1
    assert far_row(site)["reachability"] == ("reachable" if kind == "options" else "unknown")
    emil.dial("sip:dora@203.0.113.1")
    talk()
    emil.hang_up()
    dora.wait_closed()
    assert_two_way(emil, dora)
    status = site.natfix.json("status")
    assert status["shell"]["sent"] >= 2
    assert status["shell"]["not_sent"] == 0
    counted = {"options": "keep-alives answered", "packet": "keep-alives", "refresh": "refreshes answered"}
    assert status["counters"][counted[kind]] >= 2


def test_one_that_is_gone(make_lab: Callable[..., Lab]) -> None:
    """Its host answers by ICMP: it is unreachable soon, asked seldom, and nobody else is troubled."""
    site = site_of(make_lab, PORT_RESTRICTED, "options")
    dora, emil = site.phone("dora"), site.phone("emil")
    wait_for(site, "reachable", 15.0)
    assert dora.process is not None
    dora.process.kill()
    wait_for(site, "unreachable", 40.0)
    sent = site.natfix.json("status")["counters"]["keep-alives"]
    time.sleep(15.0)
    assert site.natfix.json("status")["counters"]["keep-alives"] <= sent + 2    # emil's
    assert site.natfix.log().count("far-unreachable") == 1
    assert site.natfix.json("status")["shell"]["not_sent"] == 0
    emil.register()


def test_it_goes_on_after_a_crash(make_lab: Callable[..., Lab]) -> None:
    """Killed and started again natfix keeps the NAT of a phone open that it knows from before."""
    site = site_of(make_lab, PORT_RESTRICTED, "options")
    dora, emil = site.phone("dora"), site.phone("emil")
    wait_for(site, "reachable", 15.0)
    site.natfix.kill()
    site.natfix.start()
    assert far_row(site)["reachability"] == "unknown"
    wait_for(site, "reachable", 15.0)
    time.sleep(QUIET / 2)
    emil.dial("sip:dora@203.0.113.1")
    talk()
    assert_two_way(emil, dora)


def test_longer_silences_are_found(make_lab: Callable[..., Lab]) -> None:
    """A phone that is told when to register comes less often, as long as its NAT allows it."""
    site = site_of(make_lab, PORT_RESTRICTED, "refresh", longest=60)
    dora, emil = site.phone("dora"), site.phone("emil")
    told: list[int] = []
    for _ in range(100):
        told.append(far_row(site)["survived"])
        time.sleep(1.0)
    assert FORGOTTEN * 0.6 <= max(told) <= FORGOTTEN + 2
    emil.dial("sip:dora@203.0.113.1")
    talk()
    assert_two_way(emil, dora)


class OwnSite(CallingSite):
    """A gateway with a PBX of its own."""

    def __init__(self, make_lab: Callable[..., Lab], kind: str) -> None:
        self.lab = make_lab("pbx-on-gateway", kinds=(kind,))
        self.rules(OPEN)
        self.natfix = self.lab.start_natfix(LOCAL + CONFIG.format(kind="options", longest=10))
        self.pbx = self.lab.start(Kamailio("gateway", users=USERS))


def test_a_pbx_on_the_gateway(make_lab: Callable[..., Lab]) -> None:
    """The answers come to the gateway itself; natfix takes them from there, too."""
    site = OwnSite(make_lab, PORT_RESTRICTED)
    site.phone("dora")
    wait_for(site, "reachable", 15.0)
    assert 0 < far_row(site)["answer_ms"] < 1000
    assert site.natfix.json("status")["shell"]["not_sent"] == 0
