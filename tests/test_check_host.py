"""What is wrong with the machine itself, and what cures it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from natfix import check_host
from natfix.address import network_from_text
from natfix.check_host import (
    check_conntrack,
    check_kernel,
    check_links,
    check_packages,
    check_ports,
    check_queue,
    check_rights,
    check_routing,
)
from natfix.errors import ConfigError, NatfixError, NotPermitted
from natfix.findings import Status
from natfix.firewall import Ruleset
from natfix.interfaces import Links, Route
from tests.hosts import CAPABLE, LINKS, bad, gateway

NOTHING = replace(
    CAPABLE, net_admin=False, nftables=False, nat=False, queue=False, nfqueue=False, conntrack=False)
# /proc/net/udp: 0.0.0.0:30010, 127.0.0.1:30020, 0.0.0.0:45000, and a connected socket at 30030.
SOCKETS = '''\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
  100: 00000000:753A 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1
  101: 0100007F:7544 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1
  102: 00000000:AFC8 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1
  103: 017100CB:754E 0A6433C6:0035 01 00000000:00000000 00:00000000 00000000     0        0 1
'''
QUEUES = " 5060   4711     0 2 65531     0     0     17  1\n 5061   4712     0 2 65531     0     0     2  1\n"


def test_rights(tmp_path: Path) -> None:
    """Without CAP_NET_ADMIN the one sentence says to run as root."""
    assert bad(check_rights, gateway(tmp_path)) == []
    with pytest.raises(NotPermitted, match="run this as root"):
        list(check_rights(gateway(tmp_path, capabilities=NOTHING)))


def test_capable_kernel(tmp_path: Path) -> None:
    """A stock kernel is told by its release and the form of divert that will be used."""
    (finding,) = check_kernel(gateway(tmp_path))
    assert finding.text == (
        "kernel 6.1.0-28-amd64: NAT, conntrack by netlink, packets by nft's queue statement")
    (finding,) = check_kernel(gateway(tmp_path, capabilities=replace(CAPABLE, queue=False)))
    assert finding.text.endswith("the xtables target NFQUEUE")


@pytest.mark.parametrize("feature", ["nftables", "nat", "conntrack"])
def test_lacking_feature(tmp_path: Path, feature: str) -> None:
    """Each lacking feature is one error with the module that brings it."""
    (finding,) = bad(check_kernel, gateway(tmp_path, capabilities=replace(CAPABLE, **{feature: False})))
    assert finding.cure.startswith("modprobe ")


def test_no_queue_at_all(tmp_path: Path) -> None:
    """A kernel without NFQUEUE in either form is an error."""
    able = replace(CAPABLE, queue=False, nfqueue=False)
    (finding,) = bad(check_kernel, gateway(tmp_path, capabilities=able))
    assert "no packet can be diverted" in finding.text


def test_forced_form_that_is_lacking(tmp_path: Path) -> None:
    """Where the configuration forces a form that the kernel lacks, the other one is named."""
    host = gateway(tmp_path, '[signalling]\ndivert = "queue"', capabilities=replace(CAPABLE, queue=False))
    (finding,) = bad(check_kernel, host)
    assert finding.cure == 'in natfix.toml, [signalling] divert = "nfqueue"'


def test_a_kernel_without_timeouts(tmp_path: Path) -> None:
    """natfix works there; what silent TCP connections suffer is a warning, with the sysctls that cure it."""
    (finding,) = bad(check_kernel, gateway(tmp_path, capabilities=replace(CAPABLE, timeouts=False)))
    assert finding.status is Status.WARNING
    assert "{unacknowledged,max_retrans}=7200" in finding.cure


def test_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing Python package or library is an error that says what to install."""
    monkeypatch.setattr(check_host, "PACKAGES", {"json": "is always there"})
    assert bad(check_packages, gateway(tmp_path)) == []
    monkeypatch.setattr(check_host, "PACKAGES", {"no_such_package": "does this"})
    findings = bad(check_packages, gateway(tmp_path, capabilities=replace(CAPABLE, library=False)))
    assert [finding.cure.split()[1] for finding in findings] == ["install", "install"]


