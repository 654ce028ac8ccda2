"""Quirks: which device gets which repair, what a rule file may say, and proof for each shipped rule."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from scapy.utils import RawPcapReader

from natfix.cli import main
from natfix.config import Settings, config_from_text
from natfix.engine import Engine
from natfix.errors import ConfigError
from natfix.quirks import (
    NO_REPAIRS,
    Quirk,
    Quirks,
    Repair,
    merged,
    quirks_from_file,
    quirks_from_text,
)
from tests.playbook import Delivery, World

ROOT = Path(__file__).parents[1]
SHIPPED = quirks_from_file(ROOT / "rules" / "quirks.toml")

RULE = '''
[[quirk]]
name = "acme-rport"
user_agent = "Acme Phone/1."
repairs = ["ignores-rport"]
capture = "acme.pcap"
'''


def test_a_rule_is_read() -> None:
    """A rule's four keys arrive as they stand."""
    assert quirks_from_text(RULE, "x") == (
        Quirk("acme-rport", "Acme Phone/1.", frozenset({Repair.IGNORES_RPORT}), "acme.pcap"),
    )


@pytest.mark.parametrize(("user_agent", "repairs"), [
    ("Acme Phone/1.0.7", {Repair.IGNORES_RPORT}),
    ("ACME PHONE/1.", {Repair.IGNORES_RPORT}),
    ("Acme Phone/2.0", set()),
    ("An Acme Phone/1.0", set()),
    ("", set()),
])
def test_prefix_in_any_case(user_agent: str, repairs: set[Repair]) -> None:
    """A device is known by how its User-Agent begins; case does not matter, a middle part does not fit."""
    assert quirks_from_text(RULE, "x").repairs_for(user_agent) == repairs


def test_no_quirks_no_repairs() -> None:
    """Without rules nobody is repaired."""
    assert Quirks().repairs_for("Acme Phone/1.0") == NO_REPAIRS


@pytest.mark.parametrize(("text", "fault"), [
    (RULE.replace("ignores-rport", "ignore-rport"), '5: repairs = ["ignore-rport"] in [[quirk]] has "ignore'),
    (RULE.replace("user_a", "usera"), '4: unknown key "useragent" in [[quirk]]; did you mean "user_agent"?'),
    (RULE.replace("[[quirk]]", "[[quirks]]"), '2: unknown table "quirks"; did you mean "quirk"?'),
    (RULE.replace("[[quirk]]", "[quirk]"), "2: quirk must be a table: write [[quirk]] on a line of its own"),
    (RULE.replace("[[quirk]]", ""), '3: unknown key "name" in the top level; it belongs in [[quirk]]'),
    (RULE.replace('name = "acme-rport"', ""), '2: [[quirk]] lacks "name"'),
    (RULE.replace("Acme Phone/1.", "A"), '4: user_agent = "A" in [[quirk]] must be how the device'),
    (RULE.replace("acme-rport", "Acme Rport"), '3: name = "Acme Rport" in [[quirk]] must be a name of a-z'),
    (RULE + RULE, '9: the name "acme-rport" is there already, above'),
    (RULE + 'agent_name = "a\\nb"\n', '7: agent_name = "a\\nb" in [[quirk]] must be a name of 1 to 64'),
    (RULE + 'agentname = "a"\n', '7: unknown key "agentname" in [[quirk]]; did you mean "agent_name"?'),
    (RULE + "[[quirk]", "7: not TOML:"),
])
def test_wrong_file_is_refused(text: str, fault: str) -> None:
    """A wrong rule file is refused with file, line, key and what was meant."""
    with pytest.raises(ConfigError) as caught:
        quirks_from_text(text, "quirks.toml")
    assert any(line.startswith("quirks.toml:") and fault in line for line in str(caught.value).splitlines())


def test_misspelt_repair_is_suggested() -> None:
    """The set of repairs is closed; a near miss is answered with the right word."""
    text = RULE.replace("ignores-rport", "ignore-rport")
    with pytest.raises(ConfigError, match=r'or "replies-to-via-port"; did you mean "ignores-rport"'):
        quirks_from_text(text, "quirks.toml")


def test_absent_file_is_refused() -> None:
    """A quirks file that natfix.toml names must be there."""
    with pytest.raises(ConfigError, match="there is no such quirks file"):
        quirks_from_file("/nowhere/q.toml")


@pytest.mark.parametrize("repair", Repair)
def test_each_repair_has_its_word(repair: Repair) -> None:
    """Every repair can be written in a file, and the head of the shipped one says what it does."""
    rule = quirks_from_text(RULE.replace("ignores-rport", repair.value), "x")
    assert rule.repairs_for("Acme Phone/1.0") == {repair}
    assert f'#     "{repair.value}" ' in (ROOT / "rules" / "quirks.toml").read_text()


