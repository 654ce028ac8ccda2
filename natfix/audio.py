"""Does audio flow both ways? Told from the kernel's packet counters, call by call.

natfix never sees a media packet. What it knows of a stream is what both sides have agreed on, and how the
counters of its conntrack entries move. The rules, so that a healthy call is never called one-way:

- A direction counts only while both sides want it (sendrecv, sendonly ...; RFC 3264, section 5.1 and 8.4): a
  call on hold, before its answer, or without counted entries (released media) is not judged.
- A stream of which nothing has come for PATIENCE seconds since the answer, or since the descriptions
  changed, while the other direction flows, is one-way. Where neither has come, BOTH seconds are waited for.
- A stream that came and stopped may be a pause: a sender that suppresses silence (RFC 3389), or a mailbox
  that records. Its RTCP still comes then, at least every 6.2 s (RFC 3550, section 6.3.1), so RTCP_PATIENCE
  seconds without RTP and RTCP are waited for; where RTCP never came, a stream that never paused before is
  one-way after PATIENCE seconds, and one that did is not judged.
- Packets of strangers that are refused at the stream's outside endpoint while nothing else arrives are proof.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from natfix.address import Endpoint
from natfix.commands import Flow
from natfix.dialogs import Call, CallKey, Line, Side, State
from natfix.far_signs import is_unreachable
from natfix.happenings import Happenings
from natfix.mappings import Mapping as NatMapping
from natfix.mappings import Mappings

PATIENCE = 3.0          # seconds without a packet that was to come
BOTH = 8.0              # the same where nothing comes either way: whoever answered may not be ready
RTCP_PATIENCE = 6.5     # seconds without RTCP; the longest interval is 6.2 s
LISTENER = 20.0         # seconds for a sender whose RTCP comes: it may have nothing to say from the start
SOON, REGULAR = 0.75, 2.0       # seconds between two looks: at what is new or suspicious, at all else
YOUNG = 10.0            # seconds that a call is new
FLOWING = 2.5           # seconds within which a stream has moved that flows
STEADY = 0.85           # of its highest rate: a stream that falls below, and goes on, makes pauses
WINDOWS = 3             # looks after which a stream may be called steady
SHORTEST_WINDOW = 0.5   # seconds over which a rate means something
PROOF = 5               # refused packets; fewer may be a scanner's
MOST_TOLD = 4           # alarms of one direction of one call; what flaps is told no more

MOST_AT_ONCE = 256      # calls of one look
FEW = 400               # calls up to which RTCP is counted at every look, beyond only where it matters

SENDING = frozenset({"sendrecv", "sendonly"})
RECEIVING = frozenset({"sendrecv", "recvonly"})
OUT, IN = 0, 1
NAMES = ("out", "in")


class Cause(StrEnum):
    """Why a direction has no audio."""

    NOTHING = "nothing-arrives"
    REFUSED = "refused"
    PRIVATE = "private-address"


@dataclass(slots=True, eq=False)
class Way:
    """One direction of a stream."""

    count: int = 0              # packets at the last look
    moved_at: float = 0.0       # when it moved last, or was expected to begin
    came: bool = False          # a packet was counted since it is expected
    rate: float = 0.0           # packets a second at the last look
    top: float = 0.0            # the highest rate seen
    windows: int = 0            # looks at which it moved
    was_low: bool = False
    is_steady: bool = True      # it never made a pause and went on
    rtcp: int = -1              # RTCP packets at the last look; -1: not counted
    rtcp_at: float = 0.0        # when that moved, or was first looked at
    has_rtcp: bool = False      # RTCP was counted since the stream is expected
    refused: int = 0            # strangers' packets when it last moved
    cause: Cause | None = None  # the alarm, while it stands
    why: str = ""               # in a sentence
    told: int = 0

    def expect(self, now: float, refused: int) -> None:
        """Begin anew: from now on something is to come. An alarm stands until something does."""
        self.moved_at, self.came, self.has_rtcp, self.refused = now, False, False, refused
        self.rtcp, self.was_low = -1, False

    def take(self, count: int, rtcp: int, before: float, now: float, refused: int) -> None:
        """Take the counters as they are *now*; *before* is when they were looked at last."""
        delta, span = count - self.count, max(now - before, 0.001)
        self.count, self.rate = count, max(delta, 0) / span
        if delta < 0:                   # the entry was made anew
            self.moved_at = now
        elif delta:
            self._move(delta, span, before, now)
            self.refused = refused
        if rtcp < self.rtcp or self.rtcp < 0:
            self.rtcp_at = now
        elif rtcp > self.rtcp:
            self.rtcp_at, self.has_rtcp = now, True
        self.rtcp = rtcp

    def _move(self, delta: int, span: float, before: float, now: float) -> None:
        self.came = True
        if span < SHORTEST_WINDOW:
            self.moved_at = now
            return
        is_low = self.rate < STEADY * self.top
        # What stopped within this window, at its usual rate, stopped here.
        self.moved_at = before + delta / self.top if is_low else now
        self.is_steady = self.is_steady and not (self.was_low and self.windows > 1)
        self.was_low, self.top = is_low, max(self.top, self.rate)
        self.windows += 1

    def flows(self, now: float) -> bool:
        """Tell whether packets come."""
        return self.came and now - self.moved_at < FLOWING


class Agreed(NamedTuple):
    """The audio stream that both sides have agreed on."""

    ours: Line
    theirs: Line
    out_wanted: bool
    in_wanted: bool

    def wanted(self, direction: int) -> bool:
        """Tell whether both sides want this direction."""
        return self.in_wanted if direction == IN else self.out_wanted


@dataclass(slots=True, eq=False)
class Watch:
    """What is known of one call's audio."""

    call: Call
    since: float                        # when its streams were last agreed on
    read_at: float = 0.0
    next_at: float = 0.0
    agreed: Agreed | None = None
    is_counted: bool = False
    ways: tuple[Way, Way] = field(default_factory=lambda: (Way(), Way()))

    @property
    def is_suspicious(self) -> bool:
        """Tell whether a direction that is wanted does not flow, so that it is worth another look."""
        agreed = self.agreed
        return agreed is not None and any(
            agreed.wanted(index) and (way.cause is not None or not way.came or way.was_low or not way.rate)
            for index, way in enumerate(self.ways))


