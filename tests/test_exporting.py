"""Copies for others: HEPv3 and JSON, levels, what is dropped; sngrep reads them."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from natfix.commands import Note, Outcome
from natfix.config import Export
from natfix.errors import NatfixError
from natfix.exporting import WAITING, Exporter
from natfix.journal import Decision
from tests.playbook import Delivery, World
from tests.test_hep import chunks


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A UDP socket on loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.bind(("127.0.0.1", 0))
        ear.settimeout(5.0)
        yield ear


def address(ear: socket.socket) -> str:
    """Return what a setting says of *ear*."""
    host, port = ear.getsockname()
    return f"{host}:{port}"


def decisions(world: World) -> list[Decision]:
    """Return what a daemon's journal would have been told."""
    return [Decision(entry.at, "forward lan0 wan0", entry.outcome, dropped=False)
            for entry in world.log if isinstance(entry, Delivery)]


@pytest.fixture(scope="module")
def made() -> list[Decision]:
    """A registration with credentials."""
    world = World()
    world.register(world.phone)
    return decisions(world)


def test_each_message_is_seen_before_and_after(made: list[Decision], listener: socket.socket) -> None:
    """Two HEP copies of each message, as captures inside and outside would show it, correlated by Call-ID."""
    exporter = Exporter(Export(hep=address(listener)))
    exporter.offer(made[0])
    before, after = (chunks(listener.recv(65535)) for _ in range(2))
    exporter.close()
    assert before[3] == bytes((192, 168, 1, 10))
    assert after[3] == bytes((203, 0, 113, 1))
    assert b"192.168.1.10" in before[0x0F]
    assert b"192.168.1.10" not in after[0x0F]
    assert before[0x11] == after[0x11] == made[0].outcome.call_id.encode()


def test_credentials_do_not_get_out(made: list[Decision], listener: socket.socket) -> None:
    """What a phone proves itself with is crossed out in every copy."""
    with_credentials = [each for each in made
                        if any(b"response=" in treated.octets for treated in each.outcome.treated)]
    assert with_credentials
    exporter = Exporter(Export(hep=address(listener), json=address(listener)))
    for each in with_credentials:
        exporter.offer(each)
    exporter.close()
    for _ in range(3 * len(with_credentials)):
        assert b"response=" not in listener.recv(65535)


def test_a_line_of_json_for_each_message(made: list[Decision], listener: socket.socket) -> None:
    """It says what was changed and why; with level "short" only which rules did."""
    exporter = Exporter(Export(json=address(listener)))
    exporter.offer(made[0])
    full = json.loads(listener.recv(65535))
    exporter.set_level("short")
    exporter.offer(made[0])
    short = json.loads(listener.recv(65535))
    exporter.close()
    assert full["summary"].startswith("REGISTER sip:")
    assert {"rule", "header", "old", "new"} <= full["notes"][0].keys()
    assert "via" in short["notes"]


def test_one_call_may_have_a_level_of_its_own(made: list[Decision], listener: socket.socket) -> None:
    """With everything off, the call that is looked into is exported."""
    exporter = Exporter(Export(json=address(listener), level="off"))
    other = Decision(1.0, "", Outcome(summary="OPTIONS sip:x", call_id="other", notes=[Note("x")]), False)
    exporter.offer(other)
    exporter.set_level("full", made[0].outcome.call_id)
    exporter.offer(made[0])
    assert json.loads(listener.recv(65535))["call_id"] == made[0].outcome.call_id
    exporter.close()
    assert exporter.counters["sent"] == 1


def test_what_the_thread_cannot_keep_up_with_is_dropped_and_counted(made: list[Decision]) -> None:
    """The loop never waits: a queue that is full takes nothing more."""
    exporter = Exporter(Export(json="127.0.0.1:9"))
    exporter.close()
    for _ in range(WAITING + 5):
        exporter.offer(made[0])
    assert exporter.counters["dropped"] == 5


def test_nobody_listening_is_no_error(made: list[Decision]) -> None:
    """A collector that is not there costs nothing but a counter."""
    exporter = Exporter(Export(json="127.0.0.1:9"))
    for each in made:
        exporter.offer(each)
    exporter.close()
    assert exporter.counters["sent"] + exporter.counters["failed"] == len(made)


def test_where_nobody_is_named_nothing_is_done() -> None:
    """No listener on the journal, and `natfix export` says what is missing."""
    exporter = Exporter(Export())
    assert exporter.listeners() == []
    with pytest.raises(NatfixError, match="name a listener"):
        exporter.answer({"level": "full"})
    exporter.close()


def test_the_level_is_told_by_command(listener: socket.socket) -> None:
    """`natfix export LEVEL --call ID` is for that call; what is no level is refused."""
    exporter = Exporter(Export(json=address(listener)))
    assert exporter.answer({"level": "off", "call": "one"}) == {"level": "off"}
    assert (exporter.level_of("one"), exporter.level_of("two")) == ("off", "full")
    with pytest.raises(NatfixError, match="one of full, short, off"):
        exporter.answer({"level": "loud"})
    exporter.close()


@pytest.mark.skipif(shutil.which("sngrep") is None, reason="sngrep is not installed (tools/test installs it)")
def test_sngrep_reads_the_copies(made: list[Decision], listener: socket.socket, tmp_path: Path) -> None:
    """The listener that people use understands them: each message, both times, in its own capture."""
    where = address(listener)
    listener.close()
    capture = tmp_path / "copies.pcap"
    sngrep = subprocess.Popen(
        ["sngrep", "-F", "-N", "-q", "-L", f"udp:{where}", "-O", str(capture)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        exporter = Exporter(Export(hep=where))
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and (not capture.exists() or capture.stat().st_size < 1000):
            exporter.offer(made[0])
            time.sleep(0.3)
        exporter.close()
    finally:
        sngrep.terminate()
        sngrep.wait(10)
    octets = capture.read_bytes()
    assert bytes((192, 168, 1, 10)) in octets
    assert bytes((203, 0, 113, 1)) in octets
    assert b"REGISTER sip:" in octets
