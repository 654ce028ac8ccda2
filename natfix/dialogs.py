"""Calls and their dialogs: who talks to whom, which SDP stands, which is only proposed.

A :class:`Call` is what one *inside* party has with one Call-ID: an INVITE, SUBSCRIBE or REFER and all
that follows. It has one :class:`Dialog` per callee tag (RFC 3261, section 12), so a forked INVITE has
several early ones. Where both parties are inside there are two calls, one for each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from natfix.address import Endpoint
from natfix.errors import LimitReached
from natfix.mappings import Holder

MAX_EXCHANGES = 4       # unanswered offers remembered per dialog; the oldest goes first
MAX_DIALOGS = 16        # forks of one call; later ones pass, but open nothing
MAX_WRITTEN = 64        # spellings remembered of one call; a dialog needs a handful
LATE_ANSWERS = 32.0     # seconds after the first 2xx in which other forks' may come (RFC 3261, 13.2.2.4)


class Role(StrEnum):
    """Which end of the first request the inside party was."""

    CALLER = "caller"
    CALLEE = "callee"


class Side(StrEnum):
    """Whose session description."""

    INSIDE = "inside"
    OUTSIDE = "outside"


class State(StrEnum):
    EARLY = "early"
    CONFIRMED = "confirmed"
    ENDED = "ended"         # what is left answers retransmissions only


class CallKey(NamedTuple):
    """The inside party's address, Call-ID, the caller's tag, and the inside party's role.

    The role tells the two ends of a call apart that one inside host has with itself through a provider.
    """

    inside_host: str
    call_id: str
    caller_tag: str
    role: Role


class Line(NamedTuple):
    """What one m-line says about where to send media."""

    position: int                   # among the m-lines, from 0
    kind: str                       # "audio", "video", "image", ...
    rtp: Endpoint | None            # None: nothing to send to (port 0 or 9, host name, refused)
    rtcp: Endpoint | None           # None: none, or on the RTP port (RFC 5761)
    hosts: tuple[str, ...] = ()     # addresses of its candidates (RFC 8445)
    pairs: int = 1                  # of port pairs in a row ("port/count", RFC 8866, 5.14); 0: port 0
    direction: str = "sendrecv"     # as its side said it (RFC 8866, section 6.7)
    is_muxed: bool = False          # its side lets RTCP share the RTP port (RFC 5761)

    def endpoints(self) -> list[Endpoint]:
        """Return every endpoint that this line uses."""
        named = [endpoint for endpoint in (self.rtp, self.rtcp) if endpoint is not None]
        if self.pairs > 1:
            named += [Endpoint(endpoint.host, endpoint.port + 2 * step)
                      for step in range(1, self.pairs) for endpoint in named]
        return named


Description = tuple[Line, ...]


class ExchangeKey(NamedTuple):
    """The transaction that carries an offer and its answer."""

    by_inside: bool                 # the inside party sent the request
    cseq: int


@dataclass(slots=True, eq=False)
class Dialog:
    """One dialog of a call: agreed descriptions, and those that await their transaction's end."""

    tag: str                                                # the callee's; "": it has none (RFC 2543)
    state: State = State.EARLY
    agreed: dict[Side, Description] = field(default_factory=dict)
    proposed: dict[ExchangeKey, dict[Side, Description]] = field(default_factory=dict)
    refused: frozenset[int] = frozenset()       # positions of m-lines that the other side gave port 0

    def propose(self, key: ExchangeKey, side: Side, description: Description) -> None:
        """Note what *side* said in transaction *key*."""
        if key not in self.proposed and len(self.proposed) >= MAX_EXCHANGES:
            del self.proposed[next(iter(self.proposed))]
        self.proposed.setdefault(key, {})[side] = description

    def agree(self, key: ExchangeKey) -> bool:
        """The transaction succeeded: what it proposed stands from now on.

        So does what was proposed before: nobody offers anew until the last offer has its answer (RFC 3311,
        section 5.1), so an UPDATE that succeeds while the INVITE is open is the newer of the two.
        """
        if key not in self.proposed:
            return False
        for older in list(self.proposed):
            said = self.proposed.pop(older)
            self.agreed.update(said)
            self.refused = frozenset(line.position for line in said.get(Side.OUTSIDE, ()) if not line.pairs)
            if older == key:
                break
        self.proposed = dict(self.proposed)     # an emptied one keeps its size, for as long as the call is up
        return True

    def reject(self, key: ExchangeKey) -> bool:
        """The transaction failed: the agreed session stays as it was (RFC 3261, section 14.1)."""
        return self.proposed.pop(key, None) is not None

    def said_by(self, side: Side) -> list[Description]:
        """Return every description of *side* that is agreed or proposed, the newest last."""
        said = [self.agreed[side]] if side in self.agreed else []
        return said + [exchange[side] for exchange in self.proposed.values() if side in exchange]

    def inside_endpoints(self, with_refused: bool) -> list[tuple[int, Endpoint]]:
        """Return the endpoints of the inside party's m-lines, agreed and proposed, with their positions.

        Those that the other side refused (RFC 3264, section 6) are agreed no more, but may be offered anew.
        """
        left_out = () if with_refused else self.refused
        lines = [line for line in self.agreed.get(Side.INSIDE, ()) if line.position not in left_out]
        for exchange in self.proposed.values():
            lines += exchange.get(Side.INSIDE, ())
        return [(line.position, endpoint) for line in lines for endpoint in line.endpoints()]

    def latest(self, side: Side) -> Description:
        """Return the newest description of *side*, () where there is none."""
        said = self.said_by(side)
        return said[-1] if said else ()


