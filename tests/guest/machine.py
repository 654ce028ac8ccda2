"""A guest: a stock Debian kernel in QEMU's emulation, on the host's own files.

The guest's root is the host's, read-only, below a layer in memory that takes what is written; so the
same programs and the same project are there, as root, beside another kernel. No hardware help is needed,
and no network leads out of it.

    with Guest() as guest:
        print(guest.run(["nft", "list", "ruleset"]).stdout)
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from tests.guest.kernel import GuestError, Kernel, find_kernel

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
PROGRAMS = ("qemu-system-x86_64", "busybox", "setpriv", "nice")
LOCK = Path("/run/natfix-guest.lock")
DIRECTORY = Path("/run/natfix-guest")       # of the one guest: initramfs, console, channel

# What the initramfs loads, with all that these need: the channel, the host's files, the layer above them.
MODULES = ("virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay")
AGENT = ("/usr/bin/python3", str(HERE / "agent.py"))

SYSTEMD = "/lib/systemd/systemd"

BOOT = 180.0            # seconds; 5 to 10 are usual, with systemd 20
TURN = 900.0            # seconds that another guest of this machine may take before ours
MARGIN = 30.0           # seconds that an answer may take beyond its command's time
# With its creator the emulator ends too. Others go first: the lab's own tests have their timing.
LEASH = ("setpriv", "--pdeathsig", "KILL", "nice", "-n", "5")


def missing(systemd: bool = False) -> str:
    """Return why there can be no guest (with *systemd*) here, in one sentence; "" where there can."""
    if os.geteuid():
        return "not root: the guest runs on the host's files"
    if absent := [name for name in PROGRAMS if shutil.which(name) is None]:
        return f"no guest: not installed: {' '.join(absent)} (tools/test installs them)"
    if systemd and not os.access(SYSTEMD, os.X_OK):
        return f"no guest with systemd: {SYSTEMD} is not installed here"
    try:
        find_kernel()
    except GuestError as problem:
        return f"no guest: {problem}"
    return ""


class Guest:
    """A booted guest, as long as a ``with`` block; one at a time on this machine, others wait.

    *memory* is in MB. With *systemd* the guest is booted by the host's systemd, up to basic.target and with
    none of the host's services; otherwise commands are all that runs.
    """

    def __init__(self, *, memory: int = 1536, processors: int = 2, systemd: bool = False) -> None:
        self.kernel = find_kernel()
        self.memory, self.processors, self.systemd = memory, processors, systemd
        self.release = ""               # of the kernel that answers
        self.boot_seconds = 0.0
        self._held = contextlib.ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._answers: IO[bytes] | None = None

    def __enter__(self) -> Guest:
        with contextlib.ExitStack() as held:
            held.enter_context(turn())
            remove_files()          # of one whose creator was killed
            held.callback(remove_files)
            write_initramfs(self.kernel, DIRECTORY / "initramfs", DIRECTORY / "tree")
            held.callback(self._end)
            self._boot()
            self._held = held.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._held.close()

    def run(self, command: Sequence[str], *, timeout: float = 60.0, check: bool = True, input: str = "",  # noqa: A002
            directory: Path = PROJECT, environment: dict[str, str] | None = None,
            ) -> subprocess.CompletedProcess[str]:
        """Run *command* in the guest to its end and return what it printed.

        Raises GuestError where it takes more than *timeout* seconds (it is killed then), where *check* and
        it fails, and where the guest is gone.
        """
        answer = self._ask({"command": list(command), "timeout": timeout, "input": input,
                            "directory": str(directory), "environment": environment or {}}, timeout + MARGIN)
        code = answer["code"]
        said = f"{answer['stdout']}{answer['stderr']}".strip()[-4000:]
        if code is None:
            raise GuestError(f"{' '.join(command)} in the guest: not done after {timeout:g} s\n{said}")
        if check and code:
            raise GuestError(f"{' '.join(command)} in the guest: exit {code}\n{said}")
        return subprocess.CompletedProcess(list(command), code, answer["stdout"], answer["stderr"])

    def script(self, text: str, **options: Any) -> str:
        """Return what the shell script *text* prints; it ends with its first failing command."""
        return self.run(["sh", "-eu"], input=text, **options).stdout

    def console(self, lines: int = 40) -> str:
        """Return the last *lines* of what the guest's kernel and first programs have printed."""
        log = DIRECTORY / "console"
        text = log.read_text(errors="replace") if log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def _boot(self) -> None:
        begin = time.monotonic()
        channel = DIRECTORY / "channel"
        with (DIRECTORY / "qemu").open("wb") as output:
            self._process = subprocess.Popen(self._command(channel), stdin=subprocess.DEVNULL, stdout=output,
                                             stderr=output, start_new_session=True)
        self._channel = self._connect(channel)
        self._answers = self._channel.makefile("rb")
        self.release = self._next_answer(BOOT)["release"]
        self.boot_seconds = time.monotonic() - begin

    def _command(self, channel: Path) -> list[str]:
        options = {"init": ",".join(AGENT), "modules": self.kernel.modules,
                   "busybox": shutil.which("busybox"), "systemd": SYSTEMD if self.systemd else ""}
        arguments = " ".join(f"guest.{name}={value}" for name, value in options.items())
        return [
            *LEASH, "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max",
            "-smp", str(self.processors), "-m", str(self.memory),
            "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-kernel", str(self.kernel.image), "-initrd", str(DIRECTORY / "initramfs"),
            "-append", f"console=ttyS0 quiet panic=-1 mitigations=off {arguments}",
            "-serial", f"file:{DIRECTORY / 'console'}",
            "-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
            "-chardev", f"socket,id=channel,path={channel},server=on,wait=off",
            "-device", "virtio-serial-pci", "-device", "virtserialport,chardev=channel",
        ]

    def _connect(self, path: Path) -> socket.socket:
        # Before the guest's kernel is there: an agent that finds nobody on the other side ends.
        deadline = time.monotonic() + BOOT
        while True:
            channel = socket.socket(socket.AF_UNIX)
            try:
                channel.connect(str(path))
                return channel
            except OSError:
                channel.close()
            if self._has_ended() or time.monotonic() > deadline:
                raise GuestError(f"QEMU does not start\n{self._complaint()}")
            time.sleep(0.02)

    def _ask(self, request: dict[str, Any], timeout: float) -> dict[str, Any]:
        if self._channel is None:
            raise GuestError("the guest is not running")
        self._channel.sendall(json.dumps(request).encode() + b"\n")
        return self._next_answer(timeout)

    def _next_answer(self, timeout: float) -> dict[str, Any]:
        assert self._channel is not None
        assert self._answers is not None
        self._channel.settimeout(timeout)
        try:
            line = self._answers.readline()
        except OSError as problem:
            self._end()         # what comes later would be taken for the answer to something else
            raise GuestError(f"the guest says nothing ({problem})\n{self.console()}") from None
        if not line:
            raise GuestError(f"the guest has ended\n{self.console()}\n{self._complaint()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _complaint(self) -> str:
        return (DIRECTORY / "qemu").read_text(errors="replace")

    def _has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _end(self) -> None:
        # Nothing of it has to be saved.
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._channel is not None:
            self._channel.close()
        self._process = self._channel = None


def remove_files() -> None:
    """Remove the files of a guest that has ended."""
    shutil.rmtree(DIRECTORY, ignore_errors=True)


@contextlib.contextmanager
def turn() -> Iterator[None]:
    """Wait until no other guest runs on this machine, and keep others waiting."""
    with LOCK.open("w") as lock:
        wait_for(lambda: is_locked(lock), TURN, "another guest of this machine ends")
        yield


def is_locked(lock: IO[str]) -> bool:
    """Take *lock* where it is free, and tell whether it is ours."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait_for(condition: Callable[[], bool], timeout: float, what: str) -> None:
    """Wait until *condition* holds; raises GuestError naming *what* after *timeout* seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise GuestError(f"{what}: not within {timeout:g} s")
        time.sleep(0.1)


def write_initramfs(kernel: Kernel, path: Path, tree: Path) -> None:
    """Write the archive that the guest's kernel starts from to *path*, by way of the folder *tree*."""
    for folder in ("bin", "modules"):
        (tree / folder).mkdir(parents=True)
    shutil.copy(str(shutil.which("busybox")), tree / "bin" / "busybox")
    shutil.copy(HERE / "init.sh", tree / "init")
    (tree / "init").chmod(0o755)
    files = load_order(kernel.modules, MODULES)
    for file in files:
        shutil.copy(kernel.modules / file, tree / "modules")
    (tree / "modules" / "order").write_text("".join(f"{Path(file).name}\n" for file in files))
    names = "".join(f"{found.relative_to(tree)}\n" for found in sorted(tree.rglob("*")))
    with path.open("wb") as archive:
        subprocess.run(["busybox", "cpio", "-o", "-H", "newc"], cwd=tree, input=names.encode(),
                       stdout=archive, stderr=subprocess.DEVNULL, check=True)


def load_order(modules: Path, names: Sequence[str]) -> list[str]:
    """Return the files of the modules *names* and of all they need, each after those that it needs.

    Paths are relative to *modules*; what is built into the kernel has no file. Raises GuestError for a
    name that the kernel does not know.
    """
    needs = needs_from_text((modules / "modules.dep").read_text())
    file_of = {Path(file).name.partition(".")[0]: file for file in needs}
    builtin = {Path(line).stem for line in (modules / "modules.builtin").read_text().split()}
    order: list[str] = []

    def add(file: str) -> None:
        for needed in needs[file]:
            add(needed)
        if file not in order:
            order.append(file)

    for name in names:
        if name in file_of:
            add(file_of[name])
        elif name not in builtin:
            raise GuestError(f"this kernel has no module {name}")
    return order


def needs_from_text(text: str) -> dict[str, list[str]]:
    """Return which modules each module needs, from the text of ``modules.dep``."""
    rows = (line.partition(":") for line in text.splitlines())
    return {file: needed.split() for file, _, needed in rows}
