"""`natfix init`: what is seen becomes a configuration that natfix reads; what is not clear is asked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from natfix.address import network_from_text
from natfix.config import Link, Settings, config_from_text
from natfix.errors import ConfigError, NatfixError, NotPermitted
from natfix.findings import Host
from natfix.init import configuration_text, look_around, write_configuration
from natfix.interfaces import Links, Route
from tests.hosts import FIREWALL, LINKS, gateway

FORWARD = "-A PREROUTING -i wan0 -p udp -m udp --dport 5060 -j DNAT --to-destination 192.168.1.5:5060\n"
HEAD = "  sl  local_address rem_address   st\n"
LISTENER = " 1: 00000000:13C4 00000000:0000 07\n"          # 0.0.0.0:5060
LOOPBACK = " 2: 0100007F:13C4 00000000:0000 07\n"
IN_THE_POOL = " 3: 00000000:7534 00000000:0000 07\n"       # 0.0.0.0:30004
EPHEMERAL = "proc__sys__net__ipv4__ip_local_port_range"
UDP = "proc__threadself__net__udp"


def written(host: Host, interface: str = "") -> tuple[str, Settings]:
    """Return the text that init writes for *host*, and how natfix reads it."""
    text = configuration_text(look_around(host, interface))
    return text, config_from_text(text, "natfix.toml")


def test_an_ordinary_gateway(tmp_path: Path) -> None:
    """Interface, networks and the usual pool are written, each with its reason, and nothing else is set."""
    text, settings = written(gateway(tmp_path))
    assert settings.outside.interface == "wan0"
    assert settings.inside.networks == (network_from_text("192.168.1.0/24"),)
    assert settings.media.ports == (30000, 39999)
    assert settings.gateway.pbx == "none"
    assert not settings.trunks
    for line in text.splitlines():
        assert not line or line.startswith(("[", "#")) or "  # " in line, line
        assert len(line) <= 130


def test_the_pool_is_outside_of_linux_own_ports(tmp_path: Path) -> None:
    """With Linux's default ip_local_port_range another pool is taken, unless those ports are reserved."""
    files = {EPHEMERAL: "32768\t60999\n"}
    assert written(gateway(tmp_path, **files))[1].media.ports == (10000, 19999)
    files["proc__sys__net__ipv4__ip_local_reserved_ports"] = "30000-39999\n"
    assert written(gateway(tmp_path, **files))[1].media.ports == (30000, 39999)


def test_the_pool_evades_sockets(tmp_path: Path) -> None:
    """A pool in which a program listens is not taken."""
    host = gateway(tmp_path, **{UDP: HEAD + IN_THE_POOL})
    assert written(host)[1].media.ports == (10000, 19999)


def test_the_widest_gap_is_taken(tmp_path: Path) -> None:
    """Where neither usual pool is free, the widest gap is, from an even port to an odd one."""
    host = gateway(tmp_path, **{EPHEMERAL: "32768\t60999\n", UDP: HEAD + LISTENER})
    assert written(host)[1].media.ports == (61000, 65535)


def test_no_pool_at_all(tmp_path: Path) -> None:
    """Without any gap the command refuses, and names the sysctl."""
    host = gateway(tmp_path, **{EPHEMERAL: "1024\t65535\n"})
    with pytest.raises(ConfigError, match="narrow the sysctl"):
        look_around(host)


def test_a_pbx_here(tmp_path: Path) -> None:
    """A program that listens for SIP on this gateway makes pbx = "local", one on loopback does not."""
    assert written(gateway(tmp_path, **{UDP: HEAD + LISTENER}))[1].gateway.pbx == "local"
    assert written(gateway(tmp_path, **{UDP: HEAD + LOOPBACK}))[1].gateway.pbx == "none"


