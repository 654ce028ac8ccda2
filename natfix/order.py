"""What the operator has ordered natfix to be: in force, in force on trial, or an observer.

`natfix up` writes it down beside the state file, the daemon reads it when it starts. So a trial that ends by
a crash of the daemon, or of the machine, is known to the next start: it does not arm again by itself.

    no file     fix SIP (`natfix up` without more, `systemctl start natfix`, the next boot)
    trial       fix SIP for so many seconds, and take it back unless `natfix confirm` comes
    begun       such a trial began and was never confirmed: do not fix SIP until a new `natfix up`
    observe     look on, and change nothing
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from natfix.errors import ConfigError, NatfixError, NotPermitted
from natfix.ownership import hand_over

SUFFIX = ".order"       # after the state file's name
SHORTEST, LONGEST = 5, 86400        # seconds of a trial


class Mode(Enum):
    """What natfix is to be."""

    FIX = "fix"
    TRIAL = "trial"
    BEGUN = "begun"
    OBSERVE = "observe"
    DRAIN = "drain"         # said of a running one only


class Order(NamedTuple):
    """The operator's order."""

    mode: Mode = Mode.FIX
    seconds: float = 0.0        # of a trial


FIX = Order()


class NotConfirmed(NatfixError):
    """A trial was never confirmed, so natfix does not start by itself; another attempt is no cure."""

    exit_code = 2


def order_from(observe: bool, seconds: int) -> Order:
    """Return what the options of `natfix up` order; *seconds* of a trial, 0 for none.

    Raises ConfigError where they cannot go together, or the trial is shorter than anybody can answer.
    """
    if observe and seconds:
        raise ConfigError("--observe changes nothing, so there is nothing to confirm: leave --confirm out")
    if seconds and not SHORTEST <= seconds <= LONGEST:
        raise ConfigError(f"--confirm takes from {SHORTEST} to {LONGEST} seconds, not {seconds}")
    return Order(Mode.OBSERVE) if observe else Order(Mode.TRIAL, seconds) if seconds else FIX


def read_order(state_file: str) -> Order:
    """Return the order beside *state_file*; one that cannot be understood counts as an unconfirmed trial."""
    try:
        told = json.loads(Path(state_file + SUFFIX).read_text())
        return Order(Mode(told["mode"]), float(told["seconds"]))
    except FileNotFoundError:
        return FIX
    except (OSError, ValueError, TypeError, KeyError):
        return Order(Mode.BEGUN)


def write_order(state_file: str, order: Order) -> None:
    """Put *order* beside *state_file*, so that it outlives a crash of the machine.

    Raises NotPermitted or NatfixError where that cannot be.
    """
    path = Path(state_file + SUFFIX)
    try:
        if order.mode is Mode.FIX:
            with suppress(FileNotFoundError):
                path.unlink()
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(path.name + ".new")
        with draft.open("w") as file:
            json.dump({"mode": order.mode.value, "seconds": order.seconds}, file)
            file.flush()
            os.fsync(file.fileno())
        hand_over(str(draft))
        draft.replace(path)
    except PermissionError as problem:
        raise NotPermitted(f"no right to write {path} ({problem.strerror}): run this as root") from None
    except OSError as problem:
        raise NatfixError(f"{path} cannot be written ({problem.strerror or problem})") from None