@dataclass(slots=True, eq=False)
class Call:
    """All that natfix remembers of one inside party's call."""

    key: CallKey
    method: str                             # of the request that began it
    inside: Endpoint                        # the inside party's signalling endpoint
    peer: Endpoint                          # where its messages go to or come from outside
    started: float
    invite_cseq: int = 0                    # of the newest out-of-dialog request
    from_header: str = ""                   # From and To of the first request, as they came
    to_header: str = ""
    peers: set[str] = field(default_factory=set)            # addresses that may change its state
    dialogs: dict[str, Dialog] = field(default_factory=dict)
    offer: dict[Side, Description] = field(default_factory=dict)    # of the first request
    written: dict[tuple[str, str], str] = field(default_factory=dict)   # (kind, shown) -> as written
    kept: dict[str, str] = field(default_factory=dict)      # what natfix.repairs needs for a faulty device
    hangups: dict[ExchangeKey, float] = field(default_factory=dict)     # BYEs that await their answer, since
    held: dict[Endpoint, None] = field(default_factory=dict)    # inside media endpoints it has mappings for
    payers: tuple[str, ...] = ()            # whom its streams count for until it is answered: natfix.shares
    ends_at: float = float("inf")           # when its ports go (2 s after its end)
    ended_at: float | None = None
    answered_at: float | None = None
    alive_at: float = 0.0                   # last message or media packet
    rings: bool = False                     # a provisional response has come
    is_acknowledged: bool = False           # somebody sent ACK for its answer
    is_counted: bool = False                # the kernel counts its media, so silence can be told
    awaits_other: bool = False              # its peer is inside, and that one's call does not know it yet
    holder: Holder = field(init=False)      # this call's name among a mapping's holders

    def __post_init__(self) -> None:
        host, call_id, tag, role = self.key
        self.holder = ("call", role.value, host, call_id, tag)

    @property
    def state(self) -> State:
        """CONFIRMED as soon as one dialog is."""
        if self.ended_at is not None:
            return State.ENDED
        for dialog in self.dialogs.values():
            if dialog.state is State.CONFIRMED:
                return State.CONFIRMED
        return State.EARLY

    def may_be_answered(self, now: float) -> bool:
        """Tell whether another fork's 2xx may still come, and accept what the first one refused."""
        return self.answered_at is None or now < self.answered_at + LATE_ANSWERS

    def remember_written(self, kind: str, shown: str, written: str) -> None:
        """Keep how the UA wrote what is shown as *shown*; of too many the oldest is forgotten."""
        if len(self.written) >= MAX_WRITTEN and (kind, shown) not in self.written:
            del self.written[next(iter(self.written))]
        self.written[kind, shown] = written

    def live_dialogs(self) -> list[Dialog]:
        """Return the dialogs that have not ended."""
        return [dialog for dialog in self.dialogs.values() if dialog.state is not State.ENDED]

    def dialog_for(self, tag: str) -> Dialog | None:
        """Return the dialog with the callee's *tag*, an early one made from the offer if it is new."""
        dialog = self.dialogs.get(tag)
        if dialog is None and len(self.dialogs) < MAX_DIALOGS:
            dialog = self.dialogs[tag] = Dialog(tag)
            if self.offer:
                key = ExchangeKey(self.key.role is Role.CALLER, self.invite_cseq)
                dialog.proposed[key] = dict(self.offer)
        return dialog


