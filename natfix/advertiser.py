"""The outside address that others see, where the gateway sits behind a NAT itself ([outside] advertise).

It is configured, or a STUN server is asked: beside the loop, now and then. The last good answer is kept,
also over a restart: a server that is silent for a while must not end calls.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from natfix.errors import NatfixError
from natfix.message_ids import kind
from natfix.realms import is_usable
from natfix.reports import AddressesChanged, Change
from natfix.stun import PORT, TRANSACTION_SIZE, binding_request, mapped_endpoint

STUN = "stun:"
ASK_EVERY = 60.0                    # seconds between two questions
WAITS = (0.5, 1.0, 2.0)             # seconds for an answer to each request (RFC 8489, section 6.2.1)
TABLE = "advertised"                # of the state file

log = logging.getLogger("natfix")


class Advertiser:
    """Completes what the links say by the address that others see."""

    def __init__(
        self, setting: str, rows: Iterable[Change] = (),
        remember: Callable[[Iterable[Change]], None] = lambda changes: None,
    ) -> None:
        """*rows* are those of the state file, *remember* writes one."""
        self._setting = setting
        self._remember = remember
        known = (row.row.get("address", "") for row in rows if row.table == TABLE and row.key == setting
                 and row.row)
        self._address = next(known, "") if setting.startswith(STUN) else setting
        self._complaint = ""

    @property
    def asks(self) -> bool:
        """Tell whether the address may become another one by itself."""
        return self._setting.startswith(STUN)

    def complete(self, addresses: AddressesChanged) -> AddressesChanged:
        """Return *addresses* with the address to show; may take the sum of WAITS, and never raises.

        Without any answer yet the link's own address stands, and the log says so.
        """
        if self.asks:
            self._ask(next(iter(addresses.outside.values()), ""))
        return replace(addresses, advertised=self._address)

    def _ask(self, source: str) -> None:
        try:
            address = ask(self._setting.removeprefix(STUN), source)
        except NatfixError as problem:
            self._complain(str(problem), source)
            return
        if self._complaint:
            log.info("the STUN server answers again", extra=kind("stun-back"))
        self._complaint = ""
        if address != self._address:
            log.info("seen from outside, %s is %s", source, address, extra=kind("advertised"))
            self._address = address
            self._remember([Change(TABLE, self._setting, {"address": address})])

    def _complain(self, problem: str, source: str) -> None:
        if problem != self._complaint:
            self._complaint = problem
            log.warning("[outside] advertise: %s; %s is shown until then", problem, self._address or source,
                        extra=kind("stun-failed"))


def ask(server: str, source: str) -> str:
    """Return the address that *server* ("host", "host:port") sees what *source* sends come from.

    Raises NatfixError, with one sentence, where no good answer comes.
    """
    host, _, port = server.partition(":")
    transaction = os.urandom(TRANSACTION_SIZE)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
            line.bind((source, 0))
            line.connect((host, int(port or PORT)))
            address = _answer(line, transaction)
    except OSError as problem:
        reason = problem.strerror or problem
        raise NatfixError(f"the STUN server {server} cannot be asked ({reason})") from None
    if not address:
        raise NatfixError(f"the STUN server {server} does not answer")
    if not is_usable(address):
        raise NatfixError(f"the STUN server {server} says {address}, which nobody can reach")
    return address


def _answer(line: socket.socket, transaction: bytes) -> str:
    """Return the address of the answer, "" where none comes; what answers something else is passed over."""
    for wait in WAITS:
        line.send(binding_request(transaction))
        until = time.monotonic() + wait
        while (left := until - time.monotonic()) > 0:
            line.settimeout(left)
            try:
                found = mapped_endpoint(line.recv(2048), transaction)
            except TimeoutError:
                break
            if found is not None:
                return found.host
    return ""
