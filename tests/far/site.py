"""A gateway with a PBX inside, and phones behind NATs of their own: what every far-end test begins with."""

from __future__ import annotations

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
