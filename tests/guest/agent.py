#!/usr/bin/python3
"""The guest's first program: carries out commands that come as JSON lines over a virtio port, one by one.

A request is ``{"command": [...], "timeout": seconds, "input": text, "directory": path, "environment": {}}``,
its answer ``{"code": n, "stdout": text, "stderr": text}``; a ``code`` of null says that the time was up.
Where the host has gone away, the guest ends.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, BinaryIO

PORT = "vport*"             # its number is that of the virtio device
RESTART = 0x01234567        # RB_AUTOBOOT, reboot(2): QEMU takes it as the end (-no-reboot)
ENVIRONMENT = {
    "HOME": "/root", "LANG": "C.UTF-8",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "NATFIX_LAB_SLOWNESS": "6",     # see tests/lab/host.py
}


def main() -> None:
    """Say hello, then answer line by line until the host has gone."""
    port = os.open(next(Path("/dev").glob(PORT)), os.O_RDWR)
    with open(port, "rb") as requests, open(port, "wb", closefd=False) as answers:
        tell(answers, {"release": os.uname().release})
        for request in requests:
            tell(answers, answer(json.loads(request)))
    end()


def end() -> None:
    """End the guest."""
    ctypes.CDLL(None).reboot(RESTART)


def tell(answers: BinaryIO, message: dict[str, Any]) -> None:
    """Send *message* as one line; where nobody would read it, the write would never return."""
    poll = select.poll()
    poll.register(answers, select.POLLOUT)
    if any(event & select.POLLHUP for _, event in poll.poll(0)):
        end()
    answers.write(json.dumps(message).encode() + b"\n")
    answers.flush()


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Run the command of *request* and return its answer."""
    # Files, not pipes: a daemon that the command leaves behind may keep its output open.
    with TemporaryFile() as given, TemporaryFile() as stdout, TemporaryFile() as stderr:
        given.write(request["input"].encode())
        given.seek(0)
        try:
            started = subprocess.Popen(
                request["command"], stdin=given, stdout=stdout, stderr=stderr, cwd=request["directory"],
                env={**ENVIRONMENT, **request["environment"]}, start_new_session=True)
        except OSError as problem:
            return {"code": 127, "stdout": "", "stderr": f"{problem}\n"}
        code = wait(started, request["timeout"])
        return {"code": code, "stdout": text_from(stdout), "stderr": text_from(stderr)}


def wait(started: subprocess.Popen[bytes], timeout: float) -> int | None:
    """Return the exit code, or None where the process had to be ended after *timeout* seconds."""
    try:
        return started.wait(timeout)
    except subprocess.TimeoutExpired:
        os.killpg(started.pid, signal.SIGKILL)
        started.wait()
        return None


def text_from(output: IO[bytes]) -> str:
    """Return all that stands in the file *output*."""
    output.seek(0)
    return output.read().decode(errors="replace")


if __name__ == "__main__":
    main()
