"""tools/compare for real: three scenarios and the controls in all four worlds; and a peer set up wrongly."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.compare.cell import FAILS, WORKS, Cell, parts_of, play_part
from tests.compare.table import CONTROLLED, Invalid, check
from tests.compare.worlds import WORLDS, OutboundProxy
from tests.lab.host import PROJECT
from tests.lab.lab import Lab

pytestmark = pytest.mark.lab

TIME_LIMIT = 280.0      # seconds; it takes 90 on two idle processors
COMMAND = (sys.executable, "-m", "tests.compare", "--scenarios", "18,23,28", "--json")
INSIDE_BYE = r"BYE sip:alice@192\.168\.1\.10:5060, 203\.0\.113\.50:5060 -> 192\.168\.1\.5:5060, an inside .*"
INSIDE_RTP = r"does not hear \S+: \d+ packets 203\.0\.113\.60:\d+ -> 192\.168\.1\.10:\d+, an inside address"
FAR_CALL = r"calls full-cone: .*"
# What decides a cell that fails, as a regular expression; all others work.
DECIDED = {
    ("masquerade", 0): rf"plain: alice {INSIDE_RTP} \(1 of 2 parts\)",
    ("masquerade", 18): INSIDE_BYE,
    ("masquerade", 23): rf"phone1:12000 {INSIDE_RTP}",
    ("masquerade", 28): FAR_CALL,
    ("helper", 28): FAR_CALL,
    # The kernel's helper does not see Record-Route, which the proxy inside adds.
    ("helper", 18): INSIDE_BYE,
    # rtpengine takes RTP from anybody; it may even send its own there.
    ("proxy", 23): r".* 203\.0\.113\.99:15000\b.*",
}


@pytest.fixture
def peers(make_lab: Callable[..., Lab]) -> None:
    """Skip where a lab cannot be made, or where this machine lacks one of the peers: no comparison then."""
    for world in WORLDS.values():
        if lacking := world.lacking():
            pytest.skip(f"{world.title} cannot be compared with: this machine lacks {lacking}")


@pytest.mark.usefixtures("peers")
def test_three_scenarios_and_the_controls_in_four_worlds(tmp_path: Path) -> None:
    """Who works works, who fails fails for the reason that is known, and the run is valid."""
    process = subprocess.Popen([*COMMAND, str(tmp_path / "run.json")], cwd=PROJECT, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        printed, _ = process.communicate(timeout=TIME_LIMIT)
    finally:
        process.send_signal(signal.SIGINT)      # it takes its labs down, where it still runs
        process.wait()
    assert process.returncode == 0, printed
    rows = json.loads((tmp_path / "run.json").read_text())["scenarios"]
    cells = {(world, int(scenario)): cell for scenario, row in rows.items() for world, cell in row.items()}
    assert set(cells) == {(world, scenario) for world in WORLDS for scenario in (0, 18, 23, 28)}
    for key, cell in cells.items():
        assert cell["verdict"] == (FAILS if key in DECIDED else WORKS), f"{key}\n{printed}"
        assert re.fullmatch(DECIDED.get(key, ""), cell["evidence"]), f"{key}: {cell['evidence']}"
    assert "compare: 9 of 16 cells work" in printed


class WithoutRelay(OutboundProxy):
    """A proxy whose relay has died."""

    def stand(self) -> None:
        super().stand()
        assert self.proxy.rtpengine is not None
        self.proxy.rtpengine.kill()


@pytest.mark.usefixtures("peers")
def test_a_peer_that_is_set_up_wrongly_makes_the_run_invalid() -> None:
    """The control call is no formality: without its relay the proxy fails it, for the audio."""
    assert set(CONTROLLED) == {"helper", "proxy"}
    plain = play_part(WithoutRelay, parts_of(0)[0])
    assert plain.verdict == FAILS
    assert "does not hear" in plain.evidence
    with pytest.raises(Invalid, match="a control call fails with Kamailio, rtpengine: plain: "):
        check([Cell("proxy", 0, (plain,)), Cell("helper", 0, (plain._replace(verdict=WORKS),))])
