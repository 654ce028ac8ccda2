"""Each rule set of nft/examples: loaded as its header says, used for calls, and taken away again."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from typing import NamedTuple

import pytest

from tests.far.calls import CallingSite
from tests.far.site import GATEWAY, USERS
from tests.lab import namespaces
from tests.lab.audio import assert_two_way, talk
from tests.lab.gateway import RULES, Natfix
from tests.lab.lab import Lab
from tests.lab.managers import Docker, Firewalld, Manager, Ufw, rules_before
from tests.lab.programs import Baresip, Kamailio
from tests.rule_sets.examples import FILES, HEADINGS, example
from tests.scenarios.phones import two_phones

PBX, DMZ_PBX, OWN_OUTSIDE = "192.168.1.5", "192.168.2.5", "203.0.113.5"
ECHO_REQUEST, ECHO_REPLY = bytes.fromhex("0800f7fd00010001"), b"\0"     # RFC 792
IPTABLES_TABLE = re.compile(r"(ip6?|bridge) (filter|nat|mangle|raw|security) |$")
# Firewalls that were there before: nftables as in Debian's example, and iptables of either kind.
EXISTING_NFT = RULES.format(dnat_line="").replace("inet firewall", "inet filter")
EXISTING_IPTABLES = """*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i inside -o outside -j ACCEPT
-A FORWARD -i inside2 -o outside -j ACCEPT
-A FORWARD -j LOG
COMMIT
*nat
-A POSTROUTING -o outside -j MASQUERADE
COMMIT
"""


class Scene(NamedTuple):
    """What one file is tried with."""

    call: Callable[[Lab, Natfix], None]
    before: Callable[[Lab], Manager] = Manager      # what is on the gateway already
    topology: str = "gateway"
    options: dict[str, object] = {}     # noqa: RUF012 (nobody writes to it)
    program: str = "iptables"           # the kind of it


def call_in(lab: Lab, natfix: Natfix) -> None:
    """A phone inside, registered with its provider, is called."""
    alice, bob = two_phones(lab)
    bob.dial(alice.uri)
    talk()
    assert_two_way(alice, bob)
    bob.hang_up()
    alice.wait_closed()


def calls_by_the_pbx(pbx: str, registrar: str, host: str = "pbx", **options: object) -> Callable[..., None]:
    """A phone inside and one behind a NAT of its own, by the PBX at *pbx*: the inside one calls."""
    def call(lab: Lab, natfix: Natfix) -> None:
        site = CallingSite()
        site.lab, site.natfix, site.registrar = lab, natfix, registrar
        lab.start(Kamailio(host, users=USERS, **options))      # type: ignore[arg-type]
        dora, ines = site.phone("dora"), site.phone("ines", pbx)
        site.call(ines, dora)
    return call


def trunk_by_static_nat(lab: Lab, natfix: Natfix) -> None:
    """The Check Point article's case: the PBX registers from 5060, is answered there, and is called."""
    provider = lab.start(Kamailio(users={"alice": "secret", "bob": "hidden"}))
    pbx = lab.start(Baresip("pbx", "alice", registrar=provider.address, password="secret", tone=440))
    bob = lab.start(Baresip("remote1", "bob", registrar=provider.address, password="hidden", tone=880))
    pbx.register()
    bob.register()
    row, = natfix.json("registrations")["registrations"]
    assert (row["inside"], row["outside"]) == (f"{PBX}:5060", f"{OWN_OUTSIDE}:5060")
    bob.dial(pbx.uri)
    talk()
    assert_two_way(bob, pbx)
    streams = natfix.json("calls")["calls"][0]["streams"]
    assert [row["outside"].partition(":")[0] for row in streams] == [OWN_OUTSIDE] * len(streams) != []
    bob.hang_up()
    pbx.wait_closed()


def calls_by_both_links(lab: Lab, natfix: Natfix) -> None:
    """A phone with a provider at each link is called by both; answers leave by the link of the question."""
    lab["other"].run(["ip", "address", "add", "192.0.2.9/32", "dev", "lo"])
    with namespaces.socket_in(lab["other"].namespace, socket.AF_INET, socket.SOCK_RAW,
                              socket.IPPROTO_ICMP) as other:
        other.bind(("192.0.2.9", 0))
        other.settimeout(3)
        other.sendto(ECHO_REQUEST, ("198.51.100.1", 0))
        assert other.recv(100)[20:21] == ECHO_REPLY
    call_in(lab, natfix)
    second = lab.start(Kamailio("other"))
    alice = lab.start(Baresip("phone2", "alice", registrar=second.address, tone=550))
    bob = lab.start(Baresip("other", "bob", registrar=second.address, tone=990, sip_port=5070))
    alice.register()
    bob.register()
    shown = {row["outside"].partition(":")[0] for row in natfix.json("registrations")["registrations"]}
    assert shown == {"203.0.113.1", "198.51.100.1"}
    bob.dial(alice.uri)
    talk()
    assert_two_way(alice, bob)
    streams = natfix.json("calls")["calls"][0]["streams"]
    assert {row["outside"].partition(":")[0] for row in streams} == {"198.51.100.1"}
    bob.hang_up()
    alice.wait_closed()


