"""A gateway with two outside links, one Internet behind both, and natfix on it.

Provider A is on the first link's own network, provider B on the second one's. A server on the Internet
(media of either) is reached by the default route, which leaves by the first link.
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from tests.gateway_with_natfix import SDP, SIP, Dialog, Live, answer_to, media_of, receive
from tests.kernel.wires import GATEWAY, REMOTE

GATEWAY_2, REMOTE_2 = "198.51.100.1", "198.51.100.60"
SERVER = "192.0.2.50"
PATIENCE = 20.0     # seconds; it takes 1, on a machine that has nothing else to do
HEARD = 2.0         # seconds that a packet may take through the kernels of a busy machine
FIRST_MARK, SECOND_MARK = 0x100, 0x200

CONFIGURATION = f"""
    [outside]
    interface = "outside"
    mark = {FIRST_MARK}
    [inside]
    networks = ["192.168.1.0/24"]
    [[link]]
    interface = "outside2"
    mark = {SECOND_MARK}
"""
FIREWALL = """
table inet firewall {
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        ct status dnat accept
        iifname "inside" accept
    }
}
table ip nat {
    chain postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        oifname { "outside", "outside2" } masquerade
    }
}
"""
# What came from the gateway, by link and by the gateway's address, counted on the Internet's side.
METER = """
table ip seen {
    chain seen {
        type filter hook prerouting priority raw; policy accept;
        %s
    }
}
"""
# The operator's: one table of routes for each link.
ROUTES = f"""
    sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.outside.rp_filter=2
    ip route add default via {REMOTE} dev outside
    ip route add default via {REMOTE} dev outside table 100
    ip rule add fwmark {FIRST_MARK:#x} lookup 100
    ip rule add fwmark {SECOND_MARK:#x} lookup 200
"""
SECOND_ROUTE = f"ip route replace default via {REMOTE_2} dev outside2 table 200"
SECOND = f"""
    sysctl -qw net.ipv4.conf.outside2.rp_filter=2
    ip addr add {{0}}/24 dev outside2
    ip link set outside2 up
    {SECOND_ROUTE}
"""


class TwoLinks(Live):
    """The gateway; its phone is at 192.168.1.10, and there is a second one."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        gateway, internet = self.wires.gateway, self.wires.outside
        gateway.run("nft flush ruleset; nft -f -", FIREWALL)
        internet.run("sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 "
                     f"net.ipv4.conf.eth0.rp_filter=0; ip addr add {SERVER}/32 dev lo")
        gateway.run(ROUTES)
        self.lay_second(GATEWAY_2)
        hosts = (GATEWAY, GATEWAY_2)
        internet.run("nft -f -", METER % "\n".join(
            f'iifname "{link}" ip saddr {host} udp dport >= 10000 counter comment "{link} {host}"'
            for link in ("eth0", "eth1") for host in hosts))

    def lay_second(self, host: str) -> None:
        """Lay the second link's cable, with the address *host* at the gateway, as a PPPoE session does."""
        self.wires.outside.connect(self.wires.gateway, "eth1", "outside2")
        self.wires.outside.run("sysctl -qw net.ipv4.conf.eth1.rp_filter=0;"
                               f"ip addr add {REMOTE_2}/24 dev eth1; ip link set eth1 up")
        self.wires.gateway.run(SECOND.format(host))

    def cut_second(self) -> None:
        """Take the second link's interface away."""
        self.wires.gateway.run("ip link del outside2")

    def begin(self, more: str = "") -> None:
        self.start(CONFIGURATION + more)

    def carried(self) -> dict[str, int]:
        """Return the packets of media that came by each link from each of the gateway's addresses."""
        rules = json.loads(self.wires.outside.run("nft -j list table ip seen"))["nftables"]
        return {rule["comment"]: _count(rule) for entry in rules if (rule := entry.get("rule"))}

    def call(self, phone: socket.socket, host: str, server: socket.socket, rtp: int, media: str,
             media_port: int, patience: float = PATIENCE) -> Call:
        """Place a call from a phone to whoever *server* is; its own media is at *media*."""
        dialog = Dialog(phone, (host, SIP), server.getsockname())
        return Call(dialog, server, (host, rtp), (media, media_port), patience)


def _count(rule: dict[str, Any]) -> int:
    return sum(part["counter"]["packets"] for part in rule["expr"] if "counter" in part)


class Call:
    """An answered call, and what the server was told; what is lost is sent again, for *patience* seconds."""

    def __init__(self, dialog: Dialog, server: socket.socket, rtp: tuple[str, int],
                 media: tuple[str, int], patience: float = PATIENCE) -> None:
        self.dialog, self.server, self.rtp, self.media = dialog, server, rtp, media
        self.patience = patience
        self.offer_again()

    def offer_again(self) -> None:
        """INVITE, again within the call, with the answer."""
        serial = self.dialog.cseq
        self.offer, self.source = self._repeat(partial(self._offer, serial), self.server, "INVITE")
        self.told = media_of(self.offer)
        host, port = self.server.getsockname()
        answer = answer_to(self.offer, "200 OK", f"<sip:bob@{host}:{port}>", SDP.format(*self.media))
        accepted, _ = self._repeat(
            lambda: self.server.sendto(answer, self.source), self.dialog.own, "SIP/2.0 200")
        self.dialog.take_answer(accepted)
        self._repeat(lambda: self.dialog.send_request("ACK"), self.server, "ACK")

    def _offer(self, serial: int) -> None:
        self.dialog.cseq = serial       # send_request() counts it up: the same bytes each time
        self.dialog.send_request("INVITE", SDP.format(*self.rtp))

    def _repeat(
        self, send: Callable[[], object], receiver: socket.socket, start: str,
    ) -> tuple[str, tuple[str, int]]:
        """Send until *receiver* gets what begins with *start*; raises TimeoutError where it does not."""
        began = time.monotonic()
        while True:
            send()
            try:
                while not (got := receive(receiver))[0].startswith(start):
                    pass
                return got
            except TimeoutError:
                if time.monotonic() > began + self.patience:
                    raise


def is_heard(phone: socket.socket, server: socket.socket, told: tuple[str, int]) -> bool:
    """Tell whether audio goes both ways: from where the server was told to where it sends from."""
    phone.settimeout(HEARD)
    server.settimeout(HEARD)
    phone.sendto(b"from inside", server.getsockname())
    if server.recvfrom(100) != (b"from inside", told):
        return False
    server.sendto(b"from outside", told)
    return phone.recvfrom(100) == (b"from outside", server.getsockname())


def entries(live: Live, what: str = "") -> list[str]:
    """Return the gateway's UDP entries that have *what*, without what time changes in them."""
    return sorted(re.sub(r"^(\S+ +\d+) \d+ ", r"\1 ", re.sub(r"(packets|bytes)=\d+ ", "", line))
                  for line in live.wires.entries(what))


def next_call(place: Callable[..., Call], host: str, before: str) -> Call:
    """Place calls until one comes through that is shown with the new address *host*; in the first moments the
    address *before* may be seen still."""
    began = time.monotonic()
    while time.monotonic() < began + PATIENCE:
        with suppress(TimeoutError):
            call = place(patience=0.0)
            if call.told[0] != before:
                print(f"right after {time.monotonic() - began:.1f} s")
                assert (call.told[0], call.source) == (host, (host, SIP))
                return call
    raise AssertionError(f"no call is shown with {host}")


def attempt(hears: Callable[[], bool]) -> bool:
    """ARP loses the first packets on a link that has just come up."""
    try:
        return hears()
    except TimeoutError:
        return False
