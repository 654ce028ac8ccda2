"""Files that are handed to others: their owner alone may read them, and nothing is written over unasked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from natfix.errors import ConfigError, NatfixError, NotPermitted


@contextmanager
def new_file(path: Path, force: bool = False, keep: bool = False) -> Iterator[BinaryIO]:
    """Make a file of mode 0600 at *path* and yield it; only with *force* in the place of one that is there.

    Where what follows fails nothing of it is left, unless a part is worth something, too (*keep*). Raises
    ConfigError where a file is there, NotPermitted or NatfixError where it cannot be made or written.
    """
    with _told_to_people(path):
        if force:
            path.unlink(missing_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
        except BaseException:
            if not keep:
                path.unlink(missing_ok=True)
            raise


def refuse_to_write_over(path: Path, force: bool) -> None:
    """Raise ConfigError where a file is at *path* and may not be replaced."""
    if not force and os.path.lexists(path):
        with _told_to_people(path):
            raise FileExistsError


@contextmanager
def _told_to_people(path: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise ConfigError(f"{path} is there already and stays as it is: name another with --write FILE, or "
                          "write over it with --force") from None
    except PermissionError as problem:
        raise NotPermitted(f"no right to write {path} ({problem.strerror})") from None
    except OSError as problem:
        raise NatfixError(f"{path} cannot be written ({problem.strerror or problem})") from None