def own_address(lab: Lab) -> Manager:
    """The PBX's outside address is the gateway's."""
    lab.gateway.run(["ip", "address", "add", f"{OWN_OUTSIDE}/32", "dev", "outside"])
    return Manager(lab)


NFT = rules_before("nft -f", EXISTING_NFT)
IPTABLES, LEGACY = (rules_before(f"{each}-restore", EXISTING_IPTABLES)
                    for each in ("iptables", "iptables-legacy"))
FAR = {"kinds": ("port-restricted",)}
BY_STATIC, BY_DMZ = Scene(trunk_by_static_nat, own_address), Scene(
    calls_by_the_pbx(DMZ_PBX, GATEWAY, aliases=(GATEWAY,)), topology="pbx-inside",
    options={**FAR, "dmz": True})
BY_GATEWAY = Scene(calls_by_the_pbx("192.168.1.1", GATEWAY, "gateway", further=("192.168.1.1",)),
                   topology="pbx-on-gateway", options=FAR)
BY_LINK = Scene(calls_by_both_links, options={"two_links": True})

# File, what it is tried beside, and how. A file that is missing here fails.
SCENES = {
    ("masquerade.nft", ""): Scene(call_in),
    ("masquerade.iptables", ""): Scene(call_in),
    ("static-nat.nft", ""): BY_STATIC,
    ("static-nat.iptables", ""): BY_STATIC,
    ("pbx-dmz.nft", ""): BY_DMZ,
    ("pbx-dmz.iptables", ""): BY_DMZ,
    ("pbx-gateway.nft", ""): BY_GATEWAY,
    ("pbx-gateway.iptables", ""): BY_GATEWAY,
    ("several-links.nft", ""): BY_LINK,
    ("several-links.iptables", ""): BY_LINK,
    ("existing.nft", ""): Scene(call_in, NFT),
    ("existing.iptables", ""): Scene(call_in, IPTABLES),
    ("existing.iptables", "legacy"): Scene(call_in, LEGACY, program="iptables-legacy"),
    ("firewalld.sh", "nftables"): Scene(call_in, lambda lab: Firewalld(lab, "nftables")),
    ("firewalld.sh", "iptables"): Scene(call_in, lambda lab: Firewalld(lab, "iptables")),
    ("ufw.iptables", ""): Scene(call_in, Ufw),
    ("ufw.nft", ""): Scene(call_in, Ufw),
    ("docker.iptables", "drop"): Scene(call_in, lambda lab: Docker(lab, False)),
    ("docker.iptables", "accept"): Scene(call_in, lambda lab: Docker(lab, True)),
    ("docker.nft", "accept"): Scene(call_in, lambda lab: Docker(lab, True)),
}


@pytest.mark.parametrize("name", FILES)
def test_every_file_says_how_to_use_it(name: str) -> None:
    """Who it is for, what to change, how to load, check and take away; and there is a call for it."""
    text = example(name)
    assert tuple(text.parts) == HEADINGS
    assert text.commands("Load")
    assert text.commands("Take away")
    assert name in {file for file, _ in SCENES}


@pytest.mark.lab
@pytest.mark.parametrize(("name", "kind"), SCENES)
def test_calls(make_lab: Callable[..., Lab], name: str, kind: str) -> None:
    """Loaded as its header says, it leaves `natfix check` nothing to find, a call has audio both ways, and
    when it is taken away as its header says, nothing of it is left."""
    scene = SCENES[name, kind]
    lab = make_lab(scene.topology, firewall=False, **scene.options)
    text = example(name, **{"198.51.100.254": "198.51.100.60", "iptables": scene.program})
    manager = scene.before(lab)
    lab.path(name.replace("iptables", scene.program)).write_text(text.text)
    before = rules_in_force(lab)
    manager.run(text.commands("Load"))
    assert rules_in_force(lab) != before
    natfix = Natfix(lab, text.config)
    assert natfix.exit_code("check") == 0, natfix.run("check", check=False)
    scene.call(lab, natfix.start())
    natfix.stop()
    natfix.down()
    manager.run(text.commands("Take away"))
    assert rules_in_force(lab) == before


def rules_in_force(lab: Lab) -> list[str]:
    """Return all rules of the gateway, policies that drop, and routing rules; empty tables do not count."""
    def lines(command: str) -> list[str]:
        return lab.gateway.run(command.split(), check=False).stdout.splitlines()

    saved = [line for program in ("iptables-save", "iptables-legacy-save") for line in lines(program)
             if line.startswith("-A") or " DROP " in line]
    tables = "\n".join(lines("nft -s list ruleset")).removeprefix("table ").split("\ntable ")
    own = [table for table in tables if not IPTABLES_TABLE.match(table)]
    return sorted(saved) + sorted(own) + lines("ip rule") \
        + lines("ip route show table 101") + lines("ip route show table 102")
