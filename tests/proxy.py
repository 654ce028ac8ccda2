"""A proxy for playbook tests: it passes messages on as RFC 3261 section 16 says, Call-ID and all."""

from __future__ import annotations

import re

from natfix.address import Endpoint
from tests.agent import Agent, Sip
from tests.judge import header_name, logical_lines
from tests.playbook import Delivery


class Proxy(Agent):
    """A stateless proxy; ``records_route`` says whether later requests come through it as well."""

    is_strict = False
    records_route = True

    def passes_on(self, uri: str = "", to: Endpoint | None = None) -> Delivery:
        """Send the newest message on: a response by its Via, a request to *uri* or by its Request-URI."""
        arrived = self.inbox[-1]
        lines = logical_lines(arrived.payload)
        body = arrived.message.body
        if arrived.message.is_request:
            lines, to = self._forwarded(arrived.message, lines, arrived.source, uri, to)
        else:
            lines = _without_first(lines, "via")
            to = self._next_via(lines)
        return self.world.transmit(self.endpoint, to, b"\r\n".join(lines) + b"\r\n\r\n" + body)

    def _forwarded(
        self, request: Sip, lines: list[bytes], source: Endpoint, uri: str, to: Endpoint | None
    ) -> tuple[list[bytes], Endpoint]:
        target = uri or request.uri
        if request["route"] and str(self.endpoint) in request["route"]:
            lines = _without_first(lines, "route")
        start = f"{request.method} {target} SIP/2.0".encode()
        branch = f"z9hG4bKproxy{request.branch}{request.method}"
        added = [f"Via: SIP/2.0/UDP {self.endpoint};branch={branch}".encode()]
        if self.records_route and ";tag=" not in request["to"]:
            added.append(f"Record-Route: <sip:{self.endpoint};lr>".encode())
        marked = [_marked(line, source) for line in lines[1:]]
        return [start, *added, *marked], to or self.world.resolve_uri(target)

    def _next_via(self, lines: list[bytes]) -> Endpoint:
        """Return where a response goes: received and rport of the Via that is on top now."""
        via = next(line for line in lines if header_name(line) == "via").decode()
        host, port = re.findall(r"UDP ([^:;\s]+)(?::(\d+))?", via)[0]
        received, rport = re.findall(r"received=([^;\s]+)", via), re.findall(r"rport=(\d+)", via)
        return Endpoint((received or [host])[0], int((rport or [port or 5060])[0]))


def _marked(line: bytes, source: Endpoint) -> bytes:
    """Put received and rport into the Via of the sender (RFC 3581), where it asks for that."""
    if header_name(line) == "via" and re.search(rb";rport(?!=)", line):
        return re.sub(rb";rport(?!=)", f";rport={source.port};received={source.host}".encode(), line)
    return line


def _without_first(lines: list[bytes], name: str) -> list[bytes]:
    where = next(index for index, line in enumerate(lines) if header_name(line) == name)
    return lines[:where] + lines[where + 1:]
