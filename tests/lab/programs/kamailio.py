"""Kamailio: a registrar and proxy that knows nothing of NAT, so that only natfix can make calls work."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from tests.lab import namespaces
from tests.lab.host import Host, LabError, Process, wait_until

if TYPE_CHECKING:
    from tests.lab.lab import Lab

# Kamailio looks its machine's name up at start; where /etc/hosts lacks it, that waits 10 s for a name server.
KNOWN_NAME = ("unshare", "--uts", "sh", "-c", 'echo localhost >/proc/sys/kernel/hostname; exec "$@"', "sh")
MODULES = ("sl", "tm", "rr", "pv", "maxfwd", "textops", "siputils", "usrloc", "registrar", "auth", "path",
           "xlog")

CONFIG = """#!KAMAILIO
debug=2
log_stderror=yes
fork=yes
children={children}
{tcp}
auto_aliases=no
listen=udp:{address}:{port}
{further}
{aliases}
mpath="/usr/lib/x86_64-linux-gnu/kamailio/modules/"
{modules}
modparam("tm", "fr_timer", 5000)
modparam("tm", "fr_inv_timer", 60000)
modparam("usrloc", "db_mode", 0)
modparam("registrar", "max_expires", 3600)
modparam("registrar", "min_expires", 1)
modparam("registrar", "gruu_enabled", 0)
modparam("registrar", "use_path", 1)
modparam("registrar", "path_mode", 0)
modparam("path", "use_received", 0)
{hide_topology}

request_route {{
    if (!mf_process_maxfwd_header("10")) {{ sl_send_reply("483", "Too Many Hops"); exit; }}
    if (is_method("CANCEL")) {{ if (t_check_trans()) t_relay(); exit; }}
    t_check_trans();
    if (has_totag()) {{
        if (loose_route()) {{
            {record_in_dialog}
            t_relay(); exit;
        }}
        if (is_method("ACK")) {{ if (t_check_trans()) t_relay(); exit; }}
        if (uri == myself) {{ if (!lookup("location")) {{ sl_send_reply("404", "Not Here"); exit; }} }}
        t_relay(); exit;
    }}
    if (is_method("OPTIONS") && uri == myself && $rU == $null) {{ sl_send_reply("200", "OK"); exit; }}
    {out_of_dialog}
}}

route[AUTHENTICATE] {{
    $var(password) = "";
    {passwords}
    if ($var(password) == "") {{ sl_send_reply("403", "Unknown User"); exit; }}
    if (is_method("REGISTER")) {{
        if (!pv_www_authenticate("$fd", "$var(password)", "0")) {{ www_challenge("$fd", "1"); exit; }}
    }} else {{
        if (!pv_proxy_authenticate("$fd", "$var(password)", "0")) {{ proxy_challenge("$fd", "1"); exit; }}
    }}
    consume_credentials();
}}
"""

REGISTRAR = """
    remove_hf("Route");
    {authenticate}
    if (is_method("REGISTER")) {{
        {service_route}
        if (!save("location")) sl_reply_error();
        exit;
    }}
    {record_route}
    {routes}
    if (uri != myself) {{ {outbound} t_relay(); exit; }}
    if (!lookup("location")) {{ t_newtran(); t_reply("404", "Not Found"); exit; }}
    t_relay();
"""

PROXY = """
    if ($si == "{next_host}") {{ loose_route(); {record_route} t_relay(); exit; }}
    remove_hf("Route");
    if (is_method("REGISTER")) add_path();
    {record_route}
    $du = "sip:{next_hop}";
    t_relay();
"""

# All media goes through an rtpengine on the same host, in both directions (tests/far).
ANCHORING = """
loadmodule "rtpengine.so"
modparam("rtpengine", "rtpengine_sock", "udp:127.0.0.1:2223")
"""
ANCHORED = """
route[ANCHOR] {
    if (is_method("INVITE|UPDATE|PRACK|ACK|BYE")) {
        rtpengine_manage("replace-origin replace-session-connection");
        t_on_reply("ANCHORED");
    }
}

