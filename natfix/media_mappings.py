"""The mappings of media streams: pairs of ports of the pool, held by calls.

A relay is a mapping too. It stands for a stream of a UA outside that sits behind a NAT of its own (RFC 4787
has no word for it): what is sent to its outside endpoint goes to wherever that UA really sends from.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import NamedTuple

from natfix.address import Endpoint
from natfix.commands import Kind
from natfix.config import Settings
from natfix.deadlines import NEVER
from natfix.dialogs import Call
from natfix.errors import LimitReached
from natfix.mappings import ANY_REMOTE, Mapping, Mappings, is_relay_key, payer_of
from natfix.ports import PortPool
from natfix.realms import Realms
from natfix.shares import GIVE_WAY_AT_ONCE, Shares


class Owner(NamedTuple):
    """Whom a stream's mappings are for."""

    call: Call
    remote: str         # the address that will most likely send to it
    now: float
    shown: str = ""     # where the call's own messages are shown to come from: media goes the same way


class MediaMappings:
    """Makes, holds and gives back the mappings of streams."""

    def __init__(
        self, settings: Settings, realms: Realms, mappings: Mappings, trusted: AbstractSet[str] = frozenset(),
    ) -> None:
        """*trusted* are the hosts that the operator names, as they are at any time."""
        self._accepts_any = settings.media.accept_from == "any"
        self._realms = realms
        self._mappings = mappings
        self.pool = PortPool(*settings.media.ports)
        self._shares = Shares(self.pool, mappings, trusted)
        self._gave_way: list[str] = []

    def follow(self, settings: Settings) -> None:
        """Take other settings; streams keep the ports that they have."""
        self._accepts_any = settings.media.accept_from == "any"
        self.pool.resize(*settings.media.ports)

    def map_pair(
        self, owner: Owner, rtp: Endpoint, rtcp: Endpoint | None, pairs: int = 1,
    ) -> tuple[Endpoint, Endpoint | None]:
        """Return what stands for a stream's endpoints outside; its mappings are made and held.

        *pairs* is what "port/count" says. Raises LimitReached.
        """
        mapped_rtp, mapped_rtcp = self._find_or_add(owner, rtp, rtcp, pairs)
        for mapping in (mapped_rtp, mapped_rtcp):
            if mapping is not None:
                self.hold(owner.call, mapping, owner.now)
        shown_rtcp = mapped_rtcp.outside if mapped_rtcp else None
        return mapped_rtp.outside, mapped_rtp.outside if rtcp == rtp else shown_rtcp

    def map_own(self, owner: Owner, *endpoints: Endpoint | None) -> None:
        """Hold endpoints of a PBX on the gateway, which stand for themselves; raises LimitReached."""
        for endpoint in filter(None, endpoints):
            mapping = self._mappings.find(endpoint)
            if mapping is None:
                if endpoint.port in self.pool or self._mappings.find_outside(endpoint) is not None:
                    raise LimitReached(f"the PBX's own RTP port {endpoint.port} lies in [media] ports")
                self._mappings.check_quota(endpoint.host)
                mapping = self._mappings.add(Kind.MEDIA, endpoint, endpoint)
            if mapping.kind is Kind.MEDIA:
                self.hold(owner.call, mapping, owner.now)

    def hold(self, call: Call, mapping: Mapping, now: float) -> None:
        """Keep a media mapping for *call*."""
        if call.holder not in mapping.holders:
            mapping.inward = True
            self._mappings.hold(mapping, call.holder, NEVER, now)
            if self._accepts_any:
                self._mappings.allow(mapping, ANY_REMOTE, call.holder, now)
        call.held[mapping.inside] = None
        self._shares.note(call, payer_of(mapping.inside))

    def release(self, call: Call, now: float) -> None:
        """Give back every media mapping that *call* holds."""
        for inside in call.held:
            mapping = self._mappings.find(inside)
            if mapping is not None:
                self._mappings.release(mapping, call.holder, now)
        call.held.clear()
        self._shares.forget(call)

    def pop_gave_way(self) -> list[str]:
        """Return the Call-IDs of the calls that have lost their ports since the last call."""
        gave_way, self._gave_way = self._gave_way, []
        return gave_way

    def _make_room(self, owner: Owner, host: str, pairs: int) -> None:
        """Have unanswered calls give way where the pool runs short; raises LimitReached where none can.

        Such a call loses its ports and nothing else: its messages are still made right, and should somebody
        answer it after all, an offer within it gives it other ports.
        """
        for _ in range(GIVE_WAY_AT_ONCE):
            call = self._shares.in_the_way(host, pairs, owner.call)
            if call is None:
                break
            self.release(call, owner.now)
            self._gave_way.append(call.key.call_id)
        self._shares.check(host, pairs)

    def _find_or_add(
        self, owner: Owner, rtp: Endpoint, rtcp: Endpoint | None, pairs: int,
    ) -> tuple[Mapping, Mapping | None]:
        """Return the mappings of an RTP endpoint and of its RTCP endpoint, made where they are missing.

        A new pair is even and odd as the inside pair is (RFC 4787, REQ-4); "port/count" takes that many
        pairs in a row (RFC 8866, section 5.14).
        """
        found = self._find(owner, rtp)
        if rtcp == rtp:
            rtcp = None             # one port for both (RFC 5761)
        found_rtcp = self._find(owner, rtcp) if rtcp else None
        if found is not None and (rtcp is None or found_rtcp is not None):
            return found, found_rtcp
        remote, now = owner.remote, owner.now
        if found is not None and rtcp is not None:
            return found, self._add(owner, rtcp, self._port_beside(found, remote, now))
        wants_rtcp = rtcp is not None and found_rtcp is None
        count = 2 * pairs if wants_rtcp else pairs
        self._make_room(owner, payer_of(rtp), (count + 1) // 2)
        self._mappings.check_quota(rtp.host, count)
        first = self.pool.take(count, rtp.port % 2 == 1, remote, now)
        mapping = self._add(owner, rtp, first)
        if wants_rtcp and rtcp is not None:
            found_rtcp = self._add(owner, rtcp, first + 1)
        for step in range(2, count):
            self._add_further(owner, Endpoint(rtp.host, rtp.port + step), first + step)
        self._give_back_unused(mapping.outside.host, range(first, first + count), remote, now)
        return mapping, found_rtcp

    def _find(self, owner: Owner, inside: Endpoint) -> Mapping | None:
        """Return the mapping of *inside*; one that a call had by another outside link makes way.

        A media endpoint has one outside endpoint at a time, at the link that its call's last offer or answer
        went by: else SDP would name a link that the media does not leave by.
        """
        mapping = self._mappings.find(inside)
        if mapping is None or not self._realms.links or mapping.kind is Kind.SIGNALLING \
                or mapping.outside.host == self._realms.media_host(inside.host, owner.shown):
            return mapping
        self._mappings.remove(mapping, owner.now)
        return None

    def _give_back_unused(self, outside: str, ports: range, remote: str, now: float) -> None:
        """Free what a run of ports holds for an inside port that had its mapping before, or has no RTCP."""
        for port in ports:
            if self._mappings.find_outside(Endpoint(outside, port)) is None:
                self.pool.give_back(port, remote, now)

    def _add_further(self, owner: Owner, inside: Endpoint, port: int) -> None:
        """Map one more port of a "port/count" line."""
        if self._mappings.find(inside) is None:
            self.hold(owner.call, self._add(owner, inside, port), owner.now)

    def _add(self, owner: Owner, inside: Endpoint, port: int) -> Mapping:
        self.pool.claim(port)
        kind = Kind.RELAY if is_relay_key(inside) else Kind.MEDIA
        host = self._realms.media_host(inside.host, owner.shown)
        mapping = self._mappings.add(kind, inside, Endpoint(host, port))
        mapping.mark = self._realms.mark_of(host)
        return mapping

    def _port_beside(self, mapping: Mapping, remote: str, now: float) -> int:
        """Return the free port next to *mapping*'s for its RTCP, or any other."""
        port = mapping.outside.port + 1
        beside = Endpoint(mapping.outside.host, port)
        if port in self.pool and port not in self.pool.excluded \
                and self._mappings.find_outside(beside) is None:
            return port
        return self.pool.take(1, port % 2 == 1, remote, now)