def test_the_last_agent_name_counts() -> None:
    """Of several quirks that fit, the last one that has a name says it; nobody else gets one."""
    quirks = Quirks(Quirk(name, "Acme", frozenset(), agent_name=shown)
                    for name, shown in (("one", "One"), ("two", "Two"), ("three", "")))
    assert [quirks.agent_name_for(agent) for agent in ("acme 1", "Other")] == ["Two", ""]


def test_later_file_replaces_and_switches_off() -> None:
    """An operator's rule of the same name replaces the shipped one; without repairs it switches it off."""
    off = quirks_from_text(RULE.replace('["ignores-rport"]', "[]"), "x")
    assert merged(quirks_from_text(RULE, "y"), off).repairs_for("Acme Phone/1.0") == NO_REPAIRS


def test_several_rules_add_up() -> None:
    """A device that fits two rules gets the repairs of both."""
    wide = Quirk("wide", "Acme", frozenset())
    narrow = Quirk("narrow", "Acme Phone/1", frozenset({Repair.IGNORES_RPORT}))
    assert Quirks([wide, narrow]).repairs_for("Acme Phone/1.0") == {Repair.IGNORES_RPORT}


def test_settings_name_further_files() -> None:
    """natfix.toml lists further rule files; by default there are none."""
    assert Settings().quirks_files == ()
    assert config_from_text('quirks_files = ["/q.toml"]', "x").quirks_files == ("/q.toml",)


@pytest.mark.parametrize("quirk", SHIPPED, ids=lambda quirk: quirk.name)
def test_shipped_rule_has_its_proof(quirk: Quirk) -> None:
    """Every shipped rule names a capture, and in it the device shows the User-Agent that the rule expects."""
    agents = [agent for payload in _payloads(quirk.capture)
              for agent in re.findall(rb"(?im)^User-Agent:[ ]*([^\r]*)", payload)]
    assert agents
    assert all(SHIPPED.repairs_for(agent.decode()) >= quirk.repairs for agent in agents)


def test_rport_capture_shows_the_fault() -> None:
    """The phone repeats a request that was answered each time with received and rport in its Via."""
    payloads = _payloads("uip200-rport.pcap")
    requests, answers = payloads[::2], payloads[1::2]
    assert len(set(requests)) == 1
    assert len(requests) > 1
    assert all(b";received=" in answer and b";rport=" in answer for answer in answers)


def _payloads(capture: str) -> list[bytes]:
    """Return the UDP payloads of a capture of bare IPv4 packets."""
    with RawPcapReader(str(ROOT / "pcaps" / capture)) as reader:
        return [packet[28:] for packet, _ in reader]


@pytest.mark.parametrize(("user_agent", "is_repaired"), [("Uniden UIP200 SIP", True), ("Other/1.0", False)])
def test_the_repair_at_work(user_agent: str, is_repaired: bool) -> None:
    """The device of the shipped rule gets answers without received and rport; others get them as ever."""
    settings = World().settings
    world = World(settings, Engine(settings, SHIPPED))
    world.phone.user_agent = user_agent
    world.register(world.phone)
    arrived = [each.arrived or b"" for each in world.log if isinstance(each, Delivery)]
    vias = [line for message in arrived if message.startswith(b"SIP/2.0")
            for line in message.split(b"\r\n") if line.startswith(b"Via:")]
    assert vias
    assert all((b"rport=" in via or b"received=" in via) is not is_repaired for via in vias)


@pytest.mark.parametrize(("change", "fault"), [
    (("keeps-e", "keep-e"), ':4: repairs = ["keep-early-sdp"]|did you mean "keeps-early-sdp"?'),
    (("user_agent", "useragent"), ':3: unknown key "useragent" in [[quirk]]; did you mean "user_agent"?'),
])
def test_natfix_check_reads_own_quirks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: tuple[str, str], fault: str,
) -> None:
    """An operator's file that is right adds to the shipped one; a wrong one is refused by the command with
    file, line, key and suggestion, and the exit code of a configuration error."""
    settings, own = tmp_path / "natfix.toml", tmp_path / "own.toml"
    settings.write_text(f'quirks_files = ["{own}"]\n')
    right = '[[quirk]]\nname = "ata"\nuser_agent = "Cisco ATA 18"\nrepairs = ["keeps-early-sdp"]\n'
    own.write_text(right)
    assert main(["check", "--config", str(settings)]) != 2
    assert f"{settings}; {len(SHIPPED) + 1} quirks" in capsys.readouterr().out
    own.write_text(right.replace(*change))
    assert main(["check", "--config", str(settings)]) == 2
    said = capsys.readouterr().out
    assert all(part in said for part in f"{own}{fault}".split("|"))
