"""What `natfix explain CALL` prints: ladder, edits, kernel, audio in a sentence; harmless and cut."""

from __future__ import annotations

from typing import Any

import pytest

from natfix.explained import call_text
from tests.test_explaining import explained
from tests.test_seeing import Gateway

HOSTILE = "\x1b]0;owned\x07\x9b2J\r\n" + "x" * 10_000


@pytest.fixture
def answer() -> dict[str, Any]:
    """A call of the playbook that is up."""
    gateway = Gateway()
    call = gateway.world.call(gateway.world.phone, gateway.world.provider)
    return explained(gateway, call.caller.call_id)


def test_the_ladder(answer: dict[str, Any]) -> None:
    """Each message is an arrow in its direction, with its number and how much was changed."""
    lines = [line for line in call_text(answer).splitlines() if "|-" in line or "-|" in line]
    assert len(lines) == 5
    assert "1 |-- INVITE sip:bob@provider.example -" in lines[0]
    assert lines[0].endswith("edits")
    assert "3 |<- 180 Ringing -" in lines[2]
    assert lines[1].index("|<-") == lines[0].index("|--")


def test_edits_have_rule_and_rfc(answer: dict[str, Any]) -> None:
    """Before and after stand above each other, with the rule and why."""
    text = call_text(answer)
    assert "  - c=: 192.168.1.10\n  + c=: 203.0.113.1    sdp-connection (media is sent here; RFC 8866" in text


def test_the_kernels_side(answer: dict[str, Any]) -> None:
    """Elements as nft writes them, entries with conntrack's tokens; what is missing stands out."""
    text = call_text(answer)
    assert "ip natfix media_out { 192.168.1.10 . 12000 : 203.0.113.1 . 30000 expires " in text
    assert "conntrack src=192.168.1.10 dst=198.51.100.20 sport=12000 dport=40000 packets=0 " in text
    assert "MISSING" not in text
    answer["parties"][0]["entries"][0]["present"] = False
    answer["parties"][0]["elements"][0]["present"] = False
    assert call_text(answer).count("! MISSING") == 2


@pytest.mark.parametrize(("audio", "sentence"), [
    ({"state": "flows", "rate_out": 50.0, "rate_in": 49.6, "wanted": ["out", "in"]},
     "RTP flows both ways: 50/50 packets/s out/in"),
    ({"state": "held", "rate_out": 50.0, "rate_in": 0.0, "wanted": ["out"]},
     "on hold: both sides have agreed on audio from inside; 50/0"),
    ({"state": "held", "rate_out": 0.0, "rate_in": 0.0, "wanted": []}, "agreed on audio in no direction"),
    ({"state": "paused", "rate_out": 50.0, "rate_in": 0.0, "wanted": ["out", "in"]}, "RTP pauses"),
    ({"state": "uncounted"}, "the kernel counts no packets of it"),
    ({"state": "one-way", "rate_out": 50.0, "rate_in": 0.0, "wanted": ["out", "in"], "alarms": [
        {"direction": "in", "cause": "refused", "why": "150 packets came from elsewhere"}]},
     "ONE-WAY: 150 packets came from elsewhere"),
    ({"state": "one-way", "rate_out": 0.0, "rate_in": 50.0, "wanted": ["out", "in"], "alarms": [
        {"direction": "out", "cause": "nothing-arrives", "why": "w"}]},
     "ONE-WAY: w\n  now 0/50 packets/s out/in"),
])
def test_the_audio_in_a_sentence(answer: dict[str, Any], audio: dict[str, Any], sentence: str) -> None:
    """Each state of the audio is one plain sentence."""
    answer["parties"][0]["audio"] = audio
    assert sentence in call_text(answer)


def test_before_the_answer_and_after_the_end(answer: dict[str, Any]) -> None:
    """Where there is no audio to speak of, that is what is said."""
    party = answer["parties"][0]
    party.pop("audio", None)
    assert "not answered yet" in call_text(answer)
    party.update(state="ended", elements=[], entries=[])
    text = call_text(answer)
    assert "the call has ended" in text
    assert "nothing any more" in text


def test_hostile_text_is_harmless(answer: dict[str, Any]) -> None:
    """Escape sequences, line ends and 10 kB in every text of a stranger's: no line is long, none steers."""
    answer["call_id"] = HOSTILE
    for message in answer["messages"]:
        message["line"] = HOSTILE
        for note in message["notes"]:
            note.update(old=HOSTILE, new="y" + HOSTILE, reason=HOSTILE, header=HOSTILE)
    for event in answer["events"]:
        event["why"] = HOSTILE
    for line in call_text(answer).split("\n"):
        assert line.isprintable()
        assert len(line) < 500
