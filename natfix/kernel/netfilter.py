"""The kernel behind natfix: its own nftables table, and conntrack entries.

Three tools, each for what it does best: libnftables loads the static table from ``nft/natfix.nft``,
:mod:`natfix.kernel.elements` changes the elements and :mod:`natfix.kernel.conntrack` the entries, both
through one netlink socket of our own.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path

from natfix.address import Endpoint
from natfix.commands import CloseFlow, Command, Flow, Kind, OpenFlow, OwnPacket, ReleaseStream
from natfix.errors import KernelRefused
from natfix.kernel import libnftables
from natfix.kernel.base import FlowState, HeldElement, KernelMapping, Skeleton
from natfix.kernel.conntrack import FIXED_TIMEOUT, Conntrack
from natfix.kernel.divert import CHAIN, divert_messages
from natfix.kernel.elements import (
    ENDPOINT_SIZE,
    FLOODING,
    IN,
    LINK_SIZE,
    LINKS_OUT,
    MEMORY,
    OUT,
    REFUSED,
    TABLE,
    Change,
    Element,
    change_from_commands,
    element,
    elements_from_dump,
    endpoint_from_key,
    endpoint_from_link_key,
    get_element,
    held_element,
    list_elements,
)
from natfix.kernel.netlink import NFTABLES, REQUEST, Connection, Message, attributes, head, text
from natfix.kernel.probe import divert_form, probe
from natfix.kernel.sender import Sender
from natfix.kernel.trial import gated
from natfix.shipped import shipped

ACCOUNTING = Path("/proc/sys/net/netfilter/nf_conntrack_acct")
ACCOUNTING_WAS_OFF = "nf_conntrack_acct was 0"

NEW_TABLE, GET_TABLE, DELETE_TABLE = (NFTABLES << 8 | kind for kind in range(3))
GET_CHAIN, GET_RULE = NFTABLES << 8 | 4, NFTABLES << 8 | 7
TABLE_NAME = 1      # NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE

QUEUE_RULE = re.compile(r"^( *)(queue num \$sip_queue)$", re.MULTILINE)
INTRANET_RULE = "#intranet "    # before the rules that leave networks alone
LINKS_RULE = "#links "  # before what only several outside links need
OWN_RULE = "#own "      # before the rules that a PBX on the gateway needs
# What a kernel without nft's ct timeout does without: the object, and the rule that hands it out.
TIMEOUT = re.compile(r"^ *ct timeout stream \{[^}]*\}\s*\}\n|^.* ct timeout set .*\n", re.MULTILINE)
PACE_RULE = re.compile(r"^ *update @pace \{ .* limit rate over (\d+)/second burst (\d+) .*\n", re.MULTILINE)
FLUSH_QUEUE = f"flush chain ip {TABLE} {CHAIN}\n"

FLOW_COMMANDS = (OpenFlow, CloseFlow, ReleaseStream)

REASONS = {
    errno.ENOENT: "natfix's table is not there, or not whole",
    errno.ENFILE: "a map of natfix's is full",
    errno.EEXIST: "an element with another value stands in the way",
    errno.ENOMEM: "the kernel is out of memory",
}


class NetfilterKernel:
    """The :class:`natfix.kernel.base.Kernel` of the network namespace of the thread that makes it."""

    def __init__(self, mark: int = 0) -> None:
        """*mark* is the bit that SIP flows get before :meth:`install` has said so."""
        self._connection = Connection()
        self._conntrack = Conntrack(self._connection)
        self._sender = Sender()
        self._mark = mark
        self._made: set[Flow] = set()
        self.entries_refused = 0        # times that conntrack did not take what natfix wanted
        self.last_refusal = ""
        self.accounting_was_off = False     # before natfix: the kernel's table says so, until it is flushed
        self._rules: list[bytes] = []       # as they were after install()

    def close(self) -> None:
        """Give the socket up; everything in the kernel stays."""
        self._connection.close()
        self._sender.close()

    def install(self, skeleton: Skeleton) -> None:
        able = probe()
        form = divert_form(able, skeleton.divert)
        present = self._is_installed()
        try:
            load_skeleton(skeleton_text(skeleton, form, able.timeouts), present)
            self._complete(skeleton, form)
        except KernelRefused:
            if not present:
                self._delete_table()
            raise
        self._mark = skeleton.mark
        self._rules = self._list_rules()
        _switch_accounting(on=True)

    def _complete(self, skeleton: Skeleton, form: str) -> None:
        """Add what the skeleton's text cannot: the queue rule as an xtables target, and the memory."""
        self.accounting_was_off = self.accounting_was_off or _accounting() == "0"
        change = Change()
        key = skeleton.mark.to_bytes(4, sys.byteorder)
        comment = ACCOUNTING_WAS_OFF if self.accounting_was_off else ""
        remembered = {item.key: item.comment for item in self._elements(MEMORY)}
        change.put(MEMORY, key, element(key, comment=remembered.get(key) or comment))
        rule = divert_messages(skeleton) if form == "nfqueue" else []
        self._transact([*change.messages(), *rule])

    def is_intact(self) -> bool:
        """Tell whether natfix's rules are those that :meth:`install` has left (elements apart)."""
        return bool(self._rules) and self._list_rules() == self._rules

    def _list_rules(self) -> list[bytes]:
        """Return chains and rules of natfix's table as the kernel describes them."""
        try:
            found = [body for kind in (GET_CHAIN, GET_RULE)
                     for body in self._connection.dump(kind, head(socket.AF_INET))]
        except OSError:
            return []
        # The four bytes in front hold the number of the last transaction, of whomever.
        return [body[4:] for body in found if attributes(body, 4)[TABLE_NAME] == TABLE.encode() + b"\0"]

    def apply(self, commands: Sequence[Command]) -> None:
        if change := change_from_commands(commands):
            self._transact(change.messages())
        self._apply_flows(commands)

    def resync(self, commands: Sequence[Command]) -> None:
        self._transact(change_from_commands(commands).replacement())
        self._apply_flows(commands)

    def _apply_flows(self, commands: Sequence[Command]) -> None:
        about_flows = [command for command in commands if isinstance(command, FLOW_COMMANDS)]
        for kind, group in groupby(about_flows, type):
            if kind is OpenFlow:
                self._open([command for command in group if isinstance(command, OpenFlow)])
            elif kind is CloseFlow:
                self._close([command.flow for command in group])
            else:
                self._conntrack.release_streams([command.flow for command in group], self._mark)

    def _open(self, commands: list[OpenFlow]) -> None:
        """Entries are a help, not a condition: without one, the elements let the stream through."""
        self._made.update(command.flow for command in commands)
        try:
            self._conntrack.open(commands, self._mark)
        except KernelRefused as problem:
            self.entries_refused += 1
            self.last_refusal = str(problem)

    def _close(self, flows: list[Flow]) -> None:
        self._made.difference_update(flows)
        self._conntrack.close(flows)

    def mappings(self) -> list[KernelMapping]:
        found: list[KernelMapping] = []
        for kind, name in OUT.items():
            inward = {item.key for item in self._elements(IN[kind])}
            found += [
                KernelMapping(kind, endpoint_from_key(item.key), endpoint_from_key(item.data),
                              item.data in inward, item.lifetime, item.comment)
                for item in self._elements(name) if len(item.key) == len(item.data) == ENDPOINT_SIZE
            ]
        inward = {item.key for item in self._elements(IN[Kind.SIGNALLING])}
        found += [
            KernelMapping(Kind.SIGNALLING, endpoint_from_link_key(item.key), endpoint_from_key(item.data),
                          item.data in inward, item.lifetime, item.comment)
            for item in self._elements(LINKS_OUT) if len(item.key) == LINK_SIZE
        ]
        return found

    def flows(self) -> list[FlowState]:
        return [entry.state for entry in self._conntrack.dump()]

    def counters(self, flows: Iterable[Flow]) -> dict[Flow, FlowState]:
        asked = set(flows)
        found = self._conntrack.states(asked)
        self._made -= asked - found.keys()
        return found

    def open_stream(self, source: Endpoint, destination: Endpoint) -> Flow | None:
        return self._conntrack.open_stream(source, destination, self._mark)

    def find_elements(self, commands: Iterable[Command]) -> list[HeldElement]:
        wanted = list(change_from_commands(commands).keys())
        if not wanted:
            return []
        answers = self._connection.exchange([get_element(name, key) for name, key in wanted])
        found = (next(elements_from_dump(answers.data.get(index, [])), None) for index in range(len(wanted)))
        return [held_element(name, key, each) for (name, key), each in zip(wanted, found, strict=True)]

    def refused(self) -> dict[Endpoint, int]:
        return {endpoint_from_key(item.key): item.packets for item in self._elements(REFUSED)}

    def flooding(self) -> dict[str, int]:
        return {socket.inet_ntoa(item.key): item.packets for item in self._elements(FLOODING)}

    def send(self, packets: Sequence[OwnPacket]) -> int:
        return self._sender.send(packets, self._mark)

    def remove(self) -> None:
        outside = {mapping.outside for mapping in self.mappings()}
        memory = self._elements(MEMORY)
        self._delete_table()
        bits = self._mark
        for item in memory:
            bits |= int.from_bytes(item.key, sys.byteorder)
        self._forget_flows(outside, bits)
        if self.accounting_was_off or any(item.comment == ACCOUNTING_WAS_OFF for item in memory):
            _switch_accounting(on=False)
        self.accounting_was_off = False

    def _forget_flows(self, outside: set[Endpoint], bits: int) -> None:
        """Delete the entries natfix made, or that NAT by its mappings; unmark the rest, and TCP's."""
        self._close(list(self._made))
        ours: list[Flow] = []
        marked: list[Flow] = []
        for (flow, *_, mark, _), status in self._conntrack.dump():
            # A registrar's flow may have outlived its mapping: nobody else marks flows and fixes their time.
            lasting = mark & bits and status & FIXED_TIMEOUT
            if lasting or flow.destination in outside or flow.reply_destination in outside:
                ours.append(flow)
            elif mark & bits:
                marked.append(flow)
        self._conntrack.close(ours)
        self._conntrack.unmark(marked, bits)
        streams = (entry.state for entry in self._conntrack.dump(socket.IPPROTO_TCP))
        self._conntrack.release_streams([state.flow for state in streams if state.mark & bits], bits)

    def _elements(self, name: str) -> list[Element]:
        """Return the elements of the set *name*; none where it does not exist."""
        try:
            return list(elements_from_dump(self._connection.dump(*list_elements(name))))
        except OSError as problem:
            if problem.errno == errno.ENOENT:
                return []
            raise KernelRefused(f"the kernel does not list natfix's set {name}: {problem.strerror}") from None

    def _is_installed(self) -> bool:
        answers = self._connection.exchange([_table_message(GET_TABLE)])
        return not answers.errors

    def _delete_table(self) -> None:
        try:
            self._connection.transact([_table_message(DELETE_TABLE)])
        except OSError as problem:
            if problem.errno != errno.ENOENT:
                raise KernelRefused(f"natfix's table cannot be deleted: {problem.strerror}") from None

    def _transact(self, messages: Sequence[Message]) -> None:
        try:
            self._connection.transact(messages)
        except OSError as problem:
            number = problem.errno or 0
            reason = REASONS.get(number, os.strerror(number))
            raise KernelRefused(f"the kernel refuses a change of natfix's maps: {reason}") from None


