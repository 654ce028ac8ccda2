"""What `natfix check` says of several outside links."""

from __future__ import annotations

from pathlib import Path

from natfix.check_firewall import check_forward, check_nat
from natfix.check_outside import check_outside_links, on_each_link
from natfix.check_system import check_source_filter
from natfix.findings import Status
from natfix.interfaces import Links, Steered
from tests.hosts import FIREWALL, LINKS, bad, gateway

CONFIG = """
[outside]
interface = "wan0"
mark = 0x100
[[link]]
interface = "wan1"
mark = 0x200
"""
TWO = Links({**LINKS.addresses, "wan1": ("198.51.100.1",)}, LINKS.routes,
            steered=(Steered(0x100, 0xFF00, "wan0"), Steered(0x200, 0xFFFFFFFF, "wan1")))
BOTH = FIREWALL.replace("-A FORWARD -i lan0 -o wan0 -j ACCEPT\n", "-A FORWARD -i lan0 -j ACCEPT\n").replace(
    "-A POSTROUTING -o wan0", "-A POSTROUTING ! -o lan0")


def test_one_link(tmp_path: Path) -> None:
    """With one outside link there is nothing to be said."""
    assert list(check_outside_links(gateway(tmp_path))) == []


def test_two_links_that_are_right(tmp_path: Path) -> None:
    """Each has an address, and a rule that leads its marked packets there, with a mask or without."""
    found = list(check_outside_links(gateway(tmp_path, CONFIG, TWO)))
    assert {finding.status for finding in found} == {Status.OK}
    assert len(found) == 4


def test_a_mark_that_leads_elsewhere(tmp_path: Path) -> None:
    """No rule, a rule to the other link's table, and no mark at all are found, each with its cure."""
    links = TWO._replace(steered=(Steered(0x100, 0xFFFFFFFF, "wan1"),))
    first, second = bad(check_outside_links, gateway(tmp_path, CONFIG, links))
    assert "no ip rule leads what natfix marks 0x100 to wan0" in first.text
    assert "dev wan1 table 512" in second.cure
    assert "ip rule add fwmark 0x200 lookup 512" in second.cure
    _, second = bad(check_outside_links, gateway(tmp_path, CONFIG.replace("mark", "#mark"), TWO))
    assert "wan1 has no mark" in second.text


def test_a_link_that_is_gone(tmp_path: Path) -> None:
    """That is a warning: the other one works."""
    (finding,) = bad(check_outside_links, gateway(tmp_path, CONFIG, TWO._replace(down=frozenset({"wan1"}))))
    assert finding.status is Status.WARNING
    assert "the outside link wan1 is down" in finding.text


def test_rules_are_looked_at_for_each_link(tmp_path: Path) -> None:
    """What the operator's rules do for the first link only is found for the second one."""
    for check in (check_forward, check_nat):
        assert bad(on_each_link(check), gateway(tmp_path, CONFIG, TWO, firewall=BOTH)) == []
        found = bad(on_each_link(check), gateway(tmp_path, CONFIG, TWO))
        assert found
        assert all("wan1" in finding.text + finding.cure for finding in found)


def test_source_filter_of_the_second_link(tmp_path: Path) -> None:
    """The default route leaves by the first link, so a strict filter drops what comes in by the second."""
    strict = {"proc__sys__net__ipv4__conf__wan1__rp_filter": "1"}
    (finding,) = bad(on_each_link(check_source_filter), gateway(tmp_path, CONFIG, TWO, **strict))
    assert finding.cure == "sysctl -w net.ipv4.conf.wan1.rp_filter=2"
