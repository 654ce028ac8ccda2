"""Labs that outlived their process: standing ones (``tools/lab up``) stay, crashed ones are removed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from tests.lab import namespaces

STATE = Path("/run/natfix-lab")


class Found(NamedTuple):
    """One lab on this machine."""

    prefix: str
    state: str          # "running" (its process lives), "standing" (tools/lab up), "crashed"
    hosts: tuple[str, ...]


def claim(directory: Path, standing: bool) -> None:
    """Make *directory* and write down whose it is."""
    directory.mkdir(parents=True, mode=0o700)
    (directory / "creator").write_text(namespaces.process_start(os.getpid()))
    if standing:
        (directory / "standing").touch()


def list_labs() -> list[Found]:
    """Return every lab on this machine, by its namespaces and its directory."""
    hosts: dict[str, list[str]] = {}
    for name in namespaces.list_namespaces():
        prefix, _, host = name.rpartition("-")
        hosts.setdefault(prefix, []).append(host)
    for directory in STATE.glob("nfx*-*"):
        hosts.setdefault(directory.name, [])
    return [Found(prefix, _state(prefix), tuple(names)) for prefix, names in sorted(hosts.items())]


def sweep() -> list[str]:
    """Remove all crashed labs and return their names."""
    crashed = [lab.prefix for lab in list_labs() if lab.state == "crashed"]
    for prefix in crashed:
        remove(prefix)
    return crashed


def remove(prefix: str, keep_files: bool = False) -> None:
    """End what runs in the namespaces of lab *prefix*, and remove them and (*keep_files*: not) its files."""
    for name in namespaces.list_namespaces(prefix):
        _end_processes(name)
    namespaces.remove(prefix)
    if not keep_files:
        shutil.rmtree(STATE / prefix, ignore_errors=True)


def _state(prefix: str) -> str:
    directory = STATE / prefix
    if (directory / "standing").exists():
        return "standing"
    pid = int(prefix.removeprefix("nfx").partition("-")[0])
    started = namespaces.process_start(pid)
    # A process number is used again: only the same start time makes it the same process. A lab
    # whose directory is not yet written, or already gone, belongs to whoever has that number.
    with contextlib.suppress(OSError):
        return "running" if started and (directory / "creator").read_text() in ("", started) else "crashed"
    return "running" if started else "crashed"


def _end_processes(name: str) -> None:
    # Whoever is in a namespace that a lab made was started by that lab.
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + 2.0
        for pid in (pids := processes_in(name)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        while pids and time.monotonic() < deadline:
            time.sleep(0.02)
            pids = processes_in(name)


def processes_in(name: str) -> list[int]:
    """Return the numbers of all processes in the namespace *name*."""
    listed = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False)
    return [int(line) for line in listed.stdout.split()]
