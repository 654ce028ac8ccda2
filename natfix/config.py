"""Settings: what an operator can choose, with the default and the bounds of each, as frozen data.

``natfix.toml`` is read into these by :func:`config_from_text`; the engine takes them as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from natfix.address import Network, contains, is_ipv4
from natfix.document import Document, Form, Keys, document_from_file, table_name
from natfix.expect import (
    ADVERTISED,
    AGENT_NAME,
    DOMAIN,
    ENDPOINT,
    HOST,
    INTERFACE,
    LISTENER,
    MARK,
    NAMESERVER,
    NETWORK,
    PAGE_PLACE,
    PATH,
    PEER,
    PORT,
    SOCKET_PATH,
    Expectation,
    endpoint_from_setting,
    list_of,
    one_of,
    optional,
    port_range,
    whole_number,
)

MOST_NAMES = 64     # of peers and domains that DNS is asked for
DEFAULT_PATH = "/etc/natfix/natfix.toml"
ALARMS = (
    "alarm", "alarm-over", "shortage", "shortage-over", "limit", "over-rate", "address-changed",
    "rules-restored", "clock-set")
EVENTS = (      # those of `natfix monitor`
    *ALARMS, "call", "ringing", "answered", "ended", "resumed", "registered", "unregistered", "expired",
    "challenged", "refused", "cut-off", "goes-on")

# What nobody here can reach is surely wrong. The other signs are only likely: a provider may well send from
# another address than it wants to be reached at. See natfix.far_signs.
SURE_SIGNS = ("contact-private", "via-private", "sdp-private")
LIKELY_SIGNS = ("contact-differs-from-source", "via-differs-from-source", "source-port-differs")


def _setting(expected: Expectation, default: Any = MISSING) -> Any:
    """Declare one setting: what it may be, and its default; without one it must be given."""
    return field(default=default, metadata={"expected": expected})


@dataclass(frozen=True, slots=True)
class Inside:
    """[inside]: who is behind this gateway."""

    # empty: every connected or routed network that is not outside
    networks: tuple[Network, ...] = _setting(list_of(NETWORK), ())
    pbx: tuple[str, ...] = _setting(list_of(HOST), ())     # whose SDP may name any inside host


@dataclass(frozen=True, slots=True)
class Outside:
    """[outside]: the link that phones' packets leave by."""

    # empty: the interface of the default route; several are an error
    interface: str = _setting(optional(INTERFACE), "")
    address: str = _setting(optional(HOST), "")     # empty: the interface's first address
    # what is shown instead, where another NAT stands before the link
    advertise: str = _setting(optional(ADVERTISED), "")
    # put on packets of the media that must leave by this link, where there are [[link]]s; 0: none
    mark: int = _setting(whole_number(0, 0xFFFFFFFF), 0)
    # networks that the link leads to without NAT: left alone
    intranet: tuple[Network, ...] = _setting(list_of(NETWORK), ())


@dataclass(frozen=True, slots=True)
class Media:
    """[media]: RTP, RTCP and T.38."""

    ports: tuple[int, int] = _setting(port_range(1024), (30000, 39999))     # outside, first and last
    # "full": never release, always through the gateway
    policy: str = _setting(one_of("auto", "full", "never"), "auto")
    # who may talk directly; "routed": any two inside
    release: str = _setting(one_of("subnet", "routed", "never"), "subnet")
    media_hosts: tuple[str, ...] = _setting(list_of(HOST), ())  # servers any inside UA's SDP may name
    accept_from: str = _setting(one_of("signalled", "any"), "signalled")    # who may send to a mapped port
    silence: int = _setting(whole_number(60, 604800, "seconds"), 3600)      # then a call is given up


@dataclass(frozen=True, slots=True)
class Signalling:
    """[signalling]: which packets are diverted, and how."""

    ports: tuple[int, ...] = _setting(list_of(PORT, 1, 15), (5060,))
    outside_ports: tuple[int, int] = _setting(port_range(1024), (20000, 29999))     # where taken already
    mark: int = _setting(MARK, 0x04000000)      # the bit of the conntrack mark that diverts a flow
    queue: int = _setting(whole_number(0, 65535), 5060)     # NFQUEUE number
    divert: str = _setting(one_of("auto", "queue", "nfqueue"), "auto")
    on_failure: str = _setting(one_of("drop", "pass"), "drop")  # SIP while nobody listens to the queue
    # shown outside in place of every phone's User-Agent and Server; empty: theirs
    agent_name: str = _setting(optional(AGENT_NAME), "")


