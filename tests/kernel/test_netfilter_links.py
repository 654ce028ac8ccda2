"""Several outside links, on a real kernel without natfix's daemon: what the rules do to packets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from natfix.address import Endpoint
from natfix.commands import AddMapping
from tests.kernel.wires import GATEWAY, MEDIA, PHONE, REMOTE, RTP, SIGNALLING, SIP, SKELETON, sent
from tests.namespace import kernel_test
from tests.two_links import GATEWAY_2, REMOTE_2, SECOND_MARK, SERVER, TwoLinks

pytestmark = kernel_test


@pytest.fixture
def links(tmp_path: Path) -> Iterator[TwoLinks]:
    made = TwoLinks(tmp_path)
    made.wires.install(replace(SKELETON, outside_interfaces=("outside", "outside2")))
    yield made
    made.close()


def test_one_endpoint_has_a_mapping_at_each_link(links: TwoLinks) -> None:
    """What an endpoint sends is shown as what stands for it at the link by which it leaves."""
    first, second = Endpoint(GATEWAY, 15060), Endpoint(GATEWAY_2, 25060)
    links.wires.kernel.apply([AddMapping(SIGNALLING, SIP, first, 60),
                              AddMapping(SIGNALLING, SIP._replace(link="outside2"), second, 60)])
    for host, shown in ((REMOTE, first), (REMOTE_2, second)):
        remote = links.wires.bind(host, 5080)
        assert sent(links.phone, Endpoint(host, 5080), remote) == shown


def test_what_has_no_mapping_at_a_link_is_the_operators(links: TwoLinks) -> None:
    """A mapping of the first link never shows its address at the second one."""
    links.wires.kernel.apply([AddMapping(SIGNALLING, SIP, Endpoint(GATEWAY, 15060), 60)])
    remote = links.wires.bind(REMOTE_2, 5080)
    assert sent(links.phone, Endpoint(REMOTE_2, 5080), remote) == Endpoint(GATEWAY_2, 5060)


def test_media_leaves_by_the_link_of_its_mark(links: TwoLinks) -> None:
    """Whatever the route to its receiver: from the first packet, and only what has a mark."""
    server = links.wires.bind(SERVER, 20000)
    shown = Endpoint(GATEWAY_2, 30000)
    links.wires.kernel.apply([AddMapping(MEDIA, RTP, shown, 60, mark=SECOND_MARK)])
    assert sent(links.wires.bind(PHONE, RTP.port), Endpoint(SERVER, 20000), server) == shown
    other = sent(links.wires.bind(PHONE, RTP.port + 2), Endpoint(SERVER, 20000), server)
    assert other == Endpoint(GATEWAY, RTP.port + 2)
    carried = links.carried()
    assert (carried[f"eth1 {GATEWAY_2}"], carried[f"eth0 {GATEWAY}"]) == (1, 1)
