"""What a capture holds, in the words that diagnosis, report and JSON share. Plain data, no I/O.

From the wire to the finding:

    Frame       as captured: one record of a file                              (read by natfix.replay.capture)
    Datagram    one IP datagram, whole again                                    (natfix.replay.datagrams)
    Sighting    one SIP message seen at one point                               (natfix.replay.sightings)
    Passage     one transmission of a message: its sightings, in path order     (natfix.replay.passages)
    Conversation  all passages with one Call-ID, with their media               (natfix.replay.conversations)
    Station     what is known of one inside UA over all its conversations
    Finding     what is wrong, with evidence                                    (natfix.replay.diagnosis)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from ipaddress import ip_address, ip_network
from typing import NamedTuple

from natfix.address import Endpoint
from natfix.commands import Note
from natfix.sip.message import Message


class PacketId(NamedTuple):
    """A packet as the operator finds it in Wireshark: its number in its file."""

    number: int             # from 1
    file: str = ""          # the stage's or file's name where there are several inputs, else ""

    def __str__(self) -> str:
        return f"{self.file}:{self.number}" if self.file else str(self.number)


class Side(StrEnum):
    """On which side of the NAT a packet was seen, or a host is."""

    INSIDE = "inside"
    OUTSIDE = "outside"
    UNKNOWN = "unknown"


class Frame(NamedTuple):
    """One record of a capture file."""

    number: int             # from 1, as Wireshark counts
    time: float             # seconds since 1970 by the capture's clock; 0.0 where the text has none
    link: int               # LINKTYPE_*, see natfix.replay.link
    data: bytes             # b"" where the input holds only a header line (fw monitor text)
    length: int             # octets on the wire; more than len(data) where the snap length cut it
    interface: str = ""
    stage: str = ""         # fw monitor's "i" "I" "o" "O"; else the input's name if there are several
    outgoing: bool | None = None    # the capturing host sent it; None: not known
    file: str = ""          # as in PacketId
    comment: str = ""


class IpFacts(NamedTuple):
    """What the IP and UDP headers of a datagram said besides its addresses."""

    ttl: int = 0
    identification: int = 0
    dont_fragment: bool = False
    fragments: int = 1              # how many it came in
    length: int = 0                 # IP total length
    cut: bool = False               # by the snap length: never to be repaired
    checksum_wrong: bool = False    # and not zero, as checksum offload leaves it
    udp_length_wrong: bool = False  # UDP length and IP length differ
    incomplete: bool = False        # a fragment is missing: what is there is the first one


class Datagram(NamedTuple):
    """One IP datagram that is UDP, a TCP segment or ICMP, with fragments put together."""

    packets: tuple[PacketId, ...]
    time: float
    stage: str
    interface: str
    outgoing: bool | None
    protocol: str                   # "udp", "tcp", "icmp"
    source: Endpoint                # port 0 for ICMP; the host may be IPv6, or letters in masked text
    destination: Endpoint
    payload: bytes                  # of UDP; TCP and ICMP from their own header on
    ip: bytes                       # the IP packet; b"" where the input has only a header line
    facts: IpFacts


@dataclass(slots=True, eq=False)
class Sighting:
    """One SIP message, seen at one point of its way."""

    packets: tuple[PacketId, ...]   # several where fragments or TCP segments carried it
    time: float                     # of its last packet, by the first input's clock
    stage: str
    interface: str
    outgoing: bool | None
    transport: str                  # "udp", "tcp"
    source: Endpoint
    destination: Endpoint
    payload: bytes                  # the message alone; b"" where the input has only a header line
    message: Message | None         # None: not readable, see ``problem``
    problem: str = ""
    facts: IpFacts = field(default_factory=IpFacts)
    ip: bytes = b""                 # the datagram, for the repaired capture; b"" for TCP and text
    side: Side = Side.UNKNOWN       # of the NAT, where this copy was seen

    @property
    def packet(self) -> PacketId:
        return self.packets[0]


class Direction(StrEnum):
    """Of a passage, as the gateway sees it."""

    OUTWARD = "outward"         # an inside UA sent it to the outside
    INWARD = "inward"
    INTERNAL = "internal"       # between inside hosts
    EXTERNAL = "external"       # between outside hosts
    UNKNOWN = "unknown"


class Edit(NamedTuple):
    """One change that natfix makes to a message, with its place."""

    start: int              # octets in the payload as it was
    end: int
    note: Note


@dataclass(slots=True, eq=False)
class Repair:
    """What natfix did with one passage; see natfix.replay.drive."""

    before: bytes                   # the payload that natfix was shown
    after: bytes                    # what it let go
    edits: tuple[Note, ...] = ()
    left_alone: tuple[Note, ...] = ()
    dropped: str = ""               # why it did not go on
    source: Endpoint | None = None          # where the packet came out: after SNAT
    destination: Endpoint | None = None     # after DNAT
    spans: tuple[tuple[int, int], ...] = ()     # of each of ``edits``, in ``before``


@dataclass(slots=True, eq=False)
class Passage:
    """One transmission of one message: the same packet, at every point where it was seen, in path order."""

    sightings: list[Sighting]
    direction: Direction = Direction.UNKNOWN
    repeats: Passage | None = None      # the first transmission, where this is a retransmission
    repair: Repair | None = None        # None: natfix was not shown it (TCP, IPv6, header only)

    @property
    def first(self) -> Sighting:
        """The sighting nearest to the sender."""
        return self.sightings[0]

    @property
    def last(self) -> Sighting:
        """The sighting nearest to the receiver."""
        return self.sightings[-1]

    @property
    def time(self) -> float:
        return self.sightings[0].time

    @property
    def message(self) -> Message | None:
        """The message as its sender wrote it, as far as was seen."""
        return self.sightings[0].message

    @property
    def packets(self) -> tuple[PacketId, ...]:
        return tuple(packet for sighting in self.sightings for packet in sighting.packets)

    def at(self, side: Side) -> Sighting | None:
        """Return the sighting on one side of the NAT, None where it was not seen there."""
        for sighting in self.sightings:
            if sighting.side is side:
                return sighting
        return None


@dataclass(slots=True, eq=False)
class Transaction:
    """A request, its retransmissions and the responses to it (RFC 3261, section 17), in time order."""

    method: str
    branch: str
    cseq: int
    requests: list[Passage]         # may be empty: only responses were seen
    responses: list[Passage]

    @property
    def final(self) -> Passage | None:
        """The first final response."""
        return next((item for item in self.responses if item.message and item.message.status >= 200), None)


class MediaKind(StrEnum):
    RTP = "rtp"
    RTCP = "rtcp"
    UDPTL = "udptl"
    STUN = "stun"
    DTLS = "dtls"
    OTHER = "other"


@dataclass(slots=True, eq=False)
class Stream:
    """Media packets from one endpoint to another at one stage, of one RTP source.

    ``bins`` count packets per ``bin_width`` seconds from ``start``; at most 600 of them: the width doubles
    when they are full. ``gaps`` are silences of more than a second, the longest 20.
    """

    kind: MediaKind
    stage: str
    side: Side
    source: Endpoint
    destination: Endpoint
    ssrc: int | None
    payload_types: set[int]
    start: float
    end: float
    first_packet: PacketId
    last_packet: PacketId
    packets: int = 0
    octets: int = 0
    lost: int = 0                   # by RTP sequence numbers
    bin_width: float = 1.0
    bins: list[int] = field(default_factory=list)
    gaps: list[tuple[float, float]] = field(default_factory=list)
    interface: str = ""
    outgoing: bool | None = None


@dataclass(frozen=True, slots=True)
class IcmpError:
    """An ICMP error about a UDP or TCP packet."""

    packets: tuple[PacketId, ...]
    time: float
    stage: str
    side: Side
    sender: str                     # the host that complains
    code: str                       # "port-unreachable", "host-unreachable", "fragmentation-needed", ...
    protocol: str
    source: Endpoint                # of the packet it is about
    destination: Endpoint
    next_hop_mtu: int = 0


@dataclass(frozen=True, slots=True)
class TcpReset:
    """A TCP connection on a SIP port, or one that carried SIP, that was refused or cut by RST."""

    packets: tuple[PacketId, ...]   # what was answered or cut (the SYN, the last data), then the RST
    time: float                     # of the RST
    stage: str
    source: Endpoint                # who wanted the connection, or sent the last data
    destination: Endpoint
    refused: bool                   # RST to a SYN; else the connection had been open
    idle: float = 0.0               # seconds without a packet before the one that was answered with RST


@dataclass(frozen=True, slots=True)
class TlsFlow:
    """A TCP connection on a SIP port whose content is TLS: nobody on the path can read or fix it."""

    packets: tuple[PacketId, ...]   # of its first TLS record
    time: float
    stage: str
    side: Side
    source: Endpoint                # who opened it
    destination: Endpoint


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of a kernel log that was given as an input."""

    packet: PacketId                # the line's number
    time: float                     # 0.0 where it has none
    text: str


