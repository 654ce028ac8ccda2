"""The engine on messages by others: RFC 4475 and 5118, test suites, fuzzers' seeds, captures, mailing lists.

Each is sent by an inside UA at the address that the message itself names, and then to that UA. What was
rewritten, and why the rest was not, is printed in the summary.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pytest

from natfix.address import UNUSABLE, Endpoint, contains, is_ipv4
from natfix.commands import Note, Verdict
from tests import corpus, judge
from tests.corpus import Item
from tests.datagram import Datagram, packet_bytes, read_packet
from tests.playbook import Delivery, World

LARGEST = 65000         # bytes; what one UDP datagram carries
DEFAULT = Endpoint("192.168.1.10", 5060)
OUTSIDE, PROVIDER = "203.0.113.1", "198.51.100.20"
NAMED = (
    rb"(?im)^(?:via|v)[ \t]*:\s*SIP\s*/\s*2\.0\s*/\s*\w+\s+(\d+\.\d+\.\d+\.\d+)(?:\s*:\s*(\d{1,5}))?",
    rb"(?im)^(?:contact|m)[ \t]*:[^\r\n]*sips?:(?:[^@\r\n>]*@)?(\d+\.\d+\.\d+\.\d+)(?::(\d{1,5}))?",
    rb"(?im)^c=IN IP4 (\d+\.\d+\.\d+\.\d+)(x?)",
)
FIELDS = ("sip.Method", "sip.Status-Code", "sip.r-uri", "sip.Via", "sip.From", "sip.To", "sip.Contact",
          "sip.Call-ID", "sip.CSeq", "sip.Record-Route", "sip.Route", "sip.Authorization", "sip.User-Agent",
          "sip.Content-Type", "sip.Expires", "sdp.owner", "sdp.connection_info", "sdp.media",
          "sdp.media_attr")
NOTED_AS = {"sip.r-uri": "request-uri", "sdp.owner": "o=", "sdp.connection_info": "c=", "sdp.media": "m=",
            "sdp.media_attr": "a="}

pytestmark = pytest.mark.skipif(not corpus.is_there(), reason=corpus.MISSING)


class Fate(NamedTuple):
    """What became of one message."""

    item: Item
    before: bytes
    after: bytes
    notes: list[Note]


def speaker_of(message: bytes) -> Endpoint:
    """Return the address that a message's UA gives itself, a phone's where it gives none of use."""
    for pattern in NAMED:
        for host, port in re.findall(pattern, message):
            number = int(port) if port.isdigit() else 5060
            is_useful = is_ipv4(host.decode()) and not contains(UNUSABLE, host.decode())
            if is_useful and 1024 <= number < 65536:
                return Endpoint(host.decode(), number)
    return DEFAULT


def world_around(own: Endpoint) -> tuple[World, Endpoint]:
    """Return a world whose inside network holds *own*, and a provider outside of it."""
    network = own.host.rpartition(".")[0]
    outside = "192.0.2.1" if OUTSIDE.startswith(network + ".") else OUTSIDE
    world = World(inside=(f"{network}.0/24",), outside_address=outside, dnat_accepted=True)
    world.kernel.own_addresses = {outside}      # the UA may be at the address that the gateway would have
    world.agents = []
    return world, Endpoint("192.0.2.20" if PROVIDER.startswith(network + ".") else PROVIDER, 5060)


def fates_of(item: Item) -> list[Fate]:
    """Send a message out and in, each twice, and check all that must hold for any message."""
    own = speaker_of(item.raw)
    world, provider = world_around(own)
    hello = world.transmit(own, provider, b"\r\n\r\n")
    assert hello.trace is not None
    fates = []
    for source, destination in ((own, provider), (provider, hello.trace.source)):
        delivery = world.transmit(source, destination, item.raw)
        after = checked(world, delivery)
        assert after == checked(world, world.transmit(source, destination, item.raw)), "not idempotent"
        fates.append(Fate(item, item.raw, after, delivery.notes))
        if source == own and is_rewritten(fates[-1]):
            assert_shown(own, item.raw, after, world)
            assert_restored(item.raw, after, world, provider, hello.trace.source)
    world.advance(4000.0)
    assert world.refusals == []
    return fates


def assert_shown(own: Endpoint, before: bytes, after: bytes, world: World) -> None:
    """Where a request names its sender, the topmost Via and the Contacts name the mapping instead."""
    if before.lstrip().startswith(b"SIP/"):
        return
    vias = re.findall(NAMED[0], after)
    assert not vias or vias[0][0] != own.host.encode(), world.story()
    for host, port in re.findall(NAMED[1], after):
        assert Endpoint(host.decode(), int(port or 5060)) != own, world.story()


def assert_restored(before: bytes, after: bytes, world: World, provider: Endpoint, shown: Endpoint) -> None:
    """The answer to what was shown is, for its UA, the answer to what it wrote."""
    if before.lstrip().startswith(b"SIP/") or b"\r\n\r\n" not in before or before[:1].isspace():
        return
    further = ("contact", "m", "path") if before.startswith(b"REGISTER") else ()
    back = world.transmit(provider, shown, judge.echo(after, further=further))
    assert checked(world, back) == judge.echo(before, further=further), world.story()


def checked(world: World, delivery: Delivery) -> bytes:
    """Return what left, if the notes are the whole truth about it."""
    outcome = delivery.outcome
    assert delivery.dropped == "", world.story()
    assert outcome.verdict is Verdict.ACCEPT
    after = read_packet(outcome.packet).payload if outcome.packet is not None else delivery.payload
    if not any(note.rule == "repeated" for note in outcome.notes):      # the first of them told it all
        assert judge.undone(delivery.payload, after, outcome.notes), world.story()
    return after


def is_rewritten(fate: Fate) -> bool:
    return fate.before != fate.after


def reason_of(fate: Fate) -> str:
    """Say what was done with a message, in a few words."""
    if is_rewritten(fate):
        return "rewritten"
    kept = [note for note in fate.notes if not note.is_edit]
    if not kept:
        return "nothing to do"
    return f"{kept[0].rule}: {kept[0].reason}"[:90]


class Summary:
    """Prints counts at the end of the run."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, title: str, fates: Iterable[Fate]) -> None:
        counts = Counter(map(reason_of, fates))
        self.lines.append(f"{title}: {counts.total() // 2} messages, each once out and once in")
        self.lines += [f"  {count:5} {reason}" for reason, count in counts.most_common(20)]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """A pytest hook: this object is registered as a plug-in."""
        terminalreporter.section("messages of others")
        for line in self.lines:
            terminalreporter.write_line(line)


