"""Who has sent SIP: per UA when it was seen last, how many messages, errors and retransmissions.

Counted after the verdicts, from the messages as they came; a UA is an address and port that sends, or one end
of a TCP connection.
"""

from __future__ import annotations

import re
from collections import OrderedDict, deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from natfix.address import Endpoint
from natfix.commands import Treated
from natfix.journal import Decision
from natfix.packet import UDP

MOST_AGENTS = 2048      # the one that was quiet longest is forgotten
MOST_SHOWN = 500        # of one answer
REMEMBERED = 8          # messages of one UA in which a repeated one is looked for
REPEATED_WITHIN = 32.0  # seconds; 64*T1 (RFC 3261, section 17.1.1.2)
ASK_NAME_EVERY = 64     # messages; a UA's name does not change often
LONGEST_NAME = 120
CHALLENGES = (b"401", b"407")
FAILURE = re.compile(rb"SIP/2\.0 [456]\d\d(?!\d)")

# "." ends at a line end, and the name is bounded: linear, whatever a stranger sends.
NAME = re.compile(rb"\n(?:User-Agent|Server)[ \t]*:[ \t]*([^\r\n]{0,120})", re.IGNORECASE)


@dataclass(slots=True, eq=False)
class Agent:
    """What is counted of one UA."""

    last_seen: float = 0.0
    messages: int = 0
    errors: int = 0             # final responses 4xx to 6xx that it sent or was sent, but for challenges
    challenges: int = 0         # 401 and 407: part of an ordinary registration, or call
    retransmissions: int = 0
    last: str = ""              # its last message's first line
    name: str = ""
    interface: str = ""         # that its last message came in by, "-" from the gateway itself
    recent: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=REMEMBERED))


class Agents:
    """The UAs that were seen lately."""

    def __init__(self) -> None:
        self._agents: OrderedDict[Endpoint, Agent] = OrderedDict()

    def on_decision(self, decision: Decision) -> None:
        """Count the messages that natfix has read."""
        for treated in decision.outcome.treated:
            self._count(treated, decision)

    def _count(self, treated: Treated, decision: Decision) -> None:
        octets = treated.octets
        line = octets.lstrip(b"\r\n")[:LONGEST_NAME].partition(b"\r")[0].partition(b"\n")[0]
        agent = self._agent(treated.source)
        agent.last_seen, agent.last = decision.at, line.decode("latin-1")
        agent.interface = decision.where.partition(" ")[2].partition(" ")[0]
        if agent.messages % ASK_NAME_EVERY == 0 or not agent.name:
            found = NAME.search(octets)
            agent.name = found[1].decode("latin-1") if found else agent.name
        agent.messages += 1
        if treated.protocol == UDP:     # a stream repeats octets, not messages
            key = hash((treated.destination, octets))
            agent.retransmissions += _is_repeated(agent, key, decision.at)
        if FAILURE.match(line):
            is_challenge = line[8:11] in CHALLENGES
            for each in (agent, self._agents.get(treated.shown_destination)):
                if each is not None:
                    each.challenges += is_challenge
                    each.errors += not is_challenge

    def _agent(self, source: Endpoint) -> Agent:
        agent = self._agents.get(source)
        if agent is None:
            if len(self._agents) >= MOST_AGENTS:
                self._agents.popitem(last=False)
            agent = self._agents[source] = Agent()
        else:
            self._agents.move_to_end(source)
        return agent

    def rows(self, outside: Collection[str], now: float) -> list[dict[str, Any]]:
        """Return one row per UA, the last one first; *outside* are the interfaces that lead there."""
        newest = list(reversed(self._agents.items()))[:MOST_SHOWN]
        return [
            {"address": str(source), "side": "outside" if agent.interface in outside else "inside",
             "last_seen": round(now - agent.last_seen, 1), "messages": agent.messages,
             "errors": agent.errors, "challenges": agent.challenges,
             "retransmissions": agent.retransmissions, "last": agent.last, "user_agent": agent.name}
            for source, agent in newest
        ]


def _is_repeated(agent: Agent, key: int, at: float) -> bool:
    """Tell whether the very same message went to the same place before, and remember it."""
    is_known = any(key == known and at < since + REPEATED_WITHIN for known, since in agent.recent)
    if not is_known:
        agent.recent.append((key, at))
    return is_known
