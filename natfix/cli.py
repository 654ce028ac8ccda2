"""The command `natfix`: one table of subcommands, one exit code for each kind of error.

Each command imports what it needs when it runs: `natfix status` in a cron job must not wait for the
engine to load.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from natfix import __version__
from natfix.errors import DONE, NatfixError, NotRunning

if TYPE_CHECKING:
    from natfix.config import Settings
    from natfix.quirks import Quirks

FAILED = 1
INTERRUPTED = 130       # 128 + SIGINT, as shells have it
EXIT_CODES = (
    "exit codes: 0 done, 1 failed, 2 usage or configuration error, 3 not running, 4 needs more rights, "
    "5 kernel refuses or lacks something, 6 finished with findings, 75 try again (busy)"
)


class Option(NamedTuple):
    """One option of a command, as argparse takes it."""

    flag: str
    settings: dict[str, Any]


class Command(NamedTuple):
    """One subcommand."""

    run: Callable[[argparse.Namespace], int]
    help: str
    options: tuple[Option, ...] = ()


JSON = Option("--json", {"action": "store_true", "help": "print one JSON document"})
CAPTURE = Option("--capture", {
    "action": "append", "default": [], "metavar": "FILE",
    "help": "a capture of a call, in which other fixers are looked for; may be repeated"})
JSON_LINES = Option("--json", {"action": "store_true", "help": "print one JSON document a line"})
WATCH = Option("--watch", {
    "nargs": "?", "type": float, "const": 2.0, "default": None, "metavar": "SECONDS",
    "help": "again every SECONDS (2) until Ctrl-C; with --json one line each"})
AWAIT = Option("--watch", {
    "nargs": "?", "type": float, "const": 2.0, "default": None, "metavar": "SECONDS",
    "help": "go on when natfix was restarted, looking for it every SECONDS (2)"})
OF_CALL = Option("--call", {"metavar": "TEXT", "default": "", "help": "only with TEXT in the Call-ID"})
OF_HOST = Option("--host", {"metavar": "ADDRESS", "default": "", "help": "only what is about this host"})
OF_RULE = Option("--rule", {"metavar": "NAME", "default": "", "help": "only with a note of this rule"})
QUESTIONS = {"count", "call", "host", "rule"}      # options that the daemon itself heeds
TEXTFILE = Option("--textfile", {
    "metavar": "FILE", "default": "", "help": "write them there at once, for node_exporter"})
LEVEL = Option("level", {
    "choices": ("full", "short", "off"), "metavar": "LEVEL",
    "help": "full, short or off: how much goes to those whom [export] names"})
ONE_CALL = Option("--call", {"metavar": "CALL-ID", "default": "", "help": "of this call only"})
COUNT = Option("--count", {"type": int, "default": 20, "metavar": "N", "help": "how many messages (20)"})
THIS_CALL = Option("--call", {
    "metavar": "CALL", "default": "",
    "help": "one call: its Call-ID, a part of that, or its number in `natfix calls`"})
EVERY_MESSAGE = Option("--all", {"action": "store_true", "help": "every message"})
WRITE = Option("--write", {
    "metavar": "FILE", "default": "", "help": "write there (default: a new file here)"})
STREAM = Option("--write", {
    "metavar": "FILE", "default": "", "help": "write there, - is stdout (default: a new file here)"})
SECONDS = Option("--for", {
    "type": float, "default": 0.0, "metavar": "SECONDS", "dest": "seconds", "help": "end after that time"})
MESSAGES = Option("--count", {"type": int, "default": 0, "metavar": "N", "help": "end after N messages"})
SECRETS = Option("--secrets", {
    "action": "store_true",
    "help": "keep passwords, what proves them, and media keys; else their letters become x"})
REDACT = Option("--redact", {
    "action": "store_true",
    "help": "put others in the place of users, numbers, host names and addresses, the same everywhere"})
FORMAT = Option("--format", {
    "choices": ("nft", "iptables"), "default": "nft", "help": "for nft (default), or for iptables-restore"})
EXAMPLE = Option("--example-config", {
    "action": "store_true", "help": "print a commented natfix.toml with every setting instead"})
CODES = Option("codes", {
    "nargs": "*", "metavar": "CALL|CODE",
    "help": "a call: its Call-ID, a part of that, or its number in `natfix calls`; or codes: D12, ..."})
ALGS = Option("--alg", {"action": "store_true", "help": "list how to switch the SIP ALGs of routers off"})
OUTSIDE = Option("--outside", {"metavar": "INTERFACE", "default": "", "help": "the link that leads outside"})
OUTPUT = Option("--output", {"metavar": "FILE", "default": "", "help": "write there, or print (-)"})
FORCE = Option("--force", {"action": "store_true", "help": "write over a file that is there"})
OBSERVE = Option("--observe", {
    "action": "store_true", "help": "look on and explain; change no packet and nothing in the kernel"})
DRY_RUN = Option("--dry-run", {"action": "store_true", "help": "print what would be changed, and do nothing"})
EXIT_CODE = Option("--exit-code", {"action": "store_true", "help": "with --dry-run: 6 if there is something"})
CONFIRM = Option("--confirm", {
    "nargs": "?", "type": int, "const": 60, "default": 0, "metavar": "SECONDS",
    "help": "take everything back after SECONDS (60) unless `natfix confirm` comes"})
DRAIN = Option("--drain", {
    "nargs": "?", "type": int, "const": 0, "default": None, "metavar": "SECONDS",
    "help": "first wait until all calls have ended, SECONDS at most; new calls are refused meanwhile"})
COMMON = (
    Option("--config", {"metavar": "FILE", "help": "natfix.toml to read (default: /etc/natfix/natfix.toml)"}),
    Option("--control-socket", {"metavar": "PATH", "help": "the running natfix answers here"}),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; errors go to stderr, one sentence each."""
    options = _parser().parse_args(arguments)
    try:
        code = COMMANDS[options.command].run(options)
        sys.stdout.flush()
        return code
    except NatfixError as problem:
        for line in str(problem).splitlines():
            print(f"natfix: {line}", file=sys.stderr)
        return problem.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads any more; no traceback
        return FAILED


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    for option in COMMON:
        common.add_argument(option.flag, default=argparse.SUPPRESS, **option.settings)
    parser = argparse.ArgumentParser(
        prog="natfix", description="Makes SIP calls work through NAT on the box that does the NAT.",
        epilog=EXIT_CODES, parents=[common])
    parser.add_argument("--version", action="version", version=f"natfix {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        entry = commands.add_parser(name, help=command.help, description=command.help, parents=[common])
        for option in command.options:
            entry.add_argument(option.flag, **option.settings)
    return parser


def _settings(options: argparse.Namespace) -> Settings:
    """Return the configuration, with what the command line says instead."""
    from natfix.config import settings_from, with_control_socket

    settings = settings_from(getattr(options, "config", ""))
    return with_control_socket(settings, getattr(options, "control_socket", ""))


def _print_json(document: dict[str, Any]) -> None:
    print(json.dumps(document, indent=2))     # ASCII only: text of strangers could steer a terminal


def _init(options: argparse.Namespace) -> int:
    from pathlib import Path

    from natfix import init
    from natfix.config import DEFAULT_PATH, Settings
    from natfix.findings import Host

    text = init.configuration_text(init.look_around(Host(Settings()), options.outside))
    if options.output == "-":
        print(text, end="")
        return DONE
    path = Path(options.output or getattr(options, "config", "") or DEFAULT_PATH)
    init.write_configuration(text, path, options.force)
    print(text + f"\nnatfix: written to {path}. Next: natfix check")
    return DONE


def _check(options: argparse.Namespace) -> int:
    from natfix import check
    from natfix.config import with_control_socket
    from natfix.findings import Host

    settings, findings, code = check.read_configuration(getattr(options, "config", ""))
    host = Host(with_control_socket(settings, getattr(options, "control_socket", "")),
                captures=tuple(options.capture))
    lines = check.check_all(host, findings, code)
    if options.json:
        _print_json(check.as_document(lines))
    else:
        print(check.as_text(lines))
    return check.exit_code(lines)


def _rules(options: argparse.Namespace) -> int:
    from natfix import rules
    from natfix.kernel.probe import probe
    from natfix.shipped import shipped

    if options.example_config:
        print(shipped("rules", "natfix.toml.example").read_text(), end="")
        return DONE
    skeleton = rules.skeleton_for(_settings(options))
    if options.format == "iptables":
        print(rules.iptables_text(skeleton), end="")
    else:
        print(rules.nft_text(skeleton, probe()), end="")
    return DONE


def _explain(options: argparse.Namespace) -> int:
    from natfix import algs, catalogue

    if any(map(catalogue.is_no_code, options.codes)):
        return _explain_call(options)
    entries = [catalogue.entry_for(code) for code in options.codes]
    if options.json:
        shown = entries or catalogue.catalogue().values()
        _print_json({"schema_version": 1, "entries": list(map(catalogue.as_document, shown))})
    elif options.alg:
        print(algs.as_text())
    else:
        print("\n\n".join(map(catalogue.as_text, entries)) or catalogue.as_list())
    return DONE


def _explain_call(options: argparse.Namespace) -> int:
    from natfix.asking import Manner, ask, call_named
    from natfix.errors import ConfigError
    from natfix.explained import call_text

    if len(options.codes) > 1:
        raise ConfigError("one call at a time, or codes such as D12")
    path = _settings(options).daemon.control_socket
    question = {"command": "explain", "call": call_named(path, options.codes[0])}
    return ask(path, question, call_text, Manner(options.json))


def _run(options: argparse.Namespace) -> int:
    from natfix.live import run
    from natfix.quirks import all_quirks

    def read() -> tuple[Settings, Quirks]:
        settings = _settings(options)
        return settings, all_quirks(settings.quirks_files)

    settings, quirks = read()
    return run(settings, quirks, observe=options.observe, read=read)


def _up(options: argparse.Namespace) -> int:
    from natfix import plan, up
    from natfix.findings import Host
    from natfix.order import order_from
    from natfix.quirks import all_quirks

    settings = _settings(options)
    all_quirks(settings.quirks_files)
    order = order_from(options.observe, options.confirm)
    if options.dry_run:
        planned = plan.plan_for(Host(settings), order.mode, up.status_of(settings))
        if options.json:
            _print_json(plan.plan_document(planned))
        else:
            print(plan.plan_text(planned))
        return planned.exit_code(options.exit_code)
    answer = up.switch_on(up.Launch(
        settings, getattr(options, "config", ""), getattr(options, "control_socket", "")), order)
    if options.json:
        _print_json(answer)
    else:
        print(up.switched_on_text(answer, order))
    return DONE


def _reload(options: argparse.Namespace) -> int:
    from natfix.control import request

    answer = request(_settings(options).daemon.control_socket, {"command": "reload"})
    if options.json:
        _print_json(answer)
    else:
        changed = ", ".join(answer["changed"])
        print(f"natfix: changed now: {changed}; calls go on" if changed else "natfix: nothing has changed")
    return DONE


def _confirm(options: argparse.Namespace) -> int:
    from natfix.control import request

    answer = request(_settings(options).daemon.control_socket, {"command": "confirm"})
    if options.json:
        _print_json(answer)
    else:
        print("natfix: kept" if answer["was_on_trial"] else "natfix: nothing to confirm, it is not on trial")
    return DONE


def _ask(options: argparse.Namespace) -> int:
    """Ask the daemon what the command is called, and show the answer; with --watch again and again."""
    from natfix.asking import ask, manner_from
    from natfix.show import TEXTS

    question = {"command": options.command}
    for name in QUESTIONS & vars(options).keys():
        question[name] = getattr(options, name)
    manner = manner_from(options.json, getattr(options, "watch", None))
    return ask(_settings(options).daemon.control_socket, question, TEXTS[options.command], manner)


def _monitor(options: argparse.Namespace) -> int:
    from natfix.asking import manner_from, watch_events
    from natfix.show import event_line

    question = {"command": "monitor", "call": options.call, "host": options.host}
    manner = manner_from(options.json, options.watch)
    return watch_events(_settings(options).daemon.control_socket, question, event_line, manner)


def _metrics(options: argparse.Namespace) -> int:
    """A daemon that does not run is a fact, not a failure: natfix_up is 0 then."""
    from natfix.control import request
    from natfix.metrics import metrics_text, write_textfile

    try:
        answer = request(_settings(options).daemon.control_socket, {"command": "status"})
    except NotRunning:
        answer = None
    text = metrics_text(answer)
    if options.textfile:
        write_textfile(options.textfile, text)
    else:
        sys.stdout.write(text)
    return DONE


def _page(options: argparse.Namespace) -> int:
    from natfix.page import serve

    settings = _settings(options)
    print(f"natfix: the status page is at {settings.page.listen} until Ctrl-C", file=sys.stderr)
    serve(settings.page.listen, settings.daemon.control_socket, settings.page.password_file)
    return DONE


def _export(options: argparse.Namespace) -> int:
    from natfix.control import request

    question = {"command": "export", "level": options.level, "call": options.call}
    request(_settings(options).daemon.control_socket, question)
    print(f"natfix: {f'call {options.call}' if options.call else 'every other call'}: {options.level}")
    return DONE


def _capture(options: argparse.Namespace) -> int:
    from natfix.capture import Wanted, capture

    wanted = Wanted(options.call, options.host, options.all, options.seconds, options.count, options.secrets)
    return capture(_settings(options).daemon.control_socket, wanted, options.write, options.force)


def _bundle(options: argparse.Namespace) -> int:
    from natfix.bundle import bundle
    from natfix.bundle_parts import Machine
    from natfix.check import read_configuration
    from natfix.config import with_control_socket

    path = getattr(options, "config", "")
    settings = with_control_socket(read_configuration(path)[0], getattr(options, "control_socket", ""))
    return bundle(Machine(settings, path), options.write, options.redact, options.force)


def _bypass(_options: argparse.Namespace) -> int:
    """Reads no configuration: it may be the reason why natfix does not start."""
    from natfix.removal import remove_divert

    print("natfix: SIP passes unfixed until natfix starts again; calls in progress keep their audio"
          if remove_divert() else "natfix: none of its rules are there, so SIP passes unfixed already")
    return DONE


def _down(options: argparse.Namespace) -> int:
    from natfix.control import stop
    from natfix.order import FIX, write_order
    from natfix.removal import remove_files
    from natfix.startup import refuse_without_rights
    from natfix.up import Launch, rest_service

    settings = _settings(options)
    refuse_without_rights()
    if options.drain is not None:
        from natfix.drain import drain

        left = drain(settings.daemon.control_socket, options.drain)
        cut = "1 call is" if left == 1 else f"{left} calls are"
        print(f"natfix: {cut} cut" if left else "natfix: no call is left")
    try:
        ended = stop(settings.daemon.control_socket, for_good=True)
        print(f"natfix: process {ended.get('pid')} has ended")
    except NotRunning:
        print("natfix: it was not running")
    rest_service(Launch(settings, getattr(options, "config", ""), getattr(options, "control_socket", "")))
    from natfix.kernel.netfilter import NetfilterKernel

    kernel = NetfilterKernel(settings.signalling.mark)
    kernel.remove()
    kernel.close()
    remove_files(settings.daemon)
    write_order(settings.daemon.state_file, FIX)
    print("natfix: its table, its connections and its state are removed; your own rules are as they were")
    return DONE


COMMANDS = {
    "init": Command(_init, "write a small natfix.toml from what is seen here", (OUTSIDE, OUTPUT, FORCE)),
    "check": Command(_check, "look at kernel, rules, links, ports, configuration; change nothing",
                     (CAPTURE, JSON)),
    "rules": Command(_rules, "print the rules that would be installed, with comments", (FORMAT, EXAMPLE)),
    "explain": Command(_explain, "say what happened in a call, and why; or what a code means",
                       (CODES, ALGS, JSON)),
    "up": Command(_up, "switch natfix on, and return once it is in force",
                  (DRY_RUN, EXIT_CODE, CONFIRM, OBSERVE, JSON)),
    "confirm": Command(_confirm, "keep what `natfix up --confirm` has switched on", (JSON,)),
    "reload": Command(_reload, "have the running natfix read its configuration again", (JSON,)),
    "run": Command(_run, "run natfix in the foreground, until SIGTERM or `natfix down`", (OBSERVE,)),
    "status": Command(_ask, "show the state of the running natfix", (JSON, WATCH)),
    "calls": Command(_ask, "show the calls, their streams and the kernel's packet counters", (JSON, WATCH)),
    "registrations": Command(_ask, "show the phones that have registered", (JSON, WATCH)),
    "uas": Command(_ask, "show who has sent SIP: messages, errors, retransmissions", (JSON, WATCH)),
    "monitor": Command(_monitor, "show what happens, one line each, until Ctrl-C",
                       (JSON_LINES, AWAIT, OF_CALL, OF_HOST)),
    "notes": Command(_ask, "show what was changed in the last messages, and why",
                     (JSON, COUNT, OF_CALL, OF_HOST, OF_RULE)),
    "metrics": Command(_metrics, "print counters for Prometheus", (TEXTFILE,)),
    "page": Command(_page, "show a read-only status page to browsers, until Ctrl-C"),
    "export": Command(_export, "say how much of the calls is copied to others", (LEVEL, ONE_CALL)),
    "capture": Command(
        _capture, "write messages before and after natfix, with its reasons, as pcapng until Ctrl-C; RTP is "
        "not in it, since the kernel moves it: for a call the tcpdump line for that is printed",
        (THIS_CALL, OF_HOST, EVERY_MESSAGE, STREAM, FORCE, SECONDS, MESSAGES, SECRETS)),
    "bundle": Command(
        _bundle, "write what somebody who is to help has to know into one tar.gz: configuration, state, "
        "rules, links, log; also when natfix does not run", (REDACT, WRITE, FORCE)),
    "bypass": Command(_bypass, "let SIP pass unfixed where natfix cannot run; maps and calls stay"),
    "down": Command(_down, "end the running natfix and remove its rules, connections and state", (DRAIN,)),
}
