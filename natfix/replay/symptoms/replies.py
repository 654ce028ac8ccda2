"""Replies that reach the UA at another place than it asked from: D12, D29.

What a UA sends from S to D must come back from D to S (RFC 3581, section 4), or to the port in its Via
(RFC 3261, section 18.2.2). Plain NAT puts back exactly what it took away; where that is not so, something
else had its hands in it. A reply that the UA took all the same is no fault.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from natfix.address import SIP_PORT, Endpoint
from natfix.replay import products
from natfix.replay.model import (
    Context,
    Conversation,
    Finding,
    Fixed,
    IcmpError,
    PacketId,
    Passage,
    Severity,
    Side,
    Sighting,
    Transaction,
    Vantage,
)
from natfix.replay.symptoms.reading import (
    Step,
    length,
    numbers,
    place,
    status_line,
    steps,
    top_via,
    unique,
)

AFTER = 0.1         # seconds; a repetition this long after the reply did not cross it on the way
MOST_RECORDS = 2000  # passages without payload that are paired
MOST_COPIES = 64    # requests and replies of one transaction that are looked at; more are a flood
MOST_JUDGED = 64    # exchanges of one conversation that need a closer look


class Exchange(NamedTuple):
    """A request and a reply to it."""

    request: Passage
    reply: Passage
    repeated: tuple[Passage, ...] = ()      # the request again, after the reply

    @property
    def asked_from(self) -> Endpoint:
        return self.request.first.source

    @property
    def delivered_to(self) -> Endpoint:
        return self.reply.last.destination

    @property
    def packets(self) -> tuple[PacketId, ...]:
        again = tuple(packet for passage in self.repeated for packet in passage.packets)
        return unique((*self.request.packets, *self.reply.packets, *again))


def replies_elsewhere(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D12: a reply is delivered to another port, or from another address, than it was asked from."""
    strange = (exchange for transaction in conversation.transactions for exchange in _exchanges(transaction)
               if _is_elsewhere(exchange) or _is_from_another(exchange))
    exchange = _first_lost(conversation, strange)
    if exchange is not None:
        yield (_elsewhere if _is_elsewhere(exchange) else _from_another)(exchange, conversation, ctx)


def _first_lost(conversation: Conversation, exchanges: Iterator[Exchange]) -> Exchange | None:
    """Return the first whose reply the UA did not take."""
    return next((each for each in islice(exchanges, MOST_JUDGED) if not _was_taken(conversation, each)), None)


def records_elsewhere(ctx: Context) -> Iterator[Finding]:
    """D12 where only headers are known, as in `fw monitor` text: ports tell all."""
    open_requests: dict[tuple[Endpoint, Endpoint], Passage] = {}
    seen: set[tuple[Endpoint, Endpoint]] = set()
    for passage in ctx.records[:MOST_RECORDS]:
        request = open_requests.get((passage.first.destination, passage.first.source))
        if request is None:
            if _is_sip(passage):
                open_requests.setdefault((passage.last.source, passage.last.destination), passage)
            continue
        exchange = Exchange(request, passage)
        key = (exchange.asked_from, exchange.delivered_to)
        if len(passage.sightings) > 1 and len(request.sightings) > 1 and _is_elsewhere(exchange) \
                and key not in seen:
            seen.add(key)
            yield _elsewhere(exchange, None, ctx)


def _is_sip(passage: Passage) -> bool:
    ends = {end.port for each in passage.sightings for end in (each.source, each.destination)}
    return SIP_PORT in ends


def _exchanges(transaction: Transaction) -> Iterator[Exchange]:
    """Yield each different reply with the request that it answers."""
    requests = [each for each in transaction.requests[:MOST_COPIES] if each.message is not None
                and each.message.cseq_method == transaction.method]
    if not requests:
        return
    for reply in transaction.responses[:MOST_COPIES]:
        if reply.repeats is None and reply.message is not None:
            before = [each for each in requests if each.time <= reply.time] or requests[:1]
            repeated = tuple(each for each in requests
                             if each.repeats is not None and each.time > reply.last.time + AFTER)
            yield Exchange(before[-1], reply, repeated)


