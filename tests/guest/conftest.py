"""The guests that the tests of this folder share: one at a time, kept while the next test wants the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.guest.machine import Guest, missing


class Shared:
    """The guest that runs now, if any."""

    def __init__(self) -> None:
        self._guest: Guest | None = None
        self._held = ExitStack()

    def get(self, systemd: bool) -> Guest:
        """Return a guest with or without systemd; another kind that still runs ends first."""
        if self._guest is None or self._guest.systemd != systemd:
            self.close()
            self._guest = self._held.enter_context(Guest(systemd=systemd))
        return self._guest

    def close(self) -> None:
        """End the guest."""
        self._held.close()
        self._guest = None


@pytest.fixture(scope="package")
def shared() -> Iterator[Shared]:
    """The holder of the guest; the tests are skipped, with the reason, where there can be none."""
    if reason := missing():
        pytest.skip(reason)
    made = Shared()
    yield made
    made.close()


@pytest.fixture(scope="module")
def guest(shared: Shared) -> Guest:
    """A booted guest in which nothing runs but what the tests start."""
    return shared.get(systemd=False)


@pytest.fixture(scope="module")
def systemd_guest(shared: Shared) -> Guest:
    """A guest booted by systemd; skipped where this machine has none."""
    if reason := missing(systemd=True):
        pytest.skip(reason)
    return shared.get(systemd=True)