def skeleton_text(skeleton: Skeleton, form: str, timeouts: bool = True) -> str:
    """Return ``nft/natfix.nft`` with the settings put in; *form* is "queue" or "nfqueue".

    In the form "nfqueue" the queue rule is missing: no nft text can say it. Without *timeouts* idle TCP
    connections end as the kernel's own settings say. Raises KernelRefused where an interface's name cannot
    be put in.
    """
    rules = shipped("nft", "natfix.nft").read_text()
    first, last = skeleton.media_ports
    values = {
        "outside": interface_set(skeleton.outside_interfaces),
        "sip_ports": "{ " + ", ".join(map(str, skeleton.sip_ports)) + " }",
        "media_ports": f"{first}-{last}",
        "sip_bit": f"0x{skeleton.mark:08x}",
        "sip_queue": str(skeleton.queue),
    }
    for name, value in values.items():
        rules = re.sub(rf"^(define {name} = ).*?( +#.*)?$", rf"\g<1>{value}\g<2>", rules, flags=re.MULTILINE)
    if further := skeleton.outside_interfaces[1:]:
        rules = rules.replace(LINKS_RULE, "")
        rules = re.sub(r"^(define links = )\{.*?\}", rf"\g<1>{interface_set(further)}", rules,
                       flags=re.MULTILINE)
    if skeleton.intranet:
        networks = ", ".join(map(str, skeleton.intranet))
        rules = rules.replace(INTRANET_RULE, "").replace("192.0.2.0/24", networks)
    rules = PACE_RULE.sub(partial(_paced, skeleton.pace), rules)
    if not timeouts:
        rules = TIMEOUT.sub("", rules)
    if skeleton.own_pbx:
        rules = rules.replace(OWN_RULE, "")
    if skeleton.trial:
        rules = gated(rules, skeleton.trial)
    if form == "queue":
        return QUEUE_RULE.sub(r"\1\2 bypass", rules) if skeleton.bypass else rules
    said = f"NFQUEUE --queue-num {skeleton.queue}" + (" --queue-bypass" if skeleton.bypass else "")
    rules = QUEUE_RULE.sub(rf"\1# xtables target instead of nft's queue, added by netlink: {said}", rules)
    return rules.replace(FLUSH_QUEUE, "")     # that rule replaces its predecessor in one transaction


