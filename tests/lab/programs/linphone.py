"""Linphone's console program (5.1): for what baresip 1.0.0 cannot do (attended transfer, ICE).

It is driven through its standard input; what it prints tells how calls go.
"""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab import tones
from tests.lab.host import LabError, Process, wait_until

if TYPE_CHECKING:
    from tests.lab.lab import Lab

TONE_SECONDS = 180
PROMPT = "linphonec> "
CONFIG = """[sip]
sip_port={udp_port}
sip_tcp_port={tcp_port}
sip_tls_port=0
guess_hostname=1
contact="{user}" <sip:{user}@{address}>
use_ipv6=0
register_only_when_network_is_up=0
media_encryption=none
[rtp]
audio_rtp_port={rtp_port}
[net]
dns_srv_enabled=0
firewall_policy={firewall}
[misc]
uuid=00000000-0000-0000-0000-{number:012}
[audio_codec_0]
mime=PCMU
rate=8000
channels=1
enabled=1
"""
# Only an account of the configuration has an outbound proxy; it registers by itself, at the start.
ACCOUNT = """[proxy_0]
reg_proxy=<sip:{server}>
reg_route=<sip:{server};lr>
reg_identity=sip:{user}@{registrar}
reg_expires=3600
reg_sendregister=1
[auth_info_0]
username={user}
passwd={password}
[sip]
default_proxy=0
"""