@dataclass(slots=True, eq=False)
class Conversation:
    """Everything with one Call-ID: a call with its re-INVITEs, a registration with its refreshes, ..."""

    call_id: str
    passages: list[Passage] = field(default_factory=list)
    transactions: list[Transaction] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)     # at endpoints that its SDP names, or next to them
    errors: list[IcmpError] = field(default_factory=list)   # about its packets or its media

    def of(self, method: str) -> Iterator[Transaction]:
        """Its transactions of one method, in time order."""
        return (item for item in self.transactions if item.method == method)

    @property
    def is_call(self) -> bool:
        return any(item.method == "INVITE" for item in self.transactions)


class Registered(NamedTuple):
    """One REGISTER transaction as a station saw it."""

    time: float
    packets: tuple[PacketId, ...]   # request first, then its final response
    aor: str
    source: Endpoint                # of the request, nearest to the station
    contacts: tuple[str, ...]       # URIs as sent
    echoed: tuple[str, ...]         # URIs of the 2xx
    status: int                     # of the final response; 0: none was seen
    expires: int | None             # granted, seconds
    received: str                   # of the response's top Via; "" without
    rport: int | None
    seen_as: Endpoint | None        # the request's source outside of the NAT, where it was captured there
    call_id: str = ""
    has_credentials: bool = False   # the request had, and status is the answer to them
    is_stale: bool = False          # a challenge with stale=true: only the nonce was too old
    registrar: Endpoint | None = None       # where the request went, nearest to the station
    transport: str = "udp"
    tries: int = 1                  # transmissions of the request


