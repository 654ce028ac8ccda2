"""What a start looks at before it touches anything, and which flows it takes over."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from natfix.address import Endpoint, network_from_text
from natfix.commands import Flow
from natfix.config import config_from_text
from natfix.errors import KernelRefused, NatfixError, NotPermitted
from natfix.findings import Host
from natfix.firewall import Ruleset
from natfix.firewall_nft import ruleset_from_json
from natfix.kernel.base import FlowState
from natfix.kernel.probe import NO_TIMEOUTS
from natfix.reports import AddressesChanged
from natfix.startup import (
    flows_to_adopt,
    refuse_beside_helper,
    refuse_without_rights,
    skeleton_from_settings,
    warn_without_timeouts,
)
from tests.hosts import CAPABLE

SETTINGS = config_from_text("", "natfix.toml")
ADDRESSES = AddressesChanged({"wan0": "203.0.113.1"}, ((network_from_text("192.168.1.0/24"), "lan0"),))
SKELETON = skeleton_from_settings(SETTINGS, ADDRESSES)
PHONE, PROVIDER = Endpoint("192.168.1.2", 5060), Endpoint("203.0.113.50", 5060)
SHOWN = Endpoint("203.0.113.1", 5060)
HELPER = {"nftables": [
    {"ct helper": {"family": "inet", "table": "f", "name": "sip-5060", "type": "sip", "protocol": "udp"}},
    {"chain": {"family": "inet", "table": "f", "name": "pre", "type": "filter", "hook": "prerouting"}},
    {"rule": {"family": "inet", "table": "f", "chain": "pre", "handle": 12,
              "expr": [{"ct helper": "sip-5060"}]}},
]}


def state(
    source: Endpoint, remote: Endpoint, shown: Endpoint, mark: int = 0, replied: bool = True,
) -> FlowState:
    return FlowState(Flow(source, remote, remote, shown), 100.0, 3, 2, mark, replied)


def test_a_kernel_without_timeouts(caplog: pytest.LogCaptureFixture) -> None:
    """It is told what that means, and nobody else is."""
    warn_without_timeouts(CAPABLE)
    assert caplog.records == []
    warn_without_timeouts(replace(CAPABLE, timeouts=False))
    assert [record.getMessage() for record in caplog.records] == [f"natfix: {NO_TIMEOUTS}"]


def test_skeleton_says_what_the_settings_say() -> None:
    """Interfaces, ports, mark, queue and the choice for when natfix is down go into the static rules."""
    settings = config_from_text(
        '[signalling]\nports = [5060, 5080]\nqueue = 7\non_failure = "pass"\ndivert = "nfqueue"\n'
        "[media]\nports = [40000, 40999]\n", "natfix.toml")
    assert skeleton_from_settings(settings, ADDRESSES) == (
        SKELETON.__class__(("wan0",), (5060, 5080), (40000, 40999), 0x04000000, 7, True, "nfqueue"))


def test_nated_sip_flows_are_adopted() -> None:
    """A flow from inside on a SIP port, at either end, or marked by a natfix of before, is taken over."""
    high = Endpoint("192.168.1.3", 40000)
    flows = [
        state(PHONE, PROVIDER, SHOWN),
        state(high, PROVIDER, Endpoint("203.0.113.1", 40000)),
        state(PHONE._replace(host="192.168.1.4"), Endpoint("203.0.113.50", 5999), SHOWN._replace(port=1024)),
        state(high, Endpoint("203.0.113.50", 5999), Endpoint("203.0.113.1", 40001), mark=0x04000001),
    ]
    assert [report.state for report in flows_to_adopt(flows, SKELETON, ADDRESSES)] == flows


def test_other_flows_are_not_adopted() -> None:
    """Not from inside, not NATed to the outside address, the gateway's own, not SIP: left alone."""
    flows = [
        state(PROVIDER, SHOWN, PROVIDER),
        state(PHONE, PROVIDER, PHONE),
        state(SHOWN, PROVIDER, SHOWN),
        state(Endpoint("192.168.1.3", 4000), Endpoint("203.0.113.50", 53), Endpoint("203.0.113.1", 4000)),
    ]
    assert flows_to_adopt(flows, SKELETON, ADDRESSES) == []


def test_answered_flow_comes_first() -> None:
    """Where two flows claim a port the registrar's wins: the one that was answered is told first."""
    silent, answered = state(PHONE, PROVIDER, SHOWN, replied=False), state(PHONE, PROVIDER, SHOWN)
    assert [report.state for report in flows_to_adopt([silent, answered], SKELETON, ADDRESSES)] == [
        answered, silent]


def test_attached_helper_is_refused_with_the_cure() -> None:
    """Beside the kernel's own SIP helper natfix does not start (exit 5), and names what removes it."""
    host = Host(SETTINGS, ruleset=lambda: ruleset_from_json(HELPER))
    with pytest.raises(KernelRefused, match="nft delete rule inet f pre handle 12"):
        refuse_beside_helper(host)
    refuse_beside_helper(Host(SETTINGS, ruleset=Ruleset))


def test_unreadable_rules_are_no_refusal(caplog: pytest.LogCaptureFixture) -> None:
    """Where the rules cannot be read natfix starts, and says what it could not see."""
    def refuse() -> Ruleset:
        raise NatfixError("nft is missing")
    with caplog.at_level(logging.WARNING, "natfix"):
        refuse_beside_helper(Host(SETTINGS, ruleset=refuse))
    assert "nft is missing" in caplog.text


def test_rights_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without CAP_NET_ADMIN: exit 4, one sentence."""
    monkeypatch.setattr("natfix.startup.has_net_admin", lambda: True)
    refuse_without_rights()
    monkeypatch.setattr("natfix.startup.has_net_admin", lambda: False)
    with pytest.raises(NotPermitted, match="CAP_NET_ADMIN"):
        refuse_without_rights()
