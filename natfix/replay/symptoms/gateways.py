"""What gateways do to calls: D14, D20, D25, D27, D28; with D11 of fixers.py, D12 and D29 of replies.py."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from natfix.address import Endpoint
from natfix.replay import products
from natfix.replay.model import (
    Context,
    Conversation,
    Direction,
    Finding,
    Fixed,
    LogLine,
    MediaKind,
    PacketId,
    Passage,
    Registered,
    Severity,
    Side,
    Sighting,
    Station,
    Transaction,
    Vantage,
)
from natfix.replay.network import address_of, is_public
from natfix.replay.symptoms import fixers, replies
from natfix.replay.symptoms.reading import (
    header_values,
    inside,
    numbers,
    outside,
    request_uri,
    sdp_of,
    status_line,
    text_of,
    unique,
)
from natfix.sip.message import Message

MOST_JUDGED = 32        # messages of one conversation that need a closer look
MOST_ROWS = 20          # registrations of one UA that are looked at
BOTH_SIDES = (Vantage.BOTH, Vantage.ANY)

# -- D14: the same credentials are asked for again and again

CHALLENGES = {401: ("authorization", "WWW-Authenticate"), 407: ("proxy-authorization", "Proxy-Authenticate")}
FEWEST_CHALLENGES = 3
_PARAMETER = re.compile(r'\b(uri|realm|nonce|username|stale)\s*+=\s*+(?:"([^"]*+)"|([^\s,"]++))', re.I)


class _Refused(NamedTuple):
    """A request with credentials that was challenged once more."""

    request: Passage
    response: Passage
    credentials: dict[str, str]
    challenge: dict[str, str]


def challenged_for_ever(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D14: three challenges in a row to requests that had credentials."""
    row: list[_Refused] = []
    for transaction in sorted(conversation.transactions, key=lambda each: each.cseq):
        if transaction.method in ("ACK", "CANCEL") or transaction.final is None:
            continue
        refused = _refused(transaction)
        if refused is None:
            if _ends_the_row(transaction):
                row.clear()
            continue
        if row and row[-1].request.first.source.host != refused.request.first.source.host:
            row.clear()
        row.append(refused)
        if len(row) == FEWEST_CHALLENGES:
            yield _loop(row, conversation, ctx)
            return


def _ends_the_row(transaction: Transaction) -> bool:
    """A final answer that is no challenge ends it; the first challenge, without credentials, is no link."""
    final = transaction.final
    return final is None or final.message is None or final.message.status not in CHALLENGES


def _refused(transaction: Transaction) -> _Refused | None:
    final = transaction.final
    if final is None or final.message is None or not transaction.requests:
        return None
    names = CHALLENGES.get(final.message.status)
    request = transaction.requests[0]
    if names is None or request.message is None:
        return None
    header = request.message.first(names[0])
    if header is None:
        return None
    challenge = _parameters(" ".join(header_values(final.message, names[1])))
    if challenge.get("stale", "").lower() == "true":
        return None
    credentials = _parameters(text_of(request.message, (header.start, header.end)))
    return _Refused(request, final, credentials, challenge)


def _parameters(value: str) -> dict[str, str]:
    return {found[1].lower(): found[2] or found[3] or "" for found in _PARAMETER.finditer(value)}


def _loop(row: list[_Refused], conversation: Conversation, ctx: Context) -> Finding:
    first, last = row[0], row[-1]
    packets = unique(packet for each in row for packet in (*each.request.packets, *each.response.packets))
    altered = list(_alterations(last))
    status = last.response.message.status if last.response.message else 401
    method = last.request.message.cseq_method if last.request.message else ""
    nonces = len({each.challenge.get("nonce") for each in row})
    anew = "with a new nonce each " if nonces == len(row) else ""
    evidence = (
        f"{len(row)} requests with credentials in a row are answered by {status} {anew}"
        f"({numbers(packets)}), without stale=true. "
        + (" ".join(altered) or f"uri=\"{last.credentials.get('uri', '')}\" fits the Request-URI in packet "
           f"{last.request.first.packet}."))
    if altered:
        cause = "The digest was made of a text that somebody changed afterwards: a fixer on the way out."
        remedy = products.remedy(conversation, ctx, "Switch off what rewrites requests on the way out") + "."
    else:
        cause = ("Nothing was changed up to the point of this capture: user, authentication name, realm or "
                 "password are wrong, or a box behind this point changes the request.")
        remedy = ("Check user, authentication name and password first; then capture outside, and compare "
                  "Request-URI and Authorization there.")
    return Finding(
        "D14", Severity.BREAKS, f"{method} is challenged again and again, with credentials",
        conversation.call_id, packets, evidence, cause,
        f"between {first.request.first.source.host} and {first.request.last.destination.host}", remedy,
        Fixed.NO, first.request.time)


