"""What the engine's tables say, as JSON-able rows for ``natfix calls``, ``registrations``, ``status``."""

from __future__ import annotations

from collections import Counter
from typing import Any

from natfix.address import Endpoint
from natfix.audio import Audio
from natfix.commands import Kind
from natfix.dialogs import Call, Calls, Side
from natfix.errors import MalformedMessage
from natfix.far_ends import FarEnd, FarEnds
from natfix.mappings import Mapping, Mappings
from natfix.ports import PortPool
from natfix.registrations import Binding, Registrations
from natfix.sip.fields import address_at

Rows = list[dict[str, Any]]


def totals(
    calls: Calls, registrations: Registrations, far_ends: FarEnds, mappings: Mappings, pool: PortPool,
) -> dict[str, int]:
    """Return how many there are of everything."""
    live = [call for call in calls if call.ended_at is None]
    kinds = Counter(mapping.kind for mapping in mappings)
    return {
        "calls": sum(call.method == "INVITE" for call in live),
        "subscriptions": sum(call.method != "INVITE" for call in live),
        "registrations": len(registrations),
        "far_ends": len(far_ends),
        "signalling_mappings": kinds[Kind.SIGNALLING],
        "media_mappings": kinds[Kind.MEDIA],
        "relays": kinds[Kind.RELAY],
        "flows": len(mappings.by_flow),
        "media_pairs": pool.size,
        "media_pairs_free": pool.free,
    }


def calls_as_rows(
    calls: Calls, mappings: Mappings, refused: dict[Endpoint, int], audio: Audio, now: float,
) -> Rows:
    """Return one row per call that has not ended, with its streams and the kernel's counters."""
    return [
        _call_row(call, mappings, refused, audio, now) for call in calls
        if call.ended_at is None or now < call.ends_at
    ]


def _call_row(
    call: Call, mappings: Mappings, refused: dict[Endpoint, int], audio: Audio, now: float,
) -> dict[str, Any]:
    signalling = mappings.find(call.inside)
    heard = audio.row(call.key)
    since = call.answered_at or call.started
    return {
        "call_id": call.key.call_id,
        "role": call.key.role.value,
        "method": call.method,
        "from": uri_text(call.from_header),
        "to": uri_text(call.to_header),
        "state": call.state.value,
        "age": round(now - since, 1),
        "inside": str(call.inside),
        "outside": str(signalling.outside) if signalling else "",
        "peer": str(call.peer),
        "dialogs": len(call.live_dialogs()),
        "streams": [
            _stream_row(call, mapping, refused)
            for inside in call.held if (mapping := mappings.find(inside)) is not None
        ],
        **({"audio": heard} if heard else {}),
    }


def uri_text(header: str) -> str:
    """Return the URI in the value of a From or To header; "" where it cannot be read."""
    raw = header.encode("latin-1")
    try:
        uri = address_at(raw, 0, len(raw)).uri
    except MalformedMessage:
        return ""
    return header[uri.start:uri.end] if uri else ""


def _stream_row(call: Call, mapping: Mapping, refused: dict[Endpoint, int]) -> dict[str, Any]:
    flows = [opened for opened in mapping.flows.values()
             if call.holder in opened.holders or opened.began_by_itself]
    counted = [opened.packets for opened in flows if opened.packets[0] >= 0]
    row: dict[str, Any] = {
        "media": _media_name(call, mapping.inside),
        "inside": str(mapping.inside),
        "outside": str(mapping.outside),
        "remotes": sorted(r for r, holders in mapping.remotes.items() if call.holder in holders),
        "flows": [str(opened.flow.destination) for opened in flows],
        "refused": refused.get(mapping.outside, 0),
    }
    if counted:
        row["packets_out"] = sum(sent for sent, _ in counted)
        row["packets_in"] = sum(received for _, received in counted)
    return row


def _media_name(call: Call, inside: Endpoint) -> str:
    """Return "audio", "audio rtcp", ... for an inside endpoint of *call*."""
    for dialog in call.dialogs.values():
        for description in dialog.said_by(Side.INSIDE):
            for line in description:
                if inside == line.rtp:
                    return line.kind
                if inside == line.rtcp:
                    return f"{line.kind} rtcp"
    return "media"


def far_ends_as_rows(far_ends: FarEnds, now: float) -> Rows:
    """Return one row per UA behind a NAT of its own, and address-of-record ("" where it has none)."""
    return [
        {
            "aor": aor,
            "contact_user": next(reversed(far.written), ""),
            "inside": "",
            "outside": far.shown,
            "registrar": str(far.registrar or ""),
            "expires_in": max(round(until - now), 0),
            "registered_for": 0,
            "user_agent": far.agent,
            "written": far.written_for(next(reversed(far.written), "")),
            "signs": sorted(far.signs),
            **_pulse_of(far),
        }
        for far in far_ends for aor, until in far.bindings.items() or (("", 0.0),)
    ]


def _pulse_of(far: FarEnd) -> dict[str, Any]:
    pulse = far.pulse
    answered = {} if pulse.answer_time is None else {"answer_ms": round(pulse.answer_time * 1000, 1)}
    return {"reachability": pulse.reachability(), **answered, "survived": round(pulse.survived)}


def registrations_as_rows(registrations: Registrations, mappings: Mappings, now: float) -> Rows:
    """Return one row per binding."""
    return [_binding_row(binding, mappings, now) for binding in registrations]


def _binding_row(binding: Binding, mappings: Mappings, now: float) -> dict[str, Any]:
    mapping = mappings.find(binding.key.reached_at)
    return {
        "aor": binding.key.aor,
        "contact_user": binding.user,
        "inside": str(binding.key.inside),
        "outside": str(mapping.outside) if mapping else "",
        "registrar": str(binding.registrar),
        "expires_in": round(binding.expires_at - now),
        "registered_for": round(now - binding.registered_at),
        "user_agent": binding.agent,
    }
