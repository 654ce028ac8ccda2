"""Registrations that do not hold: D07, D08, D09; and D32, subscriptions that nobody hears of again."""

from __future__ import annotations

from collections.abc import Container, Iterator
from itertools import islice, pairwise
from typing import NamedTuple

from natfix.address import SIP_PORT, Endpoint
from natfix.replay.model import (
    Context,
    Conversation,
    Direction,
    Finding,
    Fixed,
    IcmpError,
    Passage,
    Registered,
    Severity,
    Side,
    Sighting,
    Station,
    Transaction,
    Vantage,
)
from natfix.replay.network import is_private, is_public
from natfix.replay.stages import point_of
from natfix.replay.symptoms.reading import contact_uris, numbers, outside, place, unique

OFTEN = 3               # retransmissions that are no chance: 0.5 + 1 + 2 s on the T1 schedule
SHORTEST_TIMEOUT = 30.0     # seconds that NATs keep a UDP mapping at least: Linux without an answer
STILL_THERE = 180.0     # seconds since its last packet for which a UA is taken to be switched on
TIMER_N = 32.0          # seconds within which a subscription's first NOTIFY comes (RFC 6665, 4.1.2.4)
MTU = 1500
MOST_JUDGED = 32        # lost requests of one conversation that need a closer look
SHOWN = 8               # registrations that a finding tells of
BOTH_SIDES = (Vantage.BOTH, Vantage.ANY)
TO_A_MAPPING = ("INVITE", "OPTIONS", "NOTIFY", "MESSAGE")


# -- D07


class _Holder(NamedTuple):
    """A UA, and the registration by which requests should have reached it."""

    station: Station
    row: Registered
    outside: Endpoint


