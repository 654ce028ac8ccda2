"""Texts with nobody named in them: the same is the same, kinds stay, and words stay words."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natfix.redact_text import TextRedactor, without_comments


def redactor(*texts: str, key: bytes = b"1") -> TextRedactor:
    """Return one that has learnt *texts*."""
    made = TextRedactor(key)
    for text in texts:
        made.learn(text)
    return made


@pytest.mark.parametrize("text", [
    "INVITE sip:alice@acme.example SIP/2.0", "tel:+4930123456", "sip:+4930123456@192.168.7.9:5060;user=phone",
    '"Alice Example" <sip:x@y>', "call ab-alice@192.168.7.9", "src=192.168.7.9 dst=8.8.4.4",
    "natfix-192.168.7.9_8.8.4.4", "inet6 fe80::5054:ff:fe12:3456/64", "link/ether 52:54:00:12:34:56 brd",
    "[2a02:8108:1:2::7]:5060", "::ffff:192.168.7.9", "pbx.acme.example.", "sip:alice:geheim@x.acme.example"])
def test_nobody_is_named(text: str) -> None:
    """Users, numbers, display names, addresses of all kinds, domains, passwords."""
    shown = redactor(text).text(text)
    secrets = re.compile("(?i)alice|example|acme|4930123456|192.168.7.9|8.8.4.4|5054|3456|8108|geheim")
    assert secrets.search(shown) is None, shown


def test_a_name_is_found_elsewhere() -> None:
    """What one text shows to be a name is replaced in others by the same token, whatever it is joined to, in
    any case; parts of other words are no names."""
    made = redactor("sip:alice@gw-1.acme.example", "sip:+4930123456@b", "sip:100@b")
    made.know_host("pbxhost")
    token = made.text("sip:alice@b")[4:9]
    assert made.text("alice, Alice-phone: malice") == f"{token}, {token.capitalize()}-phone: malice"
    host = made.text("x@gw-1.acme.example")[2:]
    assert made.text("backup_gw-1.acme.example.log at gw-1.acme.example") == f"backup_{host}.log at {host}"
    assert "4930123456" not in made.text("4930123456 +4930123456 x4930123456 004930123456")
    assert "alice" not in made.text("a-" * 100 + "alice")
    assert made.text("port 100, 100 packets") == "port 100, 100 packets"
    assert "pbxhost" not in made.text("2026-11-21T10:00:00+0000 pbxhost natfix[1]: pbxhost.")


@pytest.mark.parametrize("text", [
    "natfix.toml at 14:53:12 2026-11-21T14:53:12Z", "net.ipv4.ip_forward = 1", "ct state established accept",
    "self.loop.run()", "10.0.0.0/8 192.168.0.0/16 127.0.0.1 0.0.0.0/0 ::1/128 ff02::1", "natfix.service",
    "link/loopback 00:00:00:00:00:00 brd 00:00:00:00:00:00", "getty@tty1.service", "2: eth0@if7: <UP>",
    "RFC 3261, section 18.1.1",
    "Asterisk PBX 18.4.0", "kernel 6.1.0-28-amd64", "sip:anonymous@anonymous.invalid"])
def test_what_names_nobody_stays(text: str) -> None:
    """Files, times, sysctls, rules, well-known networks, versions: nothing of that is anybody's."""
    assert redactor(text).text(text) == text


@pytest.mark.parametrize(("network", "hosts"), [
    ("192.168.7.0/24", ("192.168.7.9", "192.168.7.200")), ("198.18.0.0/16", ("198.18.3.4",)),
    ("2a02:8108:1:2::/64", ("2a02:8108:1:2::7", "2a02:8108:1:2:5054:ff:fe12:3456"))])
def test_networks_hold_their_hosts(network: str, hosts: tuple[str, ...]) -> None:
    """A network stays one, and who is in it stays in it."""
    made = redactor()
    shown = ip_network(made.text(network) if "." in network else made.text(network[:-3]) + network[-3:])
    assert all(ip_address(made.text(host)) in shown for host in hosts)
    assert made.text(hosts[0]) != hosts[0]


def test_json() -> None:
    """Texts in a document are replaced, keys of its schema and numbers are not; a key that is a host is."""
    made = redactor("sip:status@b")
    shown = made.json({"status": "status", "calls": [1, None, True], "203.0.113.9": {"a": "203.0.113.9"}})
    key, = (each for each in shown if each not in ("status", "calls"))
    assert shown == {"status": made.text("status"), "calls": [1, None, True], key: {"a": key}}
    assert key.startswith("203.0.113.")
    assert key != "203.0.113.9"


def test_a_host_with_a_files_name() -> None:
    """What stands where only a host can is one, whatever it ends in."""
    made = redactor("sip:x@pbx.acme.sh")
    made.know_host("acme.local")
    assert "acme" not in made.text("pbx.acme.sh, gw.acme.local") + made.text("sip:y@acme.py")


def test_special_keys() -> None:
    """A user that stands alone, a device that names its hardware address, a server's own words."""
    document = {"contact_user": "77", "user_agent": "Acme T4 805ec0123456", "line": "SIP/2.0 403 Sorry Alice",
                "why": "486 Busy says Alice", "last": "INVITE sip:eve@1.2.3.4 SIP/2.0"}
    shown = redactor(key=b"2").json(document)
    whole = str(shown)
    assert not [each for each in ("77", "805ec0123456", "Alice", "eve", "1.2.3.4") if each in whole]
    assert shown["line"].startswith("SIP/2.0 403 ")
    assert shown["why"].startswith("486 Busy ")
    assert shown["user_agent"].startswith("Acme T4 ")


def test_comments() -> None:
    """What people write beside a setting goes; a # in a text is none."""
    assert without_comments('a = "x#y"   # of Alice\n# Bob\nb = 1\n') == 'a = "x#y"\n\nb = 1\n'


def test_words() -> None:
    """Free text becomes unreadable as a whole, its shape stays."""
    shown = redactor().words('"Alice\'s phone 7"')
    assert re.fullmatch(r'"[A-Z][a-z]{4}\'[a-z] [a-z]{5} \d"', shown)
    assert "Alice" not in shown


@given(st.text(max_size=200))
@settings(max_examples=200, deadline=None)
def test_whatever_comes(text: str) -> None:
    """Any text is redacted without an exception, and alike each time."""
    made = redactor(text)
    assert made.text(text) == made.text(text)
