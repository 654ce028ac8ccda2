"""A far NAT that has another outside address from one moment to the next, and says nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.far.calls import Site
from tests.lab.audio import assert_two_way, talk
from tests.lab.host import wait_until
from tests.lab.lab import Lab
from tests.lab.programs import Baresip
from tests.lab.topology import PBX_ADDRESS

pytestmark = pytest.mark.lab
OLD, NEW = "203.0.113.71", "203.0.113.75"
SHORT = 6       # seconds after which the phone registers anew


def hosts(site: Site) -> set[str]:
    """Return the addresses that natfix sees dora register from."""
    rows = site.natfix.json("registrations")["registrations"]
    return {row["outside"].partition(":")[0] for row in rows
            if "signs" in row and row["aor"].startswith("dora")}


def move(make_lab: Callable[..., Lab]) -> tuple[Site, Baresip, Baresip]:
    """Return a site with dora and emil in a call, in which dora's far NAT has got another address."""
    site = Site(make_lab, "symmetric", "port-restricted", phones=1)
    dora, emil = site.phone("dora", expires=SHORT), site.phone("emil")
    dora.dial(emil.uri)
    mark, nat = len(dora.events), site.lab["nat1"]
    nat.run(["ip", "address", "del", f"{OLD}/24", "dev", "outside"])
    nat.run(["ip", "address", "add", f"{NEW}/24", "dev", "outside"])
    nat.run(["ip", "route", "replace", "default", "via", "203.0.113.254"])
    nat.run(["conntrack", "-F"])
    dora.wait_event("REGISTER_OK", since=mark, timeout=SHORT + 5)
    wait_until(lambda: hosts(site) == {NEW}, SHORT + 8, "the end of the old binding", interval=0.3)
    return site, dora, emil


def test_another_address(make_lab: Callable[..., Lab]) -> None:
    """A stream from an address that nobody has named is refused and counted; after the next REGISTER the
    phone is called at its new address."""
    site, dora, emil = move(make_lab)
    wait_until(lambda: site.natfix.json("status")["refused_packets"] > 0, 25.0, "refused packets")
    mark = len(emil.events)
    dora.hang_up()
    emil.wait_closed(since=mark)
    ines = site.phone("ines", PBX_ADDRESS)
    ines.dial("sip:dora@203.0.113.1")
    talk()
    assert_two_way(ines, dora)


def test_hanging_up_from_another_address(make_lab: Callable[..., Lab]) -> None:
    """Nothing is left of the call, though its BYE came from elsewhere."""
    site, dora, emil = move(make_lab)
    mark = len(emil.events)
    dora.hang_up()
    emil.wait_closed(since=mark)
    wait_until(site.holds_no_media, 10.0, "the end of all mappings")
