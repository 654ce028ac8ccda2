"""Pins what arrives through a relayed connection: what each message becomes, whatever the network does."""

from __future__ import annotations

import random

import pytest

from natfix.stream import State
from tests.tcp_ends import End, Gateway, Link, Traits, World, connected

BAD = Link(loss=0.05, repeat=0.02, jitter=0.03)


def message(number: int, body: bytes) -> bytes:
    """Return a SIP message that is called by its number."""
    return b"MESSAGE sip:someone@example.org SIP/2.0\r\nCSeq: %d MESSAGE\r\nContent-Length: %d\r\n\r\n%b" % (
        number, len(body), body)


def treat(_from_inside: bool, octets: bytes) -> bytes | None:
    """Let a message grow, shrink, go or stay, as its number says."""
    number = int(octets.split(b"CSeq: ")[1].split(b" ")[0])
    if number % 10 == 3:
        return None
    if number % 3 == 1:
        return octets.replace(b"sip:", b"sip:a-longer-name-than-before-")
    return octets.replace(b"MESSAGE ", b"M ") if number % 3 == 2 else octets


def sizes(chance: random.Random, length: int) -> tuple[int, ...]:
    """Return in which segments a message is written: whole ones, single octets, or anything."""
    kind = chance.randrange(4)
    if kind == 0:
        return (1460,)
    if kind == 1:
        return (1,) if length < 300 else (9,)
    return (chance.randint(1, 60), chance.randint(1, 1460))


def talk(world: World, end: End, from_inside: bool, count: int) -> bytes:
    """Let *end* write *count* messages; return what has to arrive."""
    arrives = []
    for number in range(count):
        octets = message(number, bytes(world.chance.choices(b"\r\n abc", k=world.chance.choice((0, 9, 700)))))
        end.write(octets, *sizes(world.chance, len(octets)))
        arrives.append(treat(from_inside, octets) or b"")
        if number % 7 == 0:
            end.write(b"\r\n\r\n", 1)
            arrives.append(b"\r\n\r\n")
    return b"".join(arrives)


def converse(
    world: World, phone: End, pbx: End, gateway: Gateway, count: int = 40
) -> None:
    """Let both ends talk and close; what arrives is what it has to be."""
    opener, opened_by_inside = (phone, True) if gateway.stream and gateway.stream.opened_by_inside \
        else (pbx, False)
    first = message(1, b"")
    opener.write(first)
    world.run(lambda: gateway.stream is not None and gateway.stream.state is State.SIP)
    begun = {opened_by_inside: treat(opened_by_inside, first) or b"", not opened_by_inside: b""}
    to_pbx = begun[True] + talk(world, phone, True, count)
    to_phone = begun[False] + talk(world, pbx, False, count)
    phone.close()
    pbx.close()
    world.run(lambda: all(end.has_finished and end.is_acknowledged for end in (phone, pbx)))
    assert bytes(pbx.received) == to_pbx
    assert bytes(phone.received) == to_phone
    assert not phone.was_reset
    assert not pbx.was_reset
    world.rest(10.0)
    assert gateway.stream is not None
    assert gateway.stream.state is State.CLOSED
    assert gateway.stream.held == gateway.streams.budget.used == 0


@pytest.mark.parametrize("seed", range(8))
def test_both_streams_arrive_over_a_bad_network(seed: int) -> None:
    """5 % loss, reordering and repetition on each leg, segments of 1 octet to the MSS, numbers that wrap."""
    link = Link()
    world, phone, pbx, gateway = connected(treat, seed, link)
    link.loss, link.repeat, link.jitter = BAD.loss, BAD.repeat, BAD.jitter
    converse(world, phone, pbx, gateway)


def test_a_thousand_messages() -> None:
    """The same connection for a long time: numbers drift ever further apart."""
    link = Link()
    world, phone, pbx, gateway = connected(treat, 100, link)
    link.loss, link.repeat, link.jitter = BAD.loss, BAD.repeat, BAD.jitter
    converse(world, phone, pbx, gateway, 500)


@pytest.mark.parametrize("opened_by_inside", [True, False])
@pytest.mark.parametrize(("inside", "peer"), [
    (Traits(), Traits(stamps=False)),
    (Traits(scale=None, sack=False), Traits(scale=9, mss=536)),
    (Traits(scale=0, mss=1200), Traits(scale=None, stamps=False, joins=True)),
    (Traits(buffer=2000, joins=True), Traits(buffer=900, scale=2)),
    (Traits(isn=0xFFFFFFFF, delays=False), Traits(isn=0x7FFFFFFF, joins=True, mss=100)),
])
def test_ends_of_many_kinds(inside: Traits, peer: Traits, opened_by_inside: bool) -> None:
    """Options are those that both ends have; sizes, windows and scales are each end's own."""
    link = Link()
    world, phone, pbx, gateway = connected(treat, 5, link, inside, peer, opened_by_inside)
    link.loss, link.repeat, link.jitter = BAD.loss, BAD.repeat, BAD.jitter
    converse(world, phone, pbx, gateway, 15)
