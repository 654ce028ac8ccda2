"""Scripted ends of a call for the faults of pcaps/, and a box in the gateway that meddles with SIP."""

from __future__ import annotations

import contextlib
import itertools
import re
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from scapy.layers.inet import IP, UDP
from scapy.packet import Raw

from natfix.queue_reader import NetfilterQueueReader
from tests.lab.lab import Lab
from tests.lab.namespaces import call_in, socket_in
from tests.lab.topology import GATEWAY_ADDRESS

SIP = 5060
PACKETS = 60            # of RTP: surely audio
PACE = 0.02             # seconds between them
QUEUE = 7
_branches = itertools.count(1)


class Heard(NamedTuple):
    """A message that came, and from where."""

    text: str
    source: tuple[str, int]

    def header(self, name: str) -> str:
        """Return the value of the first header *name*; raises where there is none."""
        found = re.search(rf"(?im)^{name}: *(.*?)\r$", self.text)
        assert found, self.text
        return found[1]


class Ua:
    """One end: a socket on a host of the lab."""

    def __init__(self, lab: Lab, host: str, user: str, port: int = SIP) -> None:
        self.lab, self.host, self.user, self.port = lab, host, user, port
        self.address = lab[host].address
        self.socket = socket_in(lab[host].namespace)
        self.socket.bind((self.address, port))
        self.contact = f"<sip:{user}@{self.address}:{port}>"

    def send(self, message: str, to: tuple[str, int]) -> None:
        """Send one datagram."""
        self.socket.sendto(message.encode(), to)

    def hear(self, timeout: float = 3.0) -> Heard:
        """Return the next message that comes."""
        self.socket.settimeout(timeout)
        data, source = self.socket.recvfrom(65535)
        return Heard(data.decode(), source)

    def deaf(self, timeout: float = 0.3) -> None:
        """Take no notice of what comes."""
        with contextlib.suppress(TimeoutError):
            while True:
                self.hear(timeout)

    def request(self, method: str, uri: str, call_id: str, cseq: int = 1, *headers: str, sdp: str = "",
                to: str = "", tag: str = "a", contact: str = "", via: str = "") -> str:
        """Return a request of this UA; *via* is its sent-by and parameters."""
        via = via or f"{self.address}:{self.port};rport"
        if ";branch=" not in via:
            via += f";branch=z9hG4bK{next(_branches)}"
        lines = [f"{method} {uri} SIP/2.0", f"Via: SIP/2.0/UDP {via}", "Max-Forwards: 70",
                 f"From: <sip:{self.user}@example.com>;tag={tag}", f"To: {to or f'<{uri}>'}",
                 f"Call-ID: {call_id}", f"CSeq: {cseq} {method}"]
        if method not in ("BYE", "ACK"):
            lines.append(f"Contact: {contact or self.contact}")
        return _whole([*lines, *headers], sdp)

    def answer(self, heard: Heard, status: int, *headers: str, sdp: str = "", tag: str = "b",
               contact: str = "") -> str:
        """Return the response to a request, with received and rport where that was asked for."""
        via = heard.header("Via")
        via = re.sub(r";rport(?=;|$)", f";received={heard.source[0]};rport={heard.source[1]}", via, count=1)
        to = heard.header("To")
        method = heard.header("CSeq").split()[1]
        lines = [f"SIP/2.0 {status} {'OK' if status == 200 else 'Reason'}", f"Via: {via}",
                 *(f"Via: {each}" for each in re.findall(r"(?m)^Via: (.*?)\r$", heard.text)[1:]),
                 *(f"Record-Route: {each}"
                   for each in re.findall(r"(?m)^Record-Route: (.*?)\r$", heard.text)),
                 f"From: {heard.header('From')}", f"To: {to if ';tag=' in to else f'{to};tag={tag}'}",
                 f"Call-ID: {heard.header('Call-ID')}", f"CSeq: {heard.header('CSeq')}"]
        if method == "INVITE":
            lines.append(f"Contact: {contact or self.contact}")
        return _whole([*lines, *headers], sdp)

    def reply(self, status: int, *headers: str, sdp: str = "") -> Heard:
        """Answer the next request to where it came from, and return it."""
        heard = self.hear()
        self.send(self.answer(heard, status, *headers, sdp=sdp), heard.source)
        return heard

    def talk(self, port: int, to: tuple[str, int], packets: int = PACKETS, kind: int = 0) -> None:
        """Send RTP from *port*; *kind* 200 makes it RTCP."""
        with socket_in(self.lab[self.host].namespace) as media:
            media.bind((self.address, port))
            for number in range(packets):
                with contextlib.suppress(ConnectionError):
                    media.sendto(_rtp(port, number, kind), to)
                time.sleep(PACE)

    @contextmanager
    def listening(self, port: int) -> Iterator[socket.socket]:
        """Keep a port open, so that no ICMP error answers what comes."""
        with socket_in(self.lab[self.host].namespace) as media:
            media.bind((self.address, port))
            media.settimeout(3)
            yield media


