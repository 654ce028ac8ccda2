"""What `natfix check` finds, and the machine it looks at."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from natfix.config import Settings
from natfix.errors import NatfixError
from natfix.firewall import Ruleset
from natfix.firewall_now import ruleset_now
from natfix.interfaces import Links, links_now
from natfix.kernel.probe import Capabilities, probe

T = TypeVar("T")
TIMEX_SIZE = 512        # more than struct timex has anywhere
TIME_ERROR = 5          # linux/timex.h: nothing keeps the clock right


class Status(Enum):
    """How bad it is. Only the last two are findings."""

    OK = "ok"
    NOTE = "note"           # worth knowing; nothing needs to be done
    WARNING = "warning"     # some calls will suffer
    ERROR = "error"         # natfix cannot work so


class Finding(NamedTuple):
    """One line of `natfix check`."""

    status: Status
    text: str               # one sentence
    cure: str = ""          # a command, a line for a file, or what to do


class Question(Generic[T]):
    """Something asked of the machine once; later askers get the same answer, or the same error."""

    def __init__(self, ask: Callable[[], T]) -> None:
        self._ask = ask
        self._answer: list[T] = []
        self._problem: NatfixError | None = None

    def __call__(self) -> T:
        if self._problem is not None:
            raise self._problem
        if not self._answer:
            try:
                self._answer.append(self._ask())
            except NatfixError as problem:
                self._problem = problem
                raise
        return self._answer[0]


def clock_is_synchronised() -> bool:
    """Tell whether something keeps the clock right (adjtimex(2)); True where that cannot be asked."""
    try:
        return bool(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(TIMEX_SIZE)) != TIME_ERROR)
    except (AttributeError, OSError):
        return True


@dataclass
class Host:
    """The machine, as far as the checks look at it. Tests give their own answers."""

    settings: Settings
    root: Path = Path("/")          # where proc, sys and etc are
    links: Callable[[], Links] = field(default_factory=lambda: Question(links_now))
    ruleset: Callable[[], Ruleset] = field(default_factory=lambda: Question(ruleset_now))
    capabilities: Callable[[], Capabilities] = field(default_factory=lambda: Question(probe))
    find_servers: Callable[[str, bool], Any] | None = None      # asks DNS, see natfix.lookup; None: really
    now: Callable[[], float] = time.time
    clock_is_synchronised: Callable[[], bool] = clock_is_synchronised
    captures: tuple[str, ...] = ()      # files in which `natfix check` is to look for other fixers

    def read(self, path: str) -> str:
        """Return the text of a file such as "proc/net/udp", "" where it cannot be read."""
        try:
            return (self.root / path).read_text(errors="replace")
        except OSError:
            return ""

    def sysctl(self, name: str) -> str:
        """Return the value of a sysctl such as "net.ipv4.ip_forward", "" where there is none."""
        return self.read(f"proc/sys/{name.replace('.', '/')}").strip()


Check = Callable[[Host], Iterator[Finding]]
