"""The command natfix-replay: options, exit codes, formats, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

from natfix.replay import replay
from natfix.replay.main import main
from natfix.replay.model import Context, Conversation, Finding
from natfix.replay.replay import Input, Options
from natfix.replay.result import Result
from tests.replay.small import finding
from tests.schema import problems

PCAPS = Path(__file__).parents[2] / "pcaps"
CALL = str(PCAPS / "call-natfix.pcapng")
PLAIN = str(PCAPS / "call-masquerade.pcapng")
COMMAND = (sys.executable, "-m", "natfix.replay.main")


@pytest.fixture
def healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    """No rule finds anything."""
    monkeypatch.setattr(replay.diagnosis, "judge_conversation", lambda *_: iter(()))
    monkeypatch.setattr(replay.diagnosis, "judge_station", lambda *_: iter(()))
    monkeypatch.setattr(replay.diagnosis, "judge_capture", lambda *_: iter(()))


@pytest.fixture
def broken(healthy: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """One rule finds every conversation broken."""
    def judge(conversation: Conversation, context: Context) -> list[Finding]:
        return [finding(conversation.call_id)]

    monkeypatch.setattr(replay.diagnosis, "judge_conversation", judge)


@pytest.mark.usefixtures("healthy")
def test_nothing_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    """A healthy capture ends with 0, and nothing stands on stderr."""
    assert main([CALL]) == 0
    out, err = capsys.readouterr()
    assert "Nothing wrong was found." in out
    assert err == ""


@pytest.mark.usefixtures("broken")
def test_findings(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Findings end it with 6; of another call than the one asked for they do not."""
    assert main([CALL]) == 6
    assert "2 findings" in capsys.readouterr().out
    result = replay.run(Options((Input(CALL),)))
    one, other = (each.call_id for each in result.conversations)
    result.findings = [finding(one)]
    monkeypatch.setattr(replay, "run", lambda options, _: replace(result, asked=options.call_id))
    assert main([CALL, "--call", one]) == 6
    assert main([CALL, "--call", other]) == 0


@pytest.mark.usefixtures("healthy")
def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    """--format json is one document by the schema; of several inputs packets have names."""
    assert main(["--format", "json", PLAIN]) == 0
    document = json.loads(capsys.readouterr().out)
    assert problems(document, "replay") == []
    assert document["messages"][0]["packet"] == 1
    assert main(["--format", "json", CALL, CALL, "--stage", f"fw={PLAIN}"]) == 0
    document = json.loads(capsys.readouterr().out)
    names = {str(row["packet"]).partition(":")[0] for row in document["messages"]}
    assert names <= {"call-natfix", "call-natfix-2", "fw"}


@pytest.mark.usefixtures("healthy")
def test_mermaid(capsys: pytest.CaptureFixture[str]) -> None:
    """--format mermaid draws."""
    assert main(["--format", "mermaid", CALL]) == 0
    assert capsys.readouterr().out.startswith("```mermaid\nsequenceDiagram\n")


@pytest.mark.usefixtures("healthy")
def test_files_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """-o and --report are offered where their modules are there, and get path and result."""
    written = ModuleType("natfix.replay.write")
    written.__spec__ = ModuleSpec(written.__name__, None)
    calls = []
    written.write_repaired = lambda path, result: calls.append((path, result.input["sip"]))  # type: ignore
    monkeypatch.setitem(sys.modules, written.__name__, written)
    assert main([CALL, "-o", str(tmp_path / "x")]) == 0
    assert calls == [(str(tmp_path / "x"), 28)]

    def fails(path: str, result: Result) -> None:
        raise PermissionError(13, "Permission denied", path)

    written.write_repaired = fails      # type: ignore
    assert main([CALL, "-o", "/no/such"]) == 1
    assert capsys.readouterr().err == "natfix-replay: /no/such: Permission denied\n"


