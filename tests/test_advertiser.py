"""The address that others see: configured, or asked for; the last good answer stands."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator

import pytest

from natfix import advertiser
from natfix.advertiser import TABLE, Advertiser, ask
from natfix.errors import NatfixError
from natfix.reports import AddressesChanged, Change
from tests.lab.programs.stun_server import answer

LINKS = AddressesChanged({"wan0": "127.0.0.1"}, ())
ADDRESS = "198.51.100.7"


class Server:
    """A STUN server on this machine, which says *address*; "" says nothing."""

    def __init__(self) -> None:
        self.line = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.line.bind(("127.0.0.1", 0))
        self.address = ADDRESS
        self.noise = b""
        self.asked = 0
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def name(self) -> str:
        return f"127.0.0.1:{self.line.getsockname()[1]}"

    def _serve(self) -> None:
        while True:
            request, source = self.line.recvfrom(2000)
            if not request:
                return
            self.asked += 1
            if self.noise:
                self.line.sendto(self.noise, source)
            if self.address:
                self.line.sendto(answer(request, (self.address, source[1])), source)

    def close(self) -> None:
        self.line.sendto(b"", self.line.getsockname())


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(advertiser, "WAITS", (0.05, 0.05))
    made = Server()
    yield made
    made.close()


def test_a_configured_address() -> None:
    """It is shown, and nobody is asked."""
    made = Advertiser(ADDRESS)
    assert not made.asks
    assert made.complete(LINKS).advertised == ADDRESS


def test_none() -> None:
    """Without the setting nothing is said."""
    assert Advertiser("").complete(LINKS) == LINKS


def test_an_answer(server: Server) -> None:
    """The server's answer is shown, and written down once."""
    written: list[Change] = []
    made = Advertiser(f"stun:{server.name}", (), written.extend)
    assert made.asks
    assert [made.complete(LINKS).advertised for _ in range(2)] == [ADDRESS, ADDRESS]
    assert written == [Change(TABLE, f"stun:{server.name}", {"address": ADDRESS})]


def test_noise_is_passed_over(server: Server) -> None:
    """What is no answer to the question does not end the waiting for one."""
    server.noise = b"noise"
    assert ask(server.name, "127.0.0.1") == ADDRESS


def test_a_lost_request(server: Server) -> None:
    """Without an answer the request is sent again, and then no more."""
    server.address = ""
    with pytest.raises(NatfixError, match="does not answer"):
        ask(server.name, "127.0.0.1")
    assert server.asked == 2


@pytest.mark.parametrize("said", ["127.0.0.1", "0.0.0.0", "224.0.0.1"])
def test_a_useless_answer(server: Server, said: str) -> None:
    """An address that nobody can reach is none."""
    server.address = said
    with pytest.raises(NatfixError, match="nobody can reach"):
        ask(server.name, "127.0.0.1")


def test_a_name_that_nobody_knows() -> None:
    """The reason is one sentence."""
    with pytest.raises(NatfixError, match=r"nowhere\.invalid cannot be asked"):
        ask("nowhere.invalid", "127.0.0.1")


def test_silence(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """The last answer stands; the log says once that none came, and once that it does again."""
    caplog.set_level(logging.INFO, "natfix")
    made = Advertiser(f"stun:{server.name}")
    made.complete(LINKS)
    server.address = ""
    assert [made.complete(LINKS).advertised for _ in range(2)] == [ADDRESS, ADDRESS]
    server.address = ADDRESS
    made.complete(LINKS)
    assert [record.message for record in caplog.records] == [
        f"seen from outside, 127.0.0.1 is {ADDRESS}",
        f"[outside] advertise: the STUN server {server.name} does not answer; {ADDRESS} is shown until then",
        "the STUN server answers again",
    ]


def test_silence_after_a_restart(server: Server) -> None:
    """What the state file remembers of this very server stands; another server's answer does not."""
    server.address = ""
    setting = f"stun:{server.name}"
    rows = [Change("calls", setting, {"address": "no"}), Change(TABLE, "stun:other", {"address": "no"}),
            Change(TABLE, setting, {"address": ADDRESS})]
    assert Advertiser(setting, rows).complete(LINKS).advertised == ADDRESS
    assert Advertiser(setting, rows[:2]).complete(LINKS).advertised == ""
