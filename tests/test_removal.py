"""What `natfix down` removes besides the rules."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from natfix.config import Daemon
from natfix.errors import NotPermitted
from natfix.removal import remove_files


def daemon(folder: Path) -> Daemon:
    return Daemon(control_socket=str(folder / "control.sock"), state_file=str(folder / "state.sqlite"))


def test_state_and_its_journals_and_a_dead_socket(tmp_path: Path) -> None:
    """State file, SQLite's companions and the socket of a killed daemon go, other files stay."""
    for name in ("state.sqlite", "state.sqlite-wal", "state.sqlite-shm", "other"):
        (tmp_path / name).write_text("")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "control.sock"))
    remove_files(daemon(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_again_is_no_error(tmp_path: Path) -> None:
    """Where nothing is left, nothing is removed and nothing complains."""
    remove_files(daemon(tmp_path))
    remove_files(daemon(tmp_path / "not there"))


def test_a_file_in_the_sockets_place_stays(tmp_path: Path) -> None:
    """What is no socket is somebody's file."""
    (tmp_path / "control.sock").write_text("mine")
    remove_files(daemon(tmp_path))
    assert (tmp_path / "control.sock").read_text() == "mine"


def test_what_cannot_be_removed_is_said(tmp_path: Path) -> None:
    """A state file in a place that may not be changed is an error that names it."""
    (tmp_path / "state.sqlite").mkdir()
    with pytest.raises(NotPermitted, match=r"state.sqlite cannot be removed"):
        remove_files(daemon(tmp_path))
    assert os.path.isdir(tmp_path / "state.sqlite")