@pytest.mark.usefixtures("healthy")
def test_the_operator_knows_better(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--inside and --outside overrule the guesses, and natfix.toml's settings decide."""
    config = tmp_path / "natfix.toml"
    config.write_text('[inside]\nnetworks = ["192.168.0.0/16"]\n[media]\nports = [40000, 40999]\n')
    main(["--format", "json", PLAIN, "--config", str(config), "--outside", "192.0.2.77"])
    document = json.loads(capsys.readouterr().out)
    assert document["network"]["inside"] == ["192.168.0.0/16"]
    media = [row["outside"] for row in document["mappings"] if row["kind"] == "media"]
    assert media[0] == "192.0.2.77:40000"
    main(["--format", "json", PLAIN, "--config", str(config), "--inside", "192.168.1.0/28"])
    assert json.loads(capsys.readouterr().out)["network"]["inside"] == ["192.168.1.0/28"]


@pytest.mark.parametrize("line", [
    [], ["--format", "xml", CALL], ["--inside", "192.168.1.1/24", CALL], ["--outside", "x", CALL],
    ["--stage", "lan", CALL], ["--stage", "=x", CALL], ["-", "-"], ["--no-such-option", CALL],
])
def test_usage(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong command line ends with 2 and one sentence."""
    with pytest.raises(SystemExit) as ended:
        main(line)
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("natfix-replay: error: ")


def test_wrong_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A faulty natfix.toml ends with 2, and its line is named."""
    config = tmp_path / "natfix.toml"
    config.write_text("[media]\nports = 3\n")
    assert main([CALL, "--config", str(config)]) == 2
    assert f"{config}:2:" in capsys.readouterr().err


@pytest.mark.parametrize("content", [
    b"", b"hello\n", b"\xd4\xc3\xb2\xa1", b"\x1f\x8b\x08\0\0\0\0\0\0\x03xx", None,
])
def test_nothing_readable(
    content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is no capture ends with 1 and one sentence; an empty one is an empty one."""
    path = tmp_path / "x\x1b[31m"
    if content is not None:
        path.write_bytes(content)
    code = main([str(path)])
    err = capsys.readouterr().err
    assert code in (0, 1)
    assert "\x1b" not in err
    assert len(err.splitlines()) == code


def test_ctrl_c_keeps_what_was_read() -> None:
    """A capture that is still being written is shown as far as it came, with 130."""
    data = (PCAPS / "call-natfix.pcapng").read_bytes()
    with subprocess.Popen([*COMMAND, "--format", "json", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as child:
        assert child.stdin is not None
        child.stdin.write(data)
        child.stdin.flush()
        time.sleep(1.0)
        child.send_signal(signal.SIGINT)
        time.sleep(0.2)
        out, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert b"interrupted" in err
    document = json.loads(out)
    assert document["input"]["interrupted"]


def test_nobody_reads(tmp_path: Path) -> None:
    """A pager that was left is no reason for a traceback."""
    line = f"{' '.join(COMMAND)} --format json {CALL} | head -c 10"
    done = subprocess.run(line, shell=True, check=False, capture_output=True, timeout=60)
    assert done.stderr == b""


def test_help_is_fast() -> None:
    """--help comes at once: nothing heavy is imported for it."""
    script = ("import sys, natfix.replay.main as main\n"
              "try: main.main(['--help'])\n"
              "except SystemExit: pass\n"
              "heavy = ('scapy', 'jinja2', 'natfix.engine')\n"
              "print([name for name in sys.modules if name.startswith(heavy)])")
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "exit codes: 0 nothing is wrong" in " ".join(done.stdout.split())
    assert time.monotonic() - started < 10      # 0.1 s on an idle machine


def test_no_live_extra_is_needed() -> None:
    """What a replay imports needs neither root nor the packages of the extra `live`, nor scapy."""
    script = (f"import sys, natfix.replay.main as main; main.main(['--format', 'json', {CALL!r}])\n"
              "print(sorted(set(map(lambda name: name.split('.')[0], sys.modules)) &"
              " {'netfilterqueue', 'pyroute2', 'scapy', 'jinja2'}), file=sys.stderr)")
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60,
        env={**os.environ, "NO_COLOR": "1"})
    assert done.stderr.splitlines()[-1] == "[]"


def test_json_does_not_depend_on_hashes() -> None:
    """The same input gives the same bytes in every run, however Python orders its sets."""
    outputs = {
        subprocess.run([*COMMAND, "--format", "json", PLAIN], capture_output=True, check=False, timeout=60,
                       env={**os.environ, "PYTHONHASHSEED": seed}).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


@pytest.mark.parametrize("line", [
    ["--report", "call.pcapng"], ["-o", "call.pcapng"], ["-o", "out", "--report", "./out"],
    ["--config", "natfix.toml", "--report", "natfix.toml"]])
def test_nothing_is_overwritten(
        line: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    """An output never takes the place of a capture, of the configuration, or of the other output."""
    monkeypatch.chdir(tmp_path)
    capture, config = Path("call.pcapng"), Path("natfix.toml")
    capture.write_bytes(Path(CALL).read_bytes())
    config.write_text("")
    with pytest.raises(SystemExit) as ending:
        main([str(capture), *line])
    assert ending.value.code == 2
    assert "would overwrite" in capsys.readouterr().err
    assert capture.read_bytes() == Path(CALL).read_bytes()
    assert (config.read_text(), Path("out").exists()) == ("", False)


def test_redacted_call(capsys: pytest.CaptureFixture[str]) -> None:
    """--call and --inside name what the original capture has, also where the output does not."""
    main([PLAIN, "--format", "json"])
    calls = {each["call_id"] for each in json.loads(capsys.readouterr().out)["dialogs"]}
    call_id = sorted(calls)[0]
    main([PLAIN, "--redact", "--format", "json", "--call", call_id, "--inside", "192.168.1.0/24"])
    shown = capsys.readouterr().out
    assert len(json.loads(shown)["dialogs"]) == 1
    assert json.loads(shown)["network"]["inside"] != ["192.168.1.0/24"]
    assert call_id not in shown


def test_no_such_call(capsys: pytest.CaptureFixture[str]) -> None:
    """A Call-ID that no message has is a mistake in the command, not a healthy call."""
    assert main([PLAIN, "--call", "nonesuch"]) == 2
    assert "--call nonesuch: there is no such call" in capsys.readouterr().err


def test_where_it_cannot_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The sentence names the file that was asked for."""
    path = tmp_path / "nowhere" / "fixed.pcapng"
    assert main([CALL, "-o", str(path)]) == 1
    assert capsys.readouterr().err == f"natfix-replay: {path}: No such file or directory\n"
