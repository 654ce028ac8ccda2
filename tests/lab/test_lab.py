"""The lab itself: what it builds, what passes its gateway without natfix, and that nothing stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab import leftovers, namespaces
from tests.lab.host import PROJECT, LabError, wait_until
from tests.lab.lab import Lab
from tests.lab.topology import gateway_topology

pytestmark = pytest.mark.lab

LAB_PROGRAM = """
import sys, time
from tests.lab.lab import Lab
with Lab() as lab:
    process = lab["phone1"].popen(["sleep", "300"])
    print(lab.prefix, process.pid, flush=True)
    time.sleep(300)
"""


def exchange(lab: Lab, source: str, target: str, port: int = 7000,
             patience: float = 3.0) -> tuple[str, bytes]:
    """Send one datagram from host to host and answer it; return the address seen, and the answer got."""
    with (namespaces.socket_in(lab[target].namespace) as receiver,
          namespaces.socket_in(lab[source].namespace) as sender):
        receiver.settimeout(patience)
        sender.settimeout(patience)
        receiver.bind((lab[target].address, port))
        sender.sendto(b"question", (lab[target].address, port))
        _, seen = receiver.recvfrom(100)
        receiver.sendto(b"answer", seen)
        return seen[0], sender.recv(100)


def test_inside_reaches_outside_through_masquerade(lab: Lab) -> None:
    """A phone's packet leaves with the gateway's address, and its answer comes back."""
    assert exchange(lab, "phone1", "remote1") == ("203.0.113.1", b"answer")


def test_outside_does_not_reach_inside(lab: Lab) -> None:
    """Packets from outside to a private address vanish."""
    with pytest.raises(TimeoutError):
        exchange(lab, "remote1", "phone1", patience=0.5)


def test_forward_policy_drops_what_is_new_from_outside(lab: Lab) -> None:
    """Even with a route to inside, the gateway lets nothing new in."""
    lab["remote1"].run(["ip", "route", "add", "192.168.1.0/24", "via", "203.0.113.1"])
    with pytest.raises(TimeoutError):
        exchange(lab, "remote1", "phone1", patience=0.5)


def test_inside_subnets_talk_unchanged(make_lab: Callable[..., Lab]) -> None:
    """Between the two inside subnets there is routing, and no NAT."""
    lab = make_lab(second_phones=1)
    assert exchange(lab, "second1", "phone1") == ("192.168.2.10", b"answer")


def test_dnat_line_is_an_option(make_lab: Callable[..., Lab]) -> None:
    """The documented line stands in the forward chain only where the lab asks for it."""
    with_line, without = make_lab(dnat_line=True), make_lab()
    chain = ["nft", "list", "chain", "inet", "firewall", "forward"]
    assert "ct status dnat accept" in with_line.gateway.run(chain).stdout
    assert "ct status dnat accept" not in without.gateway.run(chain).stdout


def test_queued_packets_have_whole_checksums(lab: Lab) -> None:
    """NFQUEUE hands out finished checksums over veth, and a wrong one written back is not delivered."""
    program = Path(__file__).parent / "queue_probe.py"
    lab.gateway.run(["iptables", "-t", "mangle", "-A", "FORWARD", "-p", "udp", "-j", "NFQUEUE",
                     "--queue-num", "7"])
    honest = lab.gateway.popen([sys.executable, str(program)])
    honest.wait_for("bound")
    assert exchange(lab, "phone1", "remote1") == ("203.0.113.1", b"answer")
    assert honest.output().split() == ["bound", "right", "right"]
    honest.stop()
    forger = lab.gateway.popen([sys.executable, str(program), "--spoil"])
    forger.wait_for("bound")
    with pytest.raises(TimeoutError):
        exchange(lab, "phone1", "remote1", port=7001, patience=0.5)


def test_two_labs_at_once_do_not_meet(make_lab: Callable[..., Lab]) -> None:
    """The same addresses live in both, apart."""
    first, second = make_lab(), make_lab()
    assert first.prefix != second.prefix
    with namespaces.socket_in(first["remote1"].namespace) as listener:
        listener.bind(("203.0.113.60", 7000))
        listener.settimeout(0.3)
        with namespaces.socket_in(second["phone1"].namespace) as sender:
            sender.sendto(b"?", ("203.0.113.60", 7000))
        with pytest.raises(TimeoutError):
            listener.recv(10)


def test_nothing_stays(make_lab: Callable[..., Lab]) -> None:
    """After the lab: no namespace, no process, no file."""
    lab = make_lab()
    stubborn = lab["phone1"].popen(["sh", "-c", "trap '' TERM; echo deaf; sleep 300"])
    stubborn.wait_for("deaf")
    lab.down()
    assert not namespaces.list_namespaces(lab.prefix)
    assert not lab.directory.exists()
    assert stubborn.poll() is not None
    assert not namespaces.process_start(stubborn.pid)


def test_a_number_used_again_is_not_signalled(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a program has ended, its process number may be anybody's: the lab leaves that alone."""
    ended = lab["phone1"].popen(["sh", "-c", "sleep 300 & echo left; exit 3"])
    assert ended.wait(5.0) == 3
    wait_until(lambda: not leftovers.processes_in(lab["phone1"].namespace), 2.0, "the end of its child")
    monkeypatch.setattr("os.kill", None)
    monkeypatch.setattr("os.killpg", None)
    ended.signal(signal.SIGTERM)
    ended.stop()
    ended.kill()


