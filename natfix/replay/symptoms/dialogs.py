"""Calls that break off or do not end: D05, D06, D13 and D26, from what is sent again and never answered."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from natfix.address import Endpoint
from natfix.replay import products
from natfix.replay.model import (
    Context,
    Conversation,
    Direction,
    Finding,
    Fixed,
    PacketId,
    Passage,
    Severity,
    Side,
    Sighting,
    Transaction,
)
from natfix.replay.network import is_private, is_public
from natfix.replay.symptoms.reading import (
    addresses,
    contact_uris,
    header_values,
    numbers,
    place,
    request_uri,
    unique,
    vias,
)
from natfix.replay.symptoms.talking import end_time
from natfix.replay.symptoms.transfers import goes_astray
from natfix.sip.fields import Uri
from natfix.sip.message import Message

MOST_JUDGED = 32        # messages of one conversation that need a closer look
OFTEN = 3               # retransmissions that are no chance: 0.5 + 1 + 2 s on the T1 schedule
T2 = 4.0                # seconds between retransmissions, at most (RFC 3261, 17.1.2.2)
GIVES_UP = 24.0         # seconds after which a 2xx is hardly sent again: 64*T1 without the last two of T2
ROUTE_HEADERS = ("record-route", "path", "service-route")
CURE = ("Let natfix on the gateway, or the server's own setting for its outside address, name one that can "
        "be reached")


# -- D05


def ack_never_comes(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D05: a 2xx to INVITE is sent again and again (RFC 3261, section 13.3.1.4), since no ACK comes."""
    for first, again in islice(_repeated(conversation), MOST_JUDGED):
        acks = _acks(conversation, first)
        if _came_late(first, again[-1], acks, ctx):
            continue
        cause, where, fixed, packets = _why_no_ack(first, acks, ctx)
        bye = next((each.requests[0] for each in conversation.of("BYE") if each.requests), None)
        gone = (f" After {bye.time - first.time:.0f} s the call is ended by BYE (packet {bye.first.packet})."
                if bye is not None else "")
        yield Finding(
            "D05", Severity.BREAKS, "the answer's ACK never arrives: the call drops after half a minute",
            conversation.call_id,
            unique((*first.packets, *(p for each in again for p in each.first.packets), *packets,
                    *(bye.packets if bye is not None else ()))),
            f"200 to INVITE (packet {first.first.packet}) was sent {len(again)} times more "
            f"({numbers(each.first.packet for each in again)}).{gone} {_acks_text(acks)}",
            cause, where, products.remedy(conversation, ctx, CURE) + ".", fixed, first.time)
        return


def _repeated(conversation: Conversation) -> Iterator[tuple[Passage, list[Passage]]]:
    """Yield the 2xx to each INVITE that are sent too often, and how."""
    for transaction in conversation.of("INVITE"):
        first = next((each for each in transaction.responses if each.repeats is None and _is_2xx(each)), None)
        again = [each for each in transaction.responses if first is not None and each.repeats is first]
        if first is not None and len(again) >= OFTEN:
            yield first, again


def _is_2xx(passage: Passage) -> bool:
    return passage.message is not None and 200 <= passage.message.status < 300


def _acks(conversation: Conversation, answer: Passage) -> list[Passage]:
    """Return the ACKs to a 2xx: those with its CSeq number."""
    assert answer.message is not None
    cseq = answer.message.cseq
    return [each for each in conversation.passages if each.message is not None and each.message.is_request
            and each.message.method == "ACK" and each.message.cseq == cseq and each.time >= answer.time]


def _came_late(first: Passage, last: Passage, acks: list[Passage], ctx: Context) -> bool:
    """Tell whether an ACK came at last: after it the answer was not sent again, though it was time."""
    is_given_up = last.time - first.time > GIVES_UP
    return not is_given_up and any(each.time >= last.time for each in acks) and ctx.end - last.time > 2 * T2


def _acks_text(acks: list[Passage]) -> str:
    if not acks:
        return "No ACK was seen."
    ack = acks[0]
    uri = ack.message and request_uri(ack.message)
    target = f" for {place(uri.hostport)}" if uri else ""
    return f"ACK{target} went to {ack.first.destination} ({numbers(each.first.packet for each in acks)})."


Reason = tuple[str, str, Fixed, tuple[PacketId, ...]]


