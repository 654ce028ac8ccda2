"""A bad link: what a host receives by TCP is lost now and then, or comes late and out of order.

The lab's kernel has no netem. So the host's packets wait in an NFQUEUE before anything else sees them
(conntrack included), and this program says which come on, and when.
"""

from __future__ import annotations

import heapq
import itertools
import random
import select
import sys
import time
from typing import TYPE_CHECKING

from tests.lab.host import Process, wait_until

if TYPE_CHECKING:
    from natfix.queue_reader import QueuedPacket
    from tests.lab.lab import Lab

QUEUE = 9
LATEST = 0.02       # seconds that a late packet is held; others overtake it


class BadLink:
    """On *host*, of all TCP packets *loss* (0 to 1) are lost and *late* come up to 20 ms late."""

    def __init__(self, host: str, loss: float = 0.05, late: float = 0.1) -> None:
        self.host_name, self.loss, self.late = host, loss, late
        self.process: Process | None = None

    def start(self, lab: Lab) -> None:
        """Start it, wait until it stands at its queue, and lead packets there."""
        host = lab[self.host_name]
        command = [sys.executable, "-m", __name__, str(self.loss), str(self.late)]
        self.process = host.popen(command, "bad-link")
        self.process.wait_for("bound")
        host.run(["iptables", "-t", "raw", "-I", "PREROUTING", "-p", "tcp", "-j", "NFQUEUE",
                  "--queue-num", str(QUEUE)])

    def lost(self) -> int:
        """End it and return how many packets it has lost."""
        assert self.process is not None
        process = self.process
        process.stop()
        return int(wait_until(lambda: "lost " in process.output() and process.output(), 5.0, "the sum")
                   .rpartition("lost ")[2].split()[0])


def spoil(loss: float, late: float) -> None:
    """Stand at the queue for ever."""
    from natfix.queue_reader import NetfilterQueueReader

    chance = random.Random(5)
    reader = NetfilterQueueReader(QUEUE)
    held: list[tuple[float, int, QueuedPacket]] = []
    numbers = itertools.count()
    lost = 0
    print("bound", flush=True)
    try:
        while True:
            patience = max(0.0, held[0][0] - time.monotonic()) if held else None
            select.select([reader], [], [], patience)
            now = time.monotonic()
            for packet in reader.read():
                fate = chance.random()
                if fate < loss:
                    lost += 1
                    packet.drop()
                elif fate < loss + late:
                    heapq.heappush(held, (now + chance.random() * LATEST, next(numbers), packet))
                else:
                    packet.accept()
            while held and held[0][0] <= now:
                heapq.heappop(held)[2].accept()
    except KeyboardInterrupt:
        print(f"lost {lost} of all", flush=True)


if __name__ == "__main__":
    import signal

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    spoil(*map(float, sys.argv[1:]))
