"""Gateways of namespaces, for the tests of the netfilter back end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kernel.wires import Queue, Wires, wires


@pytest.fixture
def bare() -> Iterator[Wires]:
    """A gateway with nothing but addresses."""
    with wires() as made:
        yield made


@pytest.fixture
def gateway(bare: Wires) -> Wires:
    """A gateway with an operator's default-drop firewall and masquerade, and natfix's table."""
    bare.firewall()
    bare.install()
    return bare


@pytest.fixture
def open_gateway(bare: Wires) -> Wires:
    """The same with the one line that lets DNATed flows through."""
    bare.firewall(dnat_line=True)
    bare.install()
    return bare


@pytest.fixture
def queue(gateway: Wires) -> Iterator[Queue]:
    """The gateway with somebody at its NFQUEUE."""
    made = Queue(gateway)
    yield made
    made.close()
