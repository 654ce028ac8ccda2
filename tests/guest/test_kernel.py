"""Debian's kernel is fetched once, and where it cannot be had, the reason is kept for the skipped tests."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.guest import kernel
from tests.guest.kernel import GuestError, fetch_kernel, find_kernel

SHOWN = "Package: linux-image-amd64\nDepends: linux-image-6.1.0-99-amd64 (= 6.1.999-1)\n"
# Commands that only pretend, and write down what they were asked.
PROGRAMS = {
    "apt-cache": f"printf '{SHOWN}'",
    "apt-get": '[ "$1" != download ] || touch "$2_6.1.999-1_amd64.deb"',
    "dpkg-deb": 'mkdir -p "$3/boot" "$3/lib/modules/6.1.0-99-amd64"; touch "$3/boot/vmlinuz-6.1.0-99-amd64"',
    "busybox": ":",
}


class Machine:
    """A pretended machine with apt, and an empty ``.guest``."""

    def __init__(self, path: Path) -> None:
        self.bin, self.log = path / "bin", path / "log"
        self.bin.mkdir()
        for name, text in PROGRAMS.items():
            self.pretend(name, text)

    def pretend(self, name: str, text: str) -> None:
        """Have the program *name* do *text*."""
        program = self.bin / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >>{self.log}\n{text}\n')
        program.chmod(0o755)

    def asked(self) -> list[str]:
        """Return the commands that were run, in order."""
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine that has fetched nothing yet."""
    made = Machine(tmp_path)
    monkeypatch.setenv("PATH", f"{made.bin}:/usr/bin:/bin")
    monkeypatch.setattr(kernel, "STORE", tmp_path / ".guest")
    monkeypatch.setattr(kernel, "PROBLEM", tmp_path / ".guest" / "problem")
    return made


def test_it_is_fetched_once(machine: Machine) -> None:
    """Downloaded, unpacked, its modules listed; nothing is installed, and nothing is done twice."""
    found = fetch_kernel()
    assert (found.release, found.modules.name) == ("6.1.0-99-amd64", "6.1.0-99-amd64")
    assert found.image.exists()
    assert found.modules.is_dir()
    first = machine.asked()
    assert [line.split()[:2] for line in first] == [
        ["apt-cache", "show"], ["apt-get", "download"], ["dpkg-deb", "-x"], ["busybox", "depmod"]]
    assert fetch_kernel() == find_kernel() == found
    assert machine.asked() == first
    assert [path.name for path in kernel.STORE.iterdir()] == ["linux-image-6.1.0-99-amd64"]


def test_package_lists_are_updated_where_the_kernel_is_unknown(machine: Machine) -> None:
    """A fresh container has no package lists."""
    machine.pretend("apt-cache", f"grep -q update {machine.log} && printf '{SHOWN}'")
    assert fetch_kernel().release == "6.1.0-99-amd64"
    assert "apt-get update" in machine.asked()


def test_the_reason_is_kept(machine: Machine) -> None:
    """Without a network the tests are skipped with apt's own complaint; a later success forgets it."""
    machine.pretend("apt-get", "echo 'E: Temporary failure resolving deb.debian.org' >&2; exit 100")
    for ask in (fetch_kernel, find_kernel):
        with pytest.raises(GuestError, match=r"apt-get download: E: Temporary failure resolving"):
            ask()
    machine.pretend("apt-get", PROGRAMS["apt-get"])
    fetch_kernel()
    assert not kernel.PROBLEM.exists()


def test_half_a_kernel_is_none(machine: Machine) -> None:
    """Where unpacking fails, nothing is left that could be taken for a kernel."""
    machine.pretend("dpkg-deb", f"{PROGRAMS['dpkg-deb']}; exit 2")
    with pytest.raises(GuestError, match="dpkg-deb -x"):
        fetch_kernel()
    assert [path.name for path in kernel.STORE.iterdir()] == ["problem"]


@pytest.mark.parametrize(("apt_exit", "said"), [(0, ""), (100, "will be skipped")])
def test_the_suite_runs_without_a_guest(tmp_path: Path, apt_exit: int, said: str) -> None:
    """tools/test goes on where QEMU cannot be installed, and says that the guest's tests will be skipped."""
    script = (f"set -euo pipefail; . {kernel.STORE.parent}/tools/lib.sh; POLICY={tmp_path}/policy\n"
              f"missing_packages() {{ echo qemu; }}; apt-get() {{ return {apt_exit}; }}; VENV={tmp_path}\n"
              "prepare_guest; echo went on")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "bin" / "python").chmod(0o755)
    done = subprocess.run(["bash", "-c", script], text=True, capture_output=True)
    assert (done.returncode, done.stdout) == (0, "went on\n"), done.stderr
    assert said in done.stderr
    assert ("could not install" in done.stderr) == bool(apt_exit)