def interface_set(names: Sequence[str]) -> str:
    """Return an nft set of interface names.

    Raises KernelRefused for a name that nft would read as something else, and where there is none: every
    interface would count as inside then.
    """
    if not names:
        raise KernelRefused("there is no outside interface to install rules for")
    for name in names:
        if re.fullmatch(r"[^\s\"\\*/]{1,15}", name) is None:
            raise KernelRefused(f"nftables cannot name the interface {name!r}")
    return "{ " + ", ".join(f'"{name}"' for name in names) + " }"


def _paced(pace: int, rule: re.Match[str]) -> str:
    """Return *rule* with the rate *pace*, and a second's worth at once; "" for 0: no bound."""
    said = rule[0].replace(f"over {rule[1]}/", f"over {pace}/")
    return said.replace(f"burst {rule[2]} ", f"burst {pace} ") if pace else ""


def load_skeleton(rules: str, present: bool) -> None:
    """Load *rules*; a table that an older natfix has left, and that does not fit, is made anew."""
    try:
        libnftables.run(rules)
    except KernelRefused:
        if not present:
            raise
        libnftables.run(f"delete table ip {TABLE}\n{rules}")


def _table_message(kind: int) -> Message:
    return Message(kind, REQUEST, head(socket.AF_INET) + text(TABLE_NAME, TABLE))


def _accounting() -> str:
    try:
        return ACCOUNTING.read_text().strip()
    except OSError:
        return ""


def _switch_accounting(on: bool) -> None:
    """Let conntrack count packets, or not; where that may not be said, counters stay at -1."""
    try:
        ACCOUNTING.write_text("1\n" if on else "0\n")
    except OSError:
        return
