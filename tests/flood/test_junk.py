"""The broken messages themselves, without a lab."""

from __future__ import annotations

from collections import Counter

from natfix.address import Endpoint, network_from_text
from natfix.config import Limits, Outside, Settings
from natfix.engine import Engine, Path
from natfix.reports import AddressesChanged
from tests.datagram import Datagram, packet_bytes
from tests.flood.junk import LARGEST, junk

INSIDE, OUTSIDE = "192.168.1.10:5060", "203.0.113.60:5060"
HELD = ("calls", "subscriptions", "registrations", "far_ends", "signalling_mappings", "media_mappings",
        "relays", "flows")


def test_the_same_seed_makes_the_same_messages() -> None:
    """A failure can be had again; another seed makes other messages."""
    first, again, other = (list(junk(200, seed, INSIDE, OUTSIDE)) for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_all_kinds_come_from_both_sides() -> None:
    """Within a thousand messages each kind is sent both ways, and each fits a datagram."""
    made = list(junk(1000, 1, INSIDE, OUTSIDE))
    kinds = Counter((each.kind, each.from_inside) for each in made)
    assert len(kinds) == 2 * len({each.kind for each in made}) == 14
    assert max(len(each.payload) for each in made) <= LARGEST


def test_after_broken_messages_the_engine_comes_to_rest() -> None:
    """Thousands of broken messages leave calls in every odd state; all of them end, nothing is held for ever,
    and no timer is due again and again."""
    limits = Limits(requests_per_host=0, requests_per_peer=0)
    engine = Engine(Settings(outside=Outside("outside"), limits=limits))
    engine.handle_report(AddressesChanged(
        {"outside": "203.0.113.1"}, ((network_from_text("192.168.1.0/24"), "inside"),)), 1000.0)
    phone, peer = Endpoint("192.168.1.10", 5060), Endpoint("203.0.113.60", 5060)
    now = 1000.0
    for each in junk(6000, 1, INSIDE, OUTSIDE):
        now += 0.01
        ends, links = ((phone, peer), ("inside", "outside"))
        step = 1 if each.from_inside else -1
        raw = packet_bytes(Datagram(*ends[::step], each.payload))
        engine.receive_packet(raw, Path("forward", *links[::step]), now)
    for _ in range(100_000):
        due = engine.next_timeout()
        if due is None:
            break
        now = max(now, due)
        engine.handle_timer(now)
    assert engine.next_timeout() is None
    status = engine.status(now)
    assert {key: status[key] for key in HELD} == dict.fromkeys(HELD, 0)
    assert status["media_pairs_free"] == status["media_pairs"]
