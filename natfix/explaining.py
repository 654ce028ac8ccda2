"""`natfix explain CALL`, the daemon's half: what happened in a call, what was changed and why, and what the
kernel holds and counts for it at this moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from natfix.address import Endpoint
from natfix.audio import agreed_by
from natfix.chronicle import History, Sent
from natfix.commands import AddMapping, AllowRemote, Command, Flow, Kind
from natfix.dialogs import Call
from natfix.journal import entry_from_note, time_text
from natfix.kernel.base import FlowState, HeldElement, Kernel
from natfix.mappings import Mapping, Mappings
from natfix.monitor import row_from_event

Row = dict[str, Any]


class Held(NamedTuple):
    """What a call should have in the kernel."""

    commands: list[Command]
    flows: list[Flow]


def held_for(call: Call, mappings: Mappings) -> Held:
    """Return the elements, as the commands that make them, and the entries that *call* has or uses."""
    held = Held([], [])
    for inside in (call.inside, *call.held):
        mapping = mappings.find(inside)
        if mapping is None:
            continue
        is_media = mapping.kind is not Kind.SIGNALLING
        if mapping.has_elements:
            held.commands.append(AddMapping(
                mapping.kind, inside, mapping.outside, 1.0, mapping.inward, mark=mapping.mark))
        if mapping.needs_permissions:
            held.commands.extend(AllowRemote(mapping.permission, mapping.outside, remote, 1.0)
                                 for remote, holders in mapping.remotes.items() if call.holder in holders)
        held.flows.extend(flow for flow, opened in mapping.flows.items()
                          if call.holder in opened.holders or (is_media and opened.began_by_itself))
    return held


def explanation(history: History, mappings: Mappings, kernel: Kernel, audio: dict[str, Any]) -> Row:
    """Return all that is known of a Call-ID; *audio* is by inside host, as :mod:`natfix.audio` tells it."""
    return {
        "call_id": history.call_id,
        "events": [_event(event) for event in map(row_from_event, history.events)],
        "messages": [_message(message) for message in history.messages],
        "messages_forgotten": history.forgotten,
        "parties": [_party(call, mappings, kernel, audio.get(call.key.inside_host))
                    for call in history.calls],
    }


def _event(row: Row) -> Row:
    return {key: value for key, value in row.items() if key != "schema_version"}


def _message(message: Sent) -> Row:
    return {
        "at": time_text(message.at), "line": message.line,
        "source": str(message.source), "destination": str(message.destination),
        "shown_source": str(message.shown_source), "shown_destination": str(message.shown_destination),
        "dropped": message.dropped, "notes": [entry_from_note(note) for note in message.notes],
    }


def _party(call: Call, mappings: Mappings, kernel: Kernel, audio: Row | None) -> Row:
    held = held_for(call, mappings)
    states = kernel.counters(held.flows) if held.flows else {}
    signalling = mappings.find(call.inside)
    row: Row = {
        "inside": str(call.inside), "outside": str(signalling.outside) if signalling else "",
        "peer": str(call.peer), "role": call.key.role.value, "state": call.state.value,
        "elements": [_element(each) for each in kernel.find_elements(held.commands)],
        "entries": [_entry(flow, states.get(flow)) for flow in held.flows],
        "streams": list(_streams(call, mappings)),
    }
    return row | ({"audio": audio} if audio else {})


def _element(held: HeldElement) -> Row:
    row: Row = {"set": held.name, "key": held.key, "present": held.is_present}
    if held.value:
        row["value"] = held.value
    return row | ({"expires_in": round(held.lifetime)} if held.is_present else {})


def _entry(flow: Flow, state: FlowState | None) -> Row:
    row: Row = {"source": str(flow.source), "destination": str(flow.destination),
                "reply_source": str(flow.reply_source), "reply_destination": str(flow.reply_destination),
                "present": state is not None}
    if state is None:
        return row
    out, back = state.packets, state.reply_packets
    if state.flow.source != flow.source:
        out, back = back, out
    counted = {"packets_out": out, "packets_in": back} if out >= 0 else {}
    return row | {"expires_in": round(state.lifetime), "replied": state.replied, **counted}


def _streams(call: Call, mappings: Mappings) -> Iterator[Row]:
    agreed = agreed_by(call)
    if agreed is None or agreed.ours.rtp is None:
        return
    mapping: Mapping | None = mappings.find(agreed.ours.rtp)
    remote: Endpoint | None = agreed.theirs.rtp
    outside = str(mapping.outside) if mapping else ""
    yield {"media": "audio", "inside": str(agreed.ours.rtp), "outside": outside,
           "remote": str(remote or ""), "inside_says": agreed.ours.direction,
           "outside_says": agreed.theirs.direction}