class Calls:
    """All calls, by key."""

    def __init__(self, limit: int, limit_per_host: int) -> None:
        self._calls: dict[CallKey, Call] = {}
        self._per_host: Counter[str] = Counter()
        self._unanswered: dict[str, dict[CallKey, None]] = {}   # by inside host, the oldest first
        self.limit = limit
        self.closed = ""        # why no call may begin; "": they may
        self._limit_per_host = limit_per_host
        self.changed: set[CallKey] = set()      # rows for the store to write

    def follow(self, limit: int, limit_per_host: int) -> None:
        """Take other limits; what is above them stays and ends by itself."""
        self.limit, self._limit_per_host = limit, limit_per_host

    def __iter__(self) -> Iterator[Call]:
        return iter(list(self._calls.values()))

    def __len__(self) -> int:
        return len(self._calls)

    def get(self, key: CallKey) -> Call | None:
        """Return the call with just this key."""
        return self._calls.get(key)

    def find(self, inside_host: str, call_id: str, inside_tag: str, outside_tag: str) -> Call | None:
        """Return the call whose inside party has *inside_tag*, whichever end of it that is."""
        return (
            self._calls.get(CallKey(inside_host, call_id, inside_tag, Role.CALLER))
            or self._calls.get(CallKey(inside_host, call_id, outside_tag, Role.CALLEE))
        )

    def add(self, call: Call) -> None:
        """Enter *call*; raises LimitReached where its host, or all, have too many, or none may begin."""
        host = call.key.inside_host
        if self.closed:
            raise LimitReached(self.closed)
        if len(self._calls) >= self.limit:
            raise LimitReached("[limits] dialogs is reached")
        if self._per_host[host] >= self._limit_per_host:
            raise LimitReached(f"[limits] dialogs_per_host is reached by {host}")
        self._calls[call.key] = call
        self._per_host[host] += 1
        self._unanswered.setdefault(host, {})[call.key] = None
        self.changed.add(call.key)

    def in_the_way(self, host: str) -> Call | None:
        """Return the call that has to go before *host* can have another one: the oldest unanswered one of
        its own, or of the host that has most, where there are too many in all. None where there is room,
        or every call was answered."""
        if self._per_host[host] < self._limit_per_host:
            if len(self._calls) < self.limit:
                return None
            host = max(self._per_host, key=self._per_host.__getitem__)
        waiting = self._unanswered.get(host, {})
        while waiting:
            call = self._calls[next(iter(waiting))]
            if call.state is not State.CONFIRMED:
                return call
            del waiting[call.key]       # answered since
        return None

    def remove(self, call: Call) -> None:
        """Forget *call*."""
        host = call.key.inside_host
        if self._calls.pop(call.key, None) is not None:
            self._unanswered[host].pop(call.key, None)
            self._per_host[host] -= 1
            if not self._per_host[host]:
                del self._per_host[host], self._unanswered[host]
            self.changed.add(call.key)
