"""`natfix bundle`: one file to hand to who is asked for help, with or without the names of people and places.

It is put together in memory and written as a whole, or not at all. Passwords, and what proves them, are never
in it.
"""

from __future__ import annotations

import io
import json
import re
import socket
import sys
import tarfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from natfix import __version__
from natfix.bundle_parts import Machine, Part, parts
from natfix.errors import DONE, ConfigError, NatfixError
from natfix.handing_over import new_file, refuse_to_write_over
from natfix.masking import masked
from natfix.redact_text import TextRedactor, without_comments

LARGEST = 8 << 20           # octets of one file in it; what is longer loses its middle
HIDDEN = "xxxxxxxx"
RESOLV = "network/resolv.conf"
OF_OTHERS = frozenset({     # where comments are what somebody wrote as he liked
    "rules/nft.txt", "rules/iptables.txt", "rules/ip6tables.txt", "rules/iptables-legacy.txt"})

_ADDRESS_PASSWORD = re.compile(r"(?i)\b([a-z][a-z0-9+.-]{1,20}://)[^/@\s\"']{1,256}@")
_SETTING_PASSWORD = re.compile(
    r"(?im)^(\s*#?\s*[\w.-]*(?:password|passwd|secret|token|api_?key)\s*=\s*)"
    r"(?:\"[^\"\n]*\"|'[^'\n]*'|[^\s#]+)")
_COMMENT = re.compile(r"""((?<!-m )\bcomment |\blog prefix |--log-prefix )("[^"\n]*"|\S+)""")

REDACTED = """\
Users, numbers, host names and addresses are replaced by others of the same kind: the same one stands for the
same one in all files here, private addresses stay private, and hosts of one network stay in one network
(where its prefix ends between two octets). Comments are left out or made unreadable. Names of interfaces,
tables, chains, files and devices stay, and so do numbers of fewer than six digits outside of SIP addresses.
"""
NOT_REDACTED = """\
Users, numbers, host names and addresses are in it as they are: natfix bundle --redact makes one without.
"""


class Made(NamedTuple):
    """One file of the bundle, as it was found; or why it could not be."""

    part: Part
    text: str
    problem: str = ""


def bundle(machine: Machine, target: str, redact: bool, force: bool = False) -> int:
    """Write the bundle into the file *target* ("": one named by the time, here); return the exit code.

    Raises ConfigError where that is there already, NotPermitted or NatfixError where it cannot be written.
    """
    path = Path(target or time.strftime("natfix-bundle-%Y%m%d-%H%M%S.tar.gz"))
    if target == "-":
        raise ConfigError("a bundle goes into a file: --write FILE")
    refuse_to_write_over(path, force)
    made = list(map(_made, parts(machine)))
    if redact:
        made = redacted(made, machine)
    folder = path.name.removesuffix(".gz").removesuffix(".tar")
    data = archive(made, folder, manifest(made, redact))
    with new_file(path, force) as file:
        file.write(data)
    missing = [each.part.name for each in made if each.problem]
    if missing:
        print(f"natfix: without {', '.join(missing)}: its MANIFEST says why", file=sys.stderr)
    names = "replaced" if redact else "as they are (--redact replaces them)"
    print(f"natfix: {path}, {len(data)} octets, {len(made) - len(missing)} files; "
          f"names, numbers and addresses are {names}")
    return DONE


def _made(part: Part) -> Made:
    try:
        text = without_secrets(_cut(part.get()))
        return Made(part, text) if text.strip() else Made(part, "", "it is empty")
    except (NatfixError, OSError) as problem:
        return Made(part, "", str(problem).partition("\n")[0])
    except Exception as problem:        # it may be what help is asked for
        return Made(part, "", repr(problem))


def _cut(text: str) -> str:
    if len(text) <= LARGEST:
        return text
    left_out = f"... {len(text) - LARGEST} characters are left out here ..."
    return f"{text[:LARGEST // 2]}\n{left_out}\n{text[-LARGEST // 2:]}"


def without_secrets(text: str) -> str:
    """Return *text* without passwords, also those in addresses, and without what proves them."""
    text = _ADDRESS_PASSWORD.sub(rf"\1{HIDDEN}@", text)
    text = _SETTING_PASSWORD.sub(rf'\1"{HIDDEN}"', text)
    return masked(text.encode("utf-8", "surrogateescape")).decode("utf-8", "replace")


# -- nobody is named -----------------------------------------------------------------------------------------


def redacted(made: Iterable[Made], machine: Machine) -> list[Made]:
    """Return the files with nobody named in them."""
    made = list(made)
    redactor = TextRedactor()
    for name in _own_names():
        redactor.know_host(name)
    for peer in machine.settings.peers:
        redactor.know_host(peer.address)
    for domain in machine.settings.domains:
        redactor.know_host(domain.name.removeprefix("*."))
    for line in (line for each in made if each.part.name == RESOLV for line in each.text.splitlines()):
        for word in line.split()[1:] if line.startswith(("domain", "search")) else ():
            redactor.know_host(word)
    for each in made:
        redactor.learn(each.text)
        redactor.learn(each.problem)
    return [Made(Part(each.part.name, redactor.text(each.part.what), each.part.get),
                 _redacted_text(each, redactor), redactor.text(each.problem)) for each in made]


def _own_names() -> set[str]:
    """Return this machine's names: whole, and without its domain."""
    whole = socket.gethostname()
    return {whole, whole.partition(".")[0]}


def _redacted_text(made: Made, redactor: TextRedactor) -> str:
    name, text = made.part.name, made.text
    if name.endswith(".json") and text:
        try:
            return json.dumps(redactor.json(json.loads(text)), indent=2) + "\n"
        except ValueError:          # its middle is left out
            return redactor.text(text)
    if name.startswith("config/"):
        text = without_comments(text)
    if name in OF_OTHERS:
        text = _COMMENT.sub(lambda found: found[1] + redactor.words(found[2]), text)
    return redactor.text(text)


# -- the archive ---------------------------------------------------------------------------------------------


def manifest(made: Iterable[Made], redact: bool) -> str:
    """Return what each file is, and what could not be had and why."""
    made = list(made)
    lines = [f"natfix {__version__}, a bundle for who is asked for help, "
             f"{time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime())}", "",
             (REDACTED if redact else NOT_REDACTED) +
             "Passwords, what proves them, and keys are not in it. Nor are messages: natfix capture.", ""]
    lines += [f"{each.part.name:28} {each.part.what}" for each in made if not each.problem]
    missing = [f"{each.part.name:28} {each.problem}" for each in made if each.problem]
    if missing:
        lines += ["", "What could not be had, and why:", *missing]
    return "\n".join(lines) + "\n"


def archive(made: Iterable[Made], folder: str, contents: str) -> bytes:
    """Return the tar.gz, its files in *folder*, readable by their owner alone."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in (("MANIFEST", contents),
                           *((each.part.name, each.text) for each in made if not each.problem)):
            data = text.encode("utf-8", "replace")
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size, entry.mode, entry.mtime = len(data), 0o600, int(time.time())
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
