"""Baresip 1.0.0: a phone with a tone as its microphone and WAV files as its ear.

It is driven through its ctrl_tcp module (JSON in netstrings), which also reports events. The sndfile
filter writes what was decoded; no sound card, and none of the null devices, is involved.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.lab import namespaces, tones
from tests.lab.host import LabError, Process, wait_until

if TYPE_CHECKING:
    from tests.lab.lab import Lab

CONTROL_PORT = 4444     # of the first phone of a host; the next ones count up
TONE_SECONDS = 180
MODULES = ("g711", "aufile", "sndfile", "ctrl_tcp")
VIDEO_MODULES = ("fakevideo", "vp8")
CONFIG = """
sip_listen {address}:{sip_port}
net_interface {interface}
audio_player none,none
audio_alert none
audio_source aufile,{tone}
ausrc_srate 8000
auplay_srate 8000
ausrc_channels 1
auplay_channels 1
audio_level no
rtp_ports {first}-{last}
rtp_timeout 0
jitter_buffer_delay 0-1
call_max_calls 20
statmode_default off
ctrl_tcp_listen 127.0.0.1:{control_port}
snd_path {recordings}
module_path /usr/lib/baresip/modules
{modules}
module_app account.so
module_app contact.so
module_app menu.so
"""
VIDEO = "video_source fakevideo,nil\nvideo_display fakevideo,nil\nvideo_size 176x144\nvideo_fps 10\n"


class Baresip:
    """One phone of user *user* on *host*, that plays *tone* hertz into every call.

    *registrar* (an address) is where :meth:`register` goes and the domain of its address of record;
    without it the phone is ``sip:user@its-own-address``. *rtp_ports* is the range it picks even ports
    from: ``(10000, 10001)`` is one fixed port. *transport* ("udp", "tcp") is how it speaks SIP to its
    registrar. *account* is appended to the account line.
    """

    def __init__(self, host: str, user: str, *, registrar: str = "", password: str = "", tone: int = 440,
                 auto_answer: bool = True, sip_port: int = 5060, rtp_ports: tuple[int, int] = (10000, 10099),
                 video: bool = False, expires: int = 3600, account: str = "",
                 transport: str = "udp") -> None:
        self.transport = transport
        self.host_name, self.user, self.registrar, self.password = host, user, registrar, password
        self.tone, self.auto_answer, self.sip_port, self.rtp_ports = tone, auto_answer, sip_port, rtp_ports
        self.video, self.expires, self.account = video, expires, account
        self.events: list[dict[str, Any]] = []
        self.responses: list[dict[str, Any]] = []
        self.process: Process | None = None
        self.address, self.control_port = "", 0
        self.directory = Path()
        self._control: socket.socket | None = None

    @property
    def uri(self) -> str:
        """Its address of record."""
        own = self.address if self.sip_port == 5060 else f"{self.address}:{self.sip_port}"
        return f"sip:{self.user}@{self.registrar or own}"

    def start(self, lab: Lab) -> None:
        """Start it and connect to its control port; it does not register yet."""
        host = lab[self.host_name]
        self.address = host.address
        self.control_port = CONTROL_PORT + len(host.processes)
        self.directory = lab.path(f"baresip-{self.host_name}-{self.user}")
        self.recordings_path.mkdir(parents=True)
        tone = lab.path(f"tone-{self.tone}.wav")
        if not tone.exists():
            tones.write_tone(tone, self.tone, TONE_SECONDS)
        (self.directory / "config").write_text(self._config(host.interface, tone))
        (self.directory / "accounts").write_text("")
        (self.directory / "contacts").write_text("")
        self.process = host.popen(["baresip", "-f", str(self.directory)], f"baresip-{self.user}")
        self.process.wait_for("baresip is ready")
        self._connect(host.namespace)
        if not self.registrar:
            self.command("uanew", self._account(0))

    # -- registration ----------------------------------------------------------------------------------

    def register(self, timeout: float = 10.0) -> None:
        """Register at the registrar; raises LabError where it is refused or unanswered."""
        mark = len(self.events)
        self.command("uanew", self._account(self.expires))
        event = self.wait_event("REGISTER_OK", "REGISTER_FAIL", since=mark, timeout=timeout)
        if event["type"] == "REGISTER_FAIL":
            raise LabError(f"{self.user} could not register: {event.get('param')}")

    def unregister(self) -> None:
        """Send the un-REGISTER and forget the account."""
        self.command("uadel", self.uri)

    # -- calls -----------------------------------------------------------------------------------------

    def dial(self, target: str, timeout: float = 10.0) -> str:
        """Call the SIP URI *target*, wait until it is established, and return the Call-ID.

        Raises LabError where it is refused or unanswered; *timeout* 0 returns "" at once.
        """
        mark = len(self.events)
        self.command("dial", target)
        if not timeout:
            return ""
        event = self.wait_event("CALL_ESTABLISHED", "CALL_CLOSED", since=mark, timeout=timeout)
        if event["type"] == "CALL_CLOSED":
            raise LabError(f"{self.user} -> {target}: {event.get('param')}")
        return str(event["id"])

    def wait_incoming(self, timeout: float = 10.0, since: int = 0) -> dict[str, Any]:
        """Return the event of an incoming call, after event number *since*.

        A phone that answers by itself only reports that the call is established.
        """
        return self.wait_event("CALL_INCOMING", "CALL_ESTABLISHED", since=since, timeout=timeout)

    def wait_established(self, timeout: float = 10.0, since: int = 0) -> dict[str, Any]:
        """Return the event of an answered call, after event number *since*."""
        return self.wait_event("CALL_ESTABLISHED", since=since, timeout=timeout)

    def accept(self) -> None:
        """Answer the ringing call (for phones without *auto_answer*)."""
        self.command("accept")

    def hold(self) -> None:
        """Put the current call on hold (re-INVITE, a=sendonly)."""
        self.command("hold")

    def resume(self) -> None:
        """Take the current call back from hold (re-INVITE, a=sendrecv)."""
        self.command("resume")

    def transfer(self, target: str) -> None:
        """Transfer the current call to *target* (REFER, blind)."""
        self.command("transfer", target)

    def select(self, line: int) -> None:
        """Make call number *line* (1 is the oldest) the current one."""
        self.command("line", str(line))

    def hang_up(self) -> None:
        """End the current call, or refuse the ringing one."""
        self.command("hangup")

    def wait_closed(self, timeout: float = 10.0, since: int = 0) -> dict[str, Any]:
        """Return the event of a call that ended, after event number *since*."""
        return self.wait_event("CALL_CLOSED", since=since, timeout=timeout)

    # -- what it heard ---------------------------------------------------------------------------------

    @property
    def recordings_path(self) -> Path:
        return self.directory / "recordings"

    def recordings(self) -> list[Path]:
        """Return what it heard: one WAV file per call (per re-INVITE that restarts audio), oldest first.

        Names have whole seconds: two calls answered in the same second share one file.
        """
        return sorted(self.recordings_path.glob("*-dec.wav"), key=lambda path: path.name)

    def heard(self, expected: int, other: int | None = None, index: int = -1) -> tones.Heard:
        """Return what the recording *index* holds of tone *expected*, against its own tone or *other*."""
        recordings = self.recordings()
        recording = recordings[index] if -len(recordings) <= index < len(recordings) else None
        return tones.recognise(recording, expected, self.tone if other is None else other)

    # -- control ---------------------------------------------------------------------------------------

    def command(self, command: str, parameters: str = "") -> str:
        """Give baresip a command and return what it answered; raises LabError where it says no."""
        mark = len(self.responses)
        body = json.dumps({"command": command, "params": parameters, "token": str(mark)}).encode()
        assert self._control is not None
        self._control.sendall(b"%d:%s," % (len(body), body))
        wait_until(lambda: len(self.responses) > mark, 5.0, f"baresip's answer to {command!r}")
        answer = self.responses[mark]
        if not answer["ok"]:
            raise LabError(f"baresip {self.user}: {command} {parameters}: {answer['data'].strip()}")
        return re.sub(r"\x1b\[[0-9;]*m", "", str(answer["data"]))

    def wait_event(self, *types: str, since: int = 0, timeout: float = 10.0) -> dict[str, Any]:
        """Return the first event of one of *types* at or after position *since* of :attr:`events`."""
        def find() -> dict[str, Any] | None:
            return next((event for event in self.events[since:] if event["type"] in types), None)
        try:
            return dict(wait_until(find, timeout, " or ".join(types)))
        except LabError as problem:
            seen = [event["type"] for event in self.events[since:]]
            raise LabError(f"{self.user}: {problem} (events: {seen})") from None

    def _config(self, interface: str, tone: Path) -> str:
        modules = MODULES + (VIDEO_MODULES if self.video else ())
        text = CONFIG.format(
            address=self.address, sip_port=self.sip_port, interface=interface, tone=tone,
            control_port=self.control_port, first=self.rtp_ports[0], last=self.rtp_ports[1],
            recordings=self.recordings_path,
            modules="\n".join(f"module {name}.so" for name in modules))
        return text + (VIDEO if self.video else "")

    def _account(self, interval: int) -> str:
        way = "" if self.transport == "udp" else f";transport={self.transport}"
        line = f"<{self.uri}{way}>;regint={interval};answermode={'auto' if self.auto_answer else 'manual'}"
        if self.password:
            line += f";auth_user={self.user};auth_pass={self.password}"
        return line + (f";{self.account}" if self.account else "")

    def _connect(self, namespace: str) -> None:
        def connected() -> socket.socket | None:
            control = namespaces.socket_in(namespace, socket.AF_INET, socket.SOCK_STREAM)
            try:
                control.connect(("127.0.0.1", self.control_port))
            except ConnectionRefusedError:
                control.close()
                return None
            return control
        self._control = wait_until(connected, 5.0, "baresip's control port")
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._control is not None
        pending = b""
        while data := _receive(self._control):
            pending += data
            while match := re.match(rb"(\d{1,7}):", pending):
                end = match.end() + int(match[1])
                if len(pending) <= end:
                    break
                self._take(json.loads(pending[match.end():end]))
                pending = pending[end + 1:]
        self._control.close()

    def _take(self, message: dict[str, Any]) -> None:
        message["time"] = time.monotonic()
        (self.events if message.get("event") else self.responses).append(message)


def _receive(control: socket.socket) -> bytes:
    try:
        return control.recv(65536)
    except OSError:
        return b""
