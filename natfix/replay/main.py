"""The command `natfix-replay`: captures in; what natfix makes of them, and what is wrong, out.

Only what a command line needs is imported before it is read: --help must not wait.
"""

from __future__ import annotations

import argparse
import gc
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TextIO

from natfix import __version__
from natfix.errors import DONE, FINDINGS, ConfigError, NatfixError
from natfix.replay.work import Bar, Work

if TYPE_CHECKING:
    from natfix.replay.replay import Options, Result

FAILED = 1
INTERRUPTED = 130       # 128 + SIGINT, as shells have it
EXIT_CODES = (
    "exit codes: 0 nothing is wrong, 1 nothing could be read, 2 usage or configuration error, "
    "6 finished with findings, 130 interrupted (what was read is shown)"
)
FORMATS = ("text", "json", "mermaid")
# What is held is held for long, and hardly has cycles: looking through all of it again and again would
# cost a quarter of the time.
COLLECT = (50_000, 1000, 1000)
PATIENCE = 3            # Ctrl-C so often ends it whatever it is doing


class Output(NamedTuple):
    """A file that can be written beside what is printed, by a function (path, result) of a module."""

    flag: str
    metavar: str
    module: str
    function: str
    help: str


OUTPUTS = (
    Output("-o", "FIXED.pcapng", "natfix.replay.write", "write_repaired",
           "write the repaired capture: before and after as interfaces, reasons as comments"),
    Output("--report", "REPORT.html", "natfix.replay.report", "write_report",
           "write a report: one HTML file that needs no network"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; errors go to stderr, one sentence each."""
    parser = _parser()
    line = parser.parse_args(arguments)
    try:
        options = _options(parser, line)
        return _run(options, line)
    except NatfixError as problem:
        for sentence in str(problem).splitlines():
            print(f"natfix-replay: {_printable(sentence)}", file=sys.stderr)
        return problem.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads any more; no traceback
        return FAILED
    except OSError as problem:
        name = str(problem.filename or "").removesuffix(".part")       # of an output that is not whole yet
        where = f"{_printable(name)}: " if name else ""
        print(f"natfix-replay: {where}{problem.strerror or problem}", file=sys.stderr)
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="natfix-replay", epilog=EXIT_CODES,
        description="Reads captures of SIP through NAT: says what is wrong and what to do, and shows what "
                    "natfix would make of it. Needs no root, and changes nothing.")
    parser.add_argument("captures", nargs="*", metavar="CAPTURE", help=(
        "pcap, pcapng, snoop, fw monitor (file or text), FortiGate sniffer or tcpdump -X text, gzipped or "
        "not; several are stages of one box; - is standard input"))
    parser.add_argument("--stage", action="append", default=[], metavar="NAME=FILE",
                        help="a capture, and what that point of the box is called")
    parser.add_argument("--inside", action="append", default=[], metavar="NET",
                        help="an inside network (otherwise found out from the packets); may be repeated")
    parser.add_argument("--outside", default="", metavar="ADDRESS", help="the outside address")
    parser.add_argument("--config", default="", metavar="FILE", help="the natfix.toml to replay with")
    parser.add_argument("--format", choices=FORMATS, default="text", help="of what is printed (text)")
    parser.add_argument("--call", default="", metavar="CALL-ID", help="show this call only")
    parser.add_argument("--redact", action="store_true", help=(
        "replace users, numbers, names, addresses and credentials by tokens of the same length, everywhere"))
    for output in _outputs():
        parser.add_argument(output.flag, default="", metavar=output.metavar, dest=output.function,
                            help=output.help)
    parser.add_argument("--version", action="version", version=f"natfix {__version__}")
    return parser


def _outputs() -> list[Output]:
    return [output for output in OUTPUTS if find_spec(output.module) is not None]


def _options(parser: argparse.ArgumentParser, line: argparse.Namespace) -> Options:
    """Check the command line; a mistake in it ends the program with code 2 here."""
    inside = tuple(_network(parser, text) for text in line.inside)
    if line.outside:
        _check_outside(parser, line.outside)
    named = _inputs(parser, line)

    from natfix.config import config_from_file
    from natfix.quirks import all_quirks
    from natfix.replay.replay import Input, Options

    inputs = tuple(Input(path, label) for path, label in named)
    _check_outputs(parser, line, [path for path, _ in named])
    settings = config_from_file(line.config) if line.config else None
    quirks = all_quirks(settings.quirks_files if settings else ())
    return Options(inputs, inside, line.outside, settings, quirks, line.call, line.redact)


def _network(parser: argparse.ArgumentParser, text: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError:
        parser.error(f"--inside {_printable(text)} is no network: write it like 192.168.1.0/24")


def _check_outside(parser: argparse.ArgumentParser, text: str) -> None:
    try:
        ip_address(text)
    except ValueError:
        parser.error(f"--outside {_printable(text)} is no IP address")


def _inputs(parser: argparse.ArgumentParser, line: argparse.Namespace) -> list[tuple[str, str]]:
    """Return every capture's path and name; names are unique, since packets are told apart by them."""
    wanted = [(path, "stdin" if path == "-" else Path(path).name.partition(".")[0]) for path in line.captures]
    for text in line.stage:
        name, equals, path = text.partition("=")
        if not (name and equals and path):
            parser.error(f"--stage {_printable(text)} must be NAME=FILE")
        wanted.append((path, name))
    if not wanted:
        parser.error("name a capture")
    if sum(path == "-" for path, _ in wanted) > 1:
        parser.error("standard input can be read once only")
    taken: set[str] = set()
    return [(path, _unique(label, taken)) for path, label in wanted]


def _check_outputs(parser: argparse.ArgumentParser, line: argparse.Namespace, captures: list[str]) -> None:
    """End the program before anything is written over a capture, the configuration or another output."""
    taken = [path for path in (*captures, line.config) if path and path != "-"]
    for output in _outputs():
        path = getattr(line, output.function)
        if path and any(_is_same(path, other) for other in taken if other):
            parser.error(f"{output.flag} {_printable(path)} would overwrite another file of this command")
        taken.append(path)


def _is_same(path: str, other: str) -> bool:
    if os.path.exists(path) and os.path.exists(other):
        return os.path.samefile(path, other) and os.path.isfile(path)
    return os.path.realpath(path) == os.path.realpath(other)


def _unique(label: str, taken: set[str]) -> str:
    label = _printable(label).replace(":", "_") or "capture"
    number, name = 1, label
    while name in taken:
        number += 1
        name = f"{label}-{number}"
    taken.add(name)
    return name


def _run(options: Options, line: argparse.Namespace) -> int:
    from natfix.replay.replay import run

    gc.set_threshold(*COLLECT)
    bar = Bar(sys.stderr)
    before = signal.signal(signal.SIGINT, lambda *_: _stop(bar))
    try:
        result = run(options, bar)
    finally:
        signal.signal(signal.SIGINT, before)
        bar.close()
    line.call = result.asked
    if line.call and not result.interrupted and not result.has_call(line.call):
        raise ConfigError(f"--call {line.call}: there is no such call")
    for output in _outputs():
        path = getattr(line, output.function, "")
        if path:
            shown = result.of_call(line.call) if line.call else result
            getattr(import_module(output.module), output.function)(path, shown)
    _write(result, line)
    sys.stdout.flush()
    if result.interrupted:
        print("natfix-replay: interrupted; this is what was read until then", file=sys.stderr)
        return INTERRUPTED
    is_wrong = any(not line.call or finding.call_id == line.call for finding in result.findings)
    return FINDINGS if is_wrong else DONE


def _stop(work: Work) -> None:
    work.stops += 1
    if work.stops >= PATIENCE:
        raise KeyboardInterrupt


def _write(result: Result, line: argparse.Namespace) -> None:
    if line.format == "json":
        from natfix.replay.as_json import write_json

        write_json(result, sys.stdout, line.call)
    elif line.format == "mermaid":
        from natfix.replay.mermaid import write_mermaid

        write_mermaid(result, sys.stdout, line.call)
    else:
        from natfix.replay.as_text import write_text

        write_text(result, sys.stdout, line.call, is_coloured=_wants_colour(sys.stdout))


def _wants_colour(file: TextIO) -> bool:
    """Tell whether colours make sense (no-color.org)."""
    return file.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)


if __name__ == "__main__":
    sys.exit(main())
