"""What the outside peer would have written, had natfix been on the gateway.

A capture shows what peers answered to messages that natfix had not fixed. They echo what they were shown:
with natfix they would have echoed the outside endpoint that natfix shows. So before the engine gets an
inward message, a few places are put as such a peer would have filled them. The table, which is complete:

    place                       holds in the capture            is put as
    Via, topmost of a response  what the UA wrote, or whatever  what natfix showed in the request with
                                a fixer on the way made of it   this branch
    its ``received``            the address the peer saw        the address of natfix's outside endpoint
    its ``rport``               the port the peer saw           the port of natfix's outside endpoint
    Contacts of a 2xx to        the UA's own endpoint, or the   what natfix showed in the REGISTER
    REGISTER                    one that it had outside
    Request-URI                 the same two                    what natfix showed as the UA's Contact
    Route                       the same two                    what natfix showed in Record-Route

A place that names anybody else stays as it was, as does one that natfix has never shown. Where the peer
looked up the UA's address by other means, from STUN for instance, that does not change.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from natfix.address import Endpoint
from natfix.errors import MalformedMessage
from natfix.sip.fields import HostPort, address_at, split_values, uri_at
from natfix.sip.message import Message
from natfix.spelling import shown_text

MOST_TRANSACTIONS = 8192
MOST_ENDPOINTS = 8192


class Echo(NamedTuple):
    """One place of a captured payload, and what the peer would have written there."""

    start: int
    end: int
    new: bytes
    header: str


class Echoed(NamedTuple):
    """An inside UA, as an echo in one inward message may name it."""

    inside: Endpoint
    outside: Endpoint                   # natfix's
    foreign: frozenset[Endpoint]        # its outside endpoints by the capture's own NAT or fixer
    via: str                            # as natfix showed it in this transaction's request; "" not known
    shown: dict[tuple[str, str], str]   # (kind, as the UA wrote it) -> as natfix showed it

    def names(self, hostport: HostPort) -> bool:
        """Tell whether a host and port are this UA's."""
        endpoint = hostport.endpoint()
        return endpoint is not None and (endpoint == self.inside or endpoint in self.foreign)


Rule = Callable[[Message, Echoed], Iterator[Echo]]


def _via(message: Message, echoed: Echoed) -> Iterator[Echo]:
    """RFC 3261, 18.2.2: a response carries the request's Via back."""
    via = message.via
    hostport = via.sent_by
    text = echoed.via or (shown_text(hostport, echoed.outside) if echoed.names(hostport) else "")
    if text:
        yield Echo(hostport.start, hostport.end, text.encode("latin-1"), "Via")


def _via_parameters(message: Message, echoed: Echoed) -> Iterator[Echo]:
    """RFC 3261, 18.2.1, and RFC 3581, section 4: the peer adds where the request came from."""
    via = message.via
    for name, value in (("received", echoed.outside.host), ("rport", str(echoed.outside.port))):
        start, end = via.params.get(name, (0, 0))
        if end > start:
            yield Echo(start, end, value.encode(), "Via")


def _bindings(message: Message, echoed: Echoed) -> Iterator[Echo]:
    """RFC 3261, 10.3, step 8: the registrar lists the Contacts that it holds."""
    for header in message.all("contact"):
        for start, end in split_values(message.raw, header.start, header.end):
            uri = address_at(message.raw, start, end).uri
            if uri is not None:
                yield from _shown(message, uri.hostport, "contact", "Contact", echoed)


def _request_uri(message: Message, echoed: Echoed) -> Iterator[Echo]:
    """RFC 3261, 12.2.1.1 and 16.5: requests are sent to the Contact."""
    uri = uri_at(message.raw, *message.request_uri)
    yield from _shown(message, uri.hostport, "contact", "Request-URI", echoed)


def _route(message: Message, echoed: Echoed) -> Iterator[Echo]:
    """RFC 3261, 12.1: the route set is made of Record-Routes."""
    for header in message.all("route"):
        for start, end in split_values(message.raw, header.start, header.end):
            uri = address_at(message.raw, start, end).uri
            if uri is not None:
                yield from _shown(message, uri.hostport, "route", "Route", echoed)


