"""Media that changes in a call: silence, hold, fax, early media: D04, D17, D18 and D19."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from natfix.replay import products
from natfix.replay.model import (
    Context,
    Conversation,
    Direction,
    Finding,
    Fixed,
    MediaKind,
    PacketId,
    Passage,
    Severity,
    Side,
    Stream,
    Vantage,
)
from natfix.replay.network import is_private, is_public
from natfix.replay.symptoms.reading import sdp_of, status_line, unique
from natfix.replay.symptoms.talking import (
    HOLD_HOST,
    SOME_AUDIO,
    Said,
    answer_time,
    arriving,
    end_time,
    heard,
    leaving,
    rtp,
    said,
)

SHORTEST_TIMEOUT = 20.0     # seconds: no NAT forgets a UDP flow earlier
LONG_ENOUGH = 3.0           # seconds of a call in which somebody should have been heard
SETTLED = 1.0               # seconds after a change in which packets of before it may still come
FAX_LONG = 10.0             # seconds of fax: by then both ends have sent (T.30: DIS, DCS)
FAX_PACKETS = 10
REFUSED_FAX = (415, 488, 606)
ALG_CURE = "Switch the gateway's SIP ALG off, or let natfix on the gateway map every stream of the dialog"


# -- D04


def dies_of_silence(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D04: while nothing went out, the NAT forgot the stream: what comes in no longer gets inside."""
    for outer, inner in _pairs(conversation, ctx):
        last = _last_sent(inner, conversation)
        if last is None or inner.end - last[0] < SHORTEST_TIMEOUT or inner.packets < SOME_AUDIO \
                or end_time(conversation, ctx) - inner.end < LONG_ENOUGH \
                or _packets_after(outer, inner.end + SETTLED) < SOME_AUDIO \
                or _goes_on(inner, conversation) or _described(conversation, last[0], inner.end + SETTLED):
            continue
        yield _silence_finding(
            conversation, ctx, (last[1], inner.last_packet, outer.last_packet), inner.end,
            f"audio no longer comes in after {inner.end - last[0]:.0f} s in which nothing went out",
            f"{inner.destination} sent nothing for {inner.end - last[0]:.0f} s; the last packet of "
            f"{inner.source} that came inside is packet {inner.last_packet}. Outside, {inner.source} goes on "
            f"to send to {outer.destination}, until packet {outer.last_packet}.")
        return


