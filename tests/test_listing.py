"""What ``natfix calls`` and ``natfix registrations`` show."""

import json

from tests.playbook import PHONE, PROVIDER, World


def test_a_call_is_listed_with_its_streams_and_counters() -> None:
    """Endpoints, state and the kernel's packet counts of both directions; RTP never came by Python."""
    world = World()
    call = world.call(world.phone, world.provider)
    world.assert_two_way_audio(call)
    world.poll_counters()
    row, = json.loads(json.dumps(world.engine.calls(world.now)))
    assert (row["state"], row["role"], row["inside"], row["peer"]) == (
        "confirmed", "caller", str(PHONE), str(PROVIDER))
    audio = next(stream for stream in row["streams"] if stream["media"] == "audio")
    assert (audio["packets_out"], audio["packets_in"]) == (1, 1)
    assert audio["inside"] == str(world.phone.rtp)


def test_a_stranger_is_counted_at_the_stream_it_knocked_at() -> None:
    """RTP from elsewhere is refused and shown beside the stream."""
    world = World()
    call = world.call(world.phone, world.provider)
    told = world.told_media(world.provider)
    stranger = type(told)("198.51.100.66", 1234)
    assert world.trace_rtp(stranger, told).dropped
    world.poll_counters()
    row, = world.engine.calls(world.now)
    assert [stream["refused"] for stream in row["streams"] if stream["media"] == "audio"] == [1]
    assert call.caller.agent is world.phone


def test_an_ended_call_is_not_listed() -> None:
    """Two seconds after its end a call is gone from the list, though it lingers for retransmissions."""
    world = World()
    call = world.call(world.phone, world.provider)
    call.hang_up()
    world.advance(2.5)
    assert world.engine.calls(world.now) == []


def test_a_binding_is_listed_with_its_outside_endpoint() -> None:
    """An operator sees which outside port leads to which phone, and for how long."""
    world = World()
    world.register(world.phone)
    world.advance(100.0)
    row, = world.engine.registrations(world.now)
    assert (row["inside"], row["outside"], row["registered_for"]) == (str(PHONE), "203.0.113.1:5060", 100)
    assert 3400 <= row["expires_in"] <= 3500
