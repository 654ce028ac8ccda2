"""What a capture is handed: both sides of each message, the past of its call; no packet waits for it."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from natfix import capturing
from natfix.address import Endpoint
from natfix.capturing import AT_ONCE, MOST_READERS, MOST_WAITING, PAUSE, Capturing
from natfix.chronicle import Chronicle
from natfix.commands import Note, Outcome, SendPacket, SendSegment, Verdict
from natfix.errors import Busy, NatfixError
from natfix.journal import Decision
from natfix.packet import datagram
from natfix.segment import datagram as segment_datagram
from tests.playbook import Delivery, World
from tests.standins import SKELETON

Row = Mapping[str, Any]
STRANGER = Endpoint("203.0.113.66", 5060)
INVITE = (b"INVITE sip:alice@192.168.1.10 SIP/2.0\r\nVia: SIP/2.0/UDP 203.0.113.66;branch=z9hG4bK1\r\n"
          b"Call-ID: scan\r\nCSeq: 1 INVITE\r\nFrom: <sip:x@y>;tag=1\r\nTo: <sip:z@y>\r\n\r\n")


class Capture:
    """One who captures; whether he takes what is pushed, the test says."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.is_slow = False

    def push(self, row: Row) -> bool:
        if not self.is_slow:
            self.rows.append(row)
        return not self.is_slow

    def messages(self) -> list[Row]:
        return [row for row in self.rows if row["event"] == "message"]


class Gateway:
    """A world whose decisions come to the capturing, and a schedule that is carried out on demand."""

    def __init__(self) -> None:
        self.world = World()
        self.chronicle = Chronicle()
        self.tasks: dict[Callable[[float], None], float] = {}
        loop = SimpleNamespace(skeleton=SKELETON, clock=lambda: self.world.now, engine=self.world.engine,
                               call_at=lambda when, task: self.tasks.__setitem__(task, when))
        self.capturing = Capturing(cast(Any, loop), self.chronicle)

    def play(self) -> None:
        self.chronicle.on_events(self.world.engine.pop_events())
        for entry in self.world.log:
            if isinstance(entry, Delivery):
                self.decide(Decision(entry.at, "forward lan0 wan0", entry.outcome, False))
        self.world.log.clear()

    def decide(self, decision: Decision) -> None:
        self.chronicle.on_decision(decision)
        self.capturing.on_decision(decision)

    def run_tasks(self) -> None:
        """Do what is due, and what follows from it, but nothing that has to wait."""
        while due := [task for task, when in self.tasks.items() if when <= self.world.now]:
            for task in due:
                del self.tasks[task]
                task(self.world.now)

    def capture(self, name: str = "a", **wanted: str) -> Capture:
        capture = Capture()
        self.capturing.add({"name": name, **wanted}, capture.push)
        self.run_tasks()
        return capture


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


def test_before_and_after(gateway: Gateway) -> None:
    """A message comes with both of its sides and its reasons; what was not changed is not sent twice."""
    capture = gateway.capture()
    gateway.world.call(gateway.world.phone, gateway.world.provider)
    gateway.play()
    gateway.run_tasks()
    invite = next(row for row in capture.messages() if row["summary"].startswith("INVITE"))
    assert invite["source"] == list(gateway.world.phone.endpoint[:2])
    assert invite["shown_source"][0] == "203.0.113.1"
    assert b"192.168.1.10" in b64decode(invite["octets"])
    assert b"192.168.1.10" not in b64decode(invite["shown_octets"])
    assert {"via", "contact", "sdp-media"} <= {note["rule"] for note in invite["notes"]}
    assert (invite["verdict"], invite["lost"]) == ("accept", 0)


def test_the_past_of_a_call(gateway: Gateway) -> None:
    """What was before is handed out first; of other calls nothing, and registrations take no room."""
    world = gateway.world
    world.register(world.phone)
    call, other = (world.call(phone, world.provider) for phone in (world.phone, world.other_phone))
    gateway.play()
    capture = gateway.capture(call=call.caller.call_id)
    assert capture.rows[0] == {
        "schema_version": 1, "event": "begin", "call_id": call.caller.call_id, "kept": 5, "not_kept": 0,
        "lost": 0}
    call.hang_up()
    other.hang_up()
    gateway.play()
    gateway.run_tasks()
    assert [row["summary"].split()[0] for row in capture.messages()] == [
        "INVITE", "100", "180", "200", "ACK", "BYE", "200"]


