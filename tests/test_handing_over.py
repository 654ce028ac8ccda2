"""Files for others: private, and never in the place of one that is there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from natfix.errors import ConfigError, NatfixError
from natfix.handing_over import new_file


def test_its_owner_alone_reads_it(tmp_path: Path) -> None:
    """The mode is 0600 from the first moment, whatever the umask says."""
    before = os.umask(0)
    try:
        with new_file(tmp_path / "a") as file:
            assert os.fstat(file.fileno()).st_mode & 0o777 == 0o600
            file.write(b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").read_bytes() == b"x"


def test_nothing_is_written_over_unasked(tmp_path: Path) -> None:
    """A file that is there stays as it is, with 2; --force puts a new one in its place, also of a link."""
    target, link = tmp_path / "a", tmp_path / "link"
    target.write_text("mine")
    link.symlink_to(target)
    for path in (target, link):
        with pytest.raises(ConfigError, match="--force"), new_file(path):
            pass
    with new_file(link, force=True) as file:
        file.write(b"new")
    assert target.read_text() == "mine"
    assert link.read_text() == "new"


def test_a_place_that_is_none(tmp_path: Path) -> None:
    """A folder that does not exist is one sentence."""
    refused = pytest.raises(NatfixError, match=r"a/b cannot be written \(No such file")
    with refused, new_file(tmp_path / "a/b"):
        pass
