"""natfix.media_mappings: pairs, parity, runs of ports, and relays."""

from __future__ import annotations

from natfix.address import Endpoint
from natfix.commands import AddMapping, Kind
from natfix.config import Settings
from natfix.deadlines import Deadlines
from natfix.dialogs import Call, CallKey, Role
from natfix.mappings import Mappings, relay_key
from natfix.media_mappings import MediaMappings, Owner
from natfix.realms import Realms
from natfix.reports import AddressesChanged

PHONE = "192.168.1.10"


def bench() -> tuple[MediaMappings, Mappings, Owner]:
    settings = Settings()
    realms = Realms(settings)
    realms.update(AddressesChanged({"wan0": "203.0.113.1"}, ()))
    mappings = Mappings(100, 100, Deadlines())
    call = Call(CallKey(PHONE, "c", "t", Role.CALLER), "INVITE", Endpoint(PHONE, 5060),
                Endpoint("198.51.100.20", 5060), 0.0)
    return MediaMappings(settings, realms, mappings), mappings, Owner(call, "198.51.100.20", 0.0)


def test_a_pair_keeps_its_parity() -> None:
    """RTP even and RTCP next to it, or both the other way round (RFC 4787, REQ-4)."""
    media, _, owner = bench()
    for port in (4000, 4003):
        rtp, rtcp = media.map_pair(owner, Endpoint(PHONE, port), Endpoint(PHONE, port + 1))
        assert rtcp is not None
        assert (rtp.port % 2, rtcp.port) == (port % 2, rtp.port + 1)


def test_the_same_again_is_the_same() -> None:
    """One inside endpoint has one outside endpoint, and the pool loses no port to a repetition."""
    media, _, owner = bench()
    first = media.map_pair(owner, Endpoint(PHONE, 4000), Endpoint(PHONE, 4001))
    free = media.pool.free
    assert media.map_pair(owner, Endpoint(PHONE, 4000), Endpoint(PHONE, 4001)) == first
    assert media.pool.free == free


def test_a_relay_has_no_element() -> None:
    """A far UA's endpoint gets ports of the pool; the kernel is not told of an inside endpoint."""
    media, mappings, owner = bench()
    key = relay_key("198.51.100.7", Endpoint("192.168.1.10", 4000))
    rtp, rtcp = media.map_pair(owner, key, None)
    mapping = mappings.find_outside(rtp)
    assert rtcp is None
    assert mapping is not None
    assert mapping.kind is Kind.RELAY
    assert mapping.relay is not None
    assert mapping.relay.told == Endpoint("192.168.1.10", 4000)
    assert not [command for command in mappings.commands if isinstance(command, AddMapping)]
    media.release(owner.call, 1.0)
    assert len(mappings) == 0


def test_release_gives_all_back() -> None:
    """A call that ends holds nothing."""
    media, mappings, owner = bench()
    media.map_pair(owner, Endpoint(PHONE, 4000), Endpoint(PHONE, 4001), pairs=3)
    assert len(mappings) == 6
    media.release(owner.call, 1.0)
    assert (len(mappings), owner.call.held) == (0, {})
