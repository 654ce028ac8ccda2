"""The few programs of the system that natfix asks (never in the packet path): nft, iptables-save."""

from __future__ import annotations

import os
import shutil
import subprocess

from natfix.errors import KernelRefused, NatfixError, NotPermitted

TIMEOUT = 20.0      # seconds; `nft list ruleset` starves while others commit all the time (kernel-facts)
SEARCH_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
PACKAGES = {"nft": "nftables", "iptables-save": "iptables"}     # where they come from


def is_installed(program: str) -> bool:
    """Tell whether *program* can be run here."""
    return shutil.which(program, path=SEARCH_PATH) is not None


def output_of(program: str, *arguments: str) -> str:
    """Return what *program* prints on stdout.

    Raises KernelRefused where it is not installed, NotPermitted where it may not do it, NatfixError with
    the program's own first line where it fails otherwise or takes longer than TIMEOUT.
    """
    path = shutil.which(program, path=SEARCH_PATH)
    if path is None:
        raise KernelRefused(f"the program {program} is missing: apt install {PACKAGES.get(program, program)}")
    command = f"`{' '.join((program, *arguments))}`"
    try:
        done = subprocess.run(
            [path, *arguments], capture_output=True, text=True, timeout=TIMEOUT, check=False,
            errors="replace", stdin=subprocess.DEVNULL, env={**os.environ, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        raise NatfixError(f"{command} did not end within {TIMEOUT:.0f} s") from None
    if done.returncode == 0:
        return done.stdout
    words = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[0]
    if "permitted" in words or "ermission denied" in words:
        raise NotPermitted(f"{command} needs more rights ({words}): run as root")
    raise NatfixError(f"{command} failed: {words}")
