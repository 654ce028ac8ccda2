"""What changes around natfix: link events of a real kernel, and the kernel's socket tables."""

from __future__ import annotations

import logging
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from natfix.errors import KernelRefused
from natfix.firewall import Ruleset
from natfix.firewall_nft import ruleset_from_json
from natfix.reports import AddressesChanged
from natfix.watch import LinkEvents, local_udp_ports, ports_in_use
from tests.namespace import Namespace, kernel_test, namespace
from tests.test_queue_reader import on_the_kernel

UDP = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
 2605: 0100007F:176D 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 23836 2 0 0
 2606: 00000000:13C4 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 23836 2 0 0
 2607: 017100CB:7531 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 23836 2 0 0
"""
UDP6 = """  sl  local_address                         remote_address                        st tx_queue
 2606: 00000000000000000000000000000000:176E 00000000000000000000000000000000:0000 07 00000000:00000000 0
 2607: 0000000000000000FFFF0000017100CB:176F 00000000000000000000000000000000:0000 07 00000000:00000000 0
 2608: 0000000000000000FFFF00000100007F:1770 00000000000000000000000000000000:0000 07 00000000:00000000 0
 2609: B80D0120000000000000000001000000:1771 00000000000000000000000000000000:0000 07 00000000:00000000 0
"""


def test_ports_in_use_on_the_outside_address(tmp_path: Path) -> None:
    """Sockets of the outside address or of all addresses count, in IPv6 dress as well; others do not."""
    (tmp_path / "udp").write_text(UDP)
    (tmp_path / "udp6").write_text(UDP6)
    assert local_udp_ports(["203.0.113.1"], tmp_path) == {5060, 30001, 5998, 5999}
    assert local_udp_ports([], tmp_path) == {5060, 5998}


def test_machine_without_ipv6(tmp_path: Path) -> None:
    """A missing table is an empty one."""
    (tmp_path / "udp").write_text(UDP)
    assert local_udp_ports([], tmp_path) == {5060}


def test_real_sockets_are_found() -> None:
    """A socket that is open right now is in the list, as long as it is open."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as program:
        program.bind(("127.0.0.1", 0))
        port = program.getsockname()[1]
        assert port in local_udp_ports(["127.0.0.1"])
        assert port not in local_udp_ports([])


ADDRESSES = AddressesChanged({"wan0": "203.0.113.1"}, ())
FORWARD = {"nftables": [
    {"chain": {"family": "ip", "table": "nat", "name": "pre", "type": "nat", "hook": "prerouting"}},
    {"rule": {"family": "ip", "table": "nat", "chain": "pre", "handle": 1, "expr": [
        {"match": {"op": "==", "left": {"payload": {"protocol": "udp", "field": "dport"}}, "right": 5061}},
        {"dnat": {"addr": "192.168.1.5"}},
    ]}},
]}


def test_forwards_of_the_operator_are_in_use() -> None:
    """A port that the operator's own DNAT rule takes is told as a forward."""
    assert 5061 in ports_in_use(ADDRESSES, lambda: ruleset_from_json(FORWARD)).forwards


def test_unreadable_rules_cost_the_forwards_only(caplog: pytest.LogCaptureFixture) -> None:
    """Without the program nft the local sockets are still known, and the log says what is not."""
    def refuse() -> Ruleset:
        raise KernelRefused("the program nft is missing")
    with caplog.at_level(logging.WARNING, "natfix"):
        assert ports_in_use(ADDRESSES, refuse).forwards == {}
    assert "the program nft is missing" in caplog.text


@pytest.fixture
def place() -> Iterator[Namespace]:
    with namespace() as made:
        yield made


@pytest.mark.parametrize("change", [
    pytest.param(change, marks=kernel_test) for change in (
        "ip link set lo down", "ip addr add 192.0.2.1/24 dev lo", "ip route add 198.51.100.0/24 dev lo")
])
def test_link_changes_are_told(place: Namespace, change: str) -> None:
    """A link, address or route that changes makes the source readable once, and draining quiets it."""
    events = place.call(LinkEvents)
    assert not events.drain()
    place.run(change)
    assert select.select([events], [], [], 2)[0]
    assert events.drain()
    assert not events.drain()
    events.close()


@on_the_kernel
def test_lost_link_events_count_as_change(place: Namespace) -> None:
    """Where the socket's buffer overflowed, something has changed."""
    events = place.call(LinkEvents)
    events._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    place.run("ip -batch -", "".join(f"addr add 192.0.2.{number}/32 dev lo\n" for number in range(1, 100)))
    assert events.drain()
    events.close()
