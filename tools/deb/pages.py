"""The man pages, from their sources in ``man/`` and from what natfix says of its commands and settings.

``python3 pages.py NATFIX DIRECTORY`` writes those of the checkout NATFIX into DIRECTORY. Commands and options
come from the programs' own parsers, settings from ``rules/natfix.toml.example``: no page can fall behind.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

SOURCES = Path(__file__).resolve().parent / "man"
HEAD = 5            # lines of the example that only say how to use it
SETTING = re.compile(r"^#?([a-z_]+) = (.*?)(?:\s{2,}# (.*))?$")
TABLE = re.compile(r"^#?\[+([a-z_]+)\]+$")
PLACE = re.compile(r"^@([A-Z]+)@$", re.MULTILINE)


def main(checkout: str, target: str) -> None:
    """Write all pages of *checkout* into the directory *target*."""
    sys.path.insert(0, checkout)
    import natfix

    example = Path(checkout, "rules", "natfix.toml.example")
    parts: dict[str, Callable[[str], str]] = {
        "COMMANDS": lambda page: "\n".join(commands()),
        "COMMON": lambda page: "\n".join(common_options()),
        "OPTIONS": lambda page: "\n".join(replay_options()),
        "SETTINGS": lambda page: "\n".join(settings(example.read_text())),
        "EXIT": lambda page: exit_codes(page),
    }
    stamp = int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))
    words = {"@DATE@": time.strftime("%Y-%m-%d", time.gmtime(stamp)), "@VERSION@": natfix.__version__}
    for source in sorted(SOURCES.glob("*.in")):
        text = PLACE.sub(lambda found, page=source.stem: parts[found[1]](page), source.read_text())
        for word, value in words.items():
            text = text.replace(word, value)
        Path(target, source.stem).write_text(text)


def escaped(text: str) -> str:
    """Return *text* such that troff shows it as it is, wherever it stands in a line."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    return f"\\&{text}" if text.startswith(".") else text


def option_lines(actions: Iterable[argparse.Action]) -> Iterator[str]:
    """Yield one paragraph for each option of a parser."""
    for action in actions:
        yield ".TP"
        value = argparse.HelpFormatter("")._format_args(action, action.metavar or action.dest.upper())
        names = ", ".join(f"\\fB{escaped(name)}\\fR" for name in action.option_strings) or ""
        yield " ".join(part for part in (names, f"\\fI{escaped(value)}\\fR" if value else "") if part)
        yield escaped(sentence(action.help or ""))


def sentence(text: str) -> str:
    """Return *text* with a capital and a full stop, as a page has its sentences."""
    first = text.partition(" ")[0]
    begins = text[:1] if "." in first or first.startswith("natfix") else text[:1].upper()
    return f"{begins}{text[1:].rstrip('.')}."


def described(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return what *parser* takes, but for subcommands."""
    return [action for action in parser._actions if action.help != argparse.SUPPRESS
            and not isinstance(action, argparse._SubParsersAction)]


def commands() -> Iterator[str]:
    """Yield a section for each command of natfix, with the options that are its own."""
    from natfix import cli

    shared = {option.flag for option in cli.COMMON} | {"-h"}
    subparsers = next(action for action in cli._parser()._actions
                      if isinstance(action, argparse._SubParsersAction))
    for name, parser in subparsers.choices.items():
        own = [action for action in described(parser) if shared.isdisjoint(action.option_strings)]
        yield f".SS {escaped(name)}"
        yield escaped(sentence(parser.description or ""))
        yield from option_lines(own)


def common_options() -> Iterator[str]:
    """Yield the options that every command of natfix takes."""
    from natfix import cli

    yield from option_lines(described(cli._parser()))


def replay_options() -> Iterator[str]:
    """Yield the options of natfix-replay."""
    from natfix.replay import main as replay

    yield from option_lines(described(replay._parser()))


def exit_codes(page: str) -> str:
    """Return the exit codes as the program's own help has them, one a line."""
    from natfix import cli
    from natfix.replay import main as replay

    told = (cli._parser() if page.startswith("natfix.8") else replay._parser()).epilog or ""
    codes = re.findall(r"(\d+) ([^,]+(?:, [^\d][^,]*)*)", told.partition(":")[2])
    return "\n".join(f".TP\n.B {number}\n{escaped(sentence(meaning))}" for number, meaning in codes)


def settings(example: str) -> Iterator[str]:
    """Yield the settings of the example file: its tables as sections, its comments as their text."""
    comment: list[str] = []
    pending: list[str] = []     # settings that share the comment above them
    for line in [*example.splitlines()[HEAD:], ""]:
        if found := TABLE.match(line):
            yield from paragraph(pending, comment)
            array = "[[" in line
            yield f".SS {'[[' if array else '['}{escaped(found[1])}{']]' if array else ']'}"
            yield from (["\n".join(text_lines(comment))] if comment else [])
            comment, pending = [], []
        elif found := SETTING.match(line):
            pending.append(heading(*found.groups()))
        elif line.startswith("#"):
            if pending:
                yield from paragraph(pending, comment)
                comment, pending = [], []
            comment.append(line[1:].removeprefix(" "))
        elif not line:
            yield from paragraph(pending, comment)
            comment, pending = ([], []) if pending else (comment, pending)


def heading(name: str, default: str, example: str | None) -> str:
    """Return a setting with its default and, in parentheses, what the example file has beside it."""
    shown = f"\\fB{escaped(name)}\\fR = {escaped(default)}"
    return f"{shown}\\ \\ (\\fI{escaped(example)}\\fR)" if example else shown


def paragraph(headings: list[str], comment: list[str]) -> Iterator[str]:
    """Yield settings with the text that explains them."""
    for index, shown in enumerate(headings):
        yield ".TP" if index == 0 else ".TQ"
        yield shown
    if headings:
        yield "\n".join(text_lines(comment)) or "\\&"


def text_lines(comment: list[str]) -> Iterator[str]:
    """Yield *comment* as text; lines that are set off in the file keep their breaks."""
    for line in comment:
        if re.match(r'^\s*"[^"]*":', line):
            yield ".br"
        yield escaped(line.strip())


if __name__ == "__main__":
    main(*sys.argv[1:])
