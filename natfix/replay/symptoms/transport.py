"""What goes wrong below and beside SIP: D15, D16, D23, D24; with D22 and D33 of families.py."""

from __future__ import annotations

import re
from collections.abc import Iterator

from natfix.replay import products
from natfix.replay.model import (
    Context,
    Conversation,
    Direction,
    Finding,
    Fixed,
    IcmpError,
    PacketId,
    Passage,
    Severity,
    Side,
    Sighting,
    TcpReset,
    Vantage,
)
from natfix.replay.network import side_of_copy
from natfix.replay.symptoms import families
from natfix.replay.symptoms.reading import (
    contact_uris,
    inside,
    numbers,
    outside,
    sdp_of,
    status_line,
    unique,
)

# -- D15: lengths and checksums

_CONTENT_LENGTH = re.compile(rb"(?im)^(?:content-length|l)[ \t]*+:[ \t]*+([0-9]{1,20}+)[ \t]*+\r?$")
FILLING = b"\r\n \t\0"          # behind a body it means nothing, and is common
WRONG_LENGTH = "Content-Length is"


LARGEST_DATAGRAM = 65_535       # octets
MOST_JUDGED = 32        # of one conversation: damaged datagrams that are looked at


def body_is_shorter(ctx: Context) -> Iterator[Finding]:
    """D15: messages that promise more octets than their datagram has."""
    told: set[str] = set()
    for copy in ctx.unreadable:
        if WRONG_LENGTH not in copy.problem or copy.transport != "udp" or _is_incomplete(copy) \
                or copy.source.host in told:
            continue
        lengths = _lengths(copy.payload)
        # Who pastes text leaves lines out; but no datagram holds so much.
        if lengths is not None and lengths[0] > (lengths[1] if copy.ip else LARGEST_DATAGRAM):
            told.add(copy.source.host)
            yield _wrong_length(copy, *lengths, "", ctx)


