"""natfix as the lab starts it: configuration, restart, crash, and the commands that talk to it."""

from __future__ import annotations

import tomllib

import pytest

from tests.lab.gateway import Natfix
from tests.lab.host import LabError
from tests.lab.lab import Lab


@pytest.mark.parametrize(("text", "media", "level"), [
    ("", None, "debug"),
    ('[media]\npolicy = "full"\n', "full", "debug"),
    ('[daemon]\nlog_level = "info"\n[media]\npolicy = "never"\n', "never", "info"),
])
def test_the_daemon_table_is_completed(lab: Lab, text: str, media: str | None, level: str) -> None:
    """A test's own configuration keeps what it says; socket and state file are the lab's."""
    natfix = Natfix(lab, text)
    settings = tomllib.loads(natfix.config.read_text())
    assert settings["daemon"] == {"control_socket": str(natfix.control_socket), "log_level": level,
                                  "state_file": str(natfix.state_file)}
    assert settings.get("media", {}).get("policy") == media


@pytest.mark.lab
def test_start_kill_start_stop_down(lab: Lab) -> None:
    """The daemon comes back after a crash, ends on SIGTERM with 0, and its table goes with down."""
    before = lab.gateway.run(["nft", "-s", "list", "ruleset"]).stdout
    natfix = lab.start_natfix()
    assert "table ip natfix" in lab.gateway.run(["nft", "list", "tables"]).stdout
    natfix.kill()
    natfix.start()
    assert natfix.json("calls")
    assert natfix.stop() == 0
    with pytest.raises(LabError, match="does not run"):
        natfix.stop()
    assert "table ip natfix" in lab.gateway.run(["nft", "list", "tables"]).stdout
    natfix.down()
    assert lab.gateway.run(["nft", "-s", "list", "ruleset"]).stdout == before


@pytest.mark.lab
def test_a_daemon_that_cannot_start_says_why(lab: Lab) -> None:
    """The reason it printed is in the lab's error."""
    with pytest.raises(LabError, match="polizy"):
        lab.start_natfix('[media]\npolizy = "full"\n')
