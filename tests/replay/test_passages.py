"""Passages: copies of a packet come together in path order; retransmissions stay apart."""

from __future__ import annotations

import random

from natfix.replay.model import Direction, NetworkView, Passage, Side, Sighting
from natfix.replay.passages import Passages
from tests.replay.sip import MAPPED, OTHER_PHONE, PHONE, PROVIDER, article, request, response, sighting

VIEW = NetworkView(("192.168.1.0/24",), MAPPED.host)


def put_together(*sightings: Sighting, view: NetworkView = VIEW) -> list[Passage]:
    passages = Passages(view)
    found = [passage for each in sightings for passage in passages.add(each)]
    return [*found, *passages.finish()]


def numbers(passages: list[Passage]) -> list[list[int]]:
    return [[packet.number for packet in passage.packets] for passage in passages]


def test_two_points() -> None:
    """A request and its answer, each seen on both sides, are two passages in path order, with sides."""
    sightings = [
        sighting(request(), PHONE, PROVIDER, 1.0, 1, "lan"),
        sighting(request(), MAPPED, PROVIDER, 1.01, 2, "wan"),
        sighting(response(), PROVIDER, PHONE, 1.19, 3, "lan"),
        sighting(response(), PROVIDER, MAPPED, 1.2, 4, "wan"),
    ]
    out, back = put_together(*sightings)        # the second clock is a little late
    assert numbers([out, back]) == [[1, 2], [4, 3]]
    assert (out.direction, back.direction) == (Direction.OUTWARD, Direction.INWARD)
    assert [each.side for each in back.sightings] == [Side.OUTSIDE, Side.INSIDE]
    assert out.at(Side.INSIDE) is sightings[0]


def test_retransmissions_are_passages_of_their_own() -> None:
    """Each transmission is seen twice; copies belong to the nearest one, also where one copy was lost."""
    inner = [sighting(request(), PHONE, PROVIDER, time, number, "lan")
             for number, time in enumerate((1.0, 1.5, 2.5), 1)]
    outer = [sighting(request(), MAPPED, PROVIDER, time, number, "wan")
             for number, time in ((12, 1.51), (13, 2.51))]
    together = put_together(*sorted(inner + outer, key=lambda each: each.time))
    assert numbers(together) == [[1], [2, 12], [3, 13]]


def test_a_capture_of_all_interfaces() -> None:
    """In one file without interface names, the translated copy is the same packet."""
    together = put_together(
        sighting(request(), PHONE, PROVIDER, 1.0, 1), sighting(request(), MAPPED, PROVIDER, 1.0, 2),
        sighting(request(), PHONE, PROVIDER, 1.5, 3), sighting(request(), MAPPED, PROVIDER, 1.5, 4))
    assert numbers(together) == [[1, 2], [3, 4]]


def test_a_mirror_port_shows_packets_twice() -> None:
    """The same packet a moment later is no retransmission, with another identification it is one."""
    first = sighting(request(), PHONE, PROVIDER, 1.0, 1, identification=7)
    twin = sighting(request(), PHONE, PROVIDER, 1.001, 2, identification=7)
    again = sighting(request(), PHONE, PROVIDER, 1.002, 3, identification=8)
    assert numbers(put_together(first, twin, again)) == [[1, 2], [3]]


def test_records_of_the_article() -> None:
    """Eight header-only records are two packets, each at four stages, in path order."""
    view = NetworkView(outside="n.n.n.n", sides={
        "a.b.c.d": Side.INSIDE, "w.x.y.z": Side.OUTSIDE, "n.n.n.n": Side.OUTSIDE})
    out, back = put_together(*article(), view=view)
    assert numbers([out, back]) == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert (out.direction, back.direction) == (Direction.OUTWARD, Direction.INWARD)


def test_nothing_waits_for_ever() -> None:
    """A passage is given back when nothing more can come, in the order of its first copy."""
    passages = Passages(VIEW)
    assert [*passages.add(sighting(request(), PHONE, PROVIDER, 1.0))] == []
    (first,) = passages.add(sighting(request(branch="z9hG4bK2"), PHONE, PROVIDER, 9.0))
    assert first.time == 1.0


def test_many_open_ones_are_bounded() -> None:
    """Where times say nothing, as in pasted text, memory is bounded all the same."""
    passages = Passages(VIEW)
    found = 0
    for number in range(5000):
        found += len([*passages.add(sighting(request(branch=f"z9hG4bK{number}"), PHONE, PROVIDER, 0.0))])
    assert 500 < found < 5000
    assert found + len([*passages.finish()]) == 5000


def test_no_sighting_is_lost() -> None:
    """Whatever comes, each sighting is in exactly one passage."""
    chance = random.Random(1)
    sightings = [
        sighting(request(branch=f"z9hG4bK{chance.randrange(5)}"), chance.choice((PHONE, MAPPED, OTHER_PHONE)),
                 PROVIDER, number / 20, number, chance.choice(("lan", "wan")))
        for number in range(300)
    ]
    found = [id(each) for passage in put_together(*sightings) for each in passage.sightings]
    assert sorted(found) == sorted(map(id, sightings))
