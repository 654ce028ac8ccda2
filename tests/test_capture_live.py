"""`natfix capture` on a real gateway: a call before and after natfix, as natfix-replay and others read it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.utils import PcapNgReader

from natfix.replay.reading import Input
from natfix.replay.replay import Options, run
from tests.gateway_with_natfix import SDP, SIP, Dialog, Live, answer_to, receive, wait_until
from tests.kernel.wires import GATEWAY, PHONE, REMOTE
from tests.namespace import kernel_test

pytestmark = kernel_test
CREDENTIALS = 'Authorization: Digest username="alice", realm="r", nonce="n0nce", response="s3cret"\r\n'


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    live = Live(tmp_path)
    live.start("[limits]\npackets_per_host = 0")
    yield live
    live.close()


class Capture:
    """A `natfix capture` that runs beside the test."""

    def __init__(self, live: Live, *options: str) -> None:
        self.path = live.folder / "call.pcapng"
        self._said = live.folder / "said"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "natfix", "--control-socket", live.control, "capture", "--write",
             str(self.path), *options], stderr=self._said.open("wb"))
        self.wait_for("goes to")

    def wait_for(self, text: str) -> None:
        """Wait until it has said that."""
        wait_until(lambda: text in self._said.read_text() or self.process.poll() is not None)

    def end(self) -> str:
        """End it as Ctrl-C does; return what it has said."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(20)
        return self._said.read_text()

    def packets(self) -> list[tuple[str, IP, str]]:
        """Return interface, packet and comment of each packet."""
        return [(str(packet.sniffed_on), packet, (packet.comment or b"").decode())
                for packet in PcapNgReader(str(self.path))]


def hang_up(live: Live, dialog: Dialog) -> None:
    dialog.send_request("BYE")
    live.provider.sendto(answer_to(receive(live.provider)[0], "200 OK"), (GATEWAY, SIP))
    receive(live.phone)


def call_with_credentials(live: Live) -> Dialog:
    """Place a call whose INVITE has secrets."""
    dialog = Dialog(live.phone, (PHONE, SIP), (REMOTE, SIP))
    keys = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:k3yk3yk3y\r\n"
    dialog.send_request("INVITE", SDP.format(PHONE, 4000) + keys, CREDENTIALS)
    offer, source = receive(live.provider)
    live.provider.sendto(
        answer_to(offer, "200 OK", f"<sip:bob@{REMOTE}:{SIP}>", SDP.format(REMOTE, 20000)), source)
    dialog.take_answer(receive(live.phone)[0])
    dialog.send_request("ACK")
    receive(live.provider)
    return dialog


def test_a_call_from_its_middle(live: Live) -> None:
    """What was before the capture and what comes then: each message on both sides of the NAT, whole, with
    right checksums, the reasons beside it, its secrets crossed out, and where its media is."""
    other, _ = live.call_out()
    hang_up(live, other)
    dialog = call_with_credentials(live)
    capture = Capture(live, "--call", dialog.call_id)
    capture.wait_for("tcpdump")
    hang_up(live, dialog)
    said = capture.end()
    assert capture.process.returncode == 0, said
    assert oct(capture.path.stat().st_mode & 0o777) == "0o600"
    packets = capture.packets()
    seen = [(side, packet[IP].src, packet[IP].dst, bytes(packet[UDP].payload).split(b" ")[0])
            for side, packet, _ in packets]
    assert seen[:4] == [
        ("before", PHONE, REMOTE, b"INVITE"), ("after", GATEWAY, REMOTE, b"INVITE"),
        ("before", REMOTE, GATEWAY, b"SIP/2.0"), ("after", REMOTE, PHONE, b"SIP/2.0")]
    assert [each[3] for each in seen[4::2]] == [b"ACK", b"BYE", b"SIP/2.0"]
    for _, packet, _ in packets:
        whole = bytes(packet)
        del packet[IP].chksum, packet[UDP].chksum
        assert bytes(IP(bytes(packet))) == whole
    assert all(dialog.call_id.encode() in bytes(packet) for _, packet, _ in packets)
    before, after = packets[0], packets[1]
    assert before[2].startswith("natfix: 6 edits (forward inside outside)\nmapping: "), before[2]
    assert f"- c=: {PHONE}\n+ c=: {GATEWAY}    sdp-connection (media is sent here; RFC 8866" in after[2]
    assert PHONE.encode() in bytes(before[1][UDP].payload)
    assert PHONE.encode() not in bytes(after[1][UDP].payload)
    whole = capture.path.read_bytes()
    assert not re.search(b"n0nce|s3cret|k3yk3y", whole)
    assert b'username="alice", realm="r"' in whole
    assert "3 messages of before are still there" in said
    assert "5 messages, each before and after" in said
    assert f"-w call-media.pcap 'udp and ((host {GATEWAY} and (port 30000 or port 30001)) or " in said


