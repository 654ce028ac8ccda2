"""The four gateways: what stands between inside and outside, and how inside programs are set up for it.

A world is a lab in which every building block of the scenario tests works: :meth:`World.start` gives the
programs of inside hosts the setting that their gateway asks for.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import ClassVar, NamedTuple, TypeVar

from tests.compare.trace import Tap
from tests.far.site import FORWARD, GATEWAY, USERS
from tests.lab.gateway import Natfix
from tests.lab.host import Host
from tests.lab.lab import Lab, Program
from tests.lab.namespaces import SWITCH, socket_in
from tests.lab.programs import Baresip, Kamailio, Linphone, NatProxy, Sipp
from tests.lab.topology import INSIDE, INSIDE2, HostRow

P = TypeVar("P", bound=Program)
HELPER_PARAMETERS = Path("/sys/module/nf_conntrack_sip/parameters")
SYMBOLS = Path("/proc/kallsyms")        # of the kernel and of all modules that are loaded
PROXY_PROGRAMS = ("kamailio", "rtpengine")
INSIDE_SUBNETS = (INSIDE, INSIDE2)
HELPER = """
table ip sip_helper {
    ct helper sip { type "sip" protocol udp; l3proto ip; }
    chain prerouting {
        type filter hook prerouting priority filter; policy accept;
        udp dport 5060 ct helper set "sip"
    }
}
"""
KNOCK = ("OPTIONS sip:{0} SIP/2.0\r\nVia: SIP/2.0/UDP {1};branch=z9hG4bKknock\r\nMax-Forwards: 70\r\n"
         "From: <sip:pbx@{1}>;tag=1\r\nTo: <sip:{0}>\r\nCall-ID: knock@{1}\r\nCSeq: 1 OPTIONS\r\n"
         "Content-Length: 0\r\n\r\n")


class Setting(NamedTuple):
    """What an operator would tell his gateway for one scenario."""

    trunk: str = ""         # "address:port" of a PBX inside that does not register
    peer: str = ""          # who may call it
    natfix: str = ""        # more of natfix.toml
    pbx: str = ""           # "address:port" of a PBX inside to which his own rules forward port 5060


class World(Lab):
    """A lab whose gateway has one way of getting SIP through NAT."""

    key: ClassVar[str] = ""
    title: ClassVar[str] = ""
    has_process: ClassVar[bool] = False     # that can be killed; where the kernel does all, there is none

    def __init__(self, setting: Setting = Setting(), **options: object) -> None:  # noqa: B008 (immutable)
        super().__init__(**options)     # type: ignore[arg-type]
        self.setting = setting
        self.hosts[SWITCH] = Host(HostRow(SWITCH, ()), self.prefix, self.directory)
        self.tap = Tap()
        self.programs: list[object] = []

    @classmethod
    def lacking(cls) -> str:
        """Return what this machine lacks for it, "" where it can be played."""
        return ""

    def up(self) -> None:
        """Build the lab, listen on all cables, and set the gateway up."""
        super().up()
        try:
            self.tap.start(self)
            self.stand()
        except BaseException:
            self.down()
            raise

    def start(self, program: P) -> P:
        """Start *program* as :class:`Lab` does, and remember it."""
        self.programs.append(program)
        return super().start(program)

    def stand(self) -> None:
        """Set the gateway up."""

    def knock(self) -> None:
        """Have the trunk send its peer an OPTIONS, as PBXs do all the time: it opens a masquerade."""
        host, _, port = self.setting.trunk.partition(":")
        pbx = next(each for each in self.hosts.values() if each.row.links and each.address == host)
        with socket_in(pbx.namespace) as trunk:
            trunk.bind((host, int(port)))
            options = KNOCK.format(self.setting.peer, self.setting.trunk)
            trunk.sendto(options.encode(), (self.setting.peer, 5060))

    def forward(self, rules: str) -> None:
        """Load the operator's *rules* that forward port 5060 to the PBX of the setting."""
        self.gateway.run(["nft", "-f", "-"], input=rules)

    def serve_far_phones(self) -> None:
        """Set up what phones outside register with: a PBX inside, to which the gateway forwards SIP."""
        self.forward(FORWARD)
        self.start(Kamailio("pbx", users=USERS, aliases=(GATEWAY,)))

    def crash(self) -> None:
        """Kill what gets SIP through NAT; only where the world *has_process*."""
        raise NotImplementedError

    def recover(self) -> None:
        """Start again what :meth:`crash` killed."""
        raise NotImplementedError


