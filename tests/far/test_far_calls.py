"""Calls of phones behind NATs of their own, by a PBX inside: every pair of NATs, and a PBX of either kind."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.far.calls import Site
from tests.far.site import GATEWAY
from tests.lab.audio import assert_two_way, talk
from tests.lab.far_nat import KINDS
from tests.lab.host import wait_until
from tests.lab.lab import Lab
from tests.lab.topology import PBX_ADDRESS

pytestmark = pytest.mark.lab
PBXS = pytest.mark.parametrize("anchors", [False, True], ids=["proxy", "b2bua"])


@PBXS
@pytest.mark.parametrize("called", KINDS)
@pytest.mark.parametrize("caller", KINDS)
def test_both_far(make_lab: Callable[..., Lab], caller: str, called: str, anchors: bool) -> None:
    """Each hears the other, whoever calls; the call is handed over to a phone inside; nothing is left.

    A PBX that leaves media to the phones, and one that takes it upon itself, with a dialog of its own on each
    side.
    """
    site = Site(make_lab, caller, called, phones=1, anchors=anchors)
    dora, emil, ines = site.phone("dora"), site.phone("emil"), site.phone("ines", PBX_ADDRESS)
    site.call(emil, dora)
    dora.dial(emil.uri)
    dora.transfer(f"sip:ines@{GATEWAY}")
    ines.wait_event("CALL_ESTABLISHED")
    dora.wait_closed(since=len(dora.events) - 1)
    talk()
    assert_two_way(emil, ines)
    ines.hang_up()
    wait_until(site.holds_no_media, 10.0, "the end of all mappings")
