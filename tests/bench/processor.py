"""CPU time of other processes, to the nanosecond: what getrusage tells them of themselves."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

CPUCLOCK_SCHED = 2      # linux/posix-timers_types.h


def cpu_seconds(processes: Iterable[int]) -> float:
    """Return the user and system time that *processes* have used, all their threads included."""
    return sum(time.clock_gettime(~pid << 3 | CPUCLOCK_SCHED) for pid in processes)


def cpu_ticks(pid: int) -> int:
    """Return user and system time as the kernel shows it: hundredths of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def family(pid: int) -> list[int]:
    """Return *pid* and all its descendants."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue        # it has ended meanwhile
    found = [pid]
    for known in found:
        found += [child for child, parent in parents.items() if parent == known]
    return found


def resident_megabytes(pid: int) -> float:
    """Return how much memory process *pid* has in RAM, in units of 1,000,000 bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
    return kilobytes * 1024 / 1e6
