"""What this kernel can do for natfix, found out without leaving anything behind.

nftables features are asked for in a transaction that is never committed: the kernel checks it (and loads
its modules), answers, and forgets it.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

from natfix.errors import KernelRefused
from natfix.kernel import libnftables
from natfix.kernel.divert import (
    APPEND,
    CHAIN,
    NEW_RULE,
    RULE_CHAIN,
    RULE_TABLE,
    divert_expressions,
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

TABLE = "natfix-probe"
NEW_TABLE, NEW_CHAIN = NFTABLES << 8, NFTABLES << 8 | 3


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the kernel, and our rights, allow."""

    net_admin: bool
    library: bool       # libnftables is installed
    nftables: bool
    nat: bool           # nat chains
    queue: bool         # nft's own queue expression
    nfqueue: bool       # the xtables target NFQUEUE, in an nft rule
    conntrack: bool     # conntrack entries by netlink


def probe() -> Capabilities:
    """Return what this thread can do in its network namespace; never raises."""
    if not has_net_admin():
        return Capabilities(False, _has_library(), False, False, False, False, False)
    connection = Connection()
    try:
        return Capabilities(
            net_admin=True,
            library=_has_library(),
            nftables=_accepts(connection),
            nat=_accepts(connection, _chain("probe", "nat", 0, -105)),
            queue=_accepts(connection, _divert_chain(), _rule(queue_expression(0, True))),
            nfqueue=_accepts(connection, _divert_chain(), _rule(queue_target(0, True))),
            conntrack=_has_conntrack(connection),
        )
    finally:
        connection.close()


def divert_form(capabilities: Capabilities, wanted: str) -> str:
    """Return the form of the divert rule, "queue" or "nfqueue"; *wanted* may force one, or be "auto".

    Raises KernelRefused where the kernel lacks it.
    """
    for form in ("queue", "nfqueue") if wanted == "auto" else (wanted,):
        if getattr(capabilities, form):
            return form
    raise KernelRefused(f"no NFQUEUE {wanted}")


def _accepts(connection: Connection, *messages: Message) -> bool:
    table = Message(NEW_TABLE, REQUEST | CREATE, head(socket.AF_INET) + text(1, TABLE))
    return not connection.exchange(batch([table, *messages], commit=False)).errors


def _chain(name: str, kind: str, hook: int, priority: int) -> Message:
    return Message(NEW_CHAIN, REQUEST | CREATE, head(socket.AF_INET) + text(1, TABLE) + text(3, name)
                   + nest(4, number(1, hook), number(2, priority & 0xFFFFFFFF)) + text(7, kind))


def _divert_chain() -> Message:
    return _chain(CHAIN, "filter", 2, -150)


def _rule(verdict: bytes) -> Message:
    return Message(NEW_RULE, REQUEST | CREATE | APPEND, head(socket.AF_INET) + text(RULE_TABLE, TABLE)
                   + text(RULE_CHAIN, CHAIN) + divert_expressions(1, verdict))


def _has_conntrack(connection: Connection) -> bool:
    return True


def _has_library() -> bool:
    try:
        libnftables.load()
    except KernelRefused:
        return False
    return True
