"""natfix-replay: how long a large capture takes, and how much memory."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.bench.report import Results
from tests.replay import load

PER_CALL = 7                # SIP messages of a call of tests.replay.load
SECONDS_OF_RTP = 27         # that such a call talks
GB = 1e9                    # octets


class Run(NamedTuple):
    """What one run of natfix-replay took."""

    seconds: float
    peak_mb: float


def measure(messages: int, gigabytes: float) -> Results:
    """Replay a capture with so many SIP *messages*, one of so many *gigabytes* of RTP, and a small one."""
    with tempfile.TemporaryDirectory(prefix="natfix-bench-") as folder:
        path = Path(folder) / "load.pcap"
        small, calls = _replay(path, 1, 0), _replay(path, -(-messages // PER_CALL), 0)
        rtp = _replay(path, *_calls_with_rtp(gigabytes))
        size = path.stat().st_size / GB
    return {"replay": {
        "per_100000_messages_s": round(calls.seconds * 100_000 / messages, 1),
        "peak_mb": round(max(calls.peak_mb, rtp.peak_mb), 1),
        "rtp_s_per_gb": round(rtp.seconds / size, 1),
        "small_capture_s": round(small.seconds, 2),
    }}


def _calls_with_rtp(gigabytes: float) -> tuple[int, int]:
    """Return how many calls, of 50 packets a second each way, make so much: as many as 230 octets allow."""
    packets = SECONDS_OF_RTP * 100
    return max(1, round(gigabytes * GB / (packets * 230))), packets


def _replay(path: Path, calls: int, rtp: int) -> Run:
    """Write a capture of *calls* with *rtp* packets each, and replay it in a process of its own."""
    with path.open("wb") as file:
        load.write(file, calls, rtp)
    began = time.monotonic()
    with subprocess.Popen([sys.executable, "-m", "natfix.replay.main", str(path)], stdout=subprocess.DEVNULL,
                          cwd=Path(__file__).parents[2]) as process:
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 6):            # 6: with findings
        raise RuntimeError(f"natfix-replay ended with {process.returncode}")
    return Run(seconds, usage.ru_maxrss / 1024)
