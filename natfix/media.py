"""SDP: inside media endpoints are shown as their outside endpoints, and what the agreed descriptions
need is held in the kernel: mappings, the remotes that may use them, and the flows where both ends are
known (design, sections 5 to 7).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from natfix.address import Endpoint
from natfix.commands import Flow, Kind
from natfix.config import Settings
from natfix.deadlines import NEVER
from natfix.dialogs import Call, Description, Dialog, Line, Side
from natfix.errors import LimitReached, MalformedMessage
from natfix.mappings import ANY_REMOTE, Mapping, Mappings
from natfix.ports import PortPool
from natfix.realms import Realms, is_usable
from natfix.registrations import Registrations
from natfix.sdp import Media, find_sdp, session_from_span
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
MOST_PAIRS = 16         # of one m-line; hierarchical encodings (RFC 8866, section 5.14) have a handful


class MediaKeeper:
    """Treats session descriptions and holds what calls need for their media."""

    def __init__(
        self, settings: Settings, realms: Realms, mappings: Mappings, registrations: Registrations
    ) -> None:
        self._settings = settings
        self._realms = realms
        self._mappings = mappings
        self._registrations = registrations
        self._policies = {peer.address: peer.media for peer in settings.peers if peer.media}
        self.pool = PortPool(*settings.media.ports)

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
        if self._policy(turn) == "never":
            turn.leave("policy", "SDP", "media policy is never")
            return None
        targets = [self._target(turn, media) for media in session.media]
        write(turn, session, targets)
        return tuple(t.sent for t in targets), tuple(t.received for t in targets)

    def _policy(self, turn: Turn) -> str:
        packet = turn.packet
        return (
            self._policies.get(packet.destination.host)
            or self._policies.get(packet.source.host)
            or self._settings.media.policy
        )

    def _target(self, turn: Turn, media: Media) -> Target:
        rtp, rtcp = endpoints_of(media)
        if rtp is None:
            if names_host(media):
                turn.leave("sdp-host-name", "c=", "a host name is not ours to resolve", host_of(media))
            silent = silent_line(media)
            return Target(media, None, None, self._line_on_hold(turn, media) or silent, silent)
        hosts = tuple(dict.fromkeys(c.address for c in media.candidates if is_usable(c.address)))
        sent = Line(media.index, media.kind, rtp, rtcp, hosts, media.count)
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
            sent = self._line_behind(turn, sent) or silent_line(media)
        final_rtp, final_rtcp = shown_rtp, shown_rtcp
        if turn.receiver is not None:
            final_rtp, final_rtcp = self._released(turn, shown_rtp, shown_rtcp)
        received = Line(media.index, media.kind, final_rtp, final_rtcp, hosts)
        changed = (final_rtp, final_rtcp) != (rtp, rtcp)
        return Target(media, final_rtp if changed else None, final_rtcp, sent, received)

    def _line_on_hold(self, turn: Turn, media: Media) -> Line | None:
        """A UA that holds by c=0.0.0.0 (RFC 3264, section 8.4) keeps the mapping that it will resume with."""
        if turn.sender is None or host_of(media) != UNSET_HOST:
            return None
        rtp = Endpoint(turn.sender.inside.host, media.port)
        mapping = self._mappings.find(rtp)
        if mapping is None or mapping.kind is not Kind.MEDIA:
            return None
        return Line(media.index, media.kind, rtp, Endpoint(rtp.host, rtp.port + 1), (), media.count)

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
        mapping = self._mappings.find_outside(outside) if outside else None
        if mapping is None or mapping.kind is not Kind.MEDIA or turn.sender is None:
            return None
        return mapping if mapping.inside.host == turn.sender.inside.host else None

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
                and host not in self._settings.media.media_hosts:
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
        try:
            mapped_rtp, mapped_rtcp = self._find_or_add(turn, media, rtp, rtcp)
        except LimitReached as problem:
            turn.leave("limit", "m=" + media.kind, str(problem), str(rtp))
            return None
        for mapping in (mapped_rtp, mapped_rtcp):
            if mapping is not None:
                self.hold(call, mapping, turn.now)
        shown_rtcp = mapped_rtcp.outside if mapped_rtcp else None
        return mapped_rtp.outside, mapped_rtp.outside if rtcp == rtp else shown_rtcp

    def hold(self, call: Call, mapping: Mapping, now: float) -> None:
        """Keep a media mapping for *call*."""
        if call.holder not in mapping.holders:
            mapping.inward = True
            self._mappings.hold(mapping, call.holder, NEVER, now)
            if self._settings.media.accept_from == "any":
                self._mappings.allow(mapping, ANY_REMOTE, call.holder, now)
        call.held[mapping.inside] = None

    def _find_or_add(
        self, turn: Turn, media: Media, rtp: Endpoint, rtcp: Endpoint | None
    ) -> tuple[Mapping, Mapping | None]:
        """Return the mappings of an RTP endpoint and of its RTCP endpoint, made where they are missing.

        A new pair is even and odd as the inside pair is (RFC 4787, REQ-4); "port/count" takes that many
        pairs in a row (RFC 8866, section 5.14).
        """
        found = self._mappings.find(rtp)
        if rtcp == rtp:
            rtcp = None             # one port for both (RFC 5761)
        found_rtcp = self._mappings.find(rtcp) if rtcp else None
        if found is not None and (rtcp is None or found_rtcp is not None):
            return found, found_rtcp
        remote = turn.packet.destination.host
        if found is not None and rtcp is not None:
            return found, self._add(rtcp, self._port_beside(found, remote, turn.now))
        wants_rtcp = rtcp is not None and found_rtcp is None
        count = 2 * media.count if wants_rtcp else media.count
        self._mappings.check_quota(rtp.host, count)
        first = self.pool.take(count, rtp.port % 2 == 1, remote, turn.now)
        mapping = self._add(rtp, first)
        if wants_rtcp and rtcp is not None:
            found_rtcp = self._add(rtcp, first + 1)
        for step in range(2, count):
            self._add_further(turn, Endpoint(rtp.host, rtp.port + step), first + step)
        self._give_back_unused(range(first, first + count), remote, turn.now)
        return mapping, found_rtcp

    def _give_back_unused(self, ports: range, remote: str, now: float) -> None:
        """Free what a run of ports holds for an inside port that had its mapping before, or has no RTCP."""
        for port in ports:
            if self._mappings.find_outside(Endpoint(self._realms.outside_host, port)) is None:
                self.pool.give_back(port, remote, now)

    def _add_further(self, turn: Turn, inside: Endpoint, port: int) -> None:
        """Map one more port of a "port/count" line."""
        if self._mappings.find(inside) is None and turn.sender_call is not None:
            self.hold(turn.sender_call, self._add(inside, port), turn.now)

    def _add(self, inside: Endpoint, port: int) -> Mapping:
        self.pool.claim(port)
        return self._mappings.add(Kind.MEDIA, inside, Endpoint(self._realms.outside_host, port))

    def _port_beside(self, mapping: Mapping, remote: str, now: float) -> int:
        """Return the free port next to *mapping*'s for its RTCP, or any other."""
        port = mapping.outside.port + 1
        beside = Endpoint(mapping.outside.host, port)
        if port in self.pool and port not in self.pool.excluded \
                and self._mappings.find_outside(beside) is None:
            return port
        return self.pool.take(1, port % 2 == 1, remote, now)

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

    # -- what a call needs --------------------------------------------------------------------------

    def settle(self, call: Call, now: float) -> None:
        """Make the kernel hold just what *call*'s descriptions need now; a dead call keeps what it has."""
        if call.ended_at is not None:
            return
        call.awaits_other = False
        remotes, flows = self._needs(call, now)
        for inside in list(call.held):
            mapping = self._mappings.find(inside)
            if mapping is None:
                del call.held[inside]
            elif inside not in remotes:
                del call.held[inside]
                self._mappings.release(mapping, call.holder, now)
            else:
                self._settle_mapping(call, mapping, remotes[inside], flows.get(inside, ()), now)

    def release(self, call: Call, now: float) -> None:
        """Give back every media mapping that *call* holds."""
        for inside in call.held:
            mapping = self._mappings.find(inside)
            if mapping is not None:
                self._mappings.release(mapping, call.holder, now)
        call.held.clear()

    def _settle_mapping(
        self, call: Call, mapping: Mapping, remotes: Collection[str], flows: Sequence[Flow], now: float
    ) -> None:
        holder = call.holder
        for remote in [r for r, holders in mapping.remotes.items()
                       if r not in remotes and r != ANY_REMOTE and holder in holders]:
            self._mappings.forbid(mapping, remote, holder)
        for remote in remotes:
            self._mappings.allow(mapping, remote, holder, now)
        for flow in [f for f, opened in mapping.flows.items() if f not in flows and holder in opened.holders]:
            self._mappings.drop_flow(mapping, flow, holder)
        for flow in flows:
            self._mappings.keep_flow(mapping, flow, holder, NEVER, now)

    def _needs(
        self, call: Call, now: float
    ) -> tuple[dict[Endpoint, dict[str, None]], dict[Endpoint, list[Flow]]]:
        """Return, by inside media endpoint, the remotes it takes packets from, the surest ones first, and
        the known flows."""
        remotes: dict[Endpoint, dict[str, None]] = {}
        flows: dict[Endpoint, list[Flow]] = {}
        always = {call.peer.host: None} if is_usable(call.peer.host) else {}
        for dialog in call.live_dialogs() or [Dialog("", agreed=dict(call.offer))]:
            hosts = self._remote_hosts(dialog)
            for position, inside in dialog.inside_endpoints(with_refused=call.may_be_answered(now)):
                if inside in call.held:
                    remotes.setdefault(inside, dict(always)).update(hosts.get(position, {}))
            if hosts:
                for inside, flow in self._flows(call, dialog):
                    flows.setdefault(inside, []).append(flow)
        limit = self._settings.limits.remotes_per_dialog
        for inside, named in remotes.items():
            if len(named) > limit:
                remotes[inside] = dict.fromkeys(list(named)[:limit])
        return remotes, flows

    def _remote_hosts(self, dialog: Dialog) -> dict[int, dict[str, None]]:
        """Return, by m-line, the addresses that the other side's packets may come from; candidates last."""
        hosts: dict[int, dict[str, None]] = {}
        lines = [line for description in dialog.said_by(Side.OUTSIDE) for line in description]
        for line in lines:
            named = hosts.setdefault(line.position, {})
            for endpoint in (line.rtp, line.rtcp):
                if endpoint is not None and (host := self._arriving_host(endpoint)):
                    named[host] = None
        for line in lines:
            others = (host for host in line.hosts if not self._realms.is_inside(host))
            hosts[line.position].update(dict.fromkeys(others))
        return hosts

    def _arriving_host(self, remote: Endpoint) -> str:
        """Return the address that *remote*'s packets have at the gateway ("" where none come).

        One of natfix's own mappings sends from its inside address (hairpinning).
        """
        mapping = self._mappings.find_outside(remote)
        if mapping is not None:
            return mapping.inside.host
        if remote.host in self._realms.own_hosts or not is_usable(remote.host):
            return ""
        return remote.host

    def _flows(self, call: Call, dialog: Dialog) -> Iterator[tuple[Endpoint, Flow]]:
        """Yield the conntrack entries that follow from both descriptions, with their inside endpoint."""
        latest = (dialog.latest(Side.INSIDE), dialog.latest(Side.OUTSIDE))
        agreed = (dialog.agreed.get(Side.INSIDE, ()), dialog.agreed.get(Side.OUTSIDE, ()))
        for inside_lines, outside_lines in (latest,) if agreed == latest else (latest, agreed):
            for ours, theirs in zip(inside_lines, outside_lines, strict=False):
                for inside, remote in ((ours.rtp, theirs.rtp), (ours.rtcp, theirs.rtcp)):
                    if inside is not None and remote is not None:
                        flow = self._flow(call, inside, remote)
                        if flow is not None:
                            yield inside, flow

    def _flow(self, call: Call, inside: Endpoint, remote: Endpoint) -> Flow | None:
        mapping = self._mappings.find(inside)
        if mapping is None or not self._arriving_host(remote):
            return None
        other = self._mappings.find_outside(remote)
        if other is not None:
            if not _lets_in(other, inside.host):
                call.awaits_other = True    # until that one's own call names this one, if it ever does
                return None
            return Flow(inside, remote, other.inside, mapping.outside)
        if self._realms.is_inside(remote.host):
            return None         # released: the packets do not cross the NAT
        return Flow(inside, remote, remote, mapping.outside)


def _lets_in(mapping: Mapping, host: str) -> bool:
    """Tell whether *mapping* takes media from *host*."""
    return mapping.kind is Kind.MEDIA and not mapping.remotes.keys().isdisjoint((host, ANY_REMOTE))
