"""tools/bench: the shape of what it measures and reports; no test here looks at a clock."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import pytest

from natfix.commands import Verdict
from natfix.engine import Path as QueuePath
from tests.bench import __main__ as bench
from tests.bench import engine_alone, keeping, latency, replaying, rtp
from tests.bench.engine_alone import Feeder
from tests.bench.messages import CallPackets
from tests.bench.report import ROWS, missed, section, table, value_at, write_json
from tests.bench.stamps import Seen, transits
from tests.lab.host import LabError
from tests.readme import README, write_section

# What issue 3 asks for by name.
KEYS = {
    "engine_us.invite", "engine_us.in_dialog", "cpu_per_call.natfix_over_kamailio_rtpengine",
    "cpu_per_call.natfix_over_queue_accept_only", "latency_ms.p50", "latency_ms.p99",
    "calls_per_second.sustained", "cost_growth.at_10000_calls", "memory_mb", "longest_pause_ms",
    "rtp.over_masquerade", "rtp.natfix_cpu_ticks", "rtp.queued_packets",
}
PROFILE = [" 99.0 % engine.py"]


def recorded(**figures: Any) -> dict[str, Any]:
    """Return the results of a run in which everything came out well, but for *figures*."""
    budget = {"queue_us": 84, "engine_us": 200, "kernel_commands_us": 80, "rest_us": 40}
    return {
        "date": "2026-11-21T12:00:00+00:00", "kernel": "6.1.0", "processor": "Some", "cores": 2,
        "load_average": 0.1, "python": "3.11.2", "peers": {"kamailio": "5.6.3"}, "quick": False,
        "profiles": {"engine": PROFILE, "daemon": PROFILE}, "failures": [], "problems": {},
        "engine_us": {"invite": 49.0, "in_dialog": 19.0, "far": {"invite": 60.0, "in_dialog": 20.0}},
        "keep_open": {"options": 2.1, "packet": 0.5},
        "cpu_per_call": {"natfix_over_kamailio_rtpengine": 0.29, "natfix_over_queue_accept_only": 4.8,
                         "budget": budget},
        "latency_ms": {"p50": 0.2, "p99": 1.0}, "calls_per_second": {"sustained": 500},
        "cost_growth": {"at_10000_calls": 1.0}, "memory_mb": 190.0, "longest_pause_ms": 3.0,
        "rtp": {"over_masquerade": 0.99, "interval_95": [0.98, 1.0],
                "natfix_cpu_ticks": 0, "queued_packets": 0},
        "nft": {"list_ruleset_s": 0.1, "own_commands_s": 0.1},
        "replay": {"per_100000_messages_s": 14.0, "peak_mb": 150.0, "rtp_s_per_gb": 15.0,
                   "small_capture_s": 0.3}, **figures,
    }


def test_every_figure_has_its_row() -> None:
    """Each key of the issue, and each part of the budget, is a row of the table, and in a run's JSON."""
    keys = [row.key for row in ROWS]
    assert set(keys) >= KEYS
    assert len(keys) == len(set(keys))
    assert [key for key in keys if value_at(recorded(), key) is None] == []


def test_replay_section_has_its_keys() -> None:
    """natfix-replay's section runs the real command, and fills every row that the table has for it."""
    found = replaying.measure(14, 0.001)
    rows = {row.key for row in ROWS if row.key.startswith("replay.")}
    assert {f"replay.{key}" for key in found["replay"]} == rows
    assert all(value > 0 for value in found["replay"].values())


def test_engine_section_has_its_keys() -> None:
    """The engine's section measures all seven messages of a call and brings its profile along."""
    found = engine_alone.measure(4)
    for kind in (found["engine_us"], found["engine_us"]["far"]):
        assert kind["invite"] > 0
        assert kind["in_dialog"] > 0
        assert set(kind["by_message"]) == set(CallPackets._fields)
    assert any("receive_packet" in line for line in found["profiles"]["engine"])


def test_keeping_section_has_its_keys() -> None:
    """Every phone is sent something in time, of either kind, and each OPTIONS is answered."""
    found = keeping.measure(20, 30)
    assert {f"keep_open.{key}" for key in found["keep_open"]} <= {row.key for row in ROWS}
    engine, now = keeping.registered("options", 3)
    packets = keeping.due(engine, now + 30) + keeping.due(engine, now + 30.1)
    for packet in packets:
        outcome = engine.receive_packet(keeping.answer_to(packet), keeping.INWARD, now + 30)
        assert outcome.verdict is Verdict.DROP
    assert len(packets) == engine.counters["keep-alives answered"] == 3


def test_far_calls_are_what_they_are_called() -> None:
    """The calls of far phones are recognised as such, and their SDP is shown at the gateway."""
    feeder, rules = Feeder(of_far=True), set()

    def receive(_name: str, packet: bytes, path: QueuePath) -> None:
        rules.update(note.rule for note in feeder.engine.receive_packet(packet, path, feeder.now).notes)

    feeder.feed(engine_alone._calls(feeder, 2), receive)
    assert rules >= {"far-end", "far-contact", "sdp-connection"}


