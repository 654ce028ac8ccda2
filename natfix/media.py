"""SDP: inside media endpoints are shown as their outside endpoints (design, sections 5 and 7).

What stands for them is made by :mod:`natfix.media_mappings`; who may use it follows from what both sides
have said (:mod:`natfix.settling`).
"""

from __future__ import annotations

from natfix.address import Endpoint
from natfix.commands import Kind
from natfix.config import Settings
from natfix.dialogs import Call, Description, Line
from natfix.errors import LimitReached, MalformedMessage
from natfix.far_ends import FarEnds
from natfix.far_signs import SDP_PRIVATE, is_unreachable
from natfix.hearsay import Hearsay, name_of
from natfix.mappings import Mapping, Mappings, relay_key
from natfix.media_mappings import MediaMappings, Owner
from natfix.policies import Policies
from natfix.realms import Realms, is_usable
from natfix.registrations import Registrations
from natfix.sdp import Media, find_sdp, session_from_span
from natfix.settling import Settling
from natfix.targets import (
    UNSET_HOST,
    Target,
    endpoints_of,
    host_of,
    left_alone,
    names_host,
    silent_line,
    write,
)
from natfix.turn import Turn

LOWEST_PORT = 1024      # below are services, not media (design, section 7)
LAST_PORT = 65535
GAVE_WAY = "[media] ports run short: a call that nobody has answered gave its own up"
MOST_PAIRS = 16         # of one m-line; hierarchical encodings (RFC 8866, section 5.14) have a handful


