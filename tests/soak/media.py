"""RTP of many calls: each packet is counted where it is sent, and where it arrives."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import deque

from tests.lab import namespaces
from tests.lab.host import Host

AT_ONCE = 50            # sockets made in one go
FIRST_PORT = 10000      # even ports; nothing else on these hosts uses them
REST = 3.0              # seconds that an ended stream's socket still counts what is under way
PAYLOAD = b"\xff" * 20
Address = tuple[str, int]


class Stream:
    """One direction of a call's audio: who sends knows when, who receives which."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.sent: list[float] = []     # times of the event loop, by sequence number
        self.got: set[int] = set()

    def lost(self) -> list[float]:
        """Return when those packets were sent that never came."""
        return [at for number, at in enumerate(self.sent) if number not in self.got]


class Ports:
    """The RTP sockets of one host, used again the longest unused first."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.strays = 0                 # packets of other streams
        self._loop = asyncio.get_running_loop()
        self._free: deque[socket.socket] = deque()
        self._made = 0

    def take(self) -> socket.socket:
        """Return a bound socket."""
        if not self._free:
            self._make()
        return self._free.popleft()

    def give(self, used: socket.socket) -> None:
        """Take a socket back."""
        with contextlib.suppress(OSError):
            while used.recv(2048):
                pass                    # came after the end of its stream
        self._free.append(used)

    def close(self) -> None:
        """Close all that are not in use."""
        while self._free:
            self._free.pop().close()

    def _make(self) -> None:
        first = FIRST_PORT + 2 * self._made
        self._made += AT_ONCE
        self._free += namespaces.call_in(self.host.namespace, lambda: [
            self._bound(first + 2 * number) for number in range(AT_ONCE)])

    def _bound(self, port: int) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((self.host.address, port))
        made.setblocking(False)
        return made


class Audio:
    """One party's audio: it sends *interval* apart once told where to, and counts what comes."""

    def __init__(self, ports: Ports, interval: float, outgoing: Stream, incoming: Stream) -> None:
        self._ports, self._interval = ports, interval
        self._outgoing, self._incoming = outgoing, incoming
        self._loop = asyncio.get_running_loop()
        self._socket = ports.take()
        self._loop.add_reader(self._socket, self._receive)
        self._target: Address | None = None
        self._due: asyncio.TimerHandle | None = None

    @property
    def own(self) -> Address:
        """Where it wants to be sent to."""
        found: Address = self._socket.getsockname()
        return found

    def speak(self, target: Address) -> None:
        """Send to *target* from now on."""
        self._target = target
        if self._due is None:
            self._send()

    def pause(self) -> None:
        """Send nothing until :meth:`speak`."""
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def end(self) -> None:
        """Send no more; what is under way is still counted for a while."""
        self.pause()
        self._loop.call_later(REST, self._close)

    def _send(self) -> None:
        self._due = self._loop.call_later(self._interval, self._send)
        stream = self._outgoing
        number = len(stream.sent)
        head = struct.pack("!BBHII", 0x80, 0, number & 0xFFFF, number * 160, stream.number)
        stream.sent.append(self._loop.time())
        with contextlib.suppress(OSError):      # then it is lost, and counted as such
            self._socket.sendto(head + PAYLOAD, self._target or self.own)

    def _receive(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while True:
                packet = self._socket.recv(2048)
                sequence, number = struct.unpack_from("!2xH4xI", packet)
                if number == self._incoming.number:
                    self._incoming.got.add(sequence)
                else:
                    self._ports.strays += 1

    def _close(self) -> None:
        self._loop.remove_reader(self._socket)
        self._ports.give(self._socket)