@pytest.fixture(scope="module")
def summary(request: pytest.FixtureRequest) -> Summary:
    plugin = Summary()
    request.config.pluginmanager.register(plugin)
    return plugin


@pytest.fixture(scope="module")
def written(summary: Summary) -> list[Fate]:
    """Every message that stands in a file."""
    fates = [fate for item in corpus.messages() if len(item.raw) < LARGEST for fate in fates_of(item)]
    summary.add("files", fates)
    return fates


@pytest.fixture(scope="module")
def captured(summary: Summary) -> list[Fate]:
    """Every message of the captures, equal ones once."""
    items = {item.raw: item for item in corpus.captured()}
    fates = [fate for item in items.values() for fate in fates_of(item)]
    summary.add("captures", fates)
    return fates


def test_torture(summary: Summary) -> None:
    """RFC 4475 and 5118: each is rewritten with all notes, or passes; none is dropped, none raises."""
    fates = [fate for rfc in (4475, 5118) for item in corpus.torture(rfc) for fate in fates_of(item)]
    summary.add("RFC 4475 and RFC 5118", fates)
    assert len(fates) >= 2 * (49 + 6)
    assert sum(map(is_rewritten, fates)) >= 20


def test_files(written: list[Fate]) -> None:
    """Undoing the notes restores every byte; the messages are not left alone for convenience."""
    assert len(written) > 400
    assert sum(map(is_rewritten, written)) > 60


def test_captures(captured: list[Fate]) -> None:
    """The same for what was sent for real."""
    assert len(captured) > 400
    assert sum(map(is_rewritten, captured)) > 150


def test_an_independent_parser_agrees(written: list[Fate], captured: list[Fate]) -> None:
    """sipmessage reads what was rewritten as equal, but for the fields with a note."""
    read = 0
    for fate in filter(is_rewritten, (*written, *captured)):
        try:
            differences = judge.unexplained(fate.before, fate.after, fate.notes)
        except ValueError:
            continue        # it cannot read the original
        assert differences == [], fate.item.where
        read += 1
    assert read > 150


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_tshark_agrees(captured: list[Fate], tmp_path: Path) -> None:
    """tshark reads what was rewritten as equal, but for the fields with a note, and as well formed."""
    rewritten = list(filter(is_rewritten, captured))[:400]
    payloads = [payload for fate in rewritten for payload in (fate.before, fate.after)]
    rows = tshark(tmp_path / "pairs.pcap", payloads)
    assert len(rows) == len(payloads)
    for fate, before, after in zip(rewritten, rows[::2], rows[1::2], strict=True):
        noted = {note.header.lower()[:2] if note.header[1:2] == "=" else note.header.lower()
                 for note in fate.notes if note.is_edit}
        for name, first, second in zip((*FIELDS, "malformed"), before, after, strict=True):
            place = NOTED_AS.get(name, name.removeprefix("sip.").lower())
            assert first == second or place in noted, f"{fate.item.where}: {name}: {first} / {second}"


def tshark(path: Path, payloads: list[bytes]) -> list[list[str]]:
    """Return what tshark reads in each payload: FIELDS, and whether it calls the packet malformed."""
    path.write_bytes(capture_bytes(payloads))
    fields = [argument for name in (*FIELDS, "_ws.malformed") for argument in ("-e", name)]
    command = ["tshark", "-r", str(path), "-n", "-d", "udp.port==5060,sip", "-T", "fields", *fields,
               "-E", "separator=/t", "-E", "occurrence=a"]
    result = subprocess.run(command, capture_output=True, check=True, timeout=120)
    return [line.split("\t") for line in result.stdout.decode(errors="replace").rstrip("\n").split("\n")]


def capture_bytes(payloads: list[bytes]) -> bytes:
    """Return a pcap file (link type 101, raw IP) of UDP packets with *payloads*."""
    records = [struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 0x40000, 101)]
    for number, payload in enumerate(payloads):
        packet = packet_bytes(Datagram(DEFAULT, Endpoint(PROVIDER, 5060), payload))
        records.append(struct.pack("=IIII", number, 0, len(packet), len(packet)) + packet)
    return b"".join(records)
