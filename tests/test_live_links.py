"""Several outside links: calls by each, media included; links that fail, come back, and change addresses."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway_with_natfix import RTP, SIP, header
from tests.namespace import kernel_test
from tests.two_links import GATEWAY, GATEWAY_2, PHONE, REMOTE_2, SERVER, TwoLinks

pytestmark = kernel_test

MEDIA = 20000


@pytest.fixture
def links(tmp_path: Path) -> Iterator[TwoLinks]:
    made = TwoLinks(tmp_path)
    yield made
    made.close()


def is_heard(links: TwoLinks, phone: socket.socket, server: socket.socket, told: tuple[str, int]) -> bool:
    """Tell whether audio goes both ways: from where the server was told to where it sends from."""
    phone.sendto(b"from inside", server.getsockname())
    if server.recvfrom(100) != (b"from inside", told):
        return False
    server.sendto(b"from outside", told)
    return phone.recvfrom(100) == (b"from outside", server.getsockname())


def test_one_endpoint_at_both_links(links: TwoLinks) -> None:
    """A PBX with a provider at each link, and one SIP port of its own: each provider sees, at the same time,
    the address of its own link in Via, Contact and SDP, and media leaves by that link although routes to
    the media server lead by the other."""
    links.begin()
    second = links.wires.bind(REMOTE_2, SIP)
    first_call = links.call(links.phone, PHONE, links.provider, RTP, SERVER, MEDIA)
    second_call = links.call(links.phone, PHONE, second, RTP + 2, SERVER, MEDIA + 2)
    for call, host in ((first_call, GATEWAY), (second_call, GATEWAY_2)):
        assert call.source == (host, SIP)
        assert call.told[0] == host
        assert header(call.offer, "Via").startswith(f"SIP/2.0/UDP {host}:{SIP};")
        assert header(call.offer, "Contact") == f"<sip:alice@{host}:{SIP}>"
        phone, server = links.wires.bind(PHONE, call.rtp[1]), links.wires.bind(SERVER, call.media[1])
        assert is_heard(links, phone, server, call.told)
    assert links.carried() == {
        f"eth0 {GATEWAY}": 1, f"eth0 {GATEWAY_2}": 0, f"eth1 {GATEWAY}": 0, f"eth1 {GATEWAY_2}": 1}
    for call, server in ((first_call, links.provider), (second_call, second)):
        call.dialog.send_request("BYE")
        assert server.recvfrom(4096)[1] == call.source
