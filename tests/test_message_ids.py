"""The kinds of log lines: every line that matters has one, and journalctl takes their catalogue."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from natfix.message_ids import KINDS, catalog, kind

PACKAGE = Path(__file__).parents[1] / "natfix"
TREES = {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text())
         for path in sorted(PACKAGE.rglob("*.py"))}
GRAVE = frozenset({"warning", "error", "critical", "exception", "log"})


def calls_of_the_log(tree: ast.Module) -> Iterator[ast.Call]:
    """Yield each line that says something to an operator."""
    for node in ast.walk(tree):
        if (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in GRAVE
                and isinstance(node.func.value, ast.Name) and node.func.value.id in ("log", "logging")):
            yield node


@pytest.mark.parametrize("name", [name for name, tree in TREES.items() if any(calls_of_the_log(tree))])
def test_every_grave_line_has_its_kind(name: str) -> None:
    """What is logged as a warning or worse has a MESSAGE_ID: an ``extra``."""
    bare = [node.lineno for node in calls_of_the_log(TREES[name])
            if "extra" not in {keyword.arg for keyword in node.keywords}]
    assert not bare, f"natfix/{name}: extra=kind(...) is missing (natfix/message_ids.py)"


def test_every_kind_is_used() -> None:
    """The table has no kind that no line is of; what is given to kind() by its name is in the table."""
    words, asked = set(), set()
    for name, tree in TREES.items():
        if name == "message_ids.py":
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                words.add(node.value)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "kind":
                asked |= {each.value for each in ast.walk(node.args[0]) if isinstance(each, ast.Constant)}
    assert KINDS.keys() <= words
    assert asked <= KINDS.keys()


def test_ids_are_ids() -> None:
    """Each is 128 random bits (UUID version 4, as journalctl makes them) and no two kinds have the same."""
    ids = [each.message_id for each in KINDS.values()]
    assert all(re.fullmatch(r"[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}", each) for each in ids)
    assert len(set(ids)) == len(ids)


def test_what_a_line_of_the_log_takes() -> None:
    """The id, and the call where there is one."""
    assert kind("ready") == {"message_id": KINDS["ready"].message_id}
    assert kind("one-way-audio", "abc@x")["call_id"] == "abc@x"
    with pytest.raises(KeyError):
        kind("unheard-of")


def test_entries_of_the_catalogue() -> None:
    """Each begins with its id, has a head, an empty line, and text that a terminal can show."""
    entries = "\n".join(catalog()).split("-- ")[1:]
    assert len(entries) == len(KINDS)
    for entry, each in zip(entries, KINDS.values(), strict=True):
        head, _, text = entry.partition("\n\n")
        assert head.splitlines() == [each.message_id, f"Subject: {each.subject}", "Defined-By: natfix",
                                     "Documentation: man:natfix(8)"]
        assert text.strip() == each.text
        assert entry.isascii()
        assert set(re.findall(r"@(\w+)@", entry)) <= {"CALL_ID"}


@pytest.mark.skipif(
    shutil.which("journalctl") is None, reason="not installed: journalctl (tools/test installs it)")
def test_journalctl_reads_the_catalogue(tmp_path: Path) -> None:
    """journalctl makes its database of the file that the package's builder writes, and finds every kind."""
    folder = tmp_path / "usr" / "lib" / "systemd" / "catalog"
    folder.mkdir(parents=True)
    (tmp_path / "var" / "lib" / "systemd" / "catalog").mkdir(parents=True)
    program = PACKAGE.parent / "tools" / "deb" / "catalog.py"
    text = subprocess.run(["/usr/bin/python3", "-B", program, PACKAGE.parent],
                          capture_output=True, text=True, check=True).stdout
    (folder / "natfix.catalog").write_text(text)
    made = subprocess.run(["journalctl", f"--root={tmp_path}", "--update-catalog"],
                          capture_output=True, text=True, check=True)
    assert made.stderr == ""
    database = (tmp_path / "var" / "lib" / "systemd" / "catalog" / "database").read_bytes()
    for each in KINDS.values():
        assert bytes.fromhex(each.message_id) in database
        assert each.subject.encode() in database
