"""The queue rule as raw netlink: its bytes, and how nft and iptables show it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from natfix.kernel.divert import divert_messages, queue_target
from natfix.kernel.netlink import attributes
from natfix.kernel.probe import probe
from tests.kernel.wires import SKELETON, Wires
from tests.namespace import kernel_test

pytestmark = kernel_test


def test_target_is_as_xt_nfqueue_takes_it() -> None:
    """Number, one queue, and the flag bypass (struct xt_NFQ_info_v3), padded to eight bytes."""
    data = attributes(attributes(queue_target(5060, True))[1])[2]
    assert attributes(data) == {1: b"NFQUEUE\0", 2: b"\0\0\0\3", 3: b"\xc4\x13\x01\x00\x01\x00\x00\x00"}


@pytest.mark.parametrize("bypass", [True, False])
def test_nft_lists_the_rule(bare: Wires, bypass: bool) -> None:
    """An operator who lists the rules sees where SIP goes, as one rule, and bypass where it is on."""
    if not bare.gateway.call(probe).nfqueue:
        pytest.skip("this kernel has no xtables target NFQUEUE for nftables")
    bare.install(replace(SKELETON, divert="nfqueue", queue=77, bypass=bypass))
    divert = bare.gateway.run("nft list chain ip natfix divert 2>&1")
    assert "ct mark & 0x04000000 == 0x04000000 meta l4proto { tcp, udp } jump through" in divert
    assert bare.gateway.run("nft list chain ip natfix paced 2>&1").count("jump to_natfix") == 1
    queue = bare.gateway.run("nft list chain ip natfix to_natfix 2>&1")
    assert queue.count("queue".upper()) + queue.count("queue num") == 1
    assert ("NFQUEUE" in queue) or ("queue num 77 bypass" in queue) == bypass


def test_iptables_does_not_see_it(bare: Wires) -> None:
    """iptables-save prints nothing of natfix's, and creates no table of its own."""
    bare.install()
    assert bare.gateway.run("iptables-save") == ""


def test_rule_replaces_its_predecessor() -> None:
    """One transaction empties the chain and fills it, so that SIP is never without its rule."""
    first, second = divert_messages(SKELETON)
    assert (first.kind & 0xFF, second.kind & 0xFF) == (8, 6)