def _is_elsewhere(exchange: Exchange) -> bool:
    """Tell whether the reply's last copy goes to the UA's host, and to a port that the UA never named."""
    asked, delivered = exchange.asked_from, exchange.delivered_to
    if asked.host != delivered.host or asked.port == delivered.port:
        return False
    via = top_via(exchange.request.message)
    return via is None or place(via.sent_by).port != delivered.port


def _is_from_another(exchange: Exchange) -> bool:
    """Tell whether the reply comes from elsewhere than asked, and the UA goes on asking."""
    asked, answered = exchange.request.first.destination, exchange.reply.last.source
    is_same_place = exchange.request.first.side == exchange.reply.last.side
    return is_same_place and exchange.asked_from == exchange.delivered_to and asked != answered \
        and bool(exchange.repeated) and _is_silenced(exchange)


def _is_silenced(exchange: Exchange) -> bool:
    """Tell whether this reply would have ended the repetitions (RFC 3261, 17.1.1.2 and 17.1.2.2)."""
    message = exchange.reply.message
    assert message is not None
    return message.status >= 200 or message.cseq_method == "INVITE"


def _was_taken(conversation: Conversation, exchange: Exchange) -> bool:
    """Tell whether the UA went on as one does that got the reply."""
    reply = exchange.reply.message
    assert reply is not None
    if reply.status < 200 and exchange.repeated:
        return False
    return any(
        later.message is not None and later.message.is_request and later.time > exchange.reply.time
        and later.first.source == exchange.asked_from
        and (later.message.method == "ACK" or later.message.cseq > reply.cseq)
        for later in conversation.passages)


# -- D12 in words


def _elsewhere(exchange: Exchange, conversation: Conversation | None, ctx: Context) -> Finding:
    asked, delivered = exchange.asked_from, exchange.delivered_to
    what = status_line(exchange.reply.message) if exchange.reply.message else "the reply"
    complaints = _complaints(conversation, exchange)
    moved = [step for step in steps(exchange.request) if step.source_changed]
    early = next((step for step in moved if step.is_before_routing), None)
    known = products.recognise(conversation, ctx)
    told = f" The box is recognised as {known.alg.product}: {known.why}." if known and known.is_sure else ""
    return Finding(
        "D12", Severity.BREAKS,
        f"{what} is delivered to {delivered}, the request came from port {asked.port}",
        conversation.call_id if conversation else "",
        unique((*exchange.packets, *(packet for error in complaints for packet in error.packets))),
        " ".join((*_story(exchange, "request", True), *_story(exchange, "reply", False),
                  f"The request came from {asked}: nobody listens at {delivered}.",
                  *_lengths(exchange), *_reactions(exchange, complaints))),
        _cause(exchange, moved, early) + told,
        _where(exchange, moved, early),
        _remedy(conversation, ctx),
        Fixed.NO, exchange.request.time)


def _story(exchange: Exchange, what: str, outward: bool) -> Iterator[str]:
    passage = exchange.request if outward else exchange.reply
    first = passage.first
    yield f"The {what} is {first.source} -> {first.destination} ({_at(first)})."
    for step in steps(passage):
        if step.source_changed:
            yield f"{_capital(step.where)} its source became {step.after.source} ({numbers(step.packets)})."
        if step.destination_changed:
            yield (f"{_capital(step.where)} its destination became {step.after.destination} "
                   f"({numbers(step.packets)}).")
    if not outward and len(passage.sightings) > 2:
        yield f"So it left for {passage.last.destination} ({_at(passage.last)})."


def _at(sighting: Sighting) -> str:
    where = f" at {sighting.interface}:{sighting.stage}" if sighting.interface and sighting.stage else ""
    return f"packet {sighting.packet}{where}"


