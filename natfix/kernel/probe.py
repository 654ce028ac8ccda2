"""What this kernel can do for natfix, found out without leaving anything behind.

nftables features are asked for in a transaction that is never committed: the kernel checks it (and loads
its modules), answers, and forgets it.
"""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass, replace

from natfix.address import Endpoint
from natfix.commands import Flow
from natfix.errors import KernelRefused, NotPermitted
from natfix.kernel import libnftables
from natfix.kernel.conntrack import lookup
from natfix.kernel.divert import (
    APPEND,
    CHAIN,
    NEW_RULE,
    RULE_CHAIN,
    RULE_EXPRESSIONS,
    RULE_TABLE,
    queue_expression,
    queue_target,
)
from natfix.kernel.netlink import (
    CREATE,
    NFTABLES,
    REQUEST,
    Connection,
    Message,
    batch,
    has_net_admin,
    head,
    nest,
    number,
    text,
)

NO_RIGHTS = "netfilter needs the capability CAP_NET_ADMIN: run natfix as root"
NO_DIVERT = {
    "auto": "the kernel has neither nft's queue expression nor the xtables target NFQUEUE: "
            "modprobe nft_queue, or modprobe -a nft_compat xt_NFQUEUE",
    "queue": "the kernel has no nft queue expression: modprobe nft_queue, or set [signalling] divert to auto",
    "nfqueue": "the kernel has no xtables target NFQUEUE for nftables: modprobe -a nft_compat xt_NFQUEUE, "
               "or set [signalling] divert to auto",
}
NO_TIMEOUTS = "the kernel has no nft ct timeout: SIP over TCP that is silent for five minutes may be lost"

