"""`natfix rules`: everything natfix would put into the kernel, as text with comments, and nothing done."""

from __future__ import annotations

from natfix.config import Settings
from natfix.errors import ConfigError
from natfix.interfaces import links_now, outside_interface
from natfix.kernel.base import Skeleton
from natfix.kernel.netfilter import skeleton_text
from natfix.kernel.probe import Capabilities, divert_form
from natfix.reports import AddressesChanged
from natfix.startup import skeleton_from_settings


def skeleton_for(settings: Settings) -> Skeleton:
    """Return what the rules depend on.

    Raises ConfigError where it is not clear which link is outside. A configured one need not be there.
    """
    interface = settings.outside.interface or outside_interface(links_now(), settings.outside)
    links = {each.interface: each.address for each in settings.links}
    outside = {interface: settings.outside.address, **links}
    return skeleton_from_settings(settings, AddressesChanged(outside, ()))


def nft_text(skeleton: Skeleton, capabilities: Capabilities) -> str:
    """Return natfix's table as `nft -f` reads it.

    Without the right to ask the kernel, nft's own queue statement is assumed. Raises KernelRefused where
    the kernel lacks the form that the configuration asks for.
    """
    if capabilities.net_admin:
        form = divert_form(capabilities, skeleton.divert)
        return skeleton_text(skeleton, form, capabilities.timeouts)
    return skeleton_text(skeleton, "nfqueue" if skeleton.divert == "nfqueue" else "queue")


PROTOCOLS = ("udp", "tcp")

IPTABLES = '''\
# What natfix does to packets, in the words of iptables: for review, and for programs that manage a
# firewall by iptables and must know every rule. `natfix run` never loads this: it makes its own nftables
# table "ip natfix", which works beside iptables rules of either kind. Do not load this text while natfix
# runs: SIP would be queued twice.
#
#   iptables-restore --test FILE            checks it
#
# What this form cannot say:
#   - Which port of the outside address stands for which phone. natfix keeps that in maps (signalling_in,
#     signalling_out, media_in, media_out) and changes it for every call; iptables has no maps. Streams whose
#     ends are both known need none: natfix makes their conntrack entries, which any firewall accepts as
#     ESTABLISHED.
#   - How much one host may send (the set pace, [limits] packets_per_host).
#   - Who may begin a stream (the sets *_allowed), and how many packets of strangers came to each port.
#   - How long a silent TCP connection stays known: the object `ct timeout stream`. The kernel's five minutes
#     (nf_conntrack_tcp_timeout_unacknowledged) count instead.
#   - All of it at once: a table of nft is replaced in one transaction.
*raw
# What natfix itself sends (keep-alives to far phones, lost segments of TCP connections) has the right
# addresses already, and leaves no entry.
-A OUTPUT -m mark --mark {bit}/{bit} -j CT --notrack
COMMIT
*mangle
# SIP flows get one bit of the conntrack mark, by either port; other bits stay. RTP pays one test of that bit.
{marks}
# Every packet of a marked flow waits for natfix's verdict: after DNAT and before SNAT, so that both
# directions show inside addresses. {nobody_listens}
# What inside networks say to each other without NAT is their own.
{inside}
{intranet}{queued}
{own}COMMIT
*filter
# RTP that comes before its mapping, or from a stranger, must not become a conntrack entry: it would own the
# stream's tuple and keep the call one-way.
-A INPUT -p udp -m udp --dport {first}:{last} -m conntrack --ctstate NEW -m conntrack ! --ctstate DNAT -j DROP
# Yours to add, where your FORWARD drops what it does not know: media that comes from another port than was
# announced (a peer behind a NAT of its own; early media). `natfix check` tells whether it is there.
-A FORWARD -i {outside} -m conntrack --ctstate DNAT -j ACCEPT
COMMIT
'''


def iptables_text(skeleton: Skeleton) -> str:
    """Return what iptables can say of natfix's rules, as `iptables-restore --noflush` reads it.

    Raises ConfigError where there are several outside links.
    """
    if len(skeleton.outside_interfaces) > 1:
        raise ConfigError("what several outside links ([[link]]) need cannot be said in iptables' words: "
                          "natfix rules --format nft shows it")
    bit = f"{skeleton.mark:#x}"
    first, last = skeleton.media_ports
    bypass = " --queue-bypass" if skeleton.bypass else ""
    nobody_listens = f"Where nobody listens, they {'pass unfixed' if skeleton.bypass else 'are dropped'}."
    outside = skeleton.outside_interfaces[0]
    marked = f"-m connmark --mark {bit}/{bit}"
    among_inside = f"! -i {outside} ! -o {outside} -m conntrack ! --ctstate DNAT {marked} -j RETURN"
    queue = f"{marked} -j NFQUEUE --queue-num {skeleton.queue}{bypass}"
    return IPTABLES.format(
        marks="\n".join([*_mark_lines(skeleton, bit, "PREROUTING"), _stream_line(skeleton, bit)]), bit=bit,
        inside="\n".join(f"-A FORWARD -p {protocol} {among_inside}" for protocol in PROTOCOLS),
        queued="\n".join(f"-A FORWARD -p {protocol} {queue}" for protocol in PROTOCOLS),
        own=_own_lines(skeleton, bit, bypass) if skeleton.own_pbx else "",
        intranet="".join(f"-A FORWARD -{end} {each} -p {protocol} -j RETURN\n"
                         for each in skeleton.intranet for end in "ds" for protocol in PROTOCOLS),
        nobody_listens=nobody_listens, first=first, last=last, outside=outside,
    )


def _mark_lines(skeleton: Skeleton, bit: str, chain: str) -> list[str]:
    """Return the rules that mark SIP flows; a multiport match takes 15 ports, as many as a configuration."""
    ports = ",".join(map(str, skeleton.sip_ports))
    return [
        f"-A {chain} -p udp -m multiport --{end} {ports} -j CONNMARK --set-xmark {bit}/{bit}"
        for end in ("dports", "sports")
    ]


def _stream_line(skeleton: Skeleton, bit: str) -> str:
    """Return the rule that marks SIP over TCP: whole connections only."""
    ports = ",".join(map(str, skeleton.sip_ports))
    return f"-A PREROUTING -p tcp --syn -m multiport --dports {ports} -j CONNMARK --set-xmark {bit}/{bit}"


def _own_lines(skeleton: Skeleton, bit: str, bypass: str) -> str:
    """Return the rules for a PBX on the gateway itself; its flows begin here, or come in as others do."""
    outside = skeleton.outside_interfaces[0]
    queue = f"-p udp -m connmark --mark {bit}/{bit} -j NFQUEUE --queue-num {skeleton.queue}{bypass}"
    lines = [
        "# The same for the PBX on this gateway; what it says to inside phones stays as it is.",
        *(f"-A {way} {each} -p udp -j RETURN"
          for each in skeleton.intranet for way in ("INPUT -s", "OUTPUT -d")),
        f"-A INPUT -i {outside} {queue}",
        *_mark_lines(skeleton, bit, f"OUTPUT -o {outside}"),
        f"-A OUTPUT -o {outside} {queue}",
    ]
    return "\n".join(lines) + "\n"