def _lengths(exchange: Exchange) -> Iterator[str]:
    """Say where the length changed: the text was rewritten, too."""
    grown = [step for passage in (exchange.request, exchange.reply) for step in steps(passage) if step.grown]
    if grown:
        said = " and from ".join(
            f"{length(step.before)} to {length(step.after)} octets {step.where} ({numbers(step.packets)})"
            for step in grown)
        yield f"The length changed from {said}: a sign that the text was rewritten, too."


def _reactions(exchange: Exchange, complaints: list[IcmpError]) -> Iterator[str]:
    if exchange.repeated:
        packets = [each.first.packet for each in exchange.repeated]
        yield f"The UA repeats its request as if there were no reply ({numbers(packets)})."
    for error in complaints[:1]:
        yield f"{error.sender} answers with ICMP {error.code} (packet {error.packets[0]})."


def _complaints(conversation: Conversation | None, exchange: Exchange) -> list[IcmpError]:
    errors = conversation.errors if conversation else []
    return [error for error in errors if error.destination == exchange.delivered_to]


def _cause(exchange: Exchange, moved: list[Step], early: Step | None) -> str:
    delivered = exchange.delivered_to
    if early is not None:
        hide = next((step for step in moved if not step.is_before_routing), None)
        later = f" {_capital(hide.where)} hide NAT then took {hide.after.source.port}." if hide else ""
        return (
            f"The source port changed from {early.before.source.port} to {early.after.source.port} already "
            f"{early.where}, before routing: that is a protocol handler (SIP ALG), since hide NAT works "
            f"behind "
            f"routing, between o and O.{later} For the reply the NAT is undone and the handler's own change "
            f"is "
            f"not, so it goes to {delivered}, where nobody listens.")
    if moved:
        return (
            f"The gateway shows {exchange.asked_from} as {moved[-1].after.source}, and sends what comes back "
            f"there to {delivered}. Plain NAT puts back exactly what it took away: a protocol handler (SIP "
            f"ALG) "
            f"took port {delivered.port} in between, and forgets it for the reply.")
    return (
        f"Something between the UA and its peer delivers the reply to port {delivered.port}, which neither "
        f"the "
        "packet nor the Via of the request named. Plain NAT does not do that: it is a protocol handler (SIP "
        "ALG).")


def _where(exchange: Exchange, moved: list[Step], early: Step | None) -> str:
    if early is not None:
        return f"the firewall itself, {early.where}"
    if moved:
        return f"the gateway, {moved[0].where}"
    ends = exchange.request.first
    return f"between {ends.source.host} and {ends.destination.host}, at the first gateway as a rule"


def _remedy(conversation: Conversation | None, ctx: Context) -> str:
    known = products.recognise(conversation, ctx)
    if known is not None and known.is_sure:
        return f"{known.alg.product}: {known.alg.switch_off}."
    check_point = products.alg("check-point")
    general = products.remedy(conversation, ctx, "Switch the SIP ALG of that gateway off, and capture again")
    return (f"{general}. Known of {check_point.product}, where the service's protocol type does it: "
            f"{check_point.switch_off}.")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _from_another(exchange: Exchange, conversation: Conversation, ctx: Context) -> Finding:
    asked, answered = exchange.request.first.destination, exchange.reply.last.source
    message = exchange.reply.message
    assert message is not None
    changed = [step for step in steps(exchange.reply) if step.source_changed]
    if changed:
        cause = (f"{_capital(changed[0].where)} the reply's source became {changed[0].after.source}: the "
                 "gateway does not undo its own translation.")
        where = f"the gateway, {changed[0].where}"
    else:
        cause = (f"The UA takes replies from {asked} only. Either a gateway translates the reply's source "
                 f"wrongly, or the server has several addresses and answers from another one.")
        where = f"at {answered.host}, or at a gateway between it and {exchange.asked_from.host}"
    return Finding(
        "D12", Severity.BREAKS,
        f"{status_line(message)} comes from {answered}, the request went to {asked}",
        conversation.call_id, exchange.packets,
        f"The request goes from {exchange.asked_from} to {asked} (packet {exchange.request.first.packet}), "
        f"the "
        f"reply comes from {answered} (packet {exchange.reply.last.packet}). "
        + " ".join(_reactions(exchange, [])),
        cause, where, _remedy(conversation, ctx), Fixed.NO, exchange.request.time)