def _alterations(refused: _Refused) -> Iterator[str]:
    """Say what shows that the request was changed after its digest was made."""
    for copy in refused.request.sightings:
        message = copy.message
        if message is not None and refused.credentials.get("uri") is not None:
            target = text_of(message, message.request_uri)
            if not _same_target(target, refused.credentials["uri"]):
                yield (f"Authorization has uri=\"{refused.credentials['uri']}\", the Request-URI in packet "
                       f"{copy.packet} is {target}.")
                break
    asked, given = refused.challenge.get("realm"), refused.credentials.get("realm")
    if asked and given and asked != given:
        yield f"The realm asked for is \"{asked}\", the one in the credentials \"{given}\"."


def _same_target(one: str, other: str) -> bool:
    return _bare(one) == _bare(other)


def _bare(target: str) -> str:
    return target.strip().lower().partition(";")[0].removesuffix(":5060")


def refused_for_ever(station: Station, ctx: Context) -> Iterator[Finding]:
    """D14 over several attempts, each with a Call-ID of its own: a UA that begins anew every time."""
    row: list[Registered] = []
    for each in station.registrations:
        if each.has_credentials and each.status in CHALLENGES and not each.is_stale:
            row.append(each)
        elif each.status and each.status not in CHALLENGES:
            if _is_new_loop(row):
                break
            row.clear()
    if _is_new_loop(row):
        yield _refused_station(row, station)


def _is_new_loop(row: list[Registered]) -> bool:
    """Tell whether there are enough, and of several Call-IDs: those of one are told of with their call."""
    calls = [each.call_id for each in row]
    return len(row) >= FEWEST_CHALLENGES and max(map(calls.count, calls)) < FEWEST_CHALLENGES


def _refused_station(row: list[Registered], station: Station) -> Finding:
    packets = unique(packet for each in row for packet in each.packets)
    return Finding(
        "D14", Severity.BREAKS, "REGISTER is challenged again and again, with credentials", "", packets,
        f"{len(row)} attempts of {station.endpoint} to register {row[0].aor} with credentials are answered "
        f"by "
        f"{row[0].status}, without stale=true ({numbers(packets)}); none succeeds.",
        "User, authentication name, realm or password are wrong, or a box behind this point changes the "
        "request so that the digest no longer fits.",
        f"between {station.endpoint.host} and its registrar",
        "Check user, authentication name and password first; then capture outside, and compare Request-URI "
        "and "
        "Authorization there.",
        Fixed.NO, row[0].time)


# -- D20: several phones, one outside place


class _Known(NamedTuple):
    """Where the registrar believes a station to be."""

    station: Station
    outside: Endpoint
    row: Registered


def one_outside_place(ctx: Context) -> Iterator[Finding]:
    """D20: several inside hosts are registered at one and the same outside address and port."""
    holders: dict[Endpoint, _Known] = {}
    told: set[Endpoint] = set()
    for known in sorted(_known_places(ctx), key=lambda each: each.row.time):
        other = holders.setdefault(known.outside, known)
        if other.station.endpoint.host != known.station.endpoint.host and known.outside not in told \
                and _both_alive(other, known):
            told.add(known.outside)
            yield _collapsed(other, known, ctx)


