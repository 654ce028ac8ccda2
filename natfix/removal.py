"""The files that a natfix leaves behind, removed by `natfix down`."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from natfix.config import Daemon
from natfix.errors import NotPermitted

JOURNALS = ("", "-wal", "-shm")     # SQLite's write-ahead log and its index stand beside the file


def remove_files(daemon: Daemon) -> None:
    """Remove the state file and a control socket that nobody answers at; absence is no error.

    Raises NotPermitted where that may not be done.
    """
    for suffix in JOURNALS:
        _remove(daemon.state_file + suffix)
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.lstat(daemon.control_socket).st_mode):
            _remove(daemon.control_socket)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as problem:
        raise NotPermitted(f"{path} cannot be removed ({problem.strerror})") from None