def test_failed_start_leaves_nothing(monkeypatch: pytest.MonkeyPatch, lab: Lab) -> None:
    """A lab that cannot be finished removes what it has built so far."""
    monkeypatch.setattr("tests.lab.gateway.RULES", "nonsense")
    broken = Lab()
    with pytest.raises(LabError, match="nft"):
        broken.up()
    assert not namespaces.list_namespaces(broken.prefix)
    assert not broken.directory.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_lab_cleans_up(number: signal.Signals, lab: Lab) -> None:
    """Ctrl-C in a program that uses the lab removes it (SIGTERM where the program says so)."""
    program = ("import signal; signal.signal(signal.SIGTERM, signal.default_int_handler)\n" + LAB_PROGRAM)
    with _lab_process(program) as child:
        prefix, pid = _first_line(child)
        child.send_signal(number)
        child.wait(10)
    assert not namespaces.list_namespaces(prefix)
    assert not namespaces.process_start(pid)


def test_crashed_lab_is_found_and_removed(lab: Lab) -> None:
    """What a killed process leaves is swept by the next lab, its programs included; others' labs stay."""
    with _lab_process(LAB_PROGRAM) as child:
        prefix, pid = _first_line(child)
        child.kill()
        child.wait()
    assert namespaces.process_start(pid)
    assert prefix in leftovers.sweep()
    assert not namespaces.list_namespaces(prefix)
    assert not (leftovers.STATE / prefix).exists()
    wait_until(lambda: not namespaces.process_start(pid), 2.0, "the end of an orphan")
    assert namespaces.list_namespaces(lab.prefix)


def test_a_program_that_ends_early_says_why(lab: Lab) -> None:
    """Waiting for a program that died shows its output instead of a timeout."""
    process = lab["phone1"].popen(["sh", "-c", "echo broken >&2; exit 3"])
    with pytest.raises(LabError, match=r"ended with 3 .*\n.*broken"):
        process.wait_for("ready", 5.0)


def test_a_failing_command_says_what_it_printed(lab: Lab) -> None:
    """Host.run raises with the exit code and standard error, unless told not to check."""
    with pytest.raises(LabError, match="exit 5: no"):
        lab["phone1"].run(["sh", "-c", "echo no >&2; exit 5"])
    assert lab["phone1"].run(["sh", "-c", "exit 5"], check=False).returncode == 5


def test_names_and_addresses_of_the_gateway_topology() -> None:
    """The table says what the documentation says."""
    topology = gateway_topology(phones=2, second_phones=1, remotes=2)
    addresses = {row.name: row.links[-1].address for row in topology.hosts}
    assert addresses == {
        "gateway": "203.0.113.1", "pbx": "192.168.1.5", "provider": "203.0.113.50",
        "stranger": "203.0.113.99", "phone1": "192.168.1.10", "phone2": "192.168.1.11",
        "second1": "192.168.2.10", "remote1": "203.0.113.60", "remote2": "203.0.113.61",
    }


def _lab_process(program: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=PROJECT,
                            stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(PROJECT)})


def _first_line(child: subprocess.Popen[str]) -> tuple[str, int]:
    assert child.stdout is not None
    prefix, pid = child.stdout.readline().split()
    time.sleep(0.05)
    return prefix, int(pid)
