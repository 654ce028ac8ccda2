"""What `natfix up --dry-run` says: by facts that are given, in both forms."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from natfix import plan
from natfix.address import Endpoint
from natfix.commands import Flow
from natfix.errors import DONE, FINDINGS, ConfigError
from natfix.firewall_iptables import ruleset_from_save
from natfix.interfaces import Links
from natfix.kernel.base import FlowState
from natfix.order import Mode
from natfix.plan import plan_document, plan_for, plan_text
from tests.hosts import CAPABLE, FIREWALL, gateway
from tests.schema import problems

PHONE, PROVIDER = Endpoint("192.168.1.10", 5060), Endpoint("198.51.100.7", 5060)
SHOWN = Endpoint("203.0.113.1", 1024)
FLOWS = [FlowState(Flow(PHONE, PROVIDER, PROVIDER, SHOWN), 20.0, 1, 1, 0, True)]
ACCOUNTING = "proc__sys__net__netfilter__nf_conntrack_acct"


@pytest.fixture(autouse=True)
def flows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connections that the machine has."""
    monkeypatch.setattr(plan, "_flows", lambda: FLOWS)


def test_everything_that_would_change(tmp_path: Path) -> None:
    """Table, sysctl and flows are named, comments left out; the code is FINDINGS where it is asked for."""
    planned = plan_for(gateway(tmp_path, **{ACCOUNTING: "0\n"}), Mode.FIX, None)
    said = plan_text(planned)
    assert said.startswith("Would add (nothing is done now): the table ip natfix\n")
    assert "+         queue num $sip_queue" in said
    assert "+ define outside = { \"wan0\" }" in said
    assert "nf_conntrack_acct: 0 -> 1, until `natfix down`" in said
    assert "1 SIP flow from before would be marked" in said
    assert "SIP is dropped until it is back" in said
    assert not [line for line in said.splitlines() if line.lstrip("+ ").startswith("#")]
    assert (planned.exit_code(asked=True), planned.exit_code(asked=False)) == (FINDINGS, DONE)


def test_the_xtables_target_is_shown(tmp_path: Path) -> None:
    """Where nft has no queue statement, the rule that stands for it is in the plan, too."""
    host = gateway(tmp_path, capabilities=replace(CAPABLE, queue=False))
    assert "+         NFQUEUE --queue-num 5060" in plan_text(plan_for(host, Mode.FIX, None))


def test_sysctl_that_is_right_already(tmp_path: Path) -> None:
    """What need not be changed is not named."""
    planned = plan_for(gateway(tmp_path, **{ACCOUNTING: "1\n"}), Mode.FIX, None)
    assert planned.sysctls == ()
    assert "sysctl       none" in plan_text(planned)


def test_an_observer_changes_less(tmp_path: Path) -> None:
    """The observer's rules hold no map, and neither sysctl nor flows are touched."""
    planned = plan_for(gateway(tmp_path, **{ACCOUNTING: "0\n"}), Mode.OBSERVE, None)
    said = plan_text(planned)
    assert "log group 5060" in said
    assert "map" not in said
    assert "conntrack    unchanged" in said
    assert planned.sysctls == ()


def test_a_table_from_before(tmp_path: Path) -> None:
    """A table that a natfix has left is loaded again, and what it holds stays."""
    ruleset = ruleset_from_save(FIREWALL)
    ruleset.tables.add("ip natfix")
    said = plan_text(plan_for(gateway(tmp_path, ruleset=ruleset), Mode.FIX, None))
    assert said.startswith("Would load again (nothing is done now): the table ip natfix; what its maps hold")


@pytest.mark.parametrize("mode", ["fix", "trial", "drain"])
def test_nothing_to_do(tmp_path: Path, mode: str) -> None:
    """Beside a natfix that is in force nothing would change, and the code says so."""
    planned = plan_for(gateway(tmp_path), Mode.FIX, {"mode": mode})
    assert plan_text(planned) == "natfix is switched on already: nothing would change"
    assert planned.exit_code(asked=True) == DONE


def test_an_observer_would_be_replaced(tmp_path: Path) -> None:
    """To switch on what only observes is a change."""
    assert plan_for(gateway(tmp_path), Mode.FIX, {"mode": "observe"}).changes


def test_for_programs(tmp_path: Path) -> None:
    """The document holds the same as the text."""
    document = plan_document(plan_for(gateway(tmp_path, **{ACCOUNTING: "0\n"}), Mode.FIX, None))
    assert document["sysctls"] == [{"name": "net.netfilter.nf_conntrack_acct", "now": "0", "then": "1"}]
    assert document["flows_to_mark"] == 1
    assert problems(document, "plan") == []
    assert "table ip natfix {" in document["table"]["rules"]


def test_what_could_not_be_switched_on_is_refused(tmp_path: Path) -> None:
    """A dry run of what would be refused is refused."""
    with pytest.raises(ConfigError, match="no default route"):
        plan_for(gateway(tmp_path, links=Links({"lan0": ("192.168.1.1",)}, ())), Mode.FIX, None)
