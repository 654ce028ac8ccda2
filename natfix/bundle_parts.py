"""What `natfix bundle` looks at: one row for each file in it, with what it is and who is asked for it.

Everything here only looks. What cannot be had is an error with its reason, and costs that one file.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from natfix import __version__, check
from natfix.config import DEFAULT_PATH, Settings
from natfix.control import request
from natfix.errors import NatfixError
from natfix.findings import Host
from natfix.firewall_now import LEGACY_TABLES
from natfix.journal import RING
from natfix.kernel import libnftables
from natfix.kernel.base import FlowState
from natfix.kernel.conntrack import Conntrack
from natfix.kernel.netlink import Connection
from natfix.kernel.probe import probe
from natfix.programs import output_of
from natfix.rules import nft_text, skeleton_for

MOST_EXPLAINED = 20         # calls
JOURNAL_LINES = 3000
MOST_ENTRIES = 5000         # of conntrack
PROTOCOLS = {"udp": socket.IPPROTO_UDP, "tcp": socket.IPPROTO_TCP}

SYSCTLS = (
    "net.ipv4.ip_forward", "net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports",
    "net.netfilter.nf_conntrack_acct", "net.netfilter.nf_conntrack_buckets",
    "net.netfilter.nf_conntrack_count", "net.netfilter.nf_conntrack_helper", "net.netfilter.nf_conntrack_max",
    "net.netfilter.nf_conntrack_tcp_timeout_established", "net.netfilter.nf_conntrack_udp_timeout",
    "net.netfilter.nf_conntrack_udp_timeout_stream", "net.bridge.bridge-nf-call-iptables",
    "net.core.rmem_default", "net.core.rmem_max")
PER_LINK = ("forwarding", "rp_filter", "src_valid_mark", "route_localnet", "accept_local")
MODULES = ("nf_", "nft_", "xt_", "ip_", "ipt_", "nfnetlink", "br_netfilter", "x_tables", "iptable")
RELEASE = ("PRETTY_NAME=", "ID=", "VERSION_ID=")
UNIT = ("LoadState", "ActiveState", "SubState", "Result", "NRestarts", "ExecMainStatus",
        "ExecMainStartTimestamp", "StateChangeTimestamp", "UnitFileState", "FragmentPath", "DropInPaths",
        "StatusText", "MemoryCurrent", "CPUUsageNSec")

Answer = dict[str, Any]


class Part(NamedTuple):
    """One file of the bundle."""

    name: str
    what: str                       # for the manifest
    get: Callable[[], str]          # raises NatfixError or OSError where it cannot be had


class Machine(NamedTuple):
    """Who is asked."""

    settings: Settings
    config: str = ""                # as on the command line; "" for the usual place
    root: Path = Path("/")          # where proc, sys and etc are

    @property
    def host(self) -> Host:
        """As `natfix check` sees it."""
        return Host(self.settings, self.root)


def parts(machine: Machine) -> Iterator[Part]:
    """Yield all files but the manifest."""
    yield Part("version.txt", "natfix, Python, kernel, distribution", partial(_version, machine))
    yield from _configuration(machine)
    yield Part("check.json", "what natfix check says", partial(_check, machine))
    yield from _daemon(machine.settings.daemon.control_socket)
    yield from _rules(machine)
    yield from _network(machine)
    yield from _service()


def _version(machine: Machine) -> str:
    release = machine.host.read("etc/os-release").splitlines()
    uname = platform.uname()        # not its node
    return "\n".join((
        f"natfix {__version__}", f"python {sys.version.split()[0]} ({sys.executable})",
        f"kernel {uname.release} {uname.version} {uname.machine}",
        f"made {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}",
        f"up {machine.host.read('proc/uptime').partition('.')[0]} s",
        *(line for line in release if line.startswith(RELEASE)))) + "\n"


# -- natfix itself -----------------------------------------------------------------------------------------


def _configuration(machine: Machine) -> Iterator[Part]:
    path = Path(machine.config or DEFAULT_PATH)
    yield Part("config/natfix.toml", f"the configuration, {path}", partial(_text_of, path))
    for number, each in enumerate(machine.settings.quirks_files, 1):
        yield Part(f"config/quirks-{number}.toml", f"repairs, {each}", partial(_text_of, Path(each)))


def _text_of(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        raise NatfixError(f"there is no {path}, so the defaults hold") from None


def _check(machine: Machine) -> str:
    settings, findings, code = check.read_configuration(machine.config)
    host = Host(settings if code else machine.settings, machine.root)
    return _as_json(check.as_document(check.check_all(host, findings, code)))


def _as_json(document: Answer) -> str:
    return json.dumps(document, indent=2) + "\n"


def _daemon(socket_path: str) -> Iterator[Part]:
    """Yield what the running natfix tells of itself."""
    for name, what, more in (
        ("status", "its state and counters", {}), ("calls", "calls, streams, packet counters", {}),
        ("registrations", "who has registered", {}), ("uas", "who sends what", {}),
        ("notes", f"the last {RING} decisions, with reasons", {"count": RING}),
    ):
        yield Part(f"daemon/{name}.json", f"natfix {name}: {what}",
                   partial(_asked, socket_path, {"command": name, **more}))
    yield Part("daemon/explain.json", f"natfix explain, of the last {MOST_EXPLAINED} calls",
               partial(_explained, socket_path))


def _asked(socket_path: str, question: Answer) -> str:
    return _as_json(request(socket_path, question))


def _explained(socket_path: str) -> str:
    """Return the explanations of the last calls; of those that are known, the live ones first."""
    live = [call["call_id"] for call in request(socket_path, {"command": "calls"})["calls"]]
    notes = request(socket_path, {"command": "notes", "count": RING})["decisions"]
    known = dict.fromkeys([*reversed(live), *(entry.get("call_id", "") for entry in reversed(notes))])
    found: list[Answer] = []
    for call_id in filter(None, known):
        if len(found) >= MOST_EXPLAINED:
            break
        try:
            found.append(request(socket_path, {"command": "explain", "call": call_id}))
        except NatfixError:         # a registration, say
            continue
    return _as_json({"schema_version": 1, "calls": found})


# -- the kernel ----------------------------------------------------------------------------------------------


def _rules(machine: Machine) -> Iterator[Part]:
    yield Part("rules/nft.txt", "nft list ruleset, without the elements of sets",
               lambda: libnftables.run("list ruleset", libnftables.TERSE))
    yield Part("rules/natfix.nft", "natfix's own table as it is, with all elements",
               lambda: libnftables.run("list table ip natfix"))
    yield Part("rules/wanted.nft", "natfix rules: its own table as it should be",
               lambda: nft_text(skeleton_for(machine.settings), probe()))
    yield Part("rules/iptables.txt", "iptables-save", lambda: output_of("iptables-save"))
    yield Part("rules/ip6tables.txt", "ip6tables-save", lambda: output_of("ip6tables-save"))
    yield Part("rules/iptables-legacy.txt", "iptables-legacy-save", _legacy)
    yield Part("conntrack/counts.txt", "how many entries there are, and what the kernel counts of them",
               partial(_counts, machine))
    yield Part("conntrack/natfix.txt", f"natfix's entries: SIP, and its media ports; {MOST_ENTRIES} at most",
               partial(_entries, machine))
    yield Part("kernel/queues.txt", "/proc/net/netfilter/nfnetlink_queue, nf_log, nfnetlink_log",
               partial(_files, machine, ("nfnetlink_queue", "nfnetlink_log", "nf_log"),
                       "proc/thread-self/net/netfilter"))
    yield Part("kernel/modules.txt", "modules that have to do with it", partial(_modules, machine))


def _legacy() -> str:
    """Return the rules of iptables-legacy; to ask where there are none would load its modules."""
    if not LEGACY_TABLES.exists() or not LEGACY_TABLES.read_text().strip():
        raise NatfixError("none are loaded")
    return output_of("iptables-legacy-save")


def _counts(machine: Machine) -> str:
    host = machine.host
    names = (f"net.netfilter.nf_conntrack_{name}" for name in ("count", "max", "buckets"))
    lines = [f"{name} = {host.sysctl(name)}" for name in names]
    return "\n".join([*lines, "", host.read("proc/thread-self/net/stat/nf_conntrack")])


def _entries(machine: Machine) -> str:
    connection = Connection()
    try:
        conntrack = Conntrack(connection)
        lines = [f"{name} {_entry_text(entry.state)}" for name, protocol in PROTOCOLS.items()
                 for entry in conntrack.dump(protocol) if _is_natfixs(entry.state, machine.settings)]
    finally:
        connection.close()
    more = [f"... and {len(lines) - MOST_ENTRIES} more"] if len(lines) > MOST_ENTRIES else []
    return "\n".join([f"{len(lines)} entries", *lines[:MOST_ENTRIES], *more]) + "\n"


def _is_natfixs(state: FlowState, settings: Settings) -> bool:
    first, last = settings.media.ports
    return bool(state.mark & settings.signalling.mark) or any(
        first <= end.port <= last for end in (state.flow.destination, state.flow.reply_destination))


def _entry_text(state: FlowState) -> str:
    source, destination, reply_source, reply_destination = state.flow
    unreplied = "" if state.replied else " UNREPLIED"
    return (f"src={source} dst={destination} packets={state.packets} src={reply_source} "
            f"dst={reply_destination} packets={state.reply_packets} expires={state.lifetime:.0f}{unreplied} "
            f"mark={state.mark:#x}")


def _modules(machine: Machine) -> str:
    loaded = machine.host.read("proc/modules").splitlines()
    return "\n".join(line for line in loaded if line.startswith(MODULES)) + "\n"


def _files(machine: Machine, names: tuple[str, ...], folder: str) -> str:
    return "\n".join(f"# {name}\n{machine.host.read(f'{folder}/{name}')}" for name in names)


# -- links and service ---------------------------------------------------------------------------------------


def _network(machine: Machine) -> Iterator[Part]:
    for name, arguments in (
        ("links", ("-s", "-d", "link")), ("addresses", ("address",)),
        ("routes", ("route", "show", "table", "all")), ("rules", ("rule",)), ("neighbours", ("neigh",)),
    ):
        yield Part(f"network/{name}.txt", f"ip {' '.join(arguments)}", partial(output_of, "ip", *arguments))
    yield Part("network/sysctl.txt", "the switches that matter to it", partial(_sysctls, machine))
    yield Part("network/resolv.conf", "/etc/resolv.conf", partial(_text_of, machine.root / "etc/resolv.conf"))


def _sysctls(machine: Machine) -> str:
    host = machine.host
    folder = machine.root / "proc/sys/net/ipv4/conf"
    links = sorted(os.listdir(folder)) if folder.is_dir() else []
    found = {name: host.sysctl(name) for name in SYSCTLS}
    for link in links:
        for name in PER_LINK:
            found[f"net.ipv4.conf.{link}.{name}"] = host.read(f"proc/sys/net/ipv4/conf/{link}/{name}").strip()
    return "".join(f"{name} = {value}\n" for name, value in found.items() if value)


def _service() -> Iterator[Part]:
    yield Part("service/unit.txt", "systemctl show natfix", _unit)
    yield Part("service/journal.txt", f"journalctl -u natfix, the last {JOURNAL_LINES} lines", _journal)


def _unit() -> str:
    shown = output_of("systemctl", "show", "natfix.service").splitlines()
    return "\n".join(line for line in shown if line.partition("=")[0] in UNIT) + "\n"


def _journal() -> str:
    text = output_of("journalctl", "-u", "natfix", "-u", "natfix-failed", "-n", str(JOURNAL_LINES), "-o",
                     "short-iso", "--no-pager", "-q")
    if not text.strip():
        raise NatfixError("the journal has no line of natfix")
    return text