class Audio:
    """Watches the audio of all calls that were answered."""

    def __init__(self, mappings: Mappings, happened: Happenings, counters: Counter[str]) -> None:
        self._mappings = mappings
        self._happened = happened
        self._counters = counters
        self._soon: OrderedDict[CallKey, Watch] = OrderedDict()
        self._regular: OrderedDict[CallKey, Watch] = OrderedDict()
        self._chosen: list[Watch] = []
        happened.on_call = self._on_call

    def __len__(self) -> int:
        return len(self._soon) + len(self._regular)

    @property
    def is_suspicious(self) -> bool:
        """Tell whether it matters how many packets of strangers were refused."""
        return bool(self._soon)

    def _on_call(self, kind: str, call: Call, now: float) -> None:
        if kind in ("answered", "resumed") and call.method == "INVITE" and call.state is State.CONFIRMED:
            self._soon[call.key] = Watch(call, now, now, now)
            self._soon.move_to_end(call.key, last=False)
        elif kind == "ended":
            self._soon.pop(call.key, None)
            self._regular.pop(call.key, None)

    def find(self, key: CallKey) -> Watch | None:
        """Return what is known of a call's audio, None where it is not watched."""
        return self._soon.get(key) or self._regular.get(key)

    def alarms(self) -> list[Watch]:
        """Return the calls that have an alarm now."""
        return [watch for watch in self._soon.values() if any(way.cause for way in watch.ways)]

    # -- reading --------------------------------------------------------------------------------

    def due(self, now: float, most: int) -> list[Flow]:
        """Return flows to be counted now, of the calls that it is time for, about *most* of them.

        What is new or suspicious comes first. :meth:`judge` is to be called when they are counted.
        """
        flows: list[Flow] = []
        self._chosen = []
        for waiting in (self._soon, self._regular):
            for watch in _oldest(waiting, now):
                if len(flows) >= most:
                    return flows
                waiting.move_to_end(watch.call.key)
                self._chosen.append(watch)
                flows += self._flows_of(watch)
        return flows

    def _flows_of(self, watch: Watch) -> list[Flow]:
        agreed = agreed_by(watch.call)
        if agreed is None:
            return []
        with_rtcp = watch.is_suspicious or len(self) <= FEW
        ends = (agreed.ours.rtp, agreed.ours.rtcp) if with_rtcp else (agreed.ours.rtp,)
        return [flow for end in ends for flow in self._held_flows(watch.call, end)]

    def _held_flows(self, call: Call, inside: Endpoint | None) -> list[Flow]:
        mapping = self._mappings.find(inside) if inside else None
        return [flow for flow, opened in mapping.flows.items()
                if call.holder in opened.holders or opened.began_by_itself] if mapping else []

    def flows_of_ended(self, call: Call) -> list[Flow]:
        """Return the entries of all audio that *call* has had, while it holds them: 2 s from its end."""
        return [flow for end in _audio_ends(call) for flow in self._held_flows(call, end)]

    def packets_of(self, call: Call) -> tuple[int, int] | None:
        """Return the packets of all audio of *call*, out and in, as counted last; None where nobody did."""
        sums = [each for end in _audio_ends(call) if (each := self._sum(call, end)) is not None]
        return (sum(out for out, _ in sums), sum(back for _, back in sums)) if sums else None

    # -- judging --------------------------------------------------------------------------------

    def judge(self, now: float, refused: Mapping[Endpoint, int]) -> None:
        """Judge the calls of the last :meth:`due`, now that their flows are counted; *refused* are packets
        of strangers, by outside endpoint."""
        for watch in self._chosen:
            key = watch.call.key
            if self._soon.pop(key, None) is None and self._regular.pop(key, None) is None:
                continue        # it has ended meanwhile
            self._look(watch, now, refused)
            is_soon = now < watch.since + YOUNG or watch.is_suspicious
            watch.next_at = now + (SOON if is_soon else REGULAR)
            (self._soon if is_soon else self._regular)[key] = watch
        self._chosen = []

    def _look(self, watch: Watch, now: float, refused: Mapping[Endpoint, int]) -> None:
        call, agreed = watch.call, agreed_by(watch.call)
        mapping = self._mappings.find(agreed.ours.rtp) if agreed and agreed.ours.rtp else None
        strangers = refused.get(mapping.outside, 0) if mapping else 0
        counts = self._counts(call, agreed, mapping)
        if agreed != watch.agreed:
            watch.agreed, watch.since = agreed, now if watch.agreed else watch.since
            for way in watch.ways:
                way.expect(watch.since, strangers)
            if counts is not None:      # what was counted before is early media, or of the last description
                watch.ways[OUT].count, watch.ways[IN].count = counts
        watch.is_counted = counts is not None
        if agreed is not None and counts is not None and mapping is not None:
            rtcp = self._sum(call, agreed.ours.rtcp) or (-1, -1)
            for way, count, reports in zip(watch.ways, counts, rtcp, strict=True):
                way.take(count, reports, watch.read_at, now, strangers)
            if not any(dialog.proposed for dialog in call.live_dialogs()):
                self._judge_out(watch, agreed, mapping, now)
                self._judge_in(watch, agreed, now, strangers)
        else:
            self._clear(watch, (OUT, IN), now, "nothing is to come")
        watch.read_at = now

    def _counts(
        self, call: Call, agreed: Agreed | None, mapping: NatMapping | None,
    ) -> tuple[int, int] | None:
        """Return the packets out and in; None where nobody counts them."""
        if agreed is None or mapping is None:
            return None
        counted = self._sum(call, agreed.ours.rtp)
        if counted is None and self._is_unlearnt(agreed.theirs):
            return 0, 0         # a far UA whose first packet would have led to an entry
        return counted

    def _sum(self, call: Call, inside: Endpoint | None) -> tuple[int, int] | None:
        flows = self._held_flows(call, inside)
        packets = [self._mappings.by_flow[flow].flows[flow].packets for flow in flows
                   if flow in self._mappings.by_flow]
        counted = [each for each in packets if each[0] >= 0]
        return (sum(out for out, _ in counted), sum(back for _, back in counted)) if counted else None

    def _is_unlearnt(self, line: Line) -> bool:
        other = self._mappings.find_outside(line.rtp) if line.rtp else None
        return other is not None and other.relay is not None and other.relay.source is None

    def _judge_out(self, watch: Watch, agreed: Agreed, mapping: NatMapping, now: float) -> None:
        way = watch.ways[OUT]
        remote = agreed.theirs.rtp
        assert remote is not None
        if not agreed.out_wanted:
            self._clear(watch, (OUT,), now, "it is on hold")
        elif is_unreachable(remote.host, watch.call.peer.host) and way.came:
            has_answered = any(opened.packets[IN] > 0 for flow, opened in mapping.flows.items()
                               if flow.destination == remote)
            if has_answered:
                self._clear(watch, (OUT,), now, "the address answers")
            elif now - watch.since >= PATIENCE:
                self._raise(watch, OUT, Cause.PRIVATE, now,
                            f"audio leaves to {remote}, a private address that nobody outside can reach")
        elif not self._is_unlearnt(agreed.theirs):
            self._judge_silence(watch, OUT, now, f"nothing arrives from inside {agreed.ours.rtp}")

    def _judge_in(self, watch: Watch, agreed: Agreed, now: float, strangers: int) -> None:
        way = watch.ways[IN]
        if not agreed.in_wanted:
            self._clear(watch, (IN,), now, "it is on hold")
            return
        refused = strangers - way.refused
        if refused >= PROOF and now - way.moved_at >= PATIENCE:
            self._raise(watch, IN, Cause.REFUSED, now,
                        f"{refused} packets came from elsewhere than {agreed.theirs.rtp}, and were refused")
        else:
            self._judge_silence(watch, IN, now, f"nothing arrives from outside {agreed.theirs.rtp}")

    def _judge_silence(self, watch: Watch, direction: int, now: float, why: str) -> None:
        way, other = watch.ways[direction], watch.ways[1 - direction]
        silent = now - way.moved_at
        if way.cause is not None and way.came and silent < PATIENCE:
            self._clear(watch, (direction,), now, "it flows again")
        elif silent >= self._patience(watch, way, other, now):
            self._raise(watch, direction, Cause.NOTHING, now, why)

    def _patience(self, watch: Watch, way: Way, other: Way, now: float) -> float:
        """Return how long *way* may be silent before that is a fault."""
        if not way.came:
            if way.has_rtcp or not way.is_steady:
                return LISTENER
            is_known = watch.agreed is not None and not self._is_unlearnt(watch.agreed.theirs)
            return PATIENCE if other.flows(now) or not is_known else BOTH
        if not other.flows(now) or (way.rate and not way.was_low):
            return float("inf")
        if self._may_have_rtcp(watch, way):
            return RTCP_PATIENCE if now - way.rtcp_at >= RTCP_PATIENCE else float("inf")
        return PATIENCE if way.is_steady and way.windows >= WINDOWS else float("inf")

    def _may_have_rtcp(self, watch: Watch, way: Way) -> bool:
        """Tell whether RTCP would tell a pause: it came before, or shares the stream's port (RFC 5761)."""
        assert watch.agreed is not None
        ours, theirs = watch.agreed.ours, watch.agreed.theirs
        is_shared = ours.rtcp is None or ours.rtcp == ours.rtp or (ours.is_muxed and theirs.is_muxed)
        return is_shared or way.rtcp > 0

    # -- alarms -----------------------------------------------------------------------------------

    def _raise(self, watch: Watch, direction: int, cause: Cause, now: float, why: str) -> None:
        way = watch.ways[direction]
        if way.cause is cause:
            return
        way.cause, way.why = cause, why
        way.told += 1
        self._counters["one-way alarms"] += 1
        if way.told <= MOST_TOLD:
            self._happened.of_call("alarm", watch.call, now, direction=NAMES[direction], cause=cause.value,
                                   media="audio", why=why, nth=way.told)

    def _clear(self, watch: Watch, directions: Iterable[int], now: float, why: str) -> None:
        for direction in directions:
            way = watch.ways[direction]
            if way.cause is not None:
                way.cause = None
                if way.told <= MOST_TOLD:
                    self._happened.of_call("alarm-over", watch.call, now, direction=NAMES[direction],
                                           media="audio", why=why, nth=way.told)

    def row(self, key: CallKey) -> dict[str, Any] | None:
        """Return what is known of a call's audio, JSON-able; None where it is not watched."""
        watch = self.find(key)
        return row_from_watch(watch) if watch is not None else None


