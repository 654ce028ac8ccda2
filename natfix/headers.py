"""Which headers name addresses, of which kind those are, and where in a header they stand."""

from __future__ import annotations

from typing import NamedTuple

from natfix.address import Endpoint
from natfix.errors import MalformedMessage
from natfix.sip.fields import Address, HostPort, Uri, Via, address_at, uri_at
from natfix.sip.message import Header, Message

# Headers are of four kinds; what was shown in one kind is restored in the same kind only, since a UA
# may write its address differently in each ("192.168.1.10" in Contact, with ":5060" in Via).
VIA, CONTACT, ROUTE, IDENTITY = "via", "contact", "route", "identity"
TARGET = "target"   # what a UA was told of the other side, where that is the UA's own host once more


class Rule(NamedTuple):
    """How one header is treated."""

    kind: str
    header: str         # as people write it
    rfc: str


def _by_name(*rules: Rule) -> dict[str, Rule]:
    return {rule.header.lower(): rule for rule in rules}


# Headers that hold addresses ("name" <uri>;params), by what they mean.
ADDRESS_RULES = _by_name(
    Rule(CONTACT, "Contact", "RFC 3261, section 8.1.1.8"),
    Rule(CONTACT, "Refer-To", "RFC 3515, section 2.1"),
    Rule(ROUTE, "Record-Route", "RFC 3261, section 16.6"),
    Rule(ROUTE, "Route", "RFC 3261, section 16.12"),
    Rule(ROUTE, "Path", "RFC 3327, section 5"),
    Rule(ROUTE, "Service-Route", "RFC 3608, section 6"),
    Rule(IDENTITY, "From", "RFC 3261, section 8.1.1.3"),
    Rule(IDENTITY, "To", "RFC 3261, section 8.1.1.2"),
    Rule(IDENTITY, "Reply-To", "RFC 3261, section 20.31"),
    Rule(IDENTITY, "Referred-By", "RFC 3892, section 2"),
    Rule(IDENTITY, "P-Asserted-Identity", "RFC 3325, section 9.1"),
    Rule(IDENTITY, "P-Preferred-Identity", "RFC 3325, section 9.2"),
    Rule(IDENTITY, "Diversion", "RFC 5806, section 4"),
    Rule(IDENTITY, "History-Info", "RFC 7044, section 5"),
    Rule(IDENTITY, "Remote-Party-ID", "draft-ietf-sip-privacy-04, section 5"),
)
# Headers that name a host in free text; there only the very endpoint of a mapping is replaced.
TEXT_RULES = _by_name(
    Rule(CONTACT, "Warning", "RFC 3261, section 20.43"),
    Rule(CONTACT, "Call-Info", "RFC 3261, section 20.9"),
)
RULES = ADDRESS_RULES | TEXT_RULES
SHOWN_VIA = Rule(VIA, "Via", "RFC 3261, section 18.1.1")
RESTORED_VIA = Rule(VIA, "Via", "RFC 3261, section 18.1.2")
SHOWN_REQUEST_URI = Rule(TARGET, "Request-URI", "RFC 3261, section 12.2.1.1")
RESTORED_REQUEST_URI = Rule(CONTACT, "Request-URI", "RFC 3261, section 12.2.1.1")
# A UA never says these of itself: they are echoes, or name who is called.
ECHOED_ONLY = frozenset({"route", "service-route", "to"})
URI_PARAMETERS = ("maddr", "received", "alias")     # parameters that repeat an address of the URI


def top_via(message: Message) -> Via | None:
    """Return the topmost Via, None where it cannot be read."""
    try:
        return message.via
    except MalformedMessage:
        return None


def uri_or_none(raw: bytes, start: int, end: int) -> Uri | None:
    """Return the URI at that place, None where it cannot be read."""
    try:
        return uri_at(raw, start, end)
    except MalformedMessage:
        return None


def address_or_none(raw: bytes, start: int, end: int) -> Address | None:
    """Return the address at that place, None where it cannot be read."""
    try:
        return address_at(raw, start, end)
    except MalformedMessage:
        return None


def hostports_in_text(raw: bytes, header: Header, endpoint: Endpoint) -> list[HostPort]:
    """Find *endpoint* in free text: "host:port" that no further digit follows."""
    text = str(endpoint).encode()
    found = []
    start = raw.find(text, header.start, header.end)
    while start >= 0:
        end = start + len(text)
        before, after = raw[start - 1:start], raw[end:end + 1]
        if not after.isdigit() and not before.isalnum() and before not in (b".", b"-"):
            found.append(HostPort(start, end, endpoint.host, endpoint.port))
        start = raw.find(text, end, header.end)
    return found


def is_signed(message: Message, start: int, end: int) -> bool:
    """Tell whether credentials quote this Request-URI (RFC 8760): then it must reach the UA as it is."""
    quoted = b'uri="' + message.raw[start:end] + b'"'
    return any(
        message.raw.find(quoted, header.start, header.end) >= 0
        for header in message.headers if header.name in ("authorization", "proxy-authorization")
    )
