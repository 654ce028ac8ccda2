"""A gateway with a PBX inside, and phones behind NATs of their own: what every far-end test begins with."""

from __future__ import annotations

from collections.abc import Callable

from tests.lab.gateway import Natfix
from tests.lab.lab import Lab
from tests.lab.programs import Baresip, Kamailio

GATEWAY = "203.0.113.1"
# The operator's forward of SIP to his PBX, and the accept rule that goes with it.
FORWARD = """
table ip forwards {
    chain prerouting {
        type nat hook prerouting priority dstnat;
        iifname "outside" udp dport 5060 dnat to 192.168.1.5
    }
}
insert rule inet firewall forward iifname "outside" ip daddr 192.168.1.5 udp dport 5060 accept
"""
USERS = {"dora": "secret", "emil": "hidden", "fritz": "third", "ines": "inside"}
TONES = {"dora": 440, "emil": 880, "fritz": 660, "ines": 1100}
HOSTS = {"dora": "far1a", "emil": "far2a", "fritz": "far1b", "ines": "phone1"}


class Site:
    """The lab with natfix and a PBX that does not anchor media; phones are added by name."""

    def __init__(self, make_lab: Callable[..., Lab], *kinds: str, config: str = "", **options: object
                 ) -> None:
        self.lab = make_lab("far", kinds=kinds, **options)
        self.lab.gateway.run(["nft", "-f", "-"], input=FORWARD)
        self.natfix: Natfix = self.lab.start_natfix(config)
        self.pbx = self.lab.start(Kamailio("pbx", users=USERS, aliases=(GATEWAY,)))

    def phone(self, name: str, host: str = "", **options: object) -> Baresip:
        """Start a phone, and register it at the gateway's address."""
        phone = self.lab.start(Baresip(host or HOSTS[name], name, registrar=GATEWAY, password=USERS[name],
                                       tone=TONES[name], **options))
        phone.register()
        return phone
