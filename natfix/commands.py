"""What the engine asks of the kernel (imperative), and what it tells of its reasons (past tense).

Plain data: every kernel back end, the live shell, the replay and the tests speak in these. One packet makes a
dozen of them, so they are tuples: a frozen dataclass takes three times as long to make.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import NamedTuple

from natfix.address import Endpoint


class Kind(StrEnum):
    """What a mapping carries; SIP has its own maps in the kernel, since its flows are diverted."""

    SIGNALLING = "signalling"
    MEDIA = "media"
    RELAY = "relay"     # media whose real source is learnt; it has no mapping of its own in the kernel


class Flow(NamedTuple):
    """One conntrack entry, UDP or TCP: the tuple of its first packet, and the one its replies carry.

    natfix writes a flow from inside: ``source`` inside, ``destination`` the remote endpoint,
    ``reply_source`` the remote endpoint, ``reply_destination`` the outside endpoint. For a hairpin
    (both ends inside) ``destination`` is the callee's outside endpoint and ``reply_source`` its inside
    one. The kernel may hold the same flow the other way round, when the remote sent first.
    """

    source: Endpoint
    destination: Endpoint
    reply_source: Endpoint
    reply_destination: Endpoint


class AddMapping(NamedTuple):
    """Make ``outside`` stand for ``inside`` (RFC 4787, section 4.1); adding it again refreshes it.

    The outgoing half (SNAT of what ``inside`` sends) always exists; the inward half (DNAT of what
    allowed remotes send to ``outside``) only where ``inward`` says so.
    """

    kind: Kind
    inside: Endpoint
    outside: Endpoint
    lifetime: float         # seconds; the kernel forgets by itself should natfix die
    inward: bool = True
    owner: str = ""         # who holds it, kept as the element's comment; at most 128 bytes
    is_new: bool = False    # the kernel holds none of it yet: that is half the work
    mark: int = 0           # of what ``inside`` sends, so that it leaves by the right link; 0: none


class DeleteMapping(NamedTuple):
    """Remove both halves of a mapping; its absence is no error."""

    kind: Kind
    inside: Endpoint
    outside: Endpoint
    mark: int = 0


class AllowRemote(NamedTuple):
    """Let new flows from ``remote`` reach a mapping's inward half; again refreshes.

    Of the kind RELAY they come to natfix instead, which learns from them where a far UA sends from.
    """

    kind: Kind
    outside: Endpoint
    remote: str             # an address, never a port: the far NAT may have changed it
    lifetime: float         # seconds
    is_new: bool = False    # as in AddMapping


class ForbidRemote(NamedTuple):
    """Take an :class:`AllowRemote` back; its absence is no error."""

    kind: Kind
    outside: Endpoint
    remote: str


class AdmitPeer(NamedTuple):
    """Let new flows from ``remote`` reach the inward half of every signalling mapping.

    It has no lifetime: without the daemon the inward halves end, and with them what it opens.
    """

    remote: str


class DismissPeer(NamedTuple):
    """Take an :class:`AdmitPeer` back; its absence is no error."""

    remote: str


class OpenFlow(NamedTuple):
    """Ensure a conntrack entry: create it, refresh the one that agrees, replace the one that does not."""

    kind: Kind
    flow: Flow
    lifetime: float         # seconds
    fixed: bool = False     # IPS_FIXED_TIMEOUT: traffic does not change the lifetime (a registrar's flow)


class CloseFlow(NamedTuple):
    """Delete a conntrack entry, found by its exact tuple; its absence is no error."""

    flow: Flow


class ReleaseStream(NamedTuple):
    """Take natfix's bit from a TCP entry's mark: the kernel moves the connection alone from here on.

    ``flow`` is written from inside, whoever opened the connection; its source and destination find it, so
    that the rest need not be known. Its absence is no error.
    """

    flow: Flow


class SendPacket(NamedTuple):
    """A datagram of natfix's own, to a far UA that a registrar has accepted, and to nobody else.

    ``source`` is the outside endpoint that the UA has sent to, which its NAT lets answers in from.
    """

    source: Endpoint
    destination: Endpoint
    payload: bytes


class SendSegment(NamedTuple):
    """A TCP segment of natfix's own, in a connection that it relays; it goes past conntrack and NAT.

    So toward outside ``source`` is the outside endpoint, toward inside it is the peer.
    """

    source: Endpoint
    destination: Endpoint
    sequence: int
    acknowledgement: int
    flags: int              # the low byte of RFC 9293, section 3.1: CWR to FIN
    window: int             # as it stands in the header, scaled already
    options: bytes          # a multiple of four bytes, at most 40
    payload: bytes
    interface: str = ""     # out interface; "": as routing says


OwnPacket = SendPacket | SendSegment
Command = (AddMapping | DeleteMapping | AllowRemote | ForbidRemote | AdmitPeer | DismissPeer
           | OpenFlow | CloseFlow | ReleaseStream)


class Note(NamedTuple):
    """One reason: what was changed, or why something was left alone."""

    rule: str               # stable short name, for instance "contact" or "sdp-connection"
    header: str = ""        # where: a header's or SDP line's name
    old: str = ""           # the text replaced ("" where nothing was)
    new: str = ""           # the text put in its place
    reason: str = ""        # one sentence
    rfc: str = ""           # for instance "RFC 3261, section 8.1.1.8"

    @property
    def is_edit(self) -> bool:
        """Tell a rewrite from an explanation of why something was left alone."""
        return self.old != self.new


class Treated(NamedTuple):
    """A message on both sides of NAT and natfix, as captures there would show it."""

    call_id: str
    protocol: int           # IP's: 17 UDP, 6 TCP
    source: Endpoint        # where it comes in
    destination: Endpoint
    octets: bytes
    shown_source: Endpoint  # where it goes out
    shown_destination: Endpoint
    shown_octets: bytes


class Verdict(Enum):
    ACCEPT = "accept"
    DROP = "drop"


@dataclass(slots=True)
class Outcome:
    """All that follows from one packet, report or timer; the shell carries it out in this order."""

    commands: list[Command] = field(default_factory=list)   # 1. one kernel transaction
    verdict: Verdict = Verdict.ACCEPT                       # 2. with ``packet``, or the original bytes
    packet: bytes | None = None
    send: list[OwnPacket] = field(default_factory=list)     # 3. after the verdict
    notes: list[Note] = field(default_factory=list)         # 4. for the log
    summary: str = ""                                       # "INVITE sip:..." or "200 OK (INVITE)"
    call_id: str = ""
    treated: list[Treated] = field(default_factory=list)    # the SIP messages in it
    edits: tuple[tuple[int, int, bytes], ...] = ()          # where in the payload, and what stands there now
