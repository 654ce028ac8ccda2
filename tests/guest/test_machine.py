"""The guest itself: commands, limits, its writable root, and that it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.guest import machine
from tests.guest.kernel import GuestError
from tests.guest.machine import Guest, load_order, missing
from tests.guest.marks import needs_guest
from tests.lab.host import wait_until

DEPENDS = "k/net/9pnet_virtio.ko: k/virtio.ko k/net/9pnet.ko k/ring.ko\nk/virtio.ko: k/ring.ko\n" \
          "k/ring.ko:\nk/net/9pnet.ko:\nk/overlay.ko:\n"


def guest_test(function):   # type: ignore[no-untyped-def]
    """Mark a test that needs the guest."""
    for mark in needs_guest:
        function = mark(function)
    return function


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    """A module folder of five modules, one of which needs three others."""
    (tmp_path / "modules.dep").write_text(DEPENDS)
    (tmp_path / "modules.builtin").write_text("k/unix.ko\n")
    return tmp_path


def test_modules_come_after_what_they_need(modules: Path) -> None:
    """insmod knows no dependencies: the order has to be right, each once; what is built in is left out."""
    assert load_order(modules, ["9pnet_virtio", "unix", "overlay", "virtio"]) == [
        "k/ring.ko", "k/virtio.ko", "k/net/9pnet.ko", "k/net/9pnet_virtio.ko", "k/overlay.ko"]


def test_an_unknown_module_is_an_error(modules: Path) -> None:
    """Another kernel may have renamed one."""
    with pytest.raises(GuestError, match="no module virtiofs"):
        load_order(modules, ["virtiofs"])


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without QEMU skips with the names of what is not installed."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(machine, "PROGRAMS", ("busybox-of-old", "sh", "qemu-system-vax"))
    assert missing() == "no guest: not installed: busybox-of-old qemu-system-vax (tools/test installs them)"


@guest_test
def test_commands_run(guest: Guest) -> None:
    """Output, errors, exit codes and input of commands come through, also a megabyte of it."""
    done = guest.run(["sh", "-c", "cat; echo bad >&2; exit 3"], input="grün\n", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "grün\n", "bad\n")
    assert len(guest.run(["head", "-c", "1000000", "/dev/zero"]).stdout) == 1_000_000
    assert guest.run(["no-such-program"], check=False).returncode == 127
    with pytest.raises(GuestError, match=r"sh -eu in the guest: exit 1\nbefore$"):
        guest.script("echo before\nfalse\necho after")


@guest_test
def test_a_time_limit_ends_the_command_only(guest: Guest) -> None:
    """What takes too long is killed, with what it has started; the guest goes on."""
    with pytest.raises(GuestError, match="not done after 1 s\nworking"):
        guest.run(["sh", "-c", "echo working; sleep 4321 & wait"], timeout=1)
    assert "sleep 4321" not in guest.script("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")


@guest_test
def test_the_root_is_writable_and_the_hosts_is_not(guest: Guest) -> None:
    """The guest's changes are its own: nothing it writes anywhere reaches the host."""
    ours, theirs = Path(f"/etc/natfix-guest-{os.getpid()}"), machine.PROJECT / "README.md"
    assert guest.script(f"echo here >{ours}; mv {theirs} {theirs}.moved; cat {ours}") == "here\n"
    assert not ours.exists()
    assert theirs.exists()
    guest.script(f"rm {ours}; mv {theirs}.moved {theirs}")


@guest_test
def test_the_kernel_finds_its_modules(guest: Guest) -> None:
    """A rule that needs a module loads it, as on any Debian; natfix never calls modprobe."""
    guest.script("ip netns add modules\n"
                 "ip netns exec modules nft 'add table ip t; add quota ip t q { 1 mbytes; }'\n"
                 "ip netns del modules")
    assert "nft_quota" in guest.script("cat /proc/modules")


def test_the_emulator_ends_with_its_creator() -> None:
    """A test run that is killed leaves nothing behind: what it started is killed too."""
    program = ("import subprocess, sys, tests.guest.machine as machine\n"
               "started = subprocess.Popen([*machine.LEASH, 'sleep', '4321'])\n"
               "print(started.pid, flush=True); started.wait()\n")
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True,
                          cwd=machine.PROJECT) as creator:
        assert creator.stdout is not None
        command = Path(f"/proc/{creator.stdout.readline().strip()}/cmdline")
        wait_until(lambda: command.read_bytes().startswith(b"sleep"), 5.0, "the start")
        creator.kill()
    wait_until(lambda: not command.exists() or not command.read_bytes(), 5.0, "the end")
