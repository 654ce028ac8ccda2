"""Shared fixtures: the data folder, and labs that explain themselves when a test fails."""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.lab.lab import Lab

PROJECT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("NATFIX_DATA", PROJECT.parent / "shared" / "data"))
LAB_TOOLS = ("ip", "nft", "conntrack", "kamailio", "baresip", "linphonec", "sipp", "tcpdump", "tshark", "ss")

# A shell's background jobs ignore Ctrl-C, and so would all programs that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of third-party captures and messages (NATFIX_DATA); absent: the test is skipped."""
    if not DATA.is_dir():
        pytest.skip(f"no data folder ({DATA}; set NATFIX_DATA)")
    return DATA


@pytest.fixture
def make_lab(request: pytest.FixtureRequest) -> Iterator[Callable[..., Lab]]:
    """Return a function that builds a Lab (same arguments) and removes it after the test."""
    from tests.lab.lab import Lab
    _require_lab()
    labs: list[Lab] = []

    def make(topology: str = "gateway", **options: Any) -> Lab:
        lab = Lab(topology, **options)
        labs.append(lab)
        lab.up()
        return lab

    request.node.lab_list = labs
    yield make
    for lab in reversed(labs):
        lab.down()


@pytest.fixture
def lab(make_lab: Callable[..., Lab]) -> Lab:
    """The ordinary lab: gateway, two phones, a PBX, a provider and one remote phone."""
    return make_lab()


def _require_lab() -> None:
    if os.geteuid():
        pytest.skip("not root: the lab makes network namespaces")
    if missing := [tool for tool in LAB_TOOLS if shutil.which(tool) is None]:
        pytest.skip(f"not installed: {' '.join(missing)} (tools/test installs them)")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Add what the lab's programs printed to the report of a test that fails."""
    outcome = yield
    report = outcome.get_result()       # type: ignore[attr-defined]
    if report.failed and (labs := getattr(item, "lab_list", [])):
        report.sections += [(f"lab {lab.prefix}", lab.report()) for lab in labs]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """End with one line that counts the skipped tests by reason."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(_reason(report.longrepr) for report in skipped)
    text = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common()) or "none"
    terminalreporter.write_line(f"skipped: {len(skipped)}{f' ({text})' if skipped else ''}")


def _reason(longrepr: Any) -> str:
    text = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)
    return str(text).removeprefix("Skipped: ")
