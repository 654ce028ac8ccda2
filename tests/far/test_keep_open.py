"""Phones behind NATs that forget them soon: natfix keeps those open, so that the phones can be called."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.far.site import Site
from tests.lab.audio import assert_two_way, talk
from tests.lab.far_nat import PORT_RESTRICTED, SYMMETRIC
from tests.lab.host import LabError
from tests.lab.lab import Lab

pytestmark = pytest.mark.lab
FORGOTTEN = 14      # seconds after which the far NAT forgets
QUIET = 30.0        # seconds in which nobody calls
CONFIG = '[far_end]\nkeep_open = "{kind}"\nkeep_open_every = 10\nkeep_open_longest = 10\n'


def site_of(make_lab: Callable[..., Lab], nat: str, kind: str) -> Site:
    """A site whose far NAT has a short memory."""
    site = Site(make_lab, nat, PORT_RESTRICTED, phones=1, config=CONFIG.format(kind=kind))
    for name in ("udp_timeout", "udp_timeout_stream"):
        site.lab["nat1"].run(["sysctl", "-qw", f"net.netfilter.nf_conntrack_{name}={FORGOTTEN}"])
    return site


def far_row(site: Site) -> dict[str, Any]:
    """Return what `natfix registrations` says of the far phone."""
    rows = site.natfix.json("registrations")["registrations"]
    return next(row for row in rows if "signs" in row and row["aor"].startswith("dora"))


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
