"""Signalling mappings: natfix, not the kernel, decides the outside port of a UDP SIP flow."""

from __future__ import annotations

from natfix.address import SIP_PORT, Endpoint
from natfix.commands import Flow, Kind
from natfix.config import Settings, dropped_hosts, peer_hosts
from natfix.deadlines import NEVER
from natfix.dialogs import Call
from natfix.errors import LimitReached
from natfix.headers import address_or_none
from natfix.mappings import FLOW, Holder, Mapping, Mappings
from natfix.ports import choose_signalling_port
from natfix.realms import Realms, is_usable
from natfix.registrations import Binding
from natfix.sip.message import Message

FLOW_LIFETIME = 120.0       # seconds the outgoing half lives after a packet (design, section 7)
FLOW_TOUCH = 60.0           # it is renewed when this much is left, not at every packet
BINDING_GRACE = 32.0        # seconds a binding's hole outlives it: a transaction that began in time ends
MAX_REMEMBERED_PORTS = 65536
REPLY_TIME = 32.0           # seconds, Timer F (RFC 3261, section 17.1.2.2)
REPLY_TIMES = {"INVITE": 200.0}     # beyond Timer C's 3 minutes
MOST_REPLIERS = 64          # holders of one mapping, beyond which no further replies are let in
LOWEST_PORT = 1024          # below are the gateway's own services


