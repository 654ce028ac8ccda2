"""tools/demo: real calls between real phones, through plain masquerade and then through natfix."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.lab import counters, leftovers
from tests.lab.audio import listen, talk
from tests.lab.compare import Pair, pair_messages
from tests.lab.gateway import Natfix
from tests.lab.host import LabError
from tests.lab.lab import Lab
from tests.lab.pcap import sip_messages
from tests.lab.programs import Baresip, Capture, Kamailio
from tests.lab.tones import Heard
from tests.lab.topology import GATEWAY_ADDRESS, INSIDE, OUTSIDE

INSIDE_TONE, OUTSIDE_TONE = 440, 880    # hertz
SETUP = 7.0                             # seconds a call may take; Kamailio gives a dead phone up after 5


@dataclass
class Call:
    """One call and what came of it."""

    name: str
    problem: str = ""                           # why it was not established
    inside_heard: Heard | None = None           # what the phone behind the NAT heard of the other
    outside_heard: Heard | None = None
    flows: list[counters.Relayed] = field(default_factory=list)

    @property
    def two_way(self) -> bool:
        """Tell whether each phone recognised the other's tone."""
        both = (self.inside_heard, self.outside_heard)
        return all(heard is not None and heard.recognised for heard in both)


@dataclass
class Round:
    """All calls through one kind of gateway."""

    title: str
    calls: list[Call] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    decisions: list[dict[str, Any]] = field(default_factory=list)
    problem: str = ""

    @property
    def two_way(self) -> int:
        """How many calls had two-way audio."""
        return sum(call.two_way for call in self.calls)


@dataclass
class Phones:
    """The two ends of every call."""

    inside: Baresip
    outside: Baresip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; 0 where natfix made every call two-way, 1 where not, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="tools/demo", description=__doc__)
    parser.add_argument("--json", metavar="FILE", help="write the results to FILE as well")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.default_int_handler)
    for prefix in leftovers.sweep():
        say(f"removed what a crashed lab had left behind: {prefix}")
    try:
        before = run_round("without natfix (plain masquerade)", with_natfix=False)
        after = run_round("with natfix", with_natfix=True)
    except KeyboardInterrupt:
        say("interrupted; everything is removed")
        return 130
    except LabError as problem:
        say(f"demo: {problem}")
        return 1
    if options.json:
        write_json(Path(os.environ.get("NATFIX_CALLER", "."), options.json), before, after)
    say(f"\ndemo: {after.two_way} of {len(after.calls)} calls had two-way audio")
    return 0 if after.two_way == len(after.calls) and not before.two_way else 1


def run_round(title: str, with_natfix: bool) -> Round:
    """Build a lab, place the calls, print what happened, and return it."""
    result = Round(title)
    say(f"\n== {title}")
    with Lab() as lab:
        sides = [lab.start(Capture("gateway", interface, "udp port 5060")) for interface in (INSIDE, OUTSIDE)]
        natfix = start_natfix(lab, result) if with_natfix else None
        phones = start_phones(lab)
        place_calls(lab, phones, result)
        inside, outside = (sip_messages(capture.stop()) for capture in sides)
        result.pairs = pair_messages(inside, outside, GATEWAY_ADDRESS)
        if natfix is not None:
            result.decisions = natfix.request("notes")["decisions"]
    if with_natfix:
        print_changes(result)
    return result


def start_natfix(lab: Lab, result: Round) -> Natfix | None:
    """Start natfix; without it the calls are placed all the same, and count as what they are."""
    try:
        return lab.start_natfix()
    except LabError as problem:
        result.problem = str(problem)
        say(f"natfix did not start: {problem}")
        return None


def start_phones(lab: Lab) -> Phones:
    """Start the provider and a phone on each side, and register both with digest authentication."""
    provider = lab.start(Kamailio(users={"alice": "secret", "bob": "hidden"}))
    inside = lab.start(Baresip("phone1", "alice", registrar=provider.address, password="secret",
                               tone=INSIDE_TONE))
    outside = lab.start(Baresip("remote1", "bob", registrar=provider.address, password="hidden",
                                tone=OUTSIDE_TONE))
    outside.register()
    inside.register()
    say(f"alice {inside.address} behind the gateway {GATEWAY_ADDRESS}, provider {provider.address}, "
        f"bob {outside.address}: both registered")
    return Phones(inside, outside)


