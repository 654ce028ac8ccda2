"""sd_notify(3): what is said, when, and that nothing is said where nobody has asked."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from natfix import systemd
from natfix.journal import set_up_log
from natfix.message_ids import KINDS, kind

NONE = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Schedule:
    """Stands in for the loop: keeps the next task, and runs it when told."""

    def __init__(self) -> None:
        self.due: list[tuple[float, Callable[[float], None]]] = []

    def call_at(self, when: float, task: Callable[[float], None]) -> None:
        self.due.append((when, task))

    def turn(self) -> float:
        """Run the next task at its time, and return that."""
        when, task = self.due.pop(0)
        task(when)
        return when


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket at which systemd would listen, and an environment that names it."""
    for name in NONE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ears:
        ears.bind(str(tmp_path / "notify"))
        ears.setblocking(False)
        yield ears


def heard(ears: socket.socket) -> list[str]:
    """Return the lines of the next message; none where there is none."""
    try:
        return ears.recv(1000).decode().split("\n")
    except BlockingIOError:
        return []


def test_nobody_has_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside a unit nothing is sent and nothing is put on the schedule."""
    for name in NONE:
        monkeypatch.delenv(name, raising=False)
    schedule = Schedule()
    systemd.Heartbeat(schedule.call_at, lambda: "fine").begin(0.0)
    assert not schedule.due
    assert not systemd.notify("READY=1")


def test_ready_then_a_beat_at_half_the_watchdog_time(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """WATCHDOG=1 comes twice in the time that systemd waits, and the status only where it has changed."""
    monkeypatch.setenv("WATCHDOG_USEC", "10000000")
    schedule, status = Schedule(), ["idle"]
    systemd.Heartbeat(schedule.call_at, lambda: status[0]).begin(100.0)
    assert heard(listener) == ["READY=1", "STATUS=idle"]
    assert (schedule.turn(), heard(listener)) == (105.0, ["WATCHDOG=1"])
    status[0] = "busy"
    assert (schedule.turn(), heard(listener)) == (110.0, ["WATCHDOG=1", "STATUS=busy"])
    assert (schedule.turn(), heard(listener)) == (115.0, ["WATCHDOG=1"])


def test_a_status_that_fails_does_not_end_the_beat(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The next beat is on the schedule before anything is asked that could fail."""
    monkeypatch.setenv("WATCHDOG_USEC", "2000000")
    schedule, answers = Schedule(), ["fine"]
    systemd.Heartbeat(schedule.call_at, lambda: answers.pop()).begin(0.0)
    with pytest.raises(IndexError):
        schedule.turn()
    assert [when for when, _ in schedule.due] == [2.0]


def test_no_watchdog_no_beat(listener: socket.socket) -> None:
    """A unit without WatchdogSec= hears READY=1 and is left in peace."""
    schedule = Schedule()
    systemd.Heartbeat(schedule.call_at, lambda: "fine").begin(0.0)
    assert heard(listener) == ["READY=1", "STATUS=fine"]
    assert not schedule.due


@pytest.mark.parametrize(("usec", "pid", "seconds"), [
    ("10000000", "", 10.0), ("10000000", "1", 0.0), ("", "", 0.0), ("soon", "", 0.0)])
