"""The kernel's own packet counters: what a NAT gateway relayed, from its conntrack table."""

from __future__ import annotations

import re
from typing import NamedTuple

from tests.lab.host import Host

FIELD = re.compile(r"(src|dst|sport|dport|packets)=(\S+)")
SIP_PORT = "5060"


class Relayed(NamedTuple):
    """One UDP flow in the gateway's kernel, as (address:port) texts, with packets in each direction."""

    source: str             # who sent the first packet
    destination: str        # where to
    shown_source: str       # what the other side sees the source as
    real_destination: str   # where the packets really go
    packets: int
    answers: int

    def __str__(self) -> str:
        return (f"{self.source} -> {self.destination}, relayed to {self.real_destination} as "
                f"{self.shown_source}: {self.packets} packets, {self.answers} back")


def media_flows(gateway: Host, minimum: int = 1) -> list[Relayed]:
    """Return the UDP flows through *gateway* that are not SIP and have *minimum* packets or more."""
    text = gateway.run(["conntrack", "-L", "-p", "udp"]).stdout
    flows = [flow for line in text.splitlines() if (flow := flow_from_line(line))]
    return [flow for flow in flows if flow.packets + flow.answers >= minimum
            and not any(end.endswith(f":{SIP_PORT}") for end in (flow.destination, flow.real_destination))]


def flow_from_line(line: str) -> Relayed | None:
    """Return the flow that one line of ``conntrack -L`` tells of; None where it has no two tuples."""
    fields = FIELD.findall(line)
    half = len(fields) // 2
    if half < 4:
        return None
    first, reply = dict(fields[:half]), dict(fields[half:])
    return Relayed(f"{first['src']}:{first['sport']}", f"{first['dst']}:{first['dport']}",
                   f"{reply['dst']}:{reply['dport']}", f"{reply['src']}:{reply['sport']}",
                   int(first.get("packets", 0)), int(reply.get("packets", 0)))