def test_links(tmp_path: Path) -> None:
    """The two sides are shown as natfix understands them."""
    (finding,) = check_links(gateway(tmp_path))
    assert finding.text == "outside is wan0, 203.0.113.1; inside 192.168.1.0/24 (lan0)"


def test_unclear_outside(tmp_path: Path) -> None:
    """No default route is the error that lists the candidates."""
    links = LINKS._replace(routes=LINKS.routes[1:])
    with pytest.raises(ConfigError, match="one of wan0, lan0"):
        list(check_links(gateway(tmp_path, links=links)))


def test_nothing_inside(tmp_path: Path) -> None:
    """A machine with one link has nobody behind it."""
    (finding,) = bad(check_links, gateway(tmp_path, links=LINKS._replace(routes=LINKS.routes[:2])))
    assert finding.status is Status.ERROR


@pytest.mark.parametrize(("config", "said"), [
    ('[gateway]\npbx = "local"', "inside is the PBX here alone"),
    ('[outside]\nintranet = ["203.0.113.0/24"]', "inside 203.0.113.0/24"),
])
def test_a_server_that_is_no_gateway(tmp_path: Path, config: str, said: str) -> None:
    """With a PBX of its own, or its own network left alone, one link is enough."""
    (finding,) = check_links(gateway(tmp_path, config, links=LINKS._replace(routes=LINKS.routes[:2])))
    assert (finding.status, finding.text) == (Status.OK, f"outside is wan0, 203.0.113.1; {said}")


def test_the_address_that_others_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A STUN server is asked; one that does not answer is a warning with the reason."""
    config = '[outside]\nadvertise = "{}"'
    monkeypatch.setattr(check_host, "ask", lambda server, address: "198.51.100.9")
    for setting in ("198.51.100.9", "stun:stun.example.net"):
        _, finding = check_links(gateway(tmp_path, config.format(setting)))
        assert finding.text.startswith("others see 203.0.113.1 as 198.51.100.9")

    def refuse(server: str, address: str) -> str:
        raise NatfixError(f"the STUN server {server} does not answer")
    monkeypatch.setattr(check_host, "ask", refuse)
    (finding,) = bad(check_links, gateway(tmp_path, config.format("stun:stun.example.net")))
    assert finding.text == (
        "the STUN server stun.example.net does not answer: without an answer 203.0.113.1 is shown")


def test_doubtful_settings_of_links(tmp_path: Path) -> None:
    """An outside address nobody has, and an inside network no route leads to, are warnings."""
    config = '[outside]\naddress = "203.0.113.77"\n[inside]\nnetworks = ["192.168.1.0/24", "10.9.0.0/16"]'
    texts = [finding.text for finding in bad(check_links, gateway(tmp_path, config))]
    assert texts == ["203.0.113.77 is no address of this gateway: nobody answers ARP for it",
                     "no route leads to 10.9.0.0/16, which [inside] networks names"]


@pytest.mark.parametrize(("config", "count"), [("", 1), ('[inside]\nnetworks = ["192.168.1.0/24"]\n', 0)])
def test_a_second_outside_link_among_the_inside_ones(tmp_path: Path, config: str, count: int) -> None:
    """A link with a default route of its own is hardly inside; named networks leave it out."""
    links = Links({**LINKS.addresses, "wan1": ("198.51.100.1",)}, (
        *LINKS.routes, Route(LINKS.routes[0].network, "wan1"),
        Route(network_from_text("198.51.100.0/24"), "wan1")))
    found = bad(check_links, gateway(tmp_path, f'{config}[outside]\ninterface = "wan0"\n', links=links))
    assert ["wan1 has a default route" in finding.text for finding in found] == [True] * count


def test_routing(tmp_path: Path) -> None:
    """A machine that does not forward is no gateway."""
    assert bad(check_routing, gateway(tmp_path)) == []
    host = gateway(tmp_path, proc__sys__net__ipv4__ip_forward="0\n")
    assert bad(check_routing, host)[0].cure.startswith("sysctl -w net.ipv4.ip_forward=1")


def test_server_in_the_media_pool(tmp_path: Path) -> None:
    """A program that serves a port of the pool is found; loopback, connected and other sockets are not."""
    (finding,) = bad(check_ports, gateway(tmp_path, proc__threadself__net__udp=SOCKETS))
    assert "serves UDP port 30010," in finding.text


def test_shared_ephemeral_ports_are_noted(tmp_path: Path) -> None:
    """The kernel's own choice of ports overlaps the pool by default: a note with the sysctl, no finding."""
    host = gateway(tmp_path, proc__sys__net__ipv4__ip_local_port_range="32768\t60999\n")
    findings = list(check_ports(host))
    assert [finding.status for finding in findings] == [Status.OK, Status.NOTE]
    assert findings[1].cure == "sysctl -w net.ipv4.ip_local_reserved_ports=30000-39999"
    host = gateway(tmp_path, proc__sys__net__ipv4__ip_local_port_range="32768\t60999\n",
                   proc__sys__net__ipv4__ip_local_reserved_ports="8080,30000-39999\n")
    assert [finding.status for finding in check_ports(host)] == [Status.OK]