onreply_route[ANCHORED] {
    if (status =~ "(18[0-9])|(2[0-9][0-9])") rtpengine_manage("replace-origin replace-session-connection");
}
"""

HIDING = """loadmodule "topoh.so"
modparam("topoh", "mask_key", "natfix")
"""


# It keeps connections for as long as a registration, and is called back by those that phones have opened.
TCP = """disable_tcp=no
tcp_children=2
tcp_connection_lifetime=3610
tcp_connect_timeout=2
listen=tcp:{address}:{port}"""
OTHER_CALL_ID = 'modparam("topoh", "mask_callid", 1)\n'


class Kamailio:
    """A Kamailio on *host*: registrar and proxy, or with *next_hop* a proxy that sends everything there.

    *users* (name to password) switches digest on for REGISTER and out-of-dialog requests. *routes*
    (regular expression of the user part to ``host:port``) are trunks. *record_route* keeps it in the
    dialog. *service_route* adds that header to the 2xx of REGISTER. A user with several contacts is
    rung in parallel. A proxy with *next_hop* adds Path to REGISTER (RFC 3327). With *hide_topology* it shows
    nothing of those behind it, as a PBX does: their Vias and Contacts are replaced by its own words. With
    *outbound* ("address:port") what is for other hosts goes there, whatever its URI says. It listens at
    *address*, as a rule the host's; at *further* ones too, and then names to each side the one it sends from.
    With *tcp* it listens for connections as well.
    With *anchors* all media goes through an rtpengine beside it; with both it gives each leg another Call-ID
    as well, and is to all others what a B2BUA is.
    """

    def __init__(self, host: str = "provider", *, users: dict[str, str] | None = None,
                 record_route: bool = True, routes: dict[str, str] | None = None, next_hop: str = "",
                 service_route: bool = False, aliases: tuple[str, ...] = (), port: int = 5060,
                 children: int = 2, hide_topology: bool = False, outbound: str = "",
                 address: str = "", further: tuple[str, ...] = (), anchors: bool = False,
                 tcp: bool = False) -> None:
        self.tcp = tcp
        self.anchors = anchors
        self.host_name, self.port, self.children = host, port, children
        self.users, self.routes, self.aliases = users or {}, routes or {}, aliases
        self.record_route, self.service_route, self.next_hop = record_route, service_route, next_hop
        self.hide_topology, self.outbound = hide_topology, outbound
        self.process: Process | None = None
        self.address, self.further = address, further

    def start(self, lab: Lab) -> None:
        """Start it and wait until it answers OPTIONS."""
        host = lab[self.host_name]
        self.address = self.address or host.address
        directory = lab.path(f"kamailio-{self.host_name}")
        directory.mkdir()
        if self.anchors:
            self._start_rtpengine(host)
        config = directory / "kamailio.cfg"
        config.write_text(self.config())
        self.process = host.popen([*KNOWN_NAME, "kamailio", "-f", str(config), "-DD", "-E", "-m", "32",
                                   "-M", "4", "-Y", str(directory), "-w", str(directory)], "kamailio")
        wait_until(lambda: self._answers(host.namespace), 10.0, "an answer from Kamailio")

    def _start_rtpengine(self, host: Host) -> None:
        host.popen(["rtpengine", "--foreground", "--log-stderr", "--table=-1", f"--interface={self.address}",
                    "--listen-ng=127.0.0.1:2223", "--port-min=24000", "--port-max=24999"], "rtpengine")
        wait_until(lambda: "127.0.0.1:2223" in host.run(["ss", "-lunH"]).stdout, 10.0, "rtpengine")

    def config(self) -> str:
        """Return the configuration text."""
        record = "record_route();" if self.record_route else ""
        parts = {
            "record_route": f"if (is_method(\"INVITE|SUBSCRIBE|REFER\")) {record}" if record else "",
            "authenticate": "route(AUTHENTICATE);" if self.users else "",
            "service_route": f'append_to_reply("Service-Route: <sip:{self.address}:{self.port};lr>\\r\\n");'
                             if self.service_route else "",
            "routes": "\n    ".join(self._route_text(*route) for route in self.routes.items()),
            "next_hop": self.next_hop,
            "outbound": self._next_hop(),
            "next_host": self.next_hop.partition(":")[0],
        }
        text = CONFIG.format(
            address=self.address, port=self.port, children=self.children,
            tcp=TCP.format(address=self.address, port=self.port) if self.tcp else "disable_tcp=yes",
            further="\n".join([f"listen=udp:{name}:{self.port}" for name in self.further]
                              + ["mhomed=yes"] * bool(self.further)),
            hide_topology=HIDING * self.hide_topology + OTHER_CALL_ID * (self.hide_topology and self.anchors),
            aliases="\n".join(f'alias="{name}"' for name in self.aliases),
            modules="\n".join(f'loadmodule "{name}.so"' for name in MODULES) + ANCHORING * self.anchors,
            record_in_dialog="if (is_method(\"INVITE\")) record_route();" if record else "",
            passwords="\n    ".join(f'if ($fU == "{user}") $var(password) = "{password}";'
                                    for user, password in self.users.items()),
            out_of_dialog=(PROXY if self.next_hop else REGISTRAR).format(**parts))
        return text.replace("t_relay();", "route(ANCHOR); t_relay();") + ANCHORED if self.anchors else text

    def _route_text(self, pattern: str, target: str) -> str:
        host, _, port = target.partition(":")
        hop = "" if host == self.address else self._next_hop()
        return f'if ($rU =~ "{pattern}") {{ $rd = "{host}"; $rp = "{port or 5060}"; {hop} t_relay(); exit; }}'

    def _next_hop(self) -> str:
        return f'$du = "sip:{self.outbound}";' if self.outbound else ""

    def _answers(self, namespace: str) -> bool:
        if self.process is None or self.process.poll() is not None:
            raise LabError(f"Kamailio did not start\n{self.process.tail() if self.process else ''}")
        return answers(namespace, self.address, self.port)


def answers(namespace: str, address: str, port: int = 5060) -> bool:
    """Tell whether a SIP server at *address* answers OPTIONS from a socket in *namespace*."""
    with namespaces.socket_in(namespace) as probe:
        probe.settimeout(0.2)
        probe.connect((address, port))
        try:
            probe.send(_options(address, *probe.getsockname()))
            return probe.recv(2000).startswith(b"SIP/2.0 ")
        except (TimeoutError, ConnectionRefusedError):
            return False


def _options(address: str, own: str, port: int) -> bytes:
    tag = f"{socket.gethostname()}{port}"
    return (f"OPTIONS sip:{address} SIP/2.0\r\nVia: SIP/2.0/UDP {own}:{port};branch=z9hG4bK{tag};rport\r\n"
            f"From: <sip:probe@{own}>;tag=1\r\nTo: <sip:{address}>\r\nCall-ID: {tag}@{own}\r\n"
            f"CSeq: 1 OPTIONS\r\nMax-Forwards: 10\r\nContent-Length: 0\r\n\r\n").encode()
