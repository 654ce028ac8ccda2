"""natfix.shares: whose unanswered calls give way while the media pool runs short."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from natfix.address import Endpoint
from natfix.config import Media, Settings
from natfix.deadlines import Deadlines
from natfix.dialogs import Call, CallKey, Dialog, Role, State
from natfix.errors import LimitReached
from natfix.mappings import Mapping, Mappings, relay_key
from natfix.media_mappings import MediaMappings, Owner
from natfix.realms import Realms
from natfix.reports import AddressesChanged

GREEDY, MODEST, THIRD, PBX = "192.168.1.10", "192.168.1.11", "192.168.1.12", "192.168.1.5"
FAR = "198.51.100.7"
PAIRS, EIGHTH = 32, 4


class Bench:
    """A pool of PAIRS pairs, and hosts that begin calls with a stream each."""

    def __init__(self, per_host: int = 1000) -> None:
        settings = Settings(media=Media(ports=(30000, 30000 + 2 * PAIRS - 1)))
        realms = Realms(settings)
        realms.update(AddressesChanged({"wan0": "203.0.113.1"}, ()))
        self.mappings = Mappings(1000, per_host, Deadlines(), self._on_removed)
        self.media = MediaMappings(settings, realms, self.mappings, {PBX})
        self._ports: Iterator[int] = count(4000, 2)

    def _on_removed(self, mapping: Mapping, now: float) -> None:
        self.media.pool.give_back(mapping.outside.port, "", now)

    def ring(self, host: str, payer: str = "") -> Call:
        """Begin a call of *host* that holds a pair for *payer*'s stream; raises LimitReached."""
        port = next(self._ports)
        call = Call(CallKey(host, f"{host} {port}", "t", Role.CALLER), "INVITE", Endpoint(host, 5060),
                    Endpoint(FAR, 5060), 0.0)
        ends = Endpoint(host, port), Endpoint(host, port + 1)
        if payer:
            ends = relay_key(payer, ends[0]), relay_key(payer, ends[1])
        self.media.map_pair(Owner(call, FAR, 0.0), *ends)
        return call

    def answered(self, host: str) -> Call:
        """Begin a call of *host*, and let it be answered."""
        call = self.ring(host)
        call.dialogs["x"] = Dialog("x", State.CONFIRMED)
        return call

    def pairs_of(self, host: str) -> int:
        return self.mappings.count(host) // 2


def test_who_alone_takes_much_leaves_the_last_eighth() -> None:
    """A host that rings on and on turns over its own oldest calls, and an eighth of the pool stays free."""
    bench = Bench()
    calls = [bench.ring(GREEDY) for _ in range(2 * PAIRS)]
    assert bench.media.pool.free == EIGHTH
    assert [bool(call.held) for call in calls] == [False] * (PAIRS + EIGHTH) + [True] * (PAIRS - EIGHTH)
    assert bench.media.pop_gave_way() == [call.key.call_id for call in calls[:PAIRS + EIGHTH]]
    assert bench.media.pop_gave_way() == []


def test_others_have_their_share_beside_him() -> None:
    """Who holds less than an eighth gets pairs of the last eighth, and nobody gives way for those."""
    bench = Bench()
    for _ in range(2 * PAIRS):
        bench.ring(GREEDY)
    bench.media.pop_gave_way()
    modest = [bench.ring(MODEST) for _ in range(EIGHTH)]
    assert all(call.held for call in modest)
    assert bench.media.pop_gave_way() == []
    assert bench.media.pool.free == 0


def test_at_an_empty_pool_he_gives_way_who_holds_most() -> None:
    """A third host's call takes the place of the oldest unanswered one of the greediest."""
    bench = Bench()
    greedy = [bench.ring(GREEDY) for _ in range(PAIRS - EIGHTH)]
    for _ in range(EIGHTH):
        bench.ring(MODEST)
    assert bench.ring(THIRD).held
    assert [call for call in greedy if not call.held] == greedy[:1]
    assert bench.pairs_of(MODEST) == EIGHTH


def test_answered_calls_never_give_way() -> None:
    """Where all of the greediest host's calls are answered, another's unanswered one has to go; where there
    is none, the new call is refused."""
    bench = Bench()
    kept = [bench.answered(GREEDY) for _ in range(PAIRS - EIGHTH)]
    ringing = bench.ring(MODEST)
    kept += [bench.answered(MODEST) for _ in range(EIGHTH - 1)]
    assert bench.answered(THIRD).held
    assert not ringing.held
    with pytest.raises(LimitReached, match="in use"):
        bench.ring("192.168.1.13")
    assert all(call.held for call in kept)


def test_a_host_with_its_share_is_refused_where_it_has_nothing_to_give() -> None:
    """The last eighth stays for others, with a reason that names the host."""
    bench = Bench()
    for _ in range(PAIRS - EIGHTH):
        bench.answered(GREEDY)
    with pytest.raises(LimitReached, match=f"short, and {GREEDY} has its share"):
        bench.ring(GREEDY)
    assert bench.media.pool.free == EIGHTH


def test_a_named_pbx_may_have_the_whole_pool() -> None:
    """Whom the operator names has no share to keep to: all calls may be his."""
    bench = Bench()
    for _ in range(PAIRS):
        bench.answered(PBX)
    assert bench.media.pool.free == 0


def test_relays_count_for_the_far_host() -> None:
    """A far phone that floods the PBX gives way itself: its relays, not the PBX's other calls."""
    bench = Bench()
    real = bench.ring(PBX)
    flood = [bench.ring(PBX, payer=FAR) for _ in range(2 * PAIRS)]
    assert real.held
    assert bench.pairs_of(FAR) == PAIRS - EIGHTH - 1
    assert not flood[0].held


def test_ones_own_quota_is_made_room_for_likewise() -> None:
    """[limits] mappings_per_host: a PBX that is rung at by strangers keeps its ports for new calls."""
    bench = Bench(per_host=4)
    first, second, third = (bench.ring(MODEST) for _ in range(3))
    assert [bool(call.held) for call in (first, second, third)] == [False, True, True]


def test_a_shared_pair_costs_few_calls() -> None:
    """Calls that hold one pair together free nothing alone: the search ends, and the new call is refused."""
    bench = Bench()
    first = bench.ring(GREEDY)
    mapping = bench.mappings.find(next(iter(first.held)))
    assert mapping is not None
    sharing = [Call(CallKey(GREEDY, f"s{number}", "t", Role.CALLER), "INVITE", first.inside, first.peer, 0.0)
               for number in range(50)]
    for call in sharing:
        bench.media.hold(call, mapping, 0.0)
    for _ in range(PAIRS - EIGHTH - 1):
        bench.answered(GREEDY)
    with pytest.raises(LimitReached):
        bench.ring(GREEDY)
    assert sum(bool(call.held) for call in sharing) > 40


def test_nothing_is_remembered_of_calls_that_are_over() -> None:
    """What a call held under several hosts' names is forgotten with it."""
    bench = Bench()
    call = bench.ring(PBX, payer=FAR)
    bench.media.map_pair(Owner(call, FAR, 0.0), Endpoint(PBX, 9000), None)
    assert set(call.payers) == {PBX, FAR}
    bench.media.release(call, 1.0)
    assert call.payers == ()
    assert bench.media._shares._waiting == {}
    assert len(bench.mappings) == 0
