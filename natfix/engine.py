"""The engine: packets, reports and time in; kernel commands, verdicts and reasons out. No I/O.

The contract with the shell that drives it (design, section 3):

1. wait for packets, a report, or :meth:`Engine.next_timeout`;
2. call exactly one of :meth:`receive_packet` (for every packet of one read of the queue),
   :meth:`handle_report`, :meth:`handle_timer`;
3. ``kernel.apply`` all commands of that read, in one transaction;
4. give the verdicts, with ``outcome.packet`` or the original bytes; then send ``outcome.send``; then log
   the notes; then write :meth:`pop_changes` to the store.

One INVITE, from top to bottom: :meth:`receive_packet` finds the inside party's signalling mapping
(:mod:`natfix.signalling`), :meth:`_treat` finds its call (:mod:`natfix.callflow`), treats the SDP
(:mod:`natfix.media`) and the headers (:mod:`natfix.rewrite`), follows what the message means for the
call, and splices the edits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from itertools import islice
from typing import Any

from natfix.address import Endpoint
from natfix.audio import Audio
from natfix.callflow import CallFlow
from natfix.commands import Command, Flow, Kind, Note, Outcome, Verdict
from natfix.config import Settings
from natfix.deadlines import Deadlines
from natfix.dialogs import Calls, Description
from natfix.edits import Edits, apply_edits
from natfix.errors import LimitReached, MalformedMessage, MalformedPacket
from natfix.far_ends import FarEnds
from natfix.far_fix import FarFix
from natfix.happenings import Happenings
from natfix.keep_alives import KEEP_ALIVE, KeepAlives
from natfix.levels import Levels
from natfix.links import OutsideLinks
from natfix.listing import calls_as_rows, far_ends_as_rows, registrations_as_rows, totals
from natfix.mappings import Mapping, Mappings
from natfix.media import MediaKeeper
from natfix.memory import Memory
from natfix.packet import UDP, Packet, Path, packet_from_bytes, rebuild
from natfix.policies import Policies
from natfix.quirks import Quirks
from natfix.quotas import MOST_SHOWN, Quotas, Rates, begins_something
from natfix.realms import Realms
from natfix.refreshing import Refreshing
from natfix.registering import Registering
from natfix.registrations import Registrations
from natfix.repairs import Repairs
from natfix.repeats import Repeats
from natfix.reporting import Reporting
from natfix.reports import AddressesChanged, Change, Report, Restored, StreamOpened
from natfix.rewrite import Rewriter, fix_content_length
from natfix.segment import TCP
from natfix.signalling import Signalling
from natfix.sip.message import Message, is_sip, message_from_bytes
from natfix.spelling import Spelling
from natfix.streaming import STREAM, Streaming
from natfix.turn import Turn, summary_of, treated, waits

NO_QUIRKS = Quirks()
TCP_BYTE = bytes((TCP,))    # IPv4's protocol, its tenth octet
FAR_ENDS, FAR_ENDS_EVERY = ("far-ends", ""), 600.0      # seconds between two looks at who is gone
ALARMING = {"limit", "gave-way", "already-right", "echo-changed"}      # notes that are counted, too
NEEDS_MAPPING = {"INVITE", "REGISTER", "SUBSCRIBE"}     # what they begin fails without one
ENDS_AT_ONCE = 16           # deadlines of one handle_timer: packets wait meanwhile


class Engine:
    """All of natfix's decisions and state."""

    def __init__(self, settings: Settings, quirks: Quirks = NO_QUIRKS) -> None:
        self._settings = settings
        limits = settings.limits
        self._deadlines = Deadlines()
        self._policies = Policies(settings)
        self._realms = Realms(settings)
        self._mappings = Mappings(
            limits.mappings, limits.mappings_per_host, self._deadlines, self._on_mapping_removed)
        self._registrations = Registrations(limits.registrations, limits.registrations_per_host)
        self._calls = Calls(limits.dialogs, limits.dialogs_per_host)
        self._signalling = Signalling(settings, self._realms, self._mappings)
        self._far_ends = FarEnds(limits.registrations)
        self._far_fix = FarFix(self._far_ends, settings.far_end)
        self._media = MediaKeeper(
            settings, self._realms, self._mappings, self._registrations, self._far_ends, self._policies)
        self._happened = Happenings()
        self.pop_events = self._happened.pop        # what has happened since the last call
        self.mappings = self._mappings              # to be read
        self._flow = CallFlow(settings, self._realms, self._mappings, self._calls, self._deadlines,
                              self._signalling, self._media, self._happened)
        self._registering = Registering(
            self._realms, self._registrations, self._mappings, self._signalling, self._deadlines,
            self._happened)
        self._quirks = quirks
        self._rewriter = Rewriter(
            self._signalling, self._mappings, self._registrations, Spelling(), quirks)
        self._memory = Memory(self._realms, self._mappings, self._calls, self._registrations,
                              self._signalling, self._registering, self._media, self._flow, self._far_ends)
        self._repeats = Repeats()
        rates = Rates(limits.requests_per_host, limits.requests_per_peer)
        self.quotas = Quotas(rates, self._policies.trusted)
        self._now = 0.0
        self._identification = 0
        self.counters: Counter[str] = Counter()
        self.audio = Audio(self._mappings, self._happened, self.counters)
        self._repairs = Repairs(quirks, settings.signalling.agent_name, self._signalling, self.counters)
        self._keep_alives = KeepAlives(settings.far_end, self._far_ends, self._realms, self._mappings,
                                       self._deadlines, self.counters)
        self._refreshing = Refreshing(settings.far_end, self._far_ends, self._keep_alives, self.counters)
        self._links = OutsideLinks(
            self._realms, self._mappings, self._registrations, self._calls, self._happened)
        self._reporting = Reporting(
            settings, self._realms, self._mappings, self._registrations, self._signalling, self._media,
            self._flow, self._memory, self._policies, self._links, self.counters)
        self._streaming = Streaming(limits, self._realms, self._mappings, self._registrations,
                                    self._deadlines, self.counters, self._treat_octets)
        self.farewell = self._streaming.farewell    # for who is about to remove the rules
        self.levels = Levels(self._mappings, self._calls, self._registrations, self._streaming.streams,
                             self._media.pool)

    # -- packets --------------------------------------------------------------------------------

    def receive_packet(self, raw: bytes, path: Path, now: float) -> Outcome:
        """Treat one diverted packet; *now* is in seconds on the shell's clock.

        Never raises for what a packet may hold: what is not understood passes untouched, with a note.
        """
        now = self._advance(now)
        outcome = Outcome()
        self.counters["packets"] += 1
        if raw[9:10] == TCP_BYTE:
            crosses = path.hook == "forward" and self._realms.crosses(path.in_interface, path.out_interface)
            self._streaming.receive(outcome, raw, crosses, now)
            outcome.commands += self._take_commands()
            return outcome
        try:
            packet = packet_from_bytes(raw)
        except MalformedPacket as problem:
            return self._pass(outcome, "packet", str(problem))
        if path.hook == "input" and self._learn(packet, now):
            outcome.verdict, outcome.commands = Verdict.DROP, self._take_commands()
            return outcome
        sender_inside = path.hook == "output" or self._realms.is_inside(packet.source.host)
        receiver_inside = path.hook == "input" or self._realms.is_inside(packet.destination.host)
        if sender_inside != receiver_inside \
                and not self._realms.crosses(path.in_interface, path.out_interface):
            return self._pass(outcome, "not-ours", "the packet does not cross the outside interface")
        if self._realms.links:
            packet = self._links.place(packet, path, sender_inside, receiver_inside)
        is_crossing = sender_inside != receiver_inside or self._mappings.find(packet.destination) is not None
        if is_crossing and path.hook != "output" and self._is_too_fast(outcome, packet, sender_inside, now):
            return outcome
        message, problem_text = self.read_message(packet.payload)
        if not sender_inside and self._is_for_natfix(outcome, packet, message, now):
            return outcome
        if is_crossing and self._policies.settle(outcome, packet, message, now):
            return outcome
        if message is None and path.hook != "forward":      # of the gateway's own only SIP is of interest
            return self._pass(outcome, "not-sip", problem_text)
        sender: Mapping | None = None
        receiver: Mapping | None = None
        moved: list[Note] = []
        try:
            if receiver_inside:
                receiver = self._receiver_of(packet, sender_inside)
            if sender_inside and (receiver is not None or not receiver_inside):
                sender = self._signalling.map_sender(packet.source, message, now)
                if packet.destination not in sender.sent_to:
                    sender.note_sent(packet.destination)
                    moved = self._links.take_over(packet.source, packet.destination, now)
        except LimitReached as problem:
            return self._lack(outcome, message, str(problem))
        if moved:
            outcome.verdict, outcome.notes = Verdict.DROP, [*outcome.notes, *moved]
        elif message is None:
            self._pass(outcome, "not-sip", problem_text)
        elif sender is None and receiver is None:
            self._pass(outcome, "not-ours", "neither end has a mapping")
        else:
            self._repeat_or_treat(outcome, packet, message, sender, receiver, now)
        outcome.commands = self._take_commands()
        return outcome

    def _is_too_fast(self, outcome: Outcome, packet: Packet, is_inside: bool, now: float) -> bool:
        """Drop what a host begins beyond its rate, unread: it costs next to nothing, whoever else calls."""
        is_new = is_inside and self._mappings.find(packet.source) is None
        begins = is_new or begins_something(packet.payload)
        if self.quotas.admit(packet.source.host, is_inside, now, begins):
            return False
        outcome.verdict = Verdict.DROP
        self.counters["over rate"] += 1
        note = self.quotas.note(packet.source.host, is_inside, now)
        outcome.notes += [note] if note is not None else []
        return True

    def _learn(self, packet: Packet, now: float) -> bool:
        """Take a first packet of a relayed stream, which tells where a far UA sends from.

        It never goes on: without its entry it would become one that leads nowhere.
        """
        mapping = self._mappings.find_outside(self._realms.seen(packet.destination))
        if mapping is None or mapping.permission is not Kind.RELAY:
            return False
        self.counters["relay packets"] += 1
        relay = self._mappings.learn_source(mapping, packet.source, now)
        if relay is not None:
            self._flow.on_source_learnt(relay, now)
        return True

    def _is_for_natfix(self, outcome: Outcome, packet: Packet, message: Message | None, now: float) -> bool:
        """Take what answers natfix itself; nobody else shall see it."""
        is_answer, notes = self._keep_alives.take(packet, message, now)
        outcome.notes += notes
        refresh = self._refreshing.answer(packet, message, now) if message is not None else None
        if refresh is not None and message is not None:
            outcome.send, outcome.call_id = [refresh[0]], message.call_id
            outcome.summary = summary_of(message)
            outcome.notes.append(refresh[1])
        if is_answer or refresh is not None:
            outcome.verdict = Verdict.DROP
        return outcome.verdict is Verdict.DROP

    def read_message(self, payload: bytes) -> tuple[Message | None, str]:
        """Return the message, or None and what it is instead; natfix-replay has read it already."""
        try:
            return message_from_bytes(payload), ""
        except MalformedMessage as problem:
            return None, str(problem) if is_sip(payload) else "a keep-alive, or not SIP"

    def _receiver_of(self, packet: Packet, hairpin: bool) -> Mapping | None:
        """Return the inside receiver's mapping.

        Between two inside hosts only a packet that was sent to a mapping crosses the NAT; what inside
        networks say to each other directly is none of natfix's business.
        """
        mapping = self._mappings.find(packet.destination)
        if mapping is None and not hairpin:
            return self._signalling.map_endpoint(packet.destination, self._now)
        return mapping if mapping is not None and mapping.kind is Kind.SIGNALLING else None

    def _repeat_or_treat(
        self, outcome: Outcome, packet: Packet, message: Message, sender: Mapping | None,
        receiver: Mapping | None, now: float,
    ) -> None:
        outcome.summary, outcome.call_id = summary_of(message), message.call_id
        edits = self._repeats.find(packet.source, packet.destination, packet.payload, now)
        if edits is None:
            turn = self._treat(packet, message, sender, receiver, now)
            outcome.notes += [*turn.edits.notes, *turn.notes]
            for rule in {note.rule for note in turn.notes} & ALARMING:
                self.counters[rule] += 1
            if turn.is_short and waits(message, {"INVITE"}, self._settings):
                outcome.verdict = Verdict.DROP
                self.counters["refused"] += 1
                return
            edits = turn.edits.as_tuple()
            if edits:
                self._repeats.remember(packet.source, packet.destination, packet.payload, edits, now)
        else:
            self.counters["repeated"] += 1
            outcome.notes.append(Note("repeated", reason="the same bytes as before leave as the same bytes"))
        listens_at = receiver.listens_at if receiver is not None else 0     # see natfix.repairs
        if listens_at:
            packet = packet._replace(destination=Endpoint(packet.destination.host, listens_at))
        octets = packet.payload
        if edits or listens_at:
            self._identification = self._identification % 0xFFFF + 1
            octets = apply_edits(packet.payload, edits)
            try:
                outcome.packet, outcome.edits = rebuild(packet, octets, self._identification), edits
            except MalformedPacket as problem:      # longer than a packet can be
                self._pass(outcome, "packet", str(problem))
                return
        self.counters["rewritten" if edits else "unchanged"] += 1
        outcome.treated.append(treated(message, packet, sender, receiver, UDP, octets))

    def _lack(self, outcome: Outcome, message: Message | None, problem: str) -> Outcome:
        """Take a packet whose inside end can have no mapping. What would begin something waits for one: a
        registration that goes out unfixed breaks incoming calls for an hour."""
        outcome.commands = self._take_commands()
        if message is None or not waits(message, NEEDS_MAPPING, self._settings):
            return self._pass(outcome, "limit", problem)
        outcome.verdict, outcome.summary, outcome.call_id = Verdict.DROP, summary_of(message), message.call_id
        self.counters.update(("refused", "limit"))
        outcome.notes.append(Note("limit", reason=problem))
        return outcome

    def _treat_octets(
        self, outcome: Outcome, packet: Packet, sender: Mapping | None, receiver: Mapping | None, now: float
    ) -> bytes | None:
        """Treat a message that :mod:`natfix.streaming` has cut out of a connection; None: it is dropped."""
        if self._is_too_fast(outcome, packet, sender is not None, now):
            return None
        message, problem_text = self.read_message(packet.payload)
        if self._policies.settle(outcome, packet, message, now):
            return None if outcome.verdict is Verdict.DROP else packet.payload
        if message is None:
            self._pass(outcome, "not-sip", problem_text)
            return packet.payload
        outcome.summary, outcome.call_id = summary_of(message), message.call_id
        turn = self._treat(packet, message, sender, receiver, now)
        outcome.notes += [*turn.edits.notes, *turn.notes]
        self.counters["rewritten" if turn.edits else "unchanged"] += 1
        octets = turn.edits.apply()
        outcome.treated.append(treated(message, packet, sender, receiver, TCP, octets))
        return octets

    def _treat(
        self, packet: Packet, message: Message, sender: Mapping | None, receiver: Mapping | None, now: float
    ) -> Turn:
        turn = Turn(packet, message, Edits(packet.payload), now, sender, receiver)
        if sender is not None:
            if self._quirks and message.user_agent and (message.is_request or not sender.agent):
                sender.agent = message.user_agent
            turn.sender_call = self._flow.find(turn, sender, inside_sent=True)
        if receiver is not None:
            turn.receiver_call = self._flow.find(turn, receiver, inside_sent=False)
        if sender is None:
            turn.far_sender = self._far_fix.sender_of(turn)
            if turn.far_sender is not None:
                self._deadlines.bring_forward(FAR_ENDS, now + FAR_ENDS_EVERY)
        elif receiver is None:
            turn.far_receiver = self._far_fix.receiver_of(turn)
        if self._repairs.is_needed:
            self._repairs.before(turn)
        said = self._media.treat(turn)
        if sender is not None:
            self._rewriter.show(turn)
        if receiver is not None:
            self._rewriter.restore(turn)
        if turn.far_sender is not None:
            self._far_fix.show(turn, turn.far_sender)
            if not turn.is_stream:          # the UA itself keeps its connection open (RFC 5626, section 3.5)
                self._refreshing.on_request(turn)
        elif turn.far_receiver is not None:
            self._far_fix.restore(turn, turn.far_receiver)
            if not turn.is_stream:
                self._keep_alives.on_response(turn, turn.far_receiver)
        fix_content_length(turn)
        if turn.far_receiver is not None and not turn.is_stream:
            self._refreshing.on_response(turn, turn.far_receiver)
        self._follow(turn, said)
        if self._repairs.is_needed:
            self._repairs.after(turn)
        return turn

    def _follow(self, turn: Turn, said: tuple[Description, Description] | None) -> None:
        sent, received = said if said is not None else (None, None)
        message = turn.message
        if turn.sender is not None:
            if turn.sender_call is not None:
                self._flow.follow(turn, turn.sender_call, turn.sender, True, sent)
            elif message.is_request and message.method == "REGISTER":
                self._registering.on_request(turn)
        if turn.receiver is not None:
            if turn.receiver_call is not None:
                self._flow.follow(turn, turn.receiver_call, turn.receiver, False, received)
            elif not message.is_request and message.cseq_method == "REGISTER":
                self._registering.on_response(turn)

    def _pass(self, outcome: Outcome, rule: str, reason: str) -> Outcome:
        self.counters["passed"] += 1
        self.counters["passed " + rule] += 1
        outcome.notes.append(Note(rule, reason=reason))
        return outcome

    # -- reports ----------------------------------------------------------------------------------

    def handle_report(self, report: Report, now: float) -> Outcome:
        """Take a fact from the shell (see :mod:`natfix.reports`)."""
        now = self._advance(now)
        outcome = Outcome()
        outcome.notes = self._reporting.take(report, now)
        if isinstance(report, Restored):
            self._keep_alives.resume(now)
            self.counters["damaged rows"] += self._streaming.restore(report.rows, now)
        elif isinstance(report, StreamOpened):
            self._streaming.on_opened(report.flow)
        elif isinstance(report, AddressesChanged):
            self._streaming.leave_address(now)
        outcome.commands = self._take_commands()
        return outcome

    def reconfigure(self, settings: Settings, quirks: Quirks, now: float) -> Outcome:
        """Take other settings for what begins from now on; calls, registrations, mappings stay."""
        now, limits = self._advance(now), settings.limits
        self._mappings.follow(limits.mappings, limits.mappings_per_host)
        self._registrations.follow(limits.registrations, limits.registrations_per_host)
        self._calls.follow(limits.dialogs, limits.dialogs_per_host)
        self.quotas.follow(Rates(limits.requests_per_host, limits.requests_per_peer))
        self._flow.reconfigure(settings)
        for part in (self._realms, self._policies, self._signalling, self._media):
            part.follow(settings)
        for far_part in (self._far_fix, self._keep_alives, self._refreshing):
            far_part.follow(settings.far_end)
        self._rewriter.follow(quirks)
        self._repairs.follow(quirks, settings.signalling.agent_name)
        self._settings, self._quirks = settings, quirks
        outcome = Outcome(notes=self._reporting.follow(settings, now))
        self._keep_alives.resume(now)
        outcome.commands = self._take_commands()
        return outcome

    # -- time ---------------------------------------------------------------------------------------

    def next_timeout(self) -> float | None:
        """Return when :meth:`handle_timer` is due, None where nothing is planned."""
        return self._deadlines.next()

    def handle_timer(self, now: float) -> Outcome:
        """Do what is due at *now*; where that is much, :meth:`next_timeout` stays in the past."""
        now = self._advance(now)
        outcome = Outcome()
        for table, name in islice(self._deadlines.pop_expired(now), ENDS_AT_ONCE):
            if table == "mapping":
                self._mappings.handle_deadline(name, now)
            elif table == "binding":
                self._registering.handle_deadline(name, now)
            elif table == "call":
                reason = self._flow.handle_deadline(name, now)
                if reason:
                    outcome.notes.append(Note("call-ended", "Call-ID", name.call_id, name.call_id, reason))
            elif table == KEEP_ALIVE:
                packets, notes = self._keep_alives.handle_deadline(name, now)
                outcome.send += packets
                outcome.notes += notes
            elif table == STREAM:
                self._streaming.handle_deadline(outcome, name, now)
            elif self._far_ends.pop_expired(now):
                self._deadlines.set(FAR_ENDS, now + FAR_ENDS_EVERY)
        outcome.commands = self._take_commands()
        return outcome

    def _advance(self, now: float) -> float:
        """Time never runs backwards in here, whatever the shell's clock does."""
        self._now = max(self._now, now)
        return self._now

    # -- what the shell asks --------------------------------------------------------------------------

    def desired(self) -> list[Command]:
        """Return the commands that put all that should stand into an empty kernel."""
        return self._mappings.restate(self._now)

    def flows_of_interest(self) -> Collection[Flow]:
        """Return the conntrack entries whose end or counters natfix wants to know."""
        return self._mappings.by_flow.keys()

    def pop_changes(self) -> list[Change]:
        """Return what the store has to write since the last call."""
        return [*self._memory.pop_changes(), *self._streaming.pop_changes()]

    def forget_changes(self) -> None:
        """Do as :meth:`pop_changes` where nothing is to survive, without making the rows."""
        self._memory.forget_changes()
        self._streaming.changed.clear()

    def calls(self, now: float) -> list[dict[str, Any]]:
        """Return the calls as rows (see :mod:`natfix.listing`)."""
        return calls_as_rows(
            self._calls, self._mappings, self._reporting.refused, self.audio, self._advance(now))

    def registrations(self, now: float) -> list[dict[str, Any]]:
        """Return the bindings as rows."""
        now = self._advance(now)
        return [*registrations_as_rows(self._registrations, self._mappings, now),
                *far_ends_as_rows(self._far_ends, now)]

    def status(self, now: float) -> dict[str, Any]:
        """Return totals and counters."""
        return {
            "outside_address": self._realms.outside_host,
            **self._links.status(),
            **totals(self._calls, self._registrations, self._far_ends, self._mappings, self._media.pool),
            "streams": self._streaming.count(),
            "refused_packets": sum(self._reporting.refused.values()),
            "over_rate": dict((self.quotas.over + Counter(self._reporting.flooding)).most_common(MOST_SHOWN)),
            "policies": dict(self._policies.counts.most_common()),
            "refused_addresses": self._policies.refused,
            "counters": dict(sorted(self.counters.items())),
        }

    def _take_commands(self) -> list[Command]:
        commands, self._mappings.commands = self._mappings.commands, []
        return commands

    def _on_mapping_removed(self, mapping: Mapping, now: float) -> None:
        if mapping.kind is not Kind.SIGNALLING and not mapping.is_own:
            self._media.pool.give_back(mapping.outside.port, next(iter(mapping.remotes), ""), now)