def mapping_forgotten(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D07: the registrar's request comes to where a UA is registered, and the NAT does not know it."""
    if any(conversation.of("SUBSCRIBE")):
        return              # D32 tells of that
    refused = {(each.source, each.destination): each for each in conversation.errors
               if each.code == "port-unreachable"}
    for transaction, lost in islice(_all_lost(conversation, refused, ctx), MOST_JUDGED):
        holder = _holder(lost, ctx)
        if holder is None:
            continue
        error, idle = refused.get((lost.source, lost.destination)), lost.time - _last_word(holder, lost)
        if _is_shown(lost, holder, idle, error, ctx):
            yield _forgotten(lost, transaction, holder, idle, error, conversation, ctx)
            return


def _all_lost(conversation: Conversation, refused: Container[tuple[Endpoint, Endpoint]], ctx: Context
              ) -> Iterator[tuple[Transaction, Sighting]]:
    """Yield the requests that came to the NAT in vain: refused, or sent again too often for chance."""
    for transaction in conversation.transactions:
        lost = _lost(transaction, ctx) if transaction.method in TO_A_MAPPING else None
        if lost is not None and (len(transaction.requests) > OFTEN
                                 or (lost.source, lost.destination) in refused):
            yield transaction, lost


def _lost(transaction: Transaction, ctx: Context) -> Sighting | None:
    """Return a request that came from outside in one datagram, and of which nothing was seen inside."""
    if transaction.responses or not transaction.requests:
        return None
    if any(each.at(Side.INSIDE) or each.direction is not Direction.INWARD for each in transaction.requests):
        return None
    copy = outside(transaction.requests[0])
    is_whole = copy is not None and copy.facts.fragments == 1 and not copy.facts.incomplete
    return copy if copy is not None and is_whole and copy.transport == "udp" \
        and copy.destination.host == ctx.network.outside else None


def _holder(lost: Sighting, ctx: Context) -> _Holder | None:
    """Return who is registered, by the latest REGISTER, at the place that *lost* was sent to."""
    for station in ctx.stations.values():
        row = next((each for each in reversed(station.registrations)
                    if each.time < lost.time and each.status // 100 == 2
                    and each.registrar == lost.source and each.transport == "udp"), None)
        if row is not None and outside_of(row) == lost.destination \
                and row.expires and row.time + row.expires > lost.time:
            return _Holder(station, row, lost.destination)
    return None


def outside_of(row: Registered) -> Endpoint | None:
    """Return from where a REGISTER came as seen outside: in the capture, else by the registrar's word."""
    if row.seen_as is not None:
        return row.seen_as
    return Endpoint(row.received, row.rport) if row.received and row.rport else None


def _last_word(holder: _Holder, lost: Sighting) -> float:
    """Return when the UA was last seen to send something to whom *lost* comes from."""
    times = [each.time for each in holder.station.registrations if each.registrar == lost.source]
    times += [time for peer, (time, _) in holder.station.sent_last.items() if peer == lost.source]
    return max(time for time in times if time < lost.time)


def _is_shown(lost: Sighting, holder: _Holder, idle: float, error: IcmpError | None, ctx: Context) -> bool:
    """Tell whether the NAT is to blame: not a phone that is off, not a capture that ended earlier inside."""
    times = [time for time, _ in holder.station.sent_last.values()]
    times += [row.time for station in ctx.stations.values() for row in station.registrations
              if row.call_id == holder.row.call_id]     # from another port, where the NAT has forgotten it
    is_alive = any(time > lost.time for time in times)
    if ctx.network.vantage not in BOTH_SIDES:
        return is_alive and idle > SHORTEST_TIMEOUT
    is_captured = not lost.packet.file or is_alive or any(
        time > lost.time for station in ctx.stations.values() if station.side is Side.INSIDE
        for time, _ in (*station.sent_last.values(), *station.heard_last.values()))
    return is_captured and (error is not None or is_alive or idle < STILL_THERE)


def _forgotten(lost: Sighting, transaction: Transaction, holder: _Holder, idle: float,
               error: IcmpError | None, conversation: Conversation, ctx: Context) -> Finding:
    row, again = holder.row, [each.first.packet for each in transaction.requests[1:]]
    repeated = f" It was sent again ({numbers(again)}), and nothing answers." if again else ""
    refused = f" {error.sender} answers with ICMP port unreachable (packet {error.packets[0]})." \
        if error is not None else ""
    unseen = ", and is not seen inside" if ctx.network.vantage in BOTH_SIDES else ""
    return Finding(
        "D07", Severity.HURTS,
        f"{transaction.method} for {holder.station.endpoint} comes when the NAT has forgotten "
        f"{holder.outside}", conversation.call_id,
        unique((*row.packets, *(p for each in transaction.requests for p in each.packets),
                *(error.packets if error is not None else ()))),
        f"{row.aor} registered from {holder.outside} for {row.expires} s ({numbers(row.packets)}). "
        f"{transaction.method} from {lost.source} to there (packet {lost.packet}) comes {idle:.1f} s after "
        f"the last packet of the UA that was seen to go to it{unseen}.{refused}{repeated}",
        f"The registration lives for {row.expires} s, the NAT's mapping for less without a packet from "
        f"inside: what comes later has nowhere to go.", "the gateway's NAT",
        "Register, or send keep-alives, more often than the NAT forgets (every 30 s is safe), or raise its "
        "UDP timeout (Linux: `sysctl -w net.netfilter.nf_conntrack_udp_timeout_stream=300`).", Fixed.YES,
        lost.time)


# -- D08


class _Change(NamedTuple):
    """Two REGISTERs of one UA, one after the other, which came from two places."""

    before: Registered
    after: Registered
    is_listed: bool         # the registrar holds both places


def flapping(ctx: Context) -> Iterator[Finding]:
    """D08: the NAT shows one UA at another place again and again, while the old one is still registered."""
    for rows in _refreshes(ctx).values():
        changes = [change for pair in pairwise(rows) if (change := _change(*pair)) is not None]
        if len(changes) > 1 or any(each.is_listed for each in changes):
            yield _flapping(changes)


def _refreshes(ctx: Context) -> dict[tuple[object, ...], list[Registered]]:
    """Return the REGISTERs that succeeded, by UA: one keeps its Call-ID (RFC 3261, 10.2.4)."""
    found: dict[tuple[object, ...], list[Registered]] = {}
    for station in ctx.stations.values():
        is_inside = station.side is Side.INSIDE
        for row in station.registrations:
            place_of = outside_of(row)
            if row.status // 100 == 2 and row.transport == "udp" and row.contacts \
                    and place_of is not None and not _knows(row, place_of):
                ua = station.endpoint if is_inside else None
                found.setdefault((ua, row.call_id, row.aor, row.registrar), []).append(row)
    for rows in found.values():
        rows.sort(key=lambda each: each.time)
    return found


def _knows(row: Registered, seen: Endpoint) -> bool:
    """Tell whether a UA itself names the place where it is seen: it chose its port anew, no NAT did."""
    return any(_names(uri, seen) for uri in row.contacts)


def _names(uri: str, endpoint: Endpoint) -> bool:
    bare = uri.partition(";")[0].partition("?")[0]
    written = bare.partition(":")[2].rpartition("@")[2]
    return written == str(endpoint) or Endpoint(written, SIP_PORT) == endpoint


def _change(before: Registered, after: Registered) -> _Change | None:
    old, new = outside_of(before), outside_of(after)
    is_alive = before.expires and before.time + before.expires > after.time
    if old is None or new is None or old == new or not is_alive or not after.expires:
        return None
    both = all(any(_names(uri, each) for uri in after.echoed) for each in (old, new))
    return _Change(before, after, both)


def _flapping(changes: list[_Change]) -> Finding:
    first = changes[0].before
    rows = list(dict.fromkeys(row for each in changes for row in (each.before, each.after)))[:SHOWN]
    listed = next((each for each in changes if each.is_listed), None)
    seen = "; ".join(f"from {outside_of(row)} (packet {row.packets[0]})" for row in rows)
    told = (f" The 200 (packet {listed.after.packets[-1]}) lists {outside_of(listed.before)} and "
            f"{outside_of(listed.after)} for the one UA.") if listed is not None else ""
    return Finding(
        "D08", Severity.HURTS, f"{first.aor} registers from another outside place again and again", "",
        unique(packet for row in rows for packet in row.packets),
        f"{first.source} registers {first.aor} with one Call-ID, and is seen {seen}, each time before the "
        f"last registration, for {first.expires} s, has run out.{told}",
        "The NAT forgets the UA between two REGISTERs and gives it another port: calls that the registrar "
        "sends to the place it has stored get lost.", "the gateway's NAT",
        "Make the NAT keep its mappings (static port in pf, consistent NAT in SonicWall), register more "
        "often than it forgets them, and let the registrar replace old contacts (Asterisk: "
        "remove_existing=yes).",
        Fixed.YES, changes[0].after.time)


# -- D09


def stuck_with_private_source(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D09: REGISTERs leave the gateway untranslated, again and again, and nothing returns."""
    stuck = [each for transaction in conversation.of("REGISTER") if not transaction.responses
             for each in transaction.requests]
    flows: dict[tuple[Endpoint, Endpoint], list[Passage]] = {}
    for passage in stuck:
        if passage.first.transport == "udp" and _leaves_untranslated(passage, ctx):
            flows.setdefault((passage.first.source, passage.first.destination), []).append(passage)
    for (source, destination), passages in flows.items():
        if len(passages) > OFTEN:
            first = passages[0]
            yield Finding(
                "D09", Severity.BREAKS, f"REGISTER of {source} leaves without NAT, and nothing returns",
                conversation.call_id, unique(packet for each in passages for packet in each.packets),
                f"REGISTER {source} -> {destination} was sent {len(passages)} times "
                f"({numbers(each.first.packet for each in passages)}); behind the NAT, it still has the "
                f"source {first.last.source} ({_seen_at(first.last)}packet {first.last.packet}). No response "
                f"was seen.",
                "The connection was tracked before the NAT's rules were there, as after a restart; the "
                "repetitions keep it alive.", "the gateway's connection tracking", _delete(source), Fixed.YES,
                first.time)


def _leaves_untranslated(passage: Passage, ctx: Context) -> bool:
    first, last = passage.first, passage.last
    is_behind = point_of(last) in ctx.behind or (len(ctx.stages) > 1 and last.stage == ctx.stages[-1])
    return first is not last and first.source == last.source and first.destination == last.destination \
        and is_private(last.source.host) and is_public(last.destination.host) \
        and point_of(first) != point_of(last) and is_behind


def _seen_at(copy: Sighting) -> str:
    name = copy.stage or copy.interface
    return f"at {name}, " if name else ""


def _delete(source: Endpoint) -> str:
    return (f"Delete the tracked connection once: `conntrack -D -p udp --orig-src {source.host} "
            f"--orig-port-src {source.port}` on Linux, \"kill states\" on pfSense and OPNsense.")


def stuck_with_old_address(ctx: Context) -> Iterator[Finding]:
    """D09: one UA's REGISTERs leave with the gateway's old address, unanswered, others' with its new one."""
    at_address, at_registrar = _latest_answered(ctx)
    for station in ctx.stations.values():
        flows: dict[tuple[Endpoint | None, Endpoint | None], list[Registered]] = {}
        for row in station.registrations:
            if not row.status and row.seen_as is not None and row.transport == "udp" \
                    and is_public(row.seen_as.host) and row.seen_as != row.source:
                flows.setdefault((row.seen_as, row.registrar), []).append(row)
        for (seen_as, registrar), rows in flows.items():
            worked = at_address.get(seen_as.host) if seen_as is not None else None
            new = at_registrar.get(registrar)
            stuck = [row for row in rows if worked is not None and row.time > worked.time]
            if new is not None and sum(row.tries for row in stuck) > OFTEN and new.time >= stuck[0].time:
                yield _old_address(station, stuck, new)


Latest = tuple[dict[str, Registered], dict[Endpoint | None, Registered]]


def _latest_answered(ctx: Context) -> Latest:
    """Return the last REGISTER that was answered, by outside address and by registrar."""
    answered = sorted((row for station in ctx.stations.values() for row in station.registrations
                       if row.status and row.seen_as is not None and is_public(row.seen_as.host)),
                      key=lambda row: row.time)
    return ({row.seen_as.host: row for row in answered if row.seen_as is not None},
            {row.registrar: row for row in answered})


def _old_address(station: Station, rows: list[Registered], new: Registered) -> Finding:
    first, tries = rows[0], sum(row.tries for row in rows)
    return Finding(
        "D09", Severity.BREAKS, f"REGISTER of {station.endpoint} leaves with an old outside address", "",
        unique((*(packet for row in rows for packet in row.packets), *new.packets)),
        f"REGISTER of {first.source} to {first.registrar} leaves as {first.seen_as} {tries} times "
        f"({numbers(row.packets[0] for row in rows)}), and no response was seen. {new.source} registers "
        f"at the same registrar as {new.seen_as} ({numbers(new.packets)}), and is answered.",
        "The gateway's outside address has changed, or that link is down, and the connection is still "
        "tracked with the old one; the repetitions keep it alive.", "the gateway's connection tracking",
        _delete(station.endpoint), Fixed.YES, first.time)


# -- D32


def notify_unanswered(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D32: the NOTIFY of a subscription is sent again and again, and does not come to the UA."""
    subscribes = [each for each in conversation.of("SUBSCRIBE") if each.requests]
    if not subscribes:
        return
    first = subscribes[0].requests[0]
    for transaction in conversation.of("NOTIFY"):
        requests = transaction.requests
        if transaction.responses or len(requests) <= OFTEN or requests[0].first.transport != "udp":
            continue
        reason = _why_unheard(first, requests, ctx)
        if reason is None:
            continue
        cause, remedy, fixed = reason
        copy = requests[0].first
        yield Finding(
            "D32", Severity.HURTS, "NOTIFY does not come to who subscribed: lamps stay dark",
            conversation.call_id,
            unique((*first.packets, *(packet for each in requests for packet in each.packets))),
            f"{_subscribed(first)} NOTIFY {copy.source} -> {copy.destination} ({copy.facts.length or '?'} "
            f"octets) was sent {len(requests)} times ({numbers(each.first.packet for each in requests)}), "
            f"and nothing answers.", cause, "the gateway's NAT", remedy, fixed, copy.time)
        return


Reason = tuple[str, str, Fixed]
MAPPING = "Subscribe, register, or send keep-alives, more often than the NAT forgets (every 30 s is safe)."
TRANSLATE = ("Let natfix on the gateway, or the server's far-end NAT support (Asterisk: force_rport and "
             "rewrite_contact), name a Contact that can be reached.")
SMALLER = "Shorten the NOTIFY (fewer resources in one list), or use TCP for this phone."


def _why_unheard(subscribe: Passage, requests: list[Passage], ctx: Context) -> Reason | None:
    """Return cause, remedy and whether natfix cures it; None where nothing shows that the NAT loses it."""
    copy, contact = requests[0].first, _private_contact(subscribe)
    if contact is not None and copy.destination == contact:
        return (f"The SUBSCRIBE left with Contact {contact}, and the NOTIFY is sent there: outside, that "
                f"address means nothing (RFC 6665, section 4.4.1).", TRANSLATE, Fixed.YES)
    if ctx.network.vantage not in BOTH_SIDES or copy.packet.file or subscribe.at(Side.INSIDE) is None \
            or requests[0].direction is not Direction.INWARD or copy.destination.host != ctx.network.outside \
            or copy.side is not Side.OUTSIDE:
        return None
    inside = [each.at(Side.INSIDE) for each in requests]
    if any(each is not None and not each.facts.incomplete for each in inside):
        return None
    if copy.facts.fragments > 1 or copy.facts.length > MTU:
        return ("The NOTIFY is larger than a packet, and its fragments do not pass the gateway together.",
                SMALLER, Fixed.PARTLY)
    if requests[0].time - subscribe.time < STILL_THERE and copy.destination == _left_as(subscribe):
        return ("The NOTIFY came to where the SUBSCRIBE had left from, and was not let in: the NAT has "
                "forgotten it.", MAPPING, Fixed.YES)
    return None


def _private_contact(subscribe: Passage) -> Endpoint | None:
    """Return the private Contact with which a SUBSCRIBE was seen to come from a public address."""
    copy = subscribe.last
    contact = next((place(uri.hostport) for uri in contact_uris(copy.message)), None)
    is_wrong = contact is not None and is_private(contact.host) and is_public(copy.source.host)
    return contact if is_wrong else None


def _left_as(passage: Passage) -> Endpoint | None:
    copy = outside(passage)
    return copy.source if copy is not None else None


def _subscribed(subscribe: Passage) -> str:
    copy = subscribe.last
    contact = next((place(uri.hostport) for uri in contact_uris(copy.message)), None)
    return f"SUBSCRIBE (packet {copy.packet}) came from {copy.source} with Contact {contact}."


def notify_never_comes(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D32: a SUBSCRIBE with an inside Contact is accepted, and the NOTIFY that has to follow never comes."""
    if any(conversation.of("NOTIFY")):
        return
    for transaction in conversation.of("SUBSCRIBE"):
        final = transaction.final
        request = transaction.requests[0] if transaction.requests else None
        if request is None or final is None or final.message is None or final.message.status // 100 != 2 \
                or request.direction is not Direction.OUTWARD or request.first.transport != "udp" \
                or ctx.end - final.time < TIMER_N or _is_over(final) or _notifies(request, ctx):
            continue
        contact = next((place(uri.hostport) for uri in contact_uris(request.last.message)), None)
        if contact is None or not is_private(contact.host) or not is_public(request.last.destination.host):
            continue
        is_left = request.at(Side.OUTSIDE) is not None
        yield Finding(
            "D32", Severity.HURTS, f"no NOTIFY comes: the Contact of the SUBSCRIBE is {contact}",
            conversation.call_id, unique((*request.packets, *final.packets)),
            f"SUBSCRIBE (packet {request.last.packet}) to {request.last.destination} has Contact {contact}; "
            f"{final.message.status} (packet {final.first.packet}) accepts it. No NOTIFY is seen in the "
            f"{ctx.end - final.time:.0f} s that follow.",
            "A NOTIFY has to follow at once (RFC 6665, section 4.1.2.2). It is sent to the Contact: "
            + ("outside, that address means nothing." if is_left else
               "if nobody behind this point translates it, that address means nothing there."),
            "the gateway" if is_left else "between this point and the server", TRANSLATE,
            Fixed.YES if is_left else Fixed.PARTLY, request.time)
        return


def _is_over(final: Passage) -> bool:
    """Tell whether a 2xx ends the subscription, by Expires: 0, or does not say how long it lives."""
    message = final.message
    header = message.first("expires") if message is not None else None
    return message is None or header is None or message.raw[header.start:header.end].strip(b" 0") == b""


def _notifies(request: Passage, ctx: Context) -> bool:
    """Tell whether the server sends NOTIFY elsewhere, as some do for the lamp without being asked."""
    visitor = ctx.visitors.get(request.last.destination.host)
    return visitor is not None and visitor.notifies


CONVERSATION = (mapping_forgotten, stuck_with_private_source, notify_unanswered, notify_never_comes)
STATION = ()
CAPTURE = (flapping, stuck_with_old_address)
