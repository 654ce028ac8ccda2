"""What the kernel can do, and what natfix says where it cannot."""

from __future__ import annotations

from dataclasses import replace

import pytest

from natfix.errors import KernelRefused, NotPermitted
from natfix.kernel import probe as module
from natfix.kernel.probe import Capabilities, divert_form, missing, probe
from tests.namespace import namespace, on_kernel

ALL = Capabilities(**dict.fromkeys(Capabilities.__dataclass_fields__, True))
NONE = Capabilities()


@on_kernel
def test_probe_leaves_nothing_behind() -> None:
    """Asked twice, the kernel says the same, and holds no table and no entry."""
    with namespace() as space:
        found = space.call(probe)
        assert space.call(probe) == found
        assert space.run("nft list ruleset; iptables-save; conntrack -L 2>/dev/null") == ""
    assert found.nftables
    assert found.nat
    assert found.conntrack
    assert found.queue or found.nfqueue


@on_kernel
def test_probe_agrees_with_nft() -> None:
    """nft itself can load the queue statement exactly where the probe says so."""
    with namespace() as space:
        answer = space.run('nft -c "table ip t { chain c { queue num 1; }; }" >/dev/null 2>&1; echo $?')
        assert space.call(probe).queue == (answer == "0\n")


def test_probe_without_rights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without CAP_NET_ADMIN nothing is asked of the kernel."""
    monkeypatch.setattr(module, "has_net_admin", lambda: False)
    assert not probe().net_admin


def test_own_expression_is_preferred() -> None:
    """nft's queue where there is one, the xtables target else; either may be forced."""
    assert divert_form(ALL, "auto") == "queue"
    assert divert_form(ALL, "nfqueue") == "nfqueue"
    assert divert_form(replace(ALL, queue=False), "auto") == "nfqueue"


@pytest.mark.parametrize(("wanted", "cure"), [
    ("queue", "modprobe nft_queue"), ("nfqueue", "xt_NFQUEUE"), ("auto", "modprobe nft_queue")])
def test_missing_divert_has_a_cure(wanted: str, cure: str) -> None:
    """A kernel without the wanted form is refused in one sentence that says what to load."""
    with pytest.raises(KernelRefused, match=cure):
        divert_form(replace(ALL, queue=False, nfqueue=False), wanted)


@pytest.mark.parametrize("name", ["library", "nftables", "nat", "conntrack"])
def test_each_missing_thing_is_one_sentence(name: str) -> None:
    """Every need that is not met is named once, with its cure."""
    sentence, = missing(replace(ALL, **{name: False}))
    assert "\n" not in sentence
    assert "install" in sentence or "modprobe" in sentence


def test_missing_rights_end_the_list() -> None:
    """Who may not ask cannot know what else is missing."""
    assert missing(ALL) == []
    assert missing(replace(NONE, library=True)) == [module.NO_RIGHTS]
    with pytest.raises(NotPermitted, match="root"):
        divert_form(NONE, "auto")
