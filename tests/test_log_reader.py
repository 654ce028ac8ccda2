"""Copies of packets from the kernel's log."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from natfix.errors import Busy, KernelRefused, NotPermitted
from natfix.kernel.observed import observer_text
from natfix.log_reader import LoggedPacket, LogReader, _refusal
from natfix.queue_reader import BATCH, QueuedPacket
from tests.gateway_with_natfix import wait_until
from tests.kernel.wires import REMOTE, SIP, SIP_REMOTE, SKELETON, Wires, wires
from tests.namespace import on_kernel


@pytest.fixture
def wired() -> Iterator[Wires]:
    with wires() as made:
        made.firewall()
        made.gateway.run("nft -f -", observer_text(SKELETON))
        yield made


def copies(wired: Wires, reader: LogReader) -> list[QueuedPacket]:
    """Wait for the next copies."""
    found: list[QueuedPacket] = wait_until(lambda: wired.gateway.call(reader.read), 3)
    return found


@on_kernel
def test_a_copy_says_where_it_was_taken(wired: Wires) -> None:
    """Bytes from the IP header on, hook, both interfaces; after SNAT's time for replies: inside addresses."""
    reader = wired.gateway.call(lambda: LogReader(SKELETON.queue))
    phone, remote = wired.bind(SIP.host, SIP.port), wired.bind(REMOTE, SIP_REMOTE.port)
    phone.sendto(b"OPTIONS", SIP_REMOTE[:2])
    source = remote.recvfrom(100)[1]
    packet, = copies(wired, reader)
    assert (packet.hook, packet.in_interface, packet.out_interface) == ("forward", "inside", "outside")
    assert packet.raw.endswith(b"OPTIONS")
    remote.sendto(b"SIP/2.0 200", source)
    answer, = copies(wired, reader)
    assert (answer.in_interface, answer.out_interface) == ("outside", "inside")
    assert answer.raw[16:20] == bytes(map(int, SIP.host.split(".")))
    reader.forget_interfaces()
    assert reader.read() == []
    reader.close()


@on_kernel
def test_whole_packets(wired: Wires) -> None:
    """A datagram of 20,000 bytes, which comes in fragments, is one whole copy."""
    reader = wired.gateway.call(lambda: LogReader(SKELETON.queue))
    phone = wired.bind(SIP.host, SIP.port)
    phone.sendto(b"x" * 20000, SIP_REMOTE[:2])
    packet, = copies(wired, reader)
    assert packet.raw[28:] == b"x" * 20000
    reader.close()


@on_kernel
def test_a_read_is_bounded(wired: Wires) -> None:
    """However much waits, one read takes a batch."""
    reader = wired.gateway.call(lambda: LogReader(SKELETON.queue))
    phone, remote = wired.bind(SIP.host, SIP.port), wired.bind(REMOTE, SIP_REMOTE.port)
    for _ in range(BATCH + 4):
        phone.sendto(b"OPTIONS", SIP_REMOTE[:2])
        remote.recv(100)
    assert [len(reader.read()), len(reader.read())] == [BATCH, 4]
    reader.close()


@on_kernel
def test_a_group_that_is_in_use(wired: Wires) -> None:
    """A second observer is refused with its cure."""
    reader = wired.gateway.call(lambda: LogReader(SKELETON.queue))
    with pytest.raises(Busy, match="another natfix observing"):
        wired.gateway.call(lambda: LogReader(SKELETON.queue))
    reader.close()


def test_verdicts_say_nothing() -> None:
    """A copy takes both verdicts, and neither does anything."""
    packet = LoggedPacket(b"x", "forward", "inside", "outside", 0)
    packet.accept(b"y")
    packet.drop()
    assert packet.raw == b"x"


@pytest.mark.parametrize(("number", "kind", "is_root"), [
    (16, Busy, True), (1, Busy, True), (1, NotPermitted, False), (93, KernelRefused, True)])
def test_refusals(monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception], is_root: bool) -> None:
    """Each refusal of the kernel's has its own exit code; EPERM means two things."""
    monkeypatch.setattr("natfix.log_reader.has_net_admin", lambda: is_root)
    assert type(_refusal(OSError(number, "why"), 5060)) is kind
