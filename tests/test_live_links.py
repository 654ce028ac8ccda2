"""Several outside links: calls by each, media included; links that fail, come back, and change addresses."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from natfix.check_outside import check_outside_links
from natfix.config import config_from_text
from natfix.findings import Host, Status
from tests.gateway_with_natfix import RTP, SDP, SIP, answer_to, header, media_of, wait_until
from tests.kernel.wires import GATEWAY, PHONE, PHONE_2, REMOTE
from tests.namespace import kernel_test
from tests.two_links import (
    CONFIGURATION,
    GATEWAY_2,
    PATIENCE,
    REMOTE_2,
    SECOND_MARK,
    SECOND_ROUTE,
    SERVER,
    TwoLinks,
    attempt,
    entries,
    is_heard,
    next_call,
)

pytestmark = kernel_test

MEDIA = 20000


@pytest.fixture
def links(tmp_path: Path) -> Iterator[TwoLinks]:
    made = TwoLinks(tmp_path)
    yield made
    made.close()


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
        assert is_heard(phone, server, call.told)
    assert links.carried() == {
        f"eth0 {GATEWAY}": 1, f"eth0 {GATEWAY_2}": 0, f"eth1 {GATEWAY}": 0, f"eth1 {GATEWAY_2}": 1}
    for call, server in ((first_call, links.provider), (second_call, second)):
        call.dialog.send_request("BYE")
        assert server.recvfrom(4096)[1] == call.source


def test_fail_over_of_the_default_route(links: TwoLinks) -> None:
    """The provider is somewhere on the Internet: the next call after fail-over is right at the other link,
    with the phone's own port; the call before it keeps the link that it has, audio included; back again,
    the same. Of conntrack's entries only the phone's to this provider go."""
    links.begin()
    server = links.wires.bind(SERVER, SIP)
    media = links.wires.bind(SERVER, MEDIA)
    phone = links.wires.bind(PHONE, RTP)
    before = links.call(links.phone, PHONE, server, RTP, SERVER, MEDIA)
    other = links.wires.bind(PHONE_2, 9999)
    other.sendto(b"x", (REMOTE, SIP))
    assert before.told[0] == GATEWAY
    assert is_heard(phone, media, before.told)
    kept = entries(links, "9999") + entries(links, f"dport={MEDIA}")
    for number, (router, device, host) in enumerate(((REMOTE_2, "outside2", GATEWAY_2),
                                                     (REMOTE, "outside", GATEWAY)), 1):
        links.wires.gateway.run(f"ip route replace default via {router} dev {device}")
        rtp = RTP + 10 * number
        call = links.call(links.phone, PHONE, server, rtp, SERVER, MEDIA + rtp)
        assert (call.told[0], call.source) == (host, (host, SIP))
        assert is_heard(links.wires.bind(PHONE, rtp), links.wires.bind(SERVER, MEDIA + rtp), call.told)
        assert is_heard(phone, media, before.told)
        assert entries(links, "9999") + entries(links, f"dport={MEDIA} ") == kept
        stale = GATEWAY if host == GATEWAY_2 else GATEWAY_2
        assert not [line for line in entries(links, f"dst={SERVER} sport={SIP}") if f"dst={stale} " in line]


class OnSecond:
    """A phone that calls by the second link, another one by the first, and entries of others."""

    def __init__(self, links: TwoLinks) -> None:
        self.links = links
        self.server = links.wires.bind(REMOTE_2, SIP)
        self.phone, self.media = links.wires.bind(PHONE, RTP), links.wires.bind(SERVER, MEDIA)
        self.call = links.call(links.phone, PHONE, self.server, RTP, SERVER, MEDIA)
        self.other_phone = links.wires.bind(PHONE_2, RTP)
        self.other_media = links.wires.bind(SERVER, MEDIA + 2)
        self.other_call = links.call(
            links.wires.bind(PHONE_2, SIP), PHONE_2, links.provider, RTP, SERVER, MEDIA + 2)
        links.wires.bind(PHONE_2, 9999).sendto(b"x", (REMOTE, SIP + 1))
        assert self.call.told[0] == GATEWAY_2
        assert self.hears()
        assert self.other_hears()

    def hears(self) -> bool:
        return is_heard(self.phone, self.media, self.call.told)

    def other_hears(self) -> bool:
        return is_heard(self.other_phone, self.other_media, self.other_call.told)

    def others_entries(self) -> list[str]:
        """All entries but those of the second link's address."""
        return [line for line in entries(self.links) if GATEWAY_2 not in line]

    def wait_for(self, note: str) -> None:
        wait_until(lambda: note in self.links.log(), PATIENCE)


