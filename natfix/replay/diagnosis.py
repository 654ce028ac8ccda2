"""The rules of all symptoms, applied in one place; what breaks a call first comes first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from natfix.replay.model import Context, Conversation, Finding, Station
from natfix.replay.symptoms import (
    abuse,
    audio,
    dialogs,
    gateways,
    media_changes,
    registrations,
    transfers,
    transport,
)

ConversationRule = Callable[[Conversation, Context], Iterator[Finding]]
StationRule = Callable[[Station, Context], Iterator[Finding]]
CaptureRule = Callable[[Context], Iterator[Finding]]

MODULES = (
    audio, media_changes, dialogs, transfers, registrations, gateways, transport, abuse)
CONVERSATION: tuple[ConversationRule, ...] = tuple(rule for module in MODULES for rule in module.CONVERSATION)
STATION: tuple[StationRule, ...] = tuple(rule for module in MODULES for rule in module.STATION)
CAPTURE: tuple[CaptureRule, ...] = tuple(rule for module in MODULES for rule in module.CAPTURE)


def judge_conversation(conversation: Conversation, context: Context) -> Iterator[Finding]:
    """Yield what is wrong with one conversation."""
    for rule in CONVERSATION:
        yield from rule(conversation, context)


def judge_station(station: Station, context: Context) -> Iterator[Finding]:
    """Yield what is wrong with one UA over all its conversations."""
    for rule in STATION:
        yield from rule(station, context)


def judge_capture(context: Context) -> Iterator[Finding]:
    """Yield what only the whole capture shows."""
    for rule in CAPTURE:
        yield from rule(context)


def sort(findings: Iterable[Finding]) -> list[Finding]:
    """Return *findings*, the worst first, and of those the earliest; each only once."""
    once = dict.fromkeys(findings)
    return sorted(once, key=lambda found: (found.severity.value, found.time, found.code))