def _rtp(port: int, number: int, kind: int) -> bytes:
    if kind:
        return struct.pack("!BBHIIIIII", 0x80, kind, 6, port, 0, 0, 0, number, number * 160)
    return struct.pack("!BBHII", 0x80, 0, number, number * 160, port) + bytes(160)


def _whole(lines: list[str], sdp: str) -> str:
    if sdp:
        lines = [*lines, "Content-Type: application/sdp"]
    return "\r\n".join([*lines, f"Content-Length: {len(sdp)}", "", sdp])


def audio(address: str, port: int = 4000, *more: str, family: str = "IP4", version: int = 1) -> str:
    """Return a session description with one audio stream."""
    lines = ["v=0", f"o=- 1 {version} IN {family} {address}", "s=-", f"c=IN {family} {address}", "t=0 0",
             f"m=audio {port} RTP/AVP 0", *more]
    return "".join(f"{line}\r\n" for line in lines)


def tagged(message: Heard, name: str = "To") -> str:
    """Return a header as later requests of the dialog repeat it."""
    return message.header(name)


def via_of(request: str) -> str:
    """Return sent-by and parameters of a request's Via, for the CANCEL and the ACK that belong to it."""
    return Heard(request, ("", 0)).header("Via").removeprefix("SIP/2.0/UDP ")


def register(phone: Ua, server: Ua, call_id: str = "registration", cseq: int = 1) -> tuple[str, int]:
    """Register, and return where the server sees the phone."""
    phone.send(phone.request("REGISTER", "sip:example.com", call_id, cseq, "Expires: 3600",
                             to=f"<sip:{phone.user}@example.com>"), (server.address, server.port))
    heard = server.hear()
    server.send(server.answer(heard, 200, f"Contact: {heard.header('Contact')};expires=3600"), heard.source)
    phone.deaf()
    return heard.source


# -- the box that meddles

Change = Callable[[str, bool, str], str]        # text, whether it goes out, the inside host -> text


@contextmanager
def meddler(lab: Lab, change: Change) -> Iterator[None]:
    """Have every SIP message over UDP that the gateway forwards changed by *change*."""
    reader = call_in(lab.gateway.namespace, lambda: NetfilterQueueReader(QUEUE))
    for end in ("--dport", "--sport"):      # iptables, since not every kernel has nft's queue statement
        lab.gateway.run(["iptables", "-t", "mangle", "-A", "FORWARD", "-p", "udp", end, str(SIP),
                         "-j", "NFQUEUE", "--queue-num", str(QUEUE)])
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            if select.select([reader.fileno()], [], [], 0.05)[0]:
                for packet in reader.read():
                    packet.accept(_changed(packet.raw, change))
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        reader.close()


def _changed(raw: bytes, change: Change) -> bytes | None:
    packet = IP(raw)
    before = bytes(packet[UDP].payload)
    is_out = packet.src.startswith("192.168.")
    after = change(before.decode(), is_out, packet.src if is_out else packet.dst).encode()
    if after == before:
        return None
    packet[UDP].remove_payload()
    packet = packet / Raw(after)
    del packet[IP].len, packet[IP].chksum, packet[UDP].len, packet[UDP].chksum
    return bytes(packet)


def translate(text: str, is_out: bool, inside: str) -> str:
    """What a simple ALG does, and right where the NAT keeps ports."""
    head, blank, body = text.partition("\r\n\r\n")
    if not is_out:
        return head.replace(GATEWAY_ADDRESS, inside) + blank + body
    return counted(head.replace(inside, GATEWAY_ADDRESS) + blank + body.replace(inside, GATEWAY_ADDRESS))


def counted(text: str) -> str:
    """Return a message with the right Content-Length."""
    head, blank, body = text.partition("\r\n\r\n")
    return re.sub(r"Content-Length: \d+", f"Content-Length: {len(body)}", head) + blank + body


def rules(lab: Lab, chains: str, table: str = "fault", family: str = "ip") -> None:
    """Load a table of the broken box into the gateway."""
    lab.gateway.run(["nft", "-f", "-"], input=f"table {family} {table} {{\n{chains}\n}}\n")


def short_memory(lab: Lab, seconds: int = 1) -> None:
    """Have the gateway forget idle UDP flows soon."""
    for name in ("udp_timeout", "udp_timeout_stream"):
        lab.gateway.run(["sysctl", "-qw", f"net.netfilter.nf_conntrack_{name}={seconds}"])


def random_ports(lab: Lab, *match: str) -> None:
    """Have the gateway give every flow to the outside (that is as *match* says) a random port."""
    rules(lab, "chain post { type nat hook postrouting priority srcnat - 1; "
               f'oifname "outside" {" ".join(match)} masquerade fully-random; }}', "random_ports")


def stream(lab: Lab, host: str) -> socket.socket:
    """Return a TCP socket of a host."""
    found = socket_in(lab[host].namespace, kind=socket.SOCK_STREAM)
    found.settimeout(3)
    return found
