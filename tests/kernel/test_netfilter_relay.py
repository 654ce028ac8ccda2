"""Relayed media: a far UA's real source is learnt from its first packet, and one entry carries the stream."""

from __future__ import annotations

import pytest

from natfix.address import Endpoint
from natfix.commands import AllowRemote, CloseFlow, Flow, ForbidRemote, Kind, OpenFlow
from tests.kernel.wires import (
    GATEWAY,
    GATEWAY_INSIDE,
    MEDIA,
    REMOTE,
    RTP,
    RTP_OUT,
    STRANGER,
    Queue,
    Wires,
    is_lost,
    sent,
)
from tests.namespace import kernel_test

pytestmark = kernel_test
FAR, FAR_2 = Endpoint(REMOTE, 55555), Endpoint(STRANGER, 44444)     # whatever ports their NATs gave them
SHOWN = Endpoint(GATEWAY_INSIDE, 31000)         # where the PBX was told to send
OTHER_OUT = Endpoint(GATEWAY, 30002)
STREAM = Flow(RTP, SHOWN, FAR, RTP_OUT)


@pytest.fixture
def learning(gateway: Wires) -> Wires:
    """A gateway that learns from REMOTE where it sends to RTP_OUT from."""
    gateway.kernel.apply([AllowRemote(Kind.RELAY, RTP_OUT, REMOTE, 60)])
    return gateway


def test_first_packet_comes_to_natfix(learning: Wires, queue: Queue) -> None:
    """Who may send is shown to natfix, from whatever port; a stranger is not; neither leaves an entry."""
    far, stranger = learning.bind(*FAR[:2]), learning.bind(STRANGER, 40000)
    stranger.sendto(b"stranger", RTP_OUT[:2])
    far.sendto(b"far", RTP_OUT[:2])
    assert [packet[4:] for packet in queue.accept(2)] == [b"far"]
    assert learning.entries() == []
    assert sum(learning.kernel.refused().values()) >= 1


def test_nothing_is_shown_once_it_is_over(learning: Wires, queue: Queue) -> None:
    """A permission that was taken back is over at once."""
    learning.kernel.apply([ForbidRemote(Kind.RELAY, RTP_OUT, REMOTE)])
    learning.bind(*FAR[:2]).sendto(b"late", RTP_OUT[:2])
    assert queue.accept(1) == []


def test_the_entry_carries_the_stream(learning: Wires, queue: Queue) -> None:
    """The PBX sends first, which leads nowhere and pins nothing; once the source is learnt both are heard."""
    pbx, far = learning.bind(*RTP[:2]), learning.bind(*FAR[:2])
    assert is_lost(pbx, SHOWN, far)
    far.sendto(b"first", RTP_OUT[:2])
    assert len(queue.accept(1)) == 1
    learning.kernel.apply([OpenFlow(MEDIA, STREAM, 60)])
    assert sent(pbx, SHOWN, far) == RTP_OUT
    assert sent(far, RTP_OUT, pbx) == SHOWN
    assert queue.accept(1) == []


def test_a_rebinding_is_learnt_anew(learning: Wires, queue: Queue) -> None:
    """Another port of the far NAT is shown to natfix beside the running stream, which then moves there."""
    pbx, far, moved = learning.bind(*RTP[:2]), learning.bind(*FAR[:2]), learning.bind(REMOTE, 55999)
    learning.kernel.apply([OpenFlow(MEDIA, STREAM, 60)])
    assert sent(far, RTP_OUT, pbx) == SHOWN
    moved.sendto(b"moved", RTP_OUT[:2])
    assert len(queue.accept(1)) == 1
    again = STREAM._replace(reply_source=Endpoint(REMOTE, 55999))
    learning.kernel.apply([CloseFlow(STREAM), OpenFlow(MEDIA, again, 60)])
    assert sent(moved, RTP_OUT, pbx) == SHOWN
    assert sent(pbx, SHOWN, moved) == RTP_OUT


def test_two_latches_are_joined(gateway: Wires) -> None:
    """Both parties far: one entry leads from one learnt source to the other, and the PBX sees no media."""
    first, second = gateway.bind(*FAR[:2]), gateway.bind(*FAR_2[:2])
    gateway.kernel.apply([OpenFlow(MEDIA, Flow(FAR, RTP_OUT, FAR_2, OTHER_OUT), 60)])
    assert sent(first, RTP_OUT, second) == OTHER_OUT
    assert sent(second, OTHER_OUT, first) == RTP_OUT
