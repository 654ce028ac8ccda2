"""The loop of the live shell: packets and reports go to the engine, what follows from them is done.

The contract (design, section 3), step by step:

1. wait for packets, an event, a control request, a task of the schedule or ``engine.next_timeout()``;
2. give the engine every packet of one read of the queue, or one report, or the timer; a TCP connection is
   opened in the kernel, and reported, when its SYN-ACK waits;
3. ``kernel.apply`` all commands of that read, in one transaction;
4. give the verdicts, with the engine's packet or the original bytes;
5. send natfix's own packets (keep-alives, answered refreshes, segments), each packet's behind its verdict,
   since the rest of a message that no longer fits its segment has to follow it;
6. then notes to the journal, and soon changed rows to the store, which writes them from its own thread.

Every packet gets a verdict whatever fails. A bug in the engine costs a message its fix, not its way: it
passes untouched, since only policy drops. Where the kernel refuses the commands, the packets that needed
them are dropped (SIP retransmits), as are their repetitions until the kernel is back in line with the engine.
"""

from __future__ import annotations

import logging
import math
import selectors
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Protocol

from natfix.commands import Command, Note, Outcome, Verdict
from natfix.engine import Engine
from natfix.errors import KernelRefused
from natfix.journal import Decision, Journal
from natfix.kernel.base import Kernel, Skeleton
from natfix.message_ids import kind
from natfix.packet import Path
from natfix.queue_reader import BATCH, QueuedPacket, QueueReader, is_cut
from natfix.reports import Report, StreamOpened
from natfix.segment import ACK, SHORTEST, SYN, TCP, segment_from_bytes
from natfix.store import Store

PAUSE = 1.0         # seconds between two attempts at what keeps failing, and between two repairs
LONGEST_PAUSE = 64.0    # seconds; a full conntrack table is not helped by one more resync a second
LONGEST_WAIT = 60.0     # seconds; nothing depends on it
LATE = 0.05         # seconds that what is due waits while packets come
SAVE_AFTER = 0.1    # seconds that changed rows are gathered: a call changes several times in a moment
BEHIND = 32         # full reads of the queue in a row, from which on floods are bounded by less
TIMERS_APART = 0.1  # seconds that what ends is gathered: one transaction for all of it
MAX_KINDS = 100     # kinds of failure that are logged; all are counted
MOST_UNMADE = 4096  # calls that wait for the kernel; what is beyond that goes on as it is

PROTOCOL_AT, UDP = 9, b"\x11"       # of the IPv4 header

NOT_SENT = "the kernel does not let natfix's own packets out (to far phones, in TCP connections): " \
           "does your output chain drop them?"

log = logging.getLogger("natfix")


class Source(Protocol):
    """Something with a file descriptor to wait on."""

    def fileno(self) -> int: ...


