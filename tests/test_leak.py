"""Packets that leave untranslated: counted where they leave, and only those."""

from __future__ import annotations

import errno
import time

import pytest

from natfix import leak
from natfix.address import network_from_text
from natfix.leak import MAX_NETWORKS, LeakMeter, open_meters
from tests.kernel.wires import GATEWAY, PHONE, PHONE_2, REMOTE, Wires, wires
from tests.namespace import kernel_test

pytestmark = kernel_test

ELSEWHERE = network_from_text("10.0.0.0/8")
ONE_PHONE = network_from_text(f"{PHONE}/32")


def counted(place: Wires, meter: LeakMeter, expected: int) -> int:
    """Send five packets from each phone, one from the gateway, three back; return what the meter saw.

    The first ones wait for ARP, which a busy machine may keep waiting for more than a moment.
    """
    phones = [place.bind(PHONE, 4000), place.bind(PHONE_2, 4000)]
    gateway, remote = place.bind(GATEWAY, 4100), place.bind(REMOTE, 4000)
    for _ in range(5):
        for phone in phones:
            phone.sendto(b"x", (REMOTE, 4000))
    gateway.sendto(b"x", (REMOTE, 4000))
    for _ in range(3):
        remote.sendto(b"x", (GATEWAY, 4000))
    time.sleep(0.2)
    total, deadline = meter.count(), time.monotonic() + 5
    while total < expected and time.monotonic() < deadline:
        time.sleep(0.1)
        total += meter.count()
    return total


def test_counts_what_leaves_from_inside() -> None:
    """Only packets from inside networks that leave by the interface count, each once."""
    with wires() as place:
        meter = place.gateway.call(lambda: LeakMeter("outside", [ELSEWHERE, ONE_PHONE]))
        assert counted(place, meter, 5) == 5
        assert meter.count() == 0
        meter.close()


def test_translated_packets_do_not_count() -> None:
    """With a masquerade in place nothing leaks."""
    with wires() as place:
        place.firewall()
        meter = place.gateway.call(lambda: LeakMeter("outside", [network_from_text("192.168.1.0/24")]))
        assert counted(place, meter, 0) == 0
        meter.close()


@pytest.mark.parametrize("count", [MAX_NETWORKS, 3 * MAX_NETWORKS])
def test_many_networks(count: int) -> None:
    """As many networks as the filter holds are looked for; more are no error."""
    networks = [network_from_text(f"10.{number}.0.0/16") for number in range(count - 1)]
    with wires() as place:
        meter = place.gateway.call(lambda: LeakMeter("outside", [*networks[:MAX_NETWORKS - 1], ONE_PHONE,
                                                                 *networks[MAX_NETWORKS - 1:]]))
        assert counted(place, meter, 5) == 5
        meter.close()


def test_interface_that_is_gone_has_no_meter() -> None:
    """Where an interface has gone meanwhile, the others are counted all the same."""
    with wires() as place:
        meters = place.gateway.call(lambda: open_meters(["wan7", "outside"], [ONE_PHONE]))
        assert len(meters) == 1
        meters[0].close()


def test_no_meter_where_such_sockets_are_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit that does not allow AF_PACKET costs the count, and not the repair of the rules."""
    def refuse(*_: object) -> None:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr(leak.socket, "socket", refuse)
    assert open_meters(["outside"], [ONE_PHONE]) == []
