"""The catalogue: every code that natfix may show, with what it means, in one file for all outputs.

``rules/catalogue.toml`` is read by `natfix explain`, the report, the journal's catalogue and the man page;
so the same fault has the same words everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from textwrap import fill
from typing import NamedTuple

from natfix.document import Document, Form, Keys, document_from_file
from natfix.errors import ConfigError
from natfix.expect import list_of, one_of, suggestion, text
from natfix.shipped import shipped

CODE = re.compile(r"[DHE][0-9]{2}")
WIDTH = 100         # columns of a terminal, at most

NEEDS = {
    "S": "SIP, captured at one point",
    "R": "the media of the call",
    "2": "captures on both sides of the gateway, or `tcpdump -i any` on it",
    "K": "the kernel's log or its connection table",
}
FIXED = {"yes": "yes", "partly": "partly", "no": "no: another box's fault, or nobody on the path can help"}


class Entry(NamedTuple):
    """One code."""

    code: str                       # "D12"
    title: str                      # one line
    symptom: str                    # as people say it, or the operator sees it
    signature: str                  # what shows it in packets, or is looked at
    cause: str
    remedy: str
    needs: tuple[str, ...] = ()     # of NEEDS; of D codes only
    fixed_by_natfix: str = ""       # "yes", "partly", "no"; of D codes only
    better_with: tuple[str, ...] = ()
    rfcs: tuple[str, ...] = ()      # "RFC 3261 18.2.2"


_SENTENCES = text("a text of at least one sentence", lambda value: value.strip() == value and len(value) > 10)
_KINDS = list_of(one_of(*NEEDS))
FORM = Form(
    expectations={
        "code": text('a code such as "D12"', CODE.fullmatch),
        "title": text("one line of at most 90 characters", lambda value: 0 < len(value) <= 90
                      and "\n" not in value),
        "symptom": _SENTENCES, "signature": _SENTENCES, "cause": _SENTENCES, "remedy": _SENTENCES,
        "needs": _KINDS,
        "better_with": _KINDS,
        "rfcs": list_of(text('an RFC, with or without a section, as in "RFC 3261 18.2.2"',
                             re.compile(r"RFC [0-9]{3,5}( [A-Z0-9.-]+)?").fullmatch)),
        "fixed_by_natfix": one_of(*FIXED),
    },
    required=frozenset({"code", "title", "symptom", "signature", "cause", "remedy"}),
)
REQUIRED_OF_SYMPTOMS = ("needs", "fixed_by_natfix")
# What symptom and signature are called, by a code's first letter.
LABELS = {
    "D": ("People say", "In packets"), "H": ("You see", "Looked at"), "E": ("You see", "Comes from"),
}


@cache
def catalogue() -> dict[str, Entry]:
    """Return all entries that come with natfix, by code, in the order of the file."""
    return catalogue_from_file(shipped("rules", "catalogue.toml"))


def catalogue_from_file(path: Path | str) -> dict[str, Entry]:
    """Return the entries of a catalogue file; raises ConfigError with one line for each fault in it."""
    return _entries(document_from_file(path, "catalogue"))


def catalogue_from_text(source: str, where: str) -> dict[str, Entry]:
    """Return the entries of a catalogue's text; *where* names it in messages. Raises as above."""
    return _entries(Document(source, where))


def is_no_code(text: str) -> bool:
    """Tell what cannot be a code from one that may be, or that somebody has mistyped."""
    return re.fullmatch(r"[A-Za-z]{1,2}\d{1,4}", text.strip()) is None


def entry_for(code: str) -> Entry:
    """Return the entry of *code*, in any case; raises ConfigError, with the nearest code, where none is."""
    entries = catalogue()
    found = entries.get(code.strip().upper())
    if found is None:
        close = suggestion(code.strip().upper(), tuple(entries)) or "`natfix explain` alone lists all"
        shown = code if len(code) <= 20 and code.isprintable() else "that"
        raise ConfigError(f"there is no code {shown}; {close}")
    return found


def as_list() -> str:
    """Return one line for each code."""
    lines = [f"{entry.code}  {entry.title}" for entry in catalogue().values()]
    return "\n".join([*lines, "", "natfix explain D12 tells more of one."])


def as_text(entry: Entry) -> str:
    """Return an entry for a terminal."""
    return "\n".join([f"{entry.code}  {entry.title}", "", *_paragraphs(entry)])


def as_document(entry: Entry) -> dict[str, object]:
    """Return an entry for JSON."""
    return {name: list(value) if isinstance(value, tuple) else value
            for name, value in entry._asdict().items() if value or name not in REQUIRED_OF_SYMPTOMS}


def _paragraphs(entry: Entry) -> Iterator[str]:
    needs = "; ".join(NEEDS[kind] for kind in entry.needs)
    if entry.better_with:
        needs += ". Surer with: " + "; ".join(NEEDS[kind] for kind in entry.better_with)
    symptom, signature = LABELS[entry.code[0]]
    facts = (
        (symptom, f'"{entry.symptom}"' if entry.code.startswith("D") else entry.symptom),
        (signature, entry.signature), ("Cause", entry.cause),
        ("Remedy", entry.remedy), ("Cured by natfix", FIXED.get(entry.fixed_by_natfix, "")),
        ("To be seen in", needs), ("Rules", ", ".join(entry.rfcs)),
    )
    for name, words in facts:
        if words:
            yield fill(words, WIDTH, initial_indent=f"{name + ':':<17}", subsequent_indent=" " * 17,
                       break_on_hyphens=False, break_long_words=False)


def _entries(document: Document) -> dict[str, Entry]:
    document.read_table((), Form({}, tables=("entry",), homes=dict.fromkeys(FORM.expectations, "[[entry]]")))
    tables = document.data.get("entry", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        document.complain(("entry",), "entry must be a table: write [[entry]] on a line of its own")
        tables = []
    entries: dict[str, Entry] = {}
    for index in range(len(tables)):
        _read(document, ("entry", index), entries)
    document.refuse_if_wrong()
    return entries


def _read(document: Document, keys: Keys, entries: dict[str, Entry]) -> None:
    values = document.read_table(keys, FORM)
    if values.get("code") in entries:
        document.complain((*keys, "code"), f'the code "{values["code"]}" is there already, above')
    elif FORM.required <= values.keys():
        missing = [key for key in REQUIRED_OF_SYMPTOMS if key not in values]
        if missing and values["code"].startswith("D"):
            document.complain(keys, f'[[entry]] lacks "{missing[0]}", which a symptom has')
        else:
            entries[values["code"]] = Entry(**values)
