"""`natfix bypass`: SIP is led past a natfix that cannot run, and nothing else changes."""

from __future__ import annotations

import re
import subprocess
import sys

from natfix.removal import remove_divert
from tests.kernel.wires import Wires, media
from tests.namespace import kernel_test, namespace

pytestmark = kernel_test

DIVERT_RULE = re.compile(r"^.*\b(queue (num|to)|NFQUEUE)\b.*$\n?", re.MULTILINE)


def test_bypass_takes_the_divert_and_nothing_else(gateway: Wires) -> None:
    """SIP no longer goes to the queue; maps with their elements, guard and all other rules stay."""
    gateway.kernel.apply([media()])
    before = gateway.gateway.run("nft -s list table ip natfix")
    assert DIVERT_RULE.search(before)
    assert gateway.gateway.call(remove_divert)
    after = gateway.gateway.run("nft -s list table ip natfix")
    assert without_times(after) == without_times(DIVERT_RULE.sub("", before))
    assert "drop" in gateway.gateway.run("nft list chain ip natfix guard")
    assert gateway.gateway.call(remove_divert)      # again is no error


def test_the_next_start_arms_again(gateway: Wires) -> None:
    """What `install` does at every start puts the divert back."""
    gateway.gateway.call(remove_divert)
    gateway.install()
    assert DIVERT_RULE.search(gateway.gateway.run("nft list chain ip natfix to_natfix"))


def test_bypass_without_natfix() -> None:
    """Where no natfix has ever been, there is nothing to remove, and nothing appears."""
    with namespace() as bare:
        assert not bare.call(remove_divert)
        assert bare.run("nft list ruleset") == ""


def test_bypass_needs_no_sound_configuration_and_no_library(gateway: Wires) -> None:
    """The command works with a configuration that cannot be read, and without libnftables and pyroute2."""
    program = ("import sys; sys.modules.update(dict.fromkeys(('ctypes', 'pyroute2', 'netfilterqueue')))\n"
               "from natfix.cli import main; sys.exit(main(['bypass', '--config', '/dev/null/broken']))")
    said = gateway.gateway.run(f"{sys.executable} -c \"{program}\"")
    assert said.startswith("natfix: SIP passes unfixed until natfix starts again")
    assert not DIVERT_RULE.search(gateway.gateway.run("nft list chain ip natfix to_natfix"))


def test_bypass_needs_the_right() -> None:
    """Without CAP_NET_ADMIN: exit code 4, one sentence."""
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--clear-groups", sys.executable, "-m", "natfix", "bypass"],
        capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (4, 1)
    assert "CAP_NET_ADMIN" in done.stderr


def without_times(ruleset: str) -> str:
    return re.sub(r"\s*expires [0-9hms]+", "", ruleset)
