"""`natfix init`: a small natfix.toml from what can be seen on this gateway, each line with its reason.

:func:`look_around` collects the facts, :func:`configuration_text` writes them down, and neither guesses:
where it is not clear what is outside or inside, the command refuses and says what to add.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from natfix.address import Endpoint, Network, contains
from natfix.check_host import ephemeral_ports, udp_sockets
from natfix.config import Link, Outside, Settings, Signalling, config_from_text
from natfix.errors import ConfigError, NatfixError, NotPermitted
from natfix.findings import Host
from natfix.firewall_now import forwarded_udp_ports
from natfix.interfaces import Links, addresses_report

# The usual one, and one below the ports that Linux gives to its own programs (32768 and above).
PREFERRED_POOLS = ((30000, 39999), (10000, 19999))
PBX_POOL = (10000, 20000)       # RTP of Asterisk, FreePBX and others, by default
LOWEST, HIGHEST = 10000, 65535  # where another pool is looked for
SMALLEST_POOL = 200             # ports; a call takes two for each stream
ANY = "0.0.0.0"
WIDTH = 39                      # columns before a comment


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the configuration is made of."""

    interface: str                              # outside
    address: str                                # its own
    inside: tuple[tuple[Network, str], ...]     # networks, each with its interface ("" where unknown)
    pool: tuple[int, int]                       # media ports, first and last
    pool_reason: str
    listeners: tuple[Endpoint, ...]             # SIP sockets of programs on this gateway
    forwards: Mapping[int, Endpoint]            # the operator's own, of SIP ports, to an inside host
    further: tuple[tuple[str, str], ...] = ()   # other outside links, with their addresses


def look_around(host: Host, interface: str = "") -> Surroundings:
    """Return what is seen on *host*; *interface* is outside where given.

    Raises ConfigError where it is not clear what is outside or inside, or no media ports are free;
    NotPermitted where the operator's rules may not be seen.
    """
    links = host.links()
    interface, *others = [interface] if interface else _default_interfaces(links)
    wanted = Settings(outside=Outside(interface), links=tuple(map(Link, others)))
    report = addresses_report(wanted, links)
    (name, address), *further = report.outside.items()
    if not report.inside:
        raise ConfigError(
            f"no network lies inside: all routes leave by {name}. Set the inside link up, or say which one "
            "is outside: natfix init --outside INTERFACE")
    forwards: dict[int, Endpoint | None] = {}
    for each, own in report.outside.items():
        forwards |= forwarded_udp_ports(host.ruleset(), each, (own,)) if own else {}
    listeners = tuple(_sip_listeners(host, frozenset({ANY, *report.own})))
    if listeners and further:
        raise ConfigError(_unclear(links, "default routes leave by several interfaces, and a PBX here "
                                   f"({listeners[0]}) is served at one of them"))
    taken = _taken_ports(host, forwards, bool(listeners))
    pool, reason = _free_pool(taken, ephemeral_ports(host))
    inside = [network for network, _ in report.inside]
    to_inside = {port: target for port, target in forwards.items()
                 if port in Signalling().ports and target is not None and contains(inside, target.host)}
    return Surroundings(name, address, report.inside, pool, reason, listeners, to_inside, tuple(further))


def _default_interfaces(links: Links) -> tuple[str, ...]:
    """Return the interfaces of default routes, the one that counts first; raises ConfigError where there is
    none, or one may be a VPN's."""
    found = links.default_interfaces
    plain = {route.interface for route in links.routes if not route.network.mask}
    if found and (len(found) == 1 or plain == set(found)):
        return found
    seen = f"default routes leave by {len(found)} interfaces" if found else "there is no default route"
    raise ConfigError(_unclear(links, seen))


def _unclear(links: Links, seen: str) -> str:
    names = ", ".join(links.default_interfaces or links.addressed)
    names = names or "the interface, once one has an IPv4 address"
    return f"{seen}, so it is not clear which is outside: natfix init --outside {names}" \
        + (" (one of them)" if "," in names else "")


def _sip_listeners(host: Host, own: frozenset[str]) -> Iterator[Endpoint]:
    for each in udp_sockets(host.read("proc/thread-self/net/udp")):
        if each.is_server and each.port in Signalling().ports and each.host in own:
            yield Endpoint(each.host, each.port)


def _taken_ports(host: Host, forwards: Iterable[int], has_pbx: bool) -> set[int]:
    """Return the ports that the pool must not have, but for those that the kernel hands out."""
    first, last = Signalling().outside_ports
    taken = {*range(first, last + 1), *Signalling().ports, *forwards}
    taken.update(each.port for each in udp_sockets(host.read("proc/thread-self/net/udp")))
    if has_pbx:
        taken.update(range(PBX_POOL[0], PBX_POOL[1] + 1))
    return taken