@dataclass(frozen=True, slots=True)
class FarEnd:
    """[far_end]: phones outside that sit behind NATs of their own, and talk to a PBX inside."""

    fix: str = _setting(one_of("auto", "never"), "auto")
    # what tells that a UA is one, see natfix.far_signs
    signs: tuple[str, ...] = _setting(list_of(one_of(*SURE_SIGNS, *LIKELY_SIGNS)), SURE_SIGNS)
    # how the NAT of one is kept open that a registrar has accepted: natfix.keep_alives, natfix.refreshing
    keep_open: str = _setting(one_of("options", "packet", "refresh", "never"), "options")
    keep_open_every: int = _setting(whole_number(10, 3600, "seconds"), 25)
    keep_open_longest: int = _setting(whole_number(10, 3600, "seconds"), 120)   # where the NAT allows it


@dataclass(frozen=True, slots=True)
class Gateway:
    """[gateway]: what runs on this machine itself."""

    pbx: str = _setting(one_of("none", "local"), "none")    # "local": SIP of its own is led to natfix, too


@dataclass(frozen=True, slots=True)
class Peer:
    """[[peer]]: who may talk to every phone that can be reached, wherever that has registered."""

    address: str = _setting(PEER)       # or a name, whose addresses DNS tells
    # overrides [media] policy for messages to and from this peer; "" does not
    media: str = _setting(optional(one_of("auto", "full", "never")), "")
    # "": that of the domain that a message names, else "fix"; see natfix.policies
    policy: str = _setting(optional(one_of("fix", "pass", "drop")), "")


@dataclass(frozen=True, slots=True)
class Domain:
    """[[domain]]: what holds for messages whose To or From names a domain; its servers are peers."""

    # "*.example.com" stands for its subdomains, "*" for all that no other entry names; neither has servers
    name: str = _setting(DOMAIN)
    # instead of [media] policy; what a peer has comes first
    media: str = _setting(optional(one_of("auto", "full", "never")), "")
    policy: str = _setting(one_of("fix", "pass", "drop"), "fix")


@dataclass(frozen=True, slots=True)
class Trunk:
    """[[trunk]]: a PBX inside that does not register, and the provider that may call it."""

    inside: str = _setting(ENDPOINT)        # "192.168.1.5:5060"; the port may be left out
    peers: tuple[str, ...] = _setting(list_of(HOST, 1))     # the provider's addresses
    outside_port: int = _setting(whole_number(0, 65535), 0)     # 0: the inside port where it is free


@dataclass(frozen=True, slots=True)
class Static:
    """[[static]]: an inside host that the operator gives an outside address of its own (1:1 NAT)."""

    inside: str = _setting(HOST)
    outside: str = _setting(HOST)


@dataclass(frozen=True, slots=True)
class Link:
    """[[link]]: one more outside link; each message is shown with the address of the link it leaves by."""

    interface: str = _setting(INTERFACE)
    address: str = _setting(optional(HOST), "")     # empty: the interface's first address
    # put on packets of the media that must leave by it, for an `ip rule fwmark` of yours; 0: none
    mark: int = _setting(whole_number(0, 0xFFFFFFFF), 0)


@dataclass(frozen=True, slots=True)
class Limits:
    """[limits]: bounds of what one inside host, and all of them, can take."""

    mappings: int = _setting(whole_number(2, 1048576), 65536)           # in all
    mappings_per_host: int = _setting(whole_number(2, 1048576), 4096)   # an RTP stream takes two
    dialogs: int = _setting(whole_number(1, 1048576), 20000)
    dialogs_per_host: int = _setting(whole_number(1, 1048576), 2000)
    registrations: int = _setting(whole_number(1, 1048576), 60000)
    registrations_per_host: int = _setting(whole_number(1, 1048576), 2000)
    streams: int = _setting(whole_number(1, 1048576), 65536)        # TCP connections
    streams_per_host: int = _setting(whole_number(1, 1048576), 2048)
    remotes_per_dialog: int = _setting(whole_number(1, 1024), 32)   # media addresses the filter opens for
    # a second, beyond which INVITE, REGISTER, OPTIONS... of one host are dropped; 0: no bound
    requests_per_host: int = _setting(whole_number(0, 1048576), 500)    # by one inside host
    requests_per_peer: int = _setting(whole_number(0, 1048576), 500)    # by one outside host not named here
    packets_per_host: int = _setting(whole_number(0, 1048576), 1000)    # of whatever kind, of whatever host


