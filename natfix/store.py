"""What must survive a restart and the kernel cannot keep: rows of JSON in one SQLite file.

The engine says what changed (:class:`natfix.reports.Change`), the loop gathers that for a moment and hands
it to :meth:`Store.put`, and a thread writes it, so that no packet waits for a disk. Between a change and its
commit lies an eighth of a second: what ``kill -9`` takes of that, :mod:`natfix.recent` brings back.

A disk that is full, or can only be read, holds nothing up: natfix starts with the rows that it can read, and
what is to be written waits until there is room again. Telephones must not fall silent for want of a file.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from natfix.errors import Busy, NatfixError, NotPermitted
from natfix.message_ids import kind
from natfix.ownership import hand_over
from natfix.reports import Change

SCHEMA_VERSION = 1
IN_MEMORY = ":memory:"  # a path that is no file: nothing survives
GATHER = 0.02           # seconds that changes are collected for one commit
RETRY = 1.0             # seconds after which a commit that failed (disk full) is tried again
LOCKED = 0.5            # seconds to wait for a daemon that is just ending
PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}      # what may be over later
# The same in SQLite's words: SQLITE_FULL, SQLITE_READONLY, SQLITE_IOERR, SQLITE_CANTOPEN, without details.
PASSING_CODES = {13, 8, 10, 14}

TABLE = "CREATE TABLE rows (kind TEXT, key TEXT, row TEXT, PRIMARY KEY (kind, key)) WITHOUT ROWID"
PUT = "INSERT OR REPLACE INTO rows VALUES (?, ?, ?)"
DELETE = "DELETE FROM rows WHERE kind = ? AND key = ?"
SELECT = "SELECT kind, key, row FROM rows ORDER BY kind, key"

Row = tuple[str, str, str]

log = logging.getLogger("natfix")


class Store:
    """One state file, its reader at start and its writer thread from then on."""

    def __init__(self, path: str) -> None:
        """Open or create the file at *path*.

        A file that is damaged or from a newer natfix is moved aside, and said so in the log; one that cannot
        be written now (:attr:`problem`) is opened later. Raises Busy where another process holds it,
        NotPermitted or NatfixError where it cannot be made.
        """
        self.path = path
        self.failures = 0       # commits that failed; nothing is lost while the daemon lives
        self.problem = ""       # why the last one failed; "" where it did not
        self._pending: dict[tuple[str, str], dict[str, Any] | None] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._connection: sqlite3.Connection | None = None
        self._known: list[Row] = []     # where the file can only be read
        try:
            self._connection = _open(path)
        except _NotNowError as problem:
            self._known = _readable(path)
            self._complain(problem)
        self._writer = threading.Thread(target=self._write_until_closed, name="store", daemon=True)

    def load(self) -> tuple[Change, ...]:
        """Return every row of before; to be called before the first :meth:`put`."""
        found = self._known if self._connection is None else self._connection.execute(SELECT).fetchall()
        changes = []
        for table, key, text in found:
            try:
                changes.append(Change(table, key, json.loads(text)))
            except ValueError:
                log.warning("state file %s: row %s %r is no JSON and was skipped", self.path, table, key,
                            extra=kind("state-file-damaged"))
        return tuple(changes)

    def put(self, changes: Iterable[Change]) -> None:
        """Have *changes* written soon; of several changes to one row only the last is."""
        with self._changed:
            for table, key, row in changes:
                self._pending[table, key] = row
            self._changed.notify()
        if self._writer.ident is None:
            self._writer.start()

    def close(self) -> None:
        """Write what is left and close the file; rows that cannot be written are lost, and said so."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._writer.ident is not None:
            self._writer.join()
        if self._pending and not self._commit(self._take()):
            log.error("state file %s: %d changes could not be written", self.path, len(self._pending),
                      extra=kind("state-file"))
        if self._connection is not None:
            self._connection.close()

    def _write_until_closed(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or self._closing)
                if self._closing:
                    return      # close() writes the rest
            time.sleep(GATHER)
            if not self._commit(self._take()):
                time.sleep(RETRY)

    def _take(self) -> dict[tuple[str, str], dict[str, Any] | None]:
        with self._changed:
            taken, self._pending = self._pending, {}
        return taken

    def _commit(self, changes: dict[tuple[str, str], dict[str, Any] | None]) -> bool:
        """Write *changes* in one transaction; what fails is kept for the next attempt."""
        gone = [name for name, row in changes.items() if row is None]
        rows = [(*name, json.dumps(row)) for name, row in changes.items() if row is not None]
        try:
            if self._connection is None:
                self._connection = _open(self.path)
            with self._connection:
                self._connection.executemany(DELETE, gone)
                self._connection.executemany(PUT, rows)
        except (sqlite3.Error, NatfixError, _NotNowError) as problem:
            self._keep(changes, problem)
            return False
        if self.problem:
            self.problem = ""
            log.warning("state file %s is written again; nothing is missing", self.path,
                        extra=kind("state-file-back"))
        return True

    def _keep(self, changes: dict[tuple[str, str], dict[str, Any] | None], problem: Exception) -> None:
        self._complain(problem)
        with self._changed:
            self._pending = {**changes, **self._pending}

    def _complain(self, problem: Exception) -> None:
        self.failures += 1
        if not self.problem:
            log.error("cannot write state file %s (%s); trying on", self.path, problem,
                      extra=kind("state-file"))
        self.problem = f"{self.path} cannot be written ({problem})"