def _why_no_ack(answer: Passage, acks: list[Passage], ctx: Context) -> Reason:
    """Return cause, place, whether natfix cures it, and packets: the sub-cause that the fields decide."""
    message = answer.last.message
    assert message is not None
    contact = next((place(uri.hostport) for uri in contact_uris(message)), None)
    route = next((uri for uri in _routes(message, "record-route")), None)
    packets = tuple(packet for each in acks for packet in each.packets)
    is_ours = answer.direction is Direction.OUTWARD
    if acks:
        return _why_lost(answer, acks[0], contact, route, packets, ctx)
    if is_ours and route is not None and is_private(route.hostport.host) and _left(answer):
        return (f"Its Record-Route names {place(route.hostport)}: outside, that address means nothing, and "
                f"the ACK goes there (see D13).", "the proxy inside", Fixed.YES, packets)
    if is_ours and contact is not None and is_private(contact.host) and _left(answer):
        return (f"Its Contact names {contact}, and the peer sends its ACK there: outside, that address means "
                f"nothing (RFC 3261, section 13.2.2.4).", "the gateway, from inside to outside", Fixed.YES,
                packets)
    if is_ours and contact is not None and is_private(contact.host):
        return (f"Its Contact names {contact}. If nobody behind this point translates it, the peer sends its "
                f"ACK to an inside address.", "between this point and the peer", Fixed.YES, packets)
    where = "between this point and the caller"
    return ("The caller's ACK is lost on the way, or the 200 never reached it.", where, Fixed.PARTLY, packets)


def _left(passage: Passage) -> bool:
    """Tell whether a message was seen outside of the NAT, or at least nothing is behind this point."""
    return passage.at(Side.OUTSIDE) is not None


def _why_lost(answer: Passage, ack: Passage, contact: Endpoint | None, route: Uri | None,
              packets: tuple[PacketId, ...], ctx: Context) -> Reason:
    message, said = ack.message, answer.message
    assert message is not None
    assert said is not None
    uri = request_uri(message)
    if message.to_tag != said.to_tag:
        return (f'The ACK has the To tag "{message.to_tag}", the answer "{said.to_tag}": it belongs to '
                f'another '
                f"dialog, and the callee takes no notice of it.", "the caller, or a fixer on its way",
                Fixed.NO, packets)
    if contact is not None and route is None and _is_out_of_reach(answer, contact):
        return (f"The answer's Contact names {contact}, an address of the peer's own network, and the ACK is "
                "for that.", f"outside, at {answer.first.source.host}", Fixed.NO, packets)
    if uri is not None and contact is not None and place(uri.hostport) != contact \
            and _is_number(contact.host) and _is_number(uri.hostport.host):
        return (f"The ACK is for {place(uri.hostport)}, the answer's Contact is {contact}: somebody put "
                f"another "
                f"address into it, which the callee does not own.", "the caller, or a fixer on its way",
                Fixed.NO, packets)
    target = place(route.hostport) if route is not None else contact
    if target is not None and _is_number(target.host) and ack.first.destination != target \
            and ack.first.destination.host != answer.first.source.host:
        return (f"The ACK went to {ack.first.destination}; the answer asks for it at {target}.",
                "the caller", Fixed.NO, packets)
    if ack.at(Side.INSIDE) is None or ack.at(Side.OUTSIDE) is None:
        if ctx.network.vantage.value in ("both", "any"):
            return ("The ACK was seen on one side of the gateway only: the gateway lost it.", "the gateway",
                    Fixed.PARTLY, packets)
        return ("The ACK passed this point, and is lost behind it.", "behind this point", Fixed.PARTLY,
                packets)
    return ("The ACK passed the gateway, and the callee takes no notice of it.", "the callee", Fixed.NO,
            packets)


def _is_number(host: str) -> bool:
    return is_private(host) or is_public(host)


def _is_out_of_reach(answer: Passage, contact: Endpoint) -> bool:
    return answer.direction is Direction.INWARD and is_private(contact.host) \
        and is_public(answer.first.source.host)


