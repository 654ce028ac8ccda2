"""Which addresses are inside, what the outside address is, and who can reach whom directly."""

from __future__ import annotations

from functools import lru_cache

from natfix.address import UNUSABLE, Endpoint, Network, contains
from natfix.config import Settings
from natfix.reports import AddressesChanged

MAX_REMEMBERED = 4096       # hosts whose side is remembered; only inside hosts and peers are asked for


class Realms:
    """The two realms, as the configuration and the links have them now."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._intranet = tuple((network, "") for network in settings.outside.intranet)
        self._networks: tuple[tuple[Network, str], ...] = (
            *((network, "") for network in settings.inside.networks), *self._intranet)
        self._static = {each.inside: each.outside for each in settings.statics}
        self._known: dict[str, bool] = {}
        self._outside_interfaces: frozenset[str] = frozenset()
        self.outside_host = settings.outside.address
        self._hosts = {"": self.outside_host}       # outside link -> its address, the last one that it had
        self.lost: frozenset[str] = frozenset()     # addresses of outside links that are down, or not there
        self._name_links(settings)
        self.own_hosts: frozenset[str] = frozenset({self.outside_host, *self._static.values()} - {""})
        self.gateway_hosts: frozenset[str] = frozenset()    # where a PBX on the gateway may be
        self.link_hosts: frozenset[str] = frozenset()       # the outside link's own, whatever others see
        self._link = self.outside_host
        self._unseen: frozenset[str] = frozenset()

    def follow(self, settings: Settings) -> None:
        """Take other networks at once where the settings name them; the next report tells them all."""
        links = tuple(each for each in self._networks if each not in self._intranet)
        named = tuple((network, "") for network in settings.inside.networks)
        self._settings = settings
        self._intranet = tuple((network, "") for network in settings.outside.intranet)
        self._networks = (named or links) + self._intranet
        self._known.clear()
        self._name_links(settings)

    def _name_links(self, settings: Settings) -> None:
        """Further outside links have their own names; all else belongs to the first one, ""."""
        self.links = ("", *(each.interface for each in settings.links)) if settings.links else ()
        self._marks = {each.interface: each.mark for each in settings.links} | {"": settings.outside.mark}

    def update(self, report: AddressesChanged) -> bool:
        """Take the links as they are now; True where the outside address became another one."""
        self._networks = report.inside + self._intranet
        self._outside_interfaces = frozenset(report.outside)
        self._known.clear()
        if self.links:
            return self._update_links(report)
        interface = self._settings.outside.interface
        link = self._settings.outside.address or report.outside.get(interface) or next(
            iter(report.outside.values()), self.outside_host)
        address = report.advertised or link
        self._link = link
        self.link_hosts = frozenset({link, *report.outside.values()})
        has_pbx = self._settings.gateway.pbx == "local"
        # A PBX on the gateway that names an address which others do not see is helped as one inside is.
        self._unseen = self.link_hosts - {address} if has_pbx and report.advertised else frozenset()
        self.own_hosts = self.link_hosts.union({address}, self._static.values()) - self._unseen
        self.gateway_hosts = self.link_hosts.union(report.own) if has_pbx else frozenset()
        changed = address != self.outside_host or len(self._hosts) > 1
        self.outside_host, self._hosts = address, {"": address}
        return changed

    def _update_links(self, report: AddressesChanged) -> bool:
        """A link that is gone keeps its address until it is back with another one: it may be the same."""
        first = self._settings.outside.interface
        now = {link: report.outside.get(link or first, "") for link in self.links}
        before = self._hosts
        self._hosts = {link: host or before.get(link, "") for link, host in now.items()}
        self.lost = frozenset(self._hosts[link] for link, host in now.items() if not host) - {""}
        self.link_hosts = frozenset(self._hosts.values()) - {""}
        self.own_hosts = self.link_hosts.union(self._static.values())
        self.outside_host = self._link = next(filter(None, [*now.values(), *self._hosts.values()]), "")
        return self._hosts != before

    @property
    def hosts(self) -> dict[str, str]:
        """The address of each outside link, which is known by its name, the first one by ""."""
        return dict(self._hosts)

    def links_now(self) -> dict[str, str]:
        """The address of each outside link by its interface, "" where it has none now."""
        first = self._settings.outside.interface
        return {link or first: "" if host in self.lost else host for link, host in self._hosts.items()}

    def link_of(self, interface: str) -> str:
        """Return the outside link that *interface* is; "" for the first one, and for all others."""
        return interface if interface in self.links else ""

    def link_at(self, host: str) -> str:
        """Return the outside link that has the address *host*, "" where none has."""
        return next((link for link in self.links if self._hosts.get(link) == host), "")

    def mark_of(self, host: str) -> int:
        """Return the mark of media that must leave from the outside address *host*; 0: none."""
        return self._marks.get(self.link_at(host), 0) if self.links and host in self.link_hosts else 0

    def media_host(self, host: str, shown: str) -> str:
        """Return the outside address for media of an inside *host* whose SIP is shown as *shown*."""
        if self.links and host not in self._static and shown in self.link_hosts:
            return shown
        return self.outside_of(host)

    def still_shows(self, inside: Endpoint, host: str) -> bool:
        """Tell whether a mapping of *inside* to the outside address *host* is one of now."""
        if not self.links or inside.host in self._static:
            return host == self.outside_of(inside.host)
        return host in self.link_hosts

    def seen(self, endpoint: Endpoint) -> Endpoint:
        """Return an endpoint of the link as others see it; any other as it is."""
        if self.links or endpoint.host not in self.link_hosts:
            return endpoint
        return endpoint._replace(host=self.outside_host)

    def on_link(self, endpoint: Endpoint) -> Endpoint:
        """Return an endpoint that others see as what it is on the link: the way there from inside."""
        is_seen = endpoint.host == self.outside_host != self._link
        return endpoint._replace(host=self._link) if is_seen else endpoint

    def outside_of(self, host: str, link: str = "") -> str:
        """Return the outside address of an inside host, by the outside *link*; "" where there is none."""
        return self._static.get(host) or self._hosts.get(link, "")

    def has_own_outside(self, host: str) -> bool:
        """Tell whether an outside address, with all its ports, is *host*'s alone (1:1 NAT)."""
        return host in self._static

    def is_inside(self, host: str) -> bool:
        """Tell whether *host* is an address of an inside network."""
        known = self._known.get(host)
        if known is None:
            if len(self._known) >= MAX_REMEMBERED:
                self._known.clear()
            known = host not in self.own_hosts and (
                host in self._unseen or contains((n for n, _ in self._networks), host))
            self._known[host] = known
        return known

    def crosses(self, in_interface: str, out_interface: str) -> bool:
        """Tell whether a packet on this path is NATed: it comes or leaves by an outside interface.

        A VPN link to another site, for instance, is neither inside nor outside.
        """
        outside = self._outside_interfaces
        return (
            not outside or not (in_interface or out_interface)
            or in_interface in outside or out_interface in outside
        )

    def may_talk_directly(self, host: str, other: str) -> bool:
        """Tell whether two inside hosts may send media to each other past the gateway.

        "subnet" asks for one prefix that holds both, since a gateway's forward rules between two
        inside networks are the operator's business (design, section 7).
        """
        release = self._settings.media.release
        if release == "never" or not (self.is_inside(host) and self.is_inside(other)):
            return False
        if release == "routed":
            return True
        return any(contains((n,), host) and contains((n,), other) for n, _ in self._networks)


@lru_cache(maxsize=MAX_REMEMBERED)
def is_usable(host: str) -> bool:
    """Tell whether a packet can be sent to *host* at all: an IPv4 unicast address of another host."""
    return bool(host) and not contains(UNUSABLE, host)
