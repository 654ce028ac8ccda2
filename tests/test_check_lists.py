"""`natfix check` of the lists: names that do not resolve, entries that contradict each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from natfix import check_lists as checked
from natfix.check import check_all, exit_code
from natfix.check_lists import NO_LISTS, check_lists
from natfix.findings import Finding, Host, Status
from natfix.lookup import Found, LookupFailed
from tests.hosts import bad, gateway
from tests.name_server import NameServer

NAMES = '[[peer]]\naddress = "sip.listed.test"\n[[domain]]\nname = "example.org"\n'
SERVER, OTHER = "198.51.100.30", "198.51.100.31"


def host_with(tmp_path: Path, text: str, **found: Found | Exception) -> Host:
    """A good gateway with *text* as its configuration, and what DNS says (dots of a name as underscores)."""
    host = gateway(tmp_path, text)

    def ask(name: str, is_host: bool) -> Found:
        said = found.get(name.replace(".", "_"), LookupFailed("no DNS server answers"))
        if isinstance(said, Exception):
            raise said
        return said
    host.find_servers = ask
    return host


def texts(findings: list[Finding]) -> list[str]:
    return [finding.text for finding in findings]


def test_without_lists_there_is_one_line(tmp_path: Path) -> None:
    """It says who may talk then: no list is not "everybody"."""
    assert list(check_lists(gateway(tmp_path))) == [Finding(Status.OK, NO_LISTS)]


def test_good_lists_are_summed_up(tmp_path: Path) -> None:
    """With what each name stands for."""
    host = host_with(tmp_path, NAMES, sip_listed_test=Found((SERVER,), 60), example_org=Found((OTHER,), 60))
    assert list(check_lists(host)) == [Finding(
        Status.OK, f"peers: 1, domains: 1; sip.listed.test is {SERVER}; example.org is {OTHER}")]


def test_names_that_do_not_resolve(tmp_path: Path) -> None:
    """DNS that fails and a name without addresses are findings, each with its reason; the exit code is 6."""
    host = host_with(tmp_path, NAMES, example_org=Found((), float("inf")))
    assert texts(bad(check_lists, host)) == [
        "sip.listed.test does not resolve: no DNS server answers; until it does, only those addresses count "
        "that DNS gave before",
        "example.org does not resolve: DNS knows no IPv4 address of it"]
    lines = [line for line in check_all(host, []) if line.name == "lists"]
    assert (len(lines), exit_code(lines)) == (2, 6)


def test_refused_addresses(tmp_path: Path) -> None:
    """A name that stands for an inside host, or for one that a peer drops, lets nobody in there."""
    host = host_with(tmp_path, f'{NAMES}[[peer]]\naddress = "{OTHER}"\npolicy = "drop"',
                     sip_listed_test=Found((SERVER, "192.168.1.10"), 60), example_org=Found((OTHER,), 60))
    assert texts(bad(check_lists, host)) == [
        "sip.listed.test stands for 192.168.1.10, which natfix refuses: it is inside, or this gateway's own",
        f"example.org stands for {OTHER}, which natfix refuses: a [[peer]] has it dropped"]


def test_entries_that_disagree_about_an_address(tmp_path: Path) -> None:
    """Two names, or a name and an address, that belong together and have different policies."""
    text = ('[[peer]]\naddress = "sip.listed.test"\npolicy = "pass"\n'
            f'[[peer]]\naddress = "{SERVER}"\npolicy = "fix"\n'
            '[[domain]]\nname = "a.test"\n[[domain]]\nname = "b.test"\npolicy = "pass"')
    host = host_with(tmp_path, text, sip_listed_test=Found((SERVER,), 60), a_test=Found((OTHER,), 60),
                     b_test=Found((OTHER,), 60))
    assert texts(bad(check_lists, host)) == [
        f'{SERVER} belongs to [[peer]] sip.listed.test ("pass") and [[peer]] {SERVER} ("fix")',
        f'{OTHER} belongs to [[domain]] a.test ("fix") and [[domain]] b.test ("pass")']


@pytest.mark.parametrize(("text", "said"), [
    ('[[trunk]]\ninside = "192.168.1.5"\npeers = ["198.51.100.7"]\n'
     '[[peer]]\naddress = "198.51.100.7"\npolicy = "drop"',
     "[[trunk]] 192.168.1.5 needs 198.51.100.7, whose packets a [[peer]] drops"),
    ('[inside]\npbx = ["192.168.1.5"]\n[[peer]]\naddress = "192.168.1.5"\npolicy = "drop"',
     "[inside] pbx needs 192.168.1.5, whose packets a [[peer]] drops"),
    ('[[domain]]\nname = "*.a.test"\nmedia = "full"\npolicy = "pass"',
     'media = "full" of [[domain]] *.a.test has no effect: its policy is "pass"'),
    ('[[domain]]\nname = "*"\npolicy = "drop"\n[[domain]]\nname = "bad.test"\npolicy = "drop"',
     '[[domain]] "*" drops all SIP: no other entry has the policy fix or pass'),
], ids=["trunk", "pbx", "media", "all"])
def test_contradictions_of_one_file(tmp_path: Path, text: str, said: str) -> None:
    """What can be seen without DNS is one clear sentence."""
    assert texts(bad(check_lists, host_with(tmp_path, text))) == [said]


def test_dns_has_a_limited_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`natfix check` ends, however many names there are; which were not asked for is said."""
    monkeypatch.setattr(checked, "LONGEST", -1.0)
    findings = list(check_lists(host_with(tmp_path, NAMES)))
    assert [finding.text for finding in findings if finding.status is Status.NOTE] == [
        "sip.listed.test was not asked for: DNS takes too long",
        "example.org was not asked for: DNS takes too long"]


def test_the_settings_say_whom_to_ask(tmp_path: Path) -> None:
    """A real question to the DNS server of the settings, as the daemon would ask it."""
    with NameServer() as server:
        server.put("sip.listed.test", "A", SERVER)
        host = gateway(tmp_path, f'[daemon]\nnameservers = ["{server.address}"]\n'
                                 '[[peer]]\naddress = "sip.listed.test"')
        assert texts(list(check_lists(host))) == [f"peers: 1, domains: 0; sip.listed.test is {SERVER}"]
