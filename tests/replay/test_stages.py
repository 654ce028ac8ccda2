"""Stages: copies of one packet are recognised, and clocks compared."""

from __future__ import annotations

from natfix.replay.model import Sighting
from natfix.replay.stages import Chain, Meetings, clock_offsets, identity, stage_place
from natfix.sip.message import message_from_bytes
from tests.replay.sip import MAPPED, OUTSIDE, PHONE, PROVIDER, article, record, request, response, sighting

DELAY = 0.002       # seconds from one point to the other


def meet(*sightings: Sighting) -> Meetings:
    meetings = Meetings()
    for each in sightings:
        meetings.note(each)
    return meetings


def test_identity_outlives_a_fixer() -> None:
    """Addresses, Call-ID and Contact may be rewritten on the way; another transaction is another message."""
    written = request(via=PHONE, call_id="1@192.168.1.10")
    rewritten = request(via=MAPPED, contact=MAPPED, call_id="1@203.0.113.1")
    others = (request(branch="z9hG4bK2"), request(cseq=2), request("ACK"), response(), response(180))
    assert identity(message_from_bytes(written)) == identity(message_from_bytes(rewritten))
    assert len({identity(message_from_bytes(each)) for each in (written, *others)}) == 6


def test_old_branches_do_not_identify() -> None:
    """A branch without the magic cookie is not unique: then the Call-ID counts."""
    one, other = (request(branch="1", call_id=call_id) for call_id in "xy")
    assert identity(message_from_bytes(one)) != identity(message_from_bytes(other))


def test_a_nat_is_met_once_per_message() -> None:
    """Both copies of a request meet; its retransmission tells nothing new."""
    inner, outer = sighting(request(), PHONE, PROVIDER), sighting(request(), MAPPED, PROVIDER, 1.1, 2)
    (meeting,) = meet(inner, outer, inner, outer).found
    assert meeting.hosts == (PHONE.host, PROVIDER.host, MAPPED.host, PROVIDER.host)
    assert [packet.number for packet in meeting.packets] == [1, 2]


def test_a_retransmission_meets_nobody() -> None:
    """The same packet at the same point again is no second point."""
    again = sighting(request(), PHONE, PROVIDER, 1.5, 2)
    assert meet(sighting(request(), PHONE, PROVIDER), again).found == []


def test_records_are_followed_from_stage_to_stage() -> None:
    """Header-only records of fw monitor pair up by identification, length, order and the end that stays."""
    chain = Chain()
    records = article()
    before = [chain.follow(each) for each in records]
    numbers = [each.packet.number if each else 0 for each in before]
    assert numbers == [0, 1, 2, 3, 0, 5, 6, 7]


def test_records_of_other_packets_are_not_followed() -> None:
    """Another identification, both ends changed, another length, or an earlier stage: another packet."""
    first = record(PHONE, PROVIDER, "I")
    for other in (
        record(PHONE, PROVIDER, "o", identification=7), record(MAPPED, OUTSIDE, "o"),
        record(PHONE, PROVIDER, "o", length=1000), record(PHONE, PROVIDER, "i"),
    ):
        chain = Chain()
        chain.follow(first)
        assert chain.follow(other) is None


def test_stage_places() -> None:
    """fw monitor's stages have an order; names of files have none."""
    places = [stage_place(record(PHONE, PROVIDER, stage)) for stage in ("i", "I", "o", "O", "lan")]
    assert places == [0, 1, 2, 3, -1]


def both_ways(offset: float) -> Meetings:
    """A conversation seen inside and outside, whose clock is *offset* seconds ahead."""
    inner: list[Sighting] = []
    outer: list[Sighting] = []
    for number in range(20):
        branch, start = f"z9hG4bK{number}", float(number)
        ask, answer = request(branch=branch), response(branch=branch)
        inner += [sighting(ask, PHONE, PROVIDER, start, number, "lan"),
                  sighting(answer, PROVIDER, PHONE, start + 0.1 + DELAY, number, "lan")]
        outer += [sighting(ask, MAPPED, PROVIDER, start + DELAY + offset, number, "wan"),
                  sighting(answer, PROVIDER, MAPPED, start + 0.1 + offset, number, "wan")]
    outer[3].time += 30.0       # one outlier
    return meet(*inner, *outer)


def test_clock_offset() -> None:
    """The clocks' difference is found within a millisecond; the packets' delay cancels out."""
    for offset in (0.0, 7.25, -3600.0):
        offsets = clock_offsets(both_ways(offset).found, ["lan", "wan"])
        assert offsets["lan"] == 0.0
        assert abs(offsets["wan"] + offset) < 0.001


def test_files_without_common_packets_keep_their_clocks() -> None:
    """Captures that follow each other are not moved."""
    apart = meet(sighting(request(), PHONE, PROVIDER, file="one"),
                 sighting(request(branch="z9hG4bK9"), PHONE, PROVIDER, 50.0, file="two"))
    assert clock_offsets(apart.found, ["one", "two"]) == {"one": 0.0, "two": 0.0}


def test_offsets_reach_a_third_file() -> None:
    """A file that shares packets with the second one only is compared by way of that."""
    first, second = request(branch="z9hG4bK1"), request(branch="z9hG4bK2")
    meetings = meet(
        sighting(first, PHONE, PROVIDER, 1.0, file="one"), sighting(first, MAPPED, PROVIDER, 2.0, file="two"),
        sighting(second, MAPPED, PROVIDER, 12.0, file="two"),
        sighting(second, OUTSIDE, PROVIDER, 15.0, file="three"))
    offsets = clock_offsets(meetings.found, ["one", "two", "three"])
    assert offsets == {"one": 0.0, "two": -1.0, "three": -4.0}
