"""SIP ALGs of others: one file for each product, how it shows in a capture, and how it is switched off.

``rules/alg/*.toml`` is data with sources: nothing is claimed that nobody wrote down. Who recognises a
product in a capture is :mod:`natfix.replay.products`; `natfix explain --alg` lists all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from textwrap import fill
from typing import NamedTuple

from natfix.document import Document, Form, document_from_file
from natfix.expect import list_of, one_of, text
from natfix.shipped import shipped

WIDTH = 100
MIN_MARK = 4        # characters; a shorter text would be found in messages of others

KINDS = {
    "gateway": "a router or firewall with a SIP ALG",
    "kernel": "the Linux kernel's SIP helper, or a system that is built on it",
    "server": "a SIP server that fixes far-end NAT",
    "none": "a router or firewall without a SIP ALG",
}


class Alg(NamedTuple):
    """One product: what is known of its SIP ALG."""

    name: str                           # short, unique: the file's name
    product: str                        # as people call it
    kind: str                           # of KINDS
    off: tuple[str, ...]                # commands or menu paths that switch it off, in order
    sources: tuple[str, ...]            # where that is written
    check: str = ""                     # how to see whether it is on
    afterwards: str = ""                # what has to be done for running connections
    notes: str = ""
    formats: tuple[str, ...] = ()       # of captures that only this product writes, as JSON names them
    marks: tuple[str, ...] = ()         # texts that it leaves in messages, upper and lower case alike
    user_agents: tuple[str, ...] = ()   # how it calls itself, from the beginning
    log: tuple[str, ...] = ()           # texts of its log lines
    oui: tuple[str, ...] = ()           # first three octets of its MAC addresses

    @property
    def switch_off(self) -> str:
        """Everything to be done, as one sentence or command line."""
        steps = "; ".join(self.off)
        return f"{steps}; then {self.afterwards}" if self.afterwards else steps



_TEXT = text("one line of text", lambda value: value == value.strip() and 0 < len(value) <= 600
             and "\n" not in value)
_MARK = text(f"a text of {MIN_MARK} characters or more",
             lambda value: len(value) >= MIN_MARK and value.isprintable())
_OUI = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){2}")
FORM = Form(
    expectations={
        "product": _TEXT, "kind": one_of(*KINDS), "off": list_of(_TEXT), "sources": list_of(_TEXT, first=1),
        "check": _TEXT, "afterwards": _TEXT, "notes": _TEXT,
    },
    required=frozenset({"product", "kind", "off", "sources"}),
    tables=("recognise",),
    homes=dict.fromkeys(("formats", "marks", "user_agents", "log", "oui"), "[recognise]"),
)
RECOGNISE = Form(expectations={
    "formats": list_of(one_of("fw monitor", "FortiGate sniffer", "ASA capture")),
    "marks": list_of(_MARK), "user_agents": list_of(_MARK), "log": list_of(_MARK),
    "oui": list_of(text('three octets as in "00:0c:42"', _OUI.fullmatch)),
}, homes=dict.fromkeys(FORM.expectations, "the top level"))


@cache
def all_algs() -> tuple[Alg, ...]:
    """Return what comes with natfix, in the order of the products' names."""
    return algs_from_folder(shipped("rules", "alg"))


def algs_from_folder(folder: Path) -> tuple[Alg, ...]:
    """Return the products of a folder's ``*.toml``; raises ConfigError for the first file with faults."""
    algs = (alg_from_document(document_from_file(path, "product file"), path.stem)
            for path in sorted(folder.glob("*.toml")))
    return tuple(sorted(algs, key=lambda alg: alg.product.lower()))


def alg_from_text(source: str, where: str) -> Alg:
    """Return the product that a TOML text describes; *where* names it in messages, and the product.

    Raises ConfigError with one line "where:line: ..." for each fault.
    """
    return alg_from_document(Document(source, where), Path(where).stem)


def alg_from_document(document: Document, name: str) -> Alg:
    """Return the product that *document* describes; raises as :func:`alg_from_text`."""
    values = document.read_table((), FORM)
    signs = document.data.get("recognise", {})
    if isinstance(signs, dict):
        values |= document.read_table(("recognise",), RECOGNISE) if signs else {}
    else:
        document.complain(("recognise",), "recognise must be a table: write [recognise] on a line of its own")
    document.refuse_if_wrong()
    return Alg(name=name, **values)


def as_text() -> str:
    """Return all products with what switches their SIP ALG off, for a terminal."""
    return "\n\n".join("\n".join(_paragraphs(alg)) for alg in all_algs())


def _paragraphs(alg: Alg) -> Iterator[str]:
    yield f"{alg.product}  ({KINDS[alg.kind]})"
    for step in alg.off:
        yield f"  {step}"
    for name, words in (("then", alg.afterwards), ("see", alg.check), ("note", alg.notes),
                        ("source", "; ".join(alg.sources))):
        if words:
            yield fill(words, WIDTH, initial_indent=f"  {name + ':':<8}", subsequent_indent=" " * 10,
                       break_on_hyphens=False, break_long_words=False)
