"""What a bundle asks: each part alone, from files of a machine that the test makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from natfix.bundle_parts import Machine, Part, parts
from natfix.config import Daemon, Settings
from natfix.errors import NatfixError, NotRunning


@pytest.fixture
def found(tmp_path: Path) -> dict[str, Part]:
    """The parts of a machine that has little more than a configuration."""
    for name, text in {
        "etc/os-release": "PRETTY_NAME=Test\nHOME_URL=x\n", "proc/uptime": "77.5 1\n",
        "proc/modules": "nf_nat 1\nvfat 2\n",
        "proc/sys/net/ipv4/ip_forward": "1\n", "proc/sys/net/ipv4/conf/eth0/rp_filter": "2\n",
        "proc/thread-self/net/netfilter/nfnetlink_queue": " 5060 1 0\n", "natfix.toml": "version = 1\n",
        "own.toml": "# none\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    settings = Settings(daemon=Daemon(control_socket=str(tmp_path / "none.sock")),
                        quirks_files=(str(tmp_path / "own.toml"),))
    return {each.name: each for each in parts(Machine(settings, str(tmp_path / "natfix.toml"), tmp_path))}


def test_names(found: dict[str, Part]) -> None:
    """Each file has a name of its own, and a sentence for the manifest."""
    assert all(each.what for each in found.values())
    assert {"version.txt", "config/natfix.toml", "config/quirks-1.toml", "check.json", "daemon/status.json",
            "daemon/explain.json", "rules/nft.txt", "rules/natfix.nft", "conntrack/natfix.txt",
            "service/journal.txt"} <= found.keys()


def test_files(found: dict[str, Part]) -> None:
    """Version, switches, modules, queues and configuration are read."""
    assert found["version.txt"].get().endswith("\nPRETTY_NAME=Test\n")
    assert "up 77 s" in found["version.txt"].get()
    assert found["network/sysctl.txt"].get() == (
        "net.ipv4.ip_forward = 1\nnet.ipv4.conf.eth0.rp_filter = 2\n")
    assert found["kernel/modules.txt"].get() == "nf_nat 1\n"
    assert " 5060 1 0" in found["kernel/queues.txt"].get()
    assert found["config/natfix.toml"].get() == "version = 1\n"
    assert found["config/quirks-1.toml"].get() == "# none\n"


@pytest.mark.parametrize("name", ["daemon/status.json", "daemon/calls.json", "daemon/explain.json"])
def test_natfix_does_not_run(found: dict[str, Part], name: str) -> None:
    """Then what it knows cannot be had, and that is the reason."""
    with pytest.raises(NotRunning, match="natfix is not running"):
        found[name].get()


def test_what_is_not_there(found: dict[str, Part]) -> None:
    """A file that does not exist is a reason, too."""
    with pytest.raises(NatfixError, match="so the defaults hold"):
        found["network/resolv.conf"].get()
