"""Far phones in less simple places, and what happens to them in mid-call."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import product

import pytest

from tests.far.calls import Site
from tests.far.site import GATEWAY
from tests.lab.audio import assert_two_way, listen, talk
from tests.lab.far_nat import KINDS
from tests.lab.host import wait_until
from tests.lab.lab import Lab
from tests.lab.programs import Baresip, Capture, Linphone, RtpAgent
from tests.lab.topology import PBX_ADDRESS

pytestmark = pytest.mark.lab
CALL = 6.0      # seconds of a call in which something happens
MOST = 4.5      # of them are heard all the same
SHORT = 6       # seconds after which a phone registers anew


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_address_three_times(make_lab: Callable[..., Lab], kind: str) -> None:
    """192.168.1.10 behind one far NAT, behind another one, and inside: each talks with each."""
    site = Site(make_lab, kind, "port-restricted", phones=1)
    dora, emil, ines = site.phone("dora"), site.phone("emil"), site.phone("ines", PBX_ADDRESS)
    assert {site.lab[phone.host_name].address for phone in (dora, emil, ines)} == {"192.168.1.10"}
    for caller, called in ((dora, ines), (ines, dora), (emil, dora)):
        site.call(caller, called)


@pytest.mark.parametrize("kind", KINDS)
def test_two_phones_of_one_site(make_lab: Callable[..., Lab], kind: str) -> None:
    """They are told each other's own address, and their audio never leaves their network; both are heard
    elsewhere, too."""
    site = Site(make_lab, kind, "symmetric", phones=2)
    dora, fritz, emil = (site.phone(name) for name in ("dora", "fritz", "emil"))
    leaving = site.lab.start(Capture("nat1", "outside", "udp and not port 5060"))
    mark = len(fritz.events)
    dora.dial(fritz.uri)
    talk()
    assert_two_way(dora, fritz)
    dora.hang_up()
    fritz.wait_closed(since=mark)
    assert leaving.messages("udp") == []
    wait_until(site.holds_no_media, 10.0, "the end of all mappings")
    site.call(fritz, emil)
    site.call(emil, dora)


def test_behind_two_nats(make_lab: Callable[..., Lab]) -> None:
    """A phone whose NAT is behind another NAT: called by a far phone and by one inside."""
    site = Site(make_lab, "address-restricted", "port-restricted", phones=1, deep=True)
    dora, emil, ines = site.phone("dora", host="deep"), site.phone("emil"), site.phone("ines", PBX_ADDRESS)
    site.call(emil, dora)
    site.call(dora, ines)


@pytest.mark.parametrize("kinds", product(KINDS, KINDS), ids="-".join)
def test_hold_and_resume(make_lab: Callable[..., Lab], kinds: tuple[str, str]) -> None:
    """Either side holds and resumes, and both are heard again. (Linphone: baresip 1.0.0 no longer writes down
    what it hears once a call was resumed.)"""
    site = Site(make_lab, *kinds, phones=1)
    dora, emil = (site.lab.start(Linphone(host, user, registrar=GATEWAY, password=password, tone=tone))
                  for host, user, password, tone in (("far1a", "dora", "secret", 440),
                                                     ("far2a", "emil", "hidden", 880)))
    dora.register()
    emil.register()
    call = dora.dial(emil.uri)
    for phone in (dora, emil):
        phone.wait_printed("(Media streams established)")
    for holder in (dora, emil):
        for switch in (holder.hold, lambda phone=holder: phone.resume(call)):
            marks = [(each, each.mark()) for each in (dora, emil)]
            switch()
            for each, mark in marks:
                each.wait_printed("(is now paused|has been paused by|Media streams established)", mark)
        for phone in (dora, emil):
            phone.record()
        talk()
        assert_two_way(dora, emil)
    dora.hang_up()
    emil.wait_closed()
    wait_until(site.holds_no_media, 10.0, "the end of all mappings")


def heard_throughout(first: Baresip, second: Baresip) -> None:
    """Fail unless both were heard for most of a call in which something happened."""
    for heard in listen(first, second):
        assert heard.seconds >= MOST, str(heard)


@pytest.mark.parametrize("happens", ["the far NAT forgets", "kill -9", "flush"])
@pytest.mark.parametrize("kind", ["full-cone", "port-restricted", "symmetric"])
def test_in_mid_call(make_lab: Callable[..., Lab], kind: str, happens: str) -> None:
    """A far NAT that gives other ports, a crash of natfix, its table deleted: the call goes on, and the next
    one comes about."""
    site = Site(make_lab, kind, "port-restricted", phones=1)
    dora, emil = site.phone("dora", expires=SHORT), site.phone("emil")
    dora.dial(emil.uri)
    time.sleep(1.5)
    if happens == "kill -9":
        site.natfix.kill()
        time.sleep(0.5)
        site.natfix.start()
    elif happens == "flush":
        site.lab.gateway.run(["nft", "delete", "table", "ip", "natfix"])
    else:
        site.lab.far_nats["nat1"].rebind()
    time.sleep(CALL - 1.5)
    heard_throughout(dora, emil)
    mark = len(emil.events)
    dora.hang_up()
    emil.wait_closed(since=mark)
    wait_until(site.holds_no_media, 10.0, "the end of all mappings")
    dora.wait_event("REGISTER_OK", since=len(dora.events), timeout=SHORT + 5)
    site.call(emil, dora)


def test_a_registered_phone_whose_nat_forgets(make_lab: Callable[..., Lab]) -> None:
    """After its next REGISTER, from another port of its NAT, it is called there; the old one ends."""
    site = Site(make_lab, "port-restricted", "full-cone", phones=1)
    dora, emil = site.phone("dora", expires=SHORT), site.phone("emil")
    before = sources(site, "dora")
    site.lab.far_nats["nat1"].rebind()
    dora.wait_event("REGISTER_OK", since=len(dora.events), timeout=SHORT + 5)
    wait_until(lambda: before.isdisjoint(sources(site, "dora")), SHORT + 5, "the end of the old binding")
    site.call(emil, dora)


def sources(site: Site, user: str) -> set[str]:
    """Return where natfix sees *user* register from."""
    rows = site.natfix.json("registrations")["registrations"]
    return {row["outside"] for row in rows if "signs" in row and str(row["aor"]).startswith(user)}


@pytest.mark.parametrize("knows", ["the port", "the port, from the phone's own NAT"])
def test_somebody_who_knows_the_port(make_lab: Callable[..., Lab], knows: str) -> None:
    """RTP of a stranger to the port of a call is refused and counted, and nobody hears it; a neighbour behind
    the same far NAT gets no stream of the call either."""
    site = Site(make_lab, "port-restricted", "symmetric", phones=2)
    dora, emil = site.phone("dora"), site.phone("emil")
    dora.dial(emil.uri)
    time.sleep(1.0)
    host = "stranger" if knows == "the port" else "far1b"
    assert refused(site) == 0
    port = site.natfix.json("calls")["calls"][0]["streams"][0]["outside"]
    intruder = site.lab.start(RtpAgent(host, 12000, to=port, tone=1800))
    talk()
    assert_two_way(dora, emil)
    assert not dora.heard(1800).recognised
    assert not emil.heard(1800).recognised
    if host == "stranger":
        assert refused(site) > 100
    intruder.stop()
    mark = len(emil.events)
    dora.hang_up()
    emil.wait_closed(since=mark)


def refused(site: Site) -> int:
    """Return how many packets to the ports of calls natfix has refused."""
    return sum(stream["refused"] for call in site.natfix.json("calls")["calls"] for stream in call["streams"])
