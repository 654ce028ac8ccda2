"""Scenario 32: the gateway's clock is set by a day, and by a year, in mid-call (tests/lab/wall_clock.c)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.lab.audio import talk
from tests.lab.gateway import Natfix
from tests.lab.host import wait_until
from tests.lab.lab import Lab
from tests.scenarios.checks import assert_nothing_left
from tests.scenarios.phones import two_phones
from tests.scenarios.rtp_gaps import received_stream, watch

pytestmark = pytest.mark.lab

SOURCE = Path(__file__).parents[1] / "lab" / "wall_clock.c"
DAY = 86400


def wall_clock(lab: Lab) -> str:
    """Return where the library is that gives a program a clock of its own; it is compiled."""
    if shutil.which("gcc") is None:
        pytest.skip("not installed: gcc (tools/test installs it)")
    made = lab.path("wall_clock.so")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-o", str(made), str(SOURCE)], check=True)
    return str(made)


def bindings(natfix: Natfix) -> list[tuple[str, int]]:
    """Return who is registered, and for how many seconds more."""
    return [(row["inside"], row["expires_in"]) for row in natfix.json("registrations")["registrations"]]


def test_the_clock_is_set(lab: Lab) -> None:
    """Forward by a day, back by two, and by a year while natfix is down: the registration has the seconds
    left that it had, not one packet of the call is lost, the next call comes about, and each jump is said."""
    offset = lab.path("offset")
    offset.write_text("0")
    natfix = Natfix(lab)
    natfix.environment = {"LD_PRELOAD": wall_clock(lab), "WALL_OFFSET": str(offset)}
    natfix.start()
    alice, bob = two_phones(lab)
    captures = watch(lab)
    alice.dial(bob.uri)
    talk(1.0)
    (inside, before), = bindings(natfix)
    for jump, said in ((DAY, "set forward by 86400 s"), (-DAY, "set back by 172800 s")):
        offset.write_text(str(jump))
        natfix.process.wait_for(said, 10.0)     # type: ignore[union-attr]
    assert len(natfix.json("calls")["calls"]) == 1
    natfix.kill()
    offset.write_text(str(365 * DAY))
    natfix.start()
    assert len(natfix.json("calls")["calls"]) == 1
    (again, left), = bindings(natfix)
    assert again == inside
    assert before - 120 < left <= 3601      # natfix.recent may show it the registrar's answer again
    talk(1.0)
    streams = [received_stream(capture.stop(), lab[host].address) for host, capture in captures.items()]
    assert all(stream.packets > 100 and stream.lost == 0 for stream in streams), streams
    alice.hang_up()
    bob.wait_closed()
    bob.dial(alice.uri)
    wait_until(lambda: len(natfix.json("calls")["calls"]) == 1, 5.0, "the next call")
    bob.hang_up()
    assert_nothing_left(lab, natfix)
