"""What `natfix check` warns of, as it happens: with the rule in place, and after the printed cure."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.far.calls import Site
from tests.lab import namespaces
from tests.lab.far_nat import PORT_RESTRICTED
from tests.lab.gateway import Natfix
from tests.lab.host import LabError, wait_until
from tests.lab.lab import Lab
from tests.lab.managers import Firewalld
from tests.lab.programs import Baresip, Capture, Kamailio
from tests.rule_sets.examples import example
from tests.rule_sets.test_examples import call_in
from tests.scenarios.checks import INSIDE_ADDRESS, messages, packets_seen
from tests.scenarios.phones import open_phones

pytestmark = pytest.mark.lab
READ_COUNTER = ["nft", "list", "counter", "ip", "seen", "questions"]
WHOLE_MARK = """table inet links {
    chain prerouting {
        type filter hook prerouting priority mangle;
        iifname "inside" ct mark set 0x1
    }
}"""
HELPER = """table ip helper {
    ct helper sip { type "sip" protocol udp; }
    chain early {
        type filter hook prerouting priority filter;
        udp dport 5060 ct helper set "sip"
    }
}"""
TRACKED_ONLY = """table inet own {
    chain output {
        type filter hook output priority filter; policy drop;
        ct state new,established,related accept
    }
}"""
# At input, where the packet is behind the routing decision.
COUNTER = """table ip seen
delete table ip seen
table ip seen {
    counter questions { }
    chain input {
        type filter hook input priority mangle;
        udp dport 7000 counter name questions
    }
}"""


def found(natfix: Natfix, code: str) -> list[dict[str, Any]]:
    """Return the warnings and errors of one check."""
    lines = json.loads(natfix.run("check", "--json", check=False))["checks"]
    return [line for line in lines if line["code"] == code and line["status"] in ("warning", "error")]


def test_a_service_of_firewalld_that_brings_the_kernel_helper(make_lab: Callable[..., Lab]) -> None:
    """--add-service=sip attaches nf_conntrack_sip: it is found, natfix refuses to run beside it, and without
    the service all is well."""
    lab = make_lab(firewall=False)
    firewalld = Firewalld(lab, "nftables")
    lab.path("firewalld.sh").write_text(example("firewalld.sh").text)
    firewalld.run(["sh firewalld.sh", "firewall-cmd --zone=external --add-service=sip"])
    natfix = Natfix(lab)
    assert [line["status"] for line in found(natfix, "H09")][:1] == ["error"]
    with pytest.raises(LabError, match="kernel's helper"):
        natfix.start()
    firewalld.run(["firewall-cmd --zone=external --remove-service=sip"])
    assert found(natfix, "H09") == []
    natfix.start()


def test_connections_that_keep_the_helper(make_lab: Callable[..., Lab]) -> None:
    """Without its rule the kernel's helper goes on with what it follows, until the cure."""
    lab = make_lab()
    lab.gateway.run(["nft", "-f", "-"], input=HELPER)
    lab.start(Kamailio())
    open_phones(lab, [("phone1", "alice", 440)])
    lab.gateway.run(["nft", "delete", "table", "ip", "helper"])
    natfix = Natfix(lab)
    (line,) = found(natfix, "H09")
    assert line["status"] == "error"
    lab.gateway.run(line["cure"].split())
    assert found(natfix, "H09") == []


@pytest.mark.parametrize("bits", ["0x1", "ct mark and 0xffffff00 or 0x1"])
def test_a_rule_that_overwrites_the_whole_mark(make_lab: Callable[..., Lab], bits: str) -> None:
    """A flow's second packet passes unfixed already; a rule that keeps the other bits does no harm."""
    lab = make_lab()
    lab.gateway.run(["nft", "-f", "-"], input=WHOLE_MARK.replace("0x1", bits))
    natfix = Natfix(lab)
    is_bad = bits == "0x1"
    assert len(found(natfix, "H10")) == is_bad
    natfix.start()
    provider = lab.start(Kamailio(users={"alice": "secret"}))
    tap = lab.start(Capture("gateway", "outside", "udp port 5060"))
    alice = lab.start(Baresip("phone1", "alice", registrar=provider.address, password="secret"))
    alice.register()
    registers = [message for message in messages(tap.stop()) if message.is_request]
    unfixed = [bool(INSIDE_ADDRESS.search(message["contact"])) for message in registers[:2]]
    assert unfixed == [False, is_bad]


def test_a_source_filter_on_a_second_link(make_lab: Callable[..., Lab]) -> None:
    """Strict rp_filter drops what comes in by a link that the default route does not use, until the cure."""
    lab = make_lab(two_links=True)
    lab["other"].run(["ip", "address", "add", "192.0.2.9/32", "dev", "lo"])
    natfix = Natfix(lab, '[inside]\nnetworks = ["192.168.1.0/24"]\n[outside]\ninterface = "outside2"\n')
    tap = lab.start(Capture("gateway", "outside2", "udp port 7000"))
    (line,) = found(natfix, "H06")
    assert line["status"] == "error"
    assert not arrives(lab)
    lab.gateway.run(line["cure"].split())
    assert found(natfix, "H06") == []
    assert arrives(lab)
    assert packets_seen(tap) == 2


def arrives(lab: Lab) -> bool:
    """Tell whether a packet from beyond the second link comes as far as the gateway's chains."""
    lab.gateway.run(["nft", "-f", "-"], input=COUNTER)
    with namespaces.socket_in(lab["other"].namespace) as sender:
        sender.bind(("192.0.2.9", 7000))
        sender.sendto(b"question", ("198.51.100.1", 7000))
    try:
        wait_until(lambda: "packets 0" not in lab.gateway.run(READ_COUNTER).stdout, 0.5, "a packet")
        return True
    except LabError:
        return False


def test_an_output_chain_that_drops_keep_alives(make_lab: Callable[..., Lab]) -> None:
    """natfix's own packets to far phones are not tracked: a chain for tracked ones stops them, until the
    cure."""
    site = Site(make_lab, PORT_RESTRICTED, phones=1, config="[far_end]\nkeep_open_every = 10\n")
    site.rules(TRACKED_ONLY)
    site.phone("dora")
    (line,) = found(site.natfix, "H16")
    wait_until(lambda: site.natfix.json("status")["shell"].get("not_sent"), 25.0,
               "a keep-alive", interval=0.5)
    site.lab.gateway.run(["sh", "-c", line["cure"]])
    assert found(site.natfix, "H16") == []
    wait_until(lambda: site.natfix.json("status")["counters"].get("keep-alives answered"), 25.0,
               "an answered keep-alive", interval=0.5)


def test_random_ports_do_no_harm(make_lab: Callable[..., Lab]) -> None:
    """A masquerade that chooses ports by chance is a note only: natfix has decided those of SIP and media."""
    lab = make_lab(firewall=False)
    text = example("masquerade.nft").text.replace(" masquerade\n", " masquerade fully-random\n")
    lab.gateway.run(["nft", "-f", "-"], input=text)
    natfix = Natfix(lab)
    assert natfix.exit_code("check") == 0
    call_in(lab, natfix.start())
    row, = [row for row in natfix.json("registrations")["registrations"] if "alice" in str(row)]
    assert row["outside"] == "203.0.113.1:5060"
