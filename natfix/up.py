"""`natfix up`: switch natfix on, or only say what that would change.

There is one daemon, `natfix run`. `natfix up` writes down how it is to start (:mod:`natfix.order`), starts
it, by systemd where natfix is a service there and else in the background by itself, and returns once it is
in force. Everything that can refuse is asked beforehand, in this process: the reason comes to the terminal,
and nothing was begun.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from natfix.config import DEFAULT_PATH, Settings
from natfix.control import request, stop
from natfix.errors import Busy, NatfixError, NotRunning
from natfix.findings import Host
from natfix.interfaces import addresses_report
from natfix.kernel.probe import divert_form
from natfix.order import Mode, Order, read_order, write_order
from natfix.startup import refuse_beside_helper, refuse_without_rights

READY_WITHIN = 30.0         # seconds; a start takes 1
POLL = 0.1                  # seconds between two looks
LOG_SUFFIX = ".log"         # after the state file's name: what a daemon of `natfix up` says
LOG_LINES = 3               # of it are shown where the start fails
SERVICE = "natfix.service"
RETRY = "natfix-retry.timer"
SYSTEMD = Path("/run/systemd/system")
OF_SYSTEMD = frozenset({"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"})

Answer = dict[str, Any]


class Launch(NamedTuple):
    """How the daemon is started."""

    settings: Settings
    config: str = ""            # as given on the command line; "" for the usual place
    control_socket: str = ""


def switch_on(launch: Launch, order: Order, host: Host | None = None) -> Answer:
    """Have natfix run as *order* says, and return its status then, with ``was_up`` where it did already.

    Raises NatfixError, with the kind that gives the exit code, where it cannot start or must not.
    """
    refuse_without_rights()
    settings = launch.settings
    running = status_of(settings)
    if running is not None and _stays(running, order):
        return {**running, "was_up": True}
    refuse_what_cannot_start(host or Host(settings), order.mode)
    if running is not None:
        stop(settings.daemon.control_socket)
    before = read_order(settings.daemon.state_file)
    write_order(settings.daemon.state_file, order)
    try:
        return {**_start(launch), "was_up": False}
    except BaseException:
        write_order(settings.daemon.state_file, before)
        raise


def status_of(settings: Settings) -> Answer | None:
    """Return what the running daemon says of itself, None where none runs."""
    try:
        return request(settings.daemon.control_socket, {"command": "status"})
    except NotRunning:
        return None


def _stays(running: Answer, order: Order) -> bool:
    """Tell whether the running daemon is what *order* wants; raises Busy where it must not be ended."""
    mode = running.get("mode")
    if mode == Mode.TRIAL.value:
        raise Busy(f"natfix is on trial for {running['confirm_in']:.0f} s more: `natfix confirm` keeps it, "
                   "`natfix down` ends it")
    if mode == Mode.DRAIN.value:
        raise Busy("natfix waits for calls to end, for a `natfix down --drain`: Ctrl-C there first")
    if mode == Mode.FIX.value and order.mode is Mode.OBSERVE:
        raise Busy("natfix fixes SIP already: `natfix down` (or `natfix down --drain`) first, then observe")
    return mode == order.mode.value or mode == Mode.FIX.value


def refuse_what_cannot_start(host: Host, mode: Mode) -> None:
    """Raise NatfixError where the daemon would; as far as that can be seen without beginning anything."""
    addresses_report(host.settings, host.links())
    if mode is not Mode.OBSERVE:
        divert_form(host.capabilities(), host.settings.signalling.divert)
        refuse_beside_helper(host)


def _start(launch: Launch) -> Answer:
    if is_service(launch):
        # Who tries things out must not be taken for a crash loop.
        subprocess.run(["systemctl", "reset-failed", SERVICE], capture_output=True, check=False)
        done = subprocess.run(["systemctl", "restart", SERVICE], capture_output=True, text=True, check=False)
        if done.returncode:
            raise NatfixError(f"systemd cannot start {SERVICE}: journalctl -u natfix -n 20 says why")
        return _wait(launch.settings, lambda: None)
    log = Path(launch.settings.daemon.state_file + LOG_SUFFIX)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        daemon = subprocess.Popen(command(launch), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                  start_new_session=True, env=_environment())
    return _wait(launch.settings, lambda: _refuse_dead(daemon, log))


def _environment() -> dict[str, str]:
    """Return the daemon's environment; systemd, where it runs this command, does not wait for the daemon."""
    return {name: value for name, value in os.environ.items() if name not in OF_SYSTEMD}


def is_service(launch: Launch) -> bool:
    """Tell whether systemd is there, has natfix as a service, and would start it with this configuration."""
    if launch.config not in ("", DEFAULT_PATH) or launch.control_socket or not SYSTEMD.is_dir():
        return False
    try:
        return not subprocess.run(["systemctl", "cat", SERVICE], capture_output=True, check=False).returncode
    except OSError:
        return False


def rest_service(launch: Launch) -> None:
    """Where natfix is a service, have systemd leave it down: it may be about to try another start."""
    if is_service(launch):
        subprocess.run(["systemctl", "stop", RETRY, SERVICE], capture_output=True, check=False)


def command(launch: Launch) -> list[str]:
    """Return the argv of the daemon."""
    options = [("--config", launch.config and str(Path(launch.config).absolute())),
               ("--control-socket", launch.control_socket and str(Path(launch.control_socket).absolute()))]
    return [sys.executable, "-m", "natfix", *(word for name, value in options if value
                                              for word in (name, value)), "run"]


def _wait(settings: Settings, refuse_dead: Callable[[], None]) -> Answer:
    """Return the daemon's status once it is ready; it answers nobody before."""
    until = time.monotonic() + READY_WITHIN
    while time.monotonic() < until:
        refuse_dead()
        found = status_of(settings)
        if found is not None:
            return found
        time.sleep(POLL)
    raise NatfixError(f"natfix is not ready after {READY_WITHIN:.0f} s: see its log")


def _refuse_dead(daemon: subprocess.Popen[bytes], log: Path) -> None:
    code = daemon.poll()
    if code is None:
        return
    said = log.read_text(errors="replace").strip().splitlines()[-LOG_LINES:]
    problem = NatfixError("; ".join(line.removeprefix("natfix: ") for line in said)
                          or f"natfix ended at once, with code {code}")
    problem.exit_code = code if code > 0 else 1
    raise problem


def switched_on_text(answer: Answer, order: Order) -> str:
    """Return what `natfix up` says when it has done what *order* says."""
    mode = answer.get("mode")
    if mode == Mode.TRIAL.value:
        seconds = f"{answer['confirm_in']:.0f} s"
        return f"natfix: in force. Rolling back in {seconds} unless you run: natfix confirm"
    already = " already" if answer["was_up"] else ""
    if mode == Mode.OBSERVE.value:
        return f"natfix: observes{already}, and changes nothing: natfix calls, natfix notes, natfix status"
    if order.mode is Mode.TRIAL:
        return "natfix: in force already, and stays: there is nothing to try. Undo: natfix down"
    return f"natfix: in force{already}. See: natfix status, natfix calls. Undo: natfix down"
