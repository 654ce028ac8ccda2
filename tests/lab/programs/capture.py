"""tcpdump on one interface of one host, into a pcap file."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.lab.host import Process

if TYPE_CHECKING:
    from tests.lab.lab import Lab


class Capture:
    """Capture what passes *interface* ("" for the host's own) of *host* and fits *expression*."""

    def __init__(self, host: str, interface: str = "", expression: str = "udp") -> None:
        self.host_name, self.interface, self.expression = host, interface, expression
        self.path = Path()
        self.process: Process | None = None

    def start(self, lab: Lab) -> None:
        """Start it and wait until it listens."""
        host = lab[self.host_name]
        interface = self.interface or host.interface
        self.path = lab.path(f"{self.host_name}-{interface}-{len(host.processes)}.pcap")
        # Packet-buffered, as root, and with room enough that nothing is lost while the disk is slow.
        self.process = host.popen(["tcpdump", "-U", "-n", "-i", interface, "-Z", "root", "-B", "8192",
                                   "--immediate-mode", "-w", str(self.path), self.expression], "tcpdump")
        self.process.wait_for("listening on")

    def stop(self) -> Path:
        """End it, once the last packets are written, and return the path of the pcap."""
        assert self.process is not None
        time.sleep(0.1)
        self.process.stop()
        return self.path

    def messages(self, display_filter: str = "sip") -> list[dict[str, Any]]:
        """Return the packets that fit a Wireshark display filter, as tshark's JSON layers."""
        done = subprocess.run(["tshark", "-n", "-r", str(self.path), "-Y", display_filter, "-T", "json",
                               "--no-duplicate-keys"], capture_output=True, text=True, check=True)
        return [packet["_source"]["layers"] for packet in json.loads(done.stdout or "[]")]
