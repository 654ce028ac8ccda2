"""Who owns what root has made in a folder of the service's user."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from natfix.order import Mode, Order, write_order
from natfix.ownership import hand_over
from natfix.reports import Change
from natfix.store import Store
from tests.lab.host import wait_until

SERVICE = (54321, 54322)        # user and group; nobody's here

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="not root: only root may give files away")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A state folder as the unit has it."""
    made = tmp_path / "state"
    made.mkdir(mode=0o700)
    os.chown(made, *SERVICE)
    return made


def owner(path: Path) -> tuple[int, int]:
    return path.stat().st_uid, path.stat().st_gid


@needs_root
def test_the_state_file_and_its_journal_are_the_services(folder: Path) -> None:
    """A `natfix run` by root leaves a database that the service can open, and SQLite's journal with it."""
    store = Store(str(folder / "state.sqlite"))
    store.put([Change("calls", "1", {})])
    wait_until(lambda: (folder / "state.sqlite-wal").exists(), 5.0, "the journal")
    files = list(folder.iterdir())
    assert {owner(file) for file in files} == {SERVICE}
    store.close()


@needs_root
def test_an_order_is_the_services(folder: Path) -> None:
    """What `natfix up` orders can be read by the service, under any umask of root's."""
    before = os.umask(0o077)
    try:
        write_order(str(folder / "state.sqlite"), Order(Mode.OBSERVE))
    finally:
        os.umask(before)
    assert owner(folder / "state.sqlite.order") == SERVICE


@needs_root
def test_roots_own_folder_stays_roots(tmp_path: Path) -> None:
    """Without a service nothing is given away."""
    (tmp_path / "file").write_text("")
    hand_over(str(tmp_path / "file"))
    assert owner(tmp_path / "file") == (0, 0)


@needs_root
def test_a_link_is_not_followed(folder: Path, tmp_path: Path) -> None:
    """The service's user may write in its folder; a link there must not give him root's files."""
    (tmp_path / "secret").write_text("")
    (folder / "link").symlink_to(tmp_path / "secret")
    hand_over(str(folder / "link"))
    assert owner(tmp_path / "secret") == (0, 0)
