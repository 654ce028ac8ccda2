"""A clean Debian to install packages into: bare files by debootstrap, and namespaces of its own.

The files are made once, into ``.deb/`` (which may be deleted at any time); each :class:`CleanRoot` writes
into a layer above them. It has its own network, processes and mounts, no systemd, and no way out.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
STORE = PROJECT / ".deb"
SUITE = "bookworm"
# What the package depends on, so that it can be installed without a network, and what looks at rules.
PACKAGES = ("python3", "libnetfilter-queue1", "libnftables1", "nftables", "iproute2",
            "systemd-standalone-sysusers", "systemd-standalone-tmpfiles")
PATIENCE = 600.0        # seconds for debootstrap
USUAL_MIRROR = "http://deb.debian.org/debian"
PROGRAMS = ("debootstrap", "unshare", "nsenter", "mount")
ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}

# A layer in memory above the bare files; then the first process of new namespaces, at home there.
BEGIN = """
mount -t tmpfs layer "$2"
mkdir "$2/changes" "$2/work" "$2/root"
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/changes,workdir=$2/work" "$2/root"
mount -t proc proc "$2/root/proc"
mount --bind /dev "$2/root/dev"
mount -t tmpfs run "$2/root/run"
ip link set lo up
echo ready
exec chroot "$2/root" sleep infinity
"""


class CleanRootError(Exception):
    """There is no clean Debian, or a command in it has failed; the text says why."""


def missing() -> str:
    """Return why there can be no clean Debian here, in one sentence; "" where there can."""
    if os.geteuid():
        return "not root: a clean Debian needs namespaces and mounts"
    if absent := [name for name in PROGRAMS if shutil.which(name) is None]:
        return f"no clean Debian: not installed: {' '.join(absent)} (tools/test installs them)"
    return ""


def bare_root() -> Path:
    """Return the bare files, made first where there are none; raises CleanRootError with the reason."""
    STORE.mkdir(exist_ok=True)
    root, scratch = STORE / "root", STORE / "scratch"
    with (STORE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if root.is_dir():
            return root
        shutil.rmtree(scratch, ignore_errors=True)
        command = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}",
                   SUITE, str(scratch), mirror()]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, check=False,
            stdin=subprocess.DEVNULL)
        if done.returncode:
            last = (done.stdout + done.stderr).strip().splitlines()[-1]
            raise CleanRootError(f"no clean Debian: debootstrap: {last}")
        scratch.rename(root)
    return root


def mirror() -> str:
    """Return the mirror that this machine's apt takes Debian from."""
    files = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    text = "\n".join(file.read_text() for file in files if file.is_file())
    found = re.search(r"^(?:URIs:|deb(?: \[.*\])?) *(https?://\S*/debian)/?(?:\s|$)", text, re.MULTILINE)
    return found[1] if found else USUAL_MIRROR


class CleanRoot:
    """A clean Debian for as long as a ``with`` block; *scratch* is an empty directory to mount it at.

    *network* names the network namespace that it is to be the host of (ip-netns(8)); it has one of its own
    where none is given.
    """

    def __init__(self, scratch: Path, network: str = "") -> None:
        self.path = scratch / "root"
        begin = ["ip", "netns", "exec", network, "unshare"] if network else ["unshare", "--net"]
        self._process = subprocess.Popen(
            [*begin, "--mount", "--pid", "--ipc", "--fork", "--kill-child",
             "sh", "-eu", "-c", BEGIN, "clean-root", str(bare_root()), str(scratch)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            raise CleanRootError(f"no clean Debian: {self._process.communicate()[1].strip()}")
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        self._first = children.split()[0]

    def __enter__(self) -> CleanRoot:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()        # --kill-child: all that runs in there ends with it
        self._process.communicate()

    def run(
        self, script: str, *, check: bool = True, timeout: float = 120.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell script in there and return what it printed; raises CleanRootError where it fails."""
        done = subprocess.run(
            ["nsenter", f"--target={self._first}", "--mount", "--net", "--pid", "--ipc", "--root", "--wd",
             "sh", "-eu", "-c", script],
            capture_output=True, text=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL,
            env=ENVIRONMENT)
        if check and done.returncode:
            raise CleanRootError(f"{script}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def ask(self, script: str, **options: float) -> str:
        """Return what the shell script *script* prints."""
        return self.run(script, **options).stdout      # type: ignore[arg-type]

    def put(self, file: Path) -> str:
        """Copy *file* in, and return its path there."""
        with file.open("rb") as content:
            subprocess.run(["nsenter", f"--target={self._first}", "--mount", "--root", "--wd",
                            "sh", "-c", f"cat >/tmp/{file.name}"], stdin=content, check=True, timeout=60)
        return f"/tmp/{file.name}"
