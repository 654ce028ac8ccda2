"""Two fixers on one path: D11, from what a UA gets back, from mixtures in one message, and from marks.

A response carries the request's Via back as it was (RFC 3261, section 18.2.1 and 8.2.6.2), and a registrar
lists the Contact that it was given. So a UA's own capture shows what somebody changed on the way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

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
    Sighting,
    Transaction,
)
from natfix.replay.network import address_of, is_private, is_public
from natfix.replay.symptoms.reading import (
    contact_uris,
    inside,
    outside,
    parameter,
    place,
    sdp_of,
    status_line,
    text_of,
    top_via,
    unique,
)
from natfix.sip.fields import Uri
from natfix.sip.message import Message

SWITCH_OFF = "Capture on both sides of the gateway to see which box it is, and switch its SIP ALG off"


class _Answered(NamedTuple):
    request: Sighting       # nearest to the UA that sent it
    response: Sighting      # nearest to the same UA
    passages: tuple[Passage, Passage]


def _answered(transaction: Transaction) -> Iterator[_Answered]:
    """Yield a transaction's requests with each different response, both as their UA saw them."""
    request = next((each for each in transaction.requests if each.message is not None
                    and each.message.cseq_method == transaction.method), None)
    for response in transaction.responses:
        if request is not None and response.repeats is None and response.message is not None \
                and response.last.message is not None and request.first.side == response.last.side \
                and request.first.source.host == response.last.destination.host:
            yield _Answered(request.first, response.last, (request, response))


# -- (a) the topmost Via of a response


