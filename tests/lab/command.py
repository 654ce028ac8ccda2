"""tools/lab: the tests' lab for people, to run their own phone, SIPp scenario or natfix in it."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.lab import leftovers, namespaces
from tests.lab.host import LabError
from tests.lab.lab import Lab
from tests.lab.topology import TOPOLOGIES


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code; 2 for usage errors."""
    options = _parser().parse_args(arguments)
    try:
        return COMMANDS[options.command](options)
    except LabError as problem:
        print(f"tools/lab: {problem}", file=sys.stderr)
        return 1


def list_labs(options: argparse.Namespace) -> int:
    """Print the topologies there are, and the labs on this machine."""
    print(f"topologies: {', '.join(TOPOLOGIES)}")
    for lab in leftovers.list_labs():
        hosts = " ".join(host for host in lab.hosts if host != namespaces.SWITCH)
        print(f"{lab.prefix} ({lab.state}): {hosts}")
    return 0


def up(options: argparse.Namespace) -> int:
    """Build a lab that stays until ``tools/lab down``."""
    if standing := _standing():
        raise LabError(f"a lab stands already ({standing}); tools/lab down removes it")
    lab = Lab(options.topology, dnat_line=options.dnat_line, standing=True, phones=options.phones,
              second_phones=options.second_phones, remotes=options.remotes)
    lab.up()
    print(f"{lab.prefix} is up; files in {lab.directory}")
    for host in lab.hosts.values():
        print(f"  {host.name:10} {' '.join(f'{link.address} ({link.interface})' for link in host.row.links)}")
    print("next: tools/lab exec gateway -- natfix check; tools/lab down")
    return 0


def execute(options: argparse.Namespace) -> int:
    """Run a command on a host of the standing lab, in the caller's terminal and directory."""
    prefix = _standing()
    if not prefix:
        raise LabError("no lab stands; tools/lab up gateway builds one")
    name = namespaces.namespace(prefix, options.host)
    if name not in namespaces.list_namespaces(prefix):
        hosts = [found.rpartition("-")[2] for found in namespaces.list_namespaces(prefix)]
        raise LabError(f"no host {options.host!r}; there are {', '.join(hosts)}")
    command = [word for index, word in enumerate(options.words) if word != "--" or index]
    if not command:
        raise LabError("no command; for instance: tools/lab exec gateway -- nft list ruleset")
    # natfix and the interpreter it is installed in come first, so that "natfix" just works.
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
    done = subprocess.run(["ip", "netns", "exec", name, *command], check=False,
                          cwd=os.environ.get("NATFIX_CALLER"), env={**os.environ, "PATH": path})
    return done.returncode


def down(options: argparse.Namespace) -> int:
    """Remove the standing lab, with --all also what crashed ones left; running ones (tests) stay."""
    wanted = {"standing", "crashed"} if options.all else {"standing"}
    labs = [lab.prefix for lab in leftovers.list_labs() if lab.state in wanted]
    for prefix in labs:
        leftovers.remove(prefix)
        print(f"removed {prefix}")
    if not labs:
        print("no lab stands" if not options.all else "nothing to remove")
    return 0


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "list": list_labs, "up": up, "exec": execute, "down": down,
}


def _standing() -> str:
    return next((lab.prefix for lab in leftovers.list_labs() if lab.state == "standing"), "")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tools/lab", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("list", help="topologies, and labs on this machine")
    build = commands.add_parser("up", help="build a lab that stays")
    build.add_argument("topology", choices=sorted(TOPOLOGIES))
    build.add_argument("--phones", type=int, default=2, help="inside phones (default 2)")
    build.add_argument("--second-phones", type=int, default=0, help="phones in the second inside subnet")
    build.add_argument("--remotes", type=int, default=1, help="outside phones (default 1)")
    build.add_argument("--dnat-line", action="store_true", help="add 'ct status dnat accept' to the firewall")
    run = commands.add_parser("exec", help="run a command on a host")
    run.add_argument("host")
    run.add_argument("words", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    remove = commands.add_parser("down", help="remove the lab")
    remove.add_argument("--all", action="store_true", help="also what crashed labs left behind")
    return parser


if __name__ == "__main__":
    if shutil.which("ip") is None:
        sys.exit("tools/lab: the command 'ip' is missing (Debian package iproute2)")
    sys.exit(main())
