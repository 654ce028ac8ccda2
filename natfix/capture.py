"""`natfix capture`: writes messages as they came and as they went on into a pcapng file.

RTP is not in it, since the kernel moves it: of a call the tcpdump line is printed that captures its media.
"""

from __future__ import annotations

import io
import os
import shlex
import signal
import sys
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from natfix.asking import call_named
from natfix.capture_packets import INTERFACES, Packets
from natfix.control import follow, request
from natfix.errors import DONE, ConfigError, NatfixError, NotRunning
from natfix.handing_over import new_file
from natfix.pcapng import RAW, PcapngWriter
from natfix.tables import printable

LONGEST = 604800.0          # seconds that --for takes
LAST_WORD = 3.0             # seconds in which the daemon has to hand out what it still has
ANSWERS = (b"SIP/2.0 2", b"ACK ")       # where media is agreed on (RFC 3264, section 4)
ENDS = (signal.SIGINT, signal.SIGTERM)

Answer = dict[str, Any]


class Wanted(NamedTuple):
    """What is to be captured, and for how long."""

    call: str = ""              # a Call-ID, a part of one, or a number in `natfix calls`; "": every message
    host: str = ""              # only what comes from or goes to this host
    everything: bool = False    # asked for as such
    seconds: float = 0.0        # 0: until Ctrl-C
    most: int = 0               # messages; 0: until Ctrl-C
    with_secrets: bool = False


class _Over(Exception):
    """The daemon has not had its last word in time."""


@dataclass
class _Run:
    """One capture, from its first message to its last."""

    socket_path: str
    wanted: Wanted
    name: str = field(default_factory=lambda: f"{os.getpid()}-{time.monotonic_ns()}")
    call_id: str = ""
    messages: int = 0
    lost: int = 0
    path: str = ""              # of the file
    media: str = ""             # tcpdump's filter for it
    is_ending: bool = False     # somebody or something says so
    ends_at: float = 0.0        # once the daemon was told
    began: float = field(default_factory=time.monotonic)

    def ask_for_end(self, *_signal: object) -> None:
        """Have the capture end when it next looks up, the second time at once; fit for a signal's handler."""
        if self.is_ending:
            raise KeyboardInterrupt
        self.is_ending = True

    def look_up(self) -> None:
        """Tell the daemon when it is time to end, and wait no longer for it than is sensible."""
        now = time.monotonic()
        if self.wanted.seconds and now >= self.began + self.wanted.seconds:
            self.is_ending = True
        if self.is_ending and not self.ends_at:
            self.ends_at = now + LAST_WORD
            request(self.socket_path, {"command": "capture-end", "name": self.name}, LAST_WORD)
        if self.ends_at and now > self.ends_at:
            raise _Over

    def rows(self) -> Iterator[Answer]:
        """Yield what the daemon says, its last word included; raises NotRunning where it just ends."""
        question = {"command": "capture", "call": self.call_id, "host": self.wanted.host, "name": self.name}
        try:
            for row in follow(self.socket_path, question, self.look_up):
                self.lost = row["lost"]
                yield row
                if row["event"] == "end":
                    return
        except _Over:
            return
        raise NotRunning("natfix has ended, and the capture with it; what came before is in the file")

    def learn_media(self) -> None:
        """Say how to capture the call's media as soon as it is known where that is."""
        with suppress(NatfixError):     # the call is forgotten, or natfix ends
            answer = request(self.socket_path, {"command": "explain", "call": self.call_id})
            self.media = media_filter(answer)
        if self.media:
            say(f"its media is not in it, natfix never sees it: {tcpdump_line(self.media, self.path)}")


def capture(socket_path: str, wanted: Wanted, target: str, force: bool = False) -> int:
    """Capture into the file *target* ("-": stdout, "": one named by the time); return the exit code.

    Ends on Ctrl-C, after the wanted time or number of messages, or with the daemon (NotRunning); the file is
    whole then. Raises NatfixError as :func:`natfix.control.request` does, ConfigError for what cannot be.
    """
    refuse_nonsense(wanted)
    run = _Run(socket_path, wanted)
    if wanted.call:
        named = call_named(socket_path, wanted.call)
        run.call_id = request(socket_path, {"command": "explain", "call": named})["call_id"]
    is_observer = request(socket_path, {"command": "status"}).get("mode") == "observe"
    path = run.path = target or time.strftime("natfix-%Y%m%d-%H%M%S.pcapng")
    if path == "-" and sys.stdout.isatty():
        raise ConfigError("packets are nothing for a terminal: --write FILE, or a pipe behind --write -")
    with _opened(path, force) as file, _caught_signals(run):
        if is_observer:
            say("it only observes: \"after\" is what it would let go")
        try:
            _write(run, file.fileno())
        finally:
            _say_what_came(run)
    return DONE


