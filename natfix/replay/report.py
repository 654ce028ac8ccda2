"""A result as one HTML file: what is wrong, then the calls as ladder diagrams with every message's diff.

Captures are hostile input. Three things stand between them and whoever reads the report, each enough by
itself: the template escapes all that is put into it; what controls a display or turns text around is
spelled out; and the page's Content-Security-Policy allows nothing but its own style sheet. There is no
script at all, nothing is loaded from anywhere, and nothing of a capture is used as an id or a link.
"""

from __future__ import annotations

import base64
import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from natfix import __version__
from natfix.commands import Note
from natfix.replay.as_text import CURES, VANTAGES, printable
from natfix.replay.diff import Line, diff_of_payloads, diff_of_repair, lines_of
from natfix.replay.ladder import Ladder, Rung, ladder_of, ladder_of_records
from natfix.replay.model import Conversation, Finding, Fixed, PacketId, Passage, Severity, Sighting
from natfix.replay.plots import Plots, plots_of
from natfix.replay.result import Result
from natfix.replay.summaries import dialog_row, summary_of

MOST_CALLS = 30             # with a ladder diagram; those with findings come first
MOST_LISTED = 200           # calls without one, in a line each
MOST_OPEN = 3               # calls that are unfolded although nothing is wrong with them
MOST_FINDINGS = 200
MOST_PACKETS = 24           # that a finding links to
MOST_ROWS = 200             # of mappings, guesses, warnings
MOST_UNREADABLE = 20
MOST_OCTETS = 6 << 20       # of messages that are shown in full
MOST_NAME = 160             # characters of a Call-ID, an agent, a file's name
MOST_MESSAGE = 16 << 10     # octets of one message
TEMPLATES = Path(__file__).parent / "templates"

SEVERITIES = {
    Severity.BREAKS: ("breaks", "Broken"), Severity.HURTS: ("hurts", "Impaired"),
    Severity.WARNS: ("warns", "Warning"), Severity.INFORMS: ("informs", "Note"),
}
BROKEN = {"INVITE": "calls", "REGISTER": "registrations"}


