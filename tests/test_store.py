"""The state file: what comes back, when it is written, and files that cannot be used."""

from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from natfix.errors import Busy, NatfixError
from natfix.reports import Change
from natfix.store import SCHEMA_VERSION, Store

ROW = Change("dialogs", "call-1", {"call_id": "a@b", "tags": ["x", "y"], "until": 1700000000.5})


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "lib" / "state.sqlite")


def rows_on_disk(path: str) -> list[tuple[str, str, str]]:
    """What another process would read after a crash of this one, from copies of file and journal."""
    copy = path + ".copy"
    for suffix in ("", "-wal"):
        if os.path.exists(path + suffix):
            Path(copy + suffix).write_bytes(Path(path + suffix).read_bytes())
    with sqlite3.connect(copy) as connection:
        found = connection.execute("SELECT * FROM rows ORDER BY 1, 2").fetchall()
    connection.close()
    return found


def test_rows_come_back(path: str) -> None:
    """What was put is loaded by the next Store, deleted rows are not, and the last change wins."""
    store = Store(path)
    assert store.load() == ()
    store.put([ROW, Change("ports", "192.168.1.2:5060", {"port": 1}), Change("dialogs", "gone", {})])
    store.put([Change("ports", "192.168.1.2:5060", {"port": 2}), Change("dialogs", "gone", None)])
    store.close()
    again = Store(path)
    assert again.load() == (ROW, Change("ports", "192.168.1.2:5060", {"port": 2}))
    again.close()


def test_written_within_fifty_milliseconds(path: str) -> None:
    """A change is on disk 50 ms later (some slack for a busy machine), while the daemon lives on."""
    store = Store(path)
    store.put([Change("warm", "up", {})])
    time.sleep(0.2)
    store.put([ROW])
    deadline = time.monotonic() + 0.5
    while len(rows_on_disk(path)) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    taken = time.monotonic() - (deadline - 0.5)
    assert rows_on_disk(path)[0][:2] == ("dialogs", "call-1")
    assert taken < 0.15
    store.close()


def test_put_does_not_wait(path: str) -> None:
    """Handing over a thousand changes takes the packet path less than 20 ms of CPU time."""
    store = Store(path)
    changes = [Change("dialogs", f"bulk-{number}", dict(ROW.row or {})) for number in range(1000)]
    store.put([ROW])
    start = time.thread_time()
    store.put(changes)
    assert time.thread_time() - start < 0.02
    store.close()
    again = Store(path)
    assert len(again.load()) == 1001
    again.close()


def test_survives_kill_dash_nine(path: str) -> None:
    """Rows of a process that died without a word are there for the next one."""
    program = (
        "import os, sys, time\n"
        "from natfix.reports import Change\nfrom natfix.store import Store\n"
        "store = Store(sys.argv[1]); store.put([Change('dialogs', 'k', {'n': 1})]); time.sleep(0.5)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, path], check=False).returncode == -9
    store = Store(path)
    assert store.load() == (Change("dialogs", "k", {"n": 1}),)
    store.close()


def test_file_is_private(path: str) -> None:
    """Who called whom is for root alone: file 0600, directory 0700."""
    Store(path).close()
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert os.stat(os.path.dirname(path)).st_mode & 0o777 == 0o700


def _damage(path: str) -> None:
    Path(path).write_bytes(b"this is not a database, and long enough to be read as one " * 100)


def _damage_page(path: str) -> None:
    store = Store(path)
    store.put(Change("dialogs", f"{number:05}", {"filler": "x" * 200}) for number in range(500))
    store.close()
    with open(path, "r+b") as file:
        file.seek(3 * 4096)
        file.write(os.urandom(4096 * 6))


def _newer(path: str) -> None:
    Store(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()


def _foreign(path: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE bookmarks (url)")
    connection.close()


@pytest.mark.parametrize(("spoil", "sentence"), [
    (_damage, "damaged"), (_damage_page, "damaged"), (_newer, "newer natfix"), (_foreign, "not a state file"),
])
def test_unusable_file_is_moved_aside(
    path: str, caplog: pytest.LogCaptureFixture, spoil: object, sentence: str,
) -> None:
    """A damaged, newer or foreign file is kept under another name, said so, and a fresh one is begun."""
    os.makedirs(os.path.dirname(path))
    assert callable(spoil)
    spoil(path)
    before = Path(path).read_bytes()
    with caplog.at_level(logging.WARNING, "natfix"):
        store = Store(path)
    assert store.load() == ()
    store.put([ROW])
    store.close()
    assert sentence in caplog.text
    assert "moved to" in caplog.text
    aside = [name for name in Path(path).parent.iterdir() if name.name.startswith("state.sqlite.2")]
    assert len(aside) == 1
    assert aside[0].read_bytes() == before


def test_second_daemon_on_one_file_is_refused(path: str) -> None:
    """A state file in use is not shared (exit 75), and the holder is not disturbed."""
    store = Store(path)
    with pytest.raises(Busy):
        Store(path)
    store.put([ROW])
    store.close()
    assert len(rows_on_disk(path)) == 1


def test_impossible_place_is_one_sentence(tmp_path: Path) -> None:
    """A path through a file, or a directory in the file's place, is refused with its name."""
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "state.sqlite", tmp_path):
        with pytest.raises(NatfixError, match=str(place)):
            Store(str(place))


def test_failed_commit_is_retried(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the disk refuses, changes are kept, newer ones win, and a later commit writes them."""
    monkeypatch.setattr("natfix.store.RETRY", 0.05)
    store = Store(path)
    real = store._connection
    store._connection = sqlite3.connect(":memory:", check_same_thread=False)    # without the table
    store.put([ROW, Change("ports", "p", {"port": 1})])
    time.sleep(0.1)
    assert store.failures > 0
    store.put([Change("ports", "p", {"port": 2})])
    store._connection = real
    time.sleep(0.3)
    assert [row[2] for row in rows_on_disk(path) if row[0] == "ports"] == ['{"port": 2}']
    store.close()


def test_row_that_is_no_json_is_skipped(path: str) -> None:
    """One bad row does not cost the others."""
    store = Store(path)
    store.put([ROW])
    store.close()
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO rows VALUES ('dialogs', 'bad', '{')")
    connection.close()
    again = Store(path)
    assert again.load() == (ROW,)
    again.close()
