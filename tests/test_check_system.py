"""The machine around natfix: clock, bridges, source filter, timeouts."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from natfix.check_system import check_bridges, check_clock, check_conntrack_settings, check_source_filter
from natfix.findings import Status, clock_is_synchronised
from natfix.firewall import Ruleset
from natfix.interfaces import Links, Route
from tests.hosts import LINKS, NOW, bad, gateway, write

STATE = "var/lib/natfix/state.sqlite"


def test_good_machine(tmp_path: Path) -> None:
    """A clock that is kept right, no bridge, ordinary timeouts: nothing is found."""
    host = gateway(tmp_path)
    assert [bad(check, host) for check in (check_clock, check_bridges, check_source_filter,
                                           check_conntrack_settings)] == [[], [], [], []]


def test_clock_that_was_never_set(tmp_path: Path) -> None:
    """A time before natfix existed is found, and named."""
    (finding,) = bad(check_clock, replace(gateway(tmp_path), now=lambda: 86400.0))
    assert "1970-01-02" in finding.text


@pytest.mark.parametrize(("ahead", "count"), [(3600, 1), (5, 0), (-3600, 0)])
def test_clock_that_was_set_back(tmp_path: Path, ahead: float, count: int) -> None:
    """A state file from the future says that the clock has gone back since; a few seconds do no harm."""
    host = gateway(tmp_path)
    write(tmp_path, STATE, "")
    os.utime(tmp_path / STATE, (NOW + ahead, NOW + ahead))
    assert len(bad(check_clock, host)) == count


def test_clock_that_nothing_keeps(tmp_path: Path) -> None:
    """That alone is a note; the kernel can be asked."""
    host = replace(gateway(tmp_path), clock_is_synchronised=lambda: False)
    assert [finding.status for finding in check_clock(host)] == [Status.NOTE]
    assert clock_is_synchronised() in (True, False)


TWO_LINKS = Links(
    {**LINKS.addresses, "wan1": ("198.51.100.1",)},
    (Route(LINKS.routes[0].network, "wan1"), *LINKS.routes[1:]))


@pytest.mark.parametrize(("links", "all_links", "own", "count"), [
    (TWO_LINKS, "1", "0", 1), (TWO_LINKS, "0", "1", 1), (TWO_LINKS, "1", "2", 0), (TWO_LINKS, "0", "0", 0),
    (LINKS, "1", "1", 0),
])
def test_source_filter(tmp_path: Path, links: Links, all_links: str, own: str, count: int) -> None:
    """A strict filter is an error on a link that the default route does not use; the larger value counts."""
    host = gateway(tmp_path, '[outside]\ninterface = "wan0"\n', links=links,
                   proc__sys__net__ipv4__conf__all__rp_filter=all_links,
                   proc__sys__net__ipv4__conf__wan0__rp_filter=own)
    assert [finding.status for finding in bad(check_source_filter, host)] == [Status.ERROR] * count


def test_source_filter_of_a_vlan(tmp_path: Path) -> None:
    """A link with a dot in its name is read as it is, and written as sysctl wants it."""
    links = Links({"wan0.10": ("203.0.113.1",), **TWO_LINKS.addresses}, TWO_LINKS.routes)
    host = gateway(tmp_path, '[outside]\ninterface = "wan0.10"\n', links=links,
                   **{"proc__sys__net__ipv4__conf__wan0.10__rp_filter": "1"})
    (finding,) = bad(check_source_filter, host)
    assert finding.cure == "sysctl -w net.ipv4.conf.wan0/10.rp_filter=2"


def test_bridged_packets_among_the_routed(tmp_path: Path) -> None:
    """br_netfilter matters where a link of the phones is a bridge, and only while it is on."""
    on = {"proc__sys__net__bridge__bridge-nf-call-iptables": "1"}
    assert bad(check_bridges, gateway(tmp_path / "routed", **on)) == []
    write(tmp_path, "sys/class/net/lan0/bridge/stp_state", "0")
    assert bad(check_bridges, gateway(tmp_path)) == []
    (finding,) = bad(check_bridges, gateway(tmp_path, **on))
    assert "lan0" in finding.text


@pytest.mark.parametrize(("name", "value", "words"), [
    ("max", "8192", "need 20000"), ("udp_timeout_stream", "30", "audio ends"),
    ("udp_timeout", "5", "slow answers"),
])
def test_conntrack_settings(tmp_path: Path, name: str, value: str, words: str) -> None:
    """A table too small for all media ports, and timeouts shorter than a silence, are found."""
    host = gateway(tmp_path, **{f"proc__sys__net__netfilter__nf_conntrack_{name}": value})
    (finding,) = bad(check_conntrack_settings, host)
    assert words in finding.text
    assert finding.cure.startswith(f"sysctl -w net.netfilter.nf_conntrack_{name}=")


def test_counters_switched_off_again(tmp_path: Path) -> None:
    """natfix switches them on; off matters only while its table is there."""
    off = {"proc__sys__net__netfilter__nf_conntrack_acct": "0"}
    assert bad(check_conntrack_settings, gateway(tmp_path, **off)) == []
    running = gateway(tmp_path, ruleset=Ruleset(tables={"ip natfix"}), **off)
    assert len(bad(check_conntrack_settings, running)) == 1
