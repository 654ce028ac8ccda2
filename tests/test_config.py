"""The configuration: what is read, what is refused, and that the example file tells the truth."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from natfix.address import network_from_text
from natfix.config import (
    ARRAYS,
    TABLES,
    Media,
    Peer,
    Settings,
    Trunk,
    config_from_file,
    config_from_text,
    expectations,
    named_hosts,
    names_to_resolve,
    peer_hosts,
)
from natfix.errors import ConfigError

EXAMPLE = Path(__file__).parents[1] / "rules" / "natfix.toml.example"

FULL = '''
version = 1
quirks_files = ["/etc/natfix/quirks.toml"]
[inside]
networks = ["192.168.1.0/24"]
[outside]
interface = "eth0"
address = "203.0.113.9"
[media]
ports = [40000, 41000]
policy = "full"
[signalling]
ports = [5060, 5080]
mark = 0x80
[limits]
dialogs = 10
[daemon]
log_level = "debug"
[[peer]]
address = "198.51.100.7"
media = "never"
[[peer]]
address = "198.51.100.8"
[[trunk]]
inside = "192.168.1.5"
peers = ["198.51.100.7", "198.51.100.8"]
'''


def faults(text: str) -> list[str]:
    """Return the lines of the error that *text* ends in."""
    with pytest.raises(ConfigError) as caught:
        config_from_text(text, "natfix.toml")
    return str(caught.value).splitlines()


@pytest.mark.parametrize(("text", "complaint"), [
    ('[outside]\ninterface = "eth0"\n[[link]]\ninterface = "eth0"', "eth0 is another outside link's"),
    ('[outside]\nmark = 2\n[[link]]\ninterface = "eth1"\nmark = 2', "mark 2 is another outside link's"),
    ('[outside]\nadvertise = "198.51.100.9"\n[[link]]\ninterface = "eth1"', "is for one outside link"),
    ('[gateway]\npbx = "local"\n[[link]]\ninterface = "eth1"', "is served at one outside link"),
])
def test_links_that_cannot_be(text: str, complaint: str) -> None:
    """Several outside links differ in name and mark, and leave out what one link alone has."""
    assert any(complaint in fault for fault in faults(text))


def test_empty_text_is_the_defaults() -> None:
    """A gateway with one outside interface needs no settings at all."""
    assert config_from_text("", "natfix.toml") == Settings()


def test_everything_is_read() -> None:
    """Each kind of table and value arrives in the settings."""
    settings = config_from_text(FULL, "natfix.toml")
    assert settings.inside.networks == (network_from_text("192.168.1.0/24"),)
    assert (settings.outside.interface, settings.outside.address) == ("eth0", "203.0.113.9")
    assert settings.media == Media(ports=(40000, 41000), policy="full")
    assert settings.signalling.ports == (5060, 5080)
    assert settings.signalling.mark == 0x80
    assert settings.limits.dialogs == 10
    assert settings.daemon.log_level == "debug"
    assert settings.quirks_files == ("/etc/natfix/quirks.toml",)
    assert settings.peers == (Peer("198.51.100.7", "never"), Peer("198.51.100.8"))
    assert settings.trunks == (Trunk("192.168.1.5", ("198.51.100.7", "198.51.100.8")),)


@pytest.mark.parametrize(("text", "fault"), [
    ('[outside]\nextrenal = 1', '2: unknown key "extrenal" in [outside]; known are interface, address'),
    ('[outside]\nintreface = "x"', '2: unknown key "intreface" in [outside]; did you mean "interface"?'),
    ('[media]\nqueue = 1', '2: unknown key "queue" in [media]; it belongs in [signalling]'),
    ('[signalling]\nagent_name = " x"', '2: agent_name = " x" in [signalling] must be a name of 1 to 64'),
    ('quirk_files = []', '1: unknown key "quirk_files" in the top level; did you mean "quirks_files"?'),
    ('[inside]\nquirks_files = []', 'it belongs in the top level, above all tables'),
    ('[mdia]\n', '1: unknown table "mdia"; did you mean "media"?'),
    ('media = "auto"', '1: media must be a table: write [media] on a line of its own'),
    ('\n[peer]\naddress = "192.0.2.1"', '2: peer must be a table: write [[peer]] on a line of its own'),
    ('[[media]]', '1: media must be a table: write [media] on a line of its own'),
    ('[[peer]]\nmedia = "full"', '1: [[peer]] lacks "address": an IPv4 address or a full name'),
    ('[[trunk]]\ninside = "192.168.1.5"', '1: [[trunk]] lacks "peers"'),
    ('[media]\npolicy = "atuo"', 'did you mean "auto"?'),
    ('[media]\nsilence = 59', '2: silence = 59 in [media] must be a whole number of seconds from 60'),
    ('[media]\nsilence = "1h"', '2: silence = "1h" in [media] must be a whole number of seconds'),
    ('[media]\nports = [30000, 70000]', '2: ports = [30000, 70000] in [media] must be two UDP ports'),
    ('[media]\nports = [30001, 30002]', '2: 30001 to 30002 holds no even port with the odd one above it'),
    ('[far_end]\nkeep_open_longest = 20', '2: keep_open_longest is below keep_open_every'),
    ('[media]\nports = [25000, 31000]', '2: 20000 to 29999 overlaps [media] ports 25000 to 31000'),
    ('[signalling]\nports = [31000]', '2: SIP port 31000 lies in [media] ports 30000 to 39999'),
    ('[signalling]\nmark = 0x0300', '2: mark = 768 in [signalling] must be one single bit of 32'),
    ('[inside]\nnetworks = ["0.0.0.0/0"]', '2: 0.0.0.0/0 would make everybody inside'),
    ('[inside]\nnetworks = ["10.0.0.0/8"]\n[outside]\naddress = "10.0.0.1"',
     '4: 10.0.0.1 lies in one of the [inside] networks'),
    ('[inside]\nnetworks = ["10.0.0.0/8"]\n[[trunk]]\ninside = "192.168.1.5"\npeers = ["192.0.2.1"]',
     '4: 192.168.1.5 lies in none of the [inside] networks'),
    ('[[trunk]]\ninside = "10.0.0.5"\npeers = ["192.0.2.1"]\noutside_port = 30002',
     '4: 30002 lies in [media] ports 30000 to 39999; choose another'),
    ('[[domain]]\nname = "a.test"\nmedia = "full"\n[[domain]]\nname = "A.test"\nmedia = "auto"',
     '5: [[domain]] name a.test is there already, above'),
    ('[[domain]]\nname = "a.*.test"\nmedia = "full"', '2: name = "a.*.test" in [[domain]] must be a domain'),
    ('[[peer]]\naddress = "192.0.2.256"', '2: address = "192.0.2.256" in [[peer]] must be an IPv4 address'),
    ('[[peer]]\naddress = "localhost"', '2: address = "localhost" in [[peer]] must be an IPv4 address'),
    ('[[peer]]\naddress = "bad.test"\npolicy = "drop"',
     '3: bad.test cannot be dropped by its name, whose owner would choose whose packets that are'),
    ('[[peer]]\naddress = "a.test"\n[[peer]]\naddress = "A.test"',
     '4: [[peer]] address a.test is there already, above'),
    ("".join(f'[[domain]]\nname = "{number}.test"\n' for number in range(65)),
     '1: 65 names of peers and domains are to be resolved, 64 at most can be'),
    ('[daemon]\nnameservers = ["dns.test"]', '2: nameservers = ["dns.test"] in [daemon] has "dns.test"'),
    ('[[peer]]\naddress = "192.0.2.1"\n[[peer]]\naddress = "192.0.2.1"',
     '4: [[peer]] address 192.0.2.1 is there already, above'),
    ('[[trunk]]\ninside = "10.0.0.5"\npeers = ["192.0.2.1"]\n'
     '[[trunk]]\ninside = "10.0.0.5:5060"\npeers = ["192.0.2.2"]',
     '5: [[trunk]] inside 10.0.0.5:5060 is there already, above'),
    ('[[static]]\ninside = "10.0.0.5"\noutside = "192.0.2.1"\n'
     '[[static]]\ninside = "10.0.0.6"\noutside = "192.0.2.1"',
     '6: [[static]] outside 192.0.2.1 is there already, above'),
    ('[gateway]\npbx = "lokal"', 'did you mean "local"?'),
    ('[outside]\nadvertise = "stun.example.net"',
     '2: advertise = "stun.example.net" in [outside] must be an IPv4 address'),
    ('[daemon]\ncontrol_socket = "run/x"', '2: control_socket = "run/x" in [daemon] must be an absolute'),
    ('version = 2', '1: version = 2 must be a whole number that is 1'),
])
def test_fault_is_named(text: str, fault: str) -> None:
    """Each kind of mistake is one line with file, line and what is wrong, and no other."""
    (line,) = faults(text)
    assert line.startswith("natfix.toml:")
    assert fault in line


def test_all_faults_at_once() -> None:
    """An operator sees all mistakes of the file in one run, in its order."""
    lines = faults('[media]\npolicy = "x"\nports = 3\n[outside]\nfoo = 1\n[[peer]]\n')
    assert [line.split(":")[1] for line in lines] == ["2", "3", "5", "6"]


def test_every_setting_has_bounds() -> None:
    """No setting is read unchecked: each has an expectation, or is a table of its own."""
    for table in (*TABLES.values(), *(table for _, table in ARRAYS.values())):
        assert {each.name for each in fields(table)} == set(expectations(table))
    tables = {*TABLES, *(attribute for attribute, _ in ARRAYS.values())}
    assert {each.name for each in fields(Settings)} == set(expectations(Settings)) | tables


def test_every_default_is_in_bounds() -> None:
    """The defaults obey the rules that an operator's values obey."""
    for table in (Settings, *TABLES.values(), *(table for _, table in ARRAYS.values())):
        for each in fields(table):
            if each.name in expectations(table) and isinstance(each.default, (int, str, tuple)):
                default = list(each.default) if isinstance(each.default, tuple) else each.default
                assert expectations(table)[each.name].read(default) == each.default


