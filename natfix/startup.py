"""What has to be true before natfix touches anything: each refusal is one sentence with the cure.

Everything is looked at before the first rule is put in place, so a start that fails leaves the machine
as it was.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from natfix.address import Endpoint, Network, contains
from natfix.check_firewall import check_helpers
from natfix.config import Settings
from natfix.errors import KernelRefused, NatfixError, NotPermitted
from natfix.findings import Host, Status
from natfix.kernel.base import FlowState, Skeleton
from natfix.kernel.netfilter import NetfilterKernel
from natfix.kernel.netlink import has_net_admin
from natfix.kernel.probe import NO_TIMEOUTS, Capabilities, divert_form
from natfix.message_ids import kind
from natfix.order import Mode, NotConfirmed, Order
from natfix.reports import AddressesChanged, FlowAdopted

log = logging.getLogger("natfix")


def refuse_without_rights() -> None:
    """Raise NotPermitted where this process may not change netfilter."""
    if not has_net_admin():
        raise NotPermitted(
            "natfix needs CAP_NET_ADMIN to see and change packets: run it as root, or as its service")


def refuse_what_cannot_be(order: Order, settings: Settings, host: Host) -> None:
    """Raise what stands against a natfix that fixes SIP; what it will lack goes to the log."""
    able = host.capabilities()
    refuse_unconfirmed(order, settings)
    divert_form(able, settings.signalling.divert)
    refuse_beside_helper(host)
    warn_without_timeouts(able)


def warn_without_timeouts(able: Capabilities) -> None:
    """Log what a kernel without nft's ct timeout means for SIP over TCP; `natfix check` has the cure."""
    if not able.timeouts:
        log.warning("natfix: %s", NO_TIMEOUTS, extra=kind("kernel-lacks"))


def refuse_beside_helper(host: Host) -> None:
    """Raise KernelRefused where the kernel's own SIP helper is attached to flows, with what removes it."""
    try:
        findings = [finding for finding in check_helpers(host) if finding.status is Status.ERROR]
    except NatfixError as problem:
        log.warning("whether the kernel's SIP helper is in the way cannot be seen: %s", problem,
                    extra=kind("cannot-see"))
        return
    if findings:
        raise KernelRefused(f"{findings[0].text}: remove it with `{findings[0].cure}`")


def refuse_unconfirmed(order: Order, settings: Settings) -> None:
    """Raise NotConfirmed where a trial was never confirmed, after what it has left was taken back."""
    if order.mode is not Mode.BEGUN:
        return
    kernel = NetfilterKernel(settings.signalling.mark)
    kernel.remove()
    kernel.close()
    raise NotConfirmed(
        "the last `natfix up --confirm` was never confirmed, so natfix does not switch itself on; what it "
        "had left is taken back. `natfix up`, or `natfix up --confirm 60`, switches it on")


def skeleton_from_settings(settings: Settings, addresses: AddressesChanged) -> Skeleton:
    """Return what the static rules need to know."""
    signalling = settings.signalling
    return Skeleton(
        outside_interfaces=tuple(addresses.outside),
        sip_ports=signalling.ports,
        media_ports=settings.media.ports,
        mark=signalling.mark,
        queue=signalling.queue,
        bypass=signalling.on_failure == "pass",
        divert=signalling.divert,
        own_pbx=settings.gateway.pbx == "local",
        intranet=settings.outside.intranet,
        pace=settings.limits.packets_per_host,
    )


def flows_to_adopt(
    flows: Iterable[FlowState], skeleton: Skeleton, addresses: AddressesChanged,
) -> list[FlowAdopted]:
    """Return a report for each SIP flow that is NATed already, so that it keeps the outside port it has.

    That is one from an inside host, with a SIP port at either end or marked by a natfix of before, whose
    replies come to an outside address. One that the registrar has answered comes first: where two claim
    the same port, it wins.
    """
    networks = [network for network, _ in addresses.inside]
    hosts = frozenset(addresses.outside.values())
    # 1:1 NAT shows a host at one more address, and what natfix advertises is none of the link's.
    shown = hosts | addresses.own | {addresses.advertised}
    found = [
        FlowAdopted(state) for state in flows
        if _is_sip(state, skeleton) and state.flow.reply_destination.host in shown
        and _is_inside(state.flow.source, networks, hosts)
    ]
    return sorted(found, key=lambda report: not report.state.replied)


def _is_sip(state: FlowState, skeleton: Skeleton) -> bool:
    ports = {state.flow.source.port, state.flow.destination.port}
    return bool(state.mark & skeleton.mark) or not ports.isdisjoint(skeleton.sip_ports)


def _is_inside(endpoint: Endpoint, networks: Iterable[Network], hosts: frozenset[str]) -> bool:
    return endpoint.host not in hosts and contains(networks, endpoint.host)
