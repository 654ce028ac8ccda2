"""`natfix up --dry-run`: what switching natfix on would change on this machine, and nothing done.

The kernel is not even asked to try the rules: nftables drops what waits in any packet queue of the machine
when it gives new chains up again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from natfix.errors import DONE, FINDINGS
from natfix.findings import Host
from natfix.firewall_now import OWN_TABLE
from natfix.interfaces import addresses_report
from natfix.kernel.base import FlowState, Skeleton
from natfix.kernel.netfilter import NetfilterKernel
from natfix.kernel.observed import observer_text
from natfix.order import Mode
from natfix.rules import nft_text
from natfix.startup import flows_to_adopt, skeleton_from_settings
from natfix.tables import printable

SCHEMA_VERSION = 1
IN_FORCE = (Mode.FIX.value, Mode.TRIAL.value, Mode.DRAIN.value)
XTABLES = "# xtables target instead of nft's queue, added by netlink: NFQUEUE"     # of skeleton_text()
ACCOUNTING_SYSCTL = "net.netfilter.nf_conntrack_acct"
ON_FAILURE = {
    False: "SIP is dropped until it is back, and the phones send it again ([signalling] on_failure); calls "
           "in progress keep their audio",
    True: "SIP passes unfixed ([signalling] on_failure); calls in progress keep their audio",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What would change; all empty where nothing would."""

    mode: Mode
    rules: tuple[str, ...] = ()             # of natfix's own table, without comments
    is_there: bool = False                  # a table of natfix's, from before
    sysctls: tuple[tuple[str, str, str], ...] = ()      # name, value now, value then
    adopted: int = 0                        # SIP flows that are NATed already, and would be marked
    if_it_stops: str = ""

    @property
    def changes(self) -> bool:
        return bool(self.rules)

    def exit_code(self, asked: bool) -> int:
        """Return FINDINGS where something would change and the code is *asked* for, as `git diff` does."""
        return FINDINGS if asked and self.changes else DONE


def plan_for(host: Host, mode: Mode, running: dict[str, Any] | None) -> Plan:
    """Return what `natfix up` would change on *host*; *running* is the status of a daemon that runs.

    Raises NatfixError where natfix could not be switched on.
    """
    if running is not None and running.get("mode") in (mode.value, *IN_FORCE):
        return Plan(mode)
    skeleton = skeleton_from_settings(host.settings, addresses_report(host.settings, host.links()))
    is_there = OWN_TABLE in host.ruleset().tables
    if mode is Mode.OBSERVE:
        return Plan(mode, _rule_lines(observer_text(skeleton)), is_there,
                    if_it_stops="nothing changes: packets never wait for it")
    off = host.sysctl(ACCOUNTING_SYSCTL) == "0"
    return Plan(
        mode, _rule_lines(nft_text(skeleton, host.capabilities())), is_there,
        ((ACCOUNTING_SYSCTL, "0", "1"),) if off else (), _adopted(host, skeleton),
        ON_FAILURE[skeleton.bypass],
    )


def _rule_lines(text: str) -> tuple[str, ...]:
    lines = (line.replace(XTABLES, "NFQUEUE").rstrip() for line in text.splitlines())
    return tuple(line for line in lines if line and not line.lstrip().startswith("#"))


def _adopted(host: Host, skeleton: Skeleton) -> int:
    addresses = addresses_report(host.settings, host.links())
    return len(flows_to_adopt(_flows(), skeleton, addresses))


def _flows() -> list[FlowState]:
    kernel = NetfilterKernel()
    try:
        return kernel.flows()
    finally:
        kernel.close()


def plan_text(plan: Plan) -> str:
    """Return *plan* for people."""
    if not plan.changes:
        return "natfix is switched on already: nothing would change"
    head = "Would load again" if plan.is_there else "Would add"
    also = "; what its maps hold stays" if plan.is_there and plan.mode is not Mode.OBSERVE else ""
    lines = [f"{head} (nothing is done now): the table {OWN_TABLE}{also}"]
    lines += [f"+ {printable(line)}" for line in plan.rules]
    sysctls = [f"{name}: {old} -> {new}, until `natfix down`" for name, old, new in plan.sysctls]
    lines += [
        f"sysctl       {'; '.join(sysctls) or 'none'}",
        f"conntrack    {_flow_words(plan)}",
        "your tables  unchanged: natfix has a table of its own",
        f"If natfix stops: {plan.if_it_stops}.",
    ]
    return "\n".join(lines)


def _flow_words(plan: Plan) -> str:
    if plan.mode is Mode.OBSERVE:
        return "unchanged"
    flows = "1 SIP flow" if plan.adopted == 1 else f"{plan.adopted} SIP flows"
    return f"{flows} from before would be marked, with the ports they have"


def plan_document(plan: Plan) -> dict[str, Any]:
    """Return *plan* for programs."""
    return {
        "schema_version": SCHEMA_VERSION,
        "mode": plan.mode.value,
        "changes": plan.changes,
        "table": {"name": OWN_TABLE, "is_there": plan.is_there, "rules": list(plan.rules)},
        "sysctls": [{"name": name, "now": old, "then": new} for name, old, new in plan.sysctls],
        "flows_to_mark": plan.adopted,
    }
