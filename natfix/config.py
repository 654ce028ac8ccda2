"""Settings: what an operator can choose, with the default of each, as frozen data.

``natfix.toml`` is read into these by :func:`config_from_text`; the engine takes them as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from natfix.address import Network


@dataclass(frozen=True, slots=True)
class Inside:
    """[inside]: who is behind this gateway."""

    networks: tuple[Network, ...] = ()      # empty: every connected network that is not outside


@dataclass(frozen=True, slots=True)
class Outside:
    """[outside]: the link that phones' packets leave by."""

    interface: str = ""     # empty: the interface of the default route; several are an error
    address: str = ""       # empty: the interface's first address


@dataclass(frozen=True, slots=True)
class Media:
    """[media]: RTP, RTCP and T.38."""

    ports: tuple[int, int] = (30000, 39999)     # outside ports, first and last
    policy: str = "auto"            # "auto", "full" (never release: always through the gateway), "never"
    release: str = "subnet"         # who may talk directly: "subnet", "routed" (any inside), "never"
    media_hosts: tuple[str, ...] = ()   # inside media servers that any inside UA's SDP may name
    accept_from: str = "signalled"  # or "any": RTP to a mapped port from whoever sends it
    silence: int = 3600             # seconds without a media packet after which a call is given up


@dataclass(frozen=True, slots=True)
class Signalling:
    """[signalling]: which packets are diverted, and how."""

    ports: tuple[int, ...] = (5060,)
    outside_ports: tuple[int, int] = (20000, 29999)     # where the inside port is taken already
    mark: int = 0x04000000
    queue: int = 5060
    divert: str = "auto"            # "auto", "queue", "nfqueue"
    on_failure: str = "drop"        # or "pass"


@dataclass(frozen=True, slots=True)
class Peer:
    """[[peer]]: an address that may always talk to the phones."""

    address: str
    media: str = ""         # overrides [media] policy for messages to and from this peer; "" does not


@dataclass(frozen=True, slots=True)
class Trunk:
    """[[trunk]]: a PBX inside that does not register, and the provider that may call it."""

    inside: str             # "192.168.1.5:5060"; the port may be left out
    peers: tuple[str, ...]  # the provider's addresses
    outside_port: int = 0   # 0: the inside port where it is free


@dataclass(frozen=True, slots=True)
class Limits:
    """[limits]: bounds of what one inside host, and all of them, can take."""

    mappings: int = 65536           # in all
    mappings_per_host: int = 4096   # one RTP stream takes two (RTP and RTCP)
    dialogs: int = 20000
    dialogs_per_host: int = 2000
    registrations: int = 60000
    registrations_per_host: int = 2000
    remotes_per_dialog: int = 32    # media addresses one dialog can open the filter for


@dataclass(frozen=True, slots=True)
class Daemon:
    """[daemon]: files and logging."""

    control_socket: str = "/run/natfix/control.sock"
    state_file: str = "/var/lib/natfix/state.sqlite"
    log_level: str = "info"         # "error", "info", "debug"


@dataclass(frozen=True, slots=True)
class Settings:
    """All of natfix.toml."""

    inside: Inside = field(default_factory=Inside)
    outside: Outside = field(default_factory=Outside)
    media: Media = field(default_factory=Media)
    signalling: Signalling = field(default_factory=Signalling)
    peers: tuple[Peer, ...] = ()
    trunks: tuple[Trunk, ...] = ()
    limits: Limits = field(default_factory=Limits)
    daemon: Daemon = field(default_factory=Daemon)
    quirks_files: tuple[str, ...] = ()      # further rule files beside the shipped rules/quirks.toml
