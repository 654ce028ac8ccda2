"""Files that come with natfix are found in a checkout and in an installed package."""

from __future__ import annotations

from pathlib import Path

import pytest

from natfix.shipped import shipped


def test_checkout_has_them_beside_the_package() -> None:
    """In this checkout the static table and the quirks are found."""
    assert shipped("nft", "natfix.nft").is_file()
    assert shipped("rules").is_dir()


def test_wheel_has_them_inside_the_package(tmp_path: Path) -> None:
    """An installed package is asked first, so that a folder "rules" beside it does not count."""
    package = tmp_path / "natfix"
    inside = package / "share" / "rules"
    inside.mkdir(parents=True)
    (tmp_path / "rules").mkdir()
    assert shipped("rules", package=package) == inside


def test_missing_file_is_named(tmp_path: Path) -> None:
    """A broken installation is said to be one, with the file that is not there."""
    with pytest.raises(FileNotFoundError, match=r"nft/natfix\.nft"):
        shipped("nft", "natfix.nft", package=tmp_path / "natfix")