def agreed_by(call: Call) -> Agreed | None:
    """Return the call's first audio stream as both sides have agreed on it, None where there is none."""
    for dialog in reversed(call.live_dialogs()):
        if dialog.state is not State.CONFIRMED:
            continue
        lines = zip(dialog.agreed.get(Side.INSIDE, ()), dialog.agreed.get(Side.OUTSIDE, ()), strict=False)
        for ours, theirs in lines:
            if ours.kind == theirs.kind == "audio" and ours.rtp and theirs.rtp \
                    and ours.position not in dialog.refused:
                return Agreed(ours, theirs,
                              ours.direction in SENDING and theirs.direction in RECEIVING,
                              theirs.direction in SENDING and ours.direction in RECEIVING)
    return None


def _audio_ends(call: Call) -> dict[Endpoint, None]:
    """Return the inside RTP endpoints of *call*'s audio, in whatever state its dialogs are."""
    said = (dialog.agreed.get(Side.INSIDE, ()) for dialog in call.dialogs.values())
    return {line.rtp: None for lines in said for line in lines if line.kind == "audio" and line.rtp}


def row_from_watch(watch: Watch) -> dict[str, Any]:
    """Return *watch* as JSON-able: a state in one word, rates and alarms by direction."""
    row: dict[str, Any] = {"state": _state(watch)}
    if watch.is_counted and watch.agreed is not None:
        row["rate_out"], row["rate_in"] = (round(way.rate, 1) for way in watch.ways)
        row["wanted"] = [name for index, name in enumerate(NAMES) if watch.agreed.wanted(index)]
    alarms = [{"direction": name, "cause": way.cause.value, "why": way.why}
              for name, way in zip(NAMES, watch.ways, strict=True) if way.cause is not None]
    return row | ({"alarms": alarms} if alarms else {})


def _state(watch: Watch) -> str:
    agreed = watch.agreed
    if any(way.cause for way in watch.ways):
        return "one-way"
    if agreed is None:
        return "none" if watch.read_at > watch.since else "starting"
    if not watch.is_counted:
        return "uncounted"
    wanted = [way for index, way in enumerate(watch.ways) if agreed.wanted(index)]
    if len(wanted) < len(watch.ways):
        return "held"
    if all(way.flows(watch.read_at) for way in wanted):
        return "flows"
    return "paused" if all(way.came for way in wanted) else "starting"


def _oldest(waiting: OrderedDict[CallKey, Watch], now: float) -> list[Watch]:
    """Return those that it is time for, the longest unseen first."""
    found: list[Watch] = []
    for watch in waiting.values():
        if watch.next_at > now or len(found) >= MOST_AT_ONCE:
            break
        found.append(watch)
    return found


