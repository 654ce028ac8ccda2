"""The catalogue of codes: complete, readable, refused with file, line and suggestion where it is wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from natfix import catalogue, cli
from natfix.catalogue import as_text, catalogue_from_file, catalogue_from_text, entry_for
from natfix.check import CHECKS, CONFIGURATION
from natfix.errors import FINDINGS, ConfigError, NatfixError
from tests.schema import problems

ENTRIES = catalogue.catalogue()
ENTRY = '''
[[entry]]
code = "D01"
title = "No audio"
symptom = "They hear me, I do not."
signature = "A private address in c=."
cause = "The NAT left the SDP alone."
remedy = "Translate the SDP."
needs = ["S"]
fixed_by_natfix = "yes"
'''


SYMPTOMS = [f"D{number:02d}" for number in range(1, 35)]


def test_every_code_has_its_entry() -> None:
    """Every symptom, every check of `natfix check` and every exit code is there, in order."""
    checks = [CONFIGURATION[0], *(code for code, _, _ in CHECKS)]
    exits = sorted({FINDINGS, *(kind.exit_code for kind in (NatfixError, *NatfixError.__subclasses__()))})
    assert list(ENTRIES) == [*SYMPTOMS, *checks, *(f"E{code:02d}" for code in exits)]


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES.keys())
def test_every_entry_says_all(entry: catalogue.Entry) -> None:
    """An entry has a title without a full stop, whole sentences else, and names the rule that is broken."""
    assert not entry.title.endswith(".")
    for words in (entry.symptom, entry.signature, entry.cause, entry.remedy):
        assert words[0].isupper() or words.startswith(
            ("nf_", "rport", "a=rtcp", "c=", "natfix", "sysctl", "net.", "`"))
        assert words.endswith(".")
    is_symptom = entry.code in SYMPTOMS
    assert bool(entry.rfcs) == bool(entry.needs) == bool(entry.fixed_by_natfix) == is_symptom


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES.keys())
def test_the_terminal_shows_all(entry: catalogue.Entry) -> None:
    """Each text of an entry is shown, in at most 100 columns."""
    shown = as_text(entry)
    assert max(map(len, shown.splitlines())) <= 100
    flat = " ".join(shown.split())
    assert all(words in flat for words in (entry.title, entry.symptom, entry.cause, entry.remedy))


def test_an_entry_is_found_in_any_case() -> None:
    """d12 is D12."""
    assert entry_for(" d12 ").code == "D12"


@pytest.mark.parametrize(("code", "said"), [
    ("D1", "there is no code D1; did you mean "), ("X99", "there is no code X99; "),
    ("\x1b[31m", "there is no code that; "), ("D" * 500, "there is no code that; "),
])
def test_an_unknown_code_is_one_sentence(code: str, said: str) -> None:
    """What is no code gets a suggestion or the way to the list, and no terminal codes back."""
    with pytest.raises(ConfigError, match=f"^{re.escape(said)}") as caught:
        entry_for(code)
    assert "\n" not in str(caught.value)


def test_an_entry_is_read() -> None:
    """What is left out is empty."""
    entry = catalogue_from_text(ENTRY, "x")["D01"]
    assert (entry.needs, entry.better_with, entry.rfcs, entry.fixed_by_natfix) == (("S",), (), (), "yes")


@pytest.mark.parametrize(("change", "said"), [
    (('code = "D01"', 'code = "Q01"'), 'x:3: code = "Q01" in [[entry]] must be a code such as "D12"'),
    (('needs = ["S"]', 'needs = ["T"]'), 'x:9: needs = ["T"] in [[entry]] has "T", which must be "S", '),
    (('needs = ["S"]', ''), 'x:2: [[entry]] lacks "needs", which a symptom has'),
    (('remedy =', 'remdy ='), 'x:8: unknown key "remdy" in [[entry]]; did you mean "remedy"?'),
    (('"yes"', '"maybe"'), 'x:10: fixed_by_natfix = "maybe" in [[entry]] must be "yes", "partly" or "no"'),
    (('cause = "The NAT left the SDP alone."', ''), 'x:2: [[entry]] lacks "cause": '),
    (('[[entry]]', '[entry]'), 'x:2: entry must be a table: write [[entry]] on a line of its own'),
    (('[[entry]]', '[[entries]]'), 'x:2: unknown table "entries"; did you mean "entry"?'),
    (('yes"\n', f'yes"\n{ENTRY}'), 'x:13: the code "D01" is there already, above'),
])
def test_a_wrong_file_is_refused(change: tuple[str, str], said: str) -> None:
    """A fault is named with file, line, key and what may have been meant."""
    with pytest.raises(ConfigError, match=f"(?m)^{re.escape(said)}"):
        catalogue_from_text(ENTRY.replace(*change, 1), "x")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A catalogue that is not there is a sentence, too."""
    with pytest.raises(ConfigError, match=r"none\.toml: there is no such catalogue"):
        catalogue_from_file(tmp_path / "none.toml")


def test_explain_shows_several(capsys: pytest.CaptureFixture[str]) -> None:
    """`natfix explain D12 d05` shows both, in the order asked for."""
    assert cli.main(["explain", "D12", "d05"]) == 0
    shown = capsys.readouterr().out
    assert 0 == shown.index("D12  ") < shown.index("\n\nD05  ")


def test_explain_alone_lists_all(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a code each one has its line."""
    assert cli.main(["explain"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:3] for line in lines if re.match("[DHE][0-9]{2}  ", line)] == list(ENTRIES)


def test_explain_refuses_the_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown code is exit code 2 and one sentence; nothing else is shown."""
    assert cli.main(["explain", "D12", "D99"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert re.fullmatch(r'natfix: there is no code D99; did you mean "D\d\d"\?\n', shown.err)


@pytest.mark.parametrize(("codes", "count"), [(("D12",), 1), (("h07", "E04"), 2), ((), len(ENTRIES))])
def test_explain_in_json(codes: tuple[str, ...], count: int, capsys: pytest.CaptureFixture[str]) -> None:
    """The JSON is as its schema says."""
    assert cli.main(["explain", "--json", *codes]) == 0
    document = json.loads(capsys.readouterr().out)
    assert problems(document, "explain") == []
    assert len(document["entries"]) == count