def place_calls(lab: Lab, phones: Phones, result: Round) -> None:
    """Place one call in each direction."""
    result.calls.append(place_call(lab, "outgoing call, alice to bob", phones, phones.inside, phones.outside))
    result.calls.append(place_call(lab, "incoming call, bob to alice", phones, phones.outside, phones.inside))


def place_call(lab: Lab, name: str, phones: Phones, caller: Baresip, callee: Baresip) -> Call:
    """Place one call, let the tones play, hang up, and say what was heard."""
    call = Call(name)
    recordings = {phone: len(phone.recordings()) for phone in (caller, callee)}
    ended = {phone: len(phone.events) for phone in (caller, callee)}
    try:
        caller.dial(callee.uri, SETUP)
        talk()
        listen(phones.inside, phones.outside)
        call.flows = counters.media_flows(lab.gateway, minimum=2)
        for phone in (caller, callee):      # the BYE of the first may not reach the second
            if not any(event["type"] == "CALL_CLOSED" for event in phone.events[ended[phone]:]):
                phone.hang_up()
            phone.wait_closed(since=ended[phone])
    except LabError as problem:
        call.problem = str(problem).partition("\n")[0]
    call.inside_heard = phones.inside.heard(OUTSIDE_TONE, INSIDE_TONE, recordings[phones.inside])
    call.outside_heard = phones.outside.heard(INSIDE_TONE, OUTSIDE_TONE, recordings[phones.outside])
    print_call(call)
    return call


def print_call(call: Call) -> None:
    """Say what each side heard, and what the kernel counted."""
    say(f"\n{call.name}: {'two-way audio' if call.two_way else 'NO two-way audio'}")
    if call.problem:
        say(f"  not established: {call.problem}")
    say(f"  alice heard {call.inside_heard}")
    say(f"  bob   heard {call.outside_heard}")
    for flow in call.flows:
        say(f"  kernel: {flow}")


def print_changes(result: Round) -> None:
    """Say what natfix changed in each message and why, and what two captures prove of it."""
    say("\n== what natfix changed, and why")
    for decision in result.decisions:
        edits = list(filter(is_edit, decision["notes"]))
        if edits:
            say(f"\n{decision['summary']}")
        for note in edits:
            say(f"  {text_from_note(note)}")
    told = sum(any(map(is_edit, decision["notes"])) for decision in result.decisions)
    changed = [pair for pair in result.pairs if pair.changes()]
    lines = sum(len(pair.changes()) for pair in changed)
    say(f"\ncaptures inside and outside: {len(result.pairs)} SIP messages crossed the gateway, "
        f"{len(changed)} of them changed, in {lines} lines (natfix tells of {told})")


def is_edit(note: dict[str, str]) -> bool:
    """Tell a rewrite from an explanation of why something was left alone."""
    return note.get("old") != note.get("new")


def text_from_note(note: dict[str, str]) -> str:
    """Return one edit as a line: where, what, why."""
    why = "; ".join(text for text in (note.get("reason"), note.get("rfc")) if text)
    where = note.get("header") or note["rule"]
    return f"{where}: {note.get('old', '')} -> {note.get('new', '')}" + (f"  ({why})" if why else "")


def write_json(path: Path, before: Round, after: Round) -> None:
    """Write both rounds to *path*."""
    document = {
        "calls": len(after.calls),
        "two_way_audio": after.two_way,
        "without_natfix": {"calls": len(before.calls), "two_way_audio": before.two_way,
                           "details": [call_row(call) for call in before.calls]},
        "details": [call_row(call) for call in after.calls],
        "decisions": after.decisions,
        "messages": [{"message": pair.title, "direction": "out" if pair.goes_out else "in",
                      "changes": [{"before": old, "after": new} for old, new in pair.changes()]}
                     for pair in after.pairs],
        "problem": after.problem,
    }
    path.write_text(json.dumps(document, indent=2) + "\n")


def call_row(call: Call) -> dict[str, Any]:
    """Return *call* for JSON."""
    return {
        "name": call.name, "two_way_audio": call.two_way, "problem": call.problem,
        "inside_heard": heard_row(call.inside_heard), "outside_heard": heard_row(call.outside_heard),
        "kernel": [flow._asdict() for flow in call.flows],
    }


def heard_row(heard: Heard | None) -> dict[str, Any] | None:
    """Return *heard* for JSON: hertz, seconds, decibels."""
    return None if heard is None else {**heard._asdict(), "recognised": heard.recognised}


def say(text: str) -> None:
    """Print a line at once, also into a pipe."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
