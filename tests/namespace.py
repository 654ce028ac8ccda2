"""Throw-away network namespaces for tests: nameless, so that nothing can be left behind.

A namespace lives as long as something holds it: here an open file. Code enters it in a thread of its
own; programs started by that thread, and sockets opened by it, belong to the namespace.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")
Test = TypeVar("Test", bound=Callable[..., None])
CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

# For tests that talk to this machine's kernel; `pytest -ra` shows the reason.
kernel_test = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it makes network namespaces"),
]


def on_kernel(test: Test) -> Test:
    """Decorate one test with what ``pytestmark = kernel_test`` gives all tests of a module."""
    for mark in kernel_test:
        test = mark(test)
    return test


class Namespace:
    """One network namespace, with its loopback up and IPv6 off."""

    def __init__(self) -> None:
        self._file = _in_thread(_new_namespace)
        self.call(lambda: Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1"))
        self.run("ip link set lo up")

    @property
    def path(self) -> str:
        """What ``ip link set ... netns`` takes."""
        return f"/proc/{os.getpid()}/fd/{self._file}"

    def call(self, function: Callable[[], T]) -> T:
        """Return what *function* returns, or raise what it raises, called inside the namespace."""
        def entered() -> T:
            _check(_libc.setns(self._file, CLONE_NEWNET))
            return function()
        return _in_thread(entered)

    def run(self, command: str, given: str = "") -> str:
        """Return what the shell *command* prints inside the namespace; raises where it fails."""
        done = self.call(lambda: subprocess.run(
            command, shell=True, check=False, text=True, capture_output=True, input=given))
        if done.returncode:
            raise RuntimeError(f"{command}: {done.stderr or done.stdout}")
        return done.stdout

    def bind(self, host: str, port: int) -> socket.socket:
        """Return a UDP socket of the namespace, bound to *host* and *port*, with a short timeout."""
        def bound() -> socket.socket:
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.bind((host, port))
            made.settimeout(0.4)
            return made
        return self.call(bound)

    def connect(self, other: Namespace, interface: str, other_interface: str) -> None:
        """Lay a cable between *interface* here and *other_interface* there, both of them new."""
        self.run(f"ip link add {interface} type veth peer name {other_interface} netns {other.path}")

    def close(self) -> None:
        os.close(self._file)


@contextmanager
def namespace() -> Iterator[Namespace]:
    """Give a namespace that ends with the block."""
    made = Namespace()
    try:
        yield made
    finally:
        made.close()


def _new_namespace() -> int:
    _check(_libc.unshare(CLONE_NEWNET))
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _in_thread(function: Callable[[], T]) -> T:
    result: list[T] = []
    problem: list[BaseException] = []

    def work() -> None:
        try:
            result.append(function())
        except BaseException as error:
            problem.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if problem:
        raise problem[0]
    return result[0]
