"""The live shell: `natfix run`. Starts what :mod:`natfix.loop` drives, and ends it.

The order of a start matters. Whatever can refuse is asked first; then the queue is bound, and only then
the rules are installed that lead packets into it; what ran before natfix, or under a natfix that died, is
taken up; then the loop turns. SIGTERM ends the daemon and leaves rules, maps and entries in the kernel:
calls keep their audio, and the next natfix goes on from there. `natfix down` is what removes.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from natfix import __version__, systemd
from natfix.advertiser import ASK_EVERY, Advertiser
from natfix.config import Settings
from natfix.control import ControlServer, Handler, Streamer
from natfix.drain import Drain
from natfix.engine import Engine
from natfix.errors import DONE
from natfix.exporting import Exporter
from natfix.findings import Host, Question
from natfix.hook import Hook
from natfix.interfaces import addresses_report, links_by_program
from natfix.journal import set_up_log
from natfix.kernel.advertise import AdvertisedFlows, AdvertisedKernel
from natfix.kernel.base import Kernel
from natfix.kernel.events import ConntrackEvents, NewMediaFlows, NftEvents
from natfix.kernel.netfilter import NetfilterKernel
from natfix.kernel.observed import ObservedKernel
from natfix.log_reader import LogReader
from natfix.loop import Loop
from natfix.message_ids import kind
from natfix.order import Mode, NotConfirmed, Order, read_order
from natfix.parachute import Parachute
from natfix.queue_reader import NetfilterQueueReader, QueueReader, queue_counters
from natfix.quirks import Quirks
from natfix.recent import SUFFIX, Recent
from natfix.reload import Read, Reload, unreadable
from natfix.removal import remove_files
from natfix.reports import AddressesChanged, Change, FlowBegan, Restored
from natfix.resolver import resolver_from_settings
from natfix.seeing import Seeing
from natfix.shortages import Shortages
from natfix.startup import (
    flows_to_adopt,
    refuse_what_cannot_be,
    refuse_without_rights,
    skeleton_from_settings,
)
from natfix.store import IN_MEMORY, Store
from natfix.timekeeping import Clock, Timekeeper, boot_id
from natfix.upkeep import Facts, FlowEvents, Upkeep
from natfix.watch import LinkEvents, ports_in_use

ACCOUNTING = "accounting"   # a row of the state file: a firewall's restart may flush what the table remembers
SWITCH_INTERVAL = 0.0005    # seconds that a thread may keep a packet waiting for the interpreter
M_MMAP_THRESHOLD, HUGE = -3, 16384      # of malloc.h; bytes

log = logging.getLogger("natfix")


def run(settings: Settings, quirks: Quirks, host: Host | None = None, observe: bool = False,
        read: Read = unreadable) -> int:
    """Run the daemon until SIGTERM, SIGINT or `natfix down`; return its exit code.

    *host* is the machine as `natfix check` sees it; to *observe* is to look on and change nothing, which may
    also be ordered (:mod:`natfix.order`); *read* reads the configuration for `natfix reload`. Raises
    NatfixError, with one sentence, where natfix cannot start; nothing is half-installed then.
    """
    set_up_log(settings.daemon.log_level)
    keep_the_heap_whole()
    with ExitStack() as held:
        host = host or Host(settings, links=Question(links_by_program))
        try:
            daemon = _Daemon(settings, quirks, host, held, observe, read)
        except NotConfirmed as problem:
            # A service rests: it must not be taken for one that fails, and be started again and again.
            if not systemd.notify("READY=1", "STATUS=not confirmed, so not switched on"):
                raise
            log.warning("natfix: %s", problem, extra=kind("not-confirmed"))
            return DONE
        daemon.begin()
        daemon.loop.run()
        daemon.end()
        systemd.notify("STOPPING=1")
    if daemon.parachute.is_open:
        remove_files(settings.daemon)
        log.info("natfix: ended; all that it made is gone. `natfix up` begins anew", extra=kind("ended"))
    else:
        log.info("natfix: ended; its rules, maps and entries stay until `natfix down`", extra=kind("ended"))
    return DONE


class _Daemon:
    """All parts of a running natfix; each is let go in reverse order, the control socket last."""

    def __init__(
        self, settings: Settings, quirks: Quirks, host: Host, held: ExitStack, observe: bool, read: Read,
    ) -> None:
        selector = selectors.DefaultSelector()
        signals = _Signals()
        handlers: dict[str, Handler] = {}
        streamers: dict[str, Streamer] = {}
        refuse_without_rights()
        self._settings = settings
        self._addresses = addresses_report(settings, host.links())
        server = ControlServer(settings.daemon.control_socket, handlers, selector, streamers)
        held.callback(server.close)
        order = Order(Mode.OBSERVE) if observe else read_order(settings.daemon.state_file)
        self._observes = order.mode is Mode.OBSERVE
        if not self._observes:
            refuse_what_cannot_be(order, settings, host)
        make_reader = LogReader if self._observes else NetfilterQueueReader
        self._reader: QueueReader = make_reader(settings.signalling.queue)
        held.callback(self._reader.close)
        self._store = Store(IN_MEMORY if self._observes else settings.daemon.state_file)
        held.callback(self._store.close)
        self._rows = self._store.load()
        self._recent = self._open_recent(held)
        self._advertiser = Advertiser(settings.outside.advertise, self._rows, self._store.put)
        self._addresses = self._advertiser.complete(self._addresses)
        self._resolver = resolver_from_settings(settings, self._rows, self._store.put)
        mark, clock = settings.signalling.mark, Clock(self._rows, boot_id())
        netfilter = self._netfilter = ObservedKernel(mark, clock) if self._observes else NetfilterKernel(mark)
        held.callback(netfilter.close)
        self._kernel: Kernel = netfilter
        self._ports = ports_in_use(self._addresses, host.ruleset)
        self._skeleton = skeleton_from_settings(settings, self._addresses)
        ended: FlowEvents = ConntrackEvents()
        self._new_media = NewMediaFlows(settings.media.ports)
        begun: FlowEvents = self._new_media
        facts = Facts(self._look_at_links, ports_in_use, ASK_EVERY if self._advertiser.asks else 0.0)
        if settings.outside.advertise:
            kernel = AdvertisedKernel(netfilter, self._addresses)
            self._kernel, facts = kernel, replace(facts, follow=kernel.follow)
            ended, begun = AdvertisedFlows(ended, kernel), AdvertisedFlows(begun, kernel)
        self.loop = Loop(Engine(settings, quirks), self._kernel, self._skeleton, self._reader, self._store,
                         clock, selector)
        self.parachute = Parachute(self.loop, settings.daemon.state_file, order.seconds)
        self._started = self.loop.clock()
        self._upkeep = Upkeep(
            self.loop, facts, NftEvents(netfilter), ended, begun, LinkEvents(), self._reader, self._addresses)
        self._seeing = Seeing(self.loop, self._upkeep)
        self._shortages = Shortages(self.loop, self._store)
        self._timekeeper = Timekeeper(self.loop, clock, self._store.put)
        self._exporter, self._hook = Exporter(settings.export), Hook(settings.export)
        self._tell_others(held)
        handlers["export"] = self._exporter.answer
        handlers.update({**self._handlers(), **self._seeing.handlers()})
        streamers.update(self._seeing.streamers())
        self._drain = Drain(self.loop)
        handlers["drain"] = self._drain.ask
        self._reload = Reload(read, settings, quirks, self.loop, self.parachute,
                              (self._follow, self._resolver.follow))
        handlers["reload"] = self._reload
        signals.tell(self.loop, self._reload.on_hangup)

    def _open_recent(self, held: ExitStack) -> Recent:
        """Return the packets of the last moments; an observer has none, since it changes nothing."""
        found = Recent("" if self._observes else self._settings.daemon.control_socket + SUFFIX)
        held.callback(found.close)
        return found

    def _tell_others(self, held: ExitStack) -> None:
        """Have those whom [export] names get copies, and events."""
        held.callback(self._exporter.close)
        held.callback(self._hook.close)
        self.loop.journal.decision_listeners += self._exporter.listeners()
        self._hook.watch(self._seeing.monitor)

    def _follow(self, settings: Settings) -> None:
        """Take other settings, in all that is neither rules nor engine."""
        self._settings = settings
        set_up_log(settings.daemon.log_level)
        self._new_media.follow(settings.media.ports)
        self._upkeep.look_again()

    def _look_at_links(self) -> AddressesChanged:
        """Return the links as they are now; this takes long."""
        return self._advertiser.complete(addresses_report(self._settings, links_by_program()))

    def begin(self) -> None:
        """Take up what was before, install the rules, and be ready."""
        now = self.loop.clock()
        self.loop.inform([
            self._ports,        # first: trunks choose their ports when they hear of the address
            self._addresses,
            self._resolver.known(),
            Restored(tuple(self._kernel.mappings()), self._rows),
        ], now)
        self._relive(now)
        self._netfilter.accounting_was_off = any(row.table == ACCOUNTING for row in self._rows)
        self._rows = ()
        self._upkeep.begin(now)
        self._seeing.begin(now)
        self._shortages.begin(now)
        self._timekeeper.begin(now)
        self._resolver.begin(self.loop, now)
        self.parachute.begin(now)
        self._kernel.install(self.loop.skeleton)
        if self._netfilter.accounting_was_off:
            self._store.put([Change(ACCOUNTING, "before", {"value": 0})])
        # From here on nothing may end the start: the rules lead SIP to a daemon that has to be there.
        self.loop.guard(partial(self._adopt, now))
        self.loop.guard(partial(self.loop.repair, now))
        _put_packets_first(self.loop)
        log.info("natfix: ready", extra=kind("ready"))
        systemd.Heartbeat(self.loop.call_at, self._status_line).begin(self.loop.clock())

    def _relive(self, now: float) -> None:
        """Show the engine what came just before a crash."""
        packets = self._recent.packets(now)
        self._recent.begin()        # first: the one that has ended natfix must not do so at each start
        self.loop.relive([(seen.raw, seen.path) for seen in packets], now)
        for seen in packets:
            self._recent.put(seen.raw, seen.path, now)
        self.loop.remember = self._recent.put

    def end(self) -> None:
        """Take back what is not to stay: an observer's rules, and a trial that nobody has confirmed."""
        self._recent.begin()
        self.parachute.take_back()
        if self._observes:
            self._kernel.remove()

    def _adopt(self, now: float) -> None:
        flows = self._kernel.flows()
        self.loop.inform(flows_to_adopt(flows, self._skeleton, self._addresses), now)
        self.loop.inform([FlowBegan(state.flow) for state in flows], now)

    # what the control socket asks

    def _handlers(self) -> dict[str, Handler]:
        return {
            "calls": self._calls,
            "confirm": self.parachute.confirm,
            "ping": self._ping,
            "registrations": self._registrations,
            "status": self._status,
            "stop": self._stop,
        }

    def _ping(self, _request: dict[str, Any]) -> dict[str, Any]:
        return {"version": __version__, "pid": os.getpid()}

    def _status(self, request: dict[str, Any]) -> dict[str, Any]:
        now = self.loop.clock()
        self._upkeep.look_at_floods(now)
        number = self._skeleton.queue
        return {
            **self._ping(request),
            "mode": self._mode().value,
            **self._time_to_confirm(now),
            "uptime": round(now - self._started, 1),
            "queue": {"number": number, "overflows": self._reader.overflows, **queue_counters(number)},
            "shell": {**dict(sorted(self.loop.counters.items())),
                      "entries_refused": self._kernel.entries_refused},
            "export": {**self._exporter.counters, **self._hook.counters},
            "state_file": {"path": self._store.path, "failed_writes": self._store.failures},
            "names": self._resolver.status(now),
            **self._seeing.status(),
            **self._shortages.status(),
            **self.loop.engine.status(now),
        }

    def _mode(self) -> Mode:
        if self._observes:
            return Mode.OBSERVE
        if self.parachute.is_pending:
            return Mode.TRIAL
        return Mode.DRAIN if self._drain.is_on else Mode.FIX

    def _time_to_confirm(self, now: float) -> dict[str, Any]:
        return {"confirm_in": round(self.parachute.seconds_left(now), 1)} if self.parachute.is_pending else {}

    def _status_line(self) -> str:
        """Return what `systemctl status` shows; it is asked often, so it counts nothing."""
        seen = self.loop.counters
        return f"{seen['packets']} SIP packets, {seen['changed']} changed, {seen['dropped']} dropped"

    def _calls(self, _request: dict[str, Any]) -> dict[str, Any]:
        now = self.loop.clock()
        self._upkeep.count_now(now)
        return {"calls": self.loop.engine.calls(now)}

    def _registrations(self, _request: dict[str, Any]) -> dict[str, Any]:
        return {"registrations": self.loop.engine.registrations(self.loop.clock())}

    def _stop(self, request: dict[str, Any]) -> dict[str, Any]:
        log.info("natfix: asked to stop", extra=kind("ending"))
        if request.get("for_good") is True:
            self.loop.say_farewell()
        self.loop.stop()
        return self._ping(request)


