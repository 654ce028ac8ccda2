"""The half of `natfix status`, `calls`, `monitor` and their sisters that asks the daemon, and prints."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TextIO

from natfix.control import follow, request
from natfix.errors import DONE, ConfigError, NatfixError, NotRunning
from natfix.terminal import fitted, painter, screen

SHORTEST_WATCH = 0.2    # seconds; the daemon has packets to see to
LONGEST_NUMBER = 5      # digits; longer ones are a part of a Call-ID
LONGEST_WATCH = 86400.0

Answer = dict[str, Any]


class Manner(NamedTuple):
    """How an answer is wanted."""

    as_json: bool = False
    watch: float = 0.0      # seconds between two answers; 0: one answer, and that is it


def call_named(socket_path: str, name: str) -> str:
    """Return the Call-ID, or part of one, that *name* stands for: a number is a line of `natfix calls`."""
    if not (name.isascii() and name.isdigit() and len(name) <= LONGEST_NUMBER):
        return name
    calls = request(socket_path, {"command": "calls"})["calls"]
    if not 1 <= int(name) <= len(calls):
        return name
    return str(calls[int(name) - 1]["call_id"])


def manner_from(as_json: bool, watch: float | None) -> Manner:
    """Return the manner that the options ask for; raises ConfigError for seconds that make no sense."""
    if watch is None:
        return Manner(as_json)
    if not SHORTEST_WATCH <= watch <= LONGEST_WATCH:
        raise ConfigError(f"--watch takes {SHORTEST_WATCH:g} to {LONGEST_WATCH:g} seconds")
    return Manner(as_json, watch)


def ask(
    socket_path: str, question: Answer, text: Callable[[Answer], str], manner: Manner,
    out: TextIO | None = None,
) -> int:
    """Ask *question*, and print the answer as JSON, or as *text* makes it; return the exit code.

    Watching ends on Ctrl-C, with 0. Raises NatfixError as :func:`natfix.control.request` does; while it
    watches, a daemon that is being restarted is waited for.
    """
    out = out or sys.stdout
    if not manner.watch:
        answer = request(socket_path, question)
        print(json.dumps(answer, indent=2, ensure_ascii=True) if manner.as_json
              else painter(out)(text(answer)), file=out)
        return DONE
    try:
        return _watch(socket_path, question, text, manner, out)
    except KeyboardInterrupt:
        return DONE


def _watch(
    socket_path: str, question: Answer, text: Callable[[Answer], str], manner: Manner, out: TextIO,
) -> int:
    paint, turn = painter(out), 0
    while True:
        try:
            answer = request(socket_path, question)
            shown = json.dumps(answer) if manner.as_json else text(answer)
        except NatfixError as problem:      # it is not there, or only just starts
            if not turn:
                raise
            shown = str(problem)
            if manner.as_json:
                shown = json.dumps({"schema_version": 1, "error": shown})
        if out.isatty() and not manner.as_json:
            head = f"{time.strftime('%H:%M:%S')}  natfix {question['command']}, every {manner.watch:g} s"
            out.write(screen(paint(fitted(f"{head}\n\n{shown}")), is_first=not turn))
        else:
            print(shown, file=out)
        out.flush()
        turn += 1
        time.sleep(manner.watch)


def watch_events(
    socket_path: str, question: Answer, line: Callable[[Answer], str], manner: Manner,
    out: TextIO | None = None,
) -> int:
    """Print what the daemon pushes, one line each, until Ctrl-C (0) or until the daemon ends (NotRunning).

    Where *manner* says to watch, a daemon that ends is waited for, and asked again that often.
    """
    out = out or sys.stdout
    paint = painter(out)
    seen = False
    try:
        while True:
            try:
                for event in follow(socket_path, question):
                    seen = True
                    print(json.dumps(event) if manner.as_json else paint(line(event)), file=out, flush=True)
                seen = True
            except NatfixError:     # it is not there, or only just starts
                if not (manner.watch and seen):
                    raise
            if not manner.watch:
                raise NotRunning("natfix has ended, and the monitor with it")
            time.sleep(manner.watch)
    except KeyboardInterrupt:
        return DONE