def _free_pool(taken: set[int], ephemeral: set[int]) -> tuple[tuple[int, int], str]:
    """Return the media ports, and why these."""
    busy = taken | ephemeral
    for first, last in PREFERRED_POOLS:
        if busy.isdisjoint(range(first, last + 1)):
            return (first, last), "free, and never given to programs here (net.ipv4.ip_local_port_range)"
    first, last = max(_gaps(busy), key=lambda gap: gap[1] - gap[0], default=(0, -1))
    first += first % 2
    if last - first + 1 < SMALLEST_POOL:
        raise ConfigError(
            "no range of UDP ports is free for media: every gap between net.ipv4.ip_local_port_range, your "
            "forwards and the sockets here is too small; narrow the sysctl net.ipv4.ip_local_port_range")
    last -= (last + 1) % 2
    return (first, last), "the widest range that neither programs here nor your forwards use"


def _gaps(busy: set[int]) -> Iterator[tuple[int, int]]:
    start = LOWEST
    for port in [*sorted(port for port in busy if port >= LOWEST), HIGHEST + 1]:
        if port > start:
            yield start, port - 1
        start = port + 1


def configuration_text(seen: Surroundings) -> str:
    """Return a natfix.toml that says what was seen; natfix reads it without complaint."""
    lines = [
        "# Written by `natfix init` from what it saw here; yours to change. `natfix check` reads it,",
        "# `natfix rules --example-config` shows every setting there is.",
        _line("version = 1", "of this file's format"),
        "",
        "[outside]",
        _line(f'interface = "{seen.interface}"', f"the default route leaves by it, from {seen.address}"),
        *[_line("mark = 0x100", "of media of calls by it: natfix check has the ip rule")][:len(seen.further)],
        "",
        "[inside]",
        _line(f"networks = [{_quoted(str(network) for network, _ in seen.inside)}]", _links(seen)),
        *_pbx_inside(seen),
        "",
        "[media]",
        _line(f"ports = [{seen.pool[0]}, {seen.pool[1]}]", seen.pool_reason),
        "",
        "[signalling]",
        _line("ports = [5060]", "of SIP, UDP and TCP; add what your provider uses"),
        *_pbx_here(seen),
        *_trunks(seen),
        *_further_links(seen),
    ]
    return "\n".join(lines) + "\n"


def _line(setting: str, reason: str) -> str:
    return f"{setting:{WIDTH}} # {reason}"


def _quoted(values: Iterable[str]) -> str:
    return ", ".join(f'"{value}"' for value in dict.fromkeys(values))


def _links(seen: Surroundings) -> str:
    return "behind " + ", ".join(dict.fromkeys(link or "another router" for _, link in seen.inside))


def _pbx_inside(seen: Surroundings) -> Iterator[str]:
    hosts = _quoted(target.host for target in seen.forwards.values())
    if hosts:
        yield _line(f"#pbx = [{hosts}]", "take the # away if this PBX leaves media to its phones")


def _pbx_here(seen: Surroundings) -> Iterator[str]:
    if seen.listeners:
        where = ", ".join(map(str, seen.listeners))
        yield from ("", "[gateway]", _line('pbx = "local"', f"a program listens at {where}; its own RTP"))
        yield _line("", "ports must not lie in [media] ports")


def _further_links(seen: Surroundings) -> Iterator[str]:
    for number, (name, address) in enumerate(seen.further, 2):
        said = f"a default route leaves by it, too, from {address or 'no address now'}"
        yield from ("", "[[link]]", _line(f'interface = "{name}"', said),
                    _line(f"mark = {number * 0x100:#x}", "of media of calls by it"))


def _trunks(seen: Surroundings) -> Iterator[str]:
    for port, target in seen.forwards.items():
        yield from (
            "", f"# Your rules forward UDP {port} to {target}. If that PBX does not register at a provider,",
            "# take the # away and put the provider's addresses in:",
            "#[[trunk]]", _line(f'#inside = "{target}"', "the PBX"),
            _line('#peers = ["198.51.100.7"]', "who may call it"))


def write_configuration(text: str, path: Path, force: bool = False) -> None:
    """Write *text* to *path*, whole or not at all; only with *force* over a file that is there.

    Raises ConfigError where one is, or the place does not exist; NotPermitted where it may not be written.
    """
    config_from_text(text, str(path))
    if path.exists() and not force:
        raise ConfigError(f"{path} is there already and stays as it is: natfix init --force writes over it, "
                          "--output FILE writes elsewhere, --output - prints")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w") as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o644)
        Path(name).replace(path)
    except PermissionError as problem:
        raise NotPermitted(f"no right to write {path} ({problem.strerror}): run this as root") from None
    except OSError as problem:
        raise NatfixError(f"{path} cannot be written ({problem.strerror or problem})") from None

