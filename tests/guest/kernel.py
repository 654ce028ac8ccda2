"""The guest's kernel: Debian's own package, downloaded and unpacked into ``.guest/``, never installed.

``python -m tests.guest.kernel`` fetches it once; ``.guest/`` may be deleted at any time.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

STORE = Path(__file__).resolve().parents[2] / ".guest"
PACKAGE = "linux-image-amd64"       # depends on the package of the current kernel
PROBLEM = STORE / "problem"         # why it could not be fetched the last time
PATIENCE = 300.0                    # seconds for some 70 MB


class GuestError(Exception):
    """There is no guest, or not what was expected of it; the text says what is missing or happened."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """An unpacked kernel package; *modules* is its folder ``lib/modules/<release>``."""

    release: str
    image: Path
    modules: Path


def find_kernel() -> Kernel:
    """Return the kernel unpacked last; raises GuestError, with the reason, where there is none."""
    images = sorted(STORE.glob("linux-image-*/boot/vmlinuz-*"), key=lambda path: path.stat().st_mtime)
    if not images:
        reason = PROBLEM.read_text().strip() if PROBLEM.exists() else "tools/test fetches it"
        raise GuestError(f"no Debian kernel in {STORE} ({reason})")
    release = images[-1].name.removeprefix("vmlinuz-")
    return Kernel(release, images[-1], images[-1].parents[1] / "lib" / "modules" / release)


def fetch_kernel() -> Kernel:
    """Return the kernel, downloaded first where there is none; raises GuestError with apt's complaint."""
    try:
        return find_kernel()
    except GuestError:
        STORE.mkdir(exist_ok=True)
    try:
        name = current_package()
        with tempfile.TemporaryDirectory(dir=STORE) as scratch:
            unpack(download(name, Path(scratch)), Path(scratch, "unpacked"))
            Path(scratch, "unpacked").rename(STORE / name)
    except (GuestError, OSError, subprocess.TimeoutExpired) as problem:
        PROBLEM.write_text(f"{problem}\n")
        raise GuestError(str(problem)) from None
    PROBLEM.unlink(missing_ok=True)
    return find_kernel()


def current_package() -> str:
    """Return the name of the kernel package that :data:`PACKAGE` depends on, as apt knows it."""
    show = ["apt-cache", "show", "--no-all-versions", PACKAGE]
    depends = re.compile(r"^Depends: (linux-image-[^\s,]+)", re.MULTILINE)
    found = depends.search(run(show, check=False))
    if found is None:
        run(["apt-get", "update"])
        found = depends.search(run(show))
    if found is None:
        raise GuestError(f"{PACKAGE} does not say which kernel it stands for")
    return found[1]


def download(package: str, directory: Path) -> Path:
    """Return the .deb of *package*, downloaded into *directory*."""
    run(["apt-get", "download", package], directory)
    return next(directory.glob("*.deb"))


def unpack(deb: Path, directory: Path) -> None:
    """Unpack *deb*, and write the lists of modules that its installation would write."""
    run(["dpkg-deb", "-x", str(deb), str(directory)])
    for folder in directory.glob("lib/modules/*"):
        run(["busybox", "depmod", "-b", str(directory), folder.name])
    image = next(directory.glob("boot/vmlinuz-*"))
    image.touch()           # the package carries its own time; find_kernel() asks for ours


def run(command: list[str], directory: Path | None = None, check: bool = True) -> str:
    """Return what *command* prints; raises GuestError with its last line where it fails and *check*."""
    if shutil.which(command[0]) is None:
        raise GuestError(f"{command[0]} is not installed")
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=PATIENCE,
                          stdin=subprocess.DEVNULL, check=False)
    if check and done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
        raise GuestError(f"{' '.join(command[:2])}: {lines[-1]}")
    return done.stdout


def main() -> int:
    """Fetch it and say so; the exit code is 1 where that was not possible."""
    try:
        kernel = fetch_kernel()
    except GuestError as problem:
        print(f"the kernel for the guest cannot be had: {problem}", file=sys.stderr)
        return 1
    print(f"Linux {kernel.release} in {kernel.image.parents[1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
