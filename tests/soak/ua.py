"""A SIP endpoint for hundreds of calls: transactions with RFC 3261's timers, in one event loop.

It lives in a network namespace by its socket alone, so one program plays phones and providers.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import socket
from collections import Counter
from collections.abc import Callable

T1, T2 = 0.5, 4.0           # seconds; RFC 3261, section 17.1.1.1
TIMEOUT = 64 * T1           # of a transaction: Timers B, F, H
RING_TIMEOUT = 180.0        # seconds that an INVITE may ring
SIP_PORT = 5060
URI = re.compile(r"sip:(?:[^@>;]*@)?([\d.]+)(?::(\d+))?")
MEDIA = re.compile(r"^c=IN IP4 (\S+)\r$.*^m=audio (\d+)", re.MULTILINE | re.DOTALL)
SO_RCVBUFFORCE, BUFFER = 33, 4 << 20

Address = tuple[str, int]


class CallFailed(Exception):
    """A message did not come, or not the one that the call needs."""


class Message:
    """A SIP message as these endpoints read it: every header once, by its long lower-case name."""

    def __init__(self, payload: bytes) -> None:
        head, _, self.body = payload.decode().partition("\r\n\r\n")
        self.start, *lines = head.split("\r\n")
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        first, second = self.start.split(" ", 2)[:2]
        self.is_request = first != "SIP/2.0"
        self.status = 0 if self.is_request else int(second)
        self.method = first if self.is_request else self["cseq"].split()[1]
        self.branch = self["via"].partition("branch=")[2].partition(";")[0]
        self.call_id = self["call-id"]

    def __getitem__(self, name: str) -> str:
        return self.headers.get(name, "")

    def media(self) -> Address | None:
        """Return where the SDP wants audio."""
        found = MEDIA.search(self.body)
        return (found[1], int(found[2])) if found else None

    def contact(self) -> Address:
        """Return the endpoint in Contact; raises CallFailed without one."""
        found = URI.search(self["contact"])
        if not found:
            raise CallFailed(f"no Contact in {self.start}")
        return found[1], int(found[2] or SIP_PORT)


class Gate:
    """Who begins something waits for it; closed, what is under way ends, and nothing new begins."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.opened.set()
        self.under_way = 0

    async def close(self) -> None:
        """Close it, and return once nothing is under way."""
        self.opened.clear()
        while self.under_way:
            await asyncio.sleep(0.05)


