"""Calls between phones behind NATs of their own, by a PBX inside that leaves media to them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.far.site import Site
from tests.lab.audio import assert_two_way, talk
from tests.lab.far_nat import KINDS
from tests.lab.lab import Lab

pytestmark = pytest.mark.lab


@pytest.mark.parametrize("called", KINDS)
@pytest.mark.parametrize("caller", KINDS)
def test_both_far(make_lab: Callable[..., Lab], caller: str, called: str) -> None:
    """Sixteen combinations of NATs: each hears the other, and nothing is left."""
    site = Site(make_lab, caller, called, phones=1)
    dora, emil = site.phone("dora"), site.phone("emil")
    dora.dial("sip:emil@203.0.113.1")
    talk()
    dora.hang_up()
    emil.wait_closed()
    assert_two_way(dora, emil)
