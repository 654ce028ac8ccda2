"""The far NATs are of the kinds they are called after."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.lab import namespaces
from tests.lab.far_nat import (
    ADDRESS_RESTRICTED,
    FULL_CONE,
    KINDS,
    PORT_RESTRICTED,
    SYMMETRIC,
)
from tests.lab.lab import Lab

pytestmark = pytest.mark.lab
PHONE_PORT = 10000


class Bench:
    """A phone behind a far NAT, and three outside endpoints: two at one address, one at another."""

    def __init__(self, lab: Lab, stack: ExitStack) -> None:
        self.phone = self._socket(lab, stack, "far1a", PHONE_PORT)
        self.near = self._socket(lab, stack, "provider", 7000)
        self.same_address = self._socket(lab, stack, "provider", 7002)
        self.stranger = self._socket(lab, stack, "stranger", 7000)

    def _socket(self, lab: Lab, stack: ExitStack, host: str, port: int) -> socket.socket:
        found = stack.enter_context(namespaces.socket_in(lab[host].namespace))
        found.settimeout(0.3)
        found.bind((lab[host].address, port))
        return found

    def seen_by(self, outside: socket.socket) -> tuple[str, int]:
        """Have the phone send to *outside*, and return where that came from."""
        self.phone.sendto(b"out", outside.getsockname())
        found: tuple[str, int] = outside.recvfrom(100)[1]
        return found

    def reaches(self, outside: socket.socket, mapped: tuple[str, int]) -> bool:
        """Tell whether what *outside* sends to *mapped* arrives at the phone."""
        outside.sendto(b"in", mapped)
        try:
            return self.phone.recv(100) == b"in"
        except TimeoutError:
            return False


@pytest.fixture(params=KINDS)
def bench(request: pytest.FixtureRequest, make_lab: Callable[..., Lab]) -> Iterator[tuple[str, Bench, Lab]]:
    lab = make_lab("far", kinds=(request.param,))
    with ExitStack() as stack:
        yield request.param, Bench(lab, stack), lab


def test_mapping_and_filtering(bench: tuple[str, Bench, Lab]) -> None:
    """Who reaches a phone that has sent one packet to one endpoint, and whether it keeps its port."""
    kind, ends, _ = bench
    mapped = ends.seen_by(ends.near)
    assert mapped[0] == "203.0.113.71"
    assert mapped[1] != PHONE_PORT
    reached = {name: ends.reaches(outside, mapped) for name, outside in (
        ("near", ends.near), ("same address", ends.same_address), ("stranger", ends.stranger))}
    assert reached == {
        "near": True,
        "same address": kind in (FULL_CONE, ADDRESS_RESTRICTED),
        "stranger": kind == FULL_CONE,
    }
    assert (ends.seen_by(ends.stranger) == mapped) is (kind != SYMMETRIC)


def test_rebinding(make_lab: Callable[..., Lab]) -> None:
    """After a rebinding a phone is seen at another port, and the old one leads nowhere."""
    lab = make_lab("far", kinds=(PORT_RESTRICTED,))
    with ExitStack() as stack:
        ends = Bench(lab, stack)
        before = ends.seen_by(ends.near)
        lab.far_nats["nat1"].rebind()
        after = ends.seen_by(ends.near)
        assert before != after
        assert not ends.reaches(ends.near, before)
        assert ends.reaches(ends.near, after)


def test_sites_do_not_see_each_other(make_lab: Callable[..., Lab]) -> None:
    """Two far sites use the same private addresses, and a phone may sit behind two NATs."""
    lab = make_lab("far", kinds=(FULL_CONE, SYMMETRIC), deep=True)
    assert lab["far1a"].address == lab["far2a"].address == "192.168.1.10"
    with ExitStack() as stack:
        outside = stack.enter_context(namespaces.socket_in(lab["provider"].namespace))
        outside.settimeout(1)
        outside.bind((lab["provider"].address, 7000))
        seen = {}
        for name in ("far1a", "far2a", "deep"):
            phone = stack.enter_context(namespaces.socket_in(lab[name].namespace))
            phone.bind((lab[name].address, PHONE_PORT))
            phone.sendto(b"out", outside.getsockname())
            seen[name] = outside.recvfrom(100)[1]
    assert [seen[name][0] for name in seen] == ["203.0.113.71", "203.0.113.72", "203.0.113.71"]
    assert len(set(seen.values())) == 3
