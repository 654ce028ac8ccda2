"""`iptables-save` read into :mod:`natfix.firewall`'s words: the rules whose arguments `nft -j` hides, and
those of the old kernel interface (iptables-legacy)."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from typing import Any

from natfix.address import is_ipv4, network_from_text
from natfix.firewall import NOT_UNDERSTOOD, Chain, Condition, Effect, Rule, Ruleset

HOOKS = {"PREROUTING": "prerouting", "INPUT": "input", "FORWARD": "forward", "OUTPUT": "output",
         "POSTROUTING": "postrouting"}
ALL_BITS = 0xFFFFFFFF
VERDICTS = {"ACCEPT": "accept", "DROP": "drop", "REJECT": "drop", "RETURN": "return", "QUEUE": "drop"}
SILENT_TARGETS = frozenset({"LOG", "NFLOG", "CT", "CONNMARK", "MARK", "TCPMSS", "TRACE", "NOTRACK"})

Values = tuple[Any, ...]
Options = dict[str, tuple[bool, list[str]]]     # name -> whether "!" stood before it, and its arguments


def ruleset_from_save(text: str, program: str = "iptables") -> Ruleset:
    """Return what *text*, printed by iptables-save, says; its tables are called "iptables filter" etc.,
    by the *program* that changes them."""
    ruleset = Ruleset()
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = f"{program} {line[1:].strip()}"
            ruleset.tables.add(table)
        elif line.startswith(":"):
            name, policy, *_ = line[1:].split()
            hook = HOOKS.get(name, "") if policy != "-" else ""
            kind = "nat" if table == f"{program} nat" else "filter"
            ruleset.chains[table, name] = Chain(table, name, kind, hook, policy.lower() if hook else "accept")
        elif line.startswith("-A "):
            words = shlex.split(line)
            chain = ruleset.chains[table, words[1]]
            chain.rules.append(_rule(words[2:], f"rule {len(chain.rules) + 1}"))
    return ruleset


def _rule(words: list[str], handle: str) -> Rule:
    options = dict(_options(words))
    target = _argument(options, "-j", "") or _argument(options, "-g", "")
    conditions = tuple(_conditions(options))
    effects = tuple(_effects(target, options))
    if "-g" in options:
        return Rule(conditions, "goto", target, effects, handle)
    if target in VERDICTS or not target or effects or target in SILENT_TARGETS:
        return Rule(conditions, VERDICTS.get(target, ""), "", effects, handle)
    return Rule(conditions, "jump", target, effects, handle)


def _options(words: list[str]) -> Iterator[tuple[str, tuple[bool, list[str]]]]:
    """Yield each option with whether "!" stood before it, and its arguments.

    The match connmark has an option of the same name as the match mark; here it is "--connmark".
    """
    index, negated, match = 0, False, ""
    while index < len(words):
        if words[index] == "!":
            negated, index = True, index + 1
            continue
        end = index + 1
        while end < len(words) and not words[end].startswith("-") and words[end] != "!":
            end += 1
        name, arguments = words[index], words[index + 1:end]
        if name == "-m":
            match = arguments[0] if arguments else ""
        yield "--connmark" if (name, match) == ("--mark", "connmark") else name, (negated, arguments)
        index, negated = end, False


def _conditions(options: Options) -> Iterator[Condition]:
    # What belongs to the target says nothing of the packet; iptables-save writes it after the target.
    before_target = list(options)[:next(
        (index for index, name in enumerate(options) if name in ("-j", "-g")), len(options))]
    for name in before_target:
        negated, arguments = options[name]
        if name in ("-m", "--comment"):
            continue
        if name not in TESTS or not arguments:
            yield NOT_UNDERSTOOD
            continue
        key, read = TESTS[name]
        yield Condition(key, read(arguments[0]), negated)


def _interfaces(argument: str) -> Values:
    return (argument[:-1] + "*",) if argument.endswith("+") else (argument,)


def _networks(argument: str) -> Values:
    return (network_from_text(argument),)


def _words(argument: str) -> Values:
    return tuple(argument.lower().split(","))


def _ports(argument: str) -> Values:
    """Read "5060,10000:20000"; an open end (":1023") is the end of all ports."""
    return tuple(map(_port_range, argument.split(",")))


def _marks(argument: str) -> Values:
    """Read "0x4000000/0x4000000", value and mask."""
    value, _, mask = argument.partition("/")
    return ((int(value, 0), int(mask or "0xffffffff", 0)),)


def _port_range(text: str) -> tuple[int, int]:
    first, colon, last = text.partition(":")
    return int(first or 0), int(last or 65535) if colon else int(first)


# Options of iptables-save, the key of the facts that answers each, and how its argument is read.
TESTS: dict[str, tuple[str, Callable[[str], Values]]] = {
    "-i": ("iifname", _interfaces), "-o": ("oifname", _interfaces),
    "-s": ("saddr", _networks), "-d": ("daddr", _networks), "-p": ("proto", _words),
    "--ctstate": ("ctstate", _words), "--state": ("ctstate", _words), "--ctstatus": ("ctstatus", _words),
    "--dport": ("dport", _ports), "--dports": ("dport", _ports),
    "--sport": ("sport", _ports), "--sports": ("sport", _ports), "--ctorigdstport": ("ctorigdport", _ports),
    "--mark": ("mark", _marks),
}


def _effects(target: str, options: Options) -> Iterator[Effect]:
    if target == "CT" and "--helper" in options:
        yield Effect("helper", options["--helper"][1][0])
    elif target == "NOTRACK" or (target == "CT" and "--notrack" in options):
        yield Effect("notrack")
    elif target == "CONNMARK":
        yield Effect("ctmark", _kept_bits(options))
    elif target == "FLOWOFFLOAD":
        yield Effect("flow", "")
    elif target in ("MASQUERADE", "SNAT"):
        flags = " ".join(name[2:] for name in options if name.startswith("--random"))
        yield Effect("masquerade", flags or None)
    elif target == "DNAT":
        yield Effect("dnat", _forward(_argument(options, "--to-destination", "")))
    elif target == "NETMAP":
        yield Effect("dnat")
    elif target == "NFQUEUE":
        numbers = _argument(options, "--queue-balance", "") or _argument(options, "--queue-num", "0")
        first, _, last = numbers.partition(":")
        yield Effect("queue", (int(first), int(last or first)))


def _forward(argument: str) -> tuple[str, int] | None:
    """Read "10.0.0.5:5060": address and port (0: the same); None where it is a range of either."""
    host, _, port = argument.partition(":")
    if not is_ipv4(host) or not (port or "0").isdigit():
        return None
    return host, int(port or 0)


def _argument(options: Options, name: str, default: str) -> str:
    return options[name][1][0] if name in options else default


def _kept_bits(options: Options) -> int:
    """Return the bits of the ct mark that a CONNMARK target leaves as they were."""
    if "--set-xmark" in options:
        value, _, mask = options["--set-xmark"][1][0].partition("/")
        return ~(int(value, 0) | int(mask or "0xffffffff", 0)) & ALL_BITS
    if "--save-mark" in options:
        read, written = (int(_argument(options, name, "0xffffffff"), 0) for name in ("--nfmask", "--ctmask"))
        return ~(read | written) & ALL_BITS
    return ALL_BITS         # --restore-mark only reads it
