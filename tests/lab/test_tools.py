"""tools/lib.sh: packages are installed without starting services, and nothing stays of the trick."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.lab.host import PROJECT

SOURCE = f"set -euo pipefail; . {PROJECT}/tools/lib.sh;"
SAYS_NO = "#!/bin/sh\nexit 101\n"
SAYS_YES = "#!/bin/sh\nexit 0\n"
APT = """#!/bin/sh
echo "apt-get $*" >>"$LOG"
[ "$1" = install ] && { cat "$POLICY_FILE" >>"$LOG"; "$POLICY_FILE"; echo "policy $?" >>"$LOG"; }
exit "${APT_EXIT:-0}"
"""


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="not root: makes a network namespace")


class Machine:
    """A pretended machine: its policy-rc.d, and commands that only write down what they were asked."""

    def __init__(self, path: Path) -> None:
        self.path, self.policy, self.log = path, path / "policy-rc.d", path / "log"
        for name, text in {"apt-get": APT, "dpkg-query": "#!/bin/sh\nexit 1\n",
                           "systemctl": '#!/bin/sh\necho "systemctl $*" >>"$LOG"\n'}.items():
            self.write(path / name, text)

    def write(self, path: Path, text: str) -> None:
        """Write an executable."""
        path.write_text(text)
        path.chmod(0o755)

    def install(self, apt_exit: int = 0) -> subprocess.CompletedProcess[str]:
        """Install kamailio, in the way the tools do."""
        script = f"{SOURCE} POLICY={self.policy}; install_packages kamailio"
        return subprocess.run(["bash", "-c", script], text=True, capture_output=True, env={
            "PATH": f"{self.path}:/usr/sbin:/usr/bin:/sbin:/bin", "LOG": str(self.log),
            "POLICY_FILE": str(self.policy), "APT_EXIT": str(apt_exit)})

    def calls(self) -> str:
        """Return what the pretended commands wrote down."""
        return self.log.read_text()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine where every package is missing."""
    return Machine(tmp_path)


def test_services_are_forbidden_while_installing(machine: Machine) -> None:
    """No policy before, ours during, none after; no recommends; the new service stays disabled."""
    assert machine.install().returncode == 0
    assert "--no-install-recommends kamailio" in machine.calls()
    assert "policy 101" in machine.calls()
    assert "systemctl disable kamailio.service" in machine.calls()
    assert not machine.policy.exists()


def test_a_policy_that_says_no_is_left_alone(machine: Machine) -> None:
    """A container's own policy-rc.d is neither replaced nor removed."""
    machine.write(machine.policy, SAYS_NO)
    before = machine.policy.stat().st_ino
    machine.install()
    assert machine.policy.stat().st_ino == before
    assert "natfix" not in machine.calls()


@pytest.mark.parametrize("apt_exit", [0, 100])
def test_a_policy_that_says_yes_comes_back(machine: Machine, apt_exit: int) -> None:
    """It is put aside during the installation and restored, also when apt-get fails."""
    machine.write(machine.policy, SAYS_YES)
    done = machine.install(apt_exit)
    assert machine.policy.read_text() == SAYS_YES
    assert not list(machine.path.glob("*.natfix-saved"))
    assert (done.returncode, "could not install" in done.stderr) == ((1, True) if apt_exit else (0, False))


def test_what_a_killed_run_left_is_repaired(machine: Machine) -> None:
    """The next installation restores a policy that was put aside."""
    machine.write(machine.path / "policy-rc.d.natfix-saved", SAYS_YES)
    machine.write(machine.policy, "#!/bin/sh\n# installed for a moment by natfix (tools/lib.sh)\nexit 101\n")
    machine.install()
    assert machine.policy.read_text() == SAYS_YES


@needs_root
def test_sip_in_service_is_refused(lab_host_with_sip: list[str]) -> None:
    """Where a program listens on 5060, the tools stop with a sentence and exit code 75."""
    script = f"{SOURCE} refuse_beside_sip; echo went on"
    done = subprocess.run([*lab_host_with_sip, "bash", "-c", script], text=True, capture_output=True)
    assert (done.returncode, done.stdout) == (75, "")
    assert "listens on port 5060" in done.stderr


@needs_root
def test_no_sip_is_not_refused() -> None:
    """An empty table of sockets lets the tools go on."""
    script = f"{SOURCE} refuse_beside_sip; echo went on"
    done = subprocess.run(["unshare", "-n", "bash", "-c", script], text=True, capture_output=True)
    assert done.stdout == "went on\n", done.stderr


@pytest.fixture(params=["udp", "tcp"])
def lab_host_with_sip(request: pytest.FixtureRequest) -> list[str]:
    """A command prefix for a namespace of its own, in which port 5060 is bound by descriptor 9."""
    kind = "SOCK_DGRAM" if request.param == "udp" else "SOCK_STREAM"
    program = ("import socket, subprocess, sys\n"
               f"bound = socket.socket(socket.AF_INET, socket.{kind}); bound.bind(('0.0.0.0', 5060))\n"
               f"{'bound.listen()' if request.param == 'tcp' else ''}\n"
               "sys.exit(subprocess.call(sys.argv[1:]))")
    return ["unshare", "-n", "/usr/bin/python3", "-c", program]
