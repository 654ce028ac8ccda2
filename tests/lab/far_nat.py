"""Other people's NATs: the four kinds of RFC 3489, section 5, from netfilter rules.

All but the symmetric kind map a phone's port to one outside port, whatever it sends to; they never
preserve it, as many do not. What each lets in again differs (RFC 4787, section 5).
"""

from __future__ import annotations

from tests.lab.host import Host

FULL_CONE, ADDRESS_RESTRICTED, PORT_RESTRICTED, SYMMETRIC = KINDS = (
    "full-cone", "address-restricted", "port-restricted", "symmetric")
# The ports that the lab's phones use: SIP, baresip's and linphone's RTP, the RTP agents'.
PHONE_PORTS = (*range(5060, 5068), *range(7078, 7082), *range(10000, 10020), *range(12000, 12004),
               *range(14000, 14004))
FIRST = 20000               # outside port of the first phone's first port; even ports stay even
NEXT_PHONE = 100
IDLE = 300                  # seconds that an address stays allowed

RULES = """
table ip nat {{
    map out {{ type ipv4_addr . inet_service : ipv4_addr . inet_service; }}
    map in {{ type ipv4_addr . inet_service : ipv4_addr . inet_service; }}
    set sent {{ type ipv4_addr . inet_service; flags dynamic,timeout; timeout {idle}s; size 65535; }}
    chain prerouting {{
        type nat hook prerouting priority dstnat; policy accept;
        {filtering}
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        oifname "{outside}" {mapping}
    }}
    chain remember {{
        type filter hook postrouting priority srcnat + 10; policy accept;
        oifname "{outside}" meta l4proto udp update @sent {{ ip daddr . udp sport }}
    }}
    # What nobody waits for must leave no entry, or it would stand in the way of a later mapping.
    chain input {{
        type filter hook input priority filter; policy accept;
        iifname "{outside}" ct state new drop
    }}
    chain forward {{
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname "{inside}" accept
        ct status dnat accept
    }}
}}
"""
FILTERING = {
    FULL_CONE: 'iifname "{outside}" dnat ip to ip daddr . udp dport map @in',
    ADDRESS_RESTRICTED: ('iifname "{outside}" ip saddr . udp dport @sent '
                         'dnat ip to ip daddr . udp dport map @in'),
    PORT_RESTRICTED: "",    # conntrack itself lets in what answers
    SYMMETRIC: "",
}
CONE = 'snat ip to ip saddr . udp sport map @out\n        oifname "{outside}" masquerade'
SYMMETRIC_MAPPING = "masquerade fully-random"


class FarNat:
    """The NAT of one far site."""

    def __init__(self, host: Host, kind: str, phones: list[str]) -> None:
        self.host, self.kind, self.phones = host, kind, phones
        self._first = FIRST
        inside, outside = (link.interface for link in host.row.links)
        names = {"inside": inside, "outside": outside}
        mapping = SYMMETRIC_MAPPING if kind == SYMMETRIC else CONE.format(**names)
        host.run(["nft", "-f", "-"], input=RULES.format(
            idle=IDLE, mapping=mapping, filtering=FILTERING[kind].format(**names), **names))
        self._fill()

    def outside_of(self, address: str, port: int) -> tuple[str, int]:
        """Return where an inside endpoint is seen; not for the symmetric kind."""
        place = NEXT_PHONE * self.phones.index(address) + PHONE_PORTS.index(port)
        return self.host.address, self._first + place

    def rebind(self) -> None:
        """Forget every mapping, and give others from now on, as after a reboot."""
        self._first += 7000
        self._fill()
        self.host.run(["conntrack", "-F"])

    def _fill(self) -> None:
        pairs = [(address, port, *self.outside_of(address, port))
                 for address in self.phones for port in PHONE_PORTS]
        out = ", ".join(f"{a} . {p} : {o} . {q}" for a, p, o, q in pairs)
        back = ", ".join(f"{o} . {q} : {a} . {p}" for a, p, o, q in pairs)
        self.host.run(["nft", "-f", "-"], input=(
            "flush map ip nat out\nflush map ip nat in\nflush set ip nat sent\n"
            f"add element ip nat out {{ {out} }}\nadd element ip nat in {{ {back} }}\n"))
