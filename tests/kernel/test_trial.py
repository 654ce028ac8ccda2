"""Rules in force for a limited time, which the kernel keeps."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from natfix.kernel.netfilter import skeleton_text
from natfix.kernel.trial import GATE
from tests.kernel.wires import REMOTE, SIP, SIP_REMOTE, SKELETON, Wires, wires
from tests.namespace import on_kernel

TRIAL = replace(SKELETON, trial=60.0)


@pytest.fixture
def wired() -> Iterator[Wires]:
    with wires() as made:
        yield made


def chain(rules: str, name: str) -> str:
    """Return the last definition of a chain, the one with its rules."""
    return rules.rpartition(f"    chain {name} {{\n")[2].partition("    }\n")[0]


@pytest.mark.parametrize("form", ["queue", "nfqueue"])
@pytest.mark.parametrize("name", ["divert", "own_in", "own_out", "learn"])
def test_every_way_to_natfix_is_gated(form: str, name: str) -> None:
    """Each chain that leads packets to natfix begins with the gate; without a trial none has it."""
    assert chain(skeleton_text(TRIAL, form), name).startswith(GATE)
    assert "trial" not in skeleton_text(SKELETON, form)


def test_no_way_is_forgotten() -> None:
    """Every chain at a hook that leads to natfix's queue, by whatever other chains, is gated."""
    rules = skeleton_text(TRIAL, "queue")
    hooked = re.findall(r"chain (\w+) \{\n +type", rules)
    leads = {name: set(re.findall(r"(?:jump|goto) (\w+)", chain(rules, name)))
             for name in re.findall(r"chain (\w+) \{", rules)}

    def reaches(name: str) -> bool:
        return name == "to_natfix" or any(map(reaches, leads[name]))

    leading = [name for name in hooked if reaches(name)]
    assert {"divert", "learn"} <= set(leading)
    assert all(GATE in chain(rules, name) for name in leading)


@on_kernel
def test_the_kernel_counts_the_time(wired: Wires) -> None:
    """Nobody listens to the queue: without bypass SIP is dropped in the trial, and passes after it."""
    wired.firewall()
    wired.install(replace(SKELETON, trial=0.1, bypass=False))       # and the margin
    phone, remote = wired.bind(SIP.host, SIP.port), wired.bind(REMOTE, SIP_REMOTE.port)
    began = time.monotonic()
    arrived = 0.0
    while not arrived and time.monotonic() < began + 10:
        phone.sendto(b"OPTIONS", SIP_REMOTE[:2])
        try:
            remote.recv(100)
            arrived = time.monotonic()
        except TimeoutError:
            continue
    assert 3 < arrived - began < 8


@on_kernel
def test_the_same_table_again(wired: Wires) -> None:
    """Loaded again the time begins anew; loaded without a trial the gate is gone."""
    wired.firewall()
    wired.install(replace(SKELETON, trial=3.0))
    wired.install(replace(SKELETON, trial=300.0))
    assert "timeout 5m3s" in wired.gateway.run("nft list set ip natfix trial")
    assert "@trial" in wired.rules()
    wired.install(SKELETON)
    assert "@trial" not in wired.rules()
    wired.remove()
    assert "natfix" not in wired.rules()
