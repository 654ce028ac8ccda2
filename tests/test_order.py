"""The operator's order: what is written is what is read, and what cannot be read does not arm."""

from __future__ import annotations

from pathlib import Path

import pytest

from natfix.errors import ConfigError, NatfixError
from natfix.order import FIX, SUFFIX, Mode, Order, order_from, read_order, write_order


@pytest.mark.parametrize("order", [Order(Mode.TRIAL, 60.0), Order(Mode.BEGUN), Order(Mode.OBSERVE), FIX])
def test_what_is_written_is_read(tmp_path: Path, order: Order) -> None:
    """Every order survives, in a folder that need not be there yet; no draft is left beside it."""
    state = str(tmp_path / "natfix" / "state")
    write_order(state, order)
    assert read_order(state) == order
    assert len(list(tmp_path.rglob("state*"))) == (order != FIX)


def test_no_order_is_to_fix(tmp_path: Path) -> None:
    """Without a file natfix fixes SIP; to order so removes the file, and again is no error."""
    state = str(tmp_path / "state")
    write_order(state, Order(Mode.OBSERVE))
    for _ in range(2):
        write_order(state, FIX)
        assert read_order(state) == FIX


@pytest.mark.parametrize("text", ["", "{", "[]", '{"mode": "fly", "seconds": 1}', '{"mode": "trial"}'])
def test_a_damaged_order_does_not_arm(tmp_path: Path, text: str) -> None:
    """What a crash or a hand has made of the file counts as a trial that nobody has confirmed."""
    (tmp_path / f"state{SUFFIX}").write_text(text)
    assert read_order(str(tmp_path / "state")).mode is Mode.BEGUN


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    """The error names the file."""
    (tmp_path / "file").write_text("")
    with pytest.raises(NatfixError, match=r"file/state\.order cannot be written"):
        write_order(str(tmp_path / "file" / "state"), Order(Mode.OBSERVE))


def test_options() -> None:
    """An observer has nothing to confirm, and nobody answers within four seconds."""
    assert order_from(observe=False, seconds=0) == FIX
    assert order_from(observe=True, seconds=0).mode is Mode.OBSERVE
    assert order_from(observe=False, seconds=60) == Order(Mode.TRIAL, 60)
    with pytest.raises(ConfigError, match="leave --confirm out"):
        order_from(observe=True, seconds=60)
    for seconds in (-1, 4, 86401):
        with pytest.raises(ConfigError, match="from 5 to 86400"):
            order_from(observe=False, seconds=seconds)
