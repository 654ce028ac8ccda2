"""What a call needs in the kernel for its media, as its descriptions stand: who may send to which mapping,
and the entries where both ends are known (design, sections 6 and 7).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from natfix.address import Endpoint
from natfix.commands import Flow, Kind
from natfix.config import Settings
from natfix.deadlines import NEVER
from natfix.dialogs import Call, Dialog, Side
from natfix.far_ends import FarEnds
from natfix.mappings import ANY_REMOTE, Mapping, Mappings, relay_key
from natfix.realms import Realms, is_usable

UNKNOWN_RELAY = Endpoint("", 0)     # a far UA that has not said yet where it wants its media


@dataclass(slots=True)
class Needs:
    """What a call needs, by inside media endpoint."""

    remotes: dict[Endpoint, dict[str, None]] = field(default_factory=dict)  # who may send; the surest first
    flows: dict[Endpoint, list[Flow]] = field(default_factory=dict)         # entries whose ends are known
    faces: dict[Endpoint, dict[str, Endpoint]] = field(default_factory=dict)    # far UAs, and their relays


class Settling:
    """Brings mappings in line with what calls have agreed."""

    def __init__(
        self, settings: Settings, realms: Realms, mappings: Mappings, far_ends: FarEnds,
    ) -> None:
        self._limit = settings.limits.remotes_per_dialog
        self._realms = realms
        self._mappings = mappings
        self._far_ends = far_ends

    def follow(self, settings: Settings) -> None:
        """Take other limits, for what is settled from now on."""
        self._limit = settings.limits.remotes_per_dialog

    def settle(self, call: Call, now: float) -> None:
        """Make the kernel hold just what *call*'s descriptions need now; a dead call keeps what it has."""
        if call.ended_at is not None:
            return
        call.awaits_other = False
        needs = self._needs(call, now)
        for inside in list(call.held):
            mapping = self._mappings.find(inside)
            if mapping is None:
                del call.held[inside]
            elif inside not in needs.remotes:
                del call.held[inside]
                self._mappings.release(mapping, call.holder, now)
            else:
                self._settle_mapping(call, mapping, needs, now)

    def _settle_mapping(self, call: Call, mapping: Mapping, needs: Needs, now: float) -> None:
        holder, inside = call.holder, mapping.inside
        remotes, flows = needs.remotes[inside], needs.flows.get(inside, ())
        if inside in needs.faces or (mapping.faces and mapping.relay is None):
            self._mappings.face(mapping, needs.faces.get(inside, {}), now)
        for remote in [r for r, holders in mapping.remotes.items()
                       if r not in remotes and r != ANY_REMOTE and holder in holders]:
            self._mappings.forbid(mapping, remote, holder)
        for remote in remotes:
            self._mappings.allow(mapping, remote, holder, now)
        for flow in [f for f, opened in mapping.flows.items() if f not in flows and holder in opened.holders]:
            self._mappings.drop_flow(mapping, flow, holder)
        for flow in flows:
            self._mappings.keep_flow(mapping, flow, holder, NEVER, now)

    def _needs(self, call: Call, now: float) -> Needs:
        needs = Needs()
        always = {call.peer.host: None} if is_usable(call.peer.host) else {}
        is_far = self._far_ends.find(call.peer) is not None
        for dialog in call.live_dialogs() or [Dialog("", agreed=dict(call.offer))]:
            hosts = self._remote_hosts(dialog)
            for position, inside in dialog.inside_endpoints(with_refused=call.may_be_answered(now)):
                if inside in call.held:
                    needs.remotes.setdefault(inside, dict(always)).update(hosts.get(position, {}))
                    if is_far and not hosts:
                        needs.faces.setdefault(inside, {})[call.peer.host] = UNKNOWN_RELAY
            for relay in self._relays(dialog):
                needs.remotes.setdefault(relay, {})
            if hosts:
                self._pair(call, dialog, needs)
        for inside, named in needs.remotes.items():
            if len(named) > self._limit:
                needs.remotes[inside] = dict.fromkeys(list(named)[:self._limit])
        return needs

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

    def _relays(self, dialog: Dialog) -> Iterator[Endpoint]:
        """Yield the relays that the outside party's own descriptions have led to."""
        for description in dialog.said_by(Side.OUTSIDE):
            for line in description:
                for endpoint in (line.rtp, line.rtcp):
                    mapping = self._mappings.find_outside(endpoint) if endpoint else None
                    if mapping is not None and mapping.relay is not None:
                        yield mapping.inside

    def _arriving_host(self, remote: Endpoint) -> str:
        """Return the address that *remote*'s packets have at the gateway ("" where none come).

        One of natfix's own mappings sends from its inside address (hairpinning), a relay's far UA from the
        outside of its own NAT.
        """
        mapping = self._mappings.find_outside(remote)
        if mapping is not None:
            return mapping.relay.far_host if mapping.relay is not None else mapping.inside.host
        if remote.host in self._realms.own_hosts or not is_usable(remote.host):
            return ""
        return remote.host

    def _pair(self, call: Call, dialog: Dialog, needs: Needs) -> None:
        """Add the conntrack entries that follow from both descriptions, and who faces a relay."""
        latest = (dialog.latest(Side.INSIDE), dialog.latest(Side.OUTSIDE))
        agreed = (dialog.agreed.get(Side.INSIDE, ()), dialog.agreed.get(Side.OUTSIDE, ()))
        for inside_lines, outside_lines in (latest,) if agreed == latest else (latest, agreed):
            for ours, theirs in zip(inside_lines, outside_lines, strict=False):
                for inside, remote in ((ours.rtp, theirs.rtp), (ours.rtcp, theirs.rtcp)):
                    if inside is not None and remote is not None:
                        self._pair_endpoints(call, inside, remote, needs)

    def _pair_endpoints(self, call: Call, inside: Endpoint, remote: Endpoint, needs: Needs) -> None:
        mapping, other = self._mappings.find(inside), self._mappings.find_outside(remote)
        if mapping is None or not self._arriving_host(remote):
            return
        if other is None and mapping.relay is not None:     # the other leg's PBX was told a relay instead
            other = self._mappings.find(relay_key(remote.host, remote))
        if other is not None and other.relay is not None:
            needs.faces.setdefault(inside, {})[other.relay.far_host] = other.outside
            flow = _relayed(mapping, other)
        else:
            flow = self._flow(call, mapping, remote, other)
        if flow is not None:
            needs.flows.setdefault(inside, []).append(flow)

    def _flow(self, call: Call, mapping: Mapping, remote: Endpoint, other: Mapping | None) -> Flow | None:
        inside = mapping.inside
        if mapping.relay is not None:
            if mapping.relay.source is None or self._realms.is_inside(remote.host):
                return None
            return Flow(mapping.relay.source, mapping.outside, remote, mapping.outside)
        if other is not None:
            if not _lets_in(other, inside.host):
                call.awaits_other = True    # until that one's own call names this one, if it ever does
                return None
            return Flow(inside, remote, other.inside, mapping.outside)
        if mapping.is_own:
            return None         # nothing to translate
        if self._realms.is_inside(remote.host):
            return None         # released: the packets do not cross the NAT
        return Flow(inside, remote, remote, mapping.outside)


def _relayed(mapping: Mapping, relay: Mapping) -> Flow | None:
    """Return the one entry that carries a relayed stream, once its ends are learnt.

    What *mapping* stands for sends to the relay's outside endpoint; the far UA, wherever it sends from, to
    *mapping*'s. Where that is a relay too, two learnt sources are joined.
    """
    assert relay.relay is not None
    near = mapping.inside if mapping.relay is None else mapping.relay.source
    far = relay.relay.source
    if near is None or far is None:
        return None
    return Flow(near, relay.outside, far, mapping.outside)


def _lets_in(mapping: Mapping, host: str) -> bool:
    """Tell whether *mapping* takes media from *host*."""
    return mapping.kind is Kind.MEDIA and not mapping.remotes.keys().isdisjoint((host, ANY_REMOTE))
