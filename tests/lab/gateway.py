"""The gateway's own firewall and NAT, as real ones have them, and natfix on top."""

from __future__ import annotations

import json
import signal
import sys
from typing import TYPE_CHECKING, Any

from tests.lab.host import Host, LabError, Process, wait_until

if TYPE_CHECKING:
    from tests.lab.lab import Lab

# The one line natfix documents for gateways whose forward chain drops new flows from outside.
DNAT_LINE = "ct status dnat accept"

RULES = """
table inet firewall {{
    chain input {{
        type filter hook input priority filter; policy drop;
        ct state established,related accept
        iifname "lo" accept
        iifname {{ "inside", "inside2" }} accept
        icmp type echo-request accept
    }}
    chain forward {{
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        ct state invalid drop
        {dnat_line}
        iifname {{ "inside", "inside2" }} accept
    }}
}}
table ip nat {{
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        oifname "outside" masquerade
    }}
}}
"""


def install_rules(gateway: Host, dnat_line: bool) -> None:
    """Load the operator's rule set into the gateway's namespace."""
    gateway.run(["nft", "-f", "-"], input=RULES.format(dnat_line=DNAT_LINE if dnat_line else ""))


class Natfix:
    """A natfix daemon in the gateway's namespace, and the commands that talk to it."""

    def __init__(self, lab: Lab, config_text: str = "", args: tuple[str, ...] = ()) -> None:
        self.gateway = lab.gateway
        self.config = lab.directory / "natfix.toml"
        self.control_socket = lab.directory / "natfix.sock"
        self.state_file = lab.directory / "natfix.sqlite"
        self.args = args
        self.config.write_text(self._with_daemon_table(config_text))
        self.process: Process | None = None
        self.environment: dict[str, str] = {}   # of the daemon alone
        self.first = "true"     # a shell command before it, in its own mount namespace

    def start(self, timeout: float = 60.0) -> Natfix:
        """Start the daemon and wait until it says it is ready, which takes an emulated guest some 10 s; also
        after :meth:`kill`."""
        shell = ["sh", "-ec", f'{self.first}; exec "$@"', "natfix"]
        self.process = self.gateway.popen([*shell, *self.command("run", *self.args)], "natfix",
                                          environment=self.environment)
        self.process.wait_for("natfix: ready", timeout)
        wait_until(self.control_socket.exists, timeout, "natfix's control socket")
        return self

    def command(self, *arguments: str) -> list[str]:
        """Return the argv of ``natfix --config FILE arguments...``."""
        return [sys.executable, "-m", "natfix", "--config", str(self.config), *arguments]

    def run(self, *arguments: str, check: bool = True, timeout: float = 20.0) -> str:
        """Return what ``natfix arguments...`` prints; raises LabError on a non-zero exit where *check*."""
        return self.gateway.run(self.command(*arguments), check=check, timeout=timeout).stdout

    def exit_code(self, *arguments: str) -> int:
        """Return the exit code of ``natfix arguments...``."""
        return self.gateway.run(self.command(*arguments), check=False).returncode

    def json(self, subcommand: str) -> Any:
        """Return what ``natfix <subcommand> --json`` prints, parsed."""
        return json.loads(self.run(subcommand, "--json"))

    def request(self, command: str, **options: Any) -> dict[str, Any]:
        """Return what the running daemon answers to *command* on its control socket."""
        from natfix.control import request
        return request(str(self.control_socket), {"command": command, **options})

    def log(self) -> str:
        """Return all the running daemon has printed (notes included: the level is debug)."""
        return self.process.output() if self.process else ""

    def kill(self) -> None:
        """SIGKILL: a crash. Rules and entries stay."""
        self._running().kill()

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        process = self._running()
        process.signal(signal.SIGTERM)
        return process.wait(10.0)

    def down(self) -> None:
        """Remove everything natfix made in the kernel."""
        self.run("down")

    def _running(self) -> Process:
        if self.process is None or self.process.poll() is not None:
            raise LabError("natfix does not run")
        return self.process

    def _with_daemon_table(self, text: str) -> str:
        keys = f'control_socket = "{self.control_socket}"\nstate_file = "{self.state_file}"\n'
        if "log_level" not in text:
            keys += 'log_level = "debug"\n'
        if "[daemon]" in text:
            return text.replace("[daemon]", f"[daemon]\n{keys}", 1)
        return f"{text}\n[daemon]\n{keys}"
