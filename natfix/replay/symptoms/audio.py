"""Audio that is not heard: D01, D02, D03, D10 and D21, from descriptions and from the streams themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from natfix.replay import products
from natfix.replay.model import (
    Context,
    Conversation,
    Direction,
    Finding,
    Fixed,
    MediaKind,
    PacketId,
    Severity,
    Side,
    Stream,
)
from natfix.replay.network import is_private, is_public
from natfix.replay.symptoms.media_changes import told
from natfix.replay.symptoms.reading import contact_uris, numbers, place, sdp_of, status_line, unique
from natfix.replay.symptoms.talking import (
    SOME_AUDIO,
    Said,
    answer_time,
    arriving,
    count,
    end_time,
    heard,
    leaving,
    rtp,
    said,
)
from natfix.sip.message import Message

A_SIGN = 5              # RTP packets that a peer sends to a place that it was not told of
LONG_ENOUGH = 3.0       # seconds of an answered call in which somebody should have been heard
NAT_CURE = ("Let one box translate the SDP: natfix on the gateway, or the PBX's own setting for its outside "
            "address (externaddr, external_media_address)")


# -- D01


def private_sdp_outside(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D01: a description has left for a peer outside with an address that the peer cannot send to."""
    first = next((each for each in said(conversation, Direction.OUTWARD, Side.OUTSIDE)
                  if each.is_wanted and _is_unreachable(each, ctx)), None)
    if first is None or first.copy.packet in told(conversation, ctx):
        return
    streams = rtp(conversation, first.copy.time)
    arrived, out = heard(streams, ctx), leaving(streams, ctx)
    if count(arrived) >= A_SIGN:
        return      # the peer sends to where the audio comes from (symmetric RTP), or a relay does
    is_talk = count(out) >= (SOME_AUDIO if answer_time(conversation) is None else A_SIGN)
    yield Finding(
        "D01", Severity.BREAKS if is_talk else Severity.HURTS,
        f"the SDP asks a peer outside to send audio to {first.endpoint}", conversation.call_id,
        unique((*first.passage.packets, *_ends(out), *_ends(arrived))),
        f"{_said(first)}, sent from {first.copy.source} to {first.copy.destination}. "
        f"{_heard_text(count(out), count(arrived), streams)}"
        f"{_contact_text(first, conversation, ctx)}",
        "Nobody translated the SDP on the way out: outside, the address means nothing. The peer's audio goes "
        "there and is lost.",
        "the gateway, from inside to outside", products.remedy(conversation, ctx, NAT_CURE) + ".",
        Fixed.YES, first.copy.time)


def _is_unreachable(each: Said, ctx: Context) -> bool:
    """Tell whether a description that left names a place that its receiver cannot send to."""
    host, peer = each.endpoint.host, each.copy.destination.host
    is_hidden = each.copy.source.host == ctx.network.outside and ctx.network.side_of(host) is Side.INSIDE \
        and ctx.network.side_of(peer) is Side.OUTSIDE       # behind a NAT between private networks: docker
    return is_private(host) and (is_public(peer) or is_hidden)


def _contact_text(each: Said, conversation: Conversation, ctx: Context) -> str:
    """Say what else of that message leads nowhere; "" where the peer has found its way."""
    contact = next((place(uri.hostport) for uri in contact_uris(each.copy.message)), None)
    is_hidden = contact is not None and ctx.network.side_of(contact.host) is Side.INSIDE
    has_come = any(other.direction is Direction.INWARD and other.message is not None
                   and other.message.is_request for other in conversation.passages)
    if contact is None or not is_hidden or not is_private(contact.host) or has_come:
        return ""
    return f" Contact names {contact}, too: later requests of the peer, BYE among them, go there."


