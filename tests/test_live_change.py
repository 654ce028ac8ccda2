"""One outside link in a running call: down and up, another address by DHCP, another session of PPPoE."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.gateway_with_natfix import REMOTE_RTP, RTP, SIP, Dialog, Live, wait_until
from tests.kernel.wires import GATEWAY, GATEWAY_INSIDE, PHONE, PHONE_2, REMOTE
from tests.namespace import kernel_test
from tests.two_links import PATIENCE, Call, attempt, entries, is_heard, next_call

pytestmark = kernel_test

NEW = "203.0.113.77"


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    made = Live(tmp_path)
    yield made
    made.close()


class Talking:
    """A call whose audio goes both ways, and an entry that is none of natfix's."""

    def __init__(self, live: Live) -> None:
        live.start()
        self.live = live
        self.call = self.place(RTP)
        self.phone, self.media = live.wires.bind(PHONE, RTP), live.wires.bind(REMOTE, REMOTE_RTP)
        assert self.hears()
        live.wires.bind(PHONE_2, 9999).sendto(b"x", (GATEWAY_INSIDE, 9))

    def place(self, rtp: int, patience: float = PATIENCE) -> Call:
        dialog = Dialog(self.live.phone, (PHONE, SIP), (REMOTE, SIP))
        return Call(dialog, self.live.provider, (PHONE, rtp), (REMOTE, REMOTE_RTP + rtp - RTP), patience)

    def hears(self) -> bool:
        return is_heard(self.phone, self.media, self.call.told)


def test_the_link_goes_down_and_up(live: Live) -> None:
    """The address is as before: entries stay, audio goes on, the call ends, the next one works."""
    talking = Talking(live)
    kept = entries(live)
    live.wires.gateway.run("ip link set outside down")
    live.wires.gateway.run("ip link set outside up")
    wait_until(lambda: attempt(talking.hears), PATIENCE)
    assert entries(live) == kept
    talking.call.dialog.send_request("BYE")
    assert talking.live.provider.recvfrom(4096)[1] == talking.call.source
    assert talking.place(RTP + 10).told[0] == GATEWAY


def lease(live: Live) -> None:
    """A DHCP client gets another address."""
    live.wires.gateway.run(f"ip addr del {GATEWAY}/24 dev outside; ip addr add {NEW}/24 dev outside")


def dial(live: Live) -> None:
    """A PPPoE session ends, and its interface with it; some time later the next one has another address."""
    live.wires.gateway.run("ip link del outside")
    wait_until(lambda: 'there is no interface "outside"' in live.log(), PATIENCE)
    live.wires.outside.connect(live.wires.gateway, "eth0", "outside")
    live.wires.outside.run(f"ip addr add {REMOTE}/24 dev eth0; ip link set eth0 up")
    live.wires.gateway.run(f"ip addr add {NEW}/24 dev outside; ip link set outside up")


@pytest.mark.parametrize("change", [lease, dial])
def test_another_address(live: Live, change: Callable[[Live], None]) -> None:
    """The next call carries the new address; the running one is said to have lost its audio, and is heard
    again after a new offer; all that conntrack has for the old address is gone, and nothing else."""
    talking = Talking(live)
    kept = [line for line in entries(live) if GATEWAY not in line]
    assert kept
    change(live)
    call = next_call(partial(talking.place, RTP + 10), NEW, GATEWAY)
    assert "its mappings ended: calls that lose their audio:" in live.log()
    assert not entries(live, GATEWAY)
    assert set(kept) <= set(entries(live))
    assert is_heard(
        live.wires.bind(PHONE, RTP + 10), live.wires.bind(REMOTE, REMOTE_RTP + 10), call.told)
    talking.call.offer_again()
    assert talking.call.told[0] == NEW
    assert talking.hears()
