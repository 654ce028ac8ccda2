"""Names in the running daemon: DNS that is slow, huge, or down at the start, and the packets meanwhile."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway_with_natfix import SIP, Dialog, Live, receive, wait_until
from tests.kernel.wires import GATEWAY, PHONE, REMOTE, STRANGER
from tests.name_server import NameServer
from tests.namespace import kernel_test
from tests.test_live import register

pytestmark = kernel_test
NAME = "sip.listed.test"
SETTINGS = """
    [daemon]
    control_socket = "{live.control}"
    state_file = "{live.folder}/state.sqlite"
    nameservers = ["{dns.address}"]
    [outside]
    interface = "outside"
"""
PEER = '    [[peer]]\n    address = "{}"\n'


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    live = Live(tmp_path)
    live.wires.firewall(dnat_line=True)
    yield live
    live.close()


@pytest.fixture
def dns(live: Live) -> Iterator[NameServer]:
    """A DNS server on the gateway, at a port that cannot be one of [media] ports."""
    with live.wires.gateway.call(lambda: NameServer(port=53)) as server:
        yield server


def start(live: Live, dns: NameServer, *names: str) -> None:
    live.start(SETTINGS.format(live=live, dns=dns) + "".join(map(PEER.format, names)))


def delays(live: Live, count: int) -> list[float]:
    """Return how many seconds each of *count* requests takes to the provider."""
    taken = []
    for _ in range(count):
        began = time.monotonic()
        Dialog(live.phone, (PHONE, SIP), (REMOTE, SIP)).send_request("OPTIONS")
        receive(live.provider)
        taken.append(time.monotonic() - began)
        time.sleep(0.01)
    return taken


def gets_in(live: Live, target: tuple[str, int]) -> bool:
    """Tell whether the host at STRANGER reaches the phone at its outside endpoint *target*."""
    caller = live.wires.bind(STRANGER, SIP)
    dialog = Dialog(caller, (STRANGER, SIP), target)
    dialog.target = f"sip:alice@{GATEWAY}:{target[1]}"
    dialog.send_request("OPTIONS")
    live.phone.settimeout(0.5)
    try:
        return receive(live.phone)[0].startswith("OPTIONS")
    except TimeoutError:
        return False
    finally:
        caller.close()
        live.phone.settimeout(2)


def test_calls_do_not_wait_for_dns(live: Live, dns: NameServer) -> None:
    """With answers that take ten seconds a call comes about at once, and the daemon answers its operator."""
    dns.delay = 10.0
    start(live, dns, NAME)
    wait_until(lambda: dns.asked)
    assert max(delays(live, 50)) < 0.5
    live.call_out()
    assert len(live.ask("status")["names"]) == 1


def test_huge_answers_hold_nothing_up(live: Live, dns: NameServer) -> None:
    """Twenty names with a thousand addresses each, which come by TCP, are read beside the packets."""
    names = [f"pool{number}.listed.test" for number in range(20)]
    for number, name in enumerate(names):
        dns.put(name, "A", *(f"198.{low // 250 + 51}.{number}.{low % 250 + 1}" for low in range(1000)))
    start(live, dns, *names)
    taken = delays(live, 100)
    assert statistics.median(taken) < 0.05
    assert max(taken) < 1.0
    rows = wait_until(lambda: [row for row in live.ask("status")["names"] if row["addresses"]] or None)
    wait_until(lambda: all(row["addresses"] for row in live.ask("status")["names"]), 30)
    assert rows[0]["remark"] == "it has 1000 addresses, of which 64 are taken"
    assert len(live.wires.gateway.run("nft list set ip natfix signalling_peers").split("198.")) == 20 * 64 + 1


def test_dns_that_is_down_at_the_start_shuts_nobody_out(live: Live, dns: NameServer) -> None:
    """A peer by name gets in once DNS has told its address; after a restart without DNS it still does, and
    `natfix status` says since when DNS fails."""
    dns.put(NAME, "A", STRANGER)
    start(live, dns, NAME)
    target = register(live)
    wait_until(lambda: live.ask("status")["names"][0]["addresses"] == [STRANGER])
    assert gets_in(live, target)
    live.daemons[-1].terminate()
    live.daemons[-1].wait(5)
    dns.close()
    start(live, dns, NAME)
    live.wires.gateway.run("conntrack -F")
    assert gets_in(live, target)
    row, = wait_until(lambda: [row for row in live.ask("status")["names"] if "problem" in row], 20)
    assert row["addresses"] == [STRANGER]
    assert "cannot be asked" in row["problem"]
    assert row["problem_since"].startswith("20")


def test_who_is_not_listed_does_not_get_in(live: Live, dns: NameServer) -> None:
    """The same without a list: a registered phone is nobody's but its registrar's."""
    start(live, dns)
    assert not gets_in(live, register(live))
    assert live.ask("status")["names"] == []
