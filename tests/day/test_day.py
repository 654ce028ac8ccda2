"""A day in the life, compressed: two hundred calls, and all that happens to a gateway, in a minute."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.day.day import ADDRESS, CALLS, Day, DayInTheLife, Packages
from tests.deb.build import BuildError, later_version, package
from tests.lab.host import wait_until
from tests.lab.lab import Lab
from tests.soak.watch import MEDIA_MAPS, elements

pytestmark = pytest.mark.lab

LATER = "99.0"


@pytest.fixture
def packages(tmp_path: Path) -> Packages:
    try:
        first = package()
    except BuildError as problem:
        pytest.skip(f"no package: {str(problem).splitlines()[-1]}")
    later = tmp_path / "later"
    later.mkdir()
    return Packages(first, later_version(first, LATER, later), tmp_path / "root")


def test_a_day_in_the_life(make_lab: Callable[..., Lab], packages: Packages) -> None:
    """200 calls through two reloads of the firewall, kill -9, a hang that the watchdog ends, an upgrade by a
    newer package and a new outside address: no call fails, and no RTP packet is lost, but the last,
    until phones have registered and refreshed their calls. Afterwards nothing is left."""
    lab = make_lab(phones=4)

    async def live() -> tuple[Day, DayInTheLife]:
        life = DayInTheLife(lab, packages)
        return await life.live(), life

    day, life = asyncio.run(live())
    print(day)
    assert day.counts["calls"] == CALLS
    assert day.failures == []
    assert day.results == ["signal", "watchdog", "success"]
    assert [version.startswith(LATER) for version in day.versions] == [False, True]
    assert min(event.standing for event in day.events) > 0
    assert day.strays == 0
    assert sorted(set(day.lost) - set(day.lost_in(ADDRESS))) == []
    assert day.counts["rtp received"] > 100 * CALLS
    wait_until(lambda: not life.natfix.request("status")["calls"], 10.0, "the end of natfix's last call")
    wait_until(lambda: not elements(lab.gateway).keys() & set(MEDIA_MAPS), 10.0, "the end of media elements")