class Signalling:
    """Chooses, holds and opens the mappings of SIP endpoints."""

    def __init__(self, settings: Settings, realms: Realms, mappings: Mappings) -> None:
        self._realms = realms
        self._mappings = mappings
        self.follow(settings)
        self.taken: frozenset[int] = frozenset()            # ports of the outside address that others use
        self.forwards: dict[int, Endpoint | None] = {}      # the operator's own forwards
        self.remembered: dict[Endpoint, int] = {}           # inside endpoint -> its last outside port
        self.changed: set[Endpoint] = set()

    def follow(self, settings: Settings) -> None:
        """Take other settings; mappings stay as they are."""
        self._settings = settings
        self._mappings.watch_spare(*settings.signalling.outside_ports)
        self._peers, self._dropped = peer_hosts(settings), dropped_hosts(settings)
        # A PBX on the gateway may start after natfix, and wants the ports that phones registered at.
        self._reserved = settings.signalling.ports if settings.gateway.pbx == "local" else ()

    def map_endpoint(self, inside: Endpoint, now: float, wanted: int = 0) -> Mapping:
        """Return the signalling mapping of *inside*, made if need be, and renew its outgoing half.

        *wanted* is the outside port that the UA itself names already, 0 where it names none. Raises
        LimitReached where a port or quota is missing or the endpoint carries media.
        """
        mapping = self._mappings.find(inside)
        if mapping is None:
            mapping = self._add(inside, wanted)
        elif mapping.kind is not Kind.SIGNALLING:
            raise LimitReached(f"{inside} is a media endpoint already")
        if mapping.holders.get(FLOW, 0.0) < now + FLOW_TOUCH:
            self._mappings.hold(mapping, FLOW, now + FLOW_LIFETIME, now)
        return mapping

    def map_sender(self, inside: Endpoint, message: Message | None, now: float) -> Mapping:
        """Return the mapping of *inside*, which sends *message* (None: something else); raises likewise."""
        is_new = self._mappings.find(inside) is None
        wanted = self.own_contact_port(message, inside.link) if message is not None and is_new else 0
        return self.map_endpoint(inside, now, wanted)

    def own_contact_port(self, message: Message, link: str = "") -> int:
        """Return the port of a Contact that names the outside *link*'s address already, 0 without one."""
        header = message.first("contact")
        address = address_or_none(message.raw, header.start, header.end) if header is not None else None
        shown = self._realms.outside_of("", link)
        if address is None or address.uri is None or address.uri.hostport.host != shown:
            return 0
        return address.uri.hostport.port or SIP_PORT

    def is_peer(self, host: str) -> bool:
        """Tell whether the operator names *host* as a [[peer]]."""
        return host in self._peers

    def adopt(self, inside: Endpoint, port: int, now: float) -> Mapping | None:
        """Take over a flow that was NATed to *port* before natfix started; None where that is taken."""
        if self._mappings.find(inside) is None:
            outside = Endpoint(self._realms.outside_of(inside.host, inside.link), port)
            if self._mappings.find_outside(outside) is not None:
                return None
            self._remember(inside, port)
            self._mappings.add(Kind.SIGNALLING, inside, outside)
        return self.map_endpoint(inside, now)

    def open_for_binding(self, mapping: Mapping, binding: Binding, now: float) -> None:
        """Let the registrar's requests in for as long as the binding lasts."""
        until = binding.expires_at + BINDING_GRACE
        self._open(mapping, binding.holder, {binding.registrar.host}, until, now)
        self._keep_flow(mapping, binding.registrar, binding.holder, until, now)

    def await_answer(self, mapping: Mapping, call: Call, until: float, now: float) -> None:
        """Keep the way of the final response open while the callee rings.

        Linux forgets a UDP flow after 30 s unless it went both ways for longer than 2 s; a call may ring for
        three minutes (RFC 3261, section 16.6: Timer C). Where no entry can be made, the inward half serves.
        """
        self._open(mapping, call.holder, {call.peer.host} - self._realms.own_hosts, until, now)
        self._keep_flow(mapping, call.peer, call.holder, until, now)

    def open_for_call(self, mapping: Mapping, call: Call, until: float, now: float) -> None:
        """Let a dialog's peers in for its life: who answered, its route set and its Contact."""
        self._open(mapping, call.holder, call.peers - self._realms.own_hosts, until, now)
        self._keep_flow(mapping, call.peer, call.holder, until, now)

    def await_reply(self, mapping: Mapping, server: Endpoint, method: str, now: float) -> None:
        """Let *server* answer at a port that the phone listens at and does not send from."""
        holder = ("reply", str(server))
        if holder in mapping.holders or len(mapping.holders) < MOST_REPLIERS:
            until = now + REPLY_TIMES.get(method, REPLY_TIME)
            self._open(mapping, holder, {server.host}, until, now)
            self._keep_flow(mapping, server, holder, until, now)

    def open_for_trunk(self, inside: Endpoint, peers: tuple[str, ...], port: int, now: float) -> None:
        """Let a declared trunk's provider call a PBX that does not register."""
        mapping = self._mappings.find(inside) or self._add(inside, port)
        holder = trunk_holder(inside)
        self._open(mapping, holder, set(peers), NEVER, now)
        mapping.shown |= {"contact"}    # the operator has told the provider: requests to it name the PBX
        if self._realms.links:
            return      # the PBX's first packet to the provider says by which link it goes
        for peer in peers:
            self._keep_flow(mapping, Endpoint(peer, SIP_PORT), holder, NEVER, now)

    def close_trunk(self, inside: Endpoint, now: float) -> None:
        """Let a trunk's provider in no more; calls that it has go on."""
        mapping = self._mappings.find(inside)
        if mapping is not None:
            self._mappings.release(mapping, trunk_holder(inside), now)

    def _open(
        self, mapping: Mapping, holder: Holder, remotes: set[str], until: float, now: float
    ) -> None:
        """Hold the inward half until *until*, for *remotes*; the peers that the operator lists may use any.

        Whose packets are dropped is let in by nobody: not by a Contact, nor by a registration from before.
        """
        self._mappings.hold(mapping, holder, until, now)
        self._mappings.open_inward(mapping, now)
        for remote in remotes - self._dropped:
            self._mappings.allow(mapping, remote, holder, now)

    def _keep_flow(
        self, mapping: Mapping, peer: Endpoint, holder: Holder, until: float, now: float
    ) -> None:
        if not mapping.has_elements or self._realms.is_inside(peer.host) or not is_usable(peer.host) \
                or peer.host in self._dropped:
            return
        flow = Flow(mapping.inside.on_wire, peer, peer, mapping.outside)
        self._mappings.keep_flow(mapping, flow, holder, until, now, fixed=True)

    def _add(self, inside: Endpoint, wanted: int) -> Mapping:
        self._mappings.check_quota(inside.host)
        host = self._realms.outside_of(inside.host, inside.link)
        if not host:
            raise LimitReached("there is no outside address now")
        if inside.host in self._realms.own_hosts:
            return self._add_own(inside)
        forwarded = (port for port, target in self.forwards.items() if target == inside.on_wire)
        preferred = [
            port for port in (next(forwarded, 0), self.remembered.get(inside, 0), wanted, inside.port)
            if port >= LOWEST_PORT
        ]
        port = choose_signalling_port(
            inside, host, preferred, self._settings.signalling.outside_ports,
            lambda port: self._is_free(port, inside))
        self._remember(inside, port)
        return self._mappings.add(Kind.SIGNALLING, inside, Endpoint(host, port))

    def _add_own(self, endpoint: Endpoint) -> Mapping:
        """A PBX on the gateway, at the outside address, stands for itself."""
        if self._mappings.find_outside(endpoint) is not None:
            raise LimitReached(f"{endpoint} stands for somebody inside already")
        return self._mappings.add(Kind.SIGNALLING, endpoint, endpoint)

    def _is_free(self, port: int, inside: Endpoint) -> bool:
        """Tell whether *inside* may have *port*: the operator's forward of it must lead there too."""
        first, last = self._settings.media.ports
        outside = Endpoint(self._realms.outside_of(inside.host, inside.link), port)
        if self._mappings.find_outside(outside) is not None:
            return False
        if self._realms.has_own_outside(inside.host):
            return port == inside.port      # the operator's own NAT keeps ports as they are
        return (
            (port not in self.taken or (inside.host in self._realms.link_hosts and port == inside.port))
            and (port not in self._reserved or inside.host in self._realms.gateway_hosts)
            and (port not in self.forwards or self.forwards[port] == inside.on_wire)
            and not first <= port <= last
        )

    def _remember(self, inside: Endpoint, port: int) -> None:
        if self.remembered.get(inside) == port:
            return
        if len(self.remembered) >= MAX_REMEMBERED_PORTS:
            forgotten = next(iter(self.remembered))
            del self.remembered[forgotten]
            self.changed.add(forgotten)
        self.remembered[inside] = port
        self.changed.add(inside)


def trunk_holder(inside: Endpoint) -> Holder:
    """Return what holds a declared trunk's mapping."""
    return ("trunk", str(inside))
