"""`natfix up`: in force, on trial, looking on; by the command itself, on a gateway in network namespaces."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from natfix.config import Settings
from natfix.errors import Busy, NatfixError
from natfix.order import Mode, Order, write_order
from natfix.up import Launch, command, is_service, switch_on, switched_on_text
from tests.gateway_with_natfix import SIP, Dialog, Live, header, nothing_comes, receive, wait_until
from tests.kernel.wires import GATEWAY, PHONE, REMOTE
from tests.namespace import on_kernel

TRIAL = Order(Mode.TRIAL, 60.0)


class Operator(Live):
    """Someone at the gateway's shell."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.config = self.configuration()

    def natfix(self, *arguments: str) -> tuple[int, str, str]:
        """Run one command line of natfix on the gateway: exit code, stdout, stderr."""
        command = [sys.executable, "-m", "natfix", "--config", str(self.config), *arguments]
        done = self.wires.gateway.call(lambda: subprocess.run(
            command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=60))
        return done.returncode, done.stdout, done.stderr

    def append(self, text: str) -> str:
        """Add *text* to the configuration; return all of it."""
        whole = self.config.read_text() + text
        self.config.write_text(whole)
        return whole

    def refused_start(self) -> tuple[int, str]:
        """Start the daemon as a service would; it must refuse: exit code, and what it said."""
        code, _, complaint = self.natfix("run")
        return code, complaint

    def pid(self) -> int:
        return int(self.ask("ping")["pid"])

    def is_fixed(self) -> bool:
        """Tell whether an OPTIONS of the phone's leaves with the outside address in its Contact."""
        Dialog(self.phone, (PHONE, SIP), (REMOTE, SIP)).send_request("OPTIONS")
        return header(receive(self.provider)[0], "Contact") == f"<sip:alice@{GATEWAY}:{SIP}>"

    def everything(self) -> str:
        """All rules and sysctls that natfix could have changed, and all marks of entries."""
        return self.wires.gateway.run(
            "nft -s list ruleset; sysctl net.netfilter.nf_conntrack_acct;"
            "conntrack -L -o extended 2>/dev/null | grep -v 'mark=0 ' || true")

    def close(self) -> None:
        with suppress(NatfixError):
            os.kill(self.pid(), signal.SIGKILL)
        super().close()


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    operator = Operator(tmp_path)
    yield operator
    operator.close()


# -- in force ------------------------------------------------------------------------------------------


@on_kernel
def test_up_and_down(operator: Operator) -> None:
    """`up` returns when SIP is fixed, again is no error, and after `down` the gateway is as it was."""
    operator.wires.gateway.run("sysctl -qw net.netfilter.nf_conntrack_acct=0")
    before = operator.everything()
    code, said, _ = operator.natfix("up")
    assert (code, said) == (0, "natfix: in force. See: natfix status, natfix calls. Undo: natfix down\n")
    assert operator.is_fixed()
    first = operator.pid()
    assert "in force already" in operator.natfix("up")[1]
    assert "nothing to confirm" in operator.natfix("confirm")[1]
    assert operator.pid() == first
    assert operator.natfix("down")[0] == 0
    assert operator.everything() == before
    assert [each.name for each in operator.folder.iterdir()] == [operator.config.name]


@on_kernel
def test_a_session_that_ends_does_not_end_natfix(operator: Operator) -> None:
    """The daemon is in a session of its own, so that a hang-up of the terminal does not reach it."""
    operator.natfix("up")
    assert os.getsid(operator.pid()) == operator.pid()


@on_kernel
def test_a_refusal_begins_nothing(operator: Operator) -> None:
    """A configuration that cannot work is refused on the terminal, with its code, and nothing is made."""
    before = operator.rules()
    operator.config.write_text(operator.config.read_text().replace('"outside"', '"outsied"'))
    code, _, complaint = operator.natfix("up", "--confirm", "60")
    assert code == 2
    assert complaint.startswith('natfix: there is no interface "outsied"')
    assert operator.rules() == before
    assert not list(operator.folder.glob("state*"))


@on_kernel
def test_a_daemon_that_ends_at_once_is_told(operator: Operator) -> None:
    """What only the daemon itself can find out comes to the terminal, too, and the order is taken back."""
    holder = operator.wires.gateway.call(lambda: subprocess.Popen([
        sys.executable, "-c", "from natfix.queue_reader import NetfilterQueueReader as R; import time;"
                              f"r = R({SIP}); print(flush=True); time.sleep(60)"], stdout=subprocess.PIPE))
    assert holder.stdout is not None
    holder.stdout.readline()
    code, _, complaint = operator.natfix("up", "--confirm", "60")
    holder.kill()
    holder.wait()
    holder.stdout.close()
    assert code == 75
    assert "queue" in complaint
    assert not list(operator.folder.glob("*.order"))


