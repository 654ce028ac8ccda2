"""What a natfix leaves behind: its files, removed by `natfix down`, and the divert, by `natfix bypass`.

The divert has to go where natfix itself cannot be made to run, so nothing is imported here that reads a
configuration or needs a library.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from natfix.errors import KernelRefused, NotPermitted
from natfix.recent import SUFFIX

if TYPE_CHECKING:
    from natfix.config import Daemon

# SQLite's write-ahead log and its index stand beside the file, and so does the log of `natfix up`.
JOURNALS = ("", "-wal", "-shm", ".log")


def remove_divert() -> bool:
    """Have SIP pass unfixed: empty the chain that leads it to natfix; False where there was no such chain.

    Maps, guard and entries stay, so that calls keep their audio; the next start puts the divert back.
    Raises NotPermitted or KernelRefused.
    """
    from natfix.kernel.divert import CHAIN, DELETE_RULE, RULE_CHAIN, RULE_TABLE
    from natfix.kernel.elements import TABLE
    from natfix.kernel.netlink import REQUEST, Connection, Message, head, text

    chain = head(socket.AF_INET) + text(RULE_TABLE, TABLE) + text(RULE_CHAIN, CHAIN)
    connection = Connection()
    try:
        connection.transact([Message(DELETE_RULE, REQUEST, chain)])
    except OSError as problem:
        if problem.errno != errno.ENOENT:
            raise KernelRefused(f"the divert cannot be removed: {problem.strerror}") from None
        return False
    finally:
        connection.close()
    return True


def remove_files(daemon: Daemon) -> None:
    """Remove the state file, the last packets, and a control socket that nobody answers at; absent is fine.

    Raises NotPermitted where that may not be done.
    """
    for suffix in JOURNALS:
        _remove(daemon.state_file + suffix)
    _remove(daemon.control_socket + SUFFIX)
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
