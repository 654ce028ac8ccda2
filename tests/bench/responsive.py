"""Whether nft still answers while natfix changes its maps a hundred times a second."""

from __future__ import annotations

import time
from statistics import median

from tests.bench.arrangements import with_natfix
from tests.bench.load import Calls
from tests.bench.report import Results
from tests.lab.host import Host

RATE = 100              # calls per second
TALK = 3.0              # seconds; so there are some 300 calls up at any time
PATIENCE = 20.0         # seconds until a list is given up
# What an operator, or fail2ban, does meanwhile.
OWN_COMMANDS = """
add table inet operator
add set inet operator banned {{ type ipv4_addr; }}
add element inet operator banned {{ 198.51.100.{0} }}
delete element inet operator banned {{ 198.51.100.{0} }}
delete table inet operator
"""


def measure(seconds: float) -> Results:
    """Return how long the commands took, longest and median, in seconds."""
    lists, own = [], []
    with with_natfix() as arrangement:
        gateway = arrangement.lab.gateway
        calls = Calls(arrangement.lab, round(RATE * seconds), RATE, talk=TALK)
        time.sleep(TALK)
        end = time.monotonic() + seconds - TALK
        while time.monotonic() < end:
            lists.append(_timed(gateway, ["nft", "list", "ruleset"]))
            own.append(_timed(gateway, ["nft", "-f", "-"], OWN_COMMANDS.format(len(own) % 250 + 1)))
        calls.wait().check()
    return {"nft": {
        "list_ruleset_s": round(max(lists), 3), "list_ruleset_median_s": round(median(lists), 3),
        "own_commands_s": round(max(own), 3), "own_commands_median_s": round(median(own), 3),
        "lists": len(lists),
    }}


def _timed(host: Host, command: list[str], text: str | None = None) -> float:
    began = time.monotonic()
    host.run(command, input=text, timeout=PATIENCE)
    return time.monotonic() - began
