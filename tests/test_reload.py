"""`natfix reload`: all that differs, or nothing, with one sentence."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from natfix.config import ARRAYS, TABLES, Limits, Media, Peer, Settings, Signalling, Static
from natfix.errors import ConfigError, KernelRefused, NatfixError
from natfix.quirks import Quirks
from natfix.reload import CHANGEABLE, CHANGEABLE_ARRAYS, Reload, differences, refuse_fixed, unreadable
from tests.gateway_with_natfix import REMOTE_RTP, RTP, SDP, SIP, Dialog, Rtp, media_of, receive, wait_until
from tests.kernel.wires import GATEWAY, PHONE, REMOTE
from tests.namespace import on_kernel
from tests.test_up import Operator

OLD = Settings()


def test_the_lists_name_settings_that_exist() -> None:
    """A setting that was renamed cannot stay in the lists of what can change."""
    assert CHANGEABLE.keys() <= TABLES.keys()
    assert ARRAYS.keys() >= CHANGEABLE_ARRAYS
    for table, names in CHANGEABLE.items():
        assert names <= {each.name for each in fields(TABLES[table])}, table


def test_differences_are_named_as_they_are_written() -> None:
    """Tables, arrays and the top level; what is equal is not named."""
    new = replace(OLD, media=Media(ports=(12000, 12999), silence=60), peers=(Peer(address="192.0.2.1"),),
                  quirks_files=("/etc/natfix/quirks.toml",))
    assert differences(OLD, new) == ["quirks_files", "[media] ports", "[media] silence", "[[peer]]"]
    assert differences(OLD, Settings()) == []
    refuse_fixed(OLD, new)


@pytest.mark.parametrize(("new", "name"), [
    (replace(OLD, statics=(Static(inside="192.168.1.5", outside="203.0.113.5"),)), "[[static]]"),
    (replace(OLD, signalling=Signalling(queue=7)), "[signalling] queue"),
    (replace(OLD, signalling=Signalling(mark=8)), "[signalling] mark"),
    (replace(OLD, daemon=replace(OLD.daemon, control_socket="/x")), "[daemon] control_socket"),
    (replace(OLD, daemon=replace(OLD.daemon, state_file="/x")), "[daemon] state_file"),
    (replace(OLD, outside=replace(OLD.outside, interface="x")), "[outside] interface"),
    (replace(OLD, outside=replace(OLD.outside, address="192.0.2.1")), "[outside] address"),
    (replace(OLD, gateway=replace(OLD.gateway, pbx="local")), "[gateway] pbx"),
    (replace(OLD, limits=Limits(registrations=5)), "[limits] registrations"),
])
def test_what_cannot_change_is_refused_by_name(new: Settings, name: str) -> None:
    """The sentence names the setting and the cure, also where others could have changed."""
    new = replace(new, media=Media(silence=60))
    with pytest.raises(ConfigError) as refused:
        refuse_fixed(OLD, new)
    assert str(refused.value).startswith(f"{name} cannot change while natfix runs, so nothing was changed")
    assert "systemctl restart natfix keeps calls" in str(refused.value)


def test_without_a_configuration_to_read() -> None:
    """A daemon that was handed its settings says so."""
    with pytest.raises(ConfigError, match="could be read again"):
        unreadable()


class Part:
    """Loop, engine, kernel and parachute in one, as far as a reload meets them; each can refuse."""

    def __init__(self) -> None:
        from natfix.startup import skeleton_from_settings
        from tests.test_startup import ADDRESSES
        self.skeleton = skeleton_from_settings(OLD, ADDRESSES)
        self.done: list[str] = []
        self.refusal: Exception | None = None
        self.kernel = self.engine = self

    def clock(self) -> float:
        return 0.0

    def install(self, _skeleton: object) -> None:
        if self.refusal:
            raise self.refusal
        self.done.append("rules")

    def reconfigure(self, *_: object) -> str:
        return "outcome"

    def carry_out(self, outcome: str, _now: float) -> None:
        self.done.append(outcome)

    def follow(self, skeleton: Any) -> Any:
        return skeleton

    def guard(self, action: Any) -> None:
        action()


@pytest.fixture
def part() -> Part:
    return Part()


def reload_of(part: Part, new: Settings, quirks: Quirks | None = None) -> Reload:
    """Return a reload that reads *new* and notes who was told."""
    any_part: Any = part
    read = (lambda: (new, quirks)) if quirks is not None else lambda: (new, Quirks())
    return Reload(read, OLD, Quirks(), any_part, any_part, [lambda _: part.done.append("told")])


def test_rules_engine_and_the_rest(part: Part) -> None:
    """The rules come first, since they can be refused; again the same changes nothing."""
    reload = reload_of(part, replace(OLD, media=Media(ports=(12000, 12999))))
    assert reload({}) == {"changed": ["[media] ports"]}
    assert part.done == ["rules", "outcome", "told"]
    assert reload({}) == {"changed": []}
    assert len(part.done) == 3


def test_rules_that_need_not_change_are_not_touched(part: Part) -> None:
    """A setting that no rule depends on leaves them alone."""
    reload_of(part, replace(OLD, media=Media(silence=60)))({})
    assert part.done == ["outcome", "told"]


def test_rules_that_the_kernel_refuses(part: Part) -> None:
    """Then nothing else has changed either, and the next attempt finds the same difference."""
    reload = reload_of(part, replace(OLD, media=Media(ports=(12000, 12999))))
    part.refusal = KernelRefused("no")
    for _ in range(2):
        with pytest.raises(KernelRefused):
            reload({})
    assert part.done == []
    part.refusal = None
    assert reload({}) == {"changed": ["[media] ports"]}


def test_names_that_cannot_be_asked_for(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    """A [[peer]] by name without dnspython is refused before anything has changed."""
    monkeypatch.setitem(sys.modules, "natfix.lookup", None)
    with pytest.raises(NatfixError, match="dnspython is missing"):
        reload_of(part, replace(OLD, peers=(Peer(address="sip.example.com"),)))({})
    assert part.done == []


def test_systemd_is_told(part: Part, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RELOADING, and READY again, also where the configuration is refused (sd_notify(3))."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with pytest.raises(ConfigError):
            reload_of(part, replace(OLD, signalling=Signalling(queue=7)))({})
        assert systemd.recv(100).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        assert systemd.recv(100) == b"READY=1"


# -- on a gateway --------------------------------------------------------------------------------------


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    operator = Operator(tmp_path)
    yield operator
    operator.close()


@on_kernel
def test_a_call_hears_nothing_of_it(operator: Operator) -> None:
    """RTP through a reload of ports and peers: none is lost; the next call has a port of the new pool."""
    operator.natfix("up")
    _, told = operator.call_out()
    assert told == (GATEWAY, 30000)
    phone_rtp, remote_rtp = operator.wires.bind(PHONE, RTP), operator.wires.bind(REMOTE, REMOTE_RTP)
    stream = Rtp(phone_rtp, (REMOTE, REMOTE_RTP), remote_rtp)
    operator.append('[media]\nports = [12000, 12999]\n[[peer]]\naddress = "203.0.113.66"\n')
    assert operator.natfix("reload") == (0, "natfix: changed now: [media] ports, [[peer]]; calls go on\n", "")
    assert stream.end() == []
    assert stream.sent > 10
    assert "12000-12999" in operator.rules()
    dialog = Dialog(operator.phone, (PHONE, SIP), (REMOTE, SIP))
    dialog.send_request("INVITE", SDP.format(PHONE, 5000))
    assert media_of(receive(operator.provider)[0]) == (GATEWAY, 12000)
    assert len(operator.ask("calls")["calls"]) == 2


@on_kernel
def test_a_bad_configuration_is_refused(operator: Operator) -> None:
    """By command and by SIGHUP, with file, line and suggestion; the old one stays in force."""
    operator.natfix("up")
    rules = operator.rules()
    line = len(operator.append('[media]\nprots = [12000, 12999]\n').splitlines())
    code, _, complaint = operator.natfix("reload")
    expected = f'{operator.config}:{line}: unknown key "prots" in [media]; did you mean "ports"?'
    assert (code, complaint) == (2, f"natfix: {expected}\n")
    os.kill(operator.pid(), signal.SIGHUP)
    log = operator.folder / "state.sqlite.log"
    wait_until(lambda: f"goes on with the configuration it has: {expected}" in log.read_text())
    assert operator.rules() == rules
    operator.config.write_text(operator.configuration().read_text() + "[signalling]\nqueue = 7\n")
    code, _, complaint = operator.natfix("reload")
    assert code == 2
    assert complaint.startswith("natfix: [signalling] queue cannot change while natfix runs")
    assert operator.is_fixed()


@on_kernel
def test_by_hangup(operator: Operator) -> None:
    """SIGHUP does what the command does; on trial the trial goes on."""
    operator.natfix("up", "--confirm", "300")
    operator.append("[media]\nports = [12000, 12999]\n")
    os.kill(operator.pid(), signal.SIGHUP)
    wait_until(lambda: "12000-12999" in operator.rules())
    assert operator.ask("status")["mode"] == "trial"
    assert "@trial" in operator.rules()
    operator.natfix("confirm")
    assert "@trial" not in operator.rules()
    assert "12000-12999" in operator.rules()


@on_kernel
def test_nothing_to_reload(operator: Operator) -> None:
    """Without a daemon the exit code is 3, as of `systemctl is-active`."""
    assert operator.natfix("reload")[0] == 3
