"""A site with natfix and a PBX anywhere: phones by name, and calls between any two of them."""

from __future__ import annotations

from collections.abc import Callable

from tests.far.site import FORWARD, GATEWAY, HOSTS, TONES, USERS
from tests.lab.audio import assert_two_way, talk
from tests.lab.gateway import Natfix
from tests.lab.host import wait_until
from tests.lab.lab import Lab
from tests.lab.programs import Baresip, Kamailio
from tests.lab.topology import PBX_ADDRESS

# What an operator who has a PBX that is called from outside has in his firewall.
OPEN = 'insert rule inet firewall input iifname "outside" udp dport 5060 accept\n'
# The PBX may name its phones in SDP.
INSIDE_PBX = f'[inside]\npbx = ["{PBX_ADDRESS}"]\n'


class CallingSite:
    """What all sites do once lab, natfix and PBX are there."""

    lab: Lab
    natfix: Natfix
    registrar = GATEWAY

    def rules(self, text: str) -> None:
        """Load rules of the operator's."""
        self.lab.gateway.run(["nft", "-f", "-"], input=text)

    def phone(self, name: str, registrar: str = "", **options: object) -> Baresip:
        """Start a phone, and register it."""
        usual = {"host": HOSTS[name], "user": name, "registrar": registrar or self.registrar,
                 "password": USERS[name], "tone": TONES[name]}
        phone = self.lab.start(Baresip(**{**usual, **options}))     # type: ignore[arg-type]
        phone.register()
        return phone

    def call(self, caller: Baresip, called: Baresip) -> None:
        """Call, compare the audio of both, hang up, and see nothing left."""
        mark = len(called.events)
        caller.dial(f"sip:{called.user}@{caller.registrar}")
        talk()
        assert_two_way(caller, called)
        caller.hang_up()
        called.wait_closed(since=mark)
        wait_until(self.holds_no_media, 10.0, "the end of all mappings")

    def holds_no_media(self) -> bool:
        """Tell whether natfix holds nothing of any call any more."""
        status = self.natfix.json("status")
        return status["media_mappings"] == status["relays"] == status["calls"] == 0


class Site(CallingSite):
    """A gateway with a PBX inside, to which the operator forwards SIP; *anchors*: media goes through it, and
    each leg is a dialog of its own, as a B2BUA has them."""

    def __init__(self, make_lab: Callable[..., Lab], *kinds: str, config: str = "", anchors: bool = False,
                 **options: object) -> None:
        self.lab = make_lab("far", kinds=kinds, **options)
        self.rules(FORWARD)
        self.natfix = self.lab.start_natfix(INSIDE_PBX + config)
        self.pbx = self.lab.start(Kamailio("pbx", users=USERS, aliases=(GATEWAY,), anchors=anchors,
                                           hide_topology=anchors))