class _Signals:
    """SIGTERM and SIGINT end the loop, SIGHUP has the configuration read again; caught from the start on."""

    def __init__(self) -> None:
        self._ears, mouth = socket.socketpair()
        for end in (self._ears, mouth):
            end.setblocking(False)
        signal.set_wakeup_fd(mouth.detach())
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda _number, _frame: None)

    def tell(self, loop: Loop, on_hangup: Callable[[], None]) -> None:
        """Have *loop* end on a signal, also on one that has come already; *on_hangup* is for SIGHUP."""
        loop.listen(self._ears, lambda: self._take(loop, on_hangup))

    def _take(self, loop: Loop, on_hangup: Callable[[], None]) -> None:
        for number in self._ears.recv(64):
            if number == signal.SIGHUP:
                on_hangup()
            else:
                log.info("natfix: ends on %s", signal.Signals(number).name, extra=kind("ending"))
                loop.stop()


def _put_packets_first(loop: Loop) -> None:
    """Keep the garbage collector and the writer's thread from holding packets up."""
    sys.setswitchinterval(SWITCH_INTERVAL)
    gc.disable()
    gc.collect()
    gc.freeze()
    loop.tidy_up = tidy_up


def keep_the_heap_whole() -> None:
    """Have the C library ask the system for huge blocks one by one, and give them back.

    A message of 60 kB leaves a hole among small blocks that live on, which fills with others of those: in
    80,000 broken messages (tools/flood) the heap came to 23 MB and grew on, and with this it stays at 13.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)       # glibc's; musl gives back by itself
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, HUGE)


def tidy_up(has_failed: bool) -> None:
    """Have the garbage collector never look again at what was made until now.

    Calls leave no garbage cycles behind, so collecting finds nothing, and takes 4 ms of a busy moment
    (100 ms for everything at 10,000 calls). Tracebacks do: where something *has_failed* the objects made
    since the last time are collected.
    """
    if has_failed:
        gc.collect(0)
    gc.freeze()