def nothing_comes_back(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D01 by its audio, where only the inside was captured: much goes out in a call, nothing comes back."""
    silent = None if any(said(conversation, Direction.OUTWARD, Side.OUTSIDE)) \
        else _unheard(conversation, Side.INSIDE, ctx)
    if silent is None or not is_private(silent.ours.endpoint.host) \
            or silent.ours.copy.packet in told(conversation, ctx):
        return
    last, out = silent.ours, silent.out
    yield Finding(
        "D01", Severity.BREAKS, "audio goes out and none comes back", conversation.call_id,
        silent.packets,
        f"{_said(last)}. The call was answered, and {count(out)} packets of audio went to "
        f"{out[0].destination} ({numbers(_ends(out))}); none came to {last.endpoint} in "
        f"{silent.seconds:.0f} s.",
        "The peer sends its audio to where the SDP says, if nobody on the way has translated it: to an "
        "inside address. Or a firewall drops it. A capture outside of the gateway tells which.",
        "between the gateway and the peer", products.remedy(conversation, ctx, NAT_CURE) + ".",
        Fixed.YES, last.copy.time)


def another_public_address(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D01: the SDP names a public address that is not the one that this side has, and nothing comes back."""
    side = Side.OUTSIDE if any(said(conversation, Direction.OUTWARD, Side.OUTSIDE)) else Side.INSIDE
    silent = _unheard(conversation, side, ctx) if is_public(ctx.network.outside) else None
    if silent is None or not is_public(silent.ours.endpoint.host) \
            or silent.ours.endpoint.host in (ctx.network.outside, silent.ours.copy.source.host):
        return
    last, out = silent.ours, silent.out
    yield Finding(
        "D01", Severity.BREAKS, f"the SDP asks for audio at {last.endpoint}, this side is "
                                f"{ctx.network.outside}",
        conversation.call_id, silent.packets,
        f"{_said(last)}. {count(out)} packets of audio went to {out[0].destination} "
        f"({numbers(_ends(out))}), and none came back in {silent.seconds:.0f} s. The outside address is "
        f"{ctx.network.outside}.",
        "Somebody writes an address that this side does not have, or no longer: a setting that is not right, "
        "or an outside address that has changed. The peer's audio goes there.",
        f"where {last.endpoint.host} is written: the UA at {last.passage.first.source.host}, or the gateway",
        "Put the external address right (externaddr, external_media_address), or have it found out (STUN), "
        "or leave it to natfix on the gateway, which follows the outside address.",
        Fixed.PARTLY, last.copy.time)


class _Unheard(NamedTuple):
    """An answered call in which much audio goes out, and none comes back."""

    ours: Said
    out: list[Stream]
    seconds: float
    packets: tuple[PacketId, ...]


def _unheard(conversation: Conversation, side: Side, ctx: Context) -> _Unheard | None:
    """Return what shows that nobody outside is heard, by the descriptions on *side*; None if nothing does."""
    answered = answer_time(conversation)
    ours, theirs = (
        [each for each in said(conversation, direction, side) if each.media.kind == "audio"]
        for direction in (Direction.OUTWARD, Direction.INWARD))
    if answered is None or not ours or not theirs or not ours[-1].is_wanted \
            or theirs[-1].media.direction != "sendrecv" or not is_public(theirs[-1].copy.source.host):
        return None
    last, streams, seconds = ours[-1], rtp(conversation, answered), end_time(conversation, ctx) - answered
    out = leaving(streams, ctx)
    has_come = arriving(streams, ctx) \
        or any(each.destination == last.endpoint for each in conversation.streams)
    if has_come or count(out) < 3 * SOME_AUDIO or not _is_public_target(out) or seconds < LONG_ENOUGH:
        return None
    packets = unique((*last.passage.packets, *theirs[-1].passage.packets, *_ends(out)))
    return _Unheard(last, out, seconds, packets)


def _is_public_target(streams: list[Stream]) -> bool:
    return all(is_public(each.destination.host) for each in streams)


# -- D02


def wrong_host_from_outside(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D02: the outside peer's SDP names an address that cannot be reached from here."""
    side = Side.OUTSIDE if _has_outside(conversation) else Side.INSIDE
    for each in said(conversation, Direction.INWARD, side):
        host = each.endpoint.host
        if not each.is_wanted or not is_public(each.copy.source.host) or not is_private(host):
            continue
        streams = rtp(conversation, each.copy.time)
        astray = [s for s in streams if s.destination == each.endpoint]
        if not _is_nowhere(host, astray, streams, ctx):
            continue
        out = [s for s in leaving(streams, ctx) if is_public(s.destination.host)]
        if count(heard(streams, ctx)) >= A_SIGN and count(out) >= A_SIGN:
            return      # both sides have found each other all the same
        is_talk = astray or answer_time(conversation) is not None
        yield Finding(
            "D02", Severity.BREAKS if is_talk else Severity.HURTS,
            f"the peer's SDP asks for audio at {each.endpoint}", conversation.call_id,
            unique((*each.passage.packets, *_ends(astray))),
            f"{_said(each)}, from {each.copy.source}."
            + (f" {count(astray)} packets of audio went there ({numbers(_ends(astray))})." if astray else ""),
            "The peer, or what it sits behind, names an address of its own network in its SDP. Only the "
            "address that its packets come from can be reached.",
            f"outside, at {each.copy.source.host}",
            "Have the peer's operator set its public address for media (external_media_address, "
            "advertised_address), or use its NAT support (symmetric RTP, comedia) if this side has it.",
            Fixed.NO, each.copy.time)
        return


def _is_nowhere(host: str, astray: list[Stream], streams: list[Stream], ctx: Context) -> bool:
    """Tell whether a private address is the peer's; in a network numbered as ours silence tells."""
    is_silence = not any(each.source.host == host for each in streams) and not heard(streams, ctx)
    return ctx.network.side_of(host) is not Side.INSIDE or (is_silence and count(astray) >= SOME_AUDIO)


def _has_outside(conversation: Conversation) -> bool:
    return any(copy.side is Side.OUTSIDE for passage in conversation.passages for copy in passage.sightings)


def loopback_in_sdp(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D02: a description names the host's own loopback address to another host."""
    for passage in conversation.passages:
        copy = passage.first
        session = sdp_of(copy.message) if copy.message is not None and passage.repeats is None else None
        if session is None or any(_is_loopback(end.host) for end in (copy.source, copy.destination)):
            continue
        each = next((found for media in session.media
                     if (found := Said(passage, copy, session, media)).is_wanted
                     and _is_loopback(found.endpoint.host) and not media.candidates), None)
        if each is None or any(stream.destination.host == copy.source.host and stream.packets >= SOME_AUDIO
                               for stream in rtp(conversation, copy.time)):
            continue
        yield Finding(
            "D02", Severity.BREAKS, f"the SDP asks for audio at {each.endpoint}, the sender's own loopback",
            conversation.call_id, passage.packets[:8],
            f"{_said(each)}, sent from {copy.source} to {copy.destination}.",
            "The sender has not found its own address, as with a hosts file that gives its name 127.0.1.1: "
            "whoever gets this sends audio to itself.", f"the UA at {copy.source.host}",
            "Set the address for media there (media_address, rtp-ip, local address), or put its host name "
            "right.", Fixed.NO, copy.time)
        return


def _is_loopback(host: str) -> bool:
    return host.startswith("127.") or host == "::1"


def audio_to_nowhere(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D02: RTP leaves the gateway for a private address, and not by the peer's own word."""
    named = {each.endpoint for side in Side for each in said(conversation, Direction.INWARD, side)}
    for stream in rtp(conversation):
        if stream.destination not in named and stream.side is Side.OUTSIDE and stream.packets >= SOME_AUDIO \
                and is_private(stream.destination.host) \
                and stream.source.host == ctx.network.outside and is_public(ctx.network.outside):
            yield Finding(
                "D02", Severity.BREAKS, f"audio leaves for {stream.destination}, which is nowhere outside",
                conversation.call_id, unique(_ends([stream])),
                f"{stream.packets} packets of audio went {stream.source} -> {stream.destination}, outside "
                f"({numbers(_ends([stream]))}).",
                "A description named a private address, and the phone believed it.", "outside of the gateway",
                f"{NAT_CURE} on the side that named the address.", Fixed.NO, stream.start)
            return


# -- D03


def other_source_port(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D03: RTP leaves the NAT from another port than the SDP, as it left, names."""
    for each in said(conversation, Direction.OUTWARD, Side.OUTSIDE):
        told = each.endpoint
        if not each.is_wanted or told.host != ctx.network.outside:
            continue
        from_gateway = [s for s in rtp(conversation, each.copy.time) if s.side is Side.OUTSIDE
                        and s.source.host == told.host and s.packets >= SOME_AUDIO]
        theirs = [s for s in said(conversation, Direction.INWARD, Side.OUTSIDE)
                  if s.media.index == each.media.index]
        others = [s for s in from_gateway if s.source.port != told.port
                  and any(s.destination == their.endpoint for their in theirs)]
        if not others or any(s.source == told for s in from_gateway):
            continue
        back = [s for s in heard(rtp(conversation), ctx) if s.source == others[0].destination]
        if count(back) >= SOME_AUDIO:
            continue        # a peer that sends to where the audio comes from
        yield Finding(
            "D03", Severity.BREAKS,
            f"audio leaves from port {others[0].source.port}, the SDP names {told.port}",
            conversation.call_id,
            unique((*each.passage.packets, *_ends(others), *_ends(back))),
            f"{_said(each)}; {others[0].packets} packets left {others[0].source} -> {others[0].destination} "
            f"({numbers(_ends(others[:1]))}).",
            "The NAT chose another source port than the one that the SDP was translated to. A peer that "
            "sends to the announced port, or takes audio only from there, does not hear, or is not heard "
            "(RFC 4961).",
            "the gateway's NAT", "Keep the source port (static port in pfSense's outbound NAT), or translate "
            "SDP and stream together.", Fixed.YES, others[0].start)
        return


# -- D10


def media_by_another_link(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D10: the SDP names one outside address, the audio leaves from another one."""
    for each in said(conversation, Direction.OUTWARD, Side.OUTSIDE):
        told = each.endpoint
        if not each.is_wanted or told.host != each.copy.source.host or not is_public(told.host):
            continue
        ours = {(s.ssrc, s.destination) for s in rtp(conversation) if s.side is Side.INSIDE
                and s.ssrc is not None and ctx.network.side_of(s.source.host) is Side.INSIDE}
        other = next((s for s in rtp(conversation, each.copy.time)
                      if s.side is not Side.INSIDE and (s.ssrc, s.destination) in ours
                      and s.packets >= SOME_AUDIO and is_public(s.source.host) and s.source.host != told.host
                      ), None)
        if other is None or count(heard(rtp(conversation, each.copy.time), ctx)) >= SOME_AUDIO:
            continue
        yield Finding(
            "D10", Severity.BREAKS, f"SIP leaves by {told.host}, the audio by {other.source.host}",
            conversation.call_id, unique((*each.passage.packets, *_ends([other]))),
            f"{_said(each)}, sent from {each.copy.source}; the same stream that the phone sends left as "
            f"{other.source} -> {other.destination} ({numbers(_ends([other]))}).",
            "The gateway has several outside links, and chose another one for media than for signalling.",
            "the gateway's routing",
            "Route by source or mark, so that a call's media takes the link of its SIP.",
            Fixed.PARTLY, other.start)
        return


# -- D21


def rtcp_that_cannot_arrive(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D21: a=rtcp has left with a private address, or RTCP is answered with ICMP."""
    for each in said(conversation, Direction.OUTWARD, Side.OUTSIDE):
        address = each.media.rtcp_address
        if address is not None and is_private(address.host) and is_public(each.copy.destination.host) \
                and not is_private(each.endpoint.host):
            yield _rtcp_finding(
                conversation, each.passage.packets, each.copy.time,
                f"{_said(each)}, but a=rtcp:{each.media.rtcp_port} IN IP4 {address.host}.",
                "What translated c= and m= forgot a=rtcp (RFC 3605).")
            return
    rtcp = {s.destination for s in conversation.streams if s.kind is MediaKind.RTCP}
    end = end_time(conversation, ctx) - 1.0     # at the end of a call one side closes its ports first
    # A UA that complains of RTCP itself has none, and needs none: only where a NAT does is something lost.
    errors = [error for error in conversation.errors if error.code == "port-unreachable"
              and error.destination in rtcp and error.time < end
              and (error.sender != error.destination.host or error.sender == ctx.network.outside)]
    if len(errors) > 1 and _has_audio(conversation, ctx):
        yield _rtcp_finding(
            conversation, (*errors[0].packets, *errors[1].packets), errors[0].time,
            f"{errors[0].sender} answers RTCP from {errors[0].source} to {errors[0].destination} with ICMP "
            f"port unreachable ({numbers((errors[0].packets[0], errors[1].packets[0]))}).",
            "The port next to RTP's is not mapped: nobody listens there.")


def _has_audio(conversation: Conversation, ctx: Context) -> bool:
    return count(heard(rtp(conversation), ctx)) >= SOME_AUDIO


def _rtcp_finding(conversation: Conversation, packets: tuple[object, ...], time: float, evidence: str,
                  cause: str) -> Finding:
    return Finding(
        "D21", Severity.HURTS, "RTCP does not arrive", conversation.call_id,
        unique(packets), evidence,      # type: ignore[arg-type]
        f"{cause} UAs that watch RTCP end the call after a while.", "the gateway",
        "Translate RTP and RTCP as a pair, and a=rtcp with them; or agree on rtcp-mux (RFC 5761).", Fixed.YES,
        time)


# -- words


def _said(each: Said) -> str:
    message = each.copy.message
    assert message is not None
    return (f"Packet {each.copy.packet} ({_name(message)}): c=IN IP4 {each.endpoint.host}, "
            f"m={each.media.kind} {each.endpoint.port}")


def _name(message: Message) -> str:
    return status_line(message)


def _heard_text(sent: int, came: int, streams: list[Stream]) -> str:
    if not streams:
        return "The capture has no audio of this call."
    return f"Audio in the capture: {sent} packets went out, {came or 'none'} came in."


def _ends(streams: list[Stream]) -> tuple:      # type: ignore[type-arg]
    return tuple(packet for each in streams for packet in (each.first_packet, each.last_packet))


CONVERSATION = (private_sdp_outside, nothing_comes_back, another_public_address, wrong_host_from_outside,
                loopback_in_sdp, audio_to_nowhere, other_source_port, media_by_another_link,
                rtcp_that_cannot_arrive)
STATION = ()
CAPTURE = ()
