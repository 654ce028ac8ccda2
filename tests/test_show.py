"""What the asking commands print, from answers of a real engine; the JSON ones obey their schemas."""

from __future__ import annotations

import json
from typing import Any

import pytest

from natfix.agents import Agents
from natfix.journal import Decision, Journal
from natfix.packet import datagram
from natfix.show import TEXTS, calls_text, notes_text, registrations_text, status_text
from tests.playbook import Delivery, World
from tests.schema import problems

Answer = dict[str, Any]
NAMES = [
    {"name": "sip.example.net", "kind": "peer", "addresses": ["198.51.100.30", "10.0.0.1"],
     "answered_ago": 75.0, "asked_again_in": 225.0},
    {"name": "example.org", "kind": "domain", "addresses": ["198.51.100.31"], "answered_ago": 7300.0,
     "asked_again_in": 12.0, "problem": "no DNS server answers", "problem_since": "2026-11-21T12:00:00.000Z"},
    {"name": "new.test", "kind": "domain", "addresses": [], "asked_again_in": 0.0},
]


@pytest.fixture
def world() -> World:
    """One registered phone in one call with two-way audio, one packet each way."""
    world = World()
    world.register(world.phone)
    call = world.call(world.phone, world.provider)
    world.assert_two_way_audio(call)
    world.poll_counters()
    return world


def answer(world: World, command: str) -> Answer:
    """Return what the daemon would answer, after its way through JSON."""
    now = world.now
    shell: Answer = {
        "version": "1.2.3", "pid": 4711, "uptime": 3700.5, "shell": {"packets": 7},
        "mode": "trial", "confirm_in": 47.0,
        "queue": {"number": 5060, "overflows": 0, "waiting": 0, "dropped": 0},
        "state_file": {"path": "/var/lib/natfix/state.sqlite", "failed_writes": 0},
        "names": [],
    }
    journal, agents = Journal(), Agents()
    journal.decision_listeners.append(agents.on_decision)
    for entry in world.log:
        if isinstance(entry, Delivery):
            raw = datagram(entry.source, entry.destination, entry.payload)
            journal.record(Decision(entry.at, "forward lan0 wan0", entry.outcome, dropped=False, raw=raw))
    answers: dict[str, Answer] = {
        "status": {**shell, "audio": {"watched": 1, "one_way": 0}, **world.engine.status(now)},
        "calls": {"calls": world.engine.calls(now)},
        "registrations": {"registrations": world.engine.registrations(now)},
        "notes": {"decisions": journal.entries()},
        "uas": {"uas": agents.rows(("wan0",), now)},
    }
    return dict(json.loads(json.dumps({"schema_version": 1, **answers[command]})))


@pytest.mark.parametrize("command", TEXTS)
def test_answer_obeys_its_schema(world: World, command: str) -> None:
    """What a program gets with --json is what the shipped schema says."""
    assert problems(answer(world, command), command) == []


@pytest.mark.parametrize("command", TEXTS)
def test_schema_is_closed(world: World, command: str) -> None:
    """A key that the schema does not know, and one that is missing, are noticed."""
    made = answer(world, command)
    assert problems({**made, "surprise": 1}, command) == ["$: surprise is not in the schema"]
    del made["schema_version"]
    assert problems(made, command) == ["$: schema_version is missing"]


def test_status(world: World) -> None:
    """The state of things, one line each."""
    text = status_text(answer(world, "status"))
    assert "natfix         1.2.3, process 4711, up 1h01m" in text
    assert "mode           on trial: taken back in 47s unless you run `natfix confirm`" in text
    assert "calls          1, and 0 subscriptions" in text
    assert "registrations  1" in text
    assert "queue 5060     overflows 0, waiting 0, dropped 0" in text


def test_modes(world: World) -> None:
    """An observer says that it changes nothing."""
    told = {**answer(world, "status"), "mode": "observe"}
    assert "mode           observes, and changes nothing" in status_text(told)
    assert "mode           in force" in status_text({**told, "mode": "fix"})