class MediaKeeper:
    """Treats session descriptions, and holds what calls need for their media."""

    def __init__(
        self, settings: Settings, realms: Realms, mappings: Mappings, registrations: Registrations,
        far_ends: FarEnds, policies: Policies,
    ) -> None:
        self._settings = settings
        self._realms = realms
        self._mappings = mappings
        self._registrations = registrations
        self._policy = policies.media_of
        self._streams = MediaMappings(settings, realms, mappings, policies.trusted)
        self.pool = self._streams.pool
        self.hold, self.release = self._streams.hold, self._streams.release
        self._settling = Settling(settings, realms, mappings, far_ends)
        self.settle = self._settling.settle
        self._hearsay = Hearsay()
        self._judges_sdp = SDP_PRIVATE in settings.far_end.signs

    def follow(self, settings: Settings) -> None:
        """Take other settings, for what is said from now on."""
        self._settings = settings
        self._streams.follow(settings)
        self._settling.follow(settings)
        self._judges_sdp = SDP_PRIVATE in settings.far_end.signs

    # -- one message's description ----------------------------------------------------------------

    def treat(self, turn: Turn) -> tuple[Description, Description] | None:
        """Rewrite the SDP of a message; return what it says in its sender's and receiver's terms.

        None where there is no SDP, or where it is left alone as a whole.
        """
        span = find_sdp(turn.message)
        if span is None:
            return None
        try:
            session = session_from_span(turn.message.raw, *span)
        except MalformedMessage as problem:
            turn.leave("sdp", "SDP", str(problem))
            return None
        turn.session = name_of(turn.message.raw, session)
        if self._policy(turn) == "never":
            self._listen(turn, *session.media)
            turn.leave("policy", "SDP", "media policy is never")
            return None
        targets = [self._target(turn, media) for media in session.media]
        write(turn, session, targets)
        return tuple(t.sent for t in targets), tuple(t.received for t in targets)

    def _listen(self, turn: Turn, *lines: Media) -> None:
        """Remember which inside hosts somebody outside names: who hands that on vouches for nothing."""
        for endpoint in (endpoint for media in lines for endpoint in endpoints_of(media)):
            if turn.sender is None and endpoint is not None and self._realms.is_inside(endpoint.host):
                self._hearsay.note(turn.session, endpoint)

    def _target(self, turn: Turn, media: Media) -> Target:
        named = endpoints_of(media)
        rtp, rtcp = self._known(turn, named[0]), self._known(turn, named[1])
        if rtp is None:
            if names_host(media):
                turn.leave("sdp-host-name", "c=", "a host name is not ours to resolve", host_of(media))
            silent = silent_line(media)
            return Target(media, None, None, self._line_on_hold(turn, media) or silent, silent)
        hosts = tuple(dict.fromkeys(c.address for c in media.candidates if is_usable(c.address)))
        sent = Line(media.index, media.kind, rtp, rtcp, hosts, media.count,
                    media.direction, media.rtcp_mux)
        shown_rtp, shown_rtcp = rtp, rtcp
        if turn.sender is not None and not self._is_shown_already(turn, media, rtp):
            if self._is_refused(turn, "m=" + media.kind, rtp, media.count):
                return left_alone(media)
            if rtcp is not None and self._is_refused(turn, "a=rtcp", rtcp):
                rtcp, sent = None, sent._replace(rtcp=None)
            mapped = self._map(turn, media, rtp, rtcp)
            if mapped is None:
                return left_alone(media)
            shown_rtp, shown_rtcp = mapped
        elif turn.sender is not None:
            sent, shown_rtp, shown_rtcp = self._shown_on(turn, sent)
        elif turn.far_sender is not None and self._is_behind_nat(turn, media, rtp):
            shown = self._relay(turn, turn.receiver_call, turn.far_sender.source.host, sent)
            if shown is None:
                self._listen(turn, media)
                return left_alone(media)
            shown_rtp, shown_rtcp = shown
            hosts = ()
        else:
            self._listen(turn, media)
        final_rtp, final_rtcp = shown_rtp, shown_rtcp
        if turn.receiver is not None:
            final_rtp, final_rtcp = self._released(turn, shown_rtp, shown_rtcp)
        received = Line(media.index, media.kind, final_rtp, final_rtcp, hosts,
                        direction=media.direction, is_muxed=media.rtcp_mux)
        if turn.receiver is not None:
            final_rtp = self._realms.on_link(final_rtp)
            final_rtcp = self._realms.on_link(final_rtcp) if final_rtcp else None
        changed = (final_rtp, final_rtcp) != named
        return Target(media, final_rtp if changed else None, final_rtcp, sent, received)

    def _known(self, turn: Turn, endpoint: Endpoint | None) -> Endpoint | None:
        """Inside is told the link's own address: what it hands on is known by the one that others see."""
        if endpoint is None or turn.sender is None:
            return endpoint
        seen = self._realms.seen(endpoint)
        return endpoint if self._mappings.find_outside(seen) is None else seen

    def _line_on_hold(self, turn: Turn, media: Media) -> Line | None:
        """A UA that holds by c=0.0.0.0 (RFC 3264, section 8.4) keeps the mapping that it will resume with."""
        if turn.sender is None or host_of(media) != UNSET_HOST:
            return None
        rtp = Endpoint(turn.sender.inside.host, media.port)
        mapping = self._mappings.find(rtp)
        if mapping is None or mapping.kind is not Kind.MEDIA:
            return None
        beside = Endpoint(rtp.host, rtp.port + 1)
        return Line(media.index, media.kind, rtp, beside, (), media.count, "inactive")

    def _line_behind(self, turn: Turn, shown: Line) -> Line | None:
        """A UA that has learnt its own outside endpoint (RFC 8445, section 5.1.1.2) keeps its mapping."""
        mapping, beside = self._own_mapping(turn, shown.rtp), self._own_mapping(turn, shown.rtcp)
        if mapping is None or turn.sender_call is None:
            return None
        for each in (mapping, beside):
            if each is not None:
                self.hold(turn.sender_call, each, turn.now)
        return shown._replace(rtp=mapping.inside, rtcp=beside.inside if beside else None)

    def _own_mapping(self, turn: Turn, outside: Endpoint | None) -> Mapping | None:
        """Return the sender's own mapping, or the relay that a PBX hands on from one UA to the other."""
        mapping = self._mappings.find_outside(outside) if outside else None
        if mapping is None or mapping.kind is Kind.SIGNALLING or turn.sender is None:
            return None
        is_own = mapping.relay is not None or mapping.inside.host == turn.sender.inside.host \
            or (mapping.is_own and self._is_on_gateway(turn))
        return mapping if is_own else None

    # -- UAs behind NATs of their own -------------------------------------------------------------

    def _is_behind_nat(self, turn: Turn, media: Media, rtp: Endpoint) -> bool:
        """Tell whether the outside sender wants its media where nobody here can send it."""
        if not self._judges_sdp or not is_unreachable(rtp.host, turn.packet.source.host):
            return False
        if any(candidate.type in ("srflx", "relay") for candidate in media.candidates):
            turn.leave("far-ice", "a=candidate", "the UA has seen to its NAT by itself (RFC 8445)", str(rtp))
            return False
        return True

    def _shown_on(self, turn: Turn, line: Line) -> tuple[Line, Endpoint, Endpoint | None]:
        """Return what an inside sender's line is for itself, and shown as, where it names somebody outside.

        A PBX that leaves media to its UAs hands the one's words on to the other.
        """
        rtp, rtcp = line.rtp, line.rtcp
        assert rtp is not None
        far, own = turn.far_receiver, self._line_behind(turn, line) or self._line_of_own(turn, line)
        if own is not None:
            mapping = self._mappings.find_outside(rtp)
            if far is not None and mapping is not None and mapping.relay is not None \
                    and mapping.relay.far_host == far.source.host and self._may_release(turn):
                beside = self._mappings.find_outside(rtcp) if rtcp else None
                return own, mapping.relay.told, beside.relay.told if beside and beside.relay else None
            return own, rtp, rtcp
        if far is None or rtp.host in self._realms.own_hosts or rtp.host == far.source.host:
            return _silent(line), rtp, rtcp
        shown = self._relay(turn, turn.sender_call, rtp.host, line)
        if shown is None:
            return _silent(line), rtp, rtcp
        for endpoint, relay in ((rtp, shown[0]), (rtcp, shown[1])):
            found = self._mappings.find_outside(relay) if relay else None
            if found is not None and found.relay is not None and found.relay.source is None:
                found.relay.source = endpoint       # it says itself where it sends from
        behind = self._line_behind(turn, line._replace(rtp=shown[0], rtcp=shown[1]))
        return behind or _silent(line), *shown

    def _line_of_own(self, turn: Turn, line: Line) -> Line | None:
        """A PBX on the gateway names its own port: a far UA's relay needs to know it, nobody else does."""
        rtp, call = line.rtp, turn.sender_call
        if rtp is None or call is None or turn.far_receiver is None \
                or rtp.host not in self._realms.own_hosts or not self._is_on_gateway(turn):
            return None
        rtcp = line.rtcp if line.rtcp is not None and line.rtcp.host == rtp.host else None
        try:
            self._streams.map_own(_owner(turn, call, turn.far_receiver.source.host), rtp, rtcp)
        except LimitReached as problem:
            turn.leave("limit", "m=" + line.kind, str(problem), str(rtp))
            return None
        return self._line_behind(turn, line)

    def _is_on_gateway(self, turn: Turn) -> bool:
        return turn.sender is not None and turn.sender.inside.host in self._realms.gateway_hosts

    def _is_trusted(self, turn: Turn) -> bool:
        """Tell whether the sender is a PBX of the operator's, which hands on what its phones have said."""
        sender = turn.sender
        return sender is not None and (
            sender.inside.host in self._settings.inside.pbx or self._is_on_gateway(turn))

    def _is_vouched_for(self, turn: Turn, endpoint: Endpoint) -> bool:
        """Tell whether a trusted PBX hands on what a phone inside has said, not what somebody outside has."""
        return self._is_trusted(turn) and self._realms.is_inside(endpoint.host) \
            and not self._hearsay.has(turn.session, endpoint)

    def _may_release(self, turn: Turn) -> bool:
        """Two UAs behind the same far NAT may talk there; but for the operator's word."""
        return self._policy(turn) != "full" and self._settings.media.release != "never"

    def _relay(
        self, turn: Turn, call: Call | None, far_host: str, line: Line
    ) -> tuple[Endpoint, Endpoint | None] | None:
        """Return the endpoints that stand for media of a UA outside; None where there can be none."""
        header, rtp, rtcp = "m=" + line.kind, line.rtp, line.rtcp
        assert rtp is not None
        if call is None:
            turn.leave("sdp-no-call", header, "no dialog would hold its relay", str(rtp))
            return None
        keys = relay_key(far_host, rtp), relay_key(far_host, rtcp) if rtcp else None
        return self._pair(turn, header, _owner(turn, call, far_host), keys, line.pairs)

    def _is_shown_already(self, turn: Turn, media: Media, rtp: Endpoint) -> bool:
        """Tell whether the sender names an address that is not inside, or one that it learnt itself."""
        if self._realms.is_inside(rtp.host) or not is_usable(rtp.host):
            return False
        if rtp.host in self._realms.own_hosts:
            turn.leave("already-right", "m=" + media.kind, "the UA names the outside address itself",
                       str(rtp))
        return True

    def _is_refused(self, turn: Turn, header: str, endpoint: Endpoint, pairs: int = 1) -> bool:
        """Tell, with a note, where *endpoint* must not get a mapping."""
        reason = self._refusal(turn, endpoint, pairs)
        if reason is not None:
            turn.leave("sdp-refused", header, reason, str(endpoint))
        return reason is not None

    def _refusal(self, turn: Turn, endpoint: Endpoint, pairs: int) -> str | None:
        """Return why *endpoint* must not get a mapping, None where it may (design, section 7)."""
        sender, host = turn.sender, endpoint.host
        assert sender is not None
        if not is_usable(host):
            return "no other host can reach this address"
        if endpoint.port < LOWEST_PORT:
            return "a port below 1024 is a service, not media"
        if host != sender.inside.host and not self._registrations.is_registered(host, sender.inside.host) \
                and host not in self._settings.media.media_hosts \
                and not self._is_vouched_for(turn, endpoint):
            return "the host is neither the sender, nor registered, nor one of [media] media_hosts"
        if pairs > MOST_PAIRS or (pairs > 1 and endpoint.port + 2 * pairs - 1 > LAST_PORT):
            return "more port pairs than any encoding has layers, or than there are ports"
        existing = self._mappings.find(endpoint)
        if existing is not None and existing.kind is Kind.SIGNALLING:
            return "the endpoint carries signalling"
        return None

    # -- mappings ---------------------------------------------------------------------------------

    def _map(
        self, turn: Turn, media: Media, rtp: Endpoint, rtcp: Endpoint | None
    ) -> tuple[Endpoint, Endpoint | None] | None:
        call = turn.sender_call
        if call is None:
            turn.leave("sdp-no-call", "m=" + media.kind, "no dialog would hold its mapping", str(rtp))
            return None
        owner = _owner(turn, call, turn.packet.destination.host)
        return self._pair(turn, "m=" + media.kind, owner, (rtp, rtcp), media.count)

    def _pair(
        self, turn: Turn, header: str, owner: Owner, ends: tuple[Endpoint, Endpoint | None], count: int,
    ) -> tuple[Endpoint, Endpoint | None] | None:
        """Return what stands for a stream's *ends*, None, with a note, where a limit is reached."""
        try:
            return self._streams.map_pair(owner, *ends, count)
        except LimitReached as problem:
            turn.lack(header, str(problem), str(ends[0]))
            return None
        finally:
            for call_id in self._streams.pop_gave_way():
                turn.leave("gave-way", "Call-ID", GAVE_WAY, call_id)

    def _released(
        self, turn: Turn, rtp: Endpoint, rtcp: Endpoint | None
    ) -> tuple[Endpoint, Endpoint | None]:
        """Return the direct endpoints where both ends are inside and may reach each other."""
        receiver = turn.receiver
        mapping = self._mappings.find_outside(rtp)
        if receiver is None or mapping is None or mapping.kind is not Kind.MEDIA \
                or self._policy(turn) == "full" \
                or not self._realms.may_talk_directly(mapping.inside.host, receiver.inside.host):
            return rtp, rtcp
        beside = self._mappings.find_outside(rtcp) if rtcp else None
        return mapping.inside, beside.inside if beside else None


def _owner(turn: Turn, call: Call, remote: str) -> Owner:
    """Return whom streams are for; their media goes by the link that the message itself goes by."""
    own = turn.sender or turn.receiver
    return Owner(call, remote, turn.now, own.outside.host if own is not None else "")


def _silent(line: Line) -> Line:
    """Return *line* without any media."""
    return Line(line.position, line.kind, None, None)
