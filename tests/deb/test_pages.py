"""The man pages: they render without a warning, and nothing that natfix has is missing from them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from natfix import cli
from natfix.config import ARRAYS, TABLES, Settings
from natfix.replay import main as replay
from tests.deb.cleanroot import PROJECT

NAMES = ("natfix.8", "natfix-replay.1", "natfix.toml.5")

pytestmark = pytest.mark.skipif(
    shutil.which("man") is None, reason="not installed: man (tools/test installs it)")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Each page as `man` shows it, without line breaks, and what the renderer complained of."""
    folder = tmp_path_factory.mktemp("man")
    program = PROJECT / "tools" / "deb" / "pages.py"
    subprocess.run([sys.executable, "-B", program, PROJECT, folder], check=True)
    return {name: rendered(folder / name) for name in NAMES}


def rendered(page: Path) -> str:
    done = subprocess.run(["man", "-l", "--warnings=w", "-E", "UTF-8", page], capture_output=True, text=True,
                          check=True, env={**os.environ, "MANWIDTH": "200", "LC_ALL": "C.UTF-8"})
    assert done.stderr == ""
    return re.sub(r"\s+", " ", done.stdout)


@pytest.mark.parametrize("name", NAMES)
def test_it_renders(pages: dict[str, str], name: str) -> None:
    """No warning, its own name in the head, and no place of the source left over."""
    title, section = name.rsplit(".", 1)
    assert pages[name].startswith(f"{title.upper()}({section})")
    assert not re.search(r"@[A-Z]+@", pages[name])


def test_every_command_with_its_options(pages: dict[str, str]) -> None:
    """natfix(8) has each command, each of its options and what they do; and every exit code."""
    for name, command in cli.COMMANDS.items():
        begin = pages["natfix.8"].index(f" {name} {command.help[:1].upper()}{command.help[1:]}.")
        for option in command.options:
            shown = option.flag if option.flag.startswith("-") else str(option.settings["metavar"])
            assert shown in pages["natfix.8"][begin:], f"{name} {option.flag}"
    for option in cli.COMMON:
        assert option.flag in pages["natfix.8"]
    for code in re.findall(r"\d+", cli.EXIT_CODES):
        assert f" {code} " in pages["natfix.8"].partition("EXIT STATUS")[2]


def test_every_option_of_replay(pages: dict[str, str]) -> None:
    """natfix-replay(1) has each option."""
    for action in replay._parser()._actions:
        for flag in action.option_strings or ["CAPTURE"]:
            assert flag in pages["natfix-replay.1"]


def test_every_setting_with_its_default(pages: dict[str, str]) -> None:
    """natfix.toml(5) has each table and setting of the configuration, with its default."""
    text = pages["natfix.toml.5"].partition("SETTINGS")[2]
    tables = [(f"[{name}]", table) for name, table in TABLES.items()]
    tables += [(f"[[{name}]]", table) for name, (_, table) in ARRAYS.items()]
    for head, table in [("", Settings), *tables]:
        begin = text.index(f"{head} ")
        for each in fields(table):
            if "expected" in each.metadata:
                place = text.find(f" {each.name} = ", begin)
                assert place >= 0, f"{head} {each.name}"
                shown = as_toml(each.default)
                assert shown is None or text[place:].startswith(f" {each.name} = {shown}"), \
                    text[place:place + 80]


def as_toml(default: object) -> str | None:
    """Return *default* as the page writes it; None where there is none, or it has more than one spelling."""
    if default is MISSING or (isinstance(default, int) and default > 0xFFFFF):
        return None
    if isinstance(default, tuple):
        return f"[{', '.join(str(as_toml(each)) for each in default)}]"
    return f'"{default}"' if isinstance(default, str) else str(default)