@pytest.mark.parametrize("of_far", [False, True])
def test_calls_leave_no_garbage_cycles(of_far: bool) -> None:
    """The daemon rests its garbage collector while calls go well: they must not need it."""
    feeder = Feeder(of_far)
    calls = engine_alone._calls(feeder, 10)
    gc.collect()
    gc.disable()
    try:
        feeder.feed(calls, lambda _name, packet, path: feeder.engine.receive_packet(packet, path, feeder.now))
        while (timer := feeder.engine.next_timeout()) is not None and timer < feeder.now + 100:
            feeder.engine.handle_timer(timer)
            feeder.engine.pop_changes()
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_whole_run_writes_json_and_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's JSON holds what its sections found; --from and --write make the README's table of it."""
    monkeypatch.setenv("NATFIX_CALLER", str(tmp_path))
    monkeypatch.setattr(bench.leftovers, "sweep", list)
    readme = tmp_path / "README.md"
    rates = {"over_masquerade": 1.0, "interval_95": [0.9, 1.1]}
    readme.write_text("<!-- tools/bench --write: begin -->\nold\n<!-- tools/bench --write: end -->\nrest\n")
    monkeypatch.setattr(bench, "write_section", lambda tool, text: write_section(tool, text, readme))
    monkeypatch.setattr(bench, "SECTIONS", {
        "one": bench.Section("one", dict, lambda: {"rtp": rates}),
        "two": bench.Section("two", dict, lambda: {"rtp": {"queued_packets": 0}, "memory_mb": 250.0}),
    })
    assert bench.main(["--quick", "--json", "out.json"]) == 0
    results = json.loads((tmp_path / "out.json").read_text())
    assert results["rtp"] == {**rates, "queued_packets": 0}
    assert bench.main(["--from", "out.json", "--write"]) == 0
    text = readme.read_text()
    assert "| RTP packets per second over masquerade | at least 0.97 | 1 (0.900 to 1.100) | ok |" in text
    assert "| 250 MB | missed |" in text
    assert "old" not in text
    assert text.endswith("rest\n")


def test_failure_is_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A section that fails is tried once more; then it has no figure, the exit code is 1 and others go on."""
    tried: list[int] = []

    def fails() -> dict[str, Any]:
        tried.append(1)
        raise LabError("3 of 400 calls failed")

    monkeypatch.setenv("NATFIX_CALLER", str(tmp_path))
    monkeypatch.setattr(bench.leftovers, "sweep", list)
    monkeypatch.setattr(bench, "SECTIONS", {
        "bad": bench.Section("bad", fails, fails),
        "good": bench.Section("good", lambda: {"memory_mb": 1.0}, dict),
    })
    assert bench.main(["--json", "out.json", "--write"]) == 1
    results = json.loads((tmp_path / "out.json").read_text())
    assert len(tried) == len(results["failures"]) == 2
    assert list(results["problems"]) == ["bad"]
    assert results["memory_mb"] == 1.0


def test_missed_marks_are_told_with_their_profile() -> None:
    """A missed mark is reported as it is, with the profile that explains it; a run without needs none."""
    good, bad = recorded(), recorded(engine_us={"invite": 130.0, "in_dialog": 19.0})
    assert missed(good) == []
    assert PROFILE[0] not in section(good)
    assert [row.key for row in missed(bad)] == ["engine_us.invite"]
    assert "130 us missed" in " ".join(table(bad).split())
    assert "| 130 us | missed |" in section(bad)
    assert PROFILE[0] in section(bad)


def test_readme_has_the_markers() -> None:
    """README.md has the place that --write fills."""
    text = README.read_text()
    assert text.index("<!-- tools/bench --write: begin -->") < text.index("<!-- tools/bench --write: end -->")


def test_write_takes_the_whole_bench(capsys: pytest.CaptureFixture[str]) -> None:
    """Half a bench, or a quick one, does not become the README's table."""
    for options in (["--quick"], ["--only", "engine"]):
        with pytest.raises(SystemExit):
            bench.main(["--write", *options])
        assert "whole bench" in capsys.readouterr().err


def test_transits_pair_copies_in_order() -> None:
    """A message is matched with itself on the other link, the second copy with the second."""
    key = (b"id", b"CSeq: 1 INVITE", b"")
    inside = [Seen(1.0, False, key), Seen(2.0, False, key)]
    outside = [Seen(1.001, True, key), Seen(2.003, True, key)]
    assert [round(value, 3) for value in transits(inside, outside)] == [1.0, 3.0]


def test_percentiles_and_intervals() -> None:
    """p99 is a value that occurred; both lengths of an RTP run have their Student quantile."""
    assert latency.percentile([float(value) for value in range(100)], 99) == 99.0
    assert set(rtp.STUDENT_95) == {7, 30}


def test_json_is_whole_after_each_section(tmp_path: Path) -> None:
    """What was measured before an interruption is in the file."""
    write_json(tmp_path / "out.json", recorded())
    assert json.loads((tmp_path / "out.json").read_text()) == recorded()
