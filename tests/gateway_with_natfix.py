"""A gateway with natfix on it, for tests of the daemon as a whole: sockets are the SIP endpoints.

The endpoints know just enough of SIP to place a call, to answer one, and to end it.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from natfix.control import request
from tests.kernel.wires import PHONE, REMOTE, Wires

PROGRAM = """
import sys
from dataclasses import replace
from natfix import live
from natfix.config import config_from_file
from natfix.errors import NatfixError
from natfix.findings import Host
from natfix.kernel.probe import probe
from natfix.quirks import Quirks
try:
    settings = config_from_file(sys.argv[1])
    sys.exit(live.run(settings, Quirks(), eval(sys.argv[2])))
except NatfixError as problem:
    print(f"natfix: {problem}", file=sys.stderr)
    sys.exit(problem.exit_code)
"""
SDP = "v=0\r\no=- 1 1 IN IP4 {0}\r\ns=-\r\nc=IN IP4 {0}\r\nt=0 0\r\nm=audio {1} RTP/AVP 0\r\n"
SIP = 5060
RTP = 4000
REMOTE_RTP = 20000


class Live:
    """A gateway with its operator's default-drop firewall, and natfix daemons on it."""

    def __init__(self, folder: Path) -> None:
        self.wires = Wires()
        self.wires.firewall()
        self.wires.gateway.run("sysctl -qw net.netfilter.nf_conntrack_acct=1")
        self.folder = folder
        self.control = str(folder / "control.sock")
        self.phone = self.wires.bind(PHONE, SIP)
        self.provider = self.wires.bind(REMOTE, SIP)
        self.daemons: list[subprocess.Popen[bytes]] = []

    def configuration(self, text: str = "") -> Path:
        file = self.folder / f"natfix{len(self.daemons)}.toml"
        file.write_text(text if "[daemon]" in text else f"""
            [daemon]
            control_socket = "{self.control}"
            state_file = "{self.folder}/state.sqlite"
            log_level = "debug"
            {'' if '[outside]' in text else '[outside]'}
            {'' if '[outside]' in text else 'interface = "outside"'}
            {text}""")
        return file

    def launch(
        self, text: str = "", host: str = "Host(settings)", **environment: str,
    ) -> subprocess.Popen[bytes]:
        """Start a daemon on the gateway without waiting for it."""
        command = [sys.executable, "-c", PROGRAM, str(self.configuration(text)), host]
        daemon = self.wires.gateway.call(lambda: subprocess.Popen(
            command, stderr=(self.folder / f"log{len(self.daemons)}").open("wb"),
            env={**os.environ, **environment}))
        self.daemons.append(daemon)
        return daemon

    def start(self, text: str = "", **environment: str) -> subprocess.Popen[bytes]:
        """Start a daemon and wait until it is ready."""
        daemon = self.launch(text, **environment)
        wait_until(lambda: "natfix: ready\n" in self.log() or daemon.poll() is not None)
        assert daemon.poll() is None, self.log()
        return daemon

    def log(self) -> str:
        return (self.folder / f"log{len(self.daemons) - 1}").read_text()

    def refusal(self, text: str = "", host: str = "Host(settings)") -> tuple[int, str]:
        """Start a daemon that must refuse; return its exit code and what it said."""
        code = self.launch(text, host).wait(10)
        return code, self.log()

    def ask(self, command: str, **more: Any) -> dict[str, Any]:
        return request(self.control, {"command": command, **more})

    def rules(self) -> str:
        """All rules of the gateway, without counters and elements' lifetimes."""
        return self.wires.gateway.run("nft -s list ruleset")

    def call_out(self) -> tuple[Dialog, tuple[str, int]]:
        """Place a call from the phone; return its dialog and where the provider was told to send RTP."""
        dialog = Dialog(self.phone, (PHONE, SIP), (REMOTE, SIP))
        dialog.send_request("INVITE", SDP.format(PHONE, RTP))
        offer, source = receive(self.provider)
        answer = answer_to(offer, "200 OK", f"<sip:bob@{REMOTE}:{SIP}>", SDP.format(REMOTE, REMOTE_RTP))
        self.provider.sendto(answer, source)
        dialog.take_answer(receive(self.phone)[0])
        dialog.send_request("ACK")
        receive(self.provider)
        return dialog, media_of(offer)

    def close(self) -> None:
        for daemon in self.daemons:
            if daemon.poll() is None:
                daemon.kill()
            daemon.wait(5)
        self.wires.close()


