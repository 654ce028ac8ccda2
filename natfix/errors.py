"""Every error natfix raises on purpose, and the exit code each one ends a command with.

The exit codes are one table for all commands: 0 done, 1 failed, 2 usage or configuration error,
3 not running, 4 needs more rights, 5 the kernel refuses or lacks something, 6 finished with findings,
75 try again (busy).
"""

from __future__ import annotations

DONE = 0
FINDINGS = 6


class NatfixError(Exception):
    """A failure an operator can act on: its text is one sentence with cause and cure."""

    exit_code = 1


class ConfigError(NatfixError):
    """The configuration, or the command line, asks for something that cannot be."""

    exit_code = 2


class NotRunning(NatfixError):
    """No natfix daemon answers on the control socket."""

    exit_code = 3


class NotPermitted(NatfixError):
    """A right is missing (CAP_NET_ADMIN, as a rule)."""

    exit_code = 4


class KernelRefused(NatfixError):
    """The kernel lacks a feature, or refused what natfix asked of it."""

    exit_code = 5


class Busy(NatfixError):
    """Someone else holds what natfix needs: a queue number, the control socket."""

    exit_code = 75


class MalformedPacket(ValueError):
    """Not an IPv4/UDP datagram that is whole; it passes untouched."""


class MalformedMessage(ValueError):
    """Not a SIP message or SDP body that can be understood safely; it passes untouched."""


class LimitReached(Exception):
    """A port pool, table or quota is full; the text says which. Policy says what becomes of the message."""
