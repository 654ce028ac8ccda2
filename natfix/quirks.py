"""Quirks: devices with known faults, and which of a closed set of repairs each one needs.

A device is data: which User-Agent it shows, what it needs, and a capture that proves the fault. What a
repair does is code, in the one place that reads its :class:`Repair` member.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from natfix.document import Document, Form, Keys, document_from_file
from natfix.expect import AGENT_NAME, Expectation, list_of, one_of, optional, text
from natfix.shipped import shipped

MIN_PREFIX = 3      # characters; a shorter prefix would fit devices nobody thought of


class Repair(Enum):
    """Everything natfix can do for a faulty device."""

    # The device cannot take the parameters that RFC 3581, section 4, puts into its Via: ``received`` and
    # ``rport`` are left out of the Via that it is shown as its own.
    IGNORES_RPORT = "ignores-rport"
    # The rest is in natfix.repairs. NATPass calls the next four E, S, T and R.
    DROP_SECOND_EARLY_MEDIA = "drop-second-early-media"
    KEEPS_EARLY_SDP = "keeps-early-sdp"
    KEEPS_FIRST_TAG = "keeps-first-tag"
    NO_REINVITE = "no-reinvite"
    REPLIES_TO_VIA_PORT = "replies-to-via-port"


class Quirk(NamedTuple):
    """One kind of device and what it needs."""

    name: str                   # short, unique; a later file's quirk of that name replaces it
    user_agent: str             # how its User-Agent or Server begins, in any case
    repairs: frozenset[Repair]  # empty: nothing, so a file can switch off a shipped quirk
    capture: str = ""           # below pcaps/: shows the fault
    agent_name: str = ""        # shown outside in place of its own name; "": [signalling] agent_name


class Quirks(tuple[Quirk, ...]):
    """All quirks in force; asked once for each message."""

    def __init__(self, quirks: Iterable[Quirk] = ()) -> None:
        self._prefixes = tuple(quirk.user_agent.lower() for quirk in self)

    def repairs_for(self, user_agent: str) -> frozenset[Repair]:
        """Return all repairs that a UA calling itself *user_agent* needs; every quirk that fits counts."""
        name = user_agent.lower()
        if not name.startswith(self._prefixes):
            return NO_REPAIRS
        found = (quirk.repairs for quirk, prefix in zip(self, self._prefixes, strict=True)
                 if name.startswith(prefix))
        return NO_REPAIRS.union(*found)

    def agent_name_for(self, user_agent: str) -> str:
        """Return what such a UA is called outside, by the last quirk that says so; "" where none does."""
        name = user_agent.lower()
        if not name.startswith(self._prefixes):
            return ""
        return next((quirk.agent_name for quirk in reversed(self)
                     if quirk.agent_name and name.startswith(quirk.user_agent.lower())), "")


NO_REPAIRS: frozenset[Repair] = frozenset()


def _repairs() -> Expectation:
    inner = list_of(one_of(*(repair.value for repair in Repair)))
    return Expectation(inner.text, lambda value: frozenset(map(Repair, inner.read(value))))


def _slug() -> Expectation:
    letters = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
    return text('a name of a-z, 0-9 and "-"', lambda value: value and letters.issuperset(value))


FORM = Form(
    expectations={
        "name": _slug(),
        "user_agent": text(
            f"how the device's User-Agent begins, at least {MIN_PREFIX} characters",
            lambda value: len(value) >= MIN_PREFIX and value.isprintable() and value == value.strip(),
        ),
        "repairs": _repairs(),
        "capture": text('the name of a capture, as in "uip200-rport.pcap"', bool),
        "agent_name": optional(AGENT_NAME),
    },
    required=frozenset({"name", "user_agent", "repairs"}),
)


def quirks_from_text(source: str, where: str) -> Quirks:
    """Return the quirks that the TOML text *source* lists; *where* names it in messages.

    Raises ConfigError whose text has one line "where:line: ..." for each fault.
    """
    return _quirks_from_document(Document(source, where))


def quirks_from_file(path: Path | str) -> Quirks:
    """Return the quirks of the file at *path*; raises like :func:`quirks_from_text`, ConfigError where
    there is no such file, NotPermitted where it may not be read."""
    return _quirks_from_document(document_from_file(path, "quirks file"))


def all_quirks(files: Iterable[Path | str] = ()) -> Quirks:
    """Return the quirks that come with natfix, and those of the operator's *files*; raises like
    :func:`quirks_from_file`."""
    return merged(*map(quirks_from_file, (shipped("rules", "quirks.toml"), *files)))


def merged(*files: Iterable[Quirk]) -> Quirks:
    """Return the quirks of several files in one; the last of several with one name counts."""
    return Quirks({quirk.name: quirk for quirks in files for quirk in quirks}.values())


def _quirks_from_document(document: Document) -> Quirks:
    document.read_table((), Form({}, tables=("quirk",), homes=dict.fromkeys(FORM.expectations, "[[quirk]]")))
    entries = document.data.get("quirk", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        document.complain(("quirk",), "quirk must be a table: write [[quirk]] on a line of its own")
        entries = []
    quirks = [_read_quirk(document, ("quirk", index)) for index in range(len(entries))]
    document.refuse_if_wrong()
    for index, quirk in enumerate(quirks):
        if quirk and quirk.name in {earlier.name for earlier in quirks[:index] if earlier}:
            document.complain(("quirk", index, "name"), f'the name "{quirk.name}" is there already, above')
    document.refuse_if_wrong()
    return Quirks(filter(None, quirks))


def _read_quirk(document: Document, keys: Keys) -> Quirk | None:
    values = document.read_table(keys, FORM)
    return Quirk(**values) if FORM.required <= values.keys() else None