def _open(path: str) -> sqlite3.Connection:
    if path == IN_MEMORY:
        return _connect(path)
    _make_file(path)
    try:
        return _connect(path)
    except _UnusableError as problem:
        log.warning("state file %s: %s; it was moved to %s", path, problem, _move_aside(path),
                    extra=kind("state-file-damaged"))
    _make_file(path)
    return _connect(path)


class _UnusableError(Exception):
    """Why the file cannot be taken over."""


class _NotNowError(Exception):
    """Why the file cannot be written, for now."""


def _readable(path: str) -> list[Row]:
    """Return the rows of a file that cannot be written; a journal beside it is left for later."""
    try:
        connection = sqlite3.connect(f"{Path(path).resolve().as_uri()}?immutable=1", uri=True)
        try:
            return connection.execute(SELECT).fetchall()
        finally:
            connection.close()
    except sqlite3.Error:
        return []


def _make_file(path: str) -> None:
    """Create the file and its directory for the daemon's eyes only: the rows name who called whom."""
    try:
        os.makedirs(os.path.dirname(path) or ".", mode=0o700, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        hand_over(path)
    except PermissionError as problem:
        raise NotPermitted(f"no right to write the state file {path} ({problem.strerror})") from None
    except OSError as problem:
        if problem.errno in PASSING:
            raise _NotNowError(problem.strerror) from None
        raise NatfixError(f"cannot write the state file {path} ({problem.strerror})") from None


def _connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=LOCKED, check_same_thread=False)
    try:
        # Two daemons with one state file would undo each other: the first keeps the lock for life.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        _check(connection)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
    except sqlite3.OperationalError as problem:
        connection.close()
        if "locked" in str(problem):
            raise Busy(f"another process holds the state file {path}") from None
        if problem.sqlite_errorcode & 0xFF in PASSING_CODES:
            raise _NotNowError(str(problem)) from None
        raise NatfixError(f"cannot open the state file {path} ({problem})") from None
    except sqlite3.DatabaseError as problem:
        connection.close()
        raise _UnusableError(f"it is damaged ({problem})") from None
    except _UnusableError:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection) -> None:
    """Make the table where the file is new; raise _UnusableError where the file is not ours to read."""
    verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise _UnusableError(f"it is damaged ({verdict})")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if version == 0 and not tables:
        with connection:
            connection.execute(TABLE)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    elif version > SCHEMA_VERSION:
        raise _UnusableError(f"it is from a newer natfix (schema {version}, this one knows {SCHEMA_VERSION})")
    elif version < SCHEMA_VERSION or "rows" not in tables:
        raise _UnusableError("it is not a state file of natfix")


def _move_aside(path: str) -> str:
    """Rename the file, and its journal with it, to a name that is free; return that name."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    aside = f"{path}.{stamp}-{os.getpid()}"
    for suffix in ("", "-wal", "-shm"):
        if os.path.exists(path + suffix):
            os.replace(path + suffix, aside + suffix)
    return aside
