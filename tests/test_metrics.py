"""Metrics in Prometheus' text format, and the alerts that use them."""

from __future__ import annotations

import re
import resource
import stat
from pathlib import Path

import pytest

from natfix.errors import NatfixError
from natfix.metrics import METRICS, metrics_text, write_textfile
from natfix.shipped import shipped
from tests.playbook import World

SAMPLE = re.compile(r'([a-z_]+)(\{[a-z]+="[^"\\\n]*"\})? (-?[0-9.e+]+)')


def status() -> dict[str, object]:
    """Return a daemon's answer with one registered phone in it."""
    world = World()
    world.register(world.phone)
    return {"version": "1.0", "uptime": 5.0, "shell": {"packets": 9, "changed": 8},
            "queue": {"queue_full": 2}, **world.engine.status(world.now)}


def test_every_line_is_a_sample_or_says_what_it_is() -> None:
    """HELP and TYPE come before a metric's samples, once; each sample is a name, labels and a number."""
    named: list[str] = []
    for line in metrics_text(status()).splitlines():
        if line.startswith("# TYPE"):
            named.append(line.split()[2])
        elif not line.startswith("# HELP"):
            found = SAMPLE.fullmatch(line)
            assert found, line
            assert found[1] == named[-1]
    assert len(set(named)) == len(named) == len(METRICS) + 2


def test_numbers_are_the_daemons() -> None:
    """What the status says stands there, under its label; what it does not say is nought."""
    text = metrics_text(status())
    for line in ("natfix_up 1", "natfix_registrations 1", 'natfix_verdicts_total{result="changed"} 8',
                 'natfix_queue_dropped_total{reason="queue_full"} 2', 'natfix_mappings{kind="signalling"} 1',
                 "natfix_errors_total 0"):
        assert f"\n{line}\n" in f"\n{text}"


def test_a_daemon_that_does_not_run_is_down() -> None:
    """One metric tells it, so that an alert can be made of it."""
    assert metrics_text(None).endswith("\nnatfix_up 0\n")


def test_a_textfile_is_there_at_once(tmp_path: Path) -> None:
    """It is readable for node_exporter, nothing else is left, and a wrong place is one sentence."""
    target = tmp_path / "natfix.prom"
    write_textfile(str(target), "natfix_up 1\n")
    assert target.read_text() == "natfix_up 1\n"
    assert stat.S_IMODE(target.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [target]
    with pytest.raises(NatfixError, match="cannot be written"):
        write_textfile(str(tmp_path / "nowhere" / "x.prom"), "")


def test_a_full_disk_is_not_filled_further(tmp_path: Path) -> None:
    """Where the text does not fit, nothing of it is left, and what was there before stays."""
    target = tmp_path / "natfix.prom"
    write_textfile(str(target), "natfix_up 1\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        with pytest.raises(NatfixError, match="cannot be written"):
            write_textfile(str(target), "x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == [target]
    assert target.read_text() == "natfix_up 1\n"


def test_alerts_use_metrics_that_exist() -> None:
    """Every metric that the shipped alert rules name is one that natfix has."""
    rules = shipped("rules", "prometheus/natfix.rules.yml").read_text()
    used = set(re.findall(r"natfix_[a-z_]+", "\n".join(re.findall(r"expr: (.*)", rules))))
    assert used <= {"natfix_up", *(metric.name for metric in METRICS)}
    assert len(used) >= 7
