"""The wheel, installed where the checkout is not: the command runs and finds what comes with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from natfix import __version__
from natfix.config import config_from_text
from natfix.errors import DONE, FINDINGS

ROOT = Path(__file__).parents[1]
TIMEOUT = 240       # seconds; the machine may be busy, and packages come from PyPI
QUEUE_HEADER = Path("/usr/include/libnetfilter_queue/libnetfilter_queue.h")


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run *command* with nothing of this checkout in its environment."""
    clean = {name: os.environ[name] for name in os.environ if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return subprocess.run(
        list(map(str, command)), cwd=cwd, env=clean, capture_output=True, text=True, timeout=TIMEOUT,
        check=False)


def pip(python: Path | str, *arguments: str | Path, cwd: Path) -> None:
    """Run pip; the test is skipped where it cannot reach a package index."""
    done = run(python, "-m", "pip", "--disable-pip-version-check", *arguments, cwd=cwd)
    if "No matching distribution" in done.stderr or "connection" in done.stderr.lower():
        pytest.skip("pip reaches no package index")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built as `pip install .` builds it."""
    folder = tmp_path_factory.mktemp("wheel")
    pip(sys.executable, "wheel", "--no-deps", "--wheel-dir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("natfix-*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment with the wheel in it, far from the checkout."""
    folder = tmp_path_factory.mktemp("elsewhere") / "natfix"
    made = run(sys.executable, "-m", "venv", folder, cwd=folder.parent)
    assert made.returncode == 0, made.stderr
    pip(folder / "bin" / "python", "install", wheel, cwd=folder)
    return folder


def natfix(environment: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(environment / "bin" / "natfix", *arguments, cwd=environment)


def test_version(environment: Path) -> None:
    """The installed command says its version, the one of the metadata."""
    assert natfix(environment, "--version").stdout == f"natfix {__version__}\n"
    shown = run(environment / "bin" / "pip", "show", "natfix", cwd=environment).stdout
    assert f"Version: {__version__}" in shown


def test_nothing_else_is_installed(environment: Path) -> None:
    """The core needs no package of others; the report's template needs one, which brings one along."""
    listed = run(environment / "bin" / "pip", "list", "--format", "json", cwd=environment).stdout
    names = {each["name"].lower() for each in json.loads(listed)}
    assert names <= {"natfix", "pip", "setuptools", "jinja2", "markupsafe"}


def test_rules_come_from_the_wheel(environment: Path) -> None:
    """`natfix rules` finds the shipped rule set inside the installation, and puts the settings in."""
    config = environment / "natfix.toml"
    config.write_text('[outside]\ninterface = "dsl0"\n')
    done = natfix(environment, "rules", "--config", str(config))
    assert done.returncode == 0, done.stderr
    assert 'define outside = { "dsl0" }' in done.stdout
    assert "table ip natfix {" in done.stdout


def test_example_and_quirks_come_from_the_wheel(environment: Path) -> None:
    """The example configuration and the shipped quirks are in the installation, too."""
    done = natfix(environment, "rules", "--example-config")
    config_from_text(done.stdout, "example")
    script = "from natfix.quirks import all_quirks; from natfix.shipped import shipped; " \
             "print(len(all_quirks()), shipped('rules', 'quirks.toml'))"
    count, path = run(environment / "bin" / "python", "-c", script, cwd=environment).stdout.split()
    assert int(count) >= 1
    assert Path(path).is_relative_to(environment)


def test_explanations_come_from_the_wheel(environment: Path) -> None:
    """The catalogue, the products below rules/alg and the scanners are in the installation, all of them."""
    assert natfix(environment, "explain", "D12").stdout.startswith("D12  ")
    shown = natfix(environment, "explain", "--alg").stdout
    script = "from natfix.algs import all_algs; from natfix.replay.symptoms.abuse import scanners; " \
             "print(len(all_algs()), len(scanners()))"
    counts = run(environment / "bin" / "python", "-c", script, cwd=environment).stdout.split()
    assert int(counts[0]) == len(list((ROOT / "rules" / "alg").glob("*.toml")))
    assert int(counts[1]) >= 8
    assert "no ip nat alg sip enable" in shown


def test_replay_runs_without_the_live_extra(environment: Path) -> None:
    """natfix-replay is installed, reads a capture, writes a report, and needs neither root nor `live`."""
    capture, report = ROOT / "pcaps" / "call-natfix.pcapng", environment / "report.html"
    done = run(environment / "bin" / "natfix-replay", "--format", "json", "--report", report, capture,
               cwd=environment)
    assert done.returncode in (DONE, FINDINGS), done.stderr
    document = json.loads(done.stdout)
    assert document["network"]["outside"] == "203.0.113.1"
    assert any(row["edits"] for row in document["messages"])
    assert "<html" in report.read_text()


def test_schemas_come_with_it(environment: Path) -> None:
    """The JSON schemas are part of the package."""
    (package,) = environment.glob("lib/python*/site-packages/natfix")
    assert {path.stem for path in (package / "schemas").glob("*.json")} == {
        path.stem for path in (ROOT / "natfix" / "schemas").glob("*.json")}


def test_check_says_what_is_missing(environment: Path) -> None:
    """Without the extra `live`, check names the missing package and how to get it."""
    document = json.loads(natfix(environment, "check", "--json").stdout)
    entry = next(entry for entry in document["checks"] if entry["name"] == "packages")
    assert "netfilterqueue is missing" in entry["text"]
    assert "natfix[live]" in entry["cure"]


@pytest.mark.skipif(
    not (QUEUE_HEADER.exists() and Path(sysconfig.get_paths()["include"], "Python.h").exists()),
    reason="no headers to compile the package netfilterqueue (tools/test installs them)")
def test_live_extra(environment: Path, wheel: Path) -> None:
    """With the extra `live` nothing is missing any more."""
    pip(environment / "bin" / "python", "install", f"{wheel}[live]", cwd=environment)
    document = json.loads(natfix(environment, "check", "--json").stdout)
    assert [entry["status"] for entry in document["checks"] if entry["name"] == "packages"] == ["ok"]