def refuse_nonsense(wanted: Wanted) -> None:
    """Raise ConfigError where nothing is wanted, and for numbers that nobody can mean."""
    if not (wanted.call or wanted.host or wanted.everything):
        raise ConfigError("say what is to be captured: --call CALL, --host ADDRESS, or --all")
    if wanted.call and wanted.everything:
        raise ConfigError("either --call or --all")
    if not 0.0 <= wanted.seconds <= LONGEST:
        raise ConfigError(f"--for takes 0 (until Ctrl-C) to {LONGEST:.0f} seconds")
    if wanted.most < 0:
        raise ConfigError("--count takes 0 (until Ctrl-C) or a number of messages")


@contextmanager
def _opened(path: str, force: bool) -> Iterator[BinaryIO]:
    if path == "-":
        yield sys.stdout.buffer
        return
    with new_file(Path(path), force, keep=True) as file:
        yield file


@contextmanager
def _caught_signals(run: _Run) -> Iterator[None]:
    """Have signals end the capture between two messages, so that the file is whole."""
    before = {number: signal.signal(number, run.ask_for_end) for number in ENDS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _write(run: _Run, handle: int) -> None:
    blocks = io.BytesIO()
    writer, packets = PcapngWriter(blocks, "natfix capture"), Packets(run.wanted.with_secrets)
    for name, description in INTERFACES:
        writer.add_interface(name, description, RAW)
    _write_whole(handle, blocks)
    for row in run.rows():
        if row["event"] == "begin":
            place = "stdout" if run.path == "-" else run.path
            say(f"{_what(run)} goes to {place}, {_until(run.wanted)}{_what_is_kept(row)}")
            if run.call_id:
                run.learn_media()
        if row["event"] != "message" or (run.wanted.most and run.messages >= run.wanted.most):
            continue
        for packet in packets.of(row):
            writer.add_packet(packet.interface, round(row["at"] * 1e6) * 1000, packet.data,
                              comment=packet.comment)
        _write_whole(handle, blocks)
        run.messages += 1
        if run.call_id and not run.media and b64decode(row.get("octets", "")[:16]).startswith(ANSWERS):
            run.learn_media()
        run.is_ending |= run.messages == run.wanted.most


def _write_whole(handle: int, blocks: io.BytesIO) -> None:
    """Move *blocks* into the file, all or, where the disk is full, none of them."""
    data = memoryview(blocks.getvalue())
    blocks.seek(0)
    blocks.truncate()
    written = 0
    try:
        while written < len(data):
            written += os.write(handle, data[written:])
    except OSError:
        with suppress(OSError):         # a pipe has no place to go back to
            os.ftruncate(handle, os.lseek(handle, -written, os.SEEK_CUR))
        raise


def _what(run: _Run) -> str:
    what = f"call {printable(run.call_id)}" if run.call_id else "every message"
    return f"{what} of host {run.wanted.host}" if run.wanted.host else what


def _until(wanted: Wanted) -> str:
    ends = ([f"for {wanted.seconds:g} s"] if wanted.seconds else []) + \
        ([f"for {wanted.most} messages"] if wanted.most else [])
    return " or ".join([*ends, "until Ctrl-C"])


def _what_is_kept(row: Answer) -> str:
    if not row["call_id"]:
        return ""
    missing = f", {row['not_kept']} earlier ones are forgotten" if row["not_kept"] else ""
    return f"; {row['kept']} messages of before are still there{missing}"


def _say_what_came(run: _Run) -> None:
    lost = f"; {run.lost} were lost, since nobody took them fast enough" if run.lost else ""
    say(f"{run.messages} messages, each before and after{lost}")
    if run.call_id and not run.media:
        say("where its media goes was not agreed on, or it does not cross natfix's ports")


def tcpdump_line(media: str, path: str) -> str:
    """Return the command that captures media, on all interfaces, beside the file *path*."""
    name = "media.pcap" if path == "-" else f"{Path(path).stem}-media.pcap"
    return f"tcpdump -ni any -w {shlex.quote(name)} '{media}'"


def media_filter(answer: Answer) -> str:
    """Return tcpdump's filter for the media of a call that `natfix explain` tells of; "" without any."""
    ports: dict[str, list[str]] = {}
    for party in answer["parties"]:
        for element in party["elements"]:
            if element["set"] != "media_in":
                continue
            for endpoint in (element["key"], element.get("value", "")):
                host, _, port = endpoint.partition(" . ")
                if port and port not in ports.setdefault(host, []):
                    ports[host].append(port)
    wanted = [f"(host {host} and ({' or '.join(f'port {port}' for port in found)}))"
              for host, found in ports.items() if found]
    return f"udp and ({' or '.join(wanted)})" if wanted else ""


def say(text: str) -> None:
    """Tell the operator; stdout may be the file."""
    print(f"natfix: {text}", file=sys.stderr, flush=True)