@dataclass(frozen=True, slots=True)
class Export:
    """[export]: copies of what natfix treats, for those who watch calls."""

    hep: str = _setting(optional(LISTENER), "")     # HEPv3, each message before and after: Homer, sngrep
    hep_id: int = _setting(whole_number(0, 0xFFFFFFFF), 5060)   # tells one gateway from others
    json: str = _setting(optional(LISTENER), "")    # one line of JSON for each message
    # "short": no messages, of JSON only what was changed; "off": until `natfix export` says otherwise
    level: str = _setting(one_of("full", "short", "off"), "full")
    hook: str = _setting(optional(PATH), "")        # a program that is run for events
    hook_events: tuple[str, ...] = _setting(list_of(one_of(*EVENTS), 1), ALARMS)


@dataclass(frozen=True, slots=True)
class Page:
    """[page]: what `natfix page` shows, a process of its own."""

    # an address and a port, or the path of a Unix socket; elsewhere than on loopback with a password only
    listen: str = _setting(PAGE_PLACE, "127.0.0.1:8060")
    password_file: str = _setting(optional(PATH), "")       # its first line


@dataclass(frozen=True, slots=True)
class Daemon:
    """[daemon]: files and logging."""

    control_socket: str = _setting(SOCKET_PATH, "/run/natfix/control.sock")
    state_file: str = _setting(PATH, "/var/lib/natfix/state.sqlite")
    # who is asked for the names of peers and domains; empty: whom /etc/resolv.conf names
    nameservers: tuple[str, ...] = _setting(list_of(NAMESERVER, 0, 3), ())
    log_level: str = _setting(one_of("error", "info", "debug"), "info")


@dataclass(frozen=True, slots=True)
class Settings:
    """All of natfix.toml."""

    version: int = _setting(whole_number(1, 1), 1)      # of the file's own format
    quirks_files: tuple[str, ...] = _setting(list_of(PATH), ())     # beside the shipped rules/quirks.toml
    inside: Inside = field(default_factory=Inside)
    outside: Outside = field(default_factory=Outside)
    media: Media = field(default_factory=Media)
    signalling: Signalling = field(default_factory=Signalling)
    far_end: FarEnd = field(default_factory=FarEnd)
    gateway: Gateway = field(default_factory=Gateway)
    limits: Limits = field(default_factory=Limits)
    export: Export = field(default_factory=Export)
    page: Page = field(default_factory=Page)
    daemon: Daemon = field(default_factory=Daemon)
    peers: tuple[Peer, ...] = ()
    domains: tuple[Domain, ...] = ()
    trunks: tuple[Trunk, ...] = ()
    statics: tuple[Static, ...] = ()
    links: tuple[Link, ...] = ()    # outside ones, besides that of [outside]


TABLES: dict[str, type] = {
    "inside": Inside, "outside": Outside, "media": Media, "signalling": Signalling, "far_end": FarEnd,
    "gateway": Gateway, "limits": Limits, "export": Export, "page": Page,
    "daemon": Daemon,
}
ARRAYS: dict[str, tuple[str, type]] = {
    "peer": ("peers", Peer), "domain": ("domains", Domain), "trunk": ("trunks", Trunk),
    "static": ("statics", Static), "link": ("links", Link),
}


def config_from_text(text: str, where: str) -> Settings:
    """Return the settings that the TOML *text* makes; *where* names it in messages.

    Raises ConfigError whose text has one line "where:line: ..." for each fault.
    """
    return _settings_from_document(Document(text, where))


