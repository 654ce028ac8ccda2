"""Packets of the last moments: they outlive the process, in their order, and nothing else is read as one."""

from __future__ import annotations

import logging
from pathlib import Path as File

import pytest

from natfix import recent
from natfix.packet import Path
from natfix.recent import HALF, KEEP, OLDEST, Recent, Seen

OUT, IN = Path("forward", "inside", "outside", 7), Path("input", "outside", "", 0xffffffff)


@pytest.fixture
def file(tmp_path: File) -> str:
    return str(tmp_path / "control.sock.recent")


def kept(file: str, now: float) -> list[Seen]:
    """What a process that starts at *now* finds; the one before had no time to let go."""
    return Recent(file).packets(now)


def begun(file: str) -> Recent:
    made = Recent(file)
    made.begin()
    return made


def test_what_was_put_is_there_after_a_crash(file: str) -> None:
    """Time, path and bytes come back, the oldest first."""
    writer = begun(file)
    writer.put(b"one", OUT, 1000.0)
    writer.put(b"", IN, 1000.5)
    assert kept(file, 1001.0) == [Seen(1000.0, OUT, b"one"), Seen(1000.5, IN, b"")]


def test_only_the_last_second_counts(file: str) -> None:
    """Older packets are in the state file; after a while all of it is history."""
    writer = begun(file)
    for step in range(5):
        writer.put(b"%d" % step, OUT, 1000.0 + step * KEEP / 2)
    last = 1000.0 + 2 * KEEP
    assert [seen.raw for seen in kept(file, last)] == [b"2", b"3", b"4"]
    assert kept(file, last + OLDEST - 0.1)
    assert kept(file, last + OLDEST) == []


def test_a_full_half_gives_way(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many packets come, the latest are there, in order, and one too big for a half is left out."""
    monkeypatch.setattr(recent, "HALF", 4096)
    writer = begun(file)
    for number in range(1000):
        writer.put(b"%04d" % number * 50, OUT, 1000.0 + number / 1e6)
        found = [int(seen.raw[:4]) for seen in kept(file, 1001.0)]
        assert found == list(range(number + 1))[-len(found):]
        assert len(found) >= min(number + 1, 4096 // 300)
    writer.put(bytes(5000), OUT, 1001.0)
    assert len(kept(file, 1001.0)[-1].raw) == 200


def test_begin_forgets(file: str) -> None:
    """What was shown to the engine, or saved at a clean end, is not shown again."""
    writer = begun(file)
    writer.put(b"one", OUT, 1000.0)
    writer.begin()
    assert kept(file, 1000.0) == []
    writer.put(b"two", OUT, 1000.0)
    writer.close()
    writer.put(b"three", OUT, 1000.0)       # after the end there is nothing to write to
    assert [seen.raw for seen in kept(file, 1000.0)] == [b"two"]


def test_a_file_of_something_else_is_nothing(file: str) -> None:
    """Zeroes, random bytes, another format and an entry that is cut or lies about its length: no packets."""
    for text in (bytes(2 * HALF), b"\xff" * 2 * HALF, recent.FORMAT + b"\xff" * 100):
        File(file).write_bytes(text)
        assert kept(file, 1000.0) == []
    writer = begun(file)
    writer.put(b"one", OUT, 1000.0)
    whole = File(file).read_bytes()
    start = recent.HEAD + recent.ENTRY.size - 4
    File(file).write_bytes(whole[:start] + b"\xff\xff\xff\x7f" + whole[start + 4:])
    assert kept(file, 1000.0) == []


def test_where_there_is_no_room_nothing_is_kept(tmp_path: File, caplog: pytest.LogCaptureFixture) -> None:
    """natfix runs all the same, and says what that means."""
    with caplog.at_level(logging.WARNING):
        writer = begun(str(tmp_path / "absent" / "control.sock.recent"))
    assert "calls that had just begun" in caplog.text
    writer.put(b"one", OUT, 1000.0)
    assert writer.packets(1000.0) == []
    writer.close()


def test_only_its_owner_may_read_it(file: str) -> None:
    """SIP has names, numbers and digests in it."""
    begun(file)
    assert File(file).stat().st_mode & 0o777 == 0o600
