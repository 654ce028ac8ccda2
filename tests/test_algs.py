"""SIP ALGs of others: what the shipped files claim, and what a wrong file is told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from natfix import cli
from natfix.algs import Alg, alg_from_text, algs_from_folder, all_algs, as_text
from natfix.errors import ConfigError

ALG = '''
product = "Acme Router"
kind = "gateway"
off = ["no sip alg"]
afterwards = "reload"
sources = ["Acme manual"]

[recognise]
marks = ["a=acme:"]
'''
ALGS = {alg.name: alg for alg in all_algs()}


@pytest.mark.parametrize("name", [
    "check-point", "fortigate", "cisco-ios", "cisco-asa", "juniper-srx", "sonicwall", "pfsense", "mikrotik",
    "linux", "netopia", "avm",
])
def test_the_products_of_the_papers_are_there(name: str) -> None:
    """The routers and firewalls of the papers that natfix began with have their file."""
    assert ALGS[name].off


@pytest.mark.parametrize("alg", ALGS.values(), ids=ALGS.keys())
def test_every_claim_has_a_source(alg: Alg) -> None:
    """Each file says what to do and where that is written."""
    assert alg.off
    assert all(len(source) > 10 for source in alg.sources)


@pytest.mark.parametrize("sign", ["formats", "marks", "user_agents", "oui"])
def test_no_sign_means_two_products(sign: str) -> None:
    """A format, mark, User-Agent or MAC prefix stands for one product only."""
    signs = [value.lower() for alg in ALGS.values() for value in getattr(alg, sign)]
    assert len(signs) == len(set(signs))


def test_the_commands_of_the_papers() -> None:
    """What the papers say is what is told: Check Point's protocol type, Cisco 2811's and Netopia's lines."""
    assert "SIP_UDP to None" in ALGS["check-point"].switch_off
    assert ALGS["cisco-ios"].off == (
        "no ip nat service sip udp port 5060", "no ip nat service sip tcp port 5060")
    assert ALGS["netopia"].switch_off == "no ip nat alg sip enable"


def test_a_file_is_read() -> None:
    """The name comes from the file, all else from its keys."""
    alg = alg_from_text(ALG, "/etc/natfix/acme.toml")
    assert alg == Alg(
        "acme", "Acme Router", "gateway", ("no sip alg",), ("Acme manual",), afterwards="reload",
        marks=("a=acme:",))
    assert alg.switch_off == "no sip alg; then reload"


@pytest.mark.parametrize(("change", "said"), [
    (('kind = "gateway"', 'kind = "gatway"'),
     'x:3: kind = "gatway" must be "gateway", "kernel", "server" or "none"; did you mean "gateway"?'),
    (('off =', 'of ='), 'x:4: unknown key "of" in the top level; did you mean "off"?'),
    (('off = ["no sip alg"]', ''), 'x:1: the top level lacks "off": '),
    (('marks = ["a=acme:"]', 'marks = ["a="]'), 'x:9: marks = ["a="] in [recognise] has "a=", which must '),
    (('marks = ["a=acme:"]', 'oui = ["00-0c-42"]'), 'x:9: oui = ["00-0c-42"] in [recognise] has "00-0c-42"'),
    (('marks = ["a=acme:"]', 'formats = ["pcap"]'), 'x:9: formats = ["pcap"] in [recognise] has "pcap"'),
    (('afterwards =', 'marks ='), 'x:5: unknown key "marks" in the top level; it belongs in [recognise]'),
    (('[recognise]\nmarks = ["a=acme:"]', 'recognise = 1'),
     'x:8: recognise must be a table: write [recognise] on a line of its own'),
    (('[recognise]', '[recognize]'), 'x:8: unknown table "recognize"; did you mean "recognise"?'),
    (('sources = ["Acme manual"]', 'sources = []'), 'x:6: sources = [] must have 1 to 256 entries'),
])
def test_a_wrong_file_is_refused(change: tuple[str, str], said: str) -> None:
    """A fault is named with file, line, key and what may have been meant."""
    with pytest.raises(ConfigError, match=f"(?m)^{re.escape(said)}"):
        alg_from_text(ALG.replace(*change, 1), "x")


def test_a_folder_is_read_by_name(tmp_path: Path) -> None:
    """Only *.toml counts; products stand in the order of their names."""
    (tmp_path / "one.toml").write_text(ALG)
    (tmp_path / "two.toml").write_text(ALG.replace("Acme Router", "a box"))
    (tmp_path / "README").write_text("not TOML")
    assert [alg.product for alg in algs_from_folder(tmp_path)] == ["a box", "Acme Router"]


def test_all_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """`natfix explain --alg` names every product with what switches its ALG off."""
    assert cli.main(["explain", "--alg"]) == 0
    shown = capsys.readouterr().out
    assert shown == as_text() + "\n"
    assert all(alg.product in shown and alg.off[0] in shown for alg in ALGS.values())
