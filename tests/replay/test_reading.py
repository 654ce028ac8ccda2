"""Pass 1: what can be read is read, whatever stands beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from natfix.replay import reading as module
from natfix.replay.model import IcmpError, LogLine, PacketId, Side, Sighting
from natfix.replay.reading import Input, NothingReadable, Reading, read_inputs
from natfix.replay.work import Work
from tests.replay.sip import PHONE, PROVIDER, request, sighting
from tests.replay.small import call

CALL = Path(__file__).parents[2] / "pcaps" / "call-natfix.pcapng"


def test_an_unreadable_input_does_not_stop_the_others(tmp_path: Path) -> None:
    """What is no capture is said to be none; the others are read, and name their packets' file."""
    other = tmp_path / "x.bin"
    other.write_bytes(bytes(range(256)))
    inputs = [Input(str(CALL), "call"), Input(str(other), "x"), Input(str(tmp_path / "absent"), "absent")]
    reading = read_inputs(inputs, Work())
    assert [file["name"] for file in reading.files] == [str(CALL)]
    assert sum("x.bin" in warning or "absent" in warning for warning in reading.warnings) == 2
    assert reading.sip == reading.files[0]["sip"] > 0
    assert reading.spools.keys() == {"call"}
    assert reading.streams


def test_nothing_readable(tmp_path: Path) -> None:
    """Where no input can be read, there is one sentence for each."""
    with pytest.raises(NothingReadable) as raised:
        read_inputs([Input(str(tmp_path / "a")), Input(str(tmp_path / "b"))], Work())
    assert len(str(raised.value).splitlines()) == 2
    assert raised.value.exit_code == 1


def test_an_interruption_keeps_what_was_read() -> None:
    """Ctrl-C ends the reading, also of inputs to come; what was read stays."""
    work = Work()
    work.stops = 1
    reading = read_inputs([Input(str(CALL), "one"), Input(str(CALL), "two")], work)
    assert reading.interrupted
    assert len(reading.files) == 1


def test_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIP goes to the spool; of other things, and of what is unreadable, so many are kept."""
    monkeypatch.setattr(module, "MOST_OF_EACH", 2)
    monkeypatch.setattr(module, "MOST_UNREADABLE", 2)
    reading = Reading()
    broken = sighting(request(), PHONE, PROVIDER)
    broken.message, broken.problem = None, "two CSeqs"
    error = IcmpError((PacketId(1),), 1.0, "", Side.UNKNOWN, "h", "port-unreachable", "udp", PHONE, PROVIDER)
    for item in [*call(), *[broken] * 3, *[error] * 3, *[LogLine(PacketId(1), 0.0, "text")] * 3]:
        reading.take(item)
    assert (reading.sip, len(reading.unreadable), len(reading.errors), len(reading.log)) == (8, 2, 2, 2)
    assert reading.ports == {5060: 4}
    reading.close()


def test_sightings_are_spooled_by_file() -> None:
    """Each input has a spool of its own, since each has its own clock."""
    reading = Reading()
    for file in ("lan", "wan", "lan"):
        item: Sighting = sighting(request(), PHONE, PROVIDER, file=file)
        reading.take(item)
    assert {name: spool.count for name, spool in reading.spools.items()} == {"lan": 2, "wan": 1}
