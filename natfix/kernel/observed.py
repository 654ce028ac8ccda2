"""The kernel behind an observer: packets are only copied to natfix, and all that it would do stays in memory.

The rules log copies of SIP packets to a netlink group (NFLOG) at the places where natfix would have
diverted them. Nothing waits for natfix: whether it is slow, stopped or killed, packets go their way, and no
byte, mark, element or entry is touched. What the engine asks for goes to
:class:`natfix.kernel.fake.FakeKernel`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from natfix.address import Endpoint
from natfix.commands import Command, Flow, OwnPacket
from natfix.errors import KernelRefused
from natfix.kernel import libnftables
from natfix.kernel.base import FlowState, HeldElement, KernelMapping, Skeleton
from natfix.kernel.elements import MEMORY
from natfix.kernel.fake import FakeKernel
from natfix.kernel.netfilter import NetfilterKernel, interface_set

ADVANCE_EVERY = 1.0         # seconds between two looks at what has ended in memory, which is all of it

# Named as in nft/natfix.nft, so that a natfix that fixes SIP finds nothing else in its table.
RULES = """\
# The observer's rules: copies of SIP packets for natfix, and nothing else.
table ip natfix {{
    counter diverted {{
    }}
    chain through {{
    }}
    chain divert {{
        type filter hook forward priority mangle; policy accept;
    }}
    chain own_in {{
        type filter hook input priority mangle; policy accept;
    }}
    chain own_out {{
        type filter hook output priority mangle; policy accept;
    }}
}}
flush chain ip natfix through
flush chain ip natfix divert
flush chain ip natfix own_in
flush chain ip natfix own_out
table ip natfix {{
    # By the first packet's ports, as SIP flows are marked when natfix fixes them.
    chain divert {{
        meta l4proto udp ct original proto-dst {ports} goto through
        meta l4proto udp ct original proto-src {ports} goto through
    }}
    chain through {{
        iifname != {outside} oifname != {outside} ct status ! dnat return
        {intranet}ip daddr {networks} return
        {intranet}ip saddr {networks} return
        counter name diverted log group {group} snaplen 65535 queue-threshold 1
    }}
    chain own_in {{
        {own}iifname {outside} meta l4proto udp ct original proto-dst {ports} goto through
        {own}iifname {outside} meta l4proto udp ct original proto-src {ports} goto through
    }}
    chain own_out {{
        {own}oifname {outside} meta l4proto udp ct original proto-dst {ports} goto through
        {own}oifname {outside} meta l4proto udp ct original proto-src {ports} goto through
    }}
}}
"""


def observer_text(skeleton: Skeleton) -> str:
    """Return the observer's rules as `nft -f` reads them; raises KernelRefused as skeleton_text() does."""
    networks = ", ".join(map(str, skeleton.intranet))
    return RULES.format(
        outside=interface_set(skeleton.outside_interfaces), group=skeleton.queue,
        ports="{ " + ", ".join(map(str, skeleton.sip_ports)) + " }",
        intranet="" if networks else "#intranet ", networks="{ " + (networks or "192.0.2.0/24") + " }",
        own="" if skeleton.own_pbx else "#own ",
    )


class ObservedKernel(NetfilterKernel):
    """A kernel that is only looked at; what natfix would have made of it is in memory."""

    def __init__(self, mark: int, clock: Callable[[], float]) -> None:
        """*clock* is the loop's."""
        super().__init__(mark)
        self._clock = clock
        self._advanced = 0.0
        self._memory = FakeKernel()

    def install(self, skeleton: Skeleton) -> None:
        """Have copies of SIP packets sent to natfix.

        Raises KernelRefused where the table of a natfix that fixes SIP is there: calls may depend on it.
        """
        if self._elements(MEMORY):
            raise KernelRefused("the rules of a natfix that fixed SIP are still there: `natfix down` removes "
                                "them, then `natfix up --observe`")
        libnftables.run(observer_text(skeleton))
        self._rules = self._list_rules()
        self._memory.install(skeleton)

    def apply(self, commands: Sequence[Command]) -> None:
        self._catch_up()
        self._memory.apply(commands)

    def resync(self, commands: Sequence[Command]) -> None:
        self._catch_up()
        self._memory.resync(commands)

    def _catch_up(self) -> None:
        """Let time pass for what is in memory; events that nobody asks for must not pile up."""
        now = self._clock()
        if now < self._advanced + ADVANCE_EVERY:
            return
        self._advanced = now
        self._memory.advance(now)
        self._memory.pop_ended()
        self._memory.pop_begun()

    def mappings(self) -> list[KernelMapping]:
        return self._memory.mappings()

    def find_elements(self, commands: Iterable[Command]) -> list[HeldElement]:
        """Look up what natfix would have put into its maps."""
        return self._memory.find_elements(commands)

    def counters(self, flows: Iterable[Flow]) -> dict[Flow, FlowState]:
        """Look up *flows* that natfix would have made; no packet was counted, since none went that way."""
        found = self._memory.counters(flows)
        return {flow: state._replace(packets=-1, reply_packets=-1) for flow, state in found.items()}

    def open_stream(self, source: Endpoint, destination: Endpoint) -> Flow | None:
        """Leave connections to the kernel."""
        return None

    def refused(self) -> dict[Endpoint, int]:
        return {}

    def flooding(self) -> dict[str, int]:
        return {}

    def send(self, packets: Sequence[OwnPacket]) -> int:
        """Send nothing."""
        return 0

    def remove(self) -> None:
        """Delete the observer's table; nothing else was made."""
        self._delete_table()
