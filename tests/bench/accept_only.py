"""The least that a Python program on an NFQUEUE can do: accept every packet. Run with the queue's number."""

from __future__ import annotations

import sys
from typing import Any

from netfilterqueue import NetfilterQueue


def accept(packet: Any) -> None:
    """Let *packet* go on as it came."""
    packet.accept()


if __name__ == "__main__":
    queue = NetfilterQueue()
    queue.bind(int(sys.argv[1]), accept)
    print("bound", flush=True)
    queue.run()
