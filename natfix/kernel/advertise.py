"""A kernel behind a NAT: what natfix shows as its outside address is another one on the link.

The engine, and all that it reads and writes in messages, knows the address that others see. Rules and entries
need the link's own. Every endpoint that goes into the kernel, or comes out of it, is translated here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Protocol

from natfix.address import Endpoint
from natfix.commands import (
    AddMapping,
    AdmitPeer,
    AllowRemote,
    CloseFlow,
    Command,
    DeleteMapping,
    DismissPeer,
    Flow,
    ForbidRemote,
    OpenFlow,
    OwnPacket,
    ReleaseStream,
)
from natfix.kernel.base import FlowState, HeldElement, Kernel, KernelMapping, Skeleton
from natfix.mappings import reversed_flow
from natfix.reports import AddressesChanged


class AdvertisedKernel:
    """The :class:`natfix.kernel.base.Kernel` that *kernel* is, in terms of what others see."""

    def __init__(self, kernel: Kernel, addresses: AddressesChanged) -> None:
        self._kernel = kernel
        self._links: dict[str, str] = {}        # address shown, now or before -> the link's
        self._opened: dict[Flow, Flow] = {}     # as the kernel has it -> as it was asked for
        self.follow(addresses)

    def follow(self, addresses: AddressesChanged) -> None:
        """Take the addresses as they are now; what was shown before is understood still."""
        self._own = next(iter(addresses.outside.values()), "")
        self._shown = addresses.advertised or self._own
        self._links[self._shown] = self._own

    # into the kernel

    def install(self, skeleton: Skeleton) -> None:
        self._kernel.install(skeleton)

    def apply(self, commands: Sequence[Command]) -> None:
        self._kernel.apply([self._command(command) for command in commands])

    def resync(self, commands: Sequence[Command]) -> None:
        self._kernel.resync([self._command(command) for command in commands])

    def send(self, packets: Sequence[OwnPacket]) -> int:
        return self._kernel.send([packet._replace(source=self._on_link(packet.source)) for packet in packets])

    def remove(self) -> None:
        self._kernel.remove()

    # out of it

    @property
    def entries_refused(self) -> int:
        return self._kernel.entries_refused

    @property
    def last_refusal(self) -> str:
        return self._kernel.last_refusal

    def mappings(self) -> list[KernelMapping]:
        return [each._replace(outside=self._seen(each.outside)) for each in self._kernel.mappings()]

    def flows(self) -> list[FlowState]:
        return [each._replace(flow=self.seen_flow(each.flow)) for each in self._kernel.flows()]

    def counters(self, flows: Iterable[Flow]) -> dict[Flow, FlowState]:
        asked = {self._flow(flow): flow for flow in flows}
        return {asked[flow]: state._replace(flow=self.seen_flow(state.flow))
                for flow, state in self._kernel.counters(asked).items()}

    def find_elements(self, commands: Iterable[Command]) -> list[HeldElement]:
        return self._kernel.find_elements([self._command(command) for command in commands])

    def refused(self) -> dict[Endpoint, int]:
        return {self._seen(endpoint): count for endpoint, count in self._kernel.refused().items()}

    def flooding(self) -> dict[str, int]:
        return self._kernel.flooding()

    def open_stream(self, source: Endpoint, destination: Endpoint) -> Flow | None:
        flow = self._kernel.open_stream(source, destination)
        return None if flow is None else self.seen_flow(flow)

    def seen_flow(self, flow: Flow) -> Flow:
        """Return a flow of the kernel's as it was asked for, or as others see it."""
        if flow in self._opened:
            return self._opened[flow]
        turned = reversed_flow(flow)
        if turned in self._opened:
            return reversed_flow(self._opened[turned])
        return Flow(*map(self._seen, flow))

    # translation

    def _command(self, command: Command) -> Command:
        match command:
            case AddMapping() | DeleteMapping() | AllowRemote() | ForbidRemote():
                return command._replace(outside=self._on_link(command.outside))
            case OpenFlow():
                flow = self._flow(command.flow)
                self._opened[flow] = command.flow
                return command._replace(flow=flow)
            case CloseFlow():
                flow = self._flow(command.flow)
                self._opened.pop(flow, None)
                return command._replace(flow=flow)
            case ReleaseStream():
                return ReleaseStream(self._flow(command.flow))
            case AdmitPeer() | DismissPeer():
                return command

    def _flow(self, flow: Flow) -> Flow:
        """Inside is told the link's address, see :mod:`natfix.media`; so nobody's packets have the other."""
        source, destination, reply_source, reply_destination = flow
        return Flow(source, self._on_link(destination), reply_source, self._on_link(reply_destination))

    def _on_link(self, endpoint: Endpoint) -> Endpoint:
        return endpoint._replace(host=self._links.get(endpoint.host, endpoint.host))

    def _seen(self, endpoint: Endpoint) -> Endpoint:
        return endpoint._replace(host=self._shown) if endpoint.host == self._own else endpoint


class FlowSource(Protocol):
    """Conntrack's events."""

    def fileno(self) -> int: ...

    def read(self) -> Collection[Flow]: ...


class AdvertisedFlows:
    """Events of *source* in terms of what others see."""

    def __init__(self, source: FlowSource, kernel: AdvertisedKernel) -> None:
        self._source = source
        self._kernel = kernel

    def fileno(self) -> int:
        return self._source.fileno()

    def read(self) -> Collection[Flow]:
        return [self._kernel.seen_flow(flow) for flow in self._source.read()]
