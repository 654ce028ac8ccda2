"""One call, both its parties: what they say when, by a plan."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import NamedTuple

from tests.soak.media import Audio, Ports, Stream
from tests.soak.ua import Address, CallFailed, Message, Ua, request, response

SDP = ("v=0\r\no=- {version} {version} IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\n"
       "m=audio {port} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na={direction}\r\n")
HOLD = 0.2              # of a call's length, that it is on hold


class Plan(NamedTuple):
    """What is to become of a call; times in seconds."""

    number: int
    outgoing: bool          # from inside
    kind: str = "answered"  # "early" (media first), "refused", "cancelled", "unanswered"; "forgotten": no BYE
    ring: float = 0.0
    talk: float = 5.0
    caller_ends: bool = True
    hold: bool = False
    deaf: str = ""          # "INVITE", "200", "BYE": is not heard the first time

    @property
    def call_id(self) -> str:
        """Its name on the wire."""
        return f"{self.number}@soak"

    @property
    def is_answered(self) -> bool:
        """Whether it comes to a conversation."""
        return self.kind in ("answered", "early", "forgotten")


class Call:
    """A call that takes place; *phase* goes from "new" by "up" and "ending" to "over"."""

    def __init__(self, plan: Plan, interval: float, counts: Counter[str]) -> None:
        self.plan, self.interval, self.counts = plan, interval, counts
        self.phase = "new"
        self.failure = ""
        self.talks = False                      # both have what they need to send
        self.streams = Stream(2 * plan.number), Stream(2 * plan.number + 1)     # of the caller, of the callee
        self.rings = asyncio.Event()            # the caller knows: it has a 180, or a 183
        self.over = asyncio.Event()


class Party:
    """One side of a call: its dialog and its audio."""

    def __init__(self, call: Call, ua: Ua, ports: Ports, is_caller: bool) -> None:
        self.call, self.ua, self.is_caller = call, ua, is_caller
        outgoing, incoming = call.streams if is_caller else call.streams[::-1]
        self.audio = Audio(ports, call.interval, outgoing, incoming)
        self.tag = f"{'caller' if is_caller else 'callee'}{call.plan.number}"
        self.user = f"u{ua.own[1]}"
        self.to = self.own = ""                 # To and From, as this party writes them
        self.target, self.destination = "", ua.own
        self.cseq = 1 if is_caller else 0
        self.version = 0
        self.acknowledged = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.invite: Message | None = None
        self.source = ua.own
        self.is_held = False

    @property
    def contact(self) -> str:
        """Where this party wants its requests."""
        return f"<sip:{self.user}@{self.ua.own[0]}:{self.ua.own[1]}>"

    def sdp(self, direction: str = "sendrecv") -> str:
        """Return its session description, newer than the one before."""
        self.version += 1
        host, port = self.audio.own
        return SDP.format(version=self.version, host=host, port=port, direction=direction)

    # the caller

    async def call_out(self, uri: str, to: Address) -> None:
        """Place the call and see it to its end; raises CallFailed."""
        plan = self.call.plan
        self.target, self.destination = uri, to
        self.own, self.to = f"<sip:{self.user}@soak.example>;tag={self.tag}", f"<{uri}>"
        if plan.deaf == "200":
            self.ua.deaf.add((plan.call_id, "200"))
        branch = self.ua.branch()
        invite = self._request("INVITE", branch, self.sdp())
        asking = asyncio.create_task(self.ua.ask(invite, to, "INVITE", branch, self._take_provisional))
        try:
            if plan.kind == "cancelled":
                await self._cancel(branch, to)
            reply = await asking
        finally:
            asking.cancel()
        self.to = reply["to"]
        if reply.status >= 300:
            self.ua.acknowledge(reply, self._request("ACK", branch), to)
            self.call.phase = "ending"
            if plan.is_answered or reply.status not in (480, 486, 487):
                raise CallFailed(f"{reply.status} to INVITE")
            return
        if not plan.is_answered:
            raise CallFailed("answered against the plan")
        self._acknowledge(reply)
        self._begin_audio(reply)
        self.call.talks = True
        await self._talk()

    def _take_provisional(self, reply: Message) -> None:
        if reply.media():
            self._begin_audio(reply)
        self.call.rings.set()

    async def _cancel(self, branch: str, to: Address) -> None:
        await self.call.rings.wait()
        await asyncio.sleep(self.call.plan.ring)
        self.call.phase = "ending"
        reply = await self.ua.ask(self._request("CANCEL", branch), to, "CANCEL", branch)
        if reply.status != 200:
            raise CallFailed(f"{reply.status} to CANCEL")

    def _acknowledge(self, reply: Message) -> None:
        self._aim(reply)
        self.ua.acknowledge(reply, self._request("ACK", self.ua.branch()), self.destination)

    # the callee

    async def take(self, invite: Message, source: Address) -> None:
        """Do with an INVITE what the plan says; raises CallFailed."""
        plan = self.call.plan
        self.invite, self.source = invite, source
        self.own, self.to = f"{invite['to']};tag={self.tag}", invite["from"]
        self._aim(invite)
        self._reply(invite, "183 Session Progress" if plan.kind == "early" else "180 Ringing",
                    self.sdp() if plan.kind == "early" else "")
        if plan.kind == "early":
            await self.call.rings.wait()
            self._begin_audio(invite)
        self.call.phase = "up" if self.call.phase == "new" else self.call.phase
        if plan.kind == "cancelled":
            await self.cancelled.wait()
            await self._insist(invite, "487 Request Terminated")
            return
        await asyncio.sleep(plan.ring)
        if not plan.is_answered:
            self.call.phase = "ending"
            await self._insist(invite, "486 Busy Here" if plan.kind == "refused" else "480 No Answer")
            return
        await self._insist(invite, "200 OK", self.sdp())
        self._begin_audio(invite)
        await self._talk()

    def _reply(self, asked: Message, status: str, sdp: str = "") -> None:
        self.ua.answer(asked, self.source, response(asked, status, self.tag, self.contact, sdp))

    async def _insist(self, asked: Message, status: str, sdp: str = "") -> None:
        self.acknowledged.clear()
        payload = response(asked, status, self.tag, self.contact, sdp)
        await self.ua.insist(asked, self.source, payload, self.acknowledged)

    # both

    def hear(self, message: Message, source: Address) -> None:
        """Take a request of this dialog."""
        if message.method == "ACK":
            self.acknowledged.set()
        elif message.method == "CANCEL":
            self.ua.answer(message, source, response(message, "200 OK", self.tag))
            self.cancelled.set()
        elif message.method == "BYE":
            self.call.phase = "ending"
            self.audio.pause()
            self.ua.answer(message, source, response(message, "200 OK"))
            self.call.over.set()
        elif message.method == "INVITE":
            self._take_change(message, source)

    def _take_change(self, message: Message, source: Address) -> None:
        self._aim(message)
        held = "a=sendonly" in message.body
        if held:
            self.audio.pause()
        elif self.call.phase == "up":
            self._begin_audio(message)
        payload = response(message, "200 OK", contact=self.contact, body=self.sdp("recvonly" if held else
                                                                                  "sendrecv"))
        self.acknowledged.clear()
        self.call.counts["re-INVITE"] += 1
        task = self.ua.loop.create_task(self.ua.insist(message, source, payload, self.acknowledged))
        task.add_done_callback(self._note)

    def _note(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self.call.failure = f"re-INVITE: {task.exception()}"

    async def _talk(self) -> None:
        """Talk as long as planned; whoever is to hang up does."""
        plan = self.call.plan
        is_mine = plan.caller_ends == self.is_caller
        if is_mine and plan.kind == "forgotten":
            await asyncio.sleep(plan.talk)
            self.call.phase = "forgotten"
            self.call.over.set()
        elif is_mine:
            await self._hold_and_hang_up()
        await self.call.over.wait()

    async def _hold_and_hang_up(self) -> None:
        plan = self.call.plan
        held = HOLD * plan.talk if plan.hold else 0.0
        await asyncio.sleep((plan.talk - held) / 2)
        if plan.hold:
            await self._change("sendonly")
            await asyncio.sleep(held)
            await self._change("sendrecv")
        await asyncio.sleep((plan.talk - held) / 2)
        await self.ua.gate.opened.wait()
        self.call.phase = "ending"
        self.audio.pause()
        await self._ask_in_dialog("BYE")
        self.call.over.set()

    async def refresh(self) -> None:
        """Say once more where this party is, in the middle of the call; raises CallFailed."""
        await self._change("sendrecv", at_once=True)

    async def _change(self, direction: str, at_once: bool = False) -> None:
        reply = await self._ask_in_dialog("INVITE", self.sdp(direction), at_once)
        self._acknowledge(reply)

    async def _ask_in_dialog(self, method: str, body: str = "", at_once: bool = False) -> Message:
        if not at_once:
            await self.ua.gate.opened.wait()
        self.cseq += 1
        branch = self.ua.branch()
        reply = await self.ua.ask(self._request(method, branch, body), self.destination, method, branch)
        if reply.status != 200:
            raise CallFailed(f"{reply.status} to {method}")
        return reply

    def _request(self, method: str, branch: str, body: str = "") -> bytes:
        headers = {"From": self.own, "To": self.to, "Call-ID": self.call.plan.call_id,
                   "CSeq": f"{self.cseq} {method}", "User-Agent": "soak"}
        if method in ("INVITE", "ACK"):
            headers["Contact"] = self.contact
        return request(method, self.target, self.ua.own, branch, headers, body)

    def _aim(self, said: Message) -> None:
        """Send further requests to the Contact of what the other party said."""
        host, port = self.destination = said.contact()
        self.target = f"sip:{host}:{port}"

    def _begin_audio(self, said: Message) -> None:
        where = said.media()
        if where is None:
            raise CallFailed(f"no audio in {said.start}")
        self.audio.speak(where)