def config_from_file(path: Path | str) -> Settings:
    """Return the settings that the file at *path* makes; raises like :func:`config_from_text`,
    ConfigError where there is no such file, NotPermitted where it may not be read."""
    return _settings_from_document(document_from_file(path, "configuration file"))


def settings_from(path: str) -> Settings:
    """Return the settings of the file at *path*; with "", those of :data:`DEFAULT_PATH`, or the defaults
    where that does not exist. Raises like :func:`config_from_file`."""
    if not path and not Path(DEFAULT_PATH).exists():
        return Settings()
    return config_from_file(path or DEFAULT_PATH)


def named_hosts(settings: Settings) -> frozenset[str]:
    """Return the hosts that a [[peer]], a [[trunk]] or [inside] pbx names."""
    trunks = settings.trunks
    return frozenset([
        *settings.inside.pbx, *peer_hosts(settings),
        *(endpoint_from_setting(trunk.inside, 5060).host for trunk in trunks),
        *(peer for trunk in trunks for peer in trunk.peers)])


def peer_hosts(settings: Settings) -> frozenset[str]:
    """Return the addresses, not the names, of each [[peer]] that may talk."""
    return frozenset(
        peer.address for peer in settings.peers if is_ipv4(peer.address) and peer.policy != "drop")


def dropped_hosts(settings: Settings) -> frozenset[str]:
    """Return the address of each [[peer]] whose policy is "drop"; a name never has it."""
    return frozenset(peer.address for peer in settings.peers if peer.policy == "drop")


def names_to_resolve(settings: Settings) -> dict[str, bool]:
    """Return each name whose servers are peers, in small letters, and whether it is a host's (a [[peer]]'s).

    A domain that is dropped is not asked for: who is unwanted must not say whose packets are dropped.
    """
    hosts = {peer.address.lower(): True for peer in settings.peers if not is_ipv4(peer.address)}
    domains = {domain.name.lower(): False for domain in settings.domains
               if domain.policy != "drop" and not domain.name.startswith("*") and not is_ipv4(domain.name)}
    return hosts | domains | hosts


def with_control_socket(settings: Settings, path: str) -> Settings:
    """Return *settings* with another control socket, unless *path* is ""."""
    if not path:
        return settings
    return replace(settings, daemon=replace(settings.daemon, control_socket=path))


def expectations(table: type) -> dict[str, Expectation]:
    """Return what each key of one of the classes above may hold."""
    return {each.name: each.metadata["expected"] for each in fields(table) if "expected" in each.metadata}


def _settings_from_document(document: Document) -> Settings:
    values = _top_level(document)
    for name, table in TABLES.items():
        if name in document.data and _has_form(document, name, dict, f"[{name}]"):
            values[name] = _read(document, (name,), table)
    for name, (attribute, table) in ARRAYS.items():
        if name in document.data and _has_form(document, name, list, f"[[{name}]]"):
            entries = [_read(document, (name, index), table) for index in range(len(document.data[name]))]
            values[attribute] = tuple(entries)
    document.refuse_if_wrong()
    settings = Settings(**values)
    for keys, problem in _conflicts(settings):
        document.complain(keys, problem)
    document.refuse_if_wrong()
    return settings


def _top_level(document: Document) -> dict[str, Any]:
    form = Form(expectations(Settings), tables=(*TABLES, *ARRAYS), homes=_HOMES)
    return document.read_table((), form)


def _has_form(document: Document, name: str, form: type, written: str) -> bool:
    value = document.data[name]
    if form is dict and isinstance(value, dict):
        return True
    if form is list and isinstance(value, list) and all(isinstance(entry, dict) for entry in value):
        return True
    document.complain((name,), f"{name} must be a table: write {written} on a line of its own")
    return False


def _read(document: Document, keys: Keys, table: type) -> Any:
    required = frozenset(each.name for each in fields(table) if each.default is MISSING)
    values = document.read_table(keys, Form(expectations(table), required, homes=_HOMES))
    return table(**values) if required <= values.keys() else None


