"""natfix-replay --redact: what is read from captures, before anything else looks at the packets."""

from __future__ import annotations

from dataclasses import replace

from natfix import redact
from natfix.address import is_ipv4
from natfix.errors import MalformedMessage
from natfix.replay.gateway import datagram_bytes
from natfix.replay.model import IcmpError, LogLine, Sighting, Stream, TcpReset, TlsFlow
from natfix.sip.message import message_from_bytes

Item = Sighting | IcmpError | LogLine | TcpReset | TlsFlow


class Redactor(redact.Redactor):
    """Replaces what tells of people and places, in packets and in what is found in them."""

    def item(self, item: Item) -> Item:
        """Return what an input holds, redacted."""
        if isinstance(item, Sighting):
            return self._sighting(item)
        if isinstance(item, LogLine):
            return replace(item, text=self.addresses(self.macs(item.text)))
        source, destination = self.endpoint(item.source), self.endpoint(item.destination)
        if isinstance(item, IcmpError):
            return replace(item, sender=self.host(item.sender), source=source, destination=destination)
        return replace(item, source=source, destination=destination)

    def stream(self, stream: Stream) -> Stream:
        """Return a stream between redacted endpoints."""
        return replace(stream, source=self.endpoint(stream.source),
                       destination=self.endpoint(stream.destination))

    def _sighting(self, item: Sighting) -> Sighting:
        payload = self.payload(item.payload)
        source, destination = self.endpoint(item.source), self.endpoint(item.destination)
        changed = replace(item, payload=payload, source=source, destination=destination, ip=b"")
        if item.message is not None:
            try:
                changed.message = message_from_bytes(payload)
            except MalformedMessage as problem:     # never shown unredacted, whatever became of it
                changed.message, changed.problem = None, str(problem)
        if item.ip and item.transport == "udp" and is_ipv4(source.host) and is_ipv4(destination.host):
            changed.ip = datagram_bytes(source, destination, payload)
        return changed
