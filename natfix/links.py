"""Several outside links: which one a message goes by, and what follows when a peer is reached by another one.

Which link a packet leaves by is the kernel's business (routes, `ip rule`, fail-over). natfix reads it from
the packet, and shows the address of that link. So an inside endpoint of SIP has one mapping for each link
that it uses: a PBX may have a provider at each, with the same port of its own.
"""

from __future__ import annotations

from natfix.address import Endpoint
from natfix.commands import CloseFlow, Flow, Note
from natfix.dialogs import Calls
from natfix.happenings import Happenings
from natfix.mappings import Mapping, Mappings
from natfix.packet import Packet, Path
from natfix.realms import Realms
from natfix.registrations import Registrations

CUT_OFF, GOES_ON = "cut-off", "goes-on"     # events of a call whose outside address, or link, is gone
WHY = {
    CUT_OFF: "its audio went by {host}, which is {what}: a new offer leads it elsewhere (hold and resume)",
    GOES_ON: "{host} is {what}, its audio does not go by it",
}


class OutsideLinks:
    """Tells the links apart, where there are several, and the calls that lose theirs."""

    def __init__(
        self, realms: Realms, mappings: Mappings, registrations: Registrations, calls: Calls,
        happened: Happenings,
    ) -> None:
        self._realms = realms
        self._mappings = mappings
        self._registrations = registrations
        self._calls = calls
        self._happened = happened

    def status(self) -> dict[str, dict[str, str]]:
        """Return the outside links with their addresses, "" for one that is down; nothing where it is one."""
        return {"outside_links": self._realms.links_now()} if self._realms.links else {}

    def place(self, packet: Packet, path: Path, from_inside: bool, to_inside: bool) -> Packet:
        """Return *packet* with its inside ends named as they are at the link that it comes or leaves by."""
        source, destination = packet.source, packet.destination
        if from_inside and to_inside:
            source, destination = self._anywhere(source), self._anywhere(destination)
        elif from_inside:
            source = self._at(source, path.out_interface)
        else:
            destination = self._at(destination, path.in_interface)
        return packet._replace(source=source, destination=destination)

    def _at(self, inside: Endpoint, interface: str) -> Endpoint:
        """A host that the operator gives an outside address of its own has that one at every link."""
        if self._realms.has_own_outside(inside.host):
            return inside
        return inside._replace(link=self._realms.link_of(interface))

    def _anywhere(self, inside: Endpoint) -> Endpoint:
        """A call between two inside hosts leaves by no link: whichever mapping there is serves."""
        if self._mappings.find(inside) is not None:
            return inside
        return next((mapping.inside for mapping in self._mappings.siblings(inside)), inside)

    def take_over(self, inside: Endpoint, peer: Endpoint, now: float) -> list[Note]:
        """Have *inside* reach *peer* by its own link, where it went by another before; return the notes.

        Conntrack has the flow with the other link's address, and this very packet with it: it must not go on.
        UDP repeats it (RFC 3261, section 17.1), as a flow of its own.
        """
        return [note for other in self._mappings.siblings(inside)
                if (note := self._leave(other, inside, peer, now)) is not None]

    def _leave(self, other: Mapping, inside: Endpoint, peer: Endpoint, now: float) -> Note | None:
        kept = [flow for flow in other.flows if flow.destination == peer]
        if peer not in other.sent_to and not kept:
            return None
        other.sent_to = tuple(each for each in other.sent_to if each != peer)
        for flow in kept:
            for holder in tuple(other.flows[flow].holders):
                self._mappings.drop_flow(other, flow, holder)
        if not kept:
            self._mappings.commands.append(CloseFlow(Flow(inside.on_wire, peer, peer, other.outside)))
        for binding in self._registrations.at(other.inside):
            if binding.registrar == peer:
                self._registrations.remove(binding.key)
                self._mappings.release(other, binding.holder, now)
        return Note("link", "", str(other.outside), self._realms.outside_of(inside.host, inside.link),
                    f"{peer} is reached by another outside link now: the sender repeats this as a new flow")

    # -- what a change means for calls ----------------------------------------------------------------

    def tell_calls(self, host: str, what: str, now: float) -> str:
        """Say of each call whether its audio goes by the outside address *host*, which is *what*; return how
        many there are of each kind, in words."""
        counts = {CUT_OFF: 0, GOES_ON: 0}
        for call in self._calls:
            if call.ended_at is None and call.method == "INVITE":
                held = map(self._mappings.find, call.held)
                kind = CUT_OFF if any(each and each.outside.host == host for each in held) else GOES_ON
                counts[kind] += 1
                self._happened.of_call(kind, call, now, why=WHY[kind].format(host=host, what=what))
        return f"calls that lose their audio: {counts[CUT_OFF]}; calls that go on: {counts[GOES_ON]}"
