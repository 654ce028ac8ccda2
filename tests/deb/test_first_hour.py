"""The first hour of an operator, from the package to the first call and out again, on a clean Debian."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from natfix.errors import DONE, FINDINGS
from tests.deb.cleanroot import PROJECT, CleanRoot, CleanRootError, bare_root, missing
from tests.lab.audio import assert_two_way, talk
from tests.lab.lab import Lab
from tests.lab.programs import Baresip, Kamailio

pytestmark = [pytest.mark.deb, pytest.mark.lab, pytest.mark.xdist_group("deb")]

RULES = "nft -s list ruleset"
TRANSCRIPT = "NATFIX_TRANSCRIPT"    # in the environment: a file for what the operator sees


class Operator:
    """Types commands on the gateway, and reads what they print."""

    def __init__(self, gateway: CleanRoot) -> None:
        self.gateway = gateway
        self.seen: list[str] = []

    def types(self, command: str, code: int = DONE) -> str:
        """Run *command*, which has to end with *code*; return its output."""
        done = self.gateway.run(command, check=False)
        printed = done.stdout + done.stderr
        self.seen += [f"gw1# {command}", printed]
        assert done.returncode == code, printed
        return printed


@pytest.fixture
def gateway(make_lab: Callable[..., Lab], tmp_path: Path) -> tuple[Lab, Path]:
    """A lab, and the place for the clean Debian that its gateway runs."""
    if reason := missing():
        pytest.skip(reason)
    try:
        bare_root()
    except CleanRootError as problem:
        pytest.skip(str(problem))
    return make_lab("gateway"), tmp_path


def test_from_the_package_to_the_first_call_and_out_again(gateway: tuple[Lab, Path], deb: Path) -> None:
    """Installed, checked, configured by itself, on trial, kept; a call with audio, explained; then nothing
    is left: the rule set is what it was."""
    lab, scratch = gateway
    provider = lab.start(Kamailio(users={"alice": "secret", "bob": "hidden"}))
    with CleanRoot(scratch, lab.gateway.namespace) as root:
        operator = Operator(root)
        before = root.ask(RULES)
        package = root.put(deb)
        said = operator.types(f"apt-get install -y {package} 2>/dev/null | tail -n 3")
        assert "Nothing is running and no firewall rule was changed." in said
        assert root.ask(RULES) == before
        operator.types("natfix check", FINDINGS)
        operator.types("natfix init")
        assert "table ip natfix" in operator.types("natfix up --dry-run")
        assert root.ask(RULES) == before
        operator.types("natfix up --confirm 60")
        operator.types("natfix confirm")
        _call(lab, provider, operator)
        capture = root.put(PROJECT / "pcaps" / "call-natfix.pcapng")
        operator.types(f"natfix-replay {capture}")
        operator.types("natfix down")
        assert root.ask(RULES) == before
        operator.types("apt-get purge -y natfix 2>/dev/null | tail -n 2")
        assert root.ask(RULES) == before
        assert root.ask("ls -d /etc/natfix /var/lib/natfix /run/natfix 2>/dev/null || true") == ""
    if TRANSCRIPT in os.environ:
        Path(os.environ[TRANSCRIPT]).write_text("\n".join(operator.seen))


def _call(lab: Lab, provider: Kamailio, operator: Operator) -> None:
    """Place a call from inside, and look at it while it lasts."""
    alice = lab.start(Baresip("phone1", "alice", registrar=provider.address, password="secret", tone=440))
    bob = lab.start(Baresip("remote1", "bob", registrar=provider.address, password="hidden", tone=880))
    bob.register()
    alice.register()
    assert "alice@" in operator.types("natfix registrations")
    alice.dial(bob.uri)
    talk()
    assert "confirmed" in operator.types("natfix calls")
    assert "RFC 3261" in operator.types("natfix explain 1")
    assert_two_way(alice, bob)
    operator.types("natfix status")
    alice.hang_up()
    bob.wait_closed()