# -- the dry run ---------------------------------------------------------------------------------------


@on_kernel
def test_dry_run(operator: Operator) -> None:
    """--dry-run prints table, sysctl and flows and does nothing; 6 if asked for a code."""
    operator.wires.gateway.run("sysctl -qw net.netfilter.nf_conntrack_acct=0")
    before = operator.everything()
    code, said, _ = operator.natfix("up", "--dry-run")
    assert code == 0
    assert "+ table ip natfix {" in said
    assert "nf_conntrack_acct: 0 -> 1" in said
    assert operator.natfix("up", "--dry-run", "--exit-code")[0] == 6
    document = json.loads(operator.natfix("up", "--dry-run", "--json")[1])
    assert document["changes"] is True
    assert operator.everything() == before
    operator.natfix("up")
    code, said, _ = operator.natfix("up", "--dry-run", "--exit-code")
    assert (code, said) == (0, "natfix is switched on already: nothing would change\n")


# -- on trial ------------------------------------------------------------------------------------------


@on_kernel
def test_confirmed_in_time(operator: Operator) -> None:
    """A confirmed trial is in force for good: no time runs, and a later start arms again."""
    code, said, _ = operator.natfix("up", "--confirm", "60")
    assert code == 0
    assert "unless you run: natfix confirm" in said
    assert operator.is_fixed()
    status = operator.ask("status")
    assert status["mode"] == "trial"
    assert 50 < status["confirm_in"] <= 60
    assert "@trial" in operator.rules()
    assert operator.natfix("up")[0] == 75
    assert operator.natfix("confirm")[1] == "natfix: kept\n"
    assert "@trial" not in operator.rules()
    assert "bypass" not in operator.rules()
    assert operator.ask("status")["mode"] == "fix"
    assert operator.is_fixed()
    pid = operator.pid()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(pid))
    operator.start()
    assert operator.is_fixed()


@on_kernel
def test_nobody_confirms(operator: Operator) -> None:
    """When the time is up all is as before: rules, entries, marks, sysctl; a later start does not arm."""
    operator.wires.gateway.run("sysctl -qw net.netfilter.nf_conntrack_acct=0")
    before = operator.everything()
    operator.natfix("up", "--confirm", "5")
    pid = operator.pid()
    operator.call_out()
    wait_until(lambda: not is_alive(pid), 10)
    assert operator.everything() == before
    assert not operator.is_fixed()
    code, log = operator.refused_start()
    assert code == 2
    assert "was never confirmed" in log
    assert operator.everything() == before
    assert operator.natfix("up")[0] == 0
    assert operator.is_fixed()


@on_kernel
def test_killed_on_trial(operator: Operator) -> None:
    """kill -9 in the trial: SIP passes unfixed at once, and a later start removes it all and does not arm."""
    before = operator.everything()
    operator.natfix("up", "--confirm", "60")
    assert operator.is_fixed()
    pid = operator.pid()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(pid))
    assert not operator.is_fixed()
    assert "table ip natfix" in operator.rules()
    code, log = operator.refused_start()
    assert code == 2
    assert "what it had left is taken back" in log
    assert operator.everything() == before


@on_kernel
def test_a_service_that_was_not_confirmed_rests(operator: Operator) -> None:
    """Started by systemd it says READY and ends with 0, and is not started again; the log says why."""
    write_order(f"{operator.folder}/state.sqlite", Order(Mode.BEGUN))
    address = str(operator.folder / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address)
        daemon = operator.launch(NOTIFY_SOCKET=address)
        assert daemon.wait(20) == 0
        assert systemd.recv(100).startswith(b"READY=1\nSTATUS=not confirmed")
    assert "was never confirmed" in operator.log()


@on_kernel
def test_stopped_on_trial(operator: Operator) -> None:
    """SIGTERM in the trial takes everything back, as a machine that shuts down does."""
    before = operator.everything()
    operator.natfix("up", "--confirm", "60")
    pid = operator.pid()
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not is_alive(pid))
    assert operator.everything() == before


