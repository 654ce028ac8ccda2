"""A DNS server for tests, on a loopback port: it answers from a table, slowly, wrongly, or not at all."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

Answer = Callable[[dns.message.Message], list[bytes]]
ROOM = 1232     # octets of an answer by UDP


class NameServer:
    """Answers by UDP and TCP until it is closed."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.records: dict[tuple[str, str], list[str]] = {}     # (name, type) -> values
        self.ttl = 60
        self.asked: list[tuple[str, str, str]] = []     # name, type, transport
        self.delay = 0.0                                # seconds before each answer
        self.is_silent = False
        self.rcode = dns.rcode.NOERROR                  # of all answers, where it is another
        self.forge: Answer | None = None                # sends these datagrams instead
        self.forge_tcp: Callable[[dns.message.Message], bytes] | None = None    # all octets of the stream
        self._datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._datagrams.bind((host, port))
        self.address = "{}:{}".format(*self._datagrams.getsockname())
        self._streams = socket.create_server(self._datagrams.getsockname())
        for work in (self._serve_datagrams, self._serve_streams):
            threading.Thread(target=work, daemon=True).start()

    def __enter__(self) -> NameServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the ports go; threads end with their sockets."""
        for line in (self._datagrams, self._streams):
            with contextlib.suppress(OSError):      # an unconnected socket says so, and wakes its thread
                line.shutdown(socket.SHUT_RDWR)
            line.close()

    def put(self, name: str, kind: str, *values: str) -> None:
        """Let *name* have the records *values* from now on."""
        self.records[name.lower(), kind] = list(values)

    def answer(self, query: dns.message.Message) -> dns.message.Message:
        """Return the true answer."""
        question = query.question[0]
        name, kind = question.name.to_text(omit_final_dot=True).lower(), question.rdtype.name
        made = dns.message.make_response(query)
        made.set_rcode(self.rcode)
        for _ in range(20):
            if values := self.records.get((name, kind)):
                made.answer.append(dns.rrset.from_text(f"{name}.", self.ttl, "IN", kind, *values))
                return made
            alias = self.records.get((name, "CNAME"))
            if not alias:
                break
            made.answer.append(dns.rrset.from_text(f"{name}.", self.ttl, "IN", "CNAME", *alias))
            name = alias[0].rstrip(".")
        if not made.answer and not any(name == known for known, _ in self.records):
            made.set_rcode(self.rcode or dns.rcode.NXDOMAIN)
        return made

    def _serve_datagrams(self) -> None:
        while True:
            try:
                octets, peer = self._datagrams.recvfrom(4096)
            except OSError:
                return
            if not octets:
                return
            threading.Thread(target=self._answer_datagram, args=(octets, peer), daemon=True).start()

    def _answer_datagram(self, octets: bytes, peer: Any) -> None:
        query = self._take(octets, "udp")
        for wire in self.forge(query) if self.forge else [self._fitting(query)]:
            self._send(wire, peer)

    def _send(self, wire: bytes, peer: Any) -> None:
        if not self.is_silent:
            try:
                self._datagrams.sendto(wire, peer)
            except OSError:
                return

    def _fitting(self, query: dns.message.Message) -> bytes:
        made = self.answer(query)
        if len(wire := made.to_wire(max_size=65535)) > ROOM:
            made.answer.clear()
            made.flags |= dns.flags.TC
            wire = made.to_wire()
        return wire

    def _serve_streams(self) -> None:
        while True:
            try:
                line, _ = self._streams.accept()
            except OSError:
                return
            with line:
                octets = line.recv(4096)
                if octets:
                    query = self._take(octets[2:], "tcp")
                    wire = self.answer(query).to_wire(max_size=65535)
                    line.sendall(self.forge_tcp(query) if self.forge_tcp
                                 else len(wire).to_bytes(2) + wire)

    def _take(self, octets: bytes, transport: str) -> dns.message.Message:
        query = dns.message.from_wire(octets)
        question = query.question[0]
        self.asked.append((question.name.to_text(omit_final_dot=True), question.rdtype.name, transport))
        time.sleep(self.delay)
        return query
