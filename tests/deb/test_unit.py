"""What goes into the package beside natfix itself: units, lists, scripts, completion."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from natfix import cli
from tests.deb.cleanroot import PROJECT

SOURCES = PROJECT / "tools" / "deb"
MOST_EXPOSED = 2.0
UNITS = ("natfix.service", "natfix-failed.service", "natfix-retry.timer")
EXPOSURE = re.compile(r"Overall exposure level for (\S+): ([0-9.]+)")

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="not installed: systemd-analyze (tools/test installs it)")


def unit(name: str) -> configparser.RawConfigParser:
    """Return a unit file; of several lines for one key the last."""
    parser = configparser.RawConfigParser(strict=False, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str        # type: ignore[assignment,method-assign]
    parser.read(SOURCES / name)
    return parser


@needs_systemd
def test_the_service_is_hardly_exposed() -> None:
    """`systemd-analyze security` gives at most 2.0, of 10."""
    done = subprocess.run(["systemd-analyze", "security", "--offline=true", "--no-pager",
                           SOURCES / "natfix.service"], capture_output=True, text=True, check=True)
    found = EXPOSURE.search(done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[2]) <= MOST_EXPOSED, done.stdout


@needs_systemd
def test_the_units_are_sound(tmp_path: Path) -> None:
    """systemd understands every line of all units (their programs stand where this machine has some)."""
    for name in UNITS:
        text = (SOURCES / name).read_text().replace("/usr/bin/natfix", "/bin/true")
        text = re.sub(r"^Documentation=.*\n", "", text, flags=re.MULTILINE)
        (tmp_path / name).write_text(text.replace("/usr/sbin/nft", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *(tmp_path / name for name in UNITS)],
                          capture_output=True, text=True, check=False,
                          env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:/lib/systemd/system"})
    assert not [line for line in done.stderr.splitlines() if "natfix" in line], done.stderr


def test_the_service_gives_up_in_time() -> None:
    """Three starts, each ended after 10 s at most, then the divert goes and another start is planned."""
    service = unit("natfix.service")
    assert service["Unit"]["StartLimitBurst"] == "3"
    assert service["Unit"]["OnFailure"].split() == ["natfix-failed.service", "natfix-retry.timer"]
    assert service["Service"]["TimeoutStartSec"] == service["Service"]["WatchdogSec"] == "10"
    # All three starts must fall into the time over which they are counted.
    longest = 3 * (10 + int(service["Service"]["RestartSec"]))
    assert longest < int(service["Unit"]["StartLimitIntervalSec"]) <= 60
    assert unit("natfix-retry.timer")["Timer"]["Unit"] == "natfix.service"


@pytest.mark.parametrize(("result", "bypass"), [
    ("timeout", True), ("watchdog", False), ("success", False), ("signal", False), ("exit-code", False)])
def test_sip_passes_after_a_start_that_hangs_alone(result: str, bypass: bool, tmp_path: Path) -> None:
    """What runs after the service has ended leads SIP past natfix only where a start took too long: one that
    hung is back before phones give up, and what passed unfixed meanwhile would be broken."""
    (tmp_path / "natfix").write_text("#!/bin/sh\necho called with $*\n")
    (tmp_path / "natfix").chmod(0o755)
    found = re.fullmatch(r"-/bin/sh -c '(.*)'", unit("natfix.service")["Service"]["ExecStopPost"])
    assert found
    script = found[1].replace("$$", "$").replace("/usr/bin/natfix", str(tmp_path / "natfix"))
    done = subprocess.run(["/bin/sh", "-c", script], env={"SERVICE_RESULT": result}, capture_output=True,
                          text=True, check=True)
    assert done.stdout == ("called with bypass\n" if bypass else "")


def test_every_commands_line_is_one_of_natfix() -> None:
    """What units and maintainer scripts call natfix with are commands that it has."""
    texts = [(SOURCES / name).read_text() for name in (*UNITS, "prerm")]
    lines = [line for text in texts for line in text.splitlines() if "natfix " in line]
    called = {word for line in lines if re.match(r"Exec|\s+natfix", line) and "echo" not in line
              for word in re.findall(r"\bnatfix (?:--\S+ \S+ )?([a-z]+)\b", line)} - {"to"}
    assert {"run", "bypass", "down"} <= called <= cli.COMMANDS.keys()


def test_the_scripts_are_posix() -> None:
    """The maintainer scripts are for any /bin/sh, fail where a command does, and are short."""
    for name in ("postinst", "prerm", "postrm"):
        text = (SOURCES / name).read_text()
        assert text.startswith("#!/bin/sh\n")
        assert "\nset -e\n" in text
        assert len(text.splitlines()) < 30
        subprocess.run(["dash" if shutil.which("dash") else "sh", "-n", SOURCES / name], check=True)


def test_what_natfix_needs_is_pinned() -> None:
    """requirements.txt has each dependency of the package and of the extra `live`, by version and hash."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["live"]]
    text = (SOURCES / "requirements.txt").read_text().replace("\\\n", " ")
    pinned = dict(re.findall(r"^(\S+)==(\S+) +--hash=sha256:[0-9a-f]{64}", text, re.MULTILINE))
    assert {re.split(r"[<>=]", each)[0] for each in wanted} <= pinned.keys()
    assert pinned.keys() <= {"dnspython", "jinja2", "markupsafe", "netfilterqueue", "pyroute2"}
    for each in wanted:
        name, _, least = each.partition(">=")
        assert numbers(pinned[name]) >= numbers(least), f"{each} against {pinned[name]}"


def numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


COMPLETE = """
. {file}
natfix() {{ {python} -m natfix "$@"; }}
COMP_WORDS=({words}) COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
_natfix
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(("words", "some"), [
    ("natfix ''", {"check", "status", "bypass", "down"}), ("natfix st", {"status"}),
    ("natfix notes --", {"--json", "--count", "--config"}), ("natfix rules --format ''", {"nft", "iptables"}),
    ("natfix rules --format i", {"iptables"})])
def test_completion(words: str, some: set[str]) -> None:
    """The shell offers the commands, the options of a command, and the choices of an option."""
    script = COMPLETE.format(file=SOURCES / "natfix.completion", python="/usr/bin/python3", words=words)
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, cwd=PROJECT)
    offered = set(done.stdout.split())
    assert some <= offered
    assert "''" not in words or "--" in words or offered == set(cli.COMMANDS)
