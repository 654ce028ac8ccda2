"""Scenario 33: the disk of the state file is full, from before a call to behind it."""

from __future__ import annotations

import pytest

from tests.lab.audio import assert_two_way, talk
from tests.lab.gateway import Natfix
from tests.lab.host import wait_until
from tests.lab.lab import Lab
from tests.scenarios.checks import assert_nothing_left
from tests.scenarios.phones import two_phones

pytestmark = pytest.mark.lab

FILL = "dd if=/dev/zero of={}/filler bs=4096 2>/dev/null || true"


def test_the_disk_is_full(lab: Lab) -> None:
    """A call comes about while nothing can be written, with audio both ways and its registration; `natfix
    status` and the log say so, and when it is over."""
    folder = lab.path("disk")
    folder.mkdir()
    natfix = Natfix(lab)
    natfix.config.write_text(natfix.config.read_text().replace(
        str(natfix.state_file), str(folder / "state.sqlite")))
    natfix.first = f"mount -t tmpfs -o size=512k tmpfs {folder}"
    natfix.start()
    assert natfix.process is not None
    inside = ["nsenter", "-t", str(natfix.process.pid), "-m", "sh", "-c"]
    lab.gateway.run([*inside, FILL.format(folder)])
    alice, bob = two_phones(lab)
    natfix.process.wait_for("cannot write state file", 10.0)
    wait_until(lambda: shortages(natfix) == ["state_file"], 10.0, "the alarm")
    alice.dial(bob.uri)
    talk()
    assert_two_way(alice, bob)
    lab.gateway.run([*inside, f"rm {folder}/filler"])
    natfix.process.wait_for("is written again", 10.0)
    wait_until(lambda: not shortages(natfix), 10.0, "the alarm's end")
    alice.hang_up()
    bob.wait_closed()
    bob.dial(alice.uri)
    alice.hang_up()
    assert natfix.request("status")["state_file"]["failed_writes"] > 0
    assert_nothing_left(lab, natfix)


def shortages(natfix: Natfix) -> list[str]:
    """Return what has an alarm now."""
    return [each["resource"] for each in natfix.request("status")["shortages"]]