def test_full_connection_table(tmp_path: Path) -> None:
    """A table that is nearly full begins to drop calls; a larger size is named."""
    assert bad(check_conntrack, gateway(tmp_path)) == []
    full = gateway(tmp_path, proc__sys__net__netfilter__nf_conntrack_count="250000")
    (finding,) = bad(check_conntrack, full)
    assert finding.cure == "sysctl -w net.netfilter.nf_conntrack_max=1048576"


def test_conntrack_not_loaded(tmp_path: Path) -> None:
    """Before the module is loaded there is nothing to be full."""
    host = gateway(tmp_path, proc__sys__net__netfilter__nf_conntrack_count="")
    assert [finding.status for finding in check_conntrack(host)] == [Status.NOTE]


def test_occupied_queue(tmp_path: Path) -> None:
    """A queue number that another program holds is an error with the holder's name and a free number."""
    config = f'[daemon]\ncontrol_socket = "{tmp_path}/none.sock"'
    assert bad(check_queue, gateway(tmp_path, config)) == []
    host = gateway(tmp_path, config, proc__threadself__net__netfilter__nfnetlink_queue=QUEUES,
                   proc__4711__comm="suricata\n")
    (finding,) = bad(check_queue, host)
    assert finding.text == "queue 5060 is held by process 4711 (suricata)"
    assert finding.cure == "end that program, or in natfix.toml, [signalling] queue = 5062"


def test_rules_of_a_killed_natfix(tmp_path: Path) -> None:
    """Rules without their daemon are told, with the two ways out; they are no fault."""
    config = f'[daemon]\ncontrol_socket = "{tmp_path}/none.sock"'
    (finding,) = check_queue(gateway(tmp_path, config, ruleset=Ruleset(tables={"ip natfix"})))
    assert finding.status is Status.NOTE
    assert "`natfix down` removes them" in finding.text


def test_queue_of_the_running_natfix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where natfix itself answers, its queue is no fault."""
    def answer(_path: str, _question: dict[str, Any], timeout: float) -> dict[str, Any]:
        assert timeout <= 2.0
        return {"pid": 4711}

    monkeypatch.setattr(check_host, "request", answer)
    (finding,) = check_queue(gateway(tmp_path, proc__threadself__net__netfilter__nfnetlink_queue=QUEUES))
    assert (finding.status, finding.text) == (Status.OK, "natfix is running (process 4711)")
