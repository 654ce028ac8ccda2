"""Which product is on the path, told from what only that product writes or leaves behind.

A guess would send an operator into the wrong menu: no product is named without a sign of its own. What a
sign is, and what to do about the product, stands in ``rules/alg`` (:mod:`natfix.algs`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from natfix.algs import Alg, all_algs
from natfix.replay.model import Context, Conversation, PacketId, Side, Sighting
from natfix.sip.message import Message

FW_MONITOR = "fw monitor"
FW_STAGES = frozenset("iIoO")       # where Check Point's fw monitor looks; no other capture has these names
GATEWAYS = ("gateway", "kernel")


class Recognised(NamedTuple):
    """A product, and what gave it away."""

    alg: Alg
    why: str
    packets: tuple[PacketId, ...] = ()
    is_sure: bool = True            # False: it is there, but nothing says that it does the harm


def recognise(conversation: Conversation | None, ctx: Context,
              kinds: Iterable[str] = GATEWAYS) -> Recognised | None:
    """Return the product that the capture gives away, the surest sign first; None where nothing does."""
    wanted = frozenset(kinds)
    found = (each for each in _all_signs(conversation, ctx) if each.alg.kind in wanted)
    return next(found, None)


def remedy(conversation: Conversation | None, ctx: Context, otherwise: str) -> str:
    """Return how the recognised gateway's ALG is switched off; for an unknown one *otherwise* and the "
      "list."""
    known = recognise(conversation, ctx)
    if known is None:
        return f"{otherwise}; `natfix explain --alg` lists the commands for {_how_many()} products"
    if known.is_sure:
        return f"{known.alg.product}: {known.alg.switch_off}"
    return f"{otherwise}; {known.why}, so look there first: {known.alg.product}: {known.alg.switch_off}"


def alg(name: str) -> Alg:
    """Return the product of a file in ``rules/alg``."""
    return next(each for each in all_algs() if each.name == name)


def _how_many() -> int:
    return sum(each.kind in GATEWAYS for each in all_algs())


def _all_signs(conversation: Conversation | None, ctx: Context) -> Iterator[Recognised]:
    yield from by_format(ctx)
    yield from by_log(ctx)
    yield from by_stages(conversation, ctx)
    if conversation is not None:
        yield from by_mark(_sightings(conversation))
        yield from by_user_agent(_sightings(conversation), ctx)
        yield from by_neighbour(_sightings(conversation), ctx)


def by_format(ctx: Context) -> Iterator[Recognised]:
    """Yield the products whose own capture tools wrote an input."""
    for written in ctx.formats:
        for each in all_algs():
            if any(written.lower().startswith(name.lower()) for name in each.formats):
                yield Recognised(each, f"the capture is {written}")


def by_stages(conversation: Conversation | None, ctx: Context) -> Iterator[Recognised]:
    """Yield the product that looks at packets at i, I, o and O."""
    copies = _sightings(conversation) if conversation is not None else (
        copy for passage in ctx.records for copy in passage.sightings)
    stages = {copy.stage for copy in copies}
    if stages and stages <= FW_STAGES:
        seen = ", ".join(sorted(stages, key="iIoO".index))
        yield from (Recognised(each, f"the capture has fw monitor's stages {seen}")
                    for each in all_algs() if FW_MONITOR in each.formats)


def by_log(ctx: Context) -> Iterator[Recognised]:
    """Yield the products whose log lines were given as an input."""
    for line in ctx.log:
        for each in all_algs():
            if any(text in line.text for text in each.log):
                yield Recognised(each, f"the log says {shorten(line.text)}", (line.packet,))


def by_mark(sightings: Iterable[Sighting]) -> Iterator[Recognised]:
    """Yield the products whose marks a message carries."""
    for sighting in sightings:
        payload = sighting.payload.lower()
        for each in all_algs():
            for mark in each.marks:
                if mark.lower().encode() in payload:
                    yield Recognised(each, f'packet {sighting.packet} has "{mark}"', sighting.packets)


def by_user_agent(sightings: Iterable[Sighting], ctx: Context) -> Iterator[Recognised]:
    """Yield products that speak for themselves from the gateway's outside address: that box is the NAT."""
    for sighting in sightings:
        message = sighting.message
        if message is None or sighting.source.host != ctx.network.outside:
            continue
        name = own_name(message)
        for each in all_algs():
            if any(name.lower().startswith(prefix.lower()) for prefix in each.user_agents):
                yield Recognised(each, f"packet {sighting.packet} says {shorten(name)}", sighting.packets)


def by_neighbour(sightings: Iterable[Sighting], ctx: Context) -> Iterator[Recognised]:
    """Yield who made the hop that outside hosts' packets come inside from; that it is the NAT is likely."""
    for sighting in sightings:
        host = sighting.source.host
        address = ctx.neighbours.get(host, "")
        if not address or sighting.side is not Side.INSIDE or ctx.network.side_of(host) is not Side.OUTSIDE:
            continue
        for each in all_algs():
            if address[:8] in each.oui:
                why = f"the next hop, {address}, is made by that manufacturer"
                yield Recognised(each, why, sighting.packets, is_sure=False)


def own_name(message: Message) -> str:
    """Return what a message's sender calls itself."""
    return message.user_agent


def shorten(text: str, most: int = 80) -> str:
    """Return untrusted text quoted, on one line, of bounded length."""
    clean = "".join(char if char.isprintable() else "?" for char in text.strip())
    return f'"{clean}"' if len(clean) <= most else f'"{clean[:most - 3]}..."'


def _sightings(conversation: Conversation) -> Iterator[Sighting]:
    return (sighting for passage in conversation.passages for sighting in passage.sightings)