def test_the_past_is_bounded(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where calls have more octets than are kept, the oldest go, and a capture says how many are missing."""
    monkeypatch.setattr(capturing, "MOST_BYTES", 20000)
    calls = [gateway.world.call(gateway.world.phone, gateway.world.provider) for _ in range(4)]
    gateway.play()
    first, last = (gateway.capture(str(index), call=calls[index].caller.call_id).rows[0] for index in (0, -1))
    assert (first["kept"], first["not_kept"]) == (0, 5)
    assert (last["kept"], last["not_kept"]) == (5, 0)


def test_what_is_dropped(gateway: Gateway) -> None:
    """A packet that policy drops comes with its Call-ID, as a stranger sent it, and goes nowhere."""
    world = gateway.world
    world.register(world.phone)
    gateway.play()
    capture = gateway.capture(host=STRANGER.host)
    raw = datagram(STRANGER, world.phone.endpoint, INVITE)
    outcome = Outcome(verdict=Verdict.DROP, notes=[Note("stranger", reason="nobody knows him")])
    gateway.decide(Decision(world.now, "forward wan0 lan0", outcome, True, raw))
    gateway.run_tasks()
    row, = capture.messages()
    assert (row["verdict"], row["call_id"], row["destination"][0]) == ("drop", "scan", "203.0.113.1")
    assert "shown_source" not in row
    assert row["notes"] == [{"rule": "stranger", "reason": "nobody knows him"}]


def test_a_segment_that_was_not_treated(gateway: Gateway) -> None:
    """What follows from a segment is not known here: it has one side, and nobody says that it went on."""
    capture = gateway.capture()
    segment = segment_datagram(SendSegment(
        gateway.world.phone.endpoint, STRANGER, 1, 1, 16, 9, b"", INVITE))
    gateway.decide(Decision(gateway.world.now, "forward lan0 wan0", Outcome(notes=[Note("policy")]), False,
                            segment))
    gateway.run_tasks()
    row, = capture.messages()
    assert (row["verdict"], row["protocol"], row["call_id"]) == ("segment", 6, "scan")
    assert "shown_source" not in row


def test_what_natfix_sends_by_itself(gateway: Gateway) -> None:
    """The answer that natfix gives in somebody's place has one side only; what no SIP is is left out."""
    capture = gateway.capture()
    phone, provider = gateway.world.phone.endpoint, gateway.world.provider.endpoint
    own = [SendPacket(provider, phone, b"SIP/2.0 503 Service Unavailable\r\nCall-ID: x\r\n\r\n"),
           SendPacket(provider, phone, b"\0\0\0\0")]
    outcome = Outcome(verdict=Verdict.DROP, send=[*own], call_id="x", summary="INVITE sip:b@c")
    gateway.decide(Decision(gateway.world.now, "forward lan0 wan0", outcome, True,
                            datagram(phone, provider, INVITE)))
    gateway.run_tasks()
    assert [row["verdict"] for row in capture.messages()] == ["drop", "own"]
    assert capture.messages()[1]["shown_destination"] == list(phone[:2])
    assert "source" not in capture.messages()[1]


def test_a_slow_reader(gateway: Gateway) -> None:
    """Who does not take what comes costs a bounded queue: the rest is dropped, counted, and told once he
    reads; he is asked now and then only."""
    capture = gateway.capture()
    capture.is_slow = True
    raw = datagram(STRANGER, gateway.world.phone.endpoint, INVITE)
    decision = Decision(gateway.world.now, "forward wan0 lan0", Outcome(notes=[Note("x")]), True, raw)
    for _ in range(MOST_WAITING + 7):
        gateway.decide(decision)
    gateway.run_tasks()
    assert list(gateway.tasks.values()) == [gateway.world.now + PAUSE]
    capture.is_slow = False
    gateway.world.now += PAUSE
    gateway.run_tasks()
    assert len(capture.messages()) == MOST_WAITING > AT_ONCE
    assert capture.rows[-1]["lost"] == 7
    assert not gateway.tasks


def test_the_end_comes_last(gateway: Gateway) -> None:
    """Who asks for the end gets what waits, then a last word, then nothing."""
    capture = gateway.capture()
    raw = datagram(STRANGER, gateway.world.phone.endpoint, INVITE)
    decision = Decision(gateway.world.now, "forward wan0 lan0", Outcome(notes=[Note("x")]), True, raw)
    for _ in range(3):
        gateway.decide(decision)
    gateway.capturing.end({"name": "a"})
    gateway.capturing.end({"name": "a"})
    gateway.decide(decision)
    gateway.run_tasks()
    assert [row["event"] for row in capture.rows] == ["begin", *["message"] * 3, "end"]
    with pytest.raises(NatfixError, match="no such capture"):
        gateway.capturing.end({"name": "b"})


def test_few_at_once(gateway: Gateway) -> None:
    """A reader more than MOST_READERS has to wait until one has gone."""
    ends = [gateway.capturing.add({"name": str(number)}, Capture().push) for number in range(MOST_READERS)]
    with pytest.raises(Busy, match="captures run already"):
        gateway.capturing.add({"name": "more"}, Capture().push)
    ends[0]()
    gateway.capturing.add({"name": "more"}, Capture().push)
