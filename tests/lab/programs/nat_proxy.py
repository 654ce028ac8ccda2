"""Kamailio with nathelper, and rtpengine, on the gateway: how calls get through NAT with a proxy and a relay.

Inside phones need a setting, the outbound proxy; the firewall must let SIP and the relay's ports in.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab.host import LabError, Process, wait_until
from tests.lab.programs.kamailio import KNOWN_NAME, answers
from tests.lab.topology import GATEWAY_ADDRESS

if TYPE_CHECKING:
    from tests.lab.lab import Lab

CONFIG = Path(__file__).with_suffix(".cfg")
REGISTRAR_CONFIG = CONFIG.with_name("nat_registrar.cfg")
INSIDE_ADDRESSES = ("192.168.1.1", "192.168.2.1")
INSIDE_NET = "192.168.0.0/16"
RELAY_PORTS = (23000, 23999)
OPEN = """
insert rule inet firewall input udp dport 5060 accept
insert rule inet firewall input udp dport {0}-{1} accept
"""


class NatProxy:
    """The proxy and its relay. *trunk* ("address:port") gets the calls from outside that are for nobody
    registered; :attr:`outbound` is what the phones of the first inside subnet are to be set to. *log_level*
    is rtpengine's, *memory* Kamailio's in megabytes. With *is_registrar* it is the registrar of phones
    outside that sit behind NATs of their own."""

    def __init__(self, trunk: str = "", children: int = 2, relay_ports: tuple[int, int] = RELAY_PORTS,
                 log_level: int = 6, memory: int = 32, is_registrar: bool = False) -> None:
        self.template = REGISTRAR_CONFIG if is_registrar else CONFIG
        self.trunk, self.children = trunk, children
        self.relay_ports, self.log_level, self.memory = relay_ports, log_level, memory
        self.outbound = f"{INSIDE_ADDRESSES[0]}:5060"
        self.kamailio: Process | None = None
        self.rtpengine: Process | None = None
        self.lab: Lab | None = None

    def start(self, lab: Lab) -> None:
        """Open the gateway's firewall for both, start them and wait until the proxy answers OPTIONS."""
        self.lab = lab
        lab.gateway.run(["nft", "-f", "-"], input=OPEN.format(*self.relay_ports))
        directory = lab.path("nat-proxy")
        directory.mkdir(exist_ok=True)
        (directory / "kamailio.cfg").write_text(self.config())
        self.run()

    def run(self) -> None:
        """Start both programs; also after :meth:`kill`."""
        assert self.lab is not None
        gateway, directory = self.lab.gateway, self.lab.path("nat-proxy")
        self.rtpengine = gateway.popen([
            "rtpengine", "--foreground", "--log-stderr", "--table=-1", f"--log-level={self.log_level}",
            f"--interface=inside/{INSIDE_ADDRESSES[0]}", f"--interface=outside/{GATEWAY_ADDRESS}",
            "--listen-ng=127.0.0.1:2223",
            f"--port-min={self.relay_ports[0]}", f"--port-max={self.relay_ports[1]}",
        ], "rtpengine")
        wait_until(lambda: "127.0.0.1:2223" in gateway.run(["ss", "-lunH"]).stdout, 10.0, "rtpengine")
        self.kamailio = gateway.popen([
            *KNOWN_NAME, "kamailio", "-f", str(directory / "kamailio.cfg"), "-DD", "-E", "-m",
            str(self.memory), "-M", "4", "-Y", str(directory), "-w", str(directory)], "kamailio")
        wait_until(self._answers, 10.0, "an answer from Kamailio on the gateway")

    def kill(self) -> None:
        """SIGKILL to both: a crash."""
        for process in (self.kamailio, self.rtpengine):
            assert process is not None
            process.kill()

    def config(self) -> str:
        """Return Kamailio's configuration."""
        words = {
            "CHILDREN": str(self.children), "TRUNK": self.trunk, "INSIDE_NET": INSIDE_NET,
            "LISTEN": "\n".join(f"listen=udp:{address}:5060"
                                for address in (*INSIDE_ADDRESSES, GATEWAY_ADDRESS)),
        }
        text = self.template.read_text()
        for word, value in words.items():
            text = text.replace(f"@{word}@", value)
        return text

    def _answers(self) -> bool:
        assert self.lab is not None
        assert self.kamailio is not None
        if self.kamailio.poll() is not None:
            raise LabError(f"Kamailio did not start on the gateway\n{self.kamailio.tail()}")
        return answers(self.lab.gateway.namespace, INSIDE_ADDRESSES[0])