def body_is_longer(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D15: messages whose body goes on behind what Content-Length counts: the rest is never read."""
    for passage in conversation.passages:
        for copy in passage.sightings:
            message = copy.message
            if message is None or copy.transport != "udp" or _is_incomplete(copy) or not copy.ip \
                    or passage.repeats is not None:
                continue
            rest = message.raw[message.body[1]:].strip(FILLING)
            if rest and message.first("content-length") is not None:
                counted = message.body[1] - message.body[0]
                yield _wrong_length(copy, counted, counted + len(message.raw) - message.body[1],
                                    conversation.call_id, ctx, passage)
                return


def _is_incomplete(copy: Sighting) -> bool:
    return copy.facts.cut or copy.facts.incomplete


def _lengths(payload: bytes) -> tuple[int, int] | None:
    """Return what Content-Length says and what the body has, where that can be read at all."""
    head, blank, body = payload.partition(b"\r\n\r\n")
    if not blank:
        head, blank, body = payload.partition(b"\n\n")
    found = _CONTENT_LENGTH.findall(head)
    return (int(found[0]), len(body)) if blank and len(found) == 1 else None


def _wrong_length(copy: Sighting, counted: int, real: int, call_id: str, ctx: Context,
                  passage: Passage | None = None) -> Finding:
    before = _right_before(passage, copy)
    said = (f" In packet {before.packet}, the same message before that box, it was right." if before else "")
    what = "never reads the rest" if counted < real else "has to refuse the message (RFC 3261, section 18.3)"
    return Finding(
        "D15", Severity.BREAKS if counted > real else Severity.HURTS,
        f"Content-Length says {counted}, the body has {real} octets", call_id,
        unique((*(before.packets if before else ()), *copy.packets)),
        f"Packet {copy.packet} from {copy.source} has Content-Length: {counted} and {real} octets of "
        f"body.{said}",
        f"Somebody changed the body and not the number that counts it; the receiver {what}.",
        f"the gateway, between packets {before.packet} and {copy.packet}" if before
        else f"at {copy.source.host}, or on the way from it",
        products.remedy(None, ctx, "Switch off what rewrites SIP there, or update it") + ".",
        Fixed.NO, copy.time)


def _right_before(passage: Passage | None, copy: Sighting) -> Sighting | None:
    for earlier in passage.sightings if passage is not None else ():
        if earlier is copy:
            return None
        message = earlier.message
        if message is not None and not message.raw[message.body[1]:].strip(FILLING):
            return earlier
    return None


def damaged_datagrams(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D15: UDP lengths or checksums that are wrong where others of the same sender are right.

    Where all of them are wrong the capture was edited, or the checksum is left to the network card.
    """
    right: dict[str, Sighting] = {}
    wrong: list[tuple[Passage, Sighting]] = []
    for passage in conversation.passages:
        for copy in passage.sightings:
            if copy.transport != "udp" or not copy.ip or _is_incomplete(copy):
                continue
            if _is_damaged(copy):
                if len(wrong) < MOST_JUDGED:
                    wrong.append((passage, copy))
            elif not copy.outgoing:
                right.setdefault(copy.source.host, copy)
    for passage, copy in wrong:
        before = next((each for each in passage.sightings if each is not copy and not _is_damaged(each)),
                      None)
        good = before or right.get(copy.source.host)
        if good is not None and not copy.outgoing and not _was_taken(passage, conversation):
            yield _damaged(copy, good, conversation, ctx)
            return


def _was_taken(passage: Passage, conversation: Conversation) -> bool:
    """Tell whether the receiver went on as one does that got the message: its kernel found nothing wrong."""
    transaction = next((each for each in conversation.transactions
                        if passage in each.requests or passage in each.responses), None)
    if transaction is None:
        return False
    if passage in transaction.requests:
        return any(each.time >= passage.time for each in transaction.responses)
    return not any(each.time > passage.last.time for each in transaction.requests)


def _is_damaged(copy: Sighting) -> bool:
    return copy.facts.udp_length_wrong or copy.facts.checksum_wrong


def _damaged(copy: Sighting, good: Sighting, conversation: Conversation, ctx: Context) -> Finding:
    what = "UDP length does not fit the IP length" if copy.facts.udp_length_wrong else "UDP checksum is wrong"
    return Finding(
        "D15", Severity.BREAKS, f"the {what} in packet {copy.packet}", conversation.call_id,
        unique((*copy.packets, *good.packets)),
        f"Packet {copy.packet} from {copy.source}: its {what}, and it is not what checksum offload leaves; "
        f"packet "
        f"{good.packet} is right.",
        "Somebody changed the packet and not the numbers that protect it: the receiver's kernel drops it "
        "without a word.",
        f"on the way from {copy.source.host}, before this capture",
        products.remedy(conversation, ctx, "Switch off what rewrites packets there, or update it") + ".",
        Fixed.NO, copy.time)


# -- D16: large messages

LARGE = 1300            # octets; RFC 3261, section 18.1.1, wants TCP beyond this
LARGEST_WHOLE = 1472    # octets that fit into one packet on Ethernet, behind IPv4 and UDP headers
GIVEN_UP = 4            # transmissions without any answer
TOO_LARGE = (413, 513)
TOO_BIG = ("fragmentation-needed", "packet-too-big")    # of IPv4 and IPv6
MOST_ERRORS = 200       # ICMP errors of one conversation that are looked at


def large_request_lost(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D16: a large request gets no answer, small ones of the same UA do."""
    for transaction in conversation.transactions:
        requests = [each for each in transaction.requests if each.message is not None
                    and each.message.cseq_method == transaction.method]
        if not requests:
            continue
        errors = _too_big(conversation, requests)
        if errors:
            yield _does_not_fit(requests, errors[0], conversation)
            return
        if transaction.responses:
            continue
        copy = requests[0].first
        cut = _seen_in_part(requests, ctx)
        if len(copy.payload) > LARGE and (cut or len(requests) >= GIVEN_UP):
            small = _answered_small(conversation, copy, ctx, _is_lost_here(requests, ctx))
            if cut is not None or small is not None:
                yield _lost(requests, cut, small, conversation)
                return


def _too_big(conversation: Conversation, requests: list[Passage]) -> list[IcmpError]:
    errors = [error for error in conversation.errors[:MOST_ERRORS]
              if error.code in TOO_BIG and error.protocol == "udp"]
    if not errors:
        return []
    flows = {(copy.source, copy.destination) for each in requests for copy in each.sightings}
    return [error for error in errors if (error.source, error.destination) in flows]


def _does_not_fit(requests: list[Passage], error: IcmpError, conversation: Conversation) -> Finding:
    copy = max((each.first for each in requests), key=lambda each: each.facts.length)
    mtu = f", whose MTU is {error.next_hop_mtu}" if error.next_hop_mtu else ""
    flag = "with" if copy.facts.dont_fragment else "without"
    assert copy.message is not None
    return Finding(
        "D16", Severity.BREAKS, f"{status_line(copy.message)} does not fit through {error.sender}",
        conversation.call_id, unique((*copy.packets, *error.packets)),
        f"Packet {copy.packet} has {copy.facts.length or len(copy.payload)} octets, {flag} DF; "
        f"{error.sender} "
        f"answers with ICMP \"{error.code.replace('-', ' ')}\"{mtu} (packet {error.packets[0]}).",
        "The path carries less than this request needs, and forbids to fragment it.",
        f"at {error.sender}", "Set the right MTU on the sender or its gateway (PPPoE: 1492), let it not set "
                              "DF, "
        "drop codecs and headers, or use SIP over TCP (RFC 3261, section 18.1.1).",
        Fixed.PARTLY, copy.time)


def _seen_in_part(requests: list[Passage], ctx: Context) -> Sighting | None:
    """Return the first fragment of the request, seen alone on the other side of the gateway."""
    first = requests[0]
    copy = first.first
    if outside(first) is not None or copy.side is not Side.INSIDE or copy.message is None:
        return None
    call_id = copy.message.call_id.encode("latin-1")
    return next((each for each in ctx.unreadable if each.facts.incomplete
                 and side_of_copy(ctx.network, each.source.host, each.destination.host) is Side.OUTSIDE
                 and call_id in each.payload and abs(each.time - copy.time) < 64), None)


def _is_lost_here(requests: list[Passage], ctx: Context) -> bool:
    """Tell whether the gateway itself swallowed it: seen inside in fragments, and never outside."""
    return ctx.network.vantage in (Vantage.BOTH, Vantage.ANY) and all(
        each.first.side is Side.INSIDE and each.first.facts.fragments > 1 and outside(each) is None
        for each in requests)


def _answered_small(conversation: Conversation, copy: Sighting, ctx: Context, before_counts: bool
                    ) -> PacketId | None:
    """Return a packet that shows that small requests of the same UA are answered.

    Those before it count only where nobody else can have lost it: a server may have died meanwhile.
    """
    for transaction in conversation.transactions:
        answered = next((each for each in transaction.requests
                         if transaction.responses and each.first.source == copy.source
                         and len(each.first.payload) < LARGE), None)
        if answered is not None:
            return transaction.responses[0].first.packet
    station = ctx.stations.get(copy.source)
    heard = station.heard_last.get(copy.destination) if station is not None else None
    return heard[1] if heard is not None and (before_counts or heard[0] > copy.time) else None


def _lost(requests: list[Passage], cut: Sighting | None, small: PacketId | None,
          conversation: Conversation) -> Finding:
    copy = requests[0].first
    assert copy.message is not None
    fragments = f" in {copy.facts.fragments} fragments" if copy.facts.fragments > 1 else ""
    seen = f" Only its first fragment is seen outside (packet {cut.packet})." if cut else ""
    others = f" Smaller ones of this UA are answered (packet {small})." if small else ""
    last = requests[-1]
    return Finding(
        "D16", Severity.BREAKS,
        f"{status_line(copy.message)} of {len(copy.payload)} octets gets no answer, small requests do",
        conversation.call_id,
        unique((*(packet for each in requests for packet in each.packets), *(cut.packets if cut else ()),
                *((small,) if small else ()))),
        f"Packet {copy.packet} has {len(copy.payload)} octets{fragments}, is sent {len(requests)} times "
        f"until "
        f"packet {last.first.packet}, and is never answered.{seen}{others}",
        _why_lost(copy),
        "at the gateway" if cut else f"between {copy.source.host} and {copy.destination.host}",
        "Remove rules that drop fragments; offer fewer codecs, leave optional headers out, or use SIP over "
        "TCP "
        "(RFC 3261, section 18.1.1).",
        Fixed.PARTLY, copy.time)


def _why_lost(copy: Sighting) -> str:
    if copy.facts.fragments > 1 or len(copy.payload) > LARGEST_WHOLE:
        return ("A request of this size does not fit into one packet, and IP fragments are dropped on the "
                "way: by "
                "a firewall that keeps no fragments, or a NAT that does not put them together.")
    return ("The path carries less than this packet needs (PPPoE, a VPN), and drops it without saying so: "
            "ICMP "
            "\"fragmentation needed\" is filtered on the way.")


def refused_as_too_large(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D16: the peer itself says that a request is too large."""
    for transaction in conversation.transactions:
        final = transaction.final
        if final is None or final.message is None or final.message.status not in TOO_LARGE \
                or not transaction.requests:
            continue
        request = transaction.requests[0]
        yield Finding(
            "D16", Severity.BREAKS, f"{status_line(final.message)}: too large for the "
                                    f"peer", conversation.call_id,
            unique((*request.packets, *final.packets)),
            f"Packet {request.first.packet} has {len(request.first.payload)} octets; packet "
            f"{final.first.packet} "
            f"answers {final.message.status}.",
            "The peer takes no messages of this size.", f"at {final.first.source.host}",
            "Offer fewer codecs, leave optional headers out.", Fixed.NO, request.time)
        return


# -- D23: SIP over TCP


def half_fixed_stream(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D23: over TCP, messages in one segment are rewritten and longer ones are not, or by half."""
    changed = next((each for each in _tcp_pairs(conversation)
                    if _differs(each) and len(_inner(each)) == 1), None)
    if changed is None:
        return
    for passage in _tcp_pairs(conversation):
        part = _left_out(passage)
        if len(_inner(passage)) > 1 and part:
            inner, outer = inside(passage), outside(passage)
            assert inner is not None
            assert outer is not None
            assert inner.message is not None
            yield Finding(
                "D23", Severity.BREAKS, f"{status_line(inner.message)} in {len(inner.packets)} TCP segments "
                                        f"leaves "
                "as it came", conversation.call_id, unique((*passage.packets, *changed.packets)),
                f"The message of {numbers(inner.packets)} goes out ({numbers(outer.packets)}) with {part} "
                f"unchanged; that of packet {changed.first.packet}, in one segment, was rewritten.",
                "The gateway's ALG looks at single segments; what spans two of them passes unfixed.",
                "the gateway", products.remedy(conversation, ctx, "Switch its SIP ALG off") + ".",
                Fixed.PARTLY, passage.time)
            return


def _tcp_pairs(conversation: Conversation) -> Iterator[Passage]:
    return (each for each in conversation.passages
            if each.direction is Direction.OUTWARD and each.first.transport == "tcp"
            and inside(each) is not None and outside(each) is not None)


def _inner(passage: Passage) -> tuple[PacketId, ...]:
    copy = inside(passage)
    return copy.packets if copy is not None else ()


def _differs(passage: Passage) -> bool:
    inner, outer = inside(passage), outside(passage)
    return inner is not None and outer is not None and inner.payload != outer.payload


def _left_out(passage: Passage) -> str:
    """Return the parts that name the sender's inside address outside, too."""
    inner, outer = inside(passage), outside(passage)
    if inner is None or outer is None or outer.message is None:
        return ""
    host = inner.source.host
    parts = []
    if any(uri.hostport.host == host for uri in contact_uris(outer.message)):
        parts.append("Contact")
    session = sdp_of(outer.message)
    if session is not None and any(
            media.effective is not None and media.effective.host == host for media in session.media):
        parts.append("c=")
    return " and ".join(parts)


IDLE = 30.0         # seconds; no TCP connection of SIP is thrown away sooner on purpose


def connections_cut(ctx: Context) -> Iterator[Finding]:
    """D23: a connection to a UA behind the NAT is refused, or was forgotten while it was idle."""
    told: set[tuple[str, str]] = set()
    for reset in ctx.resets:
        key = (reset.source.host, reset.destination.host)
        if key in told:
            continue
        inward = reset.destination.host == ctx.network.outside or (
            ctx.network.side_of(reset.destination.host) is Side.INSIDE
            and ctx.network.side_of(reset.source.host) is Side.OUTSIDE)
        if (reset.refused and inward and _is_peer(reset.source.host, ctx)) \
                or (not reset.refused and reset.idle >= IDLE):
            told.add(key)
            yield _refused(reset) if reset.refused else _forgotten(reset)


def _is_peer(host: str, ctx: Context) -> bool:
    """Tell whether an inside UA has sent anything to this host; others who knock are strangers."""
    return any(peer.host == host for station in ctx.stations.values() for peer in station.sent_last)


def _refused(reset: TcpReset) -> Finding:
    return Finding(
        "D23", Severity.HURTS, f"{reset.source.host} is refused a connection to {reset.destination}", "",
        reset.packets,
        f"Packet {reset.packets[0]} opens a connection to {reset.destination}, packet {reset.packets[-1]} "
        f"is RST.",
        "Over TCP a UA behind a NAT cannot be called at the port in its Contact: nobody listens there, or "
        "the "
        "NAT has no mapping.",
        f"at {reset.destination.host}", "Let the server send its requests over the connection that the UA "
                                        "opened "
        "(RFC 5626, outbound; Kamailio: add_contact_alias; Asterisk: rewrite_contact).",
        Fixed.NO, reset.time)


def _forgotten(reset: TcpReset) -> Finding:
    return Finding(
        "D23", Severity.HURTS, f"the connection to {reset.destination} was gone after {reset.idle:.0f} s of "
                               f"silence",
        "", reset.packets,
        f"Packet {reset.packets[0]} uses the connection after {reset.idle:.0f} s without a packet, packet "
        f"{reset.packets[-1]} is RST.",
        "A NAT or firewall on the way forgot the idle connection.",
        f"between {reset.source.host} and {reset.destination.host}",
        "Let the UA keep it alive (CRLF or CRLFCRLF, RFC 5626, section 3.5.1, at least every 120 s), or "
        "raise "
        "the TCP timeout of the NAT.", Fixed.PARTLY, reset.time)


# -- D24: TLS


def encrypted_signalling(ctx: Context) -> Iterator[Finding]:
    """D24, for information: SIP in TLS cannot be fixed, nor judged."""
    if not ctx.tls:
        return
    first = ctx.tls[0]
    servers = list(dict.fromkeys(str(flow.destination) for flow in ctx.tls))
    more = f" and {len(servers) - 3} more" if len(servers) > 3 else ""
    yield Finding(
        "D24", Severity.INFORMS, f"SIP to {', '.join(servers[:3])}{more} is encrypted", "",
        unique((packet for flow in ctx.tls for packet in flow.packets), 12),
        f"{first.source} speaks TLS to {first.destination} (packet {first.packets[0]}); {len(ctx.tls)} "
        f"connection{'s' if len(ctx.tls) > 1 else ''} in this capture.",
        "Nobody between UA and server can read or change these messages: neither natfix nor any ALG touches "
        "them, "
        "and this diagnosis says nothing about them.",
        f"between {first.source.host} and {first.destination.host}",
        "Let the server handle NAT (Asterisk: force_rport, rewrite_contact, rtp_symmetric), or the UA use "
        "ICE. "
        "natfix can still keep mappings alive. To see the messages, capture on the server, or without TLS.",
        Fixed.NO, first.time)


CONVERSATION = (
    body_is_longer, damaged_datagrams, large_request_lost, refused_as_too_large, half_fixed_stream,
    *families.CONVERSATION)
STATION = ()
CAPTURE = (body_is_shorter, connections_cut, encrypted_signalling)