def test_a_forward_to_a_pbx(tmp_path: Path) -> None:
    """A forward of 5060 to an inside host suggests [inside] pbx and a trunk, both switched off; without the #
    they are good settings."""
    host = gateway(tmp_path, firewall=FIREWALL.replace(
        "*nat\n", "*nat\n:PREROUTING ACCEPT [0:0]\n" + FORWARD))
    text, settings = written(host)
    assert not settings.trunks
    assert not settings.inside.pbx
    chosen = re.sub("^#(?! )", "", text, flags=re.MULTILINE)
    settings = config_from_text(chosen, "natfix.toml")
    assert settings.inside.pbx == ("192.168.1.5",)
    assert settings.trunks[0].inside == "192.168.1.5:5060"


SECOND = Route(network_from_text("0.0.0.0/0"), "wan1")
TWO_LINKS = Links({**LINKS.addresses, "wan1": ("198.51.100.1",)}, (*LINKS.routes, SECOND))


def test_several_default_routes(tmp_path: Path) -> None:
    """Two links that both lead outside are both written down, with marks; with --outside only that one is."""
    settings = written(gateway(tmp_path, links=TWO_LINKS))[1]
    assert (settings.outside.interface, settings.outside.mark) == ("wan0", 0x100)
    assert settings.links == (Link("wan1", mark=0x200),)
    settings = written(gateway(tmp_path, links=TWO_LINKS), "wan1")[1]
    assert (settings.outside.interface, settings.links) == ("wan1", ())


def test_default_routes_that_are_not_clear(tmp_path: Path) -> None:
    """Where one may be a VPN's, or a PBX here is served at one of them, --outside has to say which it is."""
    halves = tuple(Route(network_from_text(half), "tun0") for half in ("0.0.0.0/1", "128.0.0.0/1"))
    links = LINKS._replace(routes=(*LINKS.routes, *halves))
    with pytest.raises(ConfigError, match=r"2 interfaces.*natfix init --outside wan0, tun0"):
        look_around(gateway(tmp_path, links=links))
    with pytest.raises(ConfigError, match=r"served at one of them.*natfix init --outside wan0, wan1"):
        look_around(gateway(tmp_path, links=TWO_LINKS, **{UDP: HEAD + LISTENER}))


def test_no_default_route(tmp_path: Path) -> None:
    """Without a default route the links are named that could be meant."""
    with pytest.raises(ConfigError, match=r"no default route.*--outside wan0, lan0"):
        look_around(gateway(tmp_path, links=Links(LINKS.addresses, LINKS.routes[1:])))


def test_an_interface_that_is_not_there(tmp_path: Path) -> None:
    """A misspelt --outside is refused with the right name."""
    with pytest.raises(ConfigError, match=r'there is no interface "wan".*wan0'):
        look_around(gateway(tmp_path), "wan")


def test_nothing_inside(tmp_path: Path) -> None:
    """A host with one link is no gateway; the sentence says what to do."""
    links = Links({"wan0": ("203.0.113.1",)}, LINKS.routes[:2])
    with pytest.raises(ConfigError, match="no network lies inside"):
        look_around(gateway(tmp_path, links=links))


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    """An existing file is written over with force only, and then as a whole."""
    path = tmp_path / "etc" / "natfix.toml"
    write_configuration("version = 1\n", path)
    with pytest.raises(ConfigError, match="is there already"):
        write_configuration("", path)
    assert path.read_text() == "version = 1\n"
    write_configuration("[media]\n", path, force=True)
    assert path.read_text() == "[media]\n"
    assert [each.name for each in path.parent.iterdir()] == ["natfix.toml"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_what_natfix_would_refuse_is_not_written(tmp_path: Path) -> None:
    """Only a configuration that natfix reads without complaint gets to the disk."""
    with pytest.raises(ConfigError, match="nonsense"):
        write_configuration("nonsense = 1\n", tmp_path / "x.toml")
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is a file is an error with its reason, and a missing right has its own exit code."""
    (tmp_path / "file").write_text("")
    with pytest.raises(NatfixError, match="cannot be written"):
        write_configuration("version = 1\n", tmp_path / "file" / "natfix.toml")

    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("natfix.init.tempfile.mkstemp", refuse)
    with pytest.raises(NotPermitted, match="run this as root"):
        write_configuration("version = 1\n", tmp_path / "natfix.toml")
