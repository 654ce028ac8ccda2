"""rtnetlink: interfaces, addresses and routes, from bytes and from a real kernel."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from natfix import rtnetlink
from natfix.errors import NatfixError
from natfix.kernel.netlink import attribute, text
from natfix.rtnetlink import (
    ADDRESS,
    DESTINATION,
    HOP,
    LINK,
    LOCAL,
    MAIN_TABLE,
    MULTIPATH,
    NAME,
    NUMBER,
    OUT,
    PEER,
    ROUTE,
    TABLE,
    UNICAST,
    HostAddress,
    HostRoute,
    address_from_body,
    ask_rtnetlink,
    link_from_body,
    route_from_body,
)

BLACKHOLE = 6       # RTN_BLACKHOLE


def route_body(*attributes: bytes, length: int = 16, table: int = MAIN_TABLE, kind: int = UNICAST) -> bytes:
    return ROUTE.pack(socket.AF_INET, length, 0, 0, table, 0, 0, kind, 0) + b"".join(attributes)


def test_link_has_number_and_name() -> None:
    """Other attributes of a link, of which there are many, do not matter."""
    body = LINK.pack(0, 1, 7, 0, 0) + attribute(1, bytes(6)) + text(NAME, "wan0") + attribute(4, bytes(4))
    assert link_from_body(body) == (7, "wan0")


def test_address_is_our_own_end() -> None:
    """On a tunnel the address is IFA_LOCAL, not the peer's; some links have the latter only."""
    head = ADDRESS.pack(socket.AF_INET, 24, 0, 0, 5)
    peer, own = attribute(PEER, socket.inet_aton("10.8.0.2")), attribute(LOCAL, socket.inet_aton("10.8.0.1"))
    assert address_from_body(head + peer + own) == HostAddress(5, "10.8.0.1")
    assert address_from_body(head + peer) == HostAddress(5, "10.8.0.2")


def test_route_by_one_link() -> None:
    """A route has its network and its link; the default route has no destination."""
    out = attribute(OUT, NUMBER.pack(3))
    network = attribute(DESTINATION, socket.inet_aton("10.20.0.0"))
    assert route_from_body(route_body(network, out)) == HostRoute("10.20.0.0", 16, (3,))
    assert route_from_body(route_body(out, length=0)) == HostRoute("0.0.0.0", 0, (3,))


def test_multipath_route_has_all_its_links() -> None:
    """Each hop has a link, and attributes of its own; a damaged list ends there."""
    gateway = attribute(5, socket.inet_aton("203.0.113.254"))
    hops = b"".join(HOP.pack(HOP.size + len(gateway), 0, 0, number) + gateway for number in (2, 4))
    for data in (hops, hops + HOP.pack(0, 0, 0, 9)):
        route = route_from_body(route_body(attribute(MULTIPATH, data), length=0))
        assert route == HostRoute("0.0.0.0", 0, (2, 4))


def test_routes_that_lead_nowhere_are_none() -> None:
    """Blackholes, and routes of other tables, which the kernel lists as well, are left out."""
    assert route_from_body(route_body(kind=BLACKHOLE)) is None
    assert route_from_body(route_body(table=255)) is None
    assert route_from_body(route_body(attribute(TABLE, NUMBER.pack(1000)))) is None


def test_refusal_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where rtnetlink gives an error there is one sentence, no traceback."""
    def refuse(*_: object) -> None:
        raise OSError(1, "Operation not permitted")
    monkeypatch.setattr(rtnetlink.Connection, "dump", refuse)
    with pytest.raises(NatfixError, match=r"does not tell the links \(Operation not permitted\)"):
        ask_rtnetlink()


@pytest.mark.kernel
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a network namespace")
def test_real_kernel() -> None:
    """Two hundred links, whose list comes in several parts, are read whole, and so is what uses them."""
    script = (
        "for n in $(seq 100); do echo link add d$n type veth peer name e$n; echo link set e$n up; "
        "echo address add 10.0.$n.1/24 dev d$n; echo link set d$n up; done | ip -batch -; "
        "ip route add 10.99.0.0/16 via 10.0.7.2; "
        "ip route add blackhole 10.98.0.0/16; exec "
    )
    program = ("from natfix.rtnetlink import ask_rtnetlink; told = ask_rtnetlink(); names = told.names; "
               "print(sum(name.startswith('d') for name in names.values()), len(told.addresses), "
               "len(told.routes), [[names[n] for n in r.interfaces] for r in told.routes if r.length == 16])")
    done = subprocess.run(["unshare", "-n", "sh", "-ec", f"{script} {sys.executable} -c \"{program}\""],
                          capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "100 100 101 [['d7']]"
