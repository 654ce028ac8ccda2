"""The engine by itself: messages of calls go in, nothing is done about what comes out."""

from __future__ import annotations

import cProfile
import gc
import time
from collections.abc import Callable
from statistics import median

from natfix.address import Endpoint, network_from_text
from natfix.config import Limits, Outside, Settings
from natfix.engine import Engine, Path
from natfix.reports import AddressesChanged
from tests.bench.hot_spots import top_lines
from tests.bench.messages import OUTSIDE, CallPackets, call_packets, far_call_packets
from tests.bench.report import Results

PHONE = Endpoint("192.168.1.10", 5060)
OUTWARD, INWARD = Path("forward", "inside", "outside", 1), Path("forward", "outside", "inside", 1)
FROM_CALLER = ("invite", "ack", "bye")
IN_DIALOG = ("ack", "bye", "bye_ok")
CALLS_PER_SECOND = 50       # of the time that the engine is told


class Feeder:
    """An engine and the calls that it is fed; *of_far* ones come from phones behind NATs outside."""

    def __init__(self, of_far: bool = False) -> None:
        self.packets_of = far_call_packets if of_far else call_packets
        self.ways = (INWARD, OUTWARD) if of_far else (OUTWARD, INWARD)
        limits = Limits(dialogs=100_000, dialogs_per_host=100_000, mappings_per_host=65536,
                        requests_per_host=0, requests_per_peer=0)
        self.engine = Engine(Settings(outside=Outside("outside"), limits=limits))
        self.now = 1000.0
        inside = ((network_from_text("192.168.1.0/24"), "inside"),)
        self.engine.handle_report(AddressesChanged({"outside": OUTSIDE}, inside), self.now)

    def feed(self, calls: list[CallPackets], receive: Callable[[str, bytes, Path], object]) -> None:
        """Hand each packet of *calls* to *receive* with its name; time goes on, and what ends is let go."""
        for call in calls:
            self.now += 1 / CALLS_PER_SECOND
            for name, packet in call._asdict().items():
                receive(name, packet, self.ways[name not in FROM_CALLER])
            self.engine.pop_changes()
            timer = self.engine.next_timeout()
            if timer is not None and timer <= self.now:
                self.engine.handle_timer(self.now)


def measure(calls: int) -> Results:
    """Return medians in microseconds over *calls* calls, and the profile behind them."""
    near = _medians(Feeder(), calls)
    return {
        "engine_us": {**near, "far": _medians(Feeder(of_far=True), calls)},
        "profiles": {"engine": _profile(calls // 2)},
    }


def _medians(feeder: Feeder, calls: int) -> Results:
    spent = _spent(feeder, calls)
    in_dialog = [value for name in IN_DIALOG for value in spent[name]]
    by_message = {name: round(median(values), 1) for name, values in spent.items()}
    return {"invite": by_message["invite"], "in_dialog": round(median(in_dialog), 1),
            "by_message": by_message}


def _spent(feeder: Feeder, calls: int) -> dict[str, list[float]]:
    """Return the microseconds that each message took, by its name."""
    spent: dict[str, list[float]] = {name: [] for name in CallPackets._fields}

    def receive(name: str, packet: bytes, path: Path) -> None:
        began = time.perf_counter_ns()
        outcome = feeder.engine.receive_packet(packet, path, feeder.now)
        spent[name].append((time.perf_counter_ns() - began) / 1000)
        assert outcome.call_id, outcome.notes       # it was treated

    feeder.feed(_calls(feeder, 20), receive)
    for values in spent.values():
        values.clear()
    further = _calls(feeder, calls, first=20)
    gc.collect()
    gc.freeze()
    gc.disable()
    feeder.feed(further, receive)
    gc.unfreeze()
    gc.enable()
    return spent


def _profile(calls: int) -> list[str]:
    feeder = Feeder()
    profile = cProfile.Profile()

    def receive(_name: str, packet: bytes, path: Path) -> None:
        profile.runcall(feeder.engine.receive_packet, packet, path, feeder.now)

    feeder.feed(_calls(feeder, calls), receive)
    return top_lines(profile)


def _calls(feeder: Feeder, count: int, first: int = 0) -> list[CallPackets]:
    return [feeder.packets_of(serial, PHONE, 10000 + serial % 2000 * 2)
            for serial in range(first, first + count)]
