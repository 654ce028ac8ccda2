"""Media policy: of a peer, else of a domain that the message names, else for all (NATPass's FULL)."""

from __future__ import annotations

from collections.abc import Iterator

from natfix.config import Settings
from natfix.errors import MalformedMessage
from natfix.sip.fields import address_at
from natfix.sip.message import Message
from natfix.turn import Turn


class MediaPolicies:
    """What the operator has chosen, for a message."""

    def __init__(self, settings: Settings) -> None:
        self._default = settings.media.policy
        self._by_peer = {peer.address: peer.media for peer in settings.peers if peer.media}
        self._by_domain = {domain.name.lower(): domain.media for domain in settings.domains}

    def of(self, turn: Turn) -> str:
        """Return "auto", "full" or "never"."""
        packet = turn.packet
        return (
            self._by_peer.get(packet.destination.host)
            or self._by_peer.get(packet.source.host)
            or (self._by_domain and self._of_domain(turn.message))
            or self._default
        )

    def _of_domain(self, message: Message) -> str:
        """From and To stay as they are for the whole of a dialog, and so does what is chosen by them."""
        named = (self._by_domain.get(name) for host in _hosts(message) for name in _names(host))
        return next(filter(None, named), "")


def _hosts(message: Message) -> Iterator[str]:
    for name in ("to", "from"):
        header = message.first(name)
        if header is None:
            continue
        try:
            uri = address_at(message.raw, header.start, header.end).uri
        except MalformedMessage:
            continue
        if uri is not None:
            yield uri.hostport.host.lower()


def _names(host: str) -> Iterator[str]:
    """Yield what a domain is found by, the most particular first: itself, then "*." and its ends."""
    yield host
    labels = host.split(".")
    for count in range(1, len(labels)):
        yield ".".join(("*", *labels[count:]))