def _conflicts(settings: Settings) -> Iterator[tuple[Keys, str]]:
    """Yield what is right by itself, and wrong together."""
    yield from _port_conflicts(settings)
    yield from _peer_conflicts(settings)
    yield from _twice(("domain",), "name", [domain.name.lower() for domain in settings.domains])
    yield from _twice(("trunk",), "inside", [_trunk_endpoint(trunk) for trunk in settings.trunks])
    yield from _twice(("trunk",), "outside_port", [each.outside_port for each in settings.trunks])
    if settings.far_end.keep_open_longest < settings.far_end.keep_open_every:
        yield ("far_end", "keep_open_longest"), "keep_open_longest is below keep_open_every"
    yield from _twice(("static",), "inside", [each.inside for each in settings.statics])
    yield from _twice(("static",), "outside", [each.outside for each in settings.statics])
    yield from _link_conflicts(settings)
    networks = settings.inside.networks
    if any(network.mask == 0 for network in networks):
        yield ("inside", "networks"), "0.0.0.0/0 would make everybody inside; name the phones' networks"
    elif contains(networks, settings.outside.address):
        yield ("outside", "address"), f"{settings.outside.address} lies in one of the [inside] networks"
    for index, trunk in enumerate(settings.trunks):
        if networks and not contains(networks, endpoint_from_setting(trunk.inside, 5060).host):
            yield ("trunk", index, "inside"), f"{trunk.inside} lies in none of the [inside] networks"


def _peer_conflicts(settings: Settings) -> Iterator[tuple[Keys, str]]:
    yield from _twice(("peer",), "address", [peer.address.lower() for peer in settings.peers])
    for index, peer in enumerate(settings.peers):
        if peer.policy == "drop" and not is_ipv4(peer.address):
            yield ("peer", index, "policy"), (
                f"{peer.address} cannot be dropped by its name, whose owner would choose whose packets that "
                "are; give addresses, or a [[domain]]")
    count = len(names_to_resolve(settings))
    if count > MOST_NAMES:
        yield (), f"{count} names of peers and domains are to be resolved, {MOST_NAMES} at most can be"


def _link_conflicts(settings: Settings) -> Iterator[tuple[Keys, str]]:
    outside, links = settings.outside, settings.links
    if not links:
        return
    if outside.advertise:
        yield ("outside", "advertise"), "is for one outside link; it cannot be used with [[link]]"
    if settings.gateway.pbx == "local":
        yield ("gateway", "pbx"), "a PBX on the gateway is served at one outside link, not with [[link]]"
    for key in ("interface", "address", "mark"):
        values = [getattr(each, key) for each in (outside, *links)]
        for index, value in enumerate(values):
            if value and value in values[:index]:
                yield ("link", index - 1, key), f"{key} {value} is another outside link's already"


def _port_conflicts(settings: Settings) -> Iterator[tuple[Keys, str]]:
    (first, last), outside = settings.media.ports, settings.signalling.outside_ports
    if last - (first + first % 2) < 1:
        yield ("media", "ports"), f"{first} to {last} holds no even port with the odd one above it"
    if first <= outside[1] and outside[0] <= last:
        yield ("media", "ports"), (
            f"{outside[0]} to {outside[1]} overlaps [media] ports {first} to {last}; keep them apart")
    for port in settings.signalling.ports:
        if first <= port <= last:
            yield ("signalling", "ports"), f"SIP port {port} lies in [media] ports {first} to {last}"
    for index, trunk in enumerate(settings.trunks):
        if first <= trunk.outside_port <= last:
            yield ("trunk", index, "outside_port"), (
                f"{trunk.outside_port} lies in [media] ports {first} to {last}; choose another")


def _trunk_endpoint(trunk: Trunk) -> str:
    return str(endpoint_from_setting(trunk.inside, 5060))


def _twice(array: Keys, key: str, values: list[Any]) -> Iterator[tuple[Keys, str]]:
    for index, value in enumerate(values):
        if value and value in values[:index]:
            yield (*array, index, key), f"{table_name((*array, index))} {key} {value} is there already, above"


def _homes() -> dict[str, str]:
    """Return where each key belongs, for the suggestion to one who put it into the wrong table."""
    homes = dict.fromkeys(expectations(Settings), "the top level, above all tables")
    for name, table in TABLES.items():
        for key in expectations(table):
            homes[key] = f"{homes[key]} or [{name}]" if key in homes else f"[{name}]"
    return homes


_HOMES = _homes()
