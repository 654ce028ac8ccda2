"""The daemon where a real kernel is full: its sets for natfix, and the table of connections."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from natfix.shortages import conntrack_level
from tests.gateway_with_natfix import (
    REMOTE_RTP,
    RTP,
    SDP,
    SIP,
    Dialog,
    Live,
    Rtp,
    answer_to,
    media_of,
    nothing_comes,
    receive,
    wait_until,
)
from tests.kernel.wires import PHONE, REMOTE
from tests.namespace import kernel_test
from tests.small_maps import fill_conntrack

pytestmark = kernel_test

MOST = 600_000      # connections that a test may make; it takes 10 us for each
SMALL = "__import__('tests.small_maps', fromlist=['shrink']).shrink(Host(settings), 4)"


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    live = Live(tmp_path)
    yield live
    live.close()


def invite(live: Live, port: int) -> Dialog:
    """Send an INVITE whose media is at *port*; nobody waits for what becomes of it."""
    dialog = Dialog(live.phone, (PHONE, SIP), (REMOTE, SIP))
    dialog.send_request("INVITE", SDP.format(PHONE, port))
    return dialog


def again(dialog: Dialog, port: int) -> None:
    """Send the same INVITE once more."""
    dialog.cseq -= 1
    dialog.send_request("INVITE", SDP.format(PHONE, port))


def answered(live: Live, dialog: Dialog, port: int) -> tuple[str, int]:
    """Take *dialog*'s INVITE at the provider, answer with media at *port*; return where RTP is to be sent."""
    offer, source = receive(live.provider)
    assert dialog.call_id in offer
    live.provider.sendto(
        answer_to(offer, "200 OK", f"<sip:bob@{REMOTE}:{SIP}>", SDP.format(REMOTE, port)), source)
    dialog.take_answer(receive(live.phone)[0])
    dialog.send_request("ACK")
    receive(live.provider)
    return media_of(offer)


def ended(live: Live, dialog: Dialog) -> None:
    """Hang up."""
    dialog.send_request("BYE")
    question, source = receive(live.provider)
    live.provider.sendto(answer_to(question, "200 OK"), source)
    assert receive(live.phone)[0].startswith("SIP/2.0 200")


def short_of(live: Live) -> list[str]:
    """Return what has an alarm now."""
    return [each["resource"] for each in live.ask("status")["shortages"]]


def hears(live: Live, to: tuple[str, int], port: int, remote_port: int) -> bool:
    """Tell whether what the provider sends *to* an outside endpoint arrives at the phone's *port*."""
    with live.wires.bind(PHONE, port) as phone, live.wires.bind(REMOTE, remote_port) as remote:
        remote.sendto(b"rtp", to)
        try:
            return phone.recv(100) == b"rtp"
        except TimeoutError:
            return False


def test_maps_are_full(live: Live) -> None:
    """Two calls fill them: the third's INVITE is dropped, and so is each repetition while the kernel does not
    hold what it names; once a call has ended it comes through, and its media does, too."""
    daemon = live.launch(host=SMALL)
    wait_until(lambda: "natfix: ready\n" in live.log() or daemon.poll() is not None)
    first = invite(live, RTP)
    answered(live, first, REMOTE_RTP)
    to_second = answered(live, invite(live, RTP + 10), REMOTE_RTP + 10)
    before = live.wires.gateway.run("nft -s list map ip natfix media_in")
    third = invite(live, RTP + 20)
    assert nothing_comes(live.provider)
    wait_until(lambda: "a map of natfix's is full" in live.log())
    again(third, RTP + 20)
    assert nothing_comes(live.provider)
    assert live.wires.gateway.run("nft -s list map ip natfix media_in") == before, "something half-made"
    assert hears(live, to_second, RTP + 10, REMOTE_RTP + 10)
    ended(live, first)

    def comes_through() -> bool:
        again(third, RTP + 20)
        return not nothing_comes_yet(live.provider)

    wait_until(comes_through, 30.0)
    assert hears(live, answered(live, third, REMOTE_RTP + 20), RTP + 20, REMOTE_RTP + 20)


def test_the_media_pool_is_full(live: Live) -> None:
    """Of five pairs the fourth is an alarm; the sixth call's INVITE is dropped, nothing of it is left, and it
    makes a call when it is repeated after one has ended; below seven tenths the alarm is over."""
    live.start("[media]\nports = [30000, 30009]")
    calls = []
    for number in range(5):
        calls.append(invite(live, RTP + 10 * number))
        answered(live, calls[-1], REMOTE_RTP + 10 * number)
        if number == 2:
            assert short_of(live) == []
        elif number == 3:
            wait_until(lambda: short_of(live) == ["media_ports"])
            assert "4 of 5 pairs of [media] ports are taken" in live.log()
    before = live.wires.gateway.run("nft -s list map ip natfix media_in")
    sixth = invite(live, RTP + 50)
    assert nothing_comes(live.provider)
    assert live.wires.gateway.run("nft -s list map ip natfix media_in") == before
    ended(live, calls.pop())
    wait_until(lambda: live.ask("status")["media_pairs_free"] == 1)
    again(sixth, RTP + 50)
    assert hears(live, answered(live, sixth, REMOTE_RTP + 50), RTP + 50, REMOTE_RTP + 50)
    for call in calls[:2]:
        ended(live, call)
    wait_until(lambda: short_of(live) == [])
    assert "there is room again: 3 of 5 pairs of [media] ports" in live.log()


def nothing_comes_yet(at: socket.socket) -> bool:
    """As :func:`nothing_comes`, but what has come stays."""
    try:
        at.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        return True
    return False


def test_the_connection_table_is_full(live: Live) -> None:
    """The alarm comes at four fifths. Full, the call that runs keeps its audio and new ones are dropped as a
    whole; with room again the alarm is over, and a dropped INVITE, repeated, makes a call with audio."""
    size = live.wires.gateway.call(conntrack_level).size
    if not 0 < size <= MOST:
        pytest.skip(f"nf_conntrack_max is {size} here: too many to fill")
    live.start()
    first = invite(live, RTP)
    to_first = answered(live, first, REMOTE_RTP)
    live.wires.gateway.call(lambda: fill_conntrack(int(0.82 * size)))
    wait_until(lambda: short_of(live) == ["conntrack"])
    assert "connections that the kernel can follow" in live.log()
    second = invite(live, RTP + 10)
    assert hears(live, answered(live, second, REMOTE_RTP + 10), RTP + 10, REMOTE_RTP + 10)
    assert live.wires.gateway.call(lambda: fill_conntrack(size + 1)) >= size
    phone, remote = live.wires.bind(PHONE, RTP), live.wires.bind(REMOTE, REMOTE_RTP)
    stream = Rtp(remote, to_first, phone)
    answered(live, invite(live, RTP + 20), REMOTE_RTP + 20)     # its entries are refused
    wait_until(lambda: live.ask("status")["shell"]["entries_refused"] > 0)
    late = None

    def is_dropped() -> bool:
        nonlocal late
        late = invite(live, RTP + 30)
        return nothing_comes(live.provider)

    wait_until(is_dropped)
    assert late is not None
    assert "the kernel's connection table is full" in live.log()
    assert stream.end() == [], "the call that runs lost audio"
    live.wires.gateway.run("conntrack -F")
    wait_until(lambda: short_of(live) == [])
    again(late, RTP + 30)
    assert hears(live, answered(live, late, REMOTE_RTP + 30), RTP + 30, REMOTE_RTP + 30)
