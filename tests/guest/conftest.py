"""The guest that the tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.guest.machine import Guest, missing


@pytest.fixture(scope="package")
def guest() -> Iterator[Guest]:
    """A booted guest; the tests are skipped, with the reason, where there can be none."""
    if reason := missing():
        pytest.skip(reason)
    with Guest() as made:
        yield made
