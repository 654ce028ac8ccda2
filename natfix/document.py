"""A TOML text whose keys know their lines, and that collects all that is wrong before it is refused.

tomllib keeps no positions. They are found again afterwards: a text that parsed as a whole is a row of
statements, so the shortest run of lines that parses by itself is one statement.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from natfix.errors import ConfigError, NotPermitted
from natfix.expect import Expectation, Unexpected, predicate, quoted, suggestion, toml_text

Keys = tuple[str | int, ...]    # the way to a value: table, index in an array of tables, key

MAX_SIZE = 1 << 20              # bytes; a megabyte is no configuration but a mistake


class Form(NamedTuple):
    """What one table may hold."""

    expectations: Mapping[str, Expectation]
    required: frozenset[str] = frozenset()
    tables: tuple[str, ...] = ()        # its sub-tables, each read by a call of its own
    homes: Mapping[str, str] = {}       # where else in the file a key belongs, for a better suggestion


class Document:
    """One parsed file: its ``data``, and its problems."""

    def __init__(self, text: str, where: str) -> None:
        """Parse *text*, called *where* in messages; raises ConfigError where it is no TOML."""
        self.where = where
        self._text = text
        self._lines: dict[Keys, int] | None = None
        self._problems: list[tuple[int, str]] = []
        try:
            self.data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as problem:
            raise ConfigError(_syntax_error(where, str(problem))) from None
        except RecursionError:
            raise ConfigError(f"{where}:1: this is not a natfix file: arrays nest too deep") from None

    def line_of(self, keys: Keys) -> int:
        """Return the line (from 1) that gives *keys*, or its nearest table that stands in the text."""
        if self._lines is None:
            self._lines = dict(_positions(self._text))
        while keys and keys not in self._lines:
            keys = keys[:-1]
        return self._lines.get(keys, 1)

    def complain(self, keys: Keys, problem: str) -> None:
        """Note one problem with the value at *keys*."""
        self._problems.append((self.line_of(keys), problem))

    def refuse_if_wrong(self) -> None:
        """Raise ConfigError with one line for each problem, in the order of the text."""
        if self._problems:
            lines = [f"{self.where}:{line}: {problem}" for line, problem in sorted(self._problems)]
            raise ConfigError("\n".join(lines))

    def read_table(self, keys: Keys, form: Form) -> dict[str, Any]:
        """Return what the table at *keys* sets, read; each of its faults becomes a problem."""
        table = self._table_at(keys)
        for key in sorted(form.required - table.keys()):
            self.complain(keys, f"{table_name(keys)} lacks {quoted(key)}: {form.expectations[key].text}")
        return dict(self._read_values(keys, table, form))

    def _table_at(self, keys: Keys) -> dict[str, Any]:
        value: Any = self.data
        for key in keys:
            value = value[key]
        return value if isinstance(value, dict) else {}

    def _read_values(self, keys: Keys, table: dict[str, Any], form: Form) -> Iterator[tuple[str, Any]]:
        for key, value in table.items():
            if key in form.tables:
                continue
            if key not in form.expectations:
                self.complain((*keys, key), _unknown(key, value, table_name(keys), form))
                continue
            try:
                yield key, form.expectations[key].read(value)
            except Unexpected as problem:
                words = predicate(form.expectations[key], problem)
                self.complain((*keys, key), f"{key} = {toml_text(value)} {_in(keys)}{words}")


def document_from_file(path: Path | str, purpose: str) -> Document:
    """Read and parse the file at *path*; *purpose* names what it was to be ("configuration file").

    Raises ConfigError where it is absent, no text or no TOML; NotPermitted where it may not be read.
    """
    try:
        raw = Path(path).read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such {purpose}") from None
    except PermissionError:
        raise NotPermitted(f"{path}: no right to read this {purpose}; run as root") from None
    except OSError as problem:
        raise ConfigError(f"{path}: cannot read this {purpose} ({problem.strerror})") from None
    if len(raw) > MAX_SIZE:
        raise ConfigError(f"{path}: a {purpose} of {len(raw)} bytes is a mistake (at most {MAX_SIZE})")
    try:
        return Document(raw.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as problem:
        line = raw.count(b"\n", 0, problem.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8 text (byte {raw[problem.start]:#04x})") from None


def table_name(keys: Keys) -> str:
    """Return how the table at *keys* is written: "[media]", "[[peer]]", or "the top level"."""
    if not keys:
        return "the top level"
    return f"[[{keys[0]}]]" if isinstance(keys[-1], int) else f"[{'.'.join(map(str, keys))}]"


def _in(keys: Keys) -> str:
    return f"in {table_name(keys)} " if keys else ""


def _unknown(key: str, value: Any, table: str, form: Form) -> str:
    """Return the sentence for a key that a table does not have, with where or what it may have been."""
    is_table = isinstance(value, dict) or (isinstance(value, list) and value and isinstance(value[0], dict))
    known = form.tables if is_table else tuple(form.expectations)
    sentence = f"unknown table {quoted(key)}" if is_table else f"unknown key {quoted(key)} in {table}"
    if form.homes.get(key, table) != table:
        return f"{sentence}; it belongs in {form.homes[key]}"
    return f"{sentence}; {suggestion(key, known) or 'known are ' + ', '.join(known)}"


def _syntax_error(where: str, problem: str) -> str:
    """Return tomllib's "... (at line 3, column 7)" as "where:3: ..."."""
    found = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", problem, re.DOTALL)
    if found is None:
        return f"{where}:1: not TOML: {problem}"
    what, line, column = found.groups()
    if line is None:
        return f"{where}: not TOML: {what} at the end of the file"
    return f"{where}:{line}: not TOML: {what} (column {column})"


def _positions(text: str) -> Iterator[tuple[Keys, int]]:
    """Yield every key of a valid TOML *text* with its line."""
    prefix: Keys = ()
    counts: dict[Keys, int] = {}
    for line, parsed, is_header in _statements(text):
        if not is_header:
            yield from ((prefix + keys, line) for keys in _paths(parsed))
            continue
        prefix, is_array = _header_keys(parsed)
        if is_array:
            if prefix not in counts:
                yield prefix, line
            counts[prefix] = counts.get(prefix, -1) + 1
            prefix = (*prefix, counts[prefix])
        yield prefix, line


def _statements(text: str) -> Iterator[tuple[int, dict[str, Any], bool]]:
    """Yield line, parsed form and whether it is a table's header, for each statement of a valid text."""
    start, chunk = 1, ""
    for number, line in enumerate(text.split("\n"), start=1):    # TOML knows no other line end
        chunk += line + "\n"
        try:
            parsed = tomllib.loads(chunk)
        except tomllib.TOMLDecodeError:
            continue        # an array or a long string that goes on
        if parsed:
            yield start, parsed, chunk.lstrip().startswith("[")
        start, chunk = number + 1, ""


def _paths(parsed: dict[str, Any], prefix: Keys = ()) -> Iterator[Keys]:
    """Yield the way to each key that one statement sets, tables on the way included."""
    for key, value in parsed.items():
        yield (*prefix, key)
        if isinstance(value, dict):
            yield from _paths(value, (*prefix, key))


def _header_keys(parsed: dict[str, Any]) -> tuple[Keys, bool]:
    """Return the keys of a parsed "[one.two]" or "[[one]]", and whether it was the latter."""
    keys: Keys = ()
    value: Any = parsed
    while isinstance(value, dict) and value:
        key, value = next(iter(value.items()))
        keys = (*keys, key)
    return keys, isinstance(value, list)
