"""Calls and bindings as JSON-able rows for the store, and back: what the kernel cannot remember."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from natfix.address import Endpoint
from natfix.dialogs import Call, CallKey, Description, Dialog, Line, Role, Side, State
from natfix.far_ends import FarEnd
from natfix.pulse import Pulse
from natfix.registrations import Binding, BindingKey
from natfix.reports import Change

Row = dict[str, Any]

# The times in rows that were past when they were written, by table.
PAST = {
    "registrations": ("registered_at",), "calls": ("started", "answered_at", "alive_at", "ended_at"),
    "far_ends": ("seen_at",), "names": ("answered_at",),
}
LATEST = 1e11       # seconds since 1970; what is beyond is damage


def latest_time(changes: Iterable[Change]) -> float:
    """Return the latest time that has passed for sure when *changes*, rows of before, were written; 0.0
    without any."""
    times = (change.row.get(name) for change in changes if change.row for name in PAST.get(change.table, ()))
    return max((at for at in times if isinstance(at, float) and 0 < at < LATEST), default=0.0)


def endpoint_from_row(value: list[Any] | None) -> Endpoint | None:
    """Return the endpoint that a row holds as [host, port, stream, link]; older rows have less."""
    return _endpoint(value) if value else None


def _endpoint(value: list[Any]) -> Endpoint:
    return Endpoint(str(value[0]), int(value[1]), *map(str, value[2:4]))


def row_from_binding(binding: Binding) -> Row:
    """Return *binding* as a row."""
    return {
        "inside": list(binding.key.inside), "aor": binding.key.aor, "user": binding.user,
        "written": binding.written, "shown": binding.shown, "registrar": list(binding.registrar),
        "expires_at": binding.expires_at, "registered_at": binding.registered_at, "agent": binding.agent,
        "proxy": binding.key.proxy and list(binding.key.proxy),
    }


def binding_from_row(row: Row) -> Binding:
    """Return the binding that *row* holds; KeyError, TypeError, ValueError where it is damaged."""
    return Binding(
        BindingKey(_endpoint(row["inside"]), row["aor"], endpoint_from_row(row.get("proxy"))),
        row["user"], row["written"], row["shown"],
        _endpoint(row["registrar"]), float(row["expires_at"]), float(row["registered_at"]), row["agent"],
    )


def row_from_far_end(far: FarEnd) -> Row:
    """Return *far* as a row."""
    return {"source": list(far.source), "signs": sorted(far.signs), "seen_at": far.seen_at,
            "agent": far.agent, "written": far.written, "bindings": far.bindings,
            "asks_rport": far.asks_rport, "registrar": far.registrar and list(far.registrar),
            "reached_at": far.reached_at and list(far.reached_at),
            "survived": far.pulse.survived, "failed": [far.pulse.failed, far.pulse.failed_at],
            "told": [far.pulse.told, far.pulse.asked]}


def far_end_from_row(row: Row) -> FarEnd:
    """Return the far UA that *row* holds; KeyError, TypeError, ValueError where it is damaged."""
    failed, failed_at = row.get("failed", (0.0, 0.0))
    told, asked = row.get("told", (0, 0))
    pulse = Pulse(heard_at=float(row["seen_at"]), survived=float(row.get("survived", 0.0)),
                  failed=float(failed), failed_at=float(failed_at), told=int(told), asked=int(asked))
    return FarEnd(_endpoint(row["source"]), frozenset(row["signs"]), float(row["seen_at"]), row["agent"],
                  dict(row["written"]), {aor: float(until) for aor, until in row["bindings"].items()},
                  bool(row["asks_rport"]), endpoint_from_row(row.get("registrar")),
                  endpoint_from_row(row.get("reached_at")), pulse)


def _row_from_description(description: Description) -> list[list[Any]]:
    return [
        [line.position, line.kind, line.rtp and list(line.rtp), line.rtcp and list(line.rtcp),
         list(line.hosts), line.pairs, line.direction, line.is_muxed]
        for line in description
    ]


def _description_from_row(row: list[list[Any]]) -> Description:
    return tuple(
        Line(position, kind, endpoint_from_row(rtp), endpoint_from_row(rtcp), tuple(hosts), pairs, *more)
        for position, kind, rtp, rtcp, hosts, pairs, *more in row       # older rows have no more
    )


def _row_from_dialog(dialog: Dialog) -> Row:
    # What was only proposed is kept as agreed: after a restart nobody will say how it ended, and the
    # newest of both sides is what the two UAs most likely use.
    return {
        "tag": dialog.tag, "state": dialog.state.value,
        "agreed": {
            side.value: _row_from_description(dialog.latest(side)) for side in Side if dialog.latest(side)
        },
        "refused": [] if dialog.proposed else sorted(dialog.refused),
    }


def _dialog_from_row(row: Row) -> Dialog:
    agreed = {Side(side): _description_from_row(said) for side, said in row["agreed"].items()}
    return Dialog(row["tag"], State(row["state"]), agreed, refused=frozenset(row.get("refused", ())))


class Stream(NamedTuple):
    """One media mapping of a call."""

    inside: Endpoint
    outside: Endpoint
    source: Endpoint | None = None      # of a relay: where the far UA sends from


def row_from_call(call: Call, media: list[Stream], outside: Endpoint | None) -> Row:
    """Return *call* as a row, with its mappings."""
    return {
        "key": [call.key.inside_host, call.key.call_id, call.key.caller_tag, call.key.role.value],
        "method": call.method, "inside": list(call.inside), "outside": outside and list(outside),
        "peer": list(call.peer), "started": call.started, "invite_cseq": call.invite_cseq,
        "from": call.from_header, "to": call.to_header, "peers": sorted(call.peers),
        "dialogs": [_row_from_dialog(dialog) for dialog in call.dialogs.values()],
        "offer": {side.value: _row_from_description(said) for side, said in call.offer.items()},
        "written": [[kind, shown, text] for (kind, shown), text in call.written.items()],
        **({"kept": call.kept} if call.kept else {}),
        "media": [[endpoint and list(endpoint) for endpoint in stream] for stream in media],
        "ended_at": call.ended_at, "answered_at": call.answered_at, "alive_at": call.alive_at,
    }


def call_from_row(row: Row) -> tuple[Call, list[Stream], Endpoint | None]:
    """Return the call that *row* holds, its mappings and its outside signalling endpoint.

    KeyError, TypeError, ValueError where the row is damaged.
    """
    host, call_id, tag, role = row["key"]
    call = Call(
        CallKey(host, call_id, tag, Role(role)), row["method"], _endpoint(row["inside"]),
        _endpoint(row["peer"]), float(row["started"]), row["invite_cseq"], row["from"], row["to"],
        set(row["peers"]), {dialog["tag"]: _dialog_from_row(dialog) for dialog in row["dialogs"]},
        {Side(side): _description_from_row(said) for side, said in row["offer"].items()},
        {(kind, shown): text for kind, shown, text in row["written"]},
    )
    call.kept = dict(row.get("kept", {}))
    call.ended_at, call.answered_at, call.alive_at = row["ended_at"], row["answered_at"], row["alive_at"]
    media = [Stream(_endpoint(inside), _endpoint(outside), endpoint_from_row(source[0]) if source else None)
             for inside, outside, *source in row["media"]]
    return call, media, endpoint_from_row(row["outside"])