def test_natfix_replay_finds_the_call(live: Live) -> None:
    """natfix-replay takes the file for both sides of a NAT that works: one call, nothing wrong."""
    capture = Capture(live, "--all", "--secrets")
    dialog = call_with_credentials(live)
    hang_up(live, dialog)
    said = capture.end()
    assert capture.process.returncode == 0, said
    assert b"s3cret" in capture.path.read_bytes()
    result = run(Options((Input(str(capture.path)),)))
    assert [call.call_id for call in result.conversations] == [dialog.call_id]
    assert len(list(result.rows())) == 5        # before and after are one passage
    assert result.findings == []


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_tshark_reads_it(live: Live) -> None:
    """tshark sees a call, by its messages, with natfix's reasons as packet comments."""
    capture = Capture(live, "--all")
    hang_up(live, call_with_credentials(live))
    capture.end()
    lines = subprocess.run(
        ["tshark", "-r", str(capture.path), "-o", "udp.check_checksum:TRUE", "-T", "fields", "-e",
         "frame.interface_name", "-e", "sip.Method", "-e", "udp.checksum.status", "-e", "frame.comment"],
        capture_output=True, text=True, check=True).stdout.splitlines()
    first = lines[0].split("\t")
    assert first[:3] == ["before", "INVITE", "1"]
    assert first[3].startswith("natfix: 6 edits")


def test_for_a_number_of_messages(live: Live) -> None:
    """--count ends by itself with that many, --for after its time with what there was; both say so with 0."""
    capture = Capture(live, "--host", PHONE, "--count", "2")
    live.call_out()
    assert capture.process.wait(20) == 0
    assert len(capture.packets()) == 4
    capture.path.unlink()
    nothing = Capture(live, "--host", "10.9.9.9", "--for", "0.5")
    assert nothing.process.wait(20) == 0
    assert nothing.packets() == []


def test_the_daemon_ends(live: Live) -> None:
    """With the daemon the capture ends, with 3; what came until then is a whole file."""
    capture = Capture(live, "--all")
    live.call_out()
    wait_until(lambda: len(capture.packets()) == 6)
    live.daemons[-1].kill()
    assert capture.process.wait(20) == 3
    assert len(capture.packets()) == 6


def test_who_does_not_read_holds_nothing_up(live: Live) -> None:
    """A capture that hangs loses messages and says how many; all passes the gateway meanwhile, and the
    file is whole."""
    capture = Capture(live, "--all")
    dialog, _ = live.call_out()
    wait_until(lambda: capture.path.stat().st_size > 3000)
    capture.process.send_signal(signal.SIGSTOP)
    arrived = 0
    for _ in range(900):
        dialog.send_request("ACK", more=f"X-Long: {'x' * 900}\r\n")
        arrived += bool(receive(live.provider)[0])
    assert arrived == 900
    capture.process.send_signal(signal.SIGCONT)
    said = capture.end()
    found = re.search(r"(\d+) messages, each before and after; (\d+) were lost", said)
    assert found, said
    written, lost = map(int, found.groups())
    assert written + lost == 903
    assert lost > 0
    assert len(capture.packets()) == 2 * written


def test_into_a_pipe(live: Live) -> None:
    """`--write -` streams: who reads sees a message at once; when he goes, the capture ends with 1."""
    process = subprocess.Popen(
        [sys.executable, "-m", "natfix", "--control-socket", live.control, "capture", "--all", "--write",
         "-"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stderr.readline().startswith(b"natfix: every message goes to stdout")
    live.call_out()
    seen = b""
    while b"INVITE" not in seen:
        seen += os.read(process.stdout.fileno(), 65536)
    assert seen.startswith(b"\x0a\x0d\x0d\x0a")
    process.stdout.close()
    live.call_out()
    assert process.wait(20) == 1
