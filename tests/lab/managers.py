"""Firewalls that programs manage, on a gateway of the lab: firewalld and ufw as Debian has them, with files
of their own in the lab's folder, and what Docker writes."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lab.host import Process, wait_until

if TYPE_CHECKING:
    from tests.lab.lab import Lab

# A bus of its own, on which everybody may say everything.
BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
  "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow eavesdrop="true"/>
    <allow send_destination="*" eavesdrop="true"/>
  </policy>
</busconfig>
"""
UFW_FILES = ("etc/ufw", "etc/default/ufw", "lib/ufw", "usr/share/ufw")


class Manager:
    """What the operator's commands need to reach a program of the lab: an environment, other paths."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        # iptables-legacy has one lock for the whole machine.
        self.environment = {"XTABLES_LOCKFILE": str(lab.path("xtables.lock"))}
        self.paths: dict[str, str] = {}         # in commands: what they say, and what it is in the lab

    def run(self, commands: Sequence[str]) -> None:
        """Run *commands* in one shell on the gateway, in the lab's folder; LabError where one fails."""
        script = "\n".join(commands)
        for said, meant in self.paths.items():
            script = script.replace(said, meant)
        settings = [f"{name}={value}" for name, value in self.environment.items()]
        folder = str(self.lab.directory)
        self.lab.gateway.run(["env", "-C", folder, *settings, "sh", "-ec", script], timeout=60)


def rules_before(program: str, text: str) -> Callable[[Lab], Manager]:
    """Rules that *program* has loaded from *text*, from the file "before"."""
    def load(lab: Lab) -> Manager:
        manager = Manager(lab)
        lab.path("before").write_text(text)
        manager.run([f"{program} before"])
        return manager
    return load


class Firewalld(Manager):
    """A firewalld that runs on the gateway; *backend* is "nftables" or "iptables"."""

    def __init__(self, lab: Lab, backend: str) -> None:
        super().__init__(lab)
        need("firewalld", "dbus-daemon")
        folder, socket = lab.path("firewalld"), lab.path("bus")
        shutil.copytree("/etc/firewalld", folder)
        settings = folder / "firewalld.conf"
        settings.write_text(settings.read_text().replace(
            "FirewallBackend=nftables", f"FirewallBackend={backend}"))
        lab.path("bus.conf").write_text(BUS.format(socket=socket))
        self.environment["DBUS_SYSTEM_BUS_ADDRESS"] = f"unix:path={socket}"
        lab.gateway.popen(["dbus-daemon", f"--config-file={lab.path('bus.conf')}", "--nofork", "--nopidfile"])
        wait_until(socket.exists, 5.0, "the bus of firewalld")
        self._command = ["firewalld", "--nofork", "--nopid", f"--system-config={folder}",
                         f"--log-file={lab.path('firewalld.log')}"]
        self._process = self._start()

    def _start(self) -> Process:
        process = self.lab.gateway.popen(self._command, environment=self.environment)
        wait_until(self._answers, 20.0, "firewalld's start", interval=0.2)
        return process

    def restart(self) -> None:
        """Do as `systemctl restart firewalld`: what it has made goes, and comes back."""
        self._process.signal(signal.SIGTERM)
        self._process.wait(20.0)
        self._process = self._start()

    def _answers(self) -> bool:
        command = ["env", *(f"{name}={value}" for name, value in self.environment.items()),
                   "firewall-cmd", "--state"]
        return self.lab.gateway.run(command, check=False).returncode == 0


class Ufw(Manager):
    """A ufw that is switched on, with Debian's defaults."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        need("ufw")
        root, programs = lab.path("ufw"), lab.path("bin")
        for name in UFW_FILES:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            if Path("/", name).is_dir():
                shutil.copytree(Path("/", name), root / name)
            else:
                shutil.copy(Path("/", name), root / name)
        programs.mkdir()
        wrapper = programs / "ufw"
        wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ufw")} --rootdir={root} --datadir={root} "$@"\n')
        wrapper.chmod(0o755)
        self.environment["PATH"] = f"{programs}:/usr/sbin:/usr/bin:/sbin:/bin"
        self.paths["/etc/ufw"] = f"{root}/etc/ufw"
        self.run(["ufw --force enable"])


class Docker(Manager):
    """The rules that Docker has written, without Docker."""

    RULES = Path(__file__).resolve().parents[1] / "rule_sets" / "docker.rules"

    def __init__(self, lab: Lab, forwarding_was_on: bool) -> None:
        super().__init__(lab)
        rules = self.RULES.read_text()
        if forwarding_was_on:
            rules = rules.replace(":FORWARD DROP", ":FORWARD ACCEPT")
        lab.gateway.run(["iptables-restore"], input=rules)


def need(*programs: str) -> None:
    """Skip the test where one of *programs* is not installed."""
    if missing := [program for program in programs if shutil.which(program) is None]:
        pytest.skip(f"not installed: {' '.join(missing)} (tools/test installs them)")
