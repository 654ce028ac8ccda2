"""Signs that a UA outside sits behind a NAT of its own: what it writes is not where its packets come from.

The same tests as Kamailio's nathelper counts in bits (nat_uac_test), by name. They are for a request that
comes straight from the UA, with one Via: further on a Via or Contact may rightly name somebody else.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from natfix.address import SIP_PORT, Endpoint, Network, contains, network_from_text
from natfix.errors import MalformedMessage
from natfix.sip.fields import Address, Via, address_at, split_values
from natfix.sip.message import Message

# RFC 1918; RFC 6598 (between a carrier's NAT and its customers); RFC 7335 (a handset's 464XLAT); RFC 3927.
PRIVATE = tuple(map(network_from_text, (
    "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "192.0.0.0/29", "169.254.0.0/16",
)))


class Seen(NamedTuple):
    """What the tests look at."""

    via: Via
    contacts: tuple[Endpoint, ...]      # those that are IPv4 endpoints
    source: Endpoint


def private_network(host: str) -> Network | None:
    """Return the block of private addresses that *host* is of, None for any other address and for names."""
    return next((network for network in PRIVATE if contains((network,), host)), None)


def is_unreachable(host: str, source: str) -> bool:
    """Tell whether *host* is private, and not of the block that *source* itself is of.

    Where both are of one block they may well be in one network: a carrier's own, or a VPN.
    """
    block = private_network(host)
    return block is not None and not contains((block,), source)


def signs(message: Message, source: Endpoint, chosen: Collection[str]) -> frozenset[str]:
    """Return which of the *chosen* tests say that the sender of a request is behind a NAT of its own.

    None do where the message came by a proxy, and where the UA has seen to it itself (RFC 5626).
    """
    if not message.is_request or not _is_straight(message):
        return frozenset()
    addresses = list(contacts_of(message))
    if any("reg-id" in address.params or (address.uri and "ob" in address.uri.params)
           for address in addresses):
        return frozenset()
    found = (address.uri.hostport.endpoint() for address in addresses if address.uri)
    try:
        seen = Seen(message.via, tuple(endpoint for endpoint in found if endpoint), source)
    except MalformedMessage:
        return frozenset()
    return frozenset(name for name in chosen if name in SIGNS and SIGNS[name](seen))


def contacts_of(message: Message) -> Iterator[Address]:
    """Yield the Contacts of a message that can be read."""
    for header in message.all("contact"):
        try:
            for start, end in split_values(message.raw, header.start, header.end):
                yield address_at(message.raw, start, end)
        except MalformedMessage:
            continue


def _is_straight(message: Message) -> bool:
    """The sender's own Via is the only one: no proxy has passed the message on."""
    headers = message.all("via")
    if len(headers) != 1:
        return False
    try:
        return len(split_values(message.raw, headers[0].start, headers[0].end)) == 1
    except MalformedMessage:
        return False


def _contact_private(seen: Seen) -> bool:
    return any(is_unreachable(contact.host, seen.source.host) for contact in seen.contacts)


def _contact_differs(seen: Seen) -> bool:
    return any(contact != seen.source for contact in seen.contacts)


def _via_private(seen: Seen) -> bool:
    return is_unreachable(seen.via.sent_by.host, seen.source.host)


def _via_differs(seen: Seen) -> bool:
    sent_by = seen.via.sent_by.endpoint()
    return sent_by is not None and sent_by.host != seen.source.host


def _port_differs(seen: Seen) -> bool:
    return (seen.via.sent_by.port or SIP_PORT) != seen.source.port


CONTACT_DIFFERS = "contact-differs-from-source"
SIGNS: dict[str, Callable[[Seen], bool]] = {
    "contact-private": _contact_private,
    CONTACT_DIFFERS: _contact_differs,
    "via-private": _via_private,
    "via-differs-from-source": _via_differs,
    "source-port-differs": _port_differs,
}
SDP_PRIVATE = "sdp-private"         # judged by the m-line: natfix.media
