"""Addresses that the peer cannot use, or that contradict each other: D22 (ICE), D33 (families, second "
  "NAT)."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network

from natfix.replay.model import (
    Context,
    Conversation,
    Direction,
    Finding,
    Fixed,
    Passage,
    Severity,
    Sighting,
)
from natfix.replay.network import address_of, is_private, is_public
from natfix.replay.symptoms.reading import (
    contact_uris,
    inside,
    outside,
    parameter,
    sdp_of,
    status_line,
    top_via,
    unique,
)
from natfix.sdp import Media
from natfix.sip.message import Message

# -- D22: ICE

DISCARD = 9             # RFC 8840, section 4.1: the address comes later (trickle ICE)
NO_ADDRESS = ("0.0.0.0", "::")


def ice_mismatch(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D22: c= and m= are not among the candidates, or the answer says so."""
    refused = _says_mismatch(conversation)
    for passage in conversation.passages:
        if passage.repeats is not None:
            continue
        bad = next((copy for copy in passage.sightings
                    if b"a=candidate" in copy.payload and not copy.facts.cut
                    and _default_is_missing(copy.message)), None)
        if bad is not None:
            yield _mismatch(passage, bad, refused, conversation)
            return
    if refused is not None:
        copy = refused.first
        yield Finding(
            "D22", Severity.HURTS, "the answer says ice-mismatch", conversation.call_id, refused.packets[:4],
            f"Packet {copy.packet} from {copy.source} has a=ice-mismatch.",
            "What the peer was sent had c= and m= that are not among the candidates: a fixer behind this "
            "point "
            "changed them.", f"between this capture and {copy.source.host}",
            "Switch that fixer off for UAs that do ICE.", Fixed.NO, refused.time)


def _says_mismatch(conversation: Conversation) -> Passage | None:
    return next((each for each in conversation.passages if (message := each.message) is not None
                 and b"a=ice-mismatch" in message.raw[message.body[0]:]), None)


def _default_is_missing(message: Message | None) -> Media | None:
    """Return the media line whose address and port are none of its candidates (RFC 8839, section 4.2.5)."""
    session = sdp_of(message) if message is not None else None
    for media in session.media if session is not None else ():
        if media.port in (0, DISCARD) or media.effective is None or not media.candidates \
                or media.effective.host in NO_ADDRESS:
            continue
        named = [each for each in media.candidates if each.component == 1]
        if not named or any(address_of(each.address) is None for each in named):
            continue        # names (mDNS) say nothing to us
        default = (address_of(media.effective.host), media.port)
        if default[0] is not None and all((address_of(each.address), each.port) != default for each in named):
            return media
    return None


def _mismatch(passage: Passage, bad: Sighting, refused: Passage | None,
              conversation: Conversation) -> Finding:
    media = _default_is_missing(bad.message)
    assert media is not None
    assert media.effective is not None
    assert bad.message is not None
    named = ", ".join(f"{each.address}:{each.port}" for each in media.candidates[:4] if each.component == 1)
    good = next((copy for copy in passage.sightings
                 if copy.message is not None and not _default_is_missing(copy.message)), None)
    at_gateway = good is not None and good.time <= bad.time
    told = f" The answer has a=ice-mismatch (packet {refused.first.packet})." if refused else ""
    before = f" In packet {good.packet}, before the gateway, they agreed." if at_gateway and good else ""
    return Finding(
        "D22", Severity.HURTS if refused or at_gateway else Severity.WARNS,
        f"{status_line(bad.message)}: c= and m={media.kind} are none of the ICE "
        f"candidates", conversation.call_id,
        unique((*passage.packets, *(refused.packets if refused else ()))),
        f"Packet {bad.packet} has {media.effective.host}:{media.port} in c= and m=, its candidates are "
        f"{named}."
        + before + told,
        "A fixer changed c= and m= and left the candidates as they were; the peer must then do without ICE.",
        "the gateway" if at_gateway else f"at {bad.source.host}, or on the way from it",
        "Switch that fixer off for UAs that do ICE: their own candidates are right.",
        Fixed.NO, passage.time)


# -- D33: address families, 464XLAT, carrier NAT

CLAT = IPv4Network("192.0.0.0/29")           # RFC 7335: the handset's own side of 464XLAT
CLAT_TEXT = b"192.0.0."
CARRIER = IPv4Network("100.64.0.0/10")       # RFC 6598
FAMILY_REFUSED = (488, 606, 415, 420)