def test_watchdog_time(usec: str, pid: str, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is for one process (WATCHDOG_PID, if given), in microseconds; nonsense is no time."""
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", pid or str(os.getpid()))
    assert systemd.watchdog_time() == seconds


def test_reloading_carries_the_time(listener: socket.socket) -> None:
    """systemd wants the monotonic time of a reload, in microseconds."""
    systemd.notify_reloading()
    word, stamp = heard(listener)
    assert word == "RELOADING=1"
    assert int(stamp.removeprefix("MONOTONIC_USEC=")) > 0


def test_a_systemd_that_is_gone_is_only_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:
    """natfix goes on without systemd."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    assert not systemd.notify("READY=1")
    assert "systemd cannot be told READY=1" in caplog.text


@pytest.mark.parametrize(("level", "shown"), [
    (logging.ERROR, "<3>lost"), (logging.WARNING, "<4>lost"), (logging.INFO, "<6>lost"),
    (logging.DEBUG, "<7>lost"), (logging.CRITICAL, "<2>lost")])
def test_priorities(level: int, shown: str) -> None:
    """`journalctl -p err` finds what natfix logs as an error."""
    record = logging.LogRecord("natfix", level, "", 0, "lost", None, None)
    assert systemd.JournalFormatter().format(record) == shown


def test_each_line_has_its_priority() -> None:
    """The journal takes each line for an entry of its own; those of a traceback are no less grave."""
    record = logging.LogRecord("natfix", logging.ERROR, "", 0, "lost\n  for good", None, None)
    assert systemd.JournalFormatter().format(record) == "<3>lost\n<3>  for good"


@pytest.mark.parametrize(("told", "shown"), [("{0.st_dev}:{0.st_ino}", "<6>natfix"), ("1:2", " INFO natfix")])
def test_only_the_journal_gets_priorities(told: str, shown: str, tmp_path: Path) -> None:
    """JOURNAL_STREAM names the stream; where stderr is another one, lines are for people."""
    program = ("import logging; from natfix import systemd; systemd.JOURNAL_SOCKET = ''\n"
               "from natfix.journal import set_up_log; set_up_log('info')\n"
               "logging.getLogger('natfix').info('natfix')")
    with (tmp_path / "stderr").open("wb") as stream:
        stream_of = told.format(os.fstat(stream.fileno()))
        subprocess.run([sys.executable, "-c", program], stderr=stream, check=True,
                       env={**os.environ, "JOURNAL_STREAM": stream_of})
    assert shown in (tmp_path / "stderr").read_text()


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A socket that stands for the journal's."""
    path = tmp_path / "journal"
    monkeypatch.setattr(systemd, "JOURNAL_SOCKET", str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(path))
        ear.settimeout(5.0)
        yield ear


def fields_of(entry: bytes) -> dict[str, str]:
    """Return the fields of an entry as journald takes it apart."""
    found = {}
    while entry:
        line, _, rest = entry.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(rest[:8], "little")
            value, rest = rest[8:8 + size], rest[8 + size:].removeprefix(b"\n")
        found[name.decode()], entry = value.decode(), rest
    return found


def line_of_a_call(text: str = "call x: no audio") -> logging.LogRecord:
    """Return a record as the listener's lines are."""
    record = logging.LogRecord("natfix", logging.WARNING, "", 0, text, None, None)
    record.__dict__.update(kind("one-way-audio", "x@192.0.2.1"))
    return record


def test_an_entry_of_the_journal(journal: socket.socket) -> None:
    """The journal gets the message, how grave it is, whose it is, its kind and its call."""
    handler = systemd.JournalHandler()
    handler.emit(line_of_a_call())
    handler.close()
    assert fields_of(journal.recv(65535)) == {
        "MESSAGE": "call x: no audio", "PRIORITY": "4", "SYSLOG_IDENTIFIER": "natfix",
        "MESSAGE_ID": KINDS["one-way-audio"].message_id, "CALL_ID": "x@192.0.2.1"}


def test_no_text_makes_a_field(journal: socket.socket) -> None:
    """A stranger's Call-ID with line breaks stays one value; what is too long is cut."""
    handler = systemd.JournalHandler()
    record = line_of_a_call("no audio\nPRIORITY=0\n" + "x" * 100_000)
    record.call_id = "a\nMESSAGE_ID=0"
    handler.emit(record)
    handler.close()
    seen = fields_of(journal.recv(200_000))
    assert seen["MESSAGE"].startswith("no audio\nPRIORITY=0\nxxx")
    assert len(seen["MESSAGE"]) == systemd.LONGEST_FIELD
    assert (seen["PRIORITY"], seen["CALL_ID"]) == ("4", "a\nMESSAGE_ID=0")


def test_a_journal_that_does_not_read_costs_lines_only(journal: socket.socket) -> None:
    """Nobody waits for it; how many lines were lost is said with the next that it takes."""
    handler = systemd.JournalHandler()
    for _ in range(2000):
        handler.emit(line_of_a_call())
    taken = 0
    journal.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while journal.recv(65535):
            taken += 1
    handler.emit(line_of_a_call())
    handler.close()
    assert 0 < taken < 2000
    assert fields_of(journal.recv(65535))["NATFIX_LOST"] == str(2000 - taken)


def test_the_log_goes_to_the_journal_with_its_fields(
    journal: socket.socket, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where stderr is the journal's, it gets entries with fields, and a restarted journal gets them, too."""
    log = logging.getLogger("natfix")
    before = log.handlers[:], log.propagate, log.level
    monkeypatch.setattr("natfix.journal.writes_to_journal", lambda: True)
    try:
        set_up_log("info")
        log.info("natfix: ready", extra=kind("ready"))
        assert fields_of(journal.recv(65535))["MESSAGE_ID"] == KINDS["ready"].message_id
        path = Path(systemd.JOURNAL_SOCKET)
        path.unlink()
        log.info("nobody is there")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.bind(str(path))
            log.info("somebody is")
            assert fields_of(other.recv(65535))["MESSAGE"] == "somebody is"
    finally:
        set_up_log("info")
        log.handlers[:], log.propagate = before[:2]
        log.setLevel(before[2])