def test_who_floods_is_named(world: World) -> None:
    """`natfix status` tells whose packets were dropped for their rate, and how many."""
    calm = answer(world, "status")
    assert "too fast       nobody" in status_text(calm)
    assert "too fast       192.168.1.11 4601" in status_text({**calm, "over_rate": {"192.168.1.11": 4601}})


def test_call_with_its_streams(world: World) -> None:
    """A call is one line; below it each stream with its way through the gateway and the kernel's counters."""
    head, call, *streams = calls_text(answer(world, "calls")).splitlines()
    assert head.split() == [
        "NR", "FROM", "TO", "STATE", "FOR", "AUDIO", "INSIDE", "OUTSIDE", "PEER", "CALL-ID"]
    assert "confirmed" in call
    assert any(
        line.startswith("    audio: 192.168.1.10:") and " <-> 203.0.113.1:30000 <-> 198.51.100." in line
        and line.endswith("out 1, in 1 packets") for line in streams)


def test_strangers_are_shown_where_there_were_some(world: World) -> None:
    """Packets that the guard refused stand at the stream they were for."""
    made = answer(world, "calls")
    made["calls"][0]["streams"][0]["refused"] = 3
    assert "refused 3 from strangers" in calls_text(made)


def test_counters_that_are_missing_are_said_to_be(world: World) -> None:
    """Without accounting nobody is shown a 0 that was never counted."""
    made = answer(world, "calls")
    del made["calls"][0]["streams"][0]["packets_out"]
    assert "packets not counted (net.netfilter.nf_conntrack_acct is off" in calls_text(made)


def test_registration(world: World) -> None:
    """A binding shows both endpoints, the registrar and how long it lasts."""
    head, line = registrations_text(answer(world, "registrations")).splitlines()
    assert head.split("  ")[0] == "ADDRESS OF RECORD"
    assert "192.168.1.10:5060  203.0.113.1:5060  198.51.100.20:5060" in line


def test_notes_say_what_and_why(world: World) -> None:
    """Each change shows old, new and the reason."""
    text = notes_text(answer(world, "notes"))
    assert "'192.168.1.10" in text
    assert " => '203.0.113.1" in text
    assert "RFC 3261" in text


def test_nothing_to_show() -> None:
    """Empty answers are one sentence, not an empty screen."""
    assert calls_text({"calls": []}) == "no calls"
    assert registrations_text({"registrations": []}) == "no registrations"
    assert notes_text({"decisions": []}) == "no notes yet"


def test_strangers_cannot_steer_the_terminal(world: World) -> None:
    """A caller's name with an escape sequence arrives as plain text."""
    made = answer(world, "calls")
    made["calls"][0]["from"] = "sip:\x1b[2J@example.org"
    assert "\x1b" not in calls_text(made)


def test_status_says_what_still_helps_phones_with_tls(world: World) -> None:
    """natfix cannot read their messages: the operator is told what can be done, once there are some."""
    said = answer(world, "status")
    assert "none seen" in status_text(said)
    said["counters"]["streams tls"] = 3
    assert "3 connections were left alone" in status_text(said)


def test_status_tells_of_names(world: World) -> None:
    """Who each name stands for, how old that is, whom nobody lets in, and what fails since when."""
    status = {**answer(world, "status"), "names": NAMES}
    assert problems(status, "status") == []
    status["refused_addresses"] = {"sip.example.net": {"10.0.0.1": "it is a private address"}}
    lines = [line.split("  ", 1) for line in status_text(status).splitlines()]
    said = {line[0].strip(): line[-1].strip() for line in lines}
    assert said["peer sip.example.net"] == (
        "198.51.100.30; answered 1m15s ago; 10.0.0.1 is refused: it is a private address")
    assert said["domain example.org"] == (
        "198.51.100.31; answered 2h01m ago; since 2026-11-21T12:00:00.000Z: no DNS server answers")
    assert said["domain new.test"] == "nobody; never answered"