def family_does_not_fit(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D33: media is offered in IPv6 to a peer that is spoken to, and answers, in IPv4."""
    for transaction in conversation.of("INVITE"):
        offer = next((each for each in transaction.requests if each.message is not None
                      and _only_ip6(each.first)), None)
        if offer is None:
            continue
        final = transaction.final
        message = final.message if final is not None else None
        answer = sdp_of(message) if message is not None else None
        got_ip4 = answer is not None and any(
            media.port and media.effective is not None and media.effective.family == "IP4"
            for media in answer.media)
        if final is None or message is None or not (message.status in FAMILY_REFUSED or got_ip4):
            continue
        what = "answers with an IPv4 address" if got_ip4 else f"answers {message.status}"
        yield Finding(
            "D33", Severity.BREAKS, f"media in IPv6 for a peer that {what}", conversation.call_id,
            unique((*offer.packets, *final.packets)),
            f"Packet {offer.first.packet} goes over IPv4 to {offer.first.destination} with c=IN IP6 "
            f"{_media_host(offer.first)}; packet {final.first.packet} {what}.",
            "The UA names an address of a family that its peer does not use.",
            f"the UA at {offer.first.source.host}",
            "Let the UA use IPv4 for media of calls that it signals over IPv4 (RFC 6157), or ICE with both.",
            Fixed.NO, offer.time)
        return


def _only_ip6(copy: Sighting) -> bool:
    address = address_of(copy.source.host)
    session = sdp_of(copy.message) if copy.message is not None else None
    if address is None or address.version != 4 or session is None:
        return False
    live = [media for media in session.media if media.port and media.effective is not None]
    return bool(live) and all(
        media.effective is not None and media.effective.family == "IP6"
        and not any(":" not in each.address for each in media.candidates) for media in live)


def _media_host(copy: Sighting) -> str:
    session = sdp_of(copy.message) if copy.message is not None else None
    return next((media.effective.host for media in session.media if media.effective is not None), "") \
        if session is not None else ""


def handset_address(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D33: SDP or Contact names the address that 464XLAT handsets use among themselves."""
    for passage in conversation.passages:
        copy = passage.last
        found = _clat_places(copy.message) if copy.message is not None and passage.repeats is None \
            and CLAT_TEXT in copy.payload else []
        if found and not _is_clat(copy.destination.host):
            assert copy.message is not None
            yield Finding(
                "D33", Severity.HURTS, f"{status_line(copy.message)} names a 464XLAT address",
                conversation.call_id, passage.packets[:4],
                f"Packet {copy.packet}: {', '.join(found)}.",
                "192.0.0.0/29 (RFC 7335) exists inside the handset only: its translator (CLAT) changes "
                "packets, and "
                "not what SIP says.",
                f"the handset behind {copy.source}",
                "Let the server use where the packets come from (rport, symmetric RTP), or the UA use IPv6 "
                "or ICE.",
                Fixed.PARTLY, passage.time)
            return


def _clat_places(message: Message) -> list[str]:
    session = sdp_of(message)
    hosts = [f"c= {media.effective.host}" for media in (session.media if session is not None else ())
             if media.port and media.effective is not None and _is_clat(media.effective.host)]
    hosts += [f"Contact {uri.hostport.host}" for uri in contact_uris(message) if _is_clat(uri.hostport.host)]
    return list(dict.fromkeys(hosts))


def _is_clat(host: str) -> bool:
    """Tell whether *host* is an address of a handset; 192.0.0.0 itself is none, and used as an example."""
    return _in(CLAT, host) and host != str(CLAT.network_address)


def _in(network: IPv4Network, host: str) -> bool:
    address = address_of(host)
    return address is not None and address in network


def second_nat(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D33: the gateway's own outside address is private, and the peer sees another one."""
    for transaction in conversation.transactions:
        for response in transaction.responses:
            message = response.message
            via = top_via(message)
            request = next(iter(transaction.requests), None)
            outer = outside(request) if request is not None else None
            if message is None or via is None or outer is None or request is None \
                    or request.direction is not Direction.OUTWARD:
                continue
            seen = parameter(message, via, "received")
            host = outer.source.host
            if is_private(host) and is_public(seen) and _is_gateway(host, request, ctx):
                yield _behind_another(request, response, outer, seen, conversation)
                return


def _is_gateway(host: str, request: Passage, ctx: Context) -> bool:
    inner = inside(request)
    return host == ctx.network.outside or (inner is not None and inner.source.host != host)


def _behind_another(request: Passage, response: Passage, outer: Sighting, seen: str,
                    conversation: Conversation) -> Finding:
    host = outer.source.host
    kind = "carrier NAT (RFC 6598)" if _in(CARRIER, host) else "a second NAT"
    return Finding(
        "D33", Severity.HURTS, f"the gateway's outside address {host} is behind {kind}", conversation.call_id,
        unique((*request.packets, *response.packets)),
        f"Packet {outer.packet} leaves the gateway from {outer.source}; packet {response.first.packet} says "
        f"received={seen}.",
        f"Between the gateway and the Internet is {kind}: what the gateway writes into SIP as its outside "
        f"address "
        "cannot be reached from there.",
        "in front of the gateway, at the provider or at a router of your own",
        "Ask the provider for a public address, or put the router in front into bridge mode; else the "
        "server must "
        "fix far-end NAT (rport, symmetric RTP).",
        Fixed.PARTLY, request.time)


CONVERSATION = (ice_mismatch, family_does_not_fit, handset_address, second_nat)
