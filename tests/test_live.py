"""The daemon as a whole, on a real kernel: calls, failures, the control socket, and refusals to start."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from natfix.control import stop
from natfix.errors import NotRunning
from natfix.kernel.netfilter import NetfilterKernel
from tests.gateway_with_natfix import (
    PROGRAM,
    REMOTE_RTP,
    RTP,
    SDP,
    SIP,
    Dialog,
    Live,
    Rtp,
    answer_to,
    header,
    media_of,
    nothing_comes,
    receive,
    wait_until,
)
from tests.kernel.wires import GATEWAY, PHONE, PHONE_2, REMOTE, STRANGER
from tests.namespace import kernel_test

pytestmark = kernel_test


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    live = Live(tmp_path)
    yield live
    live.close()


# -- calls --------------------------------------------------------------------------------------------


def test_call_out_and_its_end(live: Live) -> None:
    """INVITE, 200, ACK, RTP both ways from and to the advertised port, BYE: behind policy drop."""
    live.start()
    dialog, told = live.call_out()
    assert told == (GATEWAY, told[1])
    phone_rtp, remote_rtp = live.wires.bind(PHONE, RTP), live.wires.bind(REMOTE, REMOTE_RTP)
    remote_rtp.sendto(b"from outside", told)
    assert phone_rtp.recvfrom(100) == (b"from outside", (REMOTE, REMOTE_RTP))
    phone_rtp.sendto(b"from inside", (REMOTE, REMOTE_RTP))
    assert remote_rtp.recvfrom(100) == (b"from inside", told)
    call, = live.ask("calls")["calls"]
    assert call["state"] == "confirmed"
    audio, = [stream for stream in call["streams"] if stream["inside"] == f"{PHONE}:{RTP}"]
    assert (audio["packets_out"], audio["packets_in"]) == (1, 1)
    dialog.send_request("BYE")
    live.provider.sendto(answer_to(receive(live.provider)[0], "200 OK"), (GATEWAY, SIP))
    assert receive(live.phone)[0].startswith("SIP/2.0 200")
    wait_until(lambda: not live.ask("status")["media_mappings"], 5)
    remote_rtp.sendto(b"late", told)
    assert nothing_comes(phone_rtp)


def register(live: Live) -> tuple[str, int]:
    """Register the phone with digest; return where the registrar will send requests for it."""
    dialog = Dialog(live.phone, (PHONE, SIP), (REMOTE, SIP))
    dialog.target = "sip:example.com"
    dialog.send_request("REGISTER", more="Expires: 3600\r\n")
    asked, source = receive(live.provider)
    challenge = answer_to(asked, "401 Unauthorized", more='WWW-Authenticate: Digest realm="x", nonce="1"')
    live.provider.sendto(challenge, source)
    assert "401" in receive(live.phone)[0]
    credentials = 'Authorization: Digest username="a", uri="sip:example.com"\r\n'
    dialog.send_request("REGISTER", more=f"Expires: 3600\r\n{credentials}")
    asked, source = receive(live.provider)
    contact = header(asked, "Contact")
    assert contact == f"<sip:alice@{GATEWAY}:{source[1]}>"
    live.provider.sendto(answer_to(asked, "200 OK", f"{contact};expires=3600"), source)
    assert header(receive(live.phone)[0], "Contact") == f"<sip:alice@{PHONE}:{SIP}>;expires=3600"
    return source


def test_registered_phone_is_called_when_all_entries_are_gone(live: Live) -> None:
    """After REGISTER with digest, an INVITE comes in soon after conntrack has forgotten everything."""
    live.start()
    source = register(live)
    live.wires.gateway.run("conntrack -F")
    wait_until(lambda: live.wires.gateway.run(f"conntrack -L -p udp --sport {SIP} 2>/dev/null"), 2)
    incoming = Dialog(live.provider, (REMOTE, SIP), source)
    incoming.target = f"sip:alice@{GATEWAY}:{source[1]}"
    incoming.send_request("INVITE", SDP.format(REMOTE, REMOTE_RTP))
    arrived, _ = receive(live.phone)
    assert arrived.startswith(f"INVITE sip:alice@{PHONE}:{SIP} SIP/2.0")
    row, = live.ask("registrations")["registrations"]
    assert row["inside"] == f"{PHONE}:{SIP}"


def test_message_larger_than_any_packet(live: Live) -> None:
    """A message of 6,000 bytes, which comes in fragments, is fixed and leaves in fragments."""
    live.start()
    filler = "X-Filler: " + "x" * 980 + "\r\n"
    Dialog(live.phone, (PHONE, SIP), (REMOTE, SIP)).send_request("OPTIONS", more=6 * filler)
    arrived, _ = receive(live.provider)
    assert header(arrived, "Contact") == f"<sip:alice@{GATEWAY}:{SIP}>"
    assert arrived.count(filler) == 6


def test_checksums_are_right(live: Live) -> None:
    """A rewritten packet is accepted by a receiver that checks: its UDP checksum is there and right."""
    live.start()
    capture = live.wires.outside.call(
        lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x800)))
    capture.settimeout(2)
    Dialog(live.phone, (PHONE, SIP), (REMOTE, SIP)).send_request("OPTIONS")
    raw = capture.recv(65535)
    capture.close()
    assert GATEWAY.encode() in raw
    assert _sum16(raw[:20]) == 0xFFFF
    assert _sum16(raw[12:20] + b"\0\x11" + raw[24:26] + raw[20:]) == 0xFFFF
    assert raw[26:28] != b"\0\0"


def _sum16(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total = sum(int.from_bytes(data[at:at + 2]) for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


# -- failures -----------------------------------------------------------------------------------------


def test_a_firewall_that_restarts_with_natfix_in_mid_call(live: Live) -> None:
    """What `PartOf=nftables.service` does: natfix ends, all rules go and come, natfix starts: no RTP is lost.

    The maps are gone meanwhile: they are made anew from what the state file has.
    """
    daemon = live.start()
    dialog, told = live.call_out()
    phone_rtp, remote_rtp = live.wires.bind(PHONE, RTP), live.wires.bind(REMOTE, REMOTE_RTP)
    streams = [Rtp(remote_rtp, told, phone_rtp), Rtp(phone_rtp, (REMOTE, REMOTE_RTP), remote_rtp)]
    time.sleep(0.5)
    daemon.terminate()
    assert daemon.wait(10) == 0
    firewall = live.rules().partition("table ip natfix")[0]
    assert "policy drop" in firewall
    live.wires.gateway.run("nft -f -", given=f"flush ruleset\n{firewall}")
    live.start()
    time.sleep(0.5)
    assert [stream.end() for stream in streams] == [[], []]
    call, = live.ask("calls")["calls"]
    assert call["call_id"] == dialog.call_id
    assert f"{GATEWAY} . {told[1]}" in live.wires.gateway.run("nft list map ip natfix media_in")


def test_kill_and_restart_in_mid_call(live: Live) -> None:
    """kill -9 and a restart lose no RTP packet; then the call is still known, and its BYE is fixed."""
    daemon = live.start()
    dialog, told = live.call_out()
    phone_rtp, remote_rtp = live.wires.bind(PHONE, RTP), live.wires.bind(REMOTE, REMOTE_RTP)
    streams = [Rtp(remote_rtp, told, phone_rtp), Rtp(phone_rtp, (REMOTE, REMOTE_RTP), remote_rtp)]
    time.sleep(0.5)
    daemon.kill()
    daemon.wait()
    time.sleep(0.5)
    live.start()
    time.sleep(1.0)
    assert [stream.end() for stream in streams] == [[], []]
    call, = live.ask("calls")["calls"]
    assert call["call_id"] == dialog.call_id
    dialog.send_request("BYE")
    bye, source = receive(live.provider)
    assert PHONE not in bye
    live.provider.sendto(answer_to(bye, "200 OK"), source)
    assert header(receive(live.phone)[0], "Via").startswith(f"SIP/2.0/UDP {PHONE}:{SIP}")
    wait_until(lambda: not live.ask("status")["media_mappings"], 5)
    wait_until(lambda: not live.wires.gateway.run(f"conntrack -L -p udp --dport {REMOTE_RTP} 2>/dev/null"), 5)


def test_a_call_that_had_just_begun_outlives_a_crash(live: Live) -> None:
    """kill -9 within milliseconds of an INVITE, whose row no state file has yet: the answer is fixed all the
    same, and audio flows both ways."""
    daemon = live.start()
    source = register(live)
    incoming = Dialog(live.provider, (REMOTE, SIP), source)
    incoming.target = f"sip:alice@{GATEWAY}:{source[1]}"
    incoming.send_request("INVITE", SDP.format(REMOTE, REMOTE_RTP))
    invite, _ = receive(live.phone)
    daemon.kill()
    daemon.wait()
    live.start()
    live.phone.sendto(answer_to(invite, "200 OK", f"<sip:alice@{PHONE}:{SIP}>", SDP.format(PHONE, RTP)),
                      (REMOTE, SIP))
    answer, _ = receive(live.provider)
    assert PHONE not in answer
    phone_rtp, remote_rtp = live.wires.bind(PHONE, RTP), live.wires.bind(REMOTE, REMOTE_RTP)
    told = media_of(answer)
    remote_rtp.sendto(b"from outside", told)
    assert phone_rtp.recvfrom(100) == (b"from outside", (REMOTE, REMOTE_RTP))
    phone_rtp.sendto(b"from inside", (REMOTE, REMOTE_RTP))
    assert remote_rtp.recvfrom(100) == (b"from inside", told)


HUGE_BLOCKS = """
import ctypes
from natfix.live import keep_the_heap_whole
class Info(ctypes.Structure):       # struct mallinfo2
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split())]
library = ctypes.CDLL(None)
library.mallinfo2.restype = Info
keep_the_heap_whole()
before = library.mallinfo2().hblks
huge = [bytes(20_000) for _ in range(200)]
print(library.mallinfo2().hblks - before)
"""


def test_huge_blocks_leave_no_holes() -> None:
    """Blocks of 20 kB, as huge messages need, come from the system one by one, not out of the heap."""
    done = subprocess.run([sys.executable, "-c", HUGE_BLOCKS], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 100


def test_reboot_of_the_gateway(live: Live) -> None:
    """When the kernel has forgotten all, the state file brings a registration back: calls still come in."""
    daemon = live.start()
    source = register(live)
    time.sleep(0.2)
    daemon.kill()
    daemon.wait()
    live.wires.gateway.run("nft delete table ip natfix; conntrack -F")
    live.start()
    incoming = Dialog(live.provider, (REMOTE, SIP), source)
    incoming.target = f"sip:alice@{GATEWAY}:{source[1]}"
    incoming.send_request("INVITE", SDP.format(REMOTE, REMOTE_RTP))
    assert receive(live.phone)[0].startswith(f"INVITE sip:alice@{PHONE}:{SIP} SIP/2.0")


def test_sigterm_leaves_everything_in_place(live: Live) -> None:
    """SIGTERM ends with 0 and leaves rules and maps; the control socket goes."""
    daemon = live.start()
    live.call_out()
    before = live.rules()
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(5) == 0
    assert live.rules() == before
    assert str(GATEWAY) in before
    with pytest.raises(NotRunning):
        live.ask("ping")


def test_a_firewalls_restart_does_not_make_it_forget_what_was(live: Live) -> None:
    """With the table flushed while no natfix ran, the next one still knows that packets were not counted."""
    counts = "sysctl -n net.netfilter.nf_conntrack_acct"
    live.wires.gateway.run("sysctl -qw net.netfilter.nf_conntrack_acct=0")
    daemon = live.start()
    assert live.wires.gateway.run(counts) == "1\n"
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(5) == 0
    live.wires.gateway.run("nft flush ruleset")
    live.start()
    live.wires.gateway.call(lambda: NetfilterKernel().remove())
    assert live.wires.gateway.run(counts) == "0\n"


def test_stop_returns_when_the_next_can_start(live: Live) -> None:
    """After stop() a new daemon finds queue, socket and state file free at once."""
    for _ in range(3):
        daemon = live.start()
        assert stop(live.control)["pid"] == daemon.pid
        assert daemon.wait(2) == 0


def test_flushed_ruleset_comes_back(live: Live) -> None:
    """`nft flush ruleset` in mid-call: table and contents are back within a second, RTP goes on, and what
    left with an inside source is counted."""
    live.start()
    live.call_out()
    phone_rtp, remote_rtp = live.wires.bind(PHONE, RTP), live.wires.bind(REMOTE, REMOTE_RTP)
    capture = live.wires.outside.call(
        lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x800)))
    stream = Rtp(phone_rtp, (REMOTE, REMOTE_RTP), remote_rtp)
    time.sleep(0.3)
    before = live.wires.gateway.run("nft list table ip natfix")
    for _ in range(2):      # the second comes while restoring is rationed
        live.wires.gateway.run("nft flush ruleset")
        flushed = time.monotonic()
        wait_until(lambda: "natfix" in live.wires.gateway.run("nft list tables"), 2)
        assert time.monotonic() - flushed < 1.1
    wait_until(lambda: _elements(live.wires.gateway.run("nft list table ip natfix")) == _elements(before), 2)
    time.sleep(0.3)
    assert len(stream.end()) <= 60
    shell = live.ask("status")["shell"]
    assert shell["rules_restored"] == 2
    leaked = _count_from(capture, PHONE)
    assert leaked > 10
    assert abs(shell["leaked"] - leaked) <= 3


def _count_from(capture: socket.socket, host: str) -> int:
    """Return how many of the captured packets have *host* as their source."""
    capture.setblocking(False)
    count = 0
    while True:
        try:
            count += capture.recv(100)[12:16] == socket.inet_aton(host)
        except BlockingIOError:
            capture.close()
            return count


def _elements(listing: str) -> list[str]:
    """Endpoints in a listing; lifetimes left out."""
    return sorted(re.findall(r"\d+\.\d+\.\d+\.\d+ \. \d+", listing))


def test_foreign_rule_changes_are_not_ours(live: Live) -> None:
    """Rules that the operator adds cause no reinstallation."""
    live.start()
    live.wires.gateway.run("nft add table ip mine; nft add chain ip mine c; nft delete table ip mine")
    time.sleep(0.3)
    assert "rules_restored" not in live.ask("status")["shell"]


def test_new_outside_address(live: Live) -> None:
    """Another outside address is in the messages within two seconds."""
    live.start()
    live.call_out()
    live.wires.gateway.run("ip addr del 203.0.113.1/24 dev outside; ip addr add 203.0.113.7/24 dev outside")
    wait_until(lambda: live.ask("status")["outside_address"] == "203.0.113.7", 2)
    Dialog(live.phone, (PHONE, SIP), (REMOTE, SIP)).send_request("OPTIONS")
    arrived, source = receive(live.provider)
    assert source[0] == "203.0.113.7"
    assert "203.0.113.7" in header(arrived, "Contact")


def test_flow_from_before_is_adopted(live: Live) -> None:
    """A SIP flow that masquerade has NATed already keeps its outside port, and is fixed from now on."""
    other = live.wires.bind(PHONE_2, SIP)
    for own, host in ((live.phone, PHONE), (other, PHONE_2)):
        Dialog(own, (host, SIP), (REMOTE, SIP)).send_request("OPTIONS")
    ports = {PHONE: receive(live.provider)[1][1], PHONE_2: receive(live.provider)[1][1]}
    live.start()
    for own, host in ((live.phone, PHONE), (other, PHONE_2)):
        Dialog(own, (host, SIP), (REMOTE, SIP)).send_request("OPTIONS")
        arrived, source = receive(live.provider)
        assert source == (GATEWAY, ports[host])
        assert header(arrived, "Contact") == f"<sip:alice@{GATEWAY}:{ports[host]}>"


def test_stranger_is_not_let_in(live: Live) -> None:
    """RTP from an address that nobody named does not reach the phone, and is counted with the call."""
    live.start()
    _, told = live.call_out()
    phone_rtp, stranger = live.wires.bind(PHONE, RTP), live.wires.bind(STRANGER, 40000)
    for _ in range(3):
        stranger.sendto(b"injected", told)
    assert nothing_comes(phone_rtp)
    call, = live.ask("calls")["calls"]
    assert sum(stream["refused"] for stream in call["streams"]) == 3


# -- the control socket ---------------------------------------------------------------------------------


def test_control_commands(live: Live) -> None:
    """status, calls, registrations, notes and ping answer while calls run."""
    daemon = live.start()
    live.call_out()
    assert live.ask("ping")["pid"] == daemon.pid
    status = live.ask("status")
    assert (status["calls"], status["shell"]["packets"], status["queue"]["waiting"]) == (1, 3, 0)
    decisions = live.ask("notes")["decisions"]
    assert decisions[0]["summary"].startswith("INVITE")
    assert {note["rule"] for note in decisions[0]["notes"]} >= {"via", "contact", "sdp-connection"}
    assert len(live.ask("notes", count=1)["decisions"]) == 1
    assert live.ask("registrations")["registrations"] == []


RELOADED = (b"WATCHDOG=1", b"READY=1")


def test_ready_is_told_to_systemd(live: Live, tmp_path: Path) -> None:
    """READY=1, WATCHDOG=1 while the loop turns, and STOPPING=1 go to NOTIFY_SOCKET."""
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address)
        systemd.settimeout(5)
        daemon = live.start(NOTIFY_SOCKET=address, WATCHDOG_USEC="1000000")
        assert systemd.recv(100) == b"READY=1\nSTATUS=0 SIP packets, 0 changed, 0 dropped"
        assert systemd.recv(100) == b"WATCHDOG=1"
        daemon.send_signal(signal.SIGHUP)
        wait_until(lambda: "could be read again" in live.log())
        daemon.send_signal(signal.SIGINT)
        while (told := systemd.recv(100)) in RELOADED or told.startswith(b"RELOADING=1"):
            pass
        assert told == b"STOPPING=1"
        assert daemon.wait(5) == 0


# -- refusals: one sentence, the exit code, nothing half-installed -----------------------------------------


def test_second_daemon_is_refused(live: Live) -> None:
    """A second natfix on the same control socket ends with 75, and the first goes on."""
    live.start()
    code, said = live.refusal()
    assert code == 75
    assert "another natfix" in said
    live.call_out()


def test_occupied_queue_is_refused(live: Live) -> None:
    """A queue number that another natfix has ends with 75; neither rules nor its own files are left."""
    live.start()
    other = f"""
        [daemon]
        control_socket = "{live.folder}/other.sock"
        state_file = "{live.folder}/other.sqlite"
        [outside]
        interface = "outside"
        """
    before = live.rules()
    code, said = live.refusal(other)
    assert code == 75
    assert "NFQUEUE 5060" in said
    assert not (live.folder / "other.sock").exists()
    assert live.rules() == before
    live.call_out()


@pytest.mark.parametrize(("text", "host", "code", "sentence"), [
    ('[outside]\ninterface = "wan7"\n', "Host(settings)", 2, 'there is no interface "wan7"'),
    ("", "Host(settings, capabilities=lambda: replace(probe(), nfqueue=False, queue=False))", 5, "nft_queue"),
    ("", "Host(settings, capabilities=lambda: replace(probe(), library=False))", 5, "libnftables"),
])
def test_refusals_leave_nothing(live: Live, text: str, host: str, code: int, sentence: str) -> None:
    """What cannot work is one sentence and its exit code, and the machine is as before."""
    before = live.rules()
    ended, said = live.refusal(text, host)
    assert (ended, sentence in said) == (code, True), said
    assert "Traceback" not in said
    assert live.rules() == before
    assert not Path(live.control).exists()


def test_kernel_helper_is_found(live: Live) -> None:
    """A rule that attaches the kernel's SIP helper is found, and natfix does not start beside it."""
    live.wires.gateway.run("nft -f -", """
        table inet helpers {
            ct helper sip-5060 { type "sip" protocol udp; }
            chain pre {
                type filter hook prerouting priority filter;
                udp dport 5060 ct helper set "sip-5060"
            }
        }""")
    code, said = live.refusal()
    assert code == 5
    assert "remove it with `nft delete rule inet helpers pre handle" in said


def test_without_rights_is_refused(live: Live) -> None:
    """Without CAP_NET_ADMIN natfix ends with 4."""
    command = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin",
               sys.executable, "-c", PROGRAM, str(live.configuration()), "Host(settings)"]
    done = live.wires.gateway.call(
        lambda: subprocess.run(command, capture_output=True, text=True, check=False))
    assert done.returncode == 4, done.stderr
    assert "CAP_NET_ADMIN" in done.stderr