class Linphone:
    """One phone of user *user* on *host* that plays *tone* hertz; its RTP port is fixed.

    *registrar* (an address) is where :meth:`register` goes; with *server* ("address:port") as its outbound
    proxy it registers by itself, when it starts. *ice* offers candidates (RFC 8445). *transport* is how it
    speaks SIP ("udp", "tcp").
    """

    def __init__(self, host: str, user: str, *, registrar: str = "", password: str = "", tone: int = 440,
                 auto_answer: bool = True, sip_port: int = 5060, rtp_port: int = 7078,
                 ice: bool = False, server: str = "", transport: str = "udp") -> None:
        self.transport = transport
        self.host_name, self.user, self.registrar, self.password = host, user, registrar, password
        self.tone, self.auto_answer, self.sip_port, self.rtp_port = tone, auto_answer, sip_port, rtp_port
        self.ice, self.server = ice, server
        self.process: Process | None = None
        self.address = ""
        self.directory = Path()
        self.files: list[Path] = []

    @property
    def uri(self) -> str:
        """Its address of record."""
        own = self.address if self.sip_port == 5060 else f"{self.address}:{self.sip_port}"
        return f"sip:{self.user}@{self.registrar or own}"

    def start(self, lab: Lab) -> None:
        """Start it, with PCMU as its only codec and files in place of a sound card."""
        host = lab[self.host_name]
        self.address = host.address
        self.directory = lab.path(f"linphone-{self.host_name}-{self.user}")
        # Without its data folder it has no database, and without a database no sockets.
        (self.directory / ".local/share/linphone").mkdir(parents=True)
        (self.directory / ".config/linphone").mkdir(parents=True)
        configuration = self.directory / "rc"
        configuration.write_text(CONFIG.format(
            udp_port=self.sip_port if self.transport == "udp" else 0,
            tcp_port=self.sip_port if self.transport == "tcp" else 0,
            user=self.user, address=self.address, rtp_port=self.rtp_port,
            firewall="3" if self.ice else "0", number=len(lab.processes())) + self._account())
        tone = lab.path(f"tone-{self.tone}.wav")
        if not tone.exists():
            tones.write_tone(tone, self.tone, TONE_SECONDS)
        command = ["linphonec", "-c", str(configuration), "-d", "0", *(["-a"] if self.auto_answer else [])]
        self.process = host.popen(command, f"linphone-{self.user}", stdin=subprocess.PIPE, environment={
            "HOME": str(self.directory), "XDG_DATA_HOME": str(self.directory / ".local/share"),
            "XDG_CONFIG_HOME": str(self.directory / ".config"),
            # Or PulseAudio leaves a folder in /tmp.
            "PULSE_RUNTIME_PATH": str(self.directory)})
        self.process.wait_for(PROMPT)
        self._use_only_pcmu()
        self.command("soundcard use files")
        self.command(f"play {tone}")
        self.record()

    def register(self, timeout: float = 10.0) -> None:
        """Register at the registrar; raises LabError where that fails or takes *timeout* seconds."""
        if not self.server:
            way = "" if self.transport == "udp" else f";transport={self.transport}"
            self.command(f"register {self.uri} sip:{self.registrar}{way} {self.password}".rstrip())
        wait_until(lambda: "registered, identity=" in self.command("status register"), timeout,
                   f"the registration of linphone {self.user}", interval=0.2)

    def dial(self, target: str, timeout: float = 10.0) -> int:
        """Call *target*, wait until it is established (*timeout* 0: not), and return linphone's call id."""
        mark = self.mark()
        self.command(f"call {target}")
        call = int(self.wait_printed(r"assigned id (\d+)", mark, 5.0))
        if timeout:
            ended = self.wait_printed(rf"Call {call} with \S+ (connected|ended|error)", mark, timeout)
            if ended != "connected":
                raise LabError(f"{self.user} -> {target}: {self._printed(mark)[-300:]}")
        return call

    def wait_incoming(self, timeout: float = 10.0, since: int = 0) -> str:
        """Return who calls; *since* is a :meth:`mark`."""
        return self.wait_printed(r"Receiving new incoming call from (.*?), assigned", since, timeout)

    def answer(self) -> None:
        """Answer the ringing call."""
        self.command("answer")

    def hold(self) -> None:
        """Put the current call on hold."""
        self.command("pause")

    def resume(self, call: int) -> None:
        """Take call *call* back."""
        self.command(f"resume {call}")

    def transfer(self, call: int, target: str) -> None:
        """Transfer *call* to the SIP URI *target* (REFER, blind)."""
        self.command(f"transfer {call} {target}")

    def transfer_to_call(self, call: int, other: int) -> None:
        """Connect the parties of *call* and *other* (REFER with Replaces, attended: RFC 5589)."""
        self.command(f"transfer {call} --to-call {other}")

    def hang_up(self, call: int | None = None) -> None:
        """End *call*, or the current one."""
        self.command("terminate" if call is None else f"terminate {call}")

    def wait_closed(self, since: int = 0, timeout: float = 10.0) -> None:
        """Wait until a call has ended after *since*, a :meth:`mark`."""
        self.wait_printed(r"Call \d+ with \S+ (ended)", since, timeout)

    def record(self) -> Path:
        """Write what is heard from the next call on into a new file, and return it."""
        self.files.append(self.directory / f"heard-{len(self.files)}.wav")
        self.command(f"record {self.files[-1]}")
        return self.files[-1]

    def recordings(self) -> list[Path]:
        """Return the recordings that exist, oldest first; a new one starts with :meth:`record`."""
        return [path for path in self.files if path.exists()]

    def heard(self, expected: int, other: int | None = None, index: int = -1) -> tones.Heard:
        """Return what the recording *index* holds of tone *expected*, against its own tone or *other*."""
        recordings = self.recordings()
        recording = recordings[index] if -len(recordings) <= index < len(recordings) else None
        return tones.recognise(recording, expected, self.tone if other is None else other)

    def command(self, line: str) -> str:
        """Give it a line, and return what it printed until its next prompt."""
        assert self.process is not None
        assert self.process.popen.stdin is not None
        mark = self.mark()
        self.process.popen.stdin.write(f"{line}\n".encode())
        self.process.popen.stdin.flush()
        wait_until(lambda: PROMPT in self._printed(mark), 5.0, f"linphone's answer to {line!r}")
        return self._printed(mark)

    def mark(self) -> int:
        """Return a position in its output, for *since* arguments."""
        assert self.process is not None
        return len(self.process.output())

    def wait_printed(self, pattern: str, since: int = 0, timeout: float = 10.0) -> str:
        """Return the first group of *pattern* once it stands in the output after *since*."""
        def find() -> re.Match[str] | None:
            return re.search(pattern, self._printed(since))
        match = wait_until(find, timeout, f"{pattern!r} from linphone {self.user}")
        return str(match[1])

    def _printed(self, mark: int) -> str:
        assert self.process is not None
        return self.process.output()[mark:]

    def _account(self) -> str:
        return ACCOUNT.format(server=self.server, user=self.user, registrar=self.registrar,
                              password=self.password) if self.server else ""

    def _use_only_pcmu(self) -> None:
        listing = self.command("codec list")
        for _ in range(20):     # the list may come after the prompt
            if "PCMU" in listing:
                break
            time.sleep(0.05)
            listing = self.process.output() if self.process else ""
        match = re.search(r"(\d+): PCMU", listing)
        if match is None:
            raise LabError(f"linphone has no PCMU:\n{listing}")
        self.command("codec disable all")
        self.command(f"codec enable {match[1]}")