class Masquerade(World):
    """A gateway that knows nothing of SIP."""

    key, title = "masquerade", "plain masquerade"


class KernelHelper(World):
    """The kernel's SIP helper, attached to SIP's port as its documentation says."""

    key, title = "helper", "nf_nat_sip"

    @classmethod
    def lacking(cls) -> str:
        # Whoever compares does not load modules into a machine's kernel.
        has_it = not SYMBOLS.exists() or "nf_nat_sip" in SYMBOLS.read_text()
        return "" if has_it else "the kernel's nf_nat_sip (modprobe nf_nat_sip, where the kernel has it)"

    def stand(self) -> None:
        self.gateway.run(["nft", "-f", "-"], input=HELPER)


class OutboundProxy(World):
    """Kamailio with nathelper, and rtpengine; every inside program has it as its outbound proxy."""

    key, title, has_process = "proxy", "Kamailio, rtpengine", True

    @classmethod
    def lacking(cls) -> str:
        return " and ".join(program for program in PROXY_PROGRAMS if shutil.which(program) is None)

    def stand(self) -> None:
        self.proxy = NatProxy(self.setting.trunk or self.setting.pbx)
        super().start(self.proxy)

    def start(self, program: P) -> P:
        host = getattr(program, "host_name", "")
        if host in self.hosts and any(link.subnet in INSIDE_SUBNETS for link in self[host].row.links):
            _use_proxy(program, self.proxy.outbound, self[host].address)
        return super().start(program)

    def knock(self) -> None:
        """What a trunk sends goes to the proxy, which needs no opening."""

    def forward(self, rules: str) -> None:
        """Port 5060 is the proxy's own; it has the PBX as its trunk instead."""

    def serve_far_phones(self) -> None:
        """As its books have it, the proxy with nathelper is the registrar itself."""
        self.proxy.kill()
        super().start(NatProxy(is_registrar=True))

    def crash(self) -> None:
        self.proxy.kill()

    def recover(self) -> None:
        self.proxy.run()


class WithNatfix(World):
    """natfix, with the trunk as its only setting where a scenario has one."""

    key, title, has_process = "natfix", "natfix", True
    natfix: Natfix

    def stand(self) -> None:
        trunk = f'[[trunk]]\ninside = "{self.setting.trunk}"\npeers = ["{self.setting.peer}"]\n'
        self.natfix = self.start_natfix((trunk if self.setting.trunk else "") + self.setting.natfix)

    def crash(self) -> None:
        self.natfix.kill()

    def recover(self) -> None:
        self.natfix.start()


WORLDS: dict[str, type[World]] = {
    world.key: world for world in (Masquerade, KernelHelper, OutboundProxy, WithNatfix)
}


def helper_parameters() -> dict[str, str]:
    """Return the settings of the kernel's helper, which are the whole machine's, and left alone."""
    return {path.name: path.read_text().strip() for path in sorted(HELPER_PARAMETERS.glob("sip_*"))}


def _use_proxy(program: object, proxy: str, own: str) -> None:
    if isinstance(program, Baresip) and "outbound=" not in program.account:
        program.account = f'{program.account};outbound="sip:{proxy}"'.lstrip(";")
    elif isinstance(program, Linphone):
        program.server = proxy
    elif isinstance(program, Sipp) and program.to and not program.to.startswith(own):
        program.options = (*program.options, "-rsa", proxy)
    elif isinstance(program, Kamailio) and program.next_hop:
        program.next_hop = proxy
    elif isinstance(program, Kamailio):
        program.outbound = proxy