TABLE = "natfix-probe"
TABLE_NAME, TABLE_FLAGS, DORMANT = 1, 2, 1                  # NFTA_TABLE_*, NFT_TABLE_F_DORMANT
CHAIN_TABLE, CHAIN_NAME, CHAIN_HOOK, CHAIN_TYPE = 1, 3, 4, 7    # NFTA_CHAIN_*
HOOK_NUMBER, HOOK_PRIORITY = 1, 2                               # NFTA_HOOK_*
PREROUTING, FORWARD = 0, 2                                      # NF_INET_*
NEW_TABLE, NEW_CHAIN, NEW_OBJECT = NFTABLES << 8, NFTABLES << 8 | 3, NFTABLES << 8 | 18
OBJECT_TABLE, OBJECT_NAME, OBJECT_TYPE, OBJECT_DATA = 1, 2, 3, 4    # NFTA_OBJ_*
CT_TIMEOUT = 7                                                      # NFT_OBJECT_CT_TIMEOUT
TIMEOUT_L3, TIMEOUT_L4 = 1, 2                                       # NFTA_CT_TIMEOUT_*


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the kernel, and our rights, allow."""

    net_admin: bool = False
    library: bool = False       # libnftables is installed
    nftables: bool = False
    nat: bool = False           # nat chains
    queue: bool = False         # nft's own queue expression
    nfqueue: bool = False       # the xtables target NFQUEUE, in an nft rule
    conntrack: bool = False     # conntrack entries by netlink
    timeouts: bool = False      # nft's ct timeout objects


def probe() -> Capabilities:
    """Return what this thread can do in its network namespace; never raises."""
    able = Capabilities(net_admin=has_net_admin(), library=_has_library())
    if not able.net_admin:
        return able
    try:
        connection = Connection()
    except KernelRefused:
        return able
    try:
        return replace(
            able,
            nftables=_accepts(connection),
            nat=_accepts(connection, _chain("probe", "nat", PREROUTING)),
            queue=_accepts(connection, _chain(CHAIN, "filter", FORWARD), _rule(queue_expression(0, True))),
            nfqueue=_accepts(connection, _chain(CHAIN, "filter", FORWARD), _rule(queue_target(0, True))),
            conntrack=_has_conntrack(connection),
            timeouts=_has_timeouts(connection),
        )
    finally:
        connection.close()


def missing(capabilities: Capabilities, wanted: str = "auto") -> list[str]:
    """Return one sentence, with the cure, for each thing that natfix cannot do without; *wanted* is the
    form of the divert rule as in :func:`divert_form`."""
    needs = [(capabilities.library, f"{libnftables.LIBRARY} is not installed: apt install libnftables1")]
    if not capabilities.net_admin:
        return [*_unmet(needs), NO_RIGHTS]
    needs += [
        (capabilities.nftables, "the kernel has no nftables: modprobe nf_tables"),
        (capabilities.nat, "the kernel has no NAT for nftables: modprobe nft_chain_nat"),
        (capabilities.conntrack, "conntrack cannot be asked: modprobe nf_conntrack_netlink"),
        (any(getattr(capabilities, form) for form in _forms(wanted)), NO_DIVERT[wanted]),
    ]
    return _unmet(needs)


def _unmet(needs: list[tuple[bool, str]]) -> list[str]:
    return [sentence for fulfilled, sentence in needs if not fulfilled]


def divert_form(capabilities: Capabilities, wanted: str) -> str:
    """Return the form of the divert rule, "queue" or "nfqueue"; *wanted* may force one, or be "auto".

    Raises NotPermitted or KernelRefused where anything is missing.
    """
    if sentences := missing(capabilities, wanted):
        raise KernelRefused(sentences[0]) if capabilities.net_admin else NotPermitted(sentences[-1])
    return next(form for form in _forms(wanted) if getattr(capabilities, form))


def _forms(wanted: str) -> tuple[str, ...]:
    return ("queue", "nfqueue") if wanted == "auto" else (wanted,)


def _accepts(connection: Connection, *messages: Message) -> bool:
    return not _errors(connection, *messages)


def _errors(connection: Connection, *messages: Message) -> list[int]:
    # Dormant: where a chain of an active table is given up, the kernel drops every packet that waits in
    # any queue of the namespace, be it natfix's own or that of an intrusion detection.
    table = Message(NEW_TABLE, REQUEST | CREATE,
                    head(socket.AF_INET) + text(TABLE_NAME, TABLE) + number(TABLE_FLAGS, DORMANT))
    return list(connection.exchange(batch([table, *messages], commit=False)).errors.values())


def _chain(name: str, kind: str, hook: int) -> Message:
    return Message(NEW_CHAIN, REQUEST | CREATE, head(socket.AF_INET) + text(CHAIN_TABLE, TABLE)
                   + text(CHAIN_NAME, name) + text(CHAIN_TYPE, kind)
                   + nest(CHAIN_HOOK, number(HOOK_NUMBER, hook), number(HOOK_PRIORITY, 0)))


def _rule(verdict: bytes) -> Message:
    return Message(NEW_RULE, REQUEST | CREATE | APPEND, head(socket.AF_INET) + text(RULE_TABLE, TABLE)
                   + text(RULE_CHAIN, CHAIN) + nest(RULE_EXPRESSIONS, verdict))


def _has_timeouts(connection: Connection) -> bool:
    """Ask for an object without a policy: "invalid" is the answer of a kernel that knows what is missing.

    One that it made and gave up again would cost all queued packets of the namespace (nft_ct.c).
    """
    kind = number(TIMEOUT_L3, socket.AF_INET, 2) + number(TIMEOUT_L4, socket.IPPROTO_TCP, 1)
    return _errors(connection, Message(
        NEW_OBJECT, REQUEST | CREATE, head(socket.AF_INET) + text(OBJECT_TABLE, TABLE)
        + text(OBJECT_NAME, "probe") + number(OBJECT_TYPE, CT_TIMEOUT) + nest(OBJECT_DATA, kind),
    )) == [errno.EINVAL]


def _has_conntrack(connection: Connection) -> bool:
    """Look up an entry that cannot be: "no such entry" is the answer of a kernel that could have found it."""
    nobody = Endpoint("0.0.0.0", 0)
    return connection.exchange([lookup(Flow(nobody, nobody, nobody, nobody))]).errors.get(0) == errno.ENOENT


def _has_library() -> bool:
    try:
        libnftables.load()
    except KernelRefused:
        return False
    return True