class Ua:
    """One endpoint. *on_request* gets each request that is no repetition, ACK and BYE included."""

    numbers = itertools.count(1)

    def __init__(self, opened: socket.socket, own: Address, counts: Counter[str],
                 on_request: Callable[[Ua, Message, Address], None], gate: Gate) -> None:
        self.own, self.counts, self.on_request, self.gate = own, counts, on_request, gate
        self.loop = asyncio.get_running_loop()
        self._socket = opened
        self._asked: dict[tuple[str, str], asyncio.Queue[Message]] = {}
        self._answered: dict[tuple[str, str], bytes] = {}       # the last response, b"" before there is one
        self._acknowledged: dict[tuple[str, str], tuple[bytes, Address]] = {}
        self.deaf: set[tuple[str, str]] = set()     # Call-ID and method or status of what is not heard once
        opened.setblocking(False)
        opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        opened.bind(own)
        self.loop.add_reader(opened, self._readable)

    def close(self) -> None:
        """Be gone."""
        self.loop.remove_reader(self._socket)
        self._socket.close()

    def send(self, payload: bytes, to: Address) -> None:
        """Send a datagram; what the kernel refuses at this moment is repeated by the transaction."""
        with contextlib.suppress(OSError):
            self._socket.sendto(payload, to)

    def branch(self) -> str:
        """Return a branch that no transaction has had."""
        return f"z9hG4bK{next(Ua.numbers):x}"

    async def ask(self, payload: bytes, to: Address, method: str, branch: str,
                  provisional: Callable[[Message], None] = lambda message: None) -> Message:
        """Return the final response to a request; raises CallFailed where none comes."""
        self.gate.under_way += 1
        try:
            return await self._ask(payload, to, method, branch, provisional)
        finally:
            self.gate.under_way -= 1

    async def _ask(self, payload: bytes, to: Address, method: str, branch: str,
                   provisional: Callable[[Message], None]) -> Message:
        replies = self._asked[branch, method] = asyncio.Queue()
        repeating = self.loop.create_task(self._repeat(payload, to, T2 if method != "INVITE" else TIMEOUT))
        try:
            patience = TIMEOUT
            while True:
                reply = await asyncio.wait_for(replies.get(), patience)
                if reply.status >= 200:
                    return reply
                if method == "INVITE":      # RFC 3261, section 17.1.1.2: a provisional ends the repeating
                    repeating.cancel()
                    patience = RING_TIMEOUT
                provisional(reply)
        except TimeoutError:
            raise CallFailed(f"no response to {method}") from None
        finally:
            repeating.cancel()
            self.loop.call_later(TIMEOUT, self._asked.pop, (branch, method), None)

    async def _repeat(self, payload: bytes, to: Address, longest: float) -> None:
        pause = T1
        self.send(payload, to)
        while True:
            await asyncio.sleep(pause)
            self.counts["repeated"] += 1
            self.send(payload, to)
            pause = min(2 * pause, longest)

    def answer(self, request: Message, source: Address, payload: bytes) -> None:
        """Send a response, also to what repeats the request."""
        self._answered[request.branch, request.method] = payload
        self.send(payload, source)

    def acknowledge(self, reply: Message, payload: bytes, to: Address) -> None:
        """Send the ACK for a final response, again for each repetition of that."""
        key = reply.branch, "INVITE"
        self._acknowledged[key] = payload, to
        self.loop.call_later(2 * TIMEOUT, self._acknowledged.pop, key, None)
        self.send(payload, to)

    async def insist(self, request: Message, to: Address, payload: bytes, done: asyncio.Event) -> None:
        """Repeat a final response to an INVITE until its ACK has come; raises CallFailed where none does."""
        self._answered[request.branch, request.method] = payload
        repeating = self.loop.create_task(self._repeat(payload, to, T2))
        try:
            await asyncio.wait_for(done.wait(), TIMEOUT)
        except TimeoutError:
            raise CallFailed("no ACK") from None
        finally:
            repeating.cancel()

    def _readable(self) -> None:
        while True:
            try:
                payload, source = self._socket.recvfrom(65535)
            except OSError:
                return
            self._take(Message(payload), source)

    def _take(self, message: Message, source: Address) -> None:
        heard = message.call_id, message.method if message.is_request else str(message.status)
        if heard in self.deaf:
            self.deaf.discard(heard)
            return
        key = message.branch, message.method
        if not message.is_request:
            self._take_response(key, message)
            return
        if key in self._answered:
            self.counts["repeats seen"] += 1
            if self._answered[key]:
                self.send(self._answered[key], source)
            return
        self._answered[key] = b""
        self.loop.call_later(2 * TIMEOUT, self._answered.pop, key, None)
        self.on_request(self, message, source)

    def _take_response(self, key: tuple[str, str], message: Message) -> None:
        if message.status >= 200 and key in self._acknowledged:
            self.counts["repeats seen"] += 1
            self.send(*self._acknowledged[key])
        elif waiting := self._asked.get(key):
            waiting.put_nowait(message)


def request(method: str, uri: str, via: Address, branch: str, headers: dict[str, str], body: str = ""
            ) -> bytes:
    """Return a request as it is sent."""
    lines = [f"{method} {uri} SIP/2.0", f"Via: SIP/2.0/UDP {via[0]}:{via[1]};branch={branch};rport",
             "Max-Forwards: 70", *(f"{name}: {value}" for name, value in headers.items())]
    return _finished(lines, body)


def response(asked: Message, status: str, tag: str = "", contact: str = "", body: str = "", more: str = ""
             ) -> bytes:
    """Return a response as it is sent; *tag* completes To."""
    to = asked["to"] + (f";tag={tag}" if tag and ";tag=" not in asked["to"] else "")
    lines = [f"SIP/2.0 {status}", f"Via: {asked['via']}", f"From: {asked['from']}", f"To: {to}",
             f"Call-ID: {asked.call_id}", f"CSeq: {asked['cseq']}"]
    lines += [f"Contact: {contact}"] if contact else []
    lines += [more] if more else []
    return _finished(lines, body)


def _finished(lines: list[str], body: str) -> bytes:
    kind = ["Content-Type: application/sdp"] if body else []
    return "\r\n".join([*lines, *kind, f"Content-Length: {len(body)}", "", body]).encode()