class Dialog:
    """One UA's side of a call: enough of RFC 3261 to place it and to end it."""

    serial = 0

    def __init__(self, own: socket.socket, source: tuple[str, int], peer: tuple[str, int]) -> None:
        Dialog.serial += 1
        self.own, self.source, self.peer = own, source, peer
        self.call_id = f"call-{Dialog.serial}@test"
        self.to_tag = ""
        self.target = f"sip:bob@{REMOTE}"
        self.cseq = 0

    def send_request(self, method: str, body: str = "", more: str = "") -> None:
        self.cseq += method != "ACK"
        tag = f";tag={self.to_tag}" if self.to_tag else ""
        host, port = self.source
        message = (
            f"{method} {self.target} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP {host}:{port};branch=z9hG4bK-{self.call_id}-{self.cseq}-{method};rport\r\n"
            f"Max-Forwards: 70\r\nFrom: <sip:alice@example.com>;tag=alice\r\n"
            f"To: <sip:bob@example.com>{tag}\r\nCall-ID: {self.call_id}\r\nCSeq: {self.cseq} {method}\r\n"
            f"Contact: <sip:alice@{host}:{port}>\r\n{more}"
            f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        )
        self.own.sendto(message.encode(), self.peer)

    def take_answer(self, message: str) -> None:
        self.to_tag = header(message, "To").partition(";tag=")[2]


def answer_to(message: str, status: str, contact: str = "", body: str = "", more: str = "") -> bytes:
    """Return a response, as the server whose own sent-by is not in it writes it."""
    tag = "" if ";tag=" in header(message, "To") else ";tag=server"
    lines = [f"SIP/2.0 {status}", f"Via: {header(message, 'Via')}", f"From: {header(message, 'From')}",
             f"To: {header(message, 'To')}{tag}", f"Call-ID: {header(message, 'Call-ID')}",
             f"CSeq: {header(message, 'CSeq')}"]
    lines += [f"Contact: {contact}"] if contact else []
    lines += [more] if more else []
    lines += ["Content-Type: application/sdp"] if body else []
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", body]).encode()


def header(message: str, name: str) -> str:
    found = re.search(rf"^{name}: (.*)\r$", message, re.MULTILINE)
    assert found, f"no {name} in {message}"
    return found[1]


def media_of(message: str) -> tuple[str, int]:
    """Return where an SDP wants audio."""
    found = re.search(r"^c=IN IP4 (\S+)\r$.*^m=audio (\d+)", message, re.MULTILINE | re.DOTALL)
    assert found, message
    return found[1], int(found[2])


def receive(at: socket.socket) -> tuple[str, tuple[str, int]]:
    data, source = at.recvfrom(65535)
    return data.decode(), source


def nothing_comes(at: socket.socket) -> bool:
    try:
        at.recv(65535)
    except TimeoutError:
        return True
    return False


def wait_until(condition: Callable[[], Any], timeout: float = 10.0) -> Any:
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)
    return value


class Rtp:
    """A stream of numbered datagrams in one direction, 50 a second, until told to end."""

    def __init__(self, sender: socket.socket, to: tuple[str, int], receiver: socket.socket) -> None:
        self.sent = 0
        self.received: list[int] = []
        self._sender, self._to, self._receiver = sender, to, receiver
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._send), threading.Thread(target=self._receive)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        while not self._ending.wait(0.02):
            self._sender.sendto(self.sent.to_bytes(4), self._to)
            self.sent += 1

    def _receive(self) -> None:
        while not self._ending.is_set():
            try:
                self.received.append(int.from_bytes(self._receiver.recv(100)))
            except TimeoutError:
                continue

    def end(self) -> list[int]:
        """Stop, and return the numbers that never came."""
        self._ending.set()
        for thread in self._threads:
            thread.join()
        return sorted(set(range(self.sent - 1)) - set(self.received))