# -- D29


def replies_to_source_port(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D29: the UA listens where its Via says, and the reply goes to where its packet came from."""
    strange = (exchange for transaction in conversation.transactions for exchange in _exchanges(transaction)
               if _is_unheard(exchange) or _is_lost_at_via_port(exchange, ctx))
    exchange = _first_lost(conversation, strange)
    listens = _listens_at(exchange) if exchange is not None else None
    if exchange is not None and listens is not None:
        yield (_unheard if _is_unheard(exchange) else _unmapped)(exchange, listens, conversation)


def _is_unheard(exchange: Exchange) -> bool:
    return exchange.delivered_to == exchange.asked_from and bool(exchange.repeated) \
        and _is_silenced(exchange) and _listens_at(exchange) is not None


def _listens_at(exchange: Exchange) -> int | None:
    """Return the port in Via, where that is not the packet's and the UA did not ask for rport."""
    sighting = exchange.request.first
    via = top_via(sighting.message)
    if via is None or "rport" in via.params or sighting.transport != "udp":
        return None
    port = place(via.sent_by).port
    is_own = next(first_requests_of(exchange), None) is not None
    return port if is_own and port != sighting.source.port else None


def first_requests_of(exchange: Exchange) -> Iterator[Passage]:
    """Yield the request, if it comes from the UA itself: no other hop has added a Via."""
    message = exchange.request.message
    if message is not None and len(message.all("via")) == 1 and "," not in message.text("via"):
        yield exchange.request


def _is_lost_at_via_port(exchange: Exchange, ctx: Context) -> bool:
    reply, listens = exchange.reply, _listens_at(exchange)
    return (
        listens is not None and
        ctx.network.vantage in (Vantage.BOTH, Vantage.ANY) and bool(exchange.repeated)
        and reply.at(Side.OUTSIDE) is not None and reply.at(Side.INSIDE) is None
        and reply.last.destination.port == listens and exchange.request.at(Side.OUTSIDE) is not None)


def _unheard(exchange: Exchange, listens: int, conversation: Conversation) -> Finding:
    return _via_port(
        exchange, conversation, listens, f"the reply goes to {exchange.delivered_to} (packet "
        f"{exchange.reply.last.packet})",
        "The server answers to where the packet came from, as it must behind a NAT; this UA listens only at "
        "the "
        "port in its Via (asymmetric signalling).")


def _unmapped(exchange: Exchange, listens: int, conversation: Conversation) -> Finding:
    return _via_port(
        exchange, conversation, listens, f"the reply goes to {exchange.reply.last.destination} (packet "
        f"{exchange.reply.last.packet}), and is not seen inside",
        f"The server answers to the port in Via, as RFC 3261 says without rport; the NAT has a mapping for "
        f"port "
        f"{exchange.asked_from.port} only.")


def _via_port(exchange: Exchange, conversation: Conversation, listens: int, said: str, cause: str) -> Finding:
    again = [each.first.packet for each in exchange.repeated]
    return Finding(
        "D29", Severity.BREAKS, f"the UA sends from port {exchange.asked_from.port} and listens at {listens}",
        conversation.call_id, exchange.packets,
        f"Packet {exchange.request.first.packet} comes from {exchange.asked_from}, its Via names port "
        f"{listens} "
        f"and has no rport; {said}; the request is repeated ({numbers(again)}).",
        cause, f"the UA at {exchange.asked_from.host}",
        "Let the UA send from the port that it listens on, or switch rport (RFC 3581, \"NAT\" in its menu) "
        "on; "
        "chan_sip: nat=no for this peer, where no NAT is between.",
        Fixed.PARTLY, exchange.request.time)


CONVERSATION = (replies_elsewhere, replies_to_source_port)
STATION = ()
CAPTURE = (records_elsewhere,)