class Loop:
    """One engine, one kernel and one queue, and the schedule of everything that is done now and then."""

    def __init__(
        self, engine: Engine, kernel: Kernel, skeleton: Skeleton, reader: QueueReader, store: Store,
        clock: Callable[[], float], selector: selectors.BaseSelector,
    ) -> None:
        self.engine = engine
        self.kernel = kernel
        self.skeleton = skeleton
        self.clock = clock
        self.journal = Journal()
        self.counters: Counter[str] = Counter()
        self._selector = selector
        self._reader = reader
        self._store = store
        self._schedule: dict[Callable[[float], None], float] = {}
        self._repaired = 0.0            # when the kernel was last brought back in line
        self._pause = PAUSE             # until what failed is tried again; doubles while it fails
        self._timer_held = 0.0          # the engine's timer is not called before
        self._known_errors: set[str] = set()
        self._full_reads = 0            # of the queue, in a row
        self._unmade: set[str] = set()  # Call-IDs whose messages name what the kernel has refused
        self._stopping = False
        self._has_failed = False        # since things were last tidied up
        # Called a moment after something was done, and told whether anything has failed meanwhile.
        self.tidy_up: Callable[[bool], None] = _do_nothing
        # Asked about each packet, with its hook, before the engine is; None leaves it to the engine.
        self.gate: Callable[[bytes, str, str], Outcome | None] | None = None
        # Given each packet before anything is done about it.
        self.remember: Callable[[bytes, Path, float], None] = _forget
        self.listen(reader, self._packets_wait)

    # what the rest of the shell uses

    def listen(self, source: Source, callback: Callable[[], None]) -> None:
        """Call *callback* whenever *source* can be read; it must not block."""
        self._selector.register(source.fileno(), selectors.EVENT_READ, lambda _events: callback())

    def call_at(self, when: float, task: Callable[[float], None]) -> None:
        """Call *task* with the time, once, at *when* or soon after; an earlier date it has stands."""
        self._schedule[task] = min(when, self._schedule.get(task, when))

    def report(self, reports: Iterable[Report], now: float) -> None:
        """Tell the engine, and do what follows, in one transaction."""
        outcomes = self._tell(reports, now)
        self._close(outcomes, self._apply(outcomes, now), now)

    def carry_out(self, outcome: Outcome, now: float) -> None:
        """Do what the engine wants done."""
        self._close([outcome], self._apply([outcome], now), now)

    def inform(self, reports: Iterable[Report], now: float) -> None:
        """Tell the engine what was before; a :meth:`repair` has to follow, which makes it true."""
        self._close(self._tell(reports, now), False, now)

    def relive(self, packets: Iterable[tuple[bytes, Path]], now: float) -> None:
        """Show the engine what came just before a crash; a :meth:`repair` has to follow, which makes it true.

        TCP connections of before are reset, so that only UDP is to be known.
        """
        for raw, path in packets:
            if raw[PROTOCOL_AT:PROTOCOL_AT + 1] == UDP:
                self._outcome_of(partial(self.engine.receive_packet, raw, path, now))
        self.journal.tell(self.engine.pop_events())
        self.call_at(now + SAVE_AFTER, self._save)

    def say_farewell(self) -> None:
        """End what cannot go on without natfix; the rules are about to be removed."""
        self.guard(lambda: self._send([Outcome(send=[*self.engine.farewell()])]))

    def stop(self) -> None:
        """End :meth:`run` after the turn it is in."""
        self._stopping = True

    def run(self) -> None:
        """Turn until :meth:`stop`."""
        while not self._stopping:
            patience = self._next_due() - self.clock()
            ready = self._selector.select(max(0.0, min(patience, LONGEST_WAIT)))
            for key, events in ready:
                self.guard(partial(key.data, events))
            if not ready or patience < -LATE:
                self._run_due(self.clock())
        self.guard(partial(self._save, self.clock()))

    def guard(self, action: Callable[[], None]) -> bool:
        """Run *action*; what it raises is counted and logged, and the daemon goes on. True: it raised."""
        try:
            action()
        except Exception as problem:
            self.count_error(problem)
            return True
        return False

    def count_error(self, problem: Exception) -> None:
        """Count what went wrong, and log it once per kind; with a traceback where nobody foresaw it."""
        self._has_failed = True
        if isinstance(problem, KernelRefused):
            self.counters["kernel_refusals"] += 1
            self._log_once(str(problem), f"the kernel refused: {problem}", kind("kernel-refuses"))
        else:
            self.counters["errors"] += 1
            place = traceback.extract_tb(problem.__traceback__)[-1]
            where = f"{type(problem).__name__} at {place.filename}:{place.lineno}"
            self._log_once(where, "internal error (further ones of this kind are only counted)",
                           kind("internal-error"), problem)

    def _log_once(
        self, what: str, text: str, extra: dict[str, str], problem: Exception | None = None,
    ) -> None:
        if what not in self._known_errors and len(self._known_errors) < MAX_KINDS:
            self._known_errors.add(what)
            log.error("%s", text, exc_info=problem, extra=extra)

    # packets

    def _packets_wait(self) -> None:
        batch = self._reader.read()
        self._full_reads = self._full_reads + 1 if len(batch) >= BATCH else 0
        self.engine.quotas.is_behind = self._full_reads >= BEHIND
        if not batch:
            return
        now = self.clock()
        outcomes = [self._decide(packet, now) for packet in batch]
        if self._unmade:
            self._hold_back(outcomes)
        refused = self._apply(outcomes, now)
        for packet, outcome in zip(batch, outcomes, strict=True):
            self._give_verdict(packet, outcome, refused)
            self._send([outcome])
        self.journal.tell(self.engine.pop_events())
        for packet, outcome in zip(batch, outcomes, strict=True):
            self.journal.record(_decision(packet, outcome, refused, now))
        self.call_at(now + SAVE_AFTER, self._save)

    def _decide(self, packet: QueuedPacket, now: float) -> Outcome:
        if _is_syn_ack(packet.raw):
            self.guard(partial(self._open_stream, packet.raw, now))
        path = Path(packet.hook, packet.in_interface, packet.out_interface, packet.mark)
        self.guard(partial(self.remember, packet.raw, path, now))
        return self._outcome_of(partial(self._treat, packet.raw, path, now))

    def _hold_back(self, outcomes: Sequence[Outcome]) -> None:
        """Drop what is repeated for want of what the kernel still does not hold: a call without its ports
        comes about without audio."""
        for outcome in outcomes:
            if outcome.call_id in self._unmade and any(note.rule == "repeated" for note in outcome.notes):
                outcome.verdict = Verdict.DROP
                outcome.notes.append(Note("unmade", reason="the kernel does not hold yet what it names"))

    def _treat(self, raw: bytes, path: Path, now: float) -> Outcome:
        refusal = self.gate(raw, path.hook, path.in_interface) if self.gate is not None else None
        return refusal or self.engine.receive_packet(raw, path, now)

    def _open_stream(self, raw: bytes, now: float) -> None:
        """Have the kernel leave natfix the numbers of a connection, and tell the engine its NAT."""
        answer = segment_from_bytes(raw)
        flow = self.kernel.open_stream(answer.source, answer.destination)
        if flow is not None:
            self.report([StreamOpened(flow)], now)

    def _outcome_of(self, question: Callable[[], Outcome]) -> Outcome:
        """Ask the engine; a bug of its own means "untouched"."""
        try:
            return question()
        except Exception as problem:
            self.count_error(problem)
            return Outcome(notes=[Note("internal-error", reason=f"left alone: {problem!r}")])

    def _give_verdict(self, packet: QueuedPacket, outcome: Outcome, refused: bool) -> None:
        self.counters["packets"] += 1
        if _is_dropped(outcome, refused):
            self.counters["dropped"] += 1
            packet.drop()
        elif outcome.packet is None:
            self.counters["cut"] += is_cut(packet.raw)
            packet.accept()
        else:
            self.counters["changed"] += 1
            packet.accept(outcome.packet)

    # what follows

    def _tell(self, reports: Iterable[Report], now: float) -> list[Outcome]:
        told = [partial(self.engine.handle_report, report, now) for report in reports]
        return [self._outcome_of(question) for question in told]

    def _send(self, outcomes: Sequence[Outcome]) -> None:
        """Send natfix's own packets; one that is lost here is lost like one on the way."""
        if packets := [packet for outcome in outcomes for packet in outcome.send]:
            self.counters["sent"] += len(packets)
            failed = self.kernel.send(packets)
            self.counters["not_sent"] += failed
            if failed:
                self._log_once("send", NOT_SENT, kind("not-sent"))

    def _close(self, outcomes: Sequence[Outcome], refused: bool, now: float) -> None:
        self._send(outcomes)
        self.journal.tell(self.engine.pop_events())
        for outcome in outcomes:
            self.journal.record(Decision(now, "", outcome, refused and bool(outcome.commands)))
        self.call_at(now + SAVE_AFTER, self._save)

    def _apply(self, outcomes: Sequence[Outcome], now: float) -> bool:
        """Hand all commands of *outcomes* to the kernel at once; True where it refused them."""
        commands: list[Command] = [command for outcome in outcomes for command in outcome.commands]
        if not commands:
            return False
        try:
            self.kernel.apply(commands)
        except Exception as problem:
            self.count_error(problem)
        else:
            return False
        if len(self._unmade) < MOST_UNMADE:
            self._unmade.update(outcome.call_id for outcome in outcomes if outcome.commands)
        self.call_at(max(now, self._repaired + PAUSE), self.repair)     # after the verdicts
        return True

    def _save(self, _now: float) -> None:
        if changes := self.engine.pop_changes():
            self._store.put(changes)
        self.tidy_up(self._has_failed)
        self._has_failed = False

    # keeping the kernel in line

    def repair(self, now: float) -> None:
        """Make the kernel hold what the engine wants; the table is put back where it has gone."""
        self._repaired = now
        self.counters["resyncs"] += 1
        try:
            self.kernel.resync(self.engine.desired())
            self._pause = PAUSE
            self._unmade.clear()
        except KernelRefused as problem:
            self.count_error(problem)
            self.restore_rules(now)

    def restore_rules(self, now: float) -> None:
        """Put natfix's own table back with everything in it; tried again until it succeeds."""
        self.call_at(now + self._pause, self.restore_rules)
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        try:
            self.kernel.install(self.skeleton)
            self.kernel.resync(self.engine.desired())
        except KernelRefused as problem:
            self.count_error(problem)
            return
        del self._schedule[self.restore_rules]
        self._pause = PAUSE
        self._unmade.clear()
        self.counters["rules_restored"] += 1

    # time

    def _next_due(self) -> float:
        """Return when something is to be done."""
        return min(self._timer_due(), min(self._schedule.values(), default=math.inf))

    def _timer_due(self) -> float:
        timer = self.engine.next_timeout()
        return math.inf if timer is None else max(timer, self._timer_held)

    def _run_due(self, now: float) -> None:
        """Do what has been due for longest, if anything is; before the next, packets have their turn."""
        timer, due = self._timer_due(), min(self._schedule.values(), default=math.inf)
        if min(timer, due) > now:
            return
        if timer <= due:
            self._timer_held = now + PAUSE      # stays so where the engine fails, lest it fail without end
            self.guard(partial(self._time_is_up, now))
        else:
            task = min(self._schedule, key=self._schedule.__getitem__)
            del self._schedule[task]
            self.guard(partial(task, now))

    def _time_is_up(self, now: float) -> None:
        outcome = self.engine.handle_timer(now)
        self._close([outcome], self._apply([outcome], now), now)
        timer = self.engine.next_timeout()
        is_behind = timer is not None and timer <= now
        self._timer_held = now if is_behind else now + TIMERS_APART


def _do_nothing(_has_failed: bool) -> None:
    pass


def _forget(_raw: bytes, _path: Path, _now: float) -> None:
    pass


def _is_syn_ack(raw: bytes) -> bool:
    """Tell whether a connection is being accepted; cheap, since every packet is asked."""
    if len(raw) < SHORTEST or raw[9] != TCP:
        return False
    flags_at = (raw[0] & 15) * 4 + 13
    return flags_at < len(raw) and raw[flags_at] & (SYN | ACK) == SYN | ACK


def _is_dropped(outcome: Outcome, refused: bool) -> bool:
    return outcome.verdict is Verdict.DROP or (refused and bool(outcome.commands))


def _decision(packet: QueuedPacket, outcome: Outcome, refused: bool, now: float) -> Decision:
    where = f"{packet.hook} {packet.in_interface or '-'} {packet.out_interface or '-'}"
    return Decision(now, where, outcome, _is_dropped(outcome, refused), packet.raw)
