"""What outsiders say of inside hosts is remembered, and not done on a trusted PBX's word."""

from __future__ import annotations

import pytest

from natfix import hearsay
from natfix.address import Endpoint
from natfix.config import FarEnd, Gateway, Peer
from natfix.hearsay import Hearsay, name_of
from natfix.sdp import session_from_span
from tests.far_agent import FarAgent
from tests.playbook import OUTSIDE, PROVIDER, World
from tests.test_engine_far_end import FAR, FAR_RTP

VICTIM = Endpoint("192.168.1.20", 5004)
PBX = Endpoint(OUTSIDE, 5060)


@pytest.mark.parametrize(("origin", "name"), [
    ("o=alice 47 3 IN IP4 192.168.1.20", b"o=alice 47"), ("o=- 1 1 IN IP4 h", b"o=- 1"), ("o=broken", b""),
])
def test_a_sessions_name(origin: str, name: bytes) -> None:
    """Username and sess-id; the version changes with each offer, and the address may be rewritten."""
    raw = f"v=0\r\n{origin}\r\ns=-\r\nc=IN IP4 192.168.1.20\r\nt=0 0\r\nm=audio 5004 RTP/AVP 0\r\n".encode()
    assert name_of(raw, session_from_span(raw, 0, len(raw))) == name


def test_the_oldest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of names costs a bounded amount of memory; what is said again is young again."""
    monkeypatch.setattr(hearsay, "MOST", 2)
    said = Hearsay()
    for name in (b"1", b"2", b"1", b"3"):
        said.note(name, VICTIM)
    assert [said.has(name, VICTIM) for name in (b"1", b"2", b"3")] == [True, False, True]


@pytest.mark.parametrize("policy", ["auto", "never"])
@pytest.mark.parametrize("first", ["outside", "inside"])
def test_an_attack_by_two_accounts(first: str, policy: str) -> None:
    """An outsider names an inside host, and the PBX hands that on to the other account: nothing opens.

    The same words by an inside phone are done.
    """
    world = World(gateway=Gateway(pbx="local"), far_end=FarEnd(fix="never"), listens=[PBX],
                  peers=(Peer(FAR.host, media=policy),))
    pbx = world.agent("pbx", PBX, VICTIM)
    attacker = FarAgent(world, "mallory", FAR, FAR_RTP, own=VICTIM.host, proxy=PBX)
    attacker.written_rtp = VICTIM
    words = attacker.sdp()
    if first == "outside":
        attacker.invites(f"sip:bob@{OUTSIDE}", sdp=words)
        assert any("192.168.1.20" in line for line in pbx.last.body.decode().splitlines())
    pbx.invites(world.provider.address, PROVIDER, sdp=words)
    assert (VICTIM in world.media_mappings()) is (first == "inside")
