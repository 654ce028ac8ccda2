"""Files that are handed to others: their owner alone may read them, and nothing is written over unasked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from natfix.errors import ConfigError, NatfixError, NotPermitted


@contextmanager
def new_file(path: Path, force: bool = False) -> Iterator[BinaryIO]:
    """Make a file of mode 0600 at *path* and yield it; only with *force* in the place of one that is there.

    Raises ConfigError where one is, NotPermitted or NatfixError where it cannot be made or written.
    """
    try:
        if force:
            with suppress(FileNotFoundError):
                path.unlink()
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            yield file
    except FileExistsError:
        raise ConfigError(f"{path} is there already and stays as it is: name another with --write FILE, or "
                          "write over it with --force") from None
    except PermissionError as problem:
        raise NotPermitted(f"no right to write {path} ({problem.strerror})") from None
    except OSError as problem:
        raise NatfixError(f"{path} cannot be written ({problem.strerror or problem})") from None