@dataclass(slots=True, eq=False)
class Station:
    """One UA's signalling endpoint, over all its conversations; what outlives a call is summed up here."""

    endpoint: Endpoint
    side: Side
    user_agent: str = ""
    registrations: list[Registered] = field(default_factory=list)       # the latest 500
    sent_last: dict[Endpoint, tuple[float, PacketId]] = field(default_factory=dict)     # by destination
    heard_last: dict[Endpoint, tuple[float, PacketId]] = field(default_factory=dict)    # by source


@dataclass(slots=True, eq=False)
class Visitor:
    """A host that sent requests, over all its conversations: a peer, a phone, or a stranger."""

    host: str
    side: Side
    first_time: float
    first_packet: PacketId
    last_packet: PacketId
    user_agent: str = ""
    requests: dict[str, int] = field(default_factory=dict)      # by method: those outside of dialogs
    users: dict[str, PacketId] = field(default_factory=dict)    # whom it asked for, the first 200
    answers: dict[int, int] = field(default_factory=dict)       # by status: final ones
    is_known: bool = False          # an inside host sent it a request of its own, or registered with it
    notifies: bool = False          # it sent NOTIFY, in a dialog or not


class Vantage(StrEnum):
    """Where the capture was taken."""

    INSIDE = "inside"
    OUTSIDE = "outside"
    BOTH = "both"           # two files, two interfaces, or fw monitor's stages
    ANY = "any"             # all interfaces of the gateway in one file
    UNKNOWN = "unknown"


@dataclass(slots=True)
class NetworkView:
    """Inside, outside, and how that was found out; see natfix.replay.network."""

    inside: tuple[str, ...] = ()            # prefixes, as text; may be IPv6
    outside: str = ""                       # the gateway's outside address; "" not known
    vantage: Vantage = Vantage.UNKNOWN
    guesses: list[str] = field(default_factory=list)    # sentences: what was concluded from which packets

    sides: dict[str, Side] = field(default_factory=dict)    # of hosts, once they were asked for or placed

    def side_of(self, host: str) -> Side:
        """Tell on which side of the NAT a host is; UNKNOWN for names and masked addresses nobody placed."""
        side = self.sides.get(host)
        if side is None:
            side = self.sides[host] = self._side_by_prefix(host)
        return side

    def _side_by_prefix(self, host: str) -> Side:
        try:
            address = ip_address(host)
        except ValueError:
            return Side.UNKNOWN
        is_inside = any(address in ip_network(prefix) for prefix in self.inside)
        return Side.INSIDE if is_inside else Side.OUTSIDE


class Severity(Enum):
    """How much a finding matters; the value is its place in the order."""

    BREAKS = 1          # no call, no registration, no audio
    HURTS = 2           # some calls, after a while, one feature
    WARNS = 3           # it works, by luck or by help of others
    INFORMS = 4


class Fixed(StrEnum):
    """Whether natfix on the gateway cures it."""

    YES = "yes"
    PARTLY = "partly"
    NO = "no"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, as text, JSON and report show it. No finding without evidence."""

    code: str                           # "D12"; rules/catalogue.toml explains it
    severity: Severity
    title: str                          # one line, about this case
    call_id: str                        # "" where it is not about one call
    packets: tuple[PacketId, ...]       # what shows it, in order
    evidence: str                       # fields and values, by packet
    cause: str
    where: str                          # which hop, which side
    remedy: str                         # what a person can do, exact commands where the product is known
    fixed_by_natfix: Fixed
    time: float = 0.0                   # of the first packet


@dataclass(slots=True, eq=False)
class Context:
    """What every rule may look at besides the conversation at hand."""

    network: NetworkView
    stages: tuple[str, ...] = ()                # in path order, inside first, where several were captured
    behind: frozenset[tuple[str, str, bool | None]] = frozenset()   # points that showed translated packets
    stations: dict[Endpoint, Station] = field(default_factory=dict)
    visitors: dict[str, Visitor] = field(default_factory=dict)  # by host
    streams: list[Stream] = field(default_factory=list)
    errors: list[IcmpError] = field(default_factory=list)
    log: list[LogLine] = field(default_factory=list)
    formats: tuple[str, ...] = ()               # of the inputs, as in JSON: "pcap", "fw monitor text", ...
    neighbours: dict[str, str] = field(default_factory=dict)    # host: source MAC address of its packets
    unreadable: list[Sighting] = field(default_factory=list)    # SIP by its first line, see their ``problem``
    records: list[Passage] = field(default_factory=list)        # of inputs that hold headers only; bounded
    resets: list[TcpReset] = field(default_factory=list)
    tls: list[TlsFlow] = field(default_factory=list)
    start: float = 0.0
    end: float = 0.0                            # of the whole capture: what came later was not seen