def test_a_link_goes_down_and_up(links: TwoLinks) -> None:
    """In a running call: nothing of natfix's is taken away, both calls are told apart, the other one is heard
    meanwhile; once the link is up again, audio goes on where it was, and the call can be ended."""
    links.begin()
    with_call = OnSecond(links)
    kept = entries(links)
    links.wires.gateway.run("ip link set outside2 down")
    with_call.wait_for("is down: calls that lose their audio: 1; calls that go on: 1")
    assert with_call.other_hears()
    links.wires.gateway.run(f"ip link set outside2 up; {SECOND_ROUTE}")
    with_call.wait_for("is back")
    wait_until(lambda: attempt(with_call.hears), PATIENCE)
    assert entries(links) == kept
    with_call.call.dialog.send_request("BYE")
    assert with_call.server.recvfrom(4096)[1] == with_call.call.source


NEW = "198.51.100.77"


def lease(links: TwoLinks) -> None:
    """A DHCP client gets another address."""
    links.wires.gateway.run(f"ip addr del {GATEWAY_2}/24 dev outside2; ip addr add {NEW}/24 dev outside2; "
                            + SECOND_ROUTE)


def dial(links: TwoLinks) -> None:
    """A PPPoE session ends, and the next one has another address."""
    links.cut_second()
    links.lay_second(NEW)


@pytest.mark.parametrize("change", [lease, dial])
def test_another_address(links: TwoLinks, change: Callable[[TwoLinks], None]) -> None:
    """The next call carries the new address, and so does a new offer in the running one, which is heard
    again then; what conntrack has for the old address is gone, all other entries stay, and the other call
    is heard throughout."""
    links.begin()
    with_call = OnSecond(links)
    kept = with_call.others_entries()
    assert entries(links, GATEWAY_2)
    change(links)
    with_call.server.close()
    server = links.wires.bind(REMOTE_2, SIP)
    assert with_call.other_hears()
    place = partial(links.call, links.phone, PHONE, server, RTP + 10, SERVER, MEDIA + 10)
    call = next_call(place, NEW, GATEWAY_2)
    assert is_heard(links.wires.bind(PHONE, RTP + 10), links.wires.bind(SERVER, MEDIA + 10), call.told)
    assert not entries(links, GATEWAY_2)
    assert set(kept) <= set(entries(links))
    with_call.call.server = server
    with_call.call.offer_again()
    assert with_call.call.told[0] == NEW
    assert with_call.hears()
    assert with_call.other_hears()


def test_check_finds_the_rules_for_marks(links: TwoLinks) -> None:
    """`natfix check` sees the operator's `ip rule`s as the kernel has them, and misses one that is gone."""
    def marks() -> set[Status]:
        settings = config_from_text(CONFIGURATION, "natfix.toml")
        return {finding.status for finding in links.wires.gateway.call(
            lambda: list(check_outside_links(Host(settings))))}

    assert marks() == {Status.OK}
    links.wires.gateway.run(f"ip rule del fwmark {SECOND_MARK:#x}")
    assert marks() == {Status.OK, Status.WARNING}


def test_tcp_by_the_second_link(links: TwoLinks) -> None:
    """A connection by the second link is shown with that link's address, and so is the media of its call,
    which leaves by that link as well."""
    links.begin()
    listener = links.wires.outside.call(lambda: socket.create_server((REMOTE_2, SIP)))
    listener.settimeout(5)
    links.wires.sockets.append(listener)
    phone = links.wires.inside.call(lambda: socket.create_connection((REMOTE_2, SIP), 5, (PHONE, 0)))
    links.wires.sockets.append(phone)
    server, source = listener.accept()
    links.wires.sockets.append(server)
    server.settimeout(5)
    host, port = phone.getsockname()
    body = SDP.format(PHONE, RTP)
    phone.sendall((
        f"INVITE sip:bob@{REMOTE_2} SIP/2.0\r\nVia: SIP/2.0/TCP {host}:{port};branch=z9hG4bK1\r\n"
        "From: <sip:alice@example.com>;tag=a\r\nTo: <sip:bob@example.com>\r\nCall-ID: tcp\r\n"
        "CSeq: 1 INVITE\r\n"
        f"Contact: <sip:alice@{host}:{port};transport=tcp>\r\nContent-Type: application/sdp\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}").encode())
    offer = server.recv(65535).decode()
    told = media_of(offer)
    assert source[0] == told[0] == GATEWAY_2
    assert header(offer, "Via").startswith(f"SIP/2.0/TCP {GATEWAY_2}:{source[1]};")
    server.sendall(answer_to(offer, "200 OK", f"<sip:bob@{REMOTE_2}>", SDP.format(SERVER, MEDIA)))
    assert phone.recv(65535).startswith(b"SIP/2.0 200")
    assert is_heard(links.wires.bind(PHONE, RTP), links.wires.bind(SERVER, MEDIA), told)
    assert links.carried()[f"eth1 {GATEWAY_2}"] == 1