def via_not_given_back(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D11: the topmost Via of a response names another place than the UA wrote."""
    for transaction in conversation.transactions:
        for pair in _answered(transaction):
            sent, got = top_via(pair.request.message), top_via(pair.response.message)
            if sent is None or got is None or place(sent.sent_by) == place(got.sent_by):
                continue
            if _is_number(sent.sent_by.host) != _is_number(got.sent_by.host):
                continue        # a name and its address are the same place to whom resolves it
            yield _via_finding(pair, place(sent.sent_by), place(got.sent_by), conversation, ctx)
            return


def _is_number(host: str) -> bool:
    return address_of(host) is not None


def _via_finding(pair: _Answered, sent: Endpoint, got: Endpoint, conversation: Conversation,
                 ctx: Context) -> Finding:
    message = pair.response.message
    assert message is not None
    changed = [copy for copy in pair.passages[0].sightings
               if (via := top_via(copy.message)) is not None and place(via.sent_by) != sent]
    seen = (f" The request already had {_via_text(changed[0])} in packet {changed[0].packet}."
            if changed else "")
    return Finding(
        "D11", Severity.BREAKS,
        f"the topmost Via of {status_line(message)} says {got}, the UA wrote {sent}",
        conversation.call_id,
        unique((*pair.request.packets, *(changed[0].packets if changed else ()), *pair.response.packets)),
        f"Packet {pair.request.packet} has Via {sent}, packet {pair.response.packet}, the answer with the "
        f"same "
        f"branch, has Via {got}.{seen}",
        "A box on the path rewrote the Via of the request and did not put it back in the response. A UA has "
        "to "
        "discard such a response (RFC 3261, section 18.1.2); some do, some do not.",
        f"between {pair.request.source.host} and {pair.request.destination.host}",
        products.remedy(conversation, ctx, SWITCH_OFF) + ".", Fixed.NO, pair.request.time)


def _via_text(copy: Sighting) -> str:
    via = top_via(copy.message)
    return f"Via {place(via.sent_by)}" if via is not None else "another Via"


# -- (b) the Contact that a registrar lists


def contact_not_given_back(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D11: the registrar lists another Contact than the public one that the UA sent."""
    for transaction in conversation.of("REGISTER"):
        for pair in _answered(transaction):
            request, response = pair.request.message, pair.response.message
            assert request is not None
            assert response is not None
            if not 200 <= response.status < 300:
                continue
            echoed = contact_uris(response)
            for sent in contact_uris(request):
                other = _other_echo(request, sent, response, echoed)
                if other is not None:
                    yield _contact_finding(pair, place(sent.hostport), other, conversation, ctx)
                    return


def _other_echo(request: Message, sent: Uri, response: Message, echoed: Sequence[Uri]) -> Uri | None:
    """Return what became of a public Contact; None where it came back, is private, or was removed."""
    if not is_public(sent.hostport.host) or any(place(each.hostport) == place(sent.hostport)
                                               for each in echoed):
        return None
    same = [each for each in echoed if each.user == sent.user and _is_number(each.hostport.host)
            and _marks(response, each) == _marks(request, sent)]
    return same[0] if len(same) == 1 else None


def _marks(message: Message, uri: Uri) -> dict[str, str]:
    """Return a URI's parameters, by which a UA knows its own Contact again."""
    return {name: text_of(message, span) for name, span in uri.params.items() if name != "received"}


def _contact_finding(pair: _Answered, sent: Endpoint, other: Uri, conversation: Conversation,
                     ctx: Context) -> Finding:
    echoed = place(other.hostport)
    message, via = pair.response.message, top_via(pair.response.message)
    assert message is not None
    seen = ":".join(filter(None, (parameter(message, via, "received"), parameter(message, via, "rport")))) \
        if via is not None else ""
    by_server = str(echoed) == seen
    cause = (
        f"The UA writes a public address (STUN, or a setting), and the registrar replaces it by where the "
        f"packet came from ({seen}): two fixers, of which the registrar's wins." if by_server else
        "The UA wrote a public address, which needed no fixing, and somebody on the path changed it once "
        "more.")
    said = f" Via says that the request came from {seen}." if seen else ""
    return Finding(
        "D11", Severity.WARNS if by_server else Severity.HURTS,
        f"the registrar lists Contact {echoed}, the UA sent {sent}",
        conversation.call_id, unique((*pair.request.packets, *pair.response.packets)),
        f"Packet {pair.request.packet} registers Contact {sent}, packet {pair.response.packet} lists "
        f"{echoed}."
        + said, cause, f"between {pair.request.source.host} and {pair.request.destination.host}",
        "Switch STUN, or the fixed public address, of the UA off; the other fixer is enough." if by_server
        else products.remedy(conversation, ctx, SWITCH_OFF) + ".",
        Fixed.NO, pair.request.time)


# -- (c) public and private in one message


def mixed_addresses(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D11: a message that goes out names the gateway's address in one place and a private one in another."""
    for passage in conversation.passages:
        if passage.repeats is not None or not _goes_out(passage, ctx):
            continue
        copy = passage.last
        mixture = _mixture(copy, ctx.network.outside)
        if mixture:
            yield _mixed_finding(passage, copy, mixture, conversation, ctx)
            return


def _goes_out(passage: Passage, ctx: Context) -> bool:
    known = ctx.network.outside
    return bool(known) and (passage.direction is Direction.OUTWARD or passage.last.source.host == known) \
        and is_public(passage.last.destination.host)


def _mixture(copy: Sighting, gateway: str) -> str:
    """Return the contradiction in words, "" where there is none."""
    message = copy.message
    session = sdp_of(message) if message is not None else None
    if message is None or session is None:
        return ""
    live = [media for media in session.media if media.port and media.effective is not None]
    if not live or any(media.candidates for media in live):
        return ""
    shown = {media.effective.host for media in live if media.effective is not None}
    contacts = {uri.hostport.host for uri in contact_uris(message)}
    private = sorted(host for host in shown if is_private(host))
    if private and gateway in contacts:
        return f"Contact names {gateway}, and c= {', '.join(private)}"
    if private and session.origin is not None and session.origin.host == gateway:
        return f"o= names {gateway}, and c= {', '.join(private)}"
    hidden = sorted(host for host in contacts if is_private(host))
    if gateway in shown and hidden:
        return f"c= names {gateway}, and Contact {', '.join(hidden)}"
    return ""


def _mixed_finding(passage: Passage, copy: Sighting, mixture: str, conversation: Conversation,
                   ctx: Context) -> Finding:
    message = copy.message
    assert message is not None
    inner = inside(passage)
    if inner is not None and _mixture(inner, ctx.network.outside):
        cause = (f"The UA at {passage.first.source.host} writes the outside address into a part of its "
                 f"message "
                 "only: STUN or an external address that covers SIP and not the media, or the other way "
                 "round.")
        where, fixed = f"the UA at {passage.first.source.host}", Fixed.YES
        remedy = ("Give the UA the external address for signalling and media (Asterisk: "
                  "external_signaling_address and external_media_address, with local_net), or none at all.")
    else:
        cause = "A fixer on the path knows one part of the message only, or two of them share the work."
        where, fixed = f"at or before {copy.source.host}", Fixed.NO
        remedy = products.remedy(conversation, ctx, SWITCH_OFF) + "."
    return Finding(
        "D11", Severity.WARNS, f"{status_line(message)} mixes public and private addresses",
        conversation.call_id, passage.packets[:8], f"Packet {copy.packet}: {mixture}.", cause, where, remedy,
        fixed, passage.time)


# -- (d) an address that a box wrote, and that is not where the packet left from


def wrong_place_written(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D11: a box wrote an outside port into Contact that is not the one the packet left from."""
    for passage in conversation.passages:
        inner, outer = inside(passage), outside(passage)
        if passage.repeats is not None or passage.direction is not Direction.OUTWARD \
                or inner is None or outer is None or outer.transport != "udp":
            continue
        written = _written_contact(inner, outer)
        if written is None:
            continue
        lost = _lost_requests(conversation, written)
        yield _written_finding(passage, inner, outer, written, lost, conversation, ctx)
        return


def _written_contact(inner: Sighting, outer: Sighting) -> Endpoint | None:
    """Return the Contact that was changed to the right host and a wrong port."""
    for was, became in zip(contact_uris(inner.message), contact_uris(outer.message), strict=False):
        old, new = place(was.hostport), place(became.hostport)
        if old == inner.source and new != old and new.host == outer.source.host and new != outer.source:
            return new
    return None


def _lost_requests(conversation: Conversation, written: Endpoint) -> list[Passage]:
    return [each for each in conversation.passages
            if each.first.destination == written and inside(each) is None and each.message is not None
            and each.message.is_request]


def _written_finding(passage: Passage, inner: Sighting, outer: Sighting, written: Endpoint,
                     lost: list[Passage], conversation: Conversation, ctx: Context) -> Finding:
    seen = [place(uri.hostport) for copy in passage.sightings for uri in contact_uris(copy.message)[:1]]
    way = " -> ".join(map(str, dict.fromkeys(seen)))
    said = f" A request to {written} never comes inside (packet {lost[0].first.packet})." if lost else ""
    return Finding(
        "D11", Severity.BREAKS if lost else Severity.HURTS,
        f"Contact says {written}, the packet left from port {outer.source.port}", conversation.call_id,
        unique((*passage.packets, *(packet for each in lost for packet in each.packets))),
        f"Contact goes {way}; packet {inner.packet} comes from {inner.source}, packet {outer.packet} leaves "
        f"from "
        f"{outer.source}.{said}",
        "The part of the gateway that rewrites SIP and the part that translates packets do not agree on the "
        "port: two fixers, or an ALG beside the NAT.",
        "the gateway", products.remedy(conversation, ctx, "Switch the gateway's SIP ALG off") + ".",
        Fixed.NO, passage.time)


# -- (e) one description, shown in two ways


def shown_in_two_ways(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D11: the same description, to the octet, leaves with different places: its version says "unchanged"."""
    shown: dict[bytes, tuple[Passage, Sighting, tuple[str, ...]]] = {}
    for passage in conversation.passages:
        inner, outer = inside(passage), outside(passage)
        if inner is None or outer is None or inner.message is None or outer.message is None \
                or passage.direction is not Direction.OUTWARD:
            continue
        start, end = inner.message.body
        places = _media_places(outer.message)
        first = shown.setdefault(inner.message.raw[start:end], (passage, outer, places)) if places else None
        if first is not None and first[2] != places:
            yield _shown_finding(first, passage, outer, places, conversation, ctx)
            return


def _media_places(message: Message) -> tuple[str, ...]:
    session = sdp_of(message)
    return tuple(f"{media.effective.host}:{media.port}" for media in (session.media if session else ())
                 if media.effective is not None)


def _shown_finding(first: tuple[Passage, Sighting, tuple[str, ...]], passage: Passage, outer: Sighting,
                   places: tuple[str, ...], conversation: Conversation, ctx: Context) -> Finding:
    earlier, copy, before = first
    session = sdp_of(outer.message) if outer.message is not None else None
    version = session.origin_version if session is not None else ""
    return Finding(
        "D11", Severity.HURTS, f"the same SDP leaves as {before[0]}, and later as {places[0]}",
        conversation.call_id, unique((*earlier.packets, *passage.packets)),
        f"The SDP of packet {earlier.first.packet} and packet {passage.first.packet} is the same, octet "
        "by octet; "
        f"outside packet {copy.packet} names {', '.join(before)} and packet {outer.packet} "
        f"{', '.join(places)}, both with version {version} in o=.",
        "A fixer takes another port for the same stream. A peer that sees the version unchanged need not "
        "look at the rest (RFC 3264, section 8), and goes on sending to the old port.",
        "the gateway", products.remedy(conversation, ctx, "Switch the gateway's SIP ALG off") + ".",
        Fixed.NO, passage.time)


# -- (f) marks that a fixer leaves


def marks_of_gateways(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D11, for information: a gateway's SIP ALG left its mark in a message."""
    for passage in conversation.passages:
        message = passage.last.message
        if message is None or passage.repeats is not None or message.body[0] == message.body[1]:
            continue
        found = next((each for each in products.by_mark([passage.last]) if each.alg.kind == "gateway"), None)
        if found is None:
            continue
        ours = passage.direction is Direction.OUTWARD or passage.last.source.host == ctx.network.outside
        yield Finding(
            "D11", Severity.INFORMS, f"a SIP ALG is at work: {found.alg.product}", conversation.call_id,
            found.packets, f"{found.why}.".replace("packet", "Packet", 1),
            f"{found.alg.product} writes this into messages that it has rewritten. A second fixer beside it "
            "would break them.",
            "on this side of the path" if ours else f"on the side of {passage.first.source.host}",
            f"{found.alg.switch_off}." if ours else "Nothing to be done here; their gateway needs it.",
            Fixed.NO, passage.time)
        return


CONVERSATION = (
    via_not_given_back, contact_not_given_back, mixed_addresses, wrong_place_written, shown_in_two_ways,
    marks_of_gateways)
STATION = ()
CAPTURE = ()