def reappears_elsewhere(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D04: after a silence the stream leaves the NAT from another port: its mapping was forgotten."""
    out = [each for each in leaving(rtp(conversation), ctx) if each.side is Side.OUTSIDE
           and each.source.host == ctx.network.outside and each.ssrc is not None]
    for first in out:
        again = next((each for each in out if each.ssrc == first.ssrc and each.source != first.source
                      and each.destination == first.destination
                      and each.start - first.end >= SHORTEST_TIMEOUT), None)
        if again is None or _described(conversation, first.end, again.start):
            continue
        yield _silence_finding(
            conversation, ctx, (first.last_packet, again.first_packet), again.start,
            f"after {again.start - first.end:.0f} s of silence the audio leaves from another port",
            f"The stream from {first.source} to {first.destination} (SSRC {first.ssrc}) ends with packet "
            f"{first.last_packet}; {again.start - first.end:.0f} s later it goes on from {again.source} "
            f"(packet {again.first_packet}). No description announces that port.")
        return


def _silence_finding(conversation: Conversation, ctx: Context, packets: tuple[PacketId, ...], time: float,
                     title: str, evidence: str) -> Finding:
    return Finding(
        "D04", Severity.HURTS, title, conversation.call_id, unique(packets), evidence,
        "The NAT's UDP timeout ended the mapping, since packets of this stream flowed one way only, or not "
        "at all (RFC 4787, REQ-5 and REQ-6).", "the gateway's NAT",
        products.remedy(conversation, ctx, "Raise the gateway's UDP timeout to 210 s or more, or let phones "
                        "send comfort noise or keep-alives while they are silent (RFC 6263)") + ".",
        Fixed.YES, time)


def _pairs(conversation: Conversation, ctx: Context) -> Iterator[tuple[Stream, Stream]]:
    """Yield streams from outside as seen before and behind the NAT."""
    inward = arriving(rtp(conversation), ctx)
    for outer in inward:
        if outer.side is Side.OUTSIDE and outer.destination.host == ctx.network.outside:
            yield from ((outer, inner) for inner in inward if inner.side is Side.INSIDE
                        and inner.source == outer.source and inner.ssrc == outer.ssrc
                        and ctx.network.side_of(inner.destination.host) is Side.INSIDE)


def _last_sent(inner: Stream, conversation: Conversation) -> tuple[float, PacketId] | None:
    """Return when the inside end last sent to its peer before *inner* ended, and a packet that shows it."""
    best: tuple[float, PacketId] | None = None
    for each in rtp(conversation):
        if each.side is not Side.INSIDE \
                or (each.source, each.destination) != (inner.destination, inner.source):
            continue
        sent = _last_before(each, inner.end)
        if sent is not None and (best is None or sent > best[0]):
            best = sent, each.last_packet if sent == each.end else each.first_packet
    return best


def _last_before(stream: Stream, time: float) -> float | None:
    if stream.start > time:
        return None
    if stream.end <= time:
        return stream.end
    return next((start for start, end in stream.gaps if start <= time <= end), time)


def _packets_after(stream: Stream, time: float) -> int:
    if stream.start >= time:
        return stream.packets
    if stream.end <= time:
        return 0
    if not stream.bins:
        return int(stream.packets * (stream.end - time) / (stream.end - stream.start))
    return sum(stream.bins[int((time - stream.start) / stream.bin_width) + 1:])


def _packets_before(stream: Stream, time: float) -> int:
    return stream.packets - _packets_after(stream, time)


def _goes_on(inner: Stream, conversation: Conversation) -> bool:
    return any(each is not inner and each.destination == inner.destination and each.end > inner.end + SETTLED
               for each in rtp(conversation))


def _described(conversation: Conversation, start: float, end: float) -> bool:
    """Tell whether anybody described media anew between two times."""
    return any(start - SETTLED < each.time < end and each.message is not None
               and sdp_of(each.message) is not None for each in conversation.passages)


# -- D17


def lost_by_hold(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D17: audio was heard before a hold, and is not heard after the resume, though both sides want it."""
    change = _hold_and_resume(conversation)
    if change is None:
        return
    held, resumed, since = change
    until = _next_offer(conversation, resumed, ctx)
    side = Side.INSIDE if ctx.network.vantage is not Vantage.OUTSIDE else Side.OUTSIDE
    if until - since < LONG_ENOUGH or not _wanted_now(conversation, side, since):
        return
    streams = rtp(conversation)
    inward = heard(streams, ctx)
    if sum(_packets_before(each, held.time) for each in inward) < SOME_AUDIO \
            or any(_packets_after(each, since + SETTLED) for each in inward):
        return
    out = [each for each in leaving(streams, ctx) if _packets_after(each, since + SETTLED) >= SOME_AUDIO]
    lost = [each for each in arriving(streams, ctx, Side.OUTSIDE) if each not in inward
            and each.end <= until + SETTLED and _packets_after(each, since + SETTLED) >= SOME_AUDIO]
    if not out and not lost:
        return
    why, where, proof = _why_not_resumed(conversation, held, since, lost)
    shown = (lost or out)[0]
    yield Finding(
        "D17", Severity.BREAKS, "after hold and resume nothing is heard", conversation.call_id,
        unique((*held.packets, *resumed.packets, *proof, shown.last_packet)),
        f"Packet {held.first.packet} holds the call, packet {resumed.first.packet} resumes it. Audio came in "
        f"before the hold; in {until - since:.0f} s after the resume none does, while {shown.source} sends "
        f"to {shown.destination} until packet {shown.last_packet}.",
        why, where, products.remedy(conversation, ctx, ALG_CURE) + ".", Fixed.YES, resumed.time)


def _hold_and_resume(conversation: Conversation) -> tuple[Passage, Passage, float] | None:
    """Return the first accepted offer that holds, the next that resumes, and when that was accepted."""
    held: Passage | None = None
    for transaction in conversation.transactions:
        offer = transaction.requests[0] if transaction.requests else None
        final = transaction.final
        if transaction.method not in ("INVITE", "UPDATE") or offer is None or offer.message is None \
                or not offer.message.to_tag or final is None or final.message is None \
                or final.message.status >= 300:
            continue
        session = sdp_of(offer.message)
        audio = next((each for each in session.media if each.kind == "audio"), None) if session else None
        if audio is None:
            continue
        host = audio.effective.host if audio.effective else ""
        is_held = audio.direction != "sendrecv" or host == HOLD_HOST or audio.port == 0
        if is_held:
            held = held or offer
        elif held is not None and offer.message.from_tag == _tag(held):
            return held, offer, final.time
    return None


def _tag(passage: Passage) -> str:
    return passage.message.from_tag if passage.message is not None else ""


def _next_offer(conversation: Conversation, resumed: Passage, ctx: Context) -> float:
    """Return until when the resumed call lasted: the next re-INVITE, REFER or BYE, or the end."""
    later = [each.time for each in conversation.passages if each.time > resumed.time
             and each.message is not None and each.repeats is None and each.message.is_request
             and each.message.method in ("INVITE", "UPDATE", "REFER", "BYE")]
    return min([*later, end_time(conversation, ctx)])


def _wanted_now(conversation: Conversation, side: Side, since: float) -> bool:
    """Tell whether by their latest descriptions both want to hear and be heard."""
    for direction in (Direction.OUTWARD, Direction.INWARD):
        latest = [each for each in said(conversation, direction, side)
                  if each.media.kind == "audio" and each.copy.time <= since + SETTLED]
        if not latest or not latest[-1].is_wanted or latest[-1].media.direction != "sendrecv":
            return False
    return True


def _why_not_resumed(conversation: Conversation, held: Passage, since: float, lost: list[Stream],
                     ) -> tuple[str, str, tuple[PacketId, ...]]:
    """Return cause, place and packets: the case that the descriptions decide."""
    ours = [each for each in said(conversation, Direction.OUTWARD, Side.OUTSIDE)
            if each.media.kind == "audio"]
    before = [each for each in ours if each.copy.time < held.time and each.is_wanted]
    after = [each for each in ours if held.time < each.copy.time <= since + SETTLED and each.is_wanted]
    if not before or not after:
        return ("The stream's mapping is gone, or the resume was not translated behind this point: a NAT "
                "that ignores re-INVITEs, or a timer for silent media.",
                "between this point and the peer", ())
    old, new = before[-1], after[-1]
    proof = (*old.copy.packets, *new.copy.packets)
    if is_private(new.endpoint.host) and not is_private(old.endpoint.host):
        return (f"The first description left with {old.endpoint} (packet {old.copy.packet}), the resume with "
                f"{new.endpoint} (packet {new.copy.packet}): it was not translated.", "the gateway", proof)
    one, two = old.session.origin, new.session.origin
    if one is not None and two is not None and one.host != two.host \
            and old.session.origin_version == new.session.origin_version:
        return (f"The resume's o= has another address ({two.host}, before: {one.host}) with the same version "
                f"{new.session.origin_version}: the peer may take it for what it knows (RFC 3264, "
                "section 8).",
                "the fixer that rewrites o=", proof)
    if old.endpoint == new.endpoint:
        return (f"Both descriptions name {new.endpoint}, whose mapping was removed while the call was held.",
                "the gateway" if lost else "between the gateway and the peer", proof)
    return (f"The resume names {new.endpoint} instead of {old.endpoint}, and nothing maps that port.",
            "the gateway" if lost else "between the gateway and the peer", proof)


# -- D18


def fax_token_changed(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D18: somebody on the way made something else of m=image's protocol."""
    for passage in conversation.passages:
        inner, outer = passage.at(Side.INSIDE), passage.at(Side.OUTSIDE)
        one = sdp_of(inner.message) if inner is not None and inner.message is not None else None
        two = sdp_of(outer.message) if outer is not None and outer.message is not None else None
        if inner is None or outer is None or one is None or two is None or len(one.media) != len(two.media):
            continue
        for here, there in zip(one.media, two.media, strict=True):
            if "image" in (here.kind, there.kind) \
                    and (here.kind, here.proto.lower()) != (there.kind, there.proto.lower()):
                yield _fax_finding(
                    conversation, ctx, Severity.BREAKS, "the fax's m= line was changed on the way",
                    passage.packets,
                    f"Inside (packet {inner.packet}) it is m={here.kind} {here.port} {here.proto}, outside "
                    f"(packet {outer.packet}) m={there.kind} {there.port} {there.proto}.",
                    "A fixer takes T.38 for audio: the other side cannot accept that.", "the gateway",
                    Fixed.YES, passage.time)
                return


def fax_one_way(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D18: T.38 was agreed on, and UDPTL comes from one side only, or the description was not translated."""
    agreed = _agreed_fax(conversation)
    if agreed is None:
        return
    offer, answer = agreed
    streams = [each for each in conversation.streams
               if each.kind is MediaKind.UDPTL and each.end > answer.time]
    inward, out = heard(streams, ctx), leaving(streams, ctx)
    lost = arriving(streams, ctx, Side.OUTSIDE)
    private = next((each for each in said(conversation, Direction.OUTWARD, Side.OUTSIDE)
                    if each.media.kind == "image" and each.media.port and is_private(each.endpoint.host)
                    and is_public(each.copy.destination.host)), None)
    if inward and out:
        return
    sent = [each for each in (out or inward or lost) if each.packets >= FAX_PACKETS
            and each.end - each.start >= FAX_LONG]
    if not sent and not (private and out and not inward):
        return
    shown = (sent or out)[0]
    evidence = (f"T.38 is offered in packet {offer.first.packet} and accepted in packet "
                f"{answer.first.packet}. {shown.packets} packets of UDPTL went {shown.source} -> "
                f"{shown.destination} (packets {shown.first_packet}, {shown.last_packet}), none the other "
                "way")
    packets: tuple[PacketId, ...] = (*offer.packets, *answer.packets, shown.first_packet, shown.last_packet)
    cause = "The stream of the fax is not mapped, or its new address is not followed"
    if private is not None:
        evidence += f"; packet {private.copy.packet} left with {private.endpoint} for it"
        packets = (*packets, *private.copy.packets)
        cause = "The description of the fax was not translated: the peer sends to an inside address"
    yield _fax_finding(
        conversation, ctx, Severity.BREAKS, "the fax's packets come from one side only", packets,
        f"{evidence}.", f"{cause}.",
        "the gateway" if private is not None or lost else "between this point and the peer",
        Fixed.YES if private is not None or lost else Fixed.PARTLY, offer.time)


def fax_refused(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D18: the switch to T.38 was answered with 488 or the like, though nobody changed it."""
    if any(fax_token_changed(conversation, ctx)):
        return
    for transaction in conversation.of("INVITE"):
        offer, final = transaction.requests[:1], transaction.final
        if not offer or offer[0].message is None or not offer[0].message.to_tag or final is None \
                or final.message is None or final.message.status not in REFUSED_FAX \
                or not _has_image(offer[0]) or _falls_back(conversation, final):
            continue
        yield _fax_finding(
            conversation, ctx, Severity.WARNS, f"the switch to T.38 is refused with {final.message.status}",
            (*offer[0].packets, *final.packets),
            f"Packet {offer[0].first.packet} offers m=image; packet {final.first.packet} answers "
            f"{final.message.status}.",
            "The other side, or a gateway on its way, does not take T.38. A fax may go on as audio.",
            f"at {final.first.source.host}", Fixed.NO, offer[0].time)
        return


def _falls_back(conversation: Conversation, refusal: Passage) -> bool:
    """Tell whether both agree on something else after a refusal: the fax goes on as audio."""
    return any(each.final is not None and each.final.message is not None and each.final.message.status < 300
               and each.requests and each.requests[0].time > refusal.time
               for each in conversation.of("INVITE"))


def _agreed_fax(conversation: Conversation) -> tuple[Passage, Passage] | None:
    for transaction in conversation.of("INVITE"):
        final = transaction.final
        if transaction.requests and final is not None and final.message is not None \
                and final.message.status < 300 and _has_image(transaction.requests[0]) and _has_image(final):
            return transaction.requests[0], final
    return None


def _has_image(passage: Passage) -> bool:
    session = sdp_of(passage.message) if passage.message is not None else None
    return session is not None and any(each.kind == "image" and each.port for each in session.media)


def _fax_finding(conversation: Conversation, ctx: Context, severity: Severity, title: str,
                 packets: tuple[PacketId, ...], evidence: str, cause: str, where: str, fixed: Fixed,
                 time: float) -> Finding:
    otherwise = "Send faxes as G.711 on that line (T.38 off)"
    remedy = otherwise if fixed is Fixed.NO else products.remedy(
        conversation, ctx, f"{ALG_CURE}; or send faxes as G.711 on that line (T.38 off)")
    return Finding("D18", severity, title, conversation.call_id, unique(packets), evidence, cause, where,
                   remedy + ".", fixed, time)


# -- D19


def early_untranslated(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D19: INVITE and 200 were translated, but not the description in a 1xx, PRACK, UPDATE or ACK."""
    ours = [each for each in said(conversation, Direction.OUTWARD, Side.OUTSIDE) if each.is_wanted]
    right = next((each for each in ours if is_public(each.endpoint.host)), None)
    answered = answer_time(conversation)
    for each in ours:
        message = each.copy.message
        if message is None or not is_private(each.endpoint.host) or right is None \
                or not is_public(each.copy.destination.host) or not _is_overlooked(each, answered):
            continue
        if any(stream.end > each.copy.time for stream in heard(rtp(conversation), ctx)
               if stream.start < (answered or ctx.end)):
            return
        yield Finding(
            "D19", Severity.HURTS, f"the description in {status_line(message)} is not translated",
            conversation.call_id, unique((*each.passage.packets, *right.copy.packets)),
            f"Packet {each.copy.packet} ({status_line(message)}) leaves with {each.endpoint}; packet "
            f"{right.copy.packet} of the same call with {right.endpoint}.",
            "A fixer that knows only INVITE and 200: media before the answer, or after a late offer, is sent "
            "to an inside address.", "the gateway", products.remedy(conversation, ctx, ALG_CURE) + ".",
            Fixed.YES, each.copy.time)
        return


def _is_overlooked(each: Said, answered: float | None) -> bool:
    message = each.copy.message
    assert message is not None
    if answered is not None and each.copy.time > answered:
        return message.is_request and message.method == "ACK"
    return message.cseq_method in ("PRACK", "UPDATE") or 100 < message.status < 200


def wrong_after_answer(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D19: early media was heard; the 200 names another place for media, and from then on nothing comes."""
    answered = answer_time(conversation)
    early, final = _early_and_final(conversation, ctx)
    if answered is None or early is None or final is None or early.endpoint == final.endpoint:
        return
    streams = rtp(conversation)
    inward = heard(streams, ctx)
    until = min([each.time for each in conversation.passages if each.time > answered + SETTLED
                 and each.message is not None and each.message.method in ("INVITE", "UPDATE", "BYE")]
                + [end_time(conversation, ctx)])
    out = [each for each in leaving(streams, ctx) if _packets_after(each, answered + SETTLED) >= SOME_AUDIO]
    before = sum(_packets_before(each, answered) for each in inward)
    if until - answered < LONG_ENOUGH or before < SOME_AUDIO \
            or any(_packets_after(each, answered + SETTLED) for each in inward) or not out:
        return
    one, two = early.copy.message, final.copy.message
    assert one is not None
    assert two is not None
    fork = "of another fork branch (To tags differ)" if one.to_tag != two.to_tag else "of the same dialog"
    yield Finding(
        "D19", Severity.BREAKS, "early media is heard, and nothing after the answer", conversation.call_id,
        unique((*early.copy.packets, *final.copy.packets, out[0].last_packet)),
        f"Packet {early.copy.packet} ({status_line(one)}) has media at {early.endpoint}, packet "
        f"{final.copy.packet} (200), {fork}, at {final.endpoint}. Audio came in before the answer, none in "
        f"{until - answered:.0f} s after it, while audio goes out until packet {out[0].last_packet}.",
        "Whoever maps the media keeps to the first description and lets the answer's own stream not through.",
        "the gateway, or the NAT before it", products.remedy(conversation, ctx, ALG_CURE) + ".", Fixed.PARTLY,
        final.copy.time)


def _early_and_final(conversation: Conversation, ctx: Context) -> tuple[Said | None, Said | None]:
    """Return the last description of the peer's 1xx and the one of its 2xx that both want audio."""
    side = Side.OUTSIDE if ctx.network.vantage is Vantage.OUTSIDE else Side.INSIDE
    early = final = None
    for each in said(conversation, Direction.INWARD, side):
        message = each.copy.message
        if message is None or message.is_request or message.cseq_method != "INVITE" \
                or each.media.kind != "audio" or not each.is_wanted or each.media.direction != "sendrecv":
            continue
        if message.status < 200:
            early = each
        elif final is None:
            final = each
    return early, final


@lru_cache(maxsize=8)
def told(conversation: Conversation, ctx: Context) -> frozenset[PacketId]:
    """Return the packets of which a change in the call is the story: D01 has nothing to add."""
    rules = (lost_by_hold, fax_one_way, early_untranslated, wrong_after_answer)
    findings = (found for rule in rules for found in rule(conversation, ctx))
    return frozenset(packet for found in findings for packet in found.packets)


CONVERSATION = (dies_of_silence, reappears_elsewhere, lost_by_hold, fax_token_changed, fax_one_way,
                fax_refused, early_untranslated, wrong_after_answer)
STATION = ()
CAPTURE = ()
