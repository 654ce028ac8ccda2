"""The queue rule as raw netlink: packets into an NFQUEUE by the xtables target, in natfix's own table.

For kernels that have no nft ``queue`` expression. nft text cannot say it, since nft only translates
xtables targets; ``iptables`` could, and would leave a table of its own behind.
"""

from __future__ import annotations

import socket
import struct

from natfix.kernel.base import Skeleton
from natfix.kernel.elements import TABLE
from natfix.kernel.netlink import CREATE, NFTABLES, REQUEST, Message, attribute, head, nest, number, text

CHAIN = "to_natfix"                                 # of natfix.nft
NEW_RULE, DELETE_RULE = NFTABLES << 8 | 6, NFTABLES << 8 | 8
APPEND = 0x800                                      # NLM_F_APPEND
RULE_TABLE, RULE_CHAIN, RULE_EXPRESSIONS = 1, 2, 4  # NFTA_RULE_*
LIST_ITEM = 1                                       # NFTA_LIST_ELEM
EXPRESSION_NAME, EXPRESSION_DATA = 1, 2             # NFTA_EXPR_*

BYPASS = 1                                          # NFQ_FLAG_BYPASS
QUEUE_INFO = struct.Struct("=HHH2x")                # struct xt_NFQ_info_v3: number, queues, flags
QUEUE_REVISION = 3


def divert_messages(skeleton: Skeleton, table: str = TABLE) -> list[Message]:
    """Return the messages that make the xtables target NFQUEUE the only rule of its chain."""
    chain = head(socket.AF_INET) + text(RULE_TABLE, table) + text(RULE_CHAIN, CHAIN)
    target = queue_target(skeleton.queue, skeleton.bypass)
    return [
        Message(DELETE_RULE, REQUEST, chain),       # no rule named: all of them
        Message(NEW_RULE, REQUEST | CREATE | APPEND, chain + nest(RULE_EXPRESSIONS, target)),
    ]


def queue_target(queue: int, bypass: bool) -> bytes:
    """Return the xtables target NFQUEUE as an expression."""
    info = QUEUE_INFO.pack(queue, 1, BYPASS if bypass else 0)
    return _expression("target", text(1, "NFQUEUE"), number(2, QUEUE_REVISION), attribute(3, info))


def queue_expression(queue: int, bypass: bool) -> bytes:
    """Return nft's own ``queue num``."""
    return _expression("queue", number(1, queue, 2), number(2, 1, 2), number(3, BYPASS if bypass else 0, 2))


def _expression(name: str, *data: bytes) -> bytes:
    return nest(LIST_ITEM, text(EXPRESSION_NAME, name), nest(EXPRESSION_DATA, *data))
