"""The lab's own RTP endpoint (:mod:`tests.lab.rtp`) as a program on a host."""

from __future__ import annotations

import itertools
import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.lab import tones
from tests.lab.host import PROJECT, Process

if TYPE_CHECKING:
    from tests.lab.lab import Lab


class RtpAgent:
    """Send *tone* hertz from *port* of *host* to *to* ("address:port", "" to record only), and record.

    *options* become command line options of ``tests/lab/rtp.py``: ``latch=True``, ``delay=0.5``,
    ``rtcp_port=...``, ``rtcp_to=...``, ``rtcp_mux=True``, ``no_rtcp=True``, ``first_sequence=...``.
    After :meth:`stop`, the attributes and methods below tell what arrived.
    """

    def __init__(self, host: str, port: int, *, to: str = "", tone: int = 440, **options: Any) -> None:
        self.host_name, self.port, self.to, self.tone, self.options = host, port, to, tone, options
        self.process: Process | None = None
        self.prefix = Path()
        self.result: dict[str, Any] = {}

    def start(self, lab: Lab) -> None:
        """Start it and wait until its sockets are bound."""
        host = lab[self.host_name]
        self.prefix = lab.path(f"rtp-{self.host_name}-{self.port}-{len(host.processes)}")
        command = [sys.executable, str(PROJECT / "tests/lab/rtp.py"), "--address", host.address,
                   "--port", str(self.port), "--tone", str(self.tone), "--output", str(self.prefix)]
        if self.to:
            command += ["--to", self.to]
        for name, value in self.options.items():
            option = f"--{name.replace('_', '-')}"
            if value is not False:
                command += [option] if value is True else [option, str(value)]
        self.process = host.popen(command, f"rtp-{self.port}")
        self.process.wait_for("ready")

    def stop(self) -> dict[str, Any]:
        """End it and return everything it wrote down (also kept as :attr:`result`)."""
        assert self.process is not None
        if not self.result:
            self.process.stop()
            self.result = json.loads(Path(f"{self.prefix}.json").read_text())
        return self.result

    @property
    def sent(self) -> int:
        """How many RTP packets it sent."""
        return int(self.stop()["sent"])

    @property
    def received(self) -> int:
        """How many datagrams came to its RTP port."""
        return len(self.stop()["received"])

    @property
    def rtcp_received(self) -> int:
        """How many RTCP packets came."""
        return len(self.stop()["rtcp_received"])

    def sources(self) -> Counter[tuple[str, int]]:
        """Return how many RTP packets came from which (address, port)."""
        return Counter((row[1], row[2]) for row in self.stop()["received"])

    def rtcp_sources(self) -> Counter[tuple[str, int]]:
        """Return how many RTCP packets came from which (address, port)."""
        return Counter((row[1], row[2]) for row in self.stop()["rtcp_received"])

    def missing(self) -> int:
        """Return how many sequence numbers are absent between the first and the last that arrived."""
        sequences = {row[3] for row in self.stop()["received"] if row[3] >= 0}
        return max(sequences) - min(sequences) + 1 - len(sequences) if sequences else 0

    def longest_gap(self) -> float:
        """Return the longest time between two packets, in seconds."""
        times = [row[0] for row in self.stop()["received"]]
        return max((later - earlier for earlier, later in itertools.pairwise(times)), default=0.0)

    def heard(self, expected: int, other: int | None = None) -> tones.Heard:
        """Return what it recorded of tone *expected*, against its own tone or *other*."""
        self.stop()
        return tones.recognise(Path(f"{self.prefix}.wav"), expected, self.tone if other is None else other)

    def heard_from(self, speaker: RtpAgent) -> tones.Heard:
        """Return what it recorded of the tone of *speaker*, in that agent's own stream."""
        self.stop()
        recording = Path(f"{self.prefix}-{speaker.stop()['ssrc']}.wav")
        return tones.recognise(recording, speaker.tone, self.tone)
