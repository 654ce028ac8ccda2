"""natfix.settling: what agreed descriptions ask of the kernel. The whole of it: tests/test_engine_*.py."""

from __future__ import annotations

from natfix.address import Endpoint
from natfix.commands import AllowRemote, Flow, Kind, OpenFlow
from natfix.config import Settings
from natfix.deadlines import Deadlines
from natfix.dialogs import Call, CallKey, Dialog, Line, Role, Side
from natfix.far_ends import FarEnds
from natfix.mappings import Mappings, relay_key
from natfix.media_mappings import MediaMappings, Owner
from natfix.realms import Realms
from natfix.reports import AddressesChanged
from natfix.settling import Settling

RTP, REMOTE = Endpoint("192.168.1.10", 4000), Endpoint("198.51.100.20", 40000)
FAR = Endpoint("198.51.100.7", 42000)


class Bench:
    """One call with one stream."""

    def __init__(self) -> None:
        settings = Settings()
        realms = Realms(settings)
        realms.update(AddressesChanged({"wan0": "203.0.113.1"}, ()))
        self.mappings = Mappings(100, 100, Deadlines())
        self.media = MediaMappings(settings, realms, self.mappings)
        self.settling = Settling(settings, realms, self.mappings, FarEnds(10))
        self.call = Call(CallKey(RTP.host, "c", "t", Role.CALLER), "INVITE", Endpoint(RTP.host, 5060),
                         Endpoint("198.51.100.20", 5060), 0.0)
        self.owner = Owner(self.call, REMOTE.host, 0.0)
        self.outside = self.media.map_pair(self.owner, RTP, None)[0]
        self.mappings.commands.clear()

    def agree(self, remote: Endpoint) -> list[object]:
        """Let both sides have said where they want their media; return the commands that follow."""
        said = {Side.INSIDE: (Line(0, "audio", RTP, None),), Side.OUTSIDE: (Line(0, "audio", remote, None),)}
        self.call.dialogs["x"] = Dialog("x", agreed=said)
        self.settling.settle(self.call, 1.0)
        made, self.mappings.commands = self.mappings.commands, []
        return list(made)


def test_both_ends_known() -> None:
    """An entry for the stream, and the door open for the remote's address; once."""
    bench = Bench()
    made = bench.agree(REMOTE)
    assert [c.flow for c in made if isinstance(c, OpenFlow)] == [Flow(RTP, REMOTE, REMOTE, bench.outside)]
    assert [(c.kind, c.remote) for c in made if isinstance(c, AllowRemote)] == [(Kind.MEDIA, REMOTE.host)]
    assert bench.agree(REMOTE) == []


def test_a_relay_waits_for_its_source() -> None:
    """No entry before the far UA has sent; its packets are asked for; then one entry, both ways."""
    bench = Bench()
    relay = bench.media.map_pair(bench.owner, relay_key(FAR.host, Endpoint("10.0.0.5", 7078)), None)[0]
    made = bench.agree(relay)
    assert not [c for c in made if isinstance(c, OpenFlow)]
    allowed = {(c.kind, c.outside, c.remote) for c in made if isinstance(c, AllowRemote)}
    assert (Kind.RELAY, bench.outside, FAR.host) in allowed
    mapping = bench.mappings.find(RTP)
    assert mapping is not None
    learnt = bench.mappings.learn_source(mapping, FAR, 2.0)
    assert learnt is not None
    assert bench.mappings.learn_source(mapping, FAR._replace(port=1), 2.5) is None      # too soon
    made = bench.agree(relay)
    assert [c.flow for c in made if isinstance(c, OpenFlow)] == [Flow(RTP, relay, FAR, bench.outside)]
