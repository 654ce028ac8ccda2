"""A switch-on for a limited time that the kernel itself keeps: `natfix up --confirm`.

The rules that lead packets to natfix ask for an element of a set, and that element's time runs out. So even
where the daemon is killed, stopped or hangs, SIP passes by itself again once the time is up, unfixed, as
before. The daemon takes all the rest back as long as it lives, and puts in rules without this condition once
the operator has confirmed.
"""

from __future__ import annotations

import math
import re

GATE = "        meta l4proto != @trial return\n"
MARGIN = 3          # seconds that the kernel waits longer than the daemon, which takes everything back
CHAINS = re.compile(r"^    chain (?:divert|own_in|own_out|learn) \{\n(?!        type)", re.MULTILINE)
SET = """\
table ip natfix {{
    set trial {{
        type inet_proto
        flags timeout
    }}
}}
flush set ip natfix trial
add element ip natfix trial {{ udp timeout {seconds}s, tcp timeout {seconds}s }}
"""


def gated(rules: str, seconds: float) -> str:
    """Return *rules*, the text of natfix's table, in force for *seconds* only."""
    return SET.format(seconds=math.ceil(seconds) + MARGIN) + CHAINS.sub(lambda found: found[0] + GATE, rules)
