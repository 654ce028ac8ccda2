"""The command line: exit codes, one sentence for each error, and nothing loaded that is not needed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from natfix import __version__, cli
from natfix.cli import COMMANDS, INTERRUPTED, main
from natfix.config import config_from_text
from natfix.control import ControlServer
from natfix.errors import Busy, ConfigError, KernelRefused, NatfixError, NotPermitted, NotRunning
from tests.namespace import Namespace, kernel_test, namespace
from tests.schema import problems

ROOT = Path(__file__).parents[1]
Runner = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Runner:
    """Return a function that runs one command line: exit code, stdout, stderr."""
    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            code = main(arguments)
        except SystemExit as ended:
            code = int(ended.code or 0)
        shown = capsys.readouterr()
        return code, shown.out, shown.err
    return run


def python(*arguments: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run this Python in the checkout, behind the command *before*."""
    return subprocess.run(
        [*before, sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture
def config(tmp_path: Path) -> str:
    """A configuration whose files are all the test's own."""
    path = tmp_path / "natfix.toml"
    path.write_text(f'[daemon]\ncontrol_socket = "{tmp_path}/c.sock"\nstate_file = "{tmp_path}/s.sqlite"\n')
    return str(path)


def test_version(run: Runner) -> None:
    """--version is one line for people and scripts."""
    assert run("--version") == (0, f"natfix {__version__}\n", "")


@pytest.mark.parametrize("arguments", [(), ("bogus",), ("status", "--bogus"), ("rules", "--format", "pf")])
def test_usage_errors(run: Runner, arguments: tuple[str, ...]) -> None:
    """A wrong command line is exit code 2, with the usage on stderr."""
    code, out, error = run(*arguments)
    assert (code, out) == (2, "")
    assert error.startswith("usage: natfix")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(run: Runner, command: str) -> None:
    """Each command says what it does, within 80 columns."""
    code, out, _ = run(command, "--help")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80


def test_help_lists_commands_and_exit_codes(run: Runner) -> None:
    """The main help names every command and every exit code."""
    _, out, _ = run("--help")
    assert all(name in out for name in COMMANDS)
    assert all(f" {code} " in " ".join(out.split()) for code in (0, 1, 2, 3, 4, 5, 6, 75))


@pytest.mark.parametrize(("error", "code"), [
    (NatfixError, 1), (ConfigError, 2), (NotRunning, 3), (NotPermitted, 4), (KernelRefused, 5), (Busy, 75),
])
def test_every_error_is_a_sentence_and_a_code(
    run: Runner, monkeypatch: pytest.MonkeyPatch, error: type[NatfixError], code: int,
) -> None:
    """Each kind of error ends with its documented exit code and one line on stderr for each sentence."""
    def fail(_options: object) -> int:
        raise error("first\nsecond")
    monkeypatch.setitem(COMMANDS, "status", COMMANDS["status"]._replace(run=fail))
    assert run("status") == (code, "", "natfix: first\nnatfix: second\n")


def test_interrupt_is_quiet(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends a command without a traceback."""
    def interrupted(_options: object) -> int:
        raise KeyboardInterrupt
    monkeypatch.setitem(COMMANDS, "status", COMMANDS["status"]._replace(run=interrupted))
    assert run("status") == (INTERRUPTED, "", "")


@pytest.mark.parametrize("command", ["status", "calls", "registrations", "notes"])
def test_not_running(run: Runner, tmp_path: Path, command: str) -> None:
    """Asking a natfix that is not there is exit code 3 and says where it was looked for."""
    path = tmp_path / "none.sock"
    code, out, error = run(command, "--control-socket", str(path))
    assert (code, out) == (3, "")
    assert str(path) in error


def test_broken_configuration_stops_every_command(run: Runner, tmp_path: Path) -> None:
    """A configuration with faults is exit code 2 with all of them, whatever was asked."""
    path = tmp_path / "natfix.toml"
    path.write_text("[media]\nport = 1\nsilence = 1\n")
    for command in ("run", "rules", "status", "down"):
        code, _, error = run(command, "--config", str(path))
        assert code == 2
        first, _second = error.splitlines()
        assert first == f'natfix: {path}:2: unknown key "port" in [media]; did you mean "ports"?'


@pytest.mark.parametrize("arguments", [("--config", "FILE", "rules"), ("rules", "--config", "FILE")])
def test_common_options_stand_before_or_after_the_command(
    run: Runner, tmp_path: Path, arguments: tuple[str, ...],
) -> None:
    """--config is understood on either side of the command's name."""
    path = tmp_path / "natfix.toml"
    path.write_text('[outside]\ninterface = "dsl7"\n')
    code, out, _ = run(*(str(path) if each == "FILE" else each for each in arguments))
    assert code == 0
    assert '"dsl7"' in out


def test_rules_for_iptables(run: Runner, tmp_path: Path) -> None:
    """--format iptables prints the other form."""
    path = tmp_path / "natfix.toml"
    path.write_text('[outside]\ninterface = "dsl7"\n')
    code, out, _ = run("rules", "--format", "iptables", "--config", str(path))
    assert code == 0
    assert "-A FORWARD -i dsl7 -m conntrack --ctstate DNAT -j ACCEPT" in out


def test_example_configuration(run: Runner) -> None:
    """The commented example can be printed into a file, and is a configuration."""
    code, out, _ = run("rules", "--example-config")
    assert code == 0
    config_from_text(out, "example")
    assert out.startswith("# natfix.toml")


def test_check_as_json(run: Runner, tmp_path: Path) -> None:
    """check --json is one document by its schema, and its exit code is the command's."""
    code, out, _ = run("check", "--json", "--control-socket", str(tmp_path / "none.sock"))
    document = json.loads(out)
    assert problems(document, "check") == []
    assert document["exit_code"] == code


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[str]:
    """Something that answers on a control socket as natfix does; the path of the socket."""
    import selectors

    asked: list[dict[str, Any]] = []
    path, selector, ended = str(tmp_path / "control.sock"), selectors.DefaultSelector(), threading.Event()

    def calls(request: dict[str, Any]) -> dict[str, Any]:
        asked.append(request)
        return {"calls": []}

    def notes(request: dict[str, Any]) -> dict[str, Any]:
        return {"decisions": [{"at": "now", "changed": False, "notes": []}] * request["count"]}

    server = ControlServer(path, {"calls": calls, "notes": notes}, selector)

    def serve() -> None:
        while not ended.is_set():
            for key, events in selector.select(0.05):
                key.data(events)

    thread = threading.Thread(target=serve)
    thread.start()
    yield path
    ended.set()
    thread.join()
    server.close()


def test_answer_for_people(run: Runner, daemon: str) -> None:
    """The daemon's answer is shown as text."""
    assert run("calls", "--control-socket", daemon) == (0, "no calls\n", "")


def test_answer_for_programs(run: Runner, daemon: str) -> None:
    """--json shows the daemon's answer as it is."""
    code, out, _ = run("calls", "--json", "--control-socket", daemon)
    assert (code, json.loads(out)) == (0, {"schema_version": 1, "calls": []})


def test_options_reach_the_daemon(run: Runner, daemon: str) -> None:
    """--count is part of the question."""
    _, out, _ = run("notes", "--count", "3", "--json", "--control-socket", daemon)
    assert len(json.loads(out)["decisions"]) == 3


def test_status_is_quick_to_load() -> None:
    """`natfix status` in a cron job loads neither the engine nor anything of the kernel or other people."""
    script = (
        "import sys; from natfix.cli import main\n"
        "print(main(['status', '--control-socket', '/nonexistent/x']), *sys.modules)"
    )
    code, *modules = python("-c", script).stdout.split()
    assert code == "3"
    heavy = {"natfix.engine", "natfix.live", "natfix.kernel.netfilter", "natfix.sip.message", "subprocess",
             "ctypes", "asyncio", "scapy", "pyroute2", "netfilterqueue", "sqlite3"}
    assert not heavy & set(modules)


def test_closed_pipe_is_no_traceback() -> None:
    """`natfix rules | head -1` ends without a traceback."""
    script = f"{sys.executable} -m natfix rules --example-config | head -c 1"
    done = subprocess.run(["sh", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_python_m_natfix() -> None:
    """The package can be run as a module, too."""
    assert python("-m", "natfix", "--version").stdout == f"natfix {__version__}\n"


class TestDown:
    """`natfix down` against this kernel, in a namespace."""

    pytestmark = kernel_test

    def test_down_twice(self, tmp_path: Path, config: str) -> None:
        """`down` leaves the operator's rules as they were, and is content where nothing is left."""
        (tmp_path / "s.sqlite").write_text("")
        with namespace() as here:
            here.run("nft add table inet mine; nft add table ip natfix")
            for _ in range(2):
                done = here.call(lambda: python("-m", "natfix", "down", "--config", config))
                assert (done.returncode, done.stderr) == (0, "")
                assert "it was not running" in done.stdout
            assert here.run("nft list ruleset").split() == ["table", "inet", "mine", "{", "}"]
        assert not (tmp_path / "s.sqlite").exists()


LINKS = """
ip link add wan0 type veth peer name wanx; ip link add lan0 type veth peer name lanx
ip address add 203.0.113.1/24 dev wan0; ip link set wan0 up
ip address add 192.168.1.1/24 dev lan0; ip link set lan0 up
ip route add default via 203.0.113.254
nft add table inet mine; iptables -A FORWARD -j ACCEPT
"""
RULES = "nft -s list ruleset; iptables-save | grep -v ^#"    # its remarks have the time


class TestRunning:
    """The commands around a real daemon, in a namespace."""

    pytestmark = kernel_test

    def test_from_run_to_down(self, config: str) -> None:
        """run, every question with --json by its schema, a second run refused, down, and nothing is left."""
        pytest.importorskip("netfilterqueue")
        with namespace() as here:
            here.run(LINKS)
            before = here.run(RULES)
            daemon = here.call(lambda: subprocess.Popen(
                [sys.executable, "-m", "natfix", "run", "--config", config], cwd=ROOT, text=True,
                stderr=subprocess.PIPE))
            try:
                assert daemon.stderr is not None
                assert any("ready" in line for line in daemon.stderr)
                self._ask_everything(here, config)
            finally:
                done = self._natfix(here, "down", "--config", config)
                daemon.stderr.read()
                assert daemon.wait(timeout=10) == 0
            assert f"process {daemon.pid} has ended" in done.stdout
            assert here.run(RULES) == before
            assert self._natfix(here, "status", "--config", config).returncode == 3

    def _ask_everything(self, here: Namespace, config: str) -> None:
        for command in ("status", "calls", "registrations", "notes"):
            answer = json.loads(self._natfix(here, command, "--json", "--config", config).stdout)
            assert problems(answer, command) == []
            assert self._natfix(here, command, "--config", config).returncode == 0
        second = self._natfix(here, "run", "--config", config)
        assert (second.returncode, second.stderr.count("\n")) == (75, 1)
        assert "natfix is running" in self._natfix(here, "check", "--config", config).stdout

    @staticmethod
    def _natfix(here: Namespace, *arguments: str) -> subprocess.CompletedProcess[str]:
        return here.call(lambda: python("-m", "natfix", *arguments))

    @pytest.mark.parametrize(("settings", "code", "sentence"), [
        ('[outside]\ninterface = "wan7"\n', 2, 'there is no interface "wan7"'),
        ('[signalling]\ndivert = "quue"\n', 2, 'did you mean "queue"?'),
        ('quirks_files = ["/nonexistent/q.toml"]\n', 2, "there is no such quirks file"),
    ])
    def test_bad_start(self, config: str, settings: str, code: int, sentence: str) -> None:
        """A start that cannot succeed is one sentence with its exit code, and leaves no rule behind."""
        path = Path(config)
        path.write_text(settings + path.read_text())
        with namespace() as here:
            here.run(LINKS)
            done = self._natfix(here, "run", "--config", config)
            assert (done.returncode, done.stderr.count("\n")) == (code, 1)
            assert sentence in done.stderr
            assert "natfix" not in here.run("nft list tables")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to drop rights")
@pytest.mark.parametrize("command", ["run", "down", "check"])
def test_without_rights(command: str, config: str) -> None:
    """Without CAP_NET_ADMIN each command that needs it says so, with exit code 4."""
    without = ("setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin")
    done = python("-m", "natfix", command, "--config", config, before=without)
    assert done.returncode == 4, done.stderr
    assert "CAP_NET_ADMIN" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_ctrl_c_in_a_process() -> None:
    """A command that waits ends at once on SIGINT, without a traceback."""
    script = (
        "import time, sys; from natfix import cli\n"
        "wait = lambda options: print('waiting', flush=True) or time.sleep(30)\n"
        "cli.COMMANDS['status'] = cli.COMMANDS['status']._replace(run=wait)\n"
        "sys.exit(cli.main(['status']))"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=10)
    assert (process.returncode, error) == (INTERRUPTED, "")


def test_exit_codes_are_documented_once() -> None:
    """The table in the help is the one of the errors."""
    for error in (ConfigError, NotRunning, NotPermitted, KernelRefused, Busy):
        assert f" {error.exit_code} " in cli.EXIT_CODES