def _shown(
    message: Message, hostport: HostPort, kind: str, header: str, echoed: Echoed
) -> Iterator[Echo]:
    if not echoed.names(hostport):
        return
    written = message.raw[hostport.start:hostport.end].decode("latin-1")
    text = echoed.shown.get((kind, written))
    if text is None and any(shown_kind == kind for shown_kind, _ in echoed.shown):
        text = shown_text(hostport, echoed.outside)
    if text is not None:
        yield Echo(hostport.start, hostport.end, text.encode("latin-1"), header)


TABLE: tuple[tuple[Callable[[Message], bool], Rule], ...] = (
    (lambda message: not message.is_request, _via),
    (lambda message: not message.is_request, _via_parameters),
    (lambda message: 200 <= message.status < 300 and message.cseq_method == "REGISTER", _bindings),
    (lambda message: message.is_request, _request_uri),
    (lambda message: message.is_request, _route),
)


def counterfactual(message: Message, echoed: Echoed) -> tuple[Echo, ...]:
    """Return the places of an inward message that a peer would have filled otherwise, ordered and apart."""
    places: list[Echo] = []
    for applies, rule in TABLE:
        if applies(message):
            try:
                places += rule(message, echoed)
            except MalformedMessage:
                continue
    return tuple(sorted(each for each in places if message.raw[each.start:each.end] != each.new))


class Known:
    """What was learned of inside UAs so far: what natfix showed of them, and what the capture's NAT did."""

    def __init__(self) -> None:
        self._vias: OrderedDict[tuple[str, str], tuple[Endpoint, str]] = OrderedDict()
        self._shown: OrderedDict[Endpoint, dict[tuple[str, str], str]] = OrderedDict()
        self._foreign: OrderedDict[Endpoint, frozenset[Endpoint]] = OrderedDict()
        self._inside: OrderedDict[Endpoint, Endpoint] = OrderedDict()      # by the capture's outside endpoint

    def sent(self, message: Message, inside: Endpoint, via: str) -> None:
        """Note that *inside* sent a request, with *via* as its sent-by when natfix let it go."""
        if message.is_request and message.branch:
            _put(self._vias, (message.branch, message.cseq_method), (inside, via), MOST_TRANSACTIONS)

    def asked(self, message: Message) -> tuple[Endpoint, str] | None:
        """Return who sent the request that a response answers, and its sent-by as natfix showed it."""
        return self._vias.get((message.branch, message.cseq_method))

    def shown(self, inside: Endpoint, kind: str, written: str, text: str) -> None:
        """Note that natfix showed as *text* what *inside* wrote."""
        table = self._shown.get(inside)
        if table is None:
            table = {}
            _put(self._shown, inside, table, MOST_ENDPOINTS)
        if len(table) < MOST_TRANSACTIONS:
            table[kind, written] = text

    def translated(self, inside: Endpoint, foreign: Endpoint) -> None:
        """Note that the capture's own NAT, or a fixer, had *foreign* stand for *inside*."""
        if self._inside.get(foreign) != inside:
            _put(self._inside, foreign, inside, MOST_ENDPOINTS)
            known = self._foreign.get(inside, frozenset())
            _put(self._foreign, inside, known | {foreign} if len(known) < 64 else known, MOST_ENDPOINTS)

    def behind(self, foreign: Endpoint) -> Endpoint | None:
        """Return the inside endpoint that the capture's NAT shows as *foreign*."""
        return self._inside.get(foreign)

    def echoed(self, message: Message, inside: Endpoint, outside: Endpoint) -> Echoed:
        """Return how an inward message may name *inside*, whom natfix shows as *outside*."""
        asked = self.asked(message) if not message.is_request else None
        via = asked[1] if asked is not None and asked[0] == inside else ""
        return Echoed(inside, outside, self._foreign.get(inside, frozenset()), via,
                      self._shown.get(inside, {}))


def _put(table: OrderedDict[Any, Any], key: Any, value: Any, most: int) -> None:
    table[key] = value
    table.move_to_end(key)
    if len(table) > most:
        table.popitem(last=False)