def contact_out_of_reach(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D05, before it happens: the peer's answer names a Contact of its own network, and no route to it."""
    for transaction in conversation.of("INVITE"):
        if transaction.final is not None and not _is_2xx(transaction.final):
            continue
        for passage in transaction.responses:
            message = passage.message
            contact = next((place(uri.hostport) for uri in contact_uris(message)), None)
            if message is None or contact is None or not _is_out_of_reach(passage, contact) \
                    or ctx.network.side_of(contact.host) is Side.INSIDE or not _is_gone_by(message):
                continue
            later = _requests_in_dialog(conversation, passage)
            is_known = any(each.first.destination.host == passage.first.source.host for each in later)
            if is_known or _is_repeated(transaction):
                return      # the UA sends to where the answer came from; or it has been told of above
            yield _out_of_reach(passage, contact, later, conversation)
            return


def _is_gone_by(message: Message) -> bool:
    """Tell whether an answer's receiver is the UAC, and sends what follows to the Contact itself."""
    return _makes_a_route(message) and next(_routes(message, "record-route"), None) is None \
        and len(list(vias(message))) == 1


def _requests_in_dialog(conversation: Conversation, answer: Passage) -> list[Passage]:
    return [each for each in conversation.passages
            if each.message is not None and each.message.is_request and each.message.to_tag
            and each.time >= answer.time and each.first.source.host == answer.last.destination.host]


def _is_repeated(transaction: Transaction) -> bool:
    return sum(1 for each in transaction.responses if each.repeats is not None and _is_2xx(each)) >= OFTEN


def _out_of_reach(passage: Passage, contact: Endpoint, later: list[Passage], conversation: Conversation
                  ) -> Finding:
    copy, packets = passage.first, [each.first.packet for each in later]
    return Finding(
        "D05", Severity.BREAKS if later else Severity.HURTS,
        f"the peer's Contact is {contact}, which cannot be reached", conversation.call_id,
        unique((*passage.packets, *packets)),
        f"Packet {copy.packet} comes from {copy.source}, has Contact {contact}, and no Record-Route."
        + (f" Requests go there ({numbers(packets)})." if later else ""),
        "The peer, or what it sits behind, names an address of its own network in Contact: ACK, PRACK and "
        "BYE are sent there (RFC 3261, section 12.2.1.1) and get lost.",
        f"outside, at {copy.source.host}",
        "Have the peer's operator set its public address for signalling (external_signaling_address, "
        "ext-sip-ip, advertised_address), or let a proxy there insert Record-Route.", Fixed.NO, passage.time)


def ended_for_want_of_ack(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D05 by the word of the UA that gave up: BYE with the reason that no ACK came (RFC 3326)."""
    for transaction in conversation.of("BYE"):
        for passage in transaction.requests[:1]:
            message = passage.message
            reason = "; ".join(header_values(message, "reason")) if message is not None else ""
            if "ack timeout" not in reason.lower():
                continue
            yield Finding(
                "D05", Severity.BREAKS, "the call is ended since no ACK came", conversation.call_id,
                unique(passage.packets),
                f"BYE (packet {passage.first.packet}) from {passage.first.source} to "
                f"{passage.first.destination} has Reason: {reason[:120]}.",
                "The ACK to its 2xx never arrived. The Contact or Record-Route of that answer tells where "
                "the ACK "
                "went: capture the beginning of the call.", "between the callee and the caller",
                products.remedy(conversation, ctx, CURE) + ".", Fixed.PARTLY, passage.time)
            return


# -- D06


def bye_is_not_answered(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D06: BYE is sent again and again, and nothing comes back: one side goes on."""
    for transaction in conversation.of("BYE"):
        first = transaction.requests[0] if transaction.requests else None
        if first is None or first.message is None or transaction.final is not None \
                or goes_astray(conversation, transaction):
            continue
        again = [each for each in transaction.requests if each.repeats is first]
        if len(again) < OFTEN:
            continue
        uri = next(_routes(first.message, "route"), None) or request_uri(first.message)
        target = place(uri.hostport) if uri is not None else first.first.destination
        is_wrong = (is_private(target.host) and is_public(first.first.source.host)) \
            or (is_private(first.first.destination.host) and is_public(first.first.source.host))
        errors = [each for each in conversation.errors if each.destination == first.last.destination]
        yield Finding(
            "D06", Severity.HURTS, "BYE is never answered: one side's call does not end",
            conversation.call_id,
            unique((*(p for each in transaction.requests for p in each.first.packets),
                    *(p for each in errors[:2] for p in each.packets))),
            f"BYE for {target} (packet {first.first.packet}), {first.first.source} -> "
            f"{first.first.destination}, was sent {len(again)} times more "
            f"({numbers(each.first.packet for each in again)}); no final response was seen."
            + (f" {errors[0].sender} answers with ICMP {errors[0].code} (packet {errors[0].packets[0]})."
               if errors else ""),
            "It is for an address that means nothing where it was sent: the Contact, or Record-Route, of the "
            "other side was not translated." if is_wrong else
            "The other side, or the NAT before it, is not there any more at the address that the dialog "
            "knows.",
            f"on the way to {target.host}", products.remedy(conversation, ctx, CURE) + ".",
            Fixed.YES if is_wrong else Fixed.PARTLY, first.time)
        return


# -- D13


def private_route(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D13: a Record-Route, Path or Service-Route has crossed with an address that nobody there can reach."""
    for passage, copy, name in islice(_with_routes(conversation, ctx), MOST_JUDGED):
        uri = _dead_end(copy, name, passage, conversation, ctx)
        if uri is not None:
            after = _requests_back(conversation, passage)
            if name == "record-route" and after and all(_is_answered(each) for each in after):
                return      # the peer has found its way all the same
            yield _private_route(passage, copy, name, uri, after, conversation, ctx)
            return


def _with_routes(conversation: Conversation, ctx: Context) -> Iterator[tuple[Passage, Sighting, str]]:
    """Yield the messages that cross, by the headers in which proxies name themselves."""
    for passage in conversation.passages:
        copy = _crossed(passage, ctx) if passage.repeats is None else None
        if copy is not None and copy.message is not None:
            names = (name for name in ROUTE_HEADERS if copy.message.first(name) is not None)
            yield from ((passage, copy, name) for name in names)


def _crossed(passage: Passage, ctx: Context) -> Sighting | None:
    """Return the copy that its receiver gets from the other side of the NAT, from a public address."""
    is_outward = passage.direction is Direction.OUTWARD
    copy = passage.at(Side.OUTSIDE) if is_outward else passage.first
    if copy is None or copy.message is None or not is_public(copy.source.host):
        return None
    return copy if is_public(copy.destination.host) or not is_outward else None


def _dead_end(copy: Sighting, name: str, passage: Passage, conversation: Conversation, ctx: Context
              ) -> Uri | None:
    """Return the entry of a route by which the receiver's requests are lost, None where they find their way.

    A request's list begins with the proxy nearest to its receiver, a response's ends with it. Who has come
    to a proxy's public leg (RFC 5658) gets on from its private one.
    """
    message = copy.message
    is_outward = passage.direction is Direction.OUTWARD
    if message is None or not (_makes_a_route(message) if name == "record-route" else is_outward):
        return None
    entries = list(_routes(message, name))
    if name == "record-route" and not message.is_request:
        told = _told_by_the_receiver(conversation, passage)
        if told is None:
            return None
        entries = [uri for uri in reversed(entries) if place(uri.hostport) not in told]
    for uri in entries:
        host = uri.hostport.host
        if is_private(host):
            is_ours = ctx.network.side_of(host) is Side.INSIDE
            return uri if is_ours is is_outward else None
        if not is_outward or not is_public(host) or "r2" in uri.params \
                or host in (copy.source.host, ctx.network.outside):
            return None
    return None


def _makes_a_route(message: Message) -> bool:
    """Tell whether a message is one from which a UA takes its route set (RFC 3261, 12.1)."""
    is_answer = not message.is_request and 100 < message.status < 300
    return message.cseq_method in ("INVITE", "SUBSCRIBE", "REFER") \
        and (is_answer or (message.is_request and not message.to_tag))


def _told_by_the_receiver(conversation: Conversation, passage: Passage) -> set[Endpoint] | None:
    """Return the entries that a response only gives back; None where that is not known.

    Its receiver's proxies have put them into the request; a UAC, whose Via is the only one, has none.
    """
    message, receiver = passage.message, passage.last.destination.host
    requests = [each.message for each in conversation.passages if each.message is not None
                and each.message.is_request and each.message.first("record-route") is not None
                and (each.first.source.host == receiver or each.last.source.host == receiver)]
    if not requests and message is not None and len(list(vias(message))) > 1:
        return None
    return {place(uri.hostport) for each in requests for uri in _routes(each, "record-route")}


def _private_route(passage: Passage, copy: Sighting, name: str, uri: Uri, after: list[Transaction],
                   conversation: Conversation, ctx: Context) -> Finding:
    is_outward = passage.direction is Direction.OUTWARD
    header = "-".join(word.capitalize() for word in name.split("-"))
    lost = [each.requests[0].first.packet for each in after if not _is_answered(each)]
    remedy = "Give the proxy its outside address (advertise in Kamailio and OpenSIPS)"
    if is_outward:
        remedy = products.remedy(
            conversation, ctx, f"{remedy}, or let natfix on the gateway translate it")
    return Finding(
        "D13", Severity.HURTS if lost or is_outward else Severity.WARNS,
        f"{header} {'leaves' if is_outward else 'comes'} with {place(uri.hostport)}", conversation.call_id,
        unique((*passage.packets, *lost)),
        f"Packet {copy.packet}, sent from {copy.source} to {copy.destination}, has {header} with "
        f"{place(uri.hostport)}."
        + (f" Later requests of the receiver stay without an answer ({numbers(lost)})." if lost else ""),
        f"The proxy {'inside' if is_outward else 'there'} names its own address, which means nothing "
        f"{'outside' if is_outward else 'here'}. Later requests of the dialog are sent there (RFC 3261, "
        "section 16.12).",
        f"the proxy at {uri.hostport.host}" + ("" if is_outward else f", behind {copy.source.host}"),
        remedy + ".", Fixed.YES if is_outward else Fixed.NO, copy.time)


def _routes(message: Message, name: str) -> Iterator[Uri]:
    return (address.uri for address in addresses(message, name) if address.uri is not None)


def _requests_back(conversation: Conversation, passage: Passage) -> list[Transaction]:
    """Return the later requests of the dialog that go the other way."""
    back = {Direction.OUTWARD: Direction.INWARD, Direction.INWARD: Direction.OUTWARD}.get(passage.direction)
    return [each for each in conversation.transactions
            if each.method not in ("ACK", "CANCEL") and each.requests and each.requests[0].time > passage.time
            and each.requests[0].direction is (back or passage.direction)
            and (back or each.requests[0].first.source.host == passage.last.destination.host)]


def _is_answered(transaction: Transaction) -> bool:
    final = transaction.final
    return final is not None and final.message is not None and final.message.status not in (408, 481)


# -- D26


def refresh_is_not_answered(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D26: a call ends when its session should have been refreshed (RFC 4028): that was not answered."""
    interval = _session_interval(conversation)
    if not interval:
        return
    for transaction in conversation.transactions:
        first = transaction.requests[0] if transaction.requests else None
        if transaction.method not in ("INVITE", "UPDATE") or first is None or first.message is None \
                or not first.message.to_tag or transaction.responses:
            continue
        age = first.time - conversation.passages[0].time
        if len(transaction.requests) <= OFTEN or age < interval / 3 \
                or end_time(conversation, ctx) < first.time:
            continue
        bye = next((each.requests[0] for each in conversation.of("BYE") if each.requests
                    and each.requests[0].time > first.time), None)
        yield Finding(
            "D26", Severity.HURTS, f"the call breaks off after {_minutes(age)}: its refresh is not answered",
            conversation.call_id,
            unique((*(p for each in transaction.requests for p in each.first.packets),
                    *(bye.packets if bye else ()))),
            f"Session-Expires is {interval} s. {transaction.method} in the dialog (packet "
            f"{first.first.packet}), "
            f"{_minutes(age)} after the call began, was sent {len(transaction.requests)} times, and not "
            f"answered."
            + (f" BYE follows (packet {bye.first.packet})." if bye else ""),
            "The NAT or firewall on the way has forgotten the signalling flow, or the Contact leads nowhere.",
            f"on the way to {first.first.destination.host}",
            "Keep the signalling flow open for as long as the call (UDP timeout of 300 s and more, "
            "keep-alives), "
            "or let natfix on the gateway hold it.", Fixed.YES, first.time)
        return


def _session_interval(conversation: Conversation) -> int:
    for passage in conversation.passages:
        message = passage.message
        text = message.text("session-expires") if message is not None and not message.is_request else ""
        digits = text.partition(";")[0].strip()
        if digits.isascii() and digits.isdigit() and len(digits) <= 6:
            return int(digits)
    return 0


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"


CONVERSATION = (ack_never_comes, contact_out_of_reach, ended_for_want_of_ack, bye_is_not_answered,
                private_route, refresh_is_not_answered)
STATION = ()
CAPTURE = ()
