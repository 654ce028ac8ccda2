"""libnftables in this process."""

from __future__ import annotations

import json

import pytest

from natfix.errors import KernelRefused
from natfix.kernel import libnftables
from tests.namespace import kernel_test, namespace

pytestmark = kernel_test


def test_commands_are_carried_out_in_this_namespace() -> None:
    """What one namespace is told another does not see."""
    with namespace() as one, namespace() as two:
        one.call(lambda: libnftables.run("add table ip t"))
        assert one.call(lambda: libnftables.run("list tables")) == "table ip t\n"
        assert two.call(lambda: libnftables.run("list tables")) == ""


def test_listing_as_json() -> None:
    """The flag for JSON gives JSON."""
    with namespace() as one:
        one.call(lambda: libnftables.run("add table ip t"))
        listing = json.loads(one.call(lambda: libnftables.run("list ruleset", libnftables.JSON)))
    assert listing["nftables"][1]["table"]["name"] == "t"


def test_complaint_is_one_line() -> None:
    """A refused command raises with nft's first line."""
    with namespace() as one, pytest.raises(KernelRefused, match="No such file") as problem:
        one.call(lambda: libnftables.run("delete table ip absent"))
    assert "\n" not in str(problem.value)


def test_missing_library_has_a_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where libnftables is not installed, the package to install is named."""
    monkeypatch.setattr(libnftables, "LIBRARY", "libabsent.so.1")
    libnftables.load.cache_clear()
    with pytest.raises(KernelRefused, match="apt install libnftables1"):
        libnftables.load()
    libnftables.load.cache_clear()
