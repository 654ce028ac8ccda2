"""Pins relayed connections under any history: writes, pauses, outages, slow readers and ends in any order."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from natfix.stream import MOST_LOAD, State
from tests.tcp_ends import Link, Traits, connected
from tests.test_stream_network import message, treat

ISNS = st.sampled_from([0, 0x7FFFFFFF, 0xFFFFFFF0, 0xFFFFFFFF])
TRAITS = st.builds(
    Traits, isn=ISNS, mss=st.sampled_from([100, 536, 1460]), scale=st.sampled_from([None, 0, 7]),
    sack=st.booleans(), stamps=st.booleans(), buffer=st.sampled_from([300, 5000, 60_000]),
    joins=st.booleans(), delays=st.booleans())
SIZES = st.lists(st.integers(1, 1460), min_size=1, max_size=4)
GOOD, BAD, CUT = (0.0, 0.0, 0.0), (0.1, 0.05, 0.05), (1.0, 0.0, 0.0)    # loss, repetition, jitter


class Histories(RuleBasedStateMachine):
    """One connection."""

    @initialize(seed=st.integers(0, 1000), inside=TRAITS, peer=TRAITS, opened_by_inside=st.booleans())
    def open(self, seed: int, inside: Traits, peer: Traits, opened_by_inside: bool) -> None:
        self.link = Link()
        self.world, phone, pbx, self.gateway = connected(
            treat, seed, self.link, inside, peer, opened_by_inside)
        assert self.gateway.stream is not None
        self.stream = self.gateway.stream
        self.ends = {True: phone, False: pbx}
        self.arrives = {True: b"", False: b""}      # what each end has written, as it has to arrive
        self.closed: set[bool] = set()
        self.write(opened_by_inside, 1, 10, [1460])
        self.world.run(lambda: self.stream.state is State.SIP)

    @rule(from_inside=st.booleans(), number=st.integers(0, 30), size=st.sampled_from([0, 50, 3000]),
          sizes=SIZES)
    def write(self, from_inside: bool, number: int, size: int, sizes: list[int]) -> None:
        if from_inside in self.closed:
            return
        octets = message(number, b"x" * size)
        self.ends[from_inside].write(octets, *sizes)
        self.arrives[from_inside] += treat(from_inside, octets) or b""

    @rule(from_inside=st.booleans())
    def keep_alive(self, from_inside: bool) -> None:
        if from_inside not in self.closed:
            self.ends[from_inside].write(b"\r\n\r\n", 1)
            self.arrives[from_inside] += b"\r\n\r\n"

    @rule(seconds=st.sampled_from([0.001, 0.03, 0.5, 3.0]))
    def wait(self, seconds: float) -> None:
        self.world.rest(seconds)

    @rule(fate=st.sampled_from([GOOD, BAD, CUT]))
    def change_the_network(self, fate: tuple[float, float, float]) -> None:
        self.link.loss, self.link.repeat, self.link.jitter = fate
        self.world.rest(0.2)

    @rule(from_inside=st.booleans())
    def stop_reading(self, from_inside: bool) -> None:
        self.ends[from_inside].reads = False

    @rule(from_inside=st.booleans())
    def read(self, from_inside: bool) -> None:
        self.ends[from_inside].read()

    @precondition(lambda self: len(self.closed) < 2)
    @rule(from_inside=st.booleans())
    def close(self, from_inside: bool) -> None:
        if from_inside not in self.closed:
            self.ends[from_inside].close()
            self.closed.add(from_inside)

    @invariant()
    def nothing_wrong_arrives(self) -> None:
        """What has arrived is a beginning of what has to."""
        for from_inside, arrives in self.arrives.items():
            assert arrives.startswith(bytes(self.ends[not from_inside].received))

    @invariant()
    def memory_is_bounded_and_counted(self) -> None:
        """The budget knows what is held."""
        assert self.gateway.streams.budget.used == self.stream.held <= 2 * MOST_LOAD

    def teardown(self) -> None:
        """On any network that is not cut all arrives, and nothing is held in the end."""
        if not hasattr(self, "ends"):
            return
        if self.link.loss == 1.0:
            self.link.loss = 0.0
        for from_inside, end in self.ends.items():
            end.read()
            self.close(from_inside)
        ends = tuple(self.ends.values())
        self.world.run(lambda: all(end.has_finished and end.is_acknowledged for end in ends), 1000.0)
        for from_inside, arrives in self.arrives.items():
            assert bytes(self.ends[not from_inside].received) == arrives
        self.link.loss = 0.0
        self.world.rest(200.0)
        assert self.stream.state is State.CLOSED
        assert self.gateway.streams.budget.used == 0


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.too_slow])
