"""Checks of the machine around natfix: its clock, its bridges, filters of source addresses, timeouts."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from natfix.findings import Finding, Host, Status
from natfix.firewall_now import OWN_TABLE
from natfix.interfaces import inside_networks, outside_interface

OLDEST_TIME = 1767225600.0      # 2026: no natfix is older
SETBACK = 60.0                  # seconds that a clock may step back without harm
SHORTEST_STREAM, SHORTEST_UDP = 60, 10  # seconds; RTP's silence (comfort noise), a phone's retransmission
ENTRIES_PER_PAIR = 4            # RTP and RTCP of both sides of a relayed stream
STRICT = "1"                    # rp_filter


def check_clock(host: Host) -> Iterator[Finding]:
    """Is the time right? Registrations are remembered across restarts by it."""
    now = host.now()
    if now < OLDEST_TIME:
        shown = time.strftime("%Y-%m-%d", time.gmtime(now))
        yield Finding(Status.WARNING, f"the clock says {shown}: what natfix remembers ends at a wrong time",
                      "set it: apt install systemd-timesyncd, or date -s")
        return
    behind = _last_written(host) - now
    if behind > SETBACK:
        yield Finding(
            Status.WARNING, f"the clock stands {behind:.0f} s before the time at which natfix last wrote its "
            "state: after a reboot, what it remembers is kept as if no time had passed",
            "set the clock; phones that register do the rest")
    elif not host.clock_is_synchronised():
        yield Finding(Status.NOTE, "nothing keeps the clock right: logs will not fit the provider's",
                      "apt install systemd-timesyncd (or chrony)")
    else:
        yield Finding(Status.OK, "the clock is kept right")


def _last_written(host: Host) -> float:
    try:
        return os.stat(host.root / host.settings.daemon.state_file.lstrip("/")).st_mtime
    except OSError:
        return 0.0


def check_source_filter(host: Host) -> Iterator[Finding]:
    """Does the kernel drop what comes in by the outside link, since the way back is another (rp_filter)?"""
    links = host.links()
    outside = outside_interface(links, host.settings.outside)
    values = {host.read(f"proc/sys/net/ipv4/conf/{name}/rp_filter").strip() for name in ("all", outside)}
    others = [name for name in links.default_interfaces if name != outside]
    if others and outside not in links.default_interfaces and max(values) == STRICT:
        yield Finding(
            Status.ERROR, f"the default route leaves by {others[0]}, so the kernel drops what comes in by "
            f"{outside} from anywhere but its own network (rp_filter 1)",
            f"sysctl -w net.ipv4.conf.{outside.replace('.', '/')}.rp_filter=2")


def check_bridges(host: Host) -> Iterator[Finding]:
    """Do bridged packets pass the forward chains as if they were routed (br_netfilter)?"""
    links = host.links()
    outside = outside_interface(links, host.settings.outside)
    ours = {outside, *(link for _, link in inside_networks(links, host.settings, outside) if link)}
    bridges = sorted(name for name in ours if (host.root / f"sys/class/net/{name}/bridge").exists())
    if not bridges:
        yield Finding(Status.OK, "no link of the phones is a bridge")
    elif host.sysctl("net.bridge.bridge-nf-call-iptables") == "1":
        yield Finding(
            Status.WARNING, f"what phones on {', '.join(bridges)} say to each other passes the rules for "
            "forwarded packets, though it is bridged: your filter may drop their calls",
            "sysctl -w net.bridge.bridge-nf-call-iptables=0 (Docker needs it only for icc=false)")
    else:
        yield Finding(Status.OK, f"{', '.join(bridges)}: bridged packets are left alone by the rules")


def check_conntrack_settings(host: Host) -> Iterator[Finding]:
    """Are the connection table and its timeouts big enough for calls?"""
    values = {name: host.sysctl(f"net.netfilter.nf_conntrack_{name}")
              for name in ("max", "udp_timeout", "udp_timeout_stream", "acct")}
    numbers = {name: int(value) for name, value in values.items() if value.isdigit()}
    first, last = host.settings.media.ports
    wanted = (last - first + 1) // 2 * ENTRIES_PER_PAIR
    if numbers.get("max", wanted) < wanted:
        yield Finding(
            Status.WARNING, f"the connection table has room for {numbers['max']} entries, calls on all of "
            f"[media] ports need {wanted} beside all else",
            f"sysctl -w net.netfilter.nf_conntrack_max={4 * wanted}")
    if OWN_TABLE in host.ruleset().tables and numbers.get("acct") == 0:
        yield Finding(
            Status.WARNING, "packets of connections are not counted (nf_conntrack_acct, which natfix "
            "switches on, is off again): calls that talk look silent",
            "sysctl -w net.netfilter.nf_conntrack_acct=1")
    for name, least, harm in (
        ("udp_timeout_stream", SHORTEST_STREAM, "audio ends after a silence, and phones cannot be called"),
        ("udp_timeout", SHORTEST_UDP, "slow answers are lost"),
    ):
        if numbers.get(name, least) < least:
            yield Finding(
                Status.WARNING, f"UDP is forgotten after {numbers[name]} s (nf_conntrack_{name}): {harm}",
                f"sysctl -w net.netfilter.nf_conntrack_{name}={120 if least > SHORTEST_UDP else 30}")
