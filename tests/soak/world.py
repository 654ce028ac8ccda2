"""Phones inside and their provider outside: registrations, and calls by plan, both ways."""

from __future__ import annotations

import asyncio
import resource
from collections import Counter
from collections.abc import Iterable, Iterator
from random import Random

from tests.lab import namespaces
from tests.lab.host import Host
from tests.lab.lab import Lab
from tests.soak.call import Call, Party, Plan
from tests.soak.media import Ports
from tests.soak.ua import SIP_PORT, Address, CallFailed, Gate, Message, Ua, request, response

FIRST_PORT = 6000       # of the phones that come and go
LATE = 60.0             # seconds beyond the plan until a call that has not ended counts as failed
GRACE = 4.0             # seconds that natfix may list a call after its end: its ports live 2 s longer
EXPIRES = 3600          # seconds


class World:
    """Everything outside natfix. Use it within a running event loop; :meth:`close` at the end."""

    def __init__(self, lab: Lab, phones: Iterable[str], provider: str = "provider", interval: float = 0.5,
                 callers: int = 1) -> None:
        """*interval* is the time between two RTP packets of a party; of each host *callers* ports call."""
        _allow_many_sockets()
        self.lab, self.interval = lab, interval
        self.loop = asyncio.get_running_loop()
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []
        self.calls: dict[str, Call] = {}                # that take place, or ended lately
        self.forgotten: dict[str, float] = {}           # Call-IDs without a BYE, and since when
        self.registered: dict[str, Address] = {}        # address-of-record: where the provider reaches it
        self.settling: Counter[str] = Counter()         # of these, a REGISTER is under way
        self.lost: list[tuple[float, str]] = []         # when sent, and of which call
        self.parties: dict[tuple[Ua, str], Party] = {}
        self.gate = Gate()
        self.server = self._ua(lab[provider], SIP_PORT)
        self.ports = {name: Ports(lab[name]) for name in (*phones, provider)}
        self.provider = provider
        self.phones = [(name, self._ua(lab[name], SIP_PORT + number))
                       for number in range(callers) for name in phones]
        self.guests: list[Ua] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def _ua(self, host: Host, port: int) -> Ua:
        opened = namespaces.socket_in(host.namespace)
        return Ua(opened, (host.address, port), self.counts, self._on_request, self.gate)

    def close(self) -> None:
        """Close all sockets."""
        for ua in [self.server, *(ua for _, ua in self.phones), *self.guests]:
            ua.close()
        for ports in self.ports.values():
            ports.close()

    # registrations

    async def register(self, ua: Ua, expires: int = EXPIRES, at_once: bool = False) -> None:
        """Register *ua*, or with 0 take its registration back; raises CallFailed."""
        if not at_once:
            await self.gate.opened.wait()
        user, host = f"u{ua.own[1]}", ua.own[0]
        aor = f"sip:{user}.{host}@{self.server.own[0]}"
        branch = ua.branch()
        headers = {"From": f"<{aor}>;tag=r", "To": f"<{aor}>", "Call-ID": f"register-{host}-{ua.own[1]}",
                   "CSeq": f"{next(Ua.numbers)} REGISTER", "Expires": str(expires),
                   "Contact": f"<sip:{user}@{host}:{ua.own[1]}>"}
        payload = request("REGISTER", f"sip:{self.server.own[0]}", ua.own, branch, headers)
        self.settling[aor] += 1
        try:
            reply = await ua.ask(payload, self.server.own, "REGISTER", branch)
        finally:
            self.settling[aor] -= 1
        self.counts["registered" if expires else "unregistered"] += 1
        if reply.status != 200 or (expires and f"{host}:{ua.own[1]}" not in reply["contact"]):
            raise CallFailed(f"{reply.start} to REGISTER, Contact {reply['contact']}")

    def _take_registration(self, ua: Ua, message: Message, source: Address) -> None:
        aor = message["to"].strip("<>")
        if message["expires"] == "0":
            self.registered.pop(aor, None)
            ua.answer(message, source, response(message, "200 OK", "registrar"))
            return
        self.registered[aor] = message.contact()
        ua.answer(message, source, response(
            message, "200 OK", "registrar", f"{message['contact']};expires={message['expires']}"))

    async def register_phones(self, expires: int = EXPIRES, at_once: bool = False) -> None:
        """Register all that call, or take their registrations back."""
        await asyncio.gather(*(self.register(ua, expires, at_once) for _, ua in self.phones))

    async def stay_registered(self, stop: asyncio.Event) -> None:
        """Register all that call, again in time, until *stop*; then take their registrations back."""
        while not stop.is_set():
            await self.register_phones()
            await _wait_for(stop, EXPIRES / 2)
        await self.register_phones(0)

    async def refresh_calls(self) -> None:
        """Have the party inside send a re-INVITE in each call, as session timers do; gate or not."""
        inside = [party for party in self.parties.values()
                  if party.ua is not self.server and party.call.phase == "up" and party.call.talks]
        await asyncio.gather(*(party.refresh() for party in inside))

    async def come_and_go(self, host: str, count: int, chance: Random, stop: asyncio.Event,
                          stays: tuple[float, float]) -> None:
        """Have *count* more phones on *host* register and unregister until *stop*; none stays."""
        self.guests = [self._ua(self.lab[host], FIRST_PORT + number) for number in range(count)]
        await asyncio.gather(*(self._come_and_go(ua, chance, stop, stays) for ua in self.guests))

    async def _come_and_go(self, ua: Ua, chance: Random, stop: asyncio.Event, stays: tuple[float, float]
                           ) -> None:
        await _wait_for(stop, chance.uniform(0, stays[1]))
        while not stop.is_set():
            for expires in [EXPIRES] * chance.choice([1, 1, 2]) + [0]:
                try:
                    await self.register(ua, expires)
                except CallFailed as problem:
                    self.fail(f"registration: {problem}")
                await _wait_for(stop, chance.uniform(*stays))

    # calls

    async def run(self, plans: Iterator[Plan], rate: float) -> None:
        """Begin *rate* calls a second, and return when the last has begun."""
        due = self.loop.time()
        for plan in plans:
            await asyncio.sleep(due - self.loop.time())
            due += 1 / rate
            task = self.loop.create_task(self._place(plan))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def all_over(self) -> None:
        """Return once every call has ended, and what was under way is counted."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))
        await asyncio.sleep(GRACE)

    async def _place(self, plan: Plan) -> None:
        await self.gate.opened.wait()
        call = self.calls[plan.call_id] = Call(plan, self.interval, self.counts)
        name, phone = self.phones[plan.number % len(self.phones)]
        caller, callee = (phone, self.server) if plan.outgoing else (self.server, phone)
        first = Party(call, caller, self.ports[name if plan.outgoing else self.provider], True)
        second = Party(call, callee, self.ports[self.provider if plan.outgoing else name], False)
        self.parties[caller, plan.call_id], self.parties[callee, plan.call_id] = first, second
        if plan.deaf == "INVITE":
            callee.deaf.add((plan.call_id, "INVITE"))
        elif plan.deaf == "BYE":
            (callee if plan.caller_ends else caller).deaf.add((plan.call_id, "BYE"))
        self.counts["calls"] += 1
        self.counts[plan.kind] += 1
        try:
            await asyncio.wait_for(first.call_out(*self._target(plan, phone)), plan.ring + plan.talk + LATE)
        except (CallFailed, TimeoutError) as problem:
            call.failure = str(problem) or "it did not end"
        self._end(call, first, second)
        await asyncio.sleep(GRACE)
        self._forget(call, first, second)

    def _target(self, plan: Plan, phone: Ua) -> tuple[str, Address]:
        if plan.outgoing:
            return f"sip:bob@{self.server.own[0]}", self.server.own
        aor = f"sip:u{phone.own[1]}.{phone.own[0]}@{self.server.own[0]}"
        if aor not in self.registered:
            raise CallFailed(f"{aor} is not registered")
        host, port = self.registered[aor]
        return f"sip:u{phone.own[1]}@{host}:{port}", (host, port)

    def _end(self, call: Call, *parties: Party) -> None:
        if call.phase == "forgotten":
            self.forgotten[call.plan.call_id] = self.loop.time()
        call.phase = "over"
        call.over.set()
        for party in parties:
            party.audio.end()

    def _forget(self, call: Call, *parties: Party) -> None:
        for party in parties:
            self.parties.pop((party.ua, call.plan.call_id), None)
            party.ua.deaf.discard((call.plan.call_id, call.plan.deaf))
        self.calls.pop(call.plan.call_id, None)
        for stream in call.streams:
            self.counts["rtp sent"] += len(stream.sent)
            self.counts["rtp received"] += len(stream.got)
            self.lost += [(at, call.plan.call_id) for at in stream.lost()]
        if call.failure:
            self.fail(f"{call.plan}: {call.failure}")

    def fail(self, what: str) -> None:
        """Note that something did not come about."""
        self.failures.append(f"{self.loop.time():.1f} {what}")

    # what comes in

    def _on_request(self, ua: Ua, message: Message, source: Address) -> None:
        if message.method == "REGISTER":
            self._take_registration(ua, message, source)
            return
        party = self.parties.get((ua, message.call_id))
        if party is None:
            self.counts["requests of no call"] += 1
            if message.method != "ACK":
                ua.answer(message, source, response(message, "481 No Such Call", "none"))
        elif message.method == "INVITE" and not party.is_caller and party.invite is None:
            task = self.loop.create_task(self._take(party, message, source))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            party.hear(message, source)

    async def _take(self, party: Party, invite: Message, source: Address) -> None:
        try:
            await party.take(invite, source)
        except CallFailed as problem:
            party.call.failure = party.call.failure or f"callee: {problem}"


async def _wait_for(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return


def _allow_many_sockets() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