@on_kernel
def test_a_hanging_daemon_on_trial(operator: Operator) -> None:
    """A daemon that hangs holds SIP up until the time is up, and no longer: the kernel has a clock, too."""
    operator.natfix("up", "--confirm", "5")
    pid = operator.pid()
    began = time.monotonic()
    os.kill(pid, signal.SIGSTOP)
    dialog = Dialog(operator.phone, (PHONE, SIP), (REMOTE, SIP))
    dialog.send_request("OPTIONS")
    assert nothing_comes(operator.provider)

    def passes() -> bool:
        dialog.send_request("OPTIONS")
        return not nothing_comes(operator.provider)

    wait_until(passes, 12)
    assert time.monotonic() - began > 5
    os.kill(pid, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    """Tell whether a thread of a process runs, which holds its sockets, the queue's among them, open."""
    return any(state_of(thread) not in "ZX" for thread in Path(f"/proc/{pid}/task").glob("*"))


def state_of(thread: Path) -> str:
    """Return the letter of proc(5) for a thread's state, X where it is gone."""
    try:
        return (thread / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


# -- looking on ----------------------------------------------------------------------------------------


@on_kernel
def test_observed(operator: Operator) -> None:
    """A call is computed, counted and explained; packets, entries and all but one table are as before."""
    before = operator.everything()
    assert operator.natfix("up", "--observe")[1].startswith("natfix: observes, and changes nothing")
    _, told = operator.call_out()
    assert told == (PHONE, 4000)
    status = operator.ask("status")
    assert (status["mode"], status["calls"], status["media_mappings"]) == ("observe", 1, 2)
    decided = {note["rule"]: note for each in operator.ask("notes")["decisions"] for note in each["notes"]}
    assert (decided["sdp-connection"]["old"], decided["sdp-connection"]["new"]) == (PHONE, GATEWAY)
    rules = operator.wires.gateway.run("nft list table ip natfix")
    assert not {"map", "set", "elements", "snat", "queue", "mark"} & set(rules.split())
    assert "mark=0 " in operator.wires.gateway.run("conntrack -L -p udp 2>/dev/null")
    assert "already" in operator.natfix("up", "--observe")[1]
    pid = operator.pid()
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not is_alive(pid))
    assert operator.everything() == before


@on_kernel
def test_a_dead_observer_holds_nothing_up(operator: Operator) -> None:
    """kill -9 and SIGSTOP: SIP goes its way. The next start observes again, `up` then switches it on."""
    operator.natfix("up", "--observe")
    pid = operator.pid()
    os.kill(pid, signal.SIGSTOP)
    assert not operator.is_fixed()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(pid))
    assert not operator.is_fixed()
    operator.start()
    assert operator.ask("status")["mode"] == "observe"
    assert operator.natfix("up")[0] == 0
    assert operator.is_fixed()
    assert operator.natfix("up", "--observe")[0] == 75


# -- without a kernel ----------------------------------------------------------------------------------


def test_a_service_is_for_the_usual_configuration_only() -> None:
    """Another file or socket than the service's means a daemon of one's own."""
    assert not is_service(Launch(Settings(), "/tmp/other.toml"))
    assert not is_service(Launch(Settings(), "", "/tmp/other.sock"))


def test_the_daemon_gets_what_the_command_line_says() -> None:
    """Paths are made absolute: the daemon outlives the shell's folder."""
    assert command(Launch(Settings(), "natfix.toml", "c.sock"))[1:] == [
        "-m", "natfix", "--config", str(Path("natfix.toml").absolute()),
        "--control-socket", str(Path("c.sock").absolute()), "run"]


@pytest.mark.parametrize(("running", "wanted", "sentence"), [
    ({"mode": "trial", "confirm_in": 12.0}, Order(), "on trial for 12 s more"),
    ({"mode": "fix"}, Order(Mode.OBSERVE), "natfix down"),
    ({"mode": "drain"}, Order(), "Ctrl-C there first"),
])
def test_what_a_running_natfix_does_not_allow(
    monkeypatch: pytest.MonkeyPatch, running: dict[str, object], wanted: Order, sentence: str,
) -> None:
    """A trial is ended by its own commands only, and a natfix in force is not made an observer by the way."""
    monkeypatch.setattr("natfix.up.refuse_without_rights", lambda: None)
    monkeypatch.setattr("natfix.up.status_of", lambda _settings: running)
    with pytest.raises(Busy, match=sentence):
        switch_on(Launch(Settings()), wanted)


def test_what_is_said() -> None:
    """One sentence for each mode, with what to do next."""
    assert "natfix confirm" in switched_on_text({"mode": "trial", "confirm_in": 60.0, "was_up": False}, TRIAL)
    assert "changes nothing" in switched_on_text({"mode": "observe", "was_up": False}, Order(Mode.OBSERVE))
    assert "in force already. See" in switched_on_text({"mode": "fix", "was_up": True}, Order())
    assert "nothing to try" in switched_on_text({"mode": "fix", "was_up": True}, TRIAL)
