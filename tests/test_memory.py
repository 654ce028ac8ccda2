"""What survives a restart."""

from natfix.reports import Change, Restored
from tests.playbook import World


def test_a_call_goes_on_after_a_restart() -> None:
    """Audio, BYE and what follows work after natfix was started anew in mid-call, and nothing is left."""
    world = World()
    world.register(world.phone)
    call = world.call(world.provider, world.phone)
    world.restart()
    world.assert_two_way_audio(call)
    call.hang_up()
    world.advance(40.0)
    assert world.engine.status(world.now)["media_mappings"] == 0
    assert not [key for key, change in world.rows.items() if key[0] == "calls" and change.row]


def test_registrations_survive_a_restart() -> None:
    """A phone is called after a restart at the Contact that it wrote before."""
    world = World()
    world.register(world.phone)
    world.restart()
    assert [row["aor"] for row in world.engine.registrations(world.now)] == ["alice@provider.example"]
    world.assert_two_way_audio(world.call(world.provider, world.phone))


def test_the_state_survives_a_flushed_kernel_too() -> None:
    """Rows alone bring the same outside ports back, when rules were flushed while natfix was away."""
    world = World()
    world.register(world.phone)
    call = world.call(world.provider, world.phone)
    rows = tuple(row for row in world.rows.values() if row.row is not None)
    fresh = World()
    fresh.report(Restored((), rows))
    fresh.kernel.resync(fresh.engine.desired())
    assert {(m.inside, m.outside) for m in fresh.kernel.mappings()} == {
        (m.inside, m.outside) for m in world.kernel.mappings()}
    assert call.callee.agent is world.phone


def test_damaged_rows_are_counted_and_left_out() -> None:
    """A store that was damaged costs the damaged rows only."""
    world = World()
    world.report(Restored((), (Change("calls", "k", {"key": 1}), Change("registrations", "k", {}),
                               Change("ports", "k", {"inside": ["192.168.1.10", 5060], "port": 40001}))))
    assert world.engine.counters["damaged rows"] == 2
    assert world.engine._signalling.remembered