def write_report(path: str | Path, result: Result) -> None:
    """Write the report to *path*; raises OSError where that cannot be done."""
    template, style = _template()
    parts = template.generate(report=Report(result), style=Markup(style), policy=_policy(style))
    with open(path, "w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
        file.writelines(parts)


def _template() -> tuple[Template, str]:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, finalize=_shown,
        trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(
        clock=_clock, date=_date, duration=_duration, count=_count, heading=heading, outcome=outcome,
        basename=os.path.basename, short=_short)
    environment.globals.update(version=__version__)
    return environment.get_template("report.html"), (TEMPLATES / "report.css").read_text()


def _policy(style: str) -> str:
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def _shown(value: object) -> object:
    """Everything that the template prints goes through here, before it is escaped."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return "\n".join(map(printable, value.split("\n")))
    return value


# -- what the template reads --------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class Message:
    """A rung of a ladder, with what is behind it."""

    id: str
    rung: Rung
    tags: list[str] = field(default_factory=list)
    findings: list[Card] = field(default_factory=list)
    again: str = ""                             # the id of the first transmission
    summary: str = ""
    problem: str = ""
    text: list[str] = field(default_factory=list)       # as captured, where natfix changes nothing
    diff: list[Line] = field(default_factory=list)      # by natfix
    path_diff: list[Line] = field(default_factory=list)     # by what was on the path
    path_names: tuple[str, str] = ("", "")
    reasons: tuple[Note, ...] = ()              # why natfix left something alone
    dropped: str = ""
    is_cut: bool = False                        # its text is left out, or not all of it is here

    @property
    def copies(self) -> list[Sighting]:
        return self.rung.passage.sightings if self.rung.passage is not None else []


@dataclass(slots=True, eq=False)
class Card:
    """A finding."""

    id: str
    finding: Finding
    look: str
    severity: str
    cure: str
    cure_look: str
    call: Call | None = None
    packets: list[tuple[str, str]] = field(default_factory=list)    # (text, id of the message or "")
    more: int = 0                                                   # packets that are not among them


@dataclass(slots=True, eq=False)
class Call:
    """A conversation in full."""

    id: str
    dialog: dict[str, Any]
    ladder: Ladder
    messages: list[Message]
    plots: Plots | None
    cards: list[Card]
    is_open: bool = False

    @property
    def start(self) -> float:
        return self.messages[0].rung.time if self.messages else 0.0

    @property
    def title(self) -> str:
        return heading(self.dialog)

    @property
    def outcome(self) -> str:
        return outcome(self.dialog)


class Report:
    """All that the template prints, bounded."""

    def __init__(self, result: Result) -> None:
        self.result = result
        self.network, self.input = result.network, result.input
        self.vantage = VANTAGES[result.network.vantage]
        self.cards = [_card(place, each) for place, each in enumerate(result.findings[:MOST_FINDINGS], 1)]
        self.findings_left_out = len(result.findings) - len(self.cards)
        self._room = MOST_OCTETS
        self._messages: dict[PacketId, str] = {}        # packet -> id of its message
        self._calls_by_id: dict[str, Call] = {}
        self.calls = [self._call(place, each) for place, each in enumerate(self._chosen(), 1)]
        self.records = self._records()
        self._link()
        self._unfold()
        self.listed, self.listed_left_out = self._listed()
        self.mappings = result.mappings[:MOST_ROWS]
        self.mappings_left_out = len(result.mappings) - len(self.mappings)
        unreadable = result.context.unreadable if result.context is not None else []
        self.unreadable = unreadable[:MOST_UNREADABLE]
        self.unreadable_left_out = len(unreadable) - len(self.unreadable)
        self.guesses, self.warnings = result.network.guesses[:MOST_ROWS], result.warnings[:MOST_ROWS]

    # -- headline --

    @cached_property
    def verdict(self) -> str:
        """What matters most, in one sentence."""
        count = len(self.result.findings)
        breaking = sum(each.severity is Severity.BREAKS for each in self.result.findings)
        if not count:
            return "Nothing wrong was found."
        what = self._broken()
        if count == 1:
            return f"One finding, which breaks {what if breaking else 'nothing'}."
        if not breaking:
            return f"{count:,} findings, none of which breaks anything."
        if breaking == count:
            return f"{count:,} findings, all of which break {what}."
        return f"{count:,} findings, {breaking:,} of which break{'s' if breaking == 1 else ''} {what}."

    def _broken(self) -> str:
        """Return what the findings that break something break."""
        methods = {str(card.call.dialog["method"]) if card.call else "" for card in self.cards
                   if card.finding.severity is Severity.BREAKS}
        return BROKEN.get(methods.pop(), "service") if len(methods) == 1 else "service"

    @cached_property
    def cure(self) -> str:
        """How many of the findings natfix would cure."""
        cures = [each.fixed_by_natfix for each in self.result.findings]
        if len(cures) <= 1:
            return CURES[cures[0]] if cures else ""
        cured, partly = cures.count(Fixed.YES), cures.count(Fixed.PARTLY)
        if cured == len(cures):
            return "natfix on the gateway cures them all."
        if not cured and not partly:
            return "natfix on the gateway cures none of them."
        parts = [f"cures {cured} of them" if cured else "", f"helps with {partly}" if partly else ""]
        return f"natfix on the gateway {' and '.join(filter(None, parts))}."

    @cached_property
    def look(self) -> str:
        return self.cards[0].look if self.cards else "fine"

    # -- calls --

    def _chosen(self) -> list[Conversation]:
        """Return the conversations that are shown in full: those with findings first, by severity."""
        by_call: dict[str, int] = {}
        by_packet: dict[PacketId, int] = {}
        for place, finding in enumerate(self.result.findings):
            if finding.call_id:
                by_call.setdefault(finding.call_id, place)
                continue
            for packet in finding.packets:
                by_packet.setdefault(packet, place)
        last = len(self.result.findings)

        def place_of(conversation: Conversation) -> int:
            place = by_call.get(conversation.call_id, last)
            if not by_packet:
                return place
            packets = (packet for passage in conversation.passages for packet in passage.packets)
            return min(place, *(by_packet.get(packet, last) for packet in packets))

        calls = [each for each in self.result.conversations if each.passages]
        calls.sort(key=place_of)
        return calls[:MOST_CALLS]

    def _call(self, number: int, conversation: Conversation) -> Call:
        findings = [card for card in self.cards if card.finding.call_id == conversation.call_id]
        dialog = dialog_row(conversation, [card.finding for card in findings])
        ladder = ladder_of(conversation, self.network)
        call = Call(f"call-{number}", dialog, ladder, [], plots_of(conversation, self.network), findings)
        call.messages = self._messages_of(ladder, number)
        self._calls_by_id[conversation.call_id] = call
        return call

    def _messages_of(self, ladder: Ladder, number: int) -> list[Message]:
        messages: list[Message] = []
        ids: dict[int, str] = {}
        for place, rung in enumerate(ladder.rungs, 1):
            message = Message(f"m{number}-{place}", rung)
            messages.append(message)
            if rung.passage is not None:
                ids[id(rung.passage)] = message.id
                message.again = ids.get(id(rung.passage.repeats), "")
                self._fill(message, rung.passage)
            for packet in rung.packets:
                self._messages.setdefault(packet, message.id)
        return messages

    def _fill(self, message: Message, passage: Passage) -> None:
        copy, repair = passage.first, passage.repair
        message.summary, message.problem = summary_of(copy), copy.problem
        message.tags = [*_tags(passage)]
        if repair is not None:
            message.reasons, message.dropped = repair.left_alone, repair.dropped
        if message.again or not copy.payload:
            return
        self._room -= sum(len(each.payload) for each in passage.sightings) * 2
        if self._room < 0 or len(copy.payload) > MOST_MESSAGE:
            message.is_cut = True
            message.text = lines_of(copy.payload[:MOST_MESSAGE]) if self._room >= 0 else []
            return
        if repair is not None and repair.edits:
            message.diff = diff_of_repair(repair)
        else:
            message.text = lines_of(copy.payload)
        if passage.last.payload != copy.payload:
            message.path_diff = diff_of_payloads(copy.payload, passage.last.payload)
            message.path_names = (_point(copy), _point(passage.last))

    def _records(self) -> Call | None:
        """Return the packets of which only headers are known, as if they were one call."""
        context = self.result.context
        if context is None or not context.records:
            return None
        ladder = ladder_of_records(context.records, self.network)
        call = Call("records", {}, ladder, [], None, [], is_open=True)
        call.messages = self._messages_of(ladder, 0)
        return call

    def _link(self) -> None:
        """Tie findings to messages and calls."""
        by_id = {message.id: message for call in self._all_calls() for message in call.messages}
        for card in self.cards:
            card.call = self._calls_by_id.get(card.finding.call_id)
            packets = card.finding.packets
            card.more = max(0, len(packets) - MOST_PACKETS)
            for packet in packets[:MOST_PACKETS]:
                target = self._messages.get(packet, "")
                card.packets.append((str(packet), target))
                if target and card not in by_id[target].findings:
                    by_id[target].findings.append(card)

    def _all_calls(self) -> Iterator[Call]:
        yield from self.calls
        if self.records is not None:
            yield self.records

    def _unfold(self) -> None:
        concerned = {message.id.partition("-")[0] for call in self.calls for message in call.messages
                     if message.findings}
        for place, call in enumerate(self.calls):
            is_concerned = bool(call.cards) or f"m{place + 1}" in concerned
            call.is_open = is_concerned or len(self.calls) <= MOST_OPEN

    def _listed(self) -> tuple[list[dict[str, Any]], int]:
        """Return the conversations without a diagram, and how many more there are."""
        others = [each for each in self.result.dialogs() if each["call_id"] not in self._calls_by_id]
        others.sort(key=lambda each: float(each["start"]))
        return others[:MOST_LISTED], max(0, len(others) - MOST_LISTED)


def heading(dialog: dict[str, Any]) -> str:
    """Return a dialog in a few words: "INVITE alice to bob"."""
    if not dialog:
        return "Packets of which only headers are known"
    source, destination = _party(dialog["from"]), _party(dialog["to"])
    return f"{dialog['method']} {source}{f' to {destination}' if source != destination else ''}"


def outcome(dialog: dict[str, Any]) -> str:
    if not dialog:
        return ""
    return str(dialog["status"] or "no final answer")


def _party(header: str) -> str:
    """Return the user part of a From or To, or what else names a party there."""
    uri = header.partition("<")[2].partition(">")[0] or header.partition(";")[0]
    address = uri.partition(":")[2] or uri
    return address.partition("@")[0] or "somebody"


def _card(number: int, finding: Finding) -> Card:
    look, severity = SEVERITIES[finding.severity]
    return Card(f"finding-{number}", finding, look, severity, CURES[finding.fixed_by_natfix],
                str(finding.fixed_by_natfix))


def _tags(passage: Passage) -> Iterator[str]:
    """Yield what is particular about how a message travelled."""
    copy = passage.first
    if copy.transport != "udp":
        yield copy.transport.upper()
    if passage.repeats is not None:
        yield "again"
    facts = [each.facts for each in passage.sightings]
    for name, applies in (
        (f"{copy.facts.fragments} fragments", copy.facts.fragments > 1),
        ("fragment missing", any(each.incomplete for each in facts)),
        ("cut by the capture", any(each.cut for each in facts)),
        ("wrong checksum", any(each.checksum_wrong for each in facts)),
        ("wrong UDP length", any(each.udp_length_wrong for each in facts)),
        ("unreadable", bool(copy.problem)),
    ):
        if applies:
            yield name


def _point(copy: Sighting) -> str:
    side = str(copy.side) if copy.side.value != "unknown" else ""
    return " ".join(part for part in (copy.stage, side) if part) or f"packet {copy.packet}"


def _clock(seconds: float) -> str:
    """Return the time of day, to the millisecond."""
    return f"{_strftime('%H:%M:%S', seconds)}.{int(seconds * 1000) % 1000:03d}" if seconds else ""


def _date(seconds: float) -> str:
    return _strftime("%Y-%m-%d %H:%M:%S UTC", seconds) if seconds else ""


def _strftime(form: str, seconds: float) -> str:
    try:
        return time.strftime(form, time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return f"{seconds:.3f}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _short(text: str) -> str:
    return text if len(text) <= MOST_NAME else f"{text[:MOST_NAME - 1]}…"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