def _known_places(ctx: Context) -> Iterator[_Known]:
    for station in ctx.stations.values():
        for row in station.registrations[-MOST_ROWS:]:
            found = _outside_place(row, ctx.network.outside)
            if found is not None:
                yield _Known(station, found, row)


def _outside_place(row: Registered, gateway: str) -> Endpoint | None:
    """Return the outside place that a registrar lists for the UA, or that the UA itself wrote."""
    if not 200 <= row.status < 300 or row.expires == 0 or len(row.contacts) != 1:
        return None
    user = _user(row.contacts[0])
    listed = [uri for uri in row.echoed if _user(uri) == user] or list(row.contacts)
    places = {found for uri in listed if (found := _place(uri)) is not None}
    return next((found for found in places if len(places) == 1 and is_public(found.host)
                 and found.host in (gateway, row.received)), None)


_URI = re.compile(r"sips?:(?:([^@]*+)@)?([^:;?>\s]++)(?::([0-9]{1,5}+))?", re.I)


def _user(uri: str) -> str:
    found = _URI.match(uri)
    return (found[1] or "") if found else ""


def _place(uri: str) -> Endpoint | None:
    found = _URI.match(uri)
    return Endpoint(found[2].lower(), int(found[3] or 5060)) if found else None


def _both_alive(one: _Known, other: _Known) -> bool:
    """Tell whether the earlier station was heard of again after the later one had registered."""
    latest = max((time for time, _ in one.station.sent_last.values()), default=0.0)
    return latest > other.row.time


def _collapsed(one: _Known, other: _Known, ctx: Context) -> Finding:
    packets = unique((*one.row.packets, *other.row.packets))
    real = [f"{each.station.endpoint} leaves from {each.row.seen_as or each.row.rport}"
            for each in (one, other) if each.row.seen_as or each.row.rport]
    return Finding(
        "D20", Severity.BREAKS,
        f"{one.station.endpoint} and {other.station.endpoint} are both registered at "
        f"{one.outside}", "", packets,
        f"The registrar lists {one.outside} for {one.row.aor} of {one.station.endpoint} (packet "
        f"{one.row.packets[-1]}) and for {other.row.aor} of {other.station.endpoint} (packet "
        f"{other.row.packets[-1]}). {'; '.join(real)}{'.' if real else ''}".strip(),
        "Somebody writes the same outside port for every phone: calls for both go to one of them.",
        "the gateway, or what fixes SIP there",
        products.remedy(None, ctx, "Switch the gateway's SIP ALG off; give each phone a port of its "
                                   "own") + ".",
        Fixed.YES, other.row.time)