def switched_on(text: str) -> str:
    """Return the example with every setting that is commented out taken as written."""
    return re.sub(r"(?m)^#(?=\[|[a-z_]+ = )", "", text)


def test_example_loads_as_it_is() -> None:
    """The example, copied unchanged, changes nothing."""
    assert config_from_file(EXAMPLE) == Settings()


def test_example_shows_every_setting_with_its_default() -> None:
    """Every key stands in the example, in its own table, with the default it really has."""
    data = tomllib.loads(switched_on(EXAMPLE.read_text()))
    settings = Settings()
    for name, table in TABLES.items():
        assert set(data.pop(name)) == set(expectations(table)), name
    for name, (_, table) in ARRAYS.items():
        assert set(data.pop(name)[0]) == set(expectations(table)), name
    assert set(data) == set(expectations(Settings))
    read = config_from_text(switched_on(EXAMPLE.read_text()), "example")
    for name in (*TABLES, *expectations(Settings)):
        assert getattr(read, name) == getattr(settings, name), name
    assert read.peers == (Peer("198.51.100.7"),)
    assert read.trunks == (Trunk("192.168.1.5:5060", ("198.51.100.7",)),)


def test_hosts_that_the_operator_names() -> None:
    """Peers, both ends of trunks and PBXs inside are known by name; nobody else is."""
    settings = config_from_text('''
        [inside]
        pbx = ["192.168.1.5"]
        [[peer]]
        address = "198.51.100.7"
        [[trunk]]
        inside = "192.168.1.6:5080"
        peers = ["198.51.100.8", "198.51.100.9"]
    ''', "natfix.toml")
    assert named_hosts(settings) == {
        "192.168.1.5", "192.168.1.6", "198.51.100.7", "198.51.100.8", "198.51.100.9"}
    assert named_hosts(Settings()) == frozenset()


def test_names_that_are_asked_for() -> None:
    """Those of peers and of domains that may talk; no wildcard, no address, none that is dropped."""
    settings = config_from_text('''
        [[peer]]
        address = "SIP.example.net"
        [[peer]]
        address = "198.51.100.7"
        [[domain]]
        name = "sip.example.net"
        [[domain]]
        name = "example.org"
        policy = "pass"
        [[domain]]
        name = "*.example.com"
        [[domain]]
        name = "198.51.100.8"
        [[domain]]
        name = "bad.test"
        policy = "drop"
    ''', "natfix.toml")
    assert names_to_resolve(settings) == {"sip.example.net": True, "example.org": False}
    assert peer_hosts(settings) == {"198.51.100.7"}
