"""Dialogs whose target moves, and calls that are handed over: D30 and D31."""

from __future__ import annotations

import re
from collections.abc import Iterator

from natfix.address import Endpoint
from natfix.replay import products
from natfix.replay.model import (
    Context,
    Conversation,
    Direction,
    Finding,
    Fixed,
    Passage,
    Severity,
    Side,
    Sighting,
    Transaction,
    Vantage,
)
from natfix.replay.network import is_private, is_public
from natfix.replay.symptoms.reading import addresses, contact_uris, numbers, place, request_uri, unique

OFTEN = 3               # retransmissions that are no chance: 0.5 + 1 + 2 s on the T1 schedule
REFRESHES = ("INVITE", "UPDATE", "SUBSCRIBE", "NOTIFY")     # RFC 3261, section 12.2; RFC 6665, section 4.4.1
GONE = (404, 408, 410, 480, 481)
BOTH_SIDES = (Vantage.BOTH, Vantage.ANY)
SIPFRAG = re.compile(rb"\s*+SIP/2\.0[ \t]++([1-6][0-9]{2})")


# -- D30


def new_target_is_not_followed(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D30: one side has moved to another Contact in the dialog, and requests still go to the old one."""
    for refresh, moved in _moves(conversation):
        lost = next((each for each in conversation.transactions
                     if _goes_to_the_old(each, refresh, moved)), None)
        if lost is None:
            continue
        request = lost.requests[0]
        new, old = moved
        yield Finding(
            "D30", Severity.HURTS, f"{lost.method} still goes to {old}: the dialog has moved to {new}",
            conversation.call_id,
            unique((*refresh.packets, *(packet for each in lost.requests for packet in each.packets),
                    *(packet for each in lost.responses[:1] for packet in each.packets))),
            f"Packet {refresh.first.packet} has Contact {new}, before it was {old}. {lost.method} "
            f"({numbers(each.first.packet for each in lost.requests)}) is for {old} all the same, and "
            f"{_fate(lost)}.",
            "A re-INVITE, UPDATE or its answer moves the dialog's target to its Contact (RFC 3261, section "
            "12.2.1.2). The sender, or a box on its way that translates Contacts, has not followed.",
            f"at {request.first.source.host}, or between it and the other side",
            products.remedy(conversation, ctx, "Switch the gateway's SIP ALG off, or let natfix on the "
                            "gateway translate every Contact of the dialog; if the phone itself does not "
                            "follow, update it") + ".",
            Fixed.PARTLY, request.time)
        return


def goes_astray(conversation: Conversation, transaction: Transaction) -> bool:
    """Tell whether D30 is the story of a request without an answer."""
    return any(_goes_to_the_old(transaction, refresh, moved) for refresh, moved in _moves(conversation))


def _moves(conversation: Conversation) -> Iterator[tuple[Passage, tuple[Endpoint, Endpoint]]]:
    """Yield accepted messages of a dialog with which one side takes another Contact: the new and the old.

    As the other side has them: what left this network is looked at where it left.
    """
    last: dict[Direction, Endpoint] = {}
    for passage in conversation.passages:
        message = passage.message
        if message is None or passage.repeats is not None or message.cseq_method not in REFRESHES \
                or not (message.is_request or 200 <= message.status < 300):
            continue
        if message.is_request and not _is_accepted(conversation, passage):
            continue
        contact = _contact(_as_received(passage))
        if contact is None:
            continue
        before = last.get(passage.direction)
        last[passage.direction] = contact
        if before is not None and before != contact:
            yield passage, (contact, before)


def _as_received(passage: Passage) -> Sighting:
    side = Side.OUTSIDE if passage.direction is Direction.OUTWARD else Side.INSIDE
    return passage.at(side) or passage.last


def _contact(copy: Sighting) -> Endpoint | None:
    return next((place(uri.hostport) for uri in contact_uris(copy.message)), None)


def _is_accepted(conversation: Conversation, passage: Passage) -> bool:
    for transaction in conversation.transactions:
        if passage in transaction.requests:
            final = transaction.final
            return final is not None and final.message is not None and final.message.status < 300
    return False


def _goes_to_the_old(transaction: Transaction, refresh: Passage, moved: tuple[Endpoint, Endpoint]) -> bool:
    """Tell whether a later request of the other side is for the old Contact, and lost by that."""
    request = transaction.requests[0] if transaction.requests else None
    if request is None or request.message is None or request.time <= refresh.time \
            or request.direction is refresh.direction or request.message.first("route") is not None \
            or transaction.method in ("ACK", "CANCEL"):
        return False
    uri = request_uri(request.message)
    if uri is None or place(uri.hostport) != moved[1]:
        return False
    final = transaction.final
    if final is not None:
        return final.message is not None and final.message.status in GONE
    return len(transaction.requests) > OFTEN


def _fate(lost: Transaction) -> str:
    final = lost.final
    if final is not None and final.message is not None:
        return f"is answered {final.message.status} (packet {final.first.packet})"
    return f"is never answered, though it was sent {len(lost.requests)} times"


# -- D31


def transfer_to_nowhere(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D31: REFER names a private address to the other side, and the transfer fails (RFC 3515)."""
    for transaction in conversation.of("REFER"):
        request = transaction.requests[0] if transaction.requests else None
        if request is None or request.message is None:
            continue
        copy = _as_received(request)
        target = _refer_to(copy)
        crosses = is_public(copy.destination.host) if request.direction is Direction.OUTWARD \
            else is_public(request.first.source.host)
        failure = _failure(conversation, transaction)
        if target is None or not is_private(target.host) or not crosses or failure is None:
            continue
        is_ours = request.direction is Direction.OUTWARD
        yield Finding(
            "D31", Severity.HURTS, f"a transfer to {target} fails: no such address on the other side",
            conversation.call_id, unique((*request.packets, *failure.packets)),
            f"REFER (packet {copy.packet}) has Refer-To {target}. {_said(failure)} (packet "
            f"{failure.first.packet}).",
            "Refer-To names an address of one network, and the other side, which has to call it, is in "
            "another one.", "the gateway, from inside to outside" if is_ours else "the other side",
            products.remedy(conversation, ctx, "Transfer to the number or name that the provider knows, not "
                            "to an address, or let the PBX inside do the transfer") + ".",
            Fixed.PARTLY if is_ours else Fixed.NO, request.time)
        return


def _refer_to(copy: Sighting) -> Endpoint | None:
    if copy.message is None:
        return None
    return next((place(each.uri.hostport) for each in addresses(copy.message, "refer-to")
                 if each.uri is not None), None)


def _failure(conversation: Conversation, refer: Transaction) -> Passage | None:
    """Return what says that the transfer failed: the answer to REFER, or the NOTIFY about it."""
    final = refer.final
    if final is not None and final.message is not None and final.message.status >= 400 \
            and final.message.status not in (401, 407):
        return final
    for transaction in conversation.of("NOTIFY"):
        for passage in transaction.requests[:1]:
            if passage.time > refer.requests[0].time and _sipfrag(passage) >= 400:
                return passage
    return None


def _sipfrag(passage: Passage) -> int:
    """Return the status in a NOTIFY's message/sipfrag body (RFC 3420), 0 without one."""
    message = passage.message
    found = SIPFRAG.match(message.raw, *message.body) if message is not None else None
    return int(found[1]) if found is not None else 0


def _said(failure: Passage) -> str:
    message = failure.message
    assert message is not None
    return f"NOTIFY says {_sipfrag(failure)}" if message.is_request else f"It is answered {message.status}"


def result_is_lost(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D31: the NOTIFY that tells how the transfer went does not arrive (RFC 3515, section 2.4.4)."""
    refer = next((each for each in conversation.of("REFER") if each.requests), None)
    if refer is None:
        return
    for transaction in conversation.of("NOTIFY"):
        if transaction.responses or len(transaction.requests) <= OFTEN:
            continue
        first = transaction.requests[0]
        inward = [each for each in transaction.requests if each.at(Side.INSIDE) is not None]
        if ctx.network.vantage in BOTH_SIDES and first.direction is Direction.INWARD and inward:
            continue        # it arrived: the phone itself does not answer
        yield Finding(
            "D31", Severity.HURTS, "the NOTIFY about a transfer is lost", conversation.call_id,
            unique((*refer.requests[0].packets, *(p for each in transaction.requests for p in each.packets))),
            f"After REFER (packet {refer.requests[0].first.packet}) NOTIFY, {first.first.source} -> "
            f"{first.first.destination}, was sent {len(transaction.requests)} times "
            f"({numbers(each.first.packet for each in transaction.requests)}) and never answered.",
            "NOTIFY is sent to the Contact of who sent REFER: it was not translated, or the NAT has "
            "forgotten the flow. Who transfers never hears how it went.",
            f"on the way to {first.first.destination.host}",
            products.remedy(conversation, ctx, "Let one box on the path translate Contacts and keep the flow "
                            "open for as long as the dialog, as natfix on the gateway does") + ".",
            Fixed.YES, first.time)
        return


CONVERSATION = (new_target_is_not_followed, transfer_to_nowhere, result_is_lost)
STATION = ()
CAPTURE = ()