def delivered_to_another(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D20: a call for one registered phone is delivered to another one."""
    for passage in conversation.passages:
        message = passage.message
        if passage.direction is not Direction.INWARD or message is None or passage.repeats is not None \
                or not message.is_request or message.method != "INVITE" or message.to_tag:
            continue
        copy = inside(passage)
        target = request_uri(message)
        if copy is None or target is None or not target.user or not _is_registered(ctx, copy.destination):
            continue
        got = _users_of(ctx, copy.destination.host)
        owner = next((station for station in ctx.stations.values()
                      if station.endpoint.host != copy.destination.host
                      and target.user in _users_of(ctx, station.endpoint.host)), None)
        if got and owner is not None and target.user not in got:
            yield _misdelivered(passage, copy, target.user, owner, conversation)
            return


def _is_registered(ctx: Context, endpoint: Endpoint) -> bool:
    station = ctx.stations.get(endpoint)
    return station is not None and bool(station.registrations)


def _users_of(ctx: Context, host: str) -> set[str]:
    return {_user(uri) for endpoint, station in ctx.stations.items() if endpoint.host == host
            for row in station.registrations[-MOST_ROWS:] if 200 <= row.status < 300
            for uri in row.contacts} - {""}


def _misdelivered(passage: Passage, copy: Sighting, user: str, owner: Station,
                  conversation: Conversation) -> Finding:
    row = owner.registrations[-1]
    return Finding(
        "D20", Severity.BREAKS, f"a call for {user} at {owner.endpoint} is delivered to {copy.destination}",
        conversation.call_id, unique((*row.packets, *passage.packets)),
        f"{owner.endpoint} registered {user} (packet {row.packets[0]}); packet {copy.packet} is the INVITE "
        f"for "
        f"{user}, and goes to {copy.destination}.",
        "The outside port of one phone leads to another one: a static port forward, or one outside port for "
        "all.",
        "the gateway", "Remove static forwards of the SIP port, and give each phone a port of its own.",
        Fixed.YES, passage.time)


# -- D25: both ends inside, and media by way of the outside address

FEWEST_PACKETS = 25     # of RTP: half a second of speech


def hairpin_without_return(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D25: RTP goes from inside to the gateway's outside address, and nothing comes back from there."""
    gateway = ctx.network.outside
    sent = [each for each in conversation.streams if each.kind is MediaKind.RTP and each.side is Side.INSIDE
            and gateway and each.destination.host == gateway and each.packets >= FEWEST_PACKETS]
    for stream in sent:
        back = any(each.source == stream.destination and each.destination.host == stream.source.host
                   for each in (*conversation.streams, *ctx.streams))
        told = _told(conversation, stream.destination, stream.source.host)
        if back or told is None:
            continue
        yield Finding(
            "D25", Severity.BREAKS, f"{stream.source} sends its audio to {stream.destination}, the outside "
                                    f"address",
            conversation.call_id, unique((*told.packets, stream.first_packet, stream.last_packet)),
            f"Packet {told.packet} told {stream.source.host} to send to {stream.destination}; "
            f"{stream.packets} RTP "
            f"packets went there from inside ({numbers((stream.first_packet, stream.last_packet))}), none "
            f"came "
            "back.",
            "Both ends of the call are inside, and each was told the gateway's outside address; the gateway "
            "does "
            "not turn packets round (hairpinning, RFC 4787, REQ-9).",
            "the gateway", "Let the phones get each other's inside address, or switch hairpin NAT (NAT "
                           "loopback) "
            "for the media ports on.", Fixed.YES, stream.start)
        return


def _told(conversation: Conversation, media: Endpoint, host: str) -> Sighting | None:
    """Return the message by which an inside host was told to send media there."""
    for passage in conversation.passages:
        copy = passage.last
        session = sdp_of(copy.message) if copy.message is not None else None
        # Where the gateway itself says so, a PBX runs on it, and nothing has to be turned round.
        if session is None or copy.destination.host != host or copy.source.host == media.host:
            continue
        if any(line.port == media.port and line.effective is not None and line.effective.host == media.host
               for line in session.media):
            return copy
    return None


# -- D27 and D28: the kernel's own helper

EXHAUSTED = ("all ports in use for SDP media", "cannot add expectation for voice", "all ports in use for SIP")
HELPER = ("nf_ct_sip", "nf_nat_sip")


def helper_exhausted(ctx: Context) -> Iterator[Finding]:
    """D27: the kernel's log says that its SIP helper has no more expectations or ports."""
    lines = [line for line in ctx.log if any(text in line.text for text in EXHAUSTED)
             and any(text in line.text for text in HELPER)]
    if not lines:
        return
    linux = products.alg("linux")
    yield Finding(
        "D27", Severity.HURTS, "the kernel's SIP helper has run out", "",
        unique(line.packet for line in lines),
        f"The kernel's log says {products.shorten(lines[0].text, 160)} (line {lines[0].packet}); "
        f"{_times(lines)}.",
        "nf_conntrack_sip holds at most four audio streams for one signalling connection, and forgets all of "
        "them with every INVITE and BYE on it: a trunk has one connection for all its calls.",
        "the Linux gateway", f"Linux: {linux.switch_off}.", Fixed.YES, lines[0].time)


def _times(lines: list[LogLine]) -> str:
    return "once" if len(lines) == 1 else f"{len(lines)} times"


def dropped_by_helper(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D28: a message never leaves the gateway, others do, and it is one that nf_conntrack_sip drops."""
    if ctx.network.vantage not in BOTH_SIDES:
        return
    for passage, copy, reason in islice(_vanished(conversation), MOST_JUDGED):
        again = [each for each in conversation.passages if each.repeats is passage]
        crossed = _crossed(conversation, copy, ctx)
        if crossed is not None and not any(outside(each) for each in again):
            yield _dropped(passage, copy, reason, again, crossed, conversation)
            return


def _vanished(conversation: Conversation) -> Iterator[tuple[Passage, Sighting, str]]:
    """Yield the messages that were seen inside only, and that the helper would drop, with the reason."""
    for passage in conversation.passages:
        copy = inside(passage)
        if copy is None or copy.message is None or outside(passage) is not None or copy.facts.fragments > 1 \
                or passage.direction is not Direction.OUTWARD or copy.transport != "udp" \
                or passage.repeats is not None:
            continue
        reason = _drop_case(copy.message)
        if reason:
            yield passage, copy, reason


HELPED = ("audio", "video", "image")    # the helper passes over all others


def _drop_case(message: Message) -> str:
    """Return why nf_conntrack_sip drops a message that it should translate, "" where it does not."""
    session = sdp_of(message)
    if session is None or message.cseq_method not in ("INVITE", "UPDATE", "ACK", "PRACK"):
        return ""
    live = [media for media in session.media if media.port and media.kind in HELPED]
    if not live:
        return ""
    if message.first("content-length") is None:
        return "it has SDP and no Content-Length"
    origin = session.origin
    if origin is not None and address_of(origin.host) is None:
        return f"its o= names {products.shorten(origin.host, 60)}, which is no address"
    for media in live:
        if media.effective is not None:
            if media.effective.family == "IP6":
                return "its c= is IN IP6 in a message over IPv4"
            if address_of(media.effective.host) is None:
                return f"its c= names {products.shorten(media.effective.host, 60)}, which is no address"
        if media.port < 1024:
            return f"its m={media.kind} names port {media.port}, below 1024"
    return ""


class _Crossed(NamedTuple):
    """That the path is open, and the capture covers both sides."""

    packets: tuple[PacketId, ...]
    text: str


def _crossed(conversation: Conversation, copy: Sighting, ctx: Context) -> _Crossed | None:
    """Return what else of the same UA did cross."""
    other = next((each for each in conversation.passages
                  if (inner := inside(each)) is not None and outside(each) is not None
                  and inner.source == copy.source and inner.destination == copy.destination), None)
    if other is not None:
        return _Crossed(other.packets[:2], f"Packet {other.first.packet} of the same UA did cross (as packet "
                        f"{other.last.packet}).")
    station = ctx.stations.get(copy.source)
    heard = station.heard_last.get(copy.destination) if station is not None else None
    if heard is None:
        return None
    return _Crossed((heard[1],), f"The same UA does hear from {copy.destination} (packet {heard[1]}).")


def _dropped(passage: Passage, copy: Sighting, reason: str, again: list[Passage], crossed: _Crossed,
             conversation: Conversation) -> Finding:
    linux = products.alg("linux")
    repeated = f", nor do {len(again)} repetitions" if again else ""
    message = copy.message
    assert message is not None
    return Finding(
        "D28", Severity.BREAKS, f"{status_line(message)} never leaves the gateway: the kernel's SIP helper "
                                f"drops it",
        conversation.call_id,
        unique((*(packet for each in (passage, *again) for packet in each.packets), *crossed.packets)),
        f"Packet {copy.packet} comes in from {copy.source} and never goes out{repeated}; {reason}. "
        f"{crossed.text}",
        "nf_conntrack_sip drops what it cannot translate, and this is one of those cases; nothing but helper "
        "logging would say so.",
        "the Linux gateway", f"Linux: {linux.switch_off}.", Fixed.YES, passage.time)


CONVERSATION = (
    *replies.CONVERSATION, *fixers.CONVERSATION, challenged_for_ever, delivered_to_another,
    hairpin_without_return, dropped_by_helper)
STATION = (refused_for_ever,)
CAPTURE = (*replies.CAPTURE, one_outside_place, helper_exhausted)
