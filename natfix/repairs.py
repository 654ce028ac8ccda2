"""Repairs: what is done for devices with known faults (:mod:`natfix.quirks`), one function for each.

A repair is asked before anybody else reads the message, since what it takes away or puts back is what the
rest of natfix goes by. State is in ``Call.kept`` (a few short texts of one call, gone with it), so that a
repair survives a restart. What strangers send changes nothing here. ``Repair.IGNORES_RPORT`` is in
:mod:`natfix.rewrite`, which owns the Via.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from copy import copy
from zlib import crc32

from natfix.address import SIP_PORT, Endpoint
from natfix.commands import Note
from natfix.dialogs import Call, ExchangeKey, Role, Side
from natfix.edits import apply_edits
from natfix.errors import LimitReached, MalformedMessage
from natfix.headers import top_via
from natfix.mappings import Mapping
from natfix.quirks import Quirks, Repair
from natfix.sdp import find_sdp, session_from_span
from natfix.signalling import LOWEST_PORT, Signalling
from natfix.sip.message import Header, Message
from natfix.turn import Turn

MAX_KEPT = 24           # texts of one call
MAX_KEPT_SDP = 4096     # octets of one description; a longer one is not pinned
FIRST, FINAL = "first-tag", "final-tag"
EARLY = range(101, 200)
Fix = Callable[[Turn, Call], bool]      # tells whether it did something


class Repairs:
    """Everything that is done for faulty devices, and the name that all of them show outside."""

    def __init__(
        self, quirks: Quirks, agent_name: str, signalling: Signalling, counters: Counter[str]
    ) -> None:
        self._signalling = signalling
        self._counters = counters
        self.follow(quirks, agent_name)

    def follow(self, quirks: Quirks, agent_name: str) -> None:
        """Take other rules, for what is said from now on."""
        self._quirks = quirks
        self._agent_name = agent_name
        self.is_needed = bool(quirks) or bool(agent_name)

    def before(self, turn: Turn) -> None:
        """Repair what a faulty device says, and what it is about to be told."""
        if turn.sender is not None:
            repairs = self._repairs_for(turn.sender)
            if Repair.REPLIES_TO_VIA_PORT in repairs:
                self._count(Repair.REPLIES_TO_VIA_PORT, self._open_via_port(turn))
            self._do(SAID, repairs, turn, turn.sender_call)
            if turn.receiver is None:
                self._show_agent_name(turn, turn.sender)
        if turn.receiver is not None:
            call = turn.receiver_call
            is_known = turn.sender is not None or call is None or turn.packet.source.host in call.peers
            if is_known:
                self._do(TOLD, self._repairs_for(turn.receiver), turn, call)

    def after(self, turn: Turn) -> None:
        """Remember what a later repair needs of what has left."""
        if turn.sender is not None and turn.sender_call is not None \
                and Repair.KEEPS_EARLY_SDP in self._repairs_for(turn.sender):
            _remember_early_sdp(turn, turn.sender_call)

    def _repairs_for(self, device: Mapping) -> frozenset[Repair]:
        return self._quirks.repairs_for(device.agent)

    def _do(
        self, table: dict[Repair, Fix], repairs: frozenset[Repair], turn: Turn, call: Call | None
    ) -> None:
        if call is not None and repairs:
            for repair, fix in table.items():
                if repair in repairs:
                    self._count(repair, fix(turn, call))

    def _count(self, repair: Repair, did_something: bool) -> None:
        if did_something:
            self._counters["quirk " + repair.value] += 1

    def _open_via_port(self, turn: Turn) -> bool:
        """Let the answer in at the port that the Via names, which is not the one the phone sends from.

        ``rport`` would lead it to that one, where nobody listens: it is left out. Where a server answers
        there all the same, the kernel undoes its NAT by the flow that the answer belongs to, and the engine
        puts ``listens_at`` into the UDP header of what then goes on.
        """
        message, sender = turn.message, turn.sender
        via = top_via(message) if message.is_request else None
        if via is None or sender is None or sender.is_stream or via.sent_by.host != sender.inside.host:
            return False
        place = Endpoint(via.sent_by.host, via.sent_by.port or SIP_PORT)
        sender.listens_at = 0
        if place.port == sender.inside.port or place.port < LOWEST_PORT:
            return False
        try:
            mapping = self._signalling.map_endpoint(place, turn.now)
        except LimitReached as problem:
            turn.leave("limit", "Via", str(problem), str(place))
            return False
        sender.listens_at = place.port
        self._signalling.await_reply(mapping, turn.packet.destination, message.method, turn.now)
        rule = "quirk-" + Repair.REPLIES_TO_VIA_PORT.value
        if "rport" in via.params:
            _, end = via.params["rport"]
            start = message.raw.rfind(b";", via.start, end)
            note = Note(rule, "Via", message.raw[start:end].decode("latin-1"), "",
                        "a quirk says that this UA listens at the port of its Via", "RFC 3581, section 3")
            turn.edits.replace(start, end, b"", note)
        else:
            turn.leave(rule, "Via", "answers are let in at the port of the Via", str(place))
        return True

    def _show_agent_name(self, turn: Turn, sender: Mapping) -> None:
        """Say outside what the operator wants devices to call themselves."""
        name = self._quirks.agent_name_for(sender.agent) or self._agent_name
        if not name:
            return
        for header in turn.message.headers:
            if header.name in ("user-agent", "server"):
                old = _text(turn.message, header)
                note = Note("agent-name", header.name.title(), old, name,
                            "the operator wants this name shown", "RFC 3261, sections 20.35 and 20.41")
                turn.edits.replace(header.start, header.end, name.encode(), note)
                self._counters["agent name"] += old != name


# -- E: a second early media ---------------------------------------------------------------------------

def _drop_second_early_media(turn: Turn, call: Call) -> bool:
    """Take the description out of a later 18x of the same early dialog, which becomes a mere "ringing".

    Nobody needs it: only the final answer has to be there (RFC 3261, section 13.2.1). One that is sent
    reliably is part of an offer and answer that PRACK may go on with, and stays.
    """
    message = turn.message
    if message.status not in EARLY or message.cseq_method != "INVITE" or not message.to_tag:
        return False
    span = find_sdp(message)
    if span is None:
        return False
    seen = str(crc32(message.raw[span[0]:span[1]]))
    if _keep(call, f"early-media {message.cseq} {message.to_tag}", seen) == seen:
        return False
    rule = "quirk-" + Repair.DROP_SECOND_EARLY_MEDIA.value
    if message.first("rseq") is not None:
        turn.leave(rule, "RSeq", "a reliable 18x is left alone: PRACK may go on from its SDP (RFC 3262)")
        return False
    if span != message.body:
        turn.leave(rule, "Content-Type", "the SDP is one part of several")
        return False
    note = Note(rule, "SDP", "second early media", "", "a quirk says that this UA cannot take it",
                "RFC 3261, section 13.2.1")
    turn.edits.replace(*span, b"", note)
    for header in message.headers:
        if header.name in ("content-type", "content-disposition"):
            turn.edits.replace(*_line(message, header), b"")
        elif header.name == "content-length":
            turn.edits.replace(header.start, header.end, b"0")
    _hide_body(turn)
    return True


# -- S: wrong SDP in the 200 ---------------------------------------------------------------------------

def _pin_early_sdp(turn: Turn, call: Call) -> bool:
    """Put the description of the device's last 18x in the place of what its 2xx says, or lacks.

    The first answer counts, and later ones to the same INVITE are ignored (RFC 3261, section 13.2.1): a UA
    that goes by the book sees no difference.
    """
    message = turn.message
    if _forget_early_sdp(turn, call) or message.is_request or not 200 <= message.status < 300:
        return False
    seen, _, early = call.kept.get(_early_sdp(message), "").partition(" ")
    start, end = message.body
    if not early or seen == str(crc32(message.raw[start:end])):
        return False
    rule = "quirk-" + Repair.KEEPS_EARLY_SDP.value
    if start != end and find_sdp(message) != message.body:
        turn.leave(rule, "Content-Type", "the body is not SDP alone")
        return False
    note = Note(rule, "SDP", message.raw[start:end].decode("latin-1"), early,
                "a quirk says that this UA's 200 is wrong; what it said early stands",
                "RFC 3261, section 13.2.1")
    for header in message.all("content-length") if start != end else ():    # else it follows by itself
        turn.edits.replace(header.start, header.end, str(len(early)).encode())
    if message.first("content-type") is None:
        place = _line(message, message.headers[-1])[1]
        turn.edits.replace(place, place, b"Content-Type: application/sdp\r\n")
    turn.edits.replace(start, end, early.encode("latin-1"), note)
    _hide_body(turn)
    return True


def _forget_early_sdp(turn: Turn, call: Call) -> bool:
    """What UPDATE or PRACK has negotiated anew is newer than the 18x."""
    message = turn.message
    if message.cseq_method not in ("UPDATE", "PRACK") or find_sdp(message) is None:
        return False
    for name in [name for name in call.kept if name.startswith("early-sdp ")]:
        del call.kept[name]
    return True


def _remember_early_sdp(turn: Turn, call: Call) -> None:
    """Keep an unreliable 18x's answer as it was shown outside, if it names somewhere to send media to."""
    message = turn.message
    if message.status not in EARLY or message.cseq_method != "INVITE" or message.first("rseq") is not None:
        return
    dialog, span = call.dialogs.get(message.to_tag), find_sdp(message)
    if dialog is None or span is None or span != message.body or not _is_usable(message, span):
        return
    if Side.OUTSIDE not in dialog.proposed.get(ExchangeKey(False, message.cseq), {}):
        return              # an offer in a 18x of a late-offer INVITE binds nobody
    start, end = span
    edits = tuple((first - start, last - start, new)
                  for first, last, new in turn.edits.as_tuple() if first >= start)
    shown = apply_edits(message.raw[start:end], edits)
    if len(shown) <= MAX_KEPT_SDP:
        call.kept.pop(_early_sdp(message), None)
        _keep(call, _early_sdp(message), f"{crc32(message.raw[start:end])} {shown.decode('latin-1')}")


def _early_sdp(message: Message) -> str:
    return f"early-sdp {message.cseq} {message.to_tag}"


def _is_usable(message: Message, span: tuple[int, int]) -> bool:
    try:
        session = session_from_span(message.raw, *span)
    except MalformedMessage:
        return False
    return any(media.port and media.effective is not None and media.effective.host != "0.0.0.0"
               for media in session.media)


# -- T: the tag of the first 18x is kept -----------------------------------------------------------------

def _show_first_tag(turn: Turn, call: Call) -> bool:
    """Show a caller the dialog of its 2xx by the tag of the first 18x, in this and all later messages."""
    message = turn.message
    if call.key.role is not Role.CALLER:
        return False
    if message.cseq_method == "INVITE" and message.cseq == call.invite_cseq and message.to_tag:
        if message.status in EARLY:
            _keep(call, FIRST, message.to_tag)
        elif 200 <= message.status < 300 and call.kept.get(FIRST, message.to_tag) != message.to_tag:
            _keep(call, FINAL, message.to_tag)      # of several forks' the first one
    final = call.kept.get(FINAL)
    if final is None or final != (message.from_tag if message.is_request else message.to_tag):
        return False
    return _swap_tag(turn, "from" if message.is_request else "to", final, call.kept[FIRST])


def _restore_final_tag(turn: Turn, call: Call) -> bool:
    """Undo :func:`_show_first_tag` in what that caller sends."""
    message = turn.message
    if message.is_request and message.method == "INVITE" and not message.to_tag \
            and message.cseq != call.invite_cseq:
        call.kept.pop(FIRST, None)      # after a 407 the callee is another dialog
        call.kept.pop(FINAL, None)
    final = call.kept.get(FINAL)
    if final is None or call.kept[FIRST] != (message.to_tag if message.is_request else message.from_tag):
        return False
    name = "to" if message.is_request else "from"
    if not _swap_tag(turn, name, call.kept[FIRST], final):
        return False
    turn.message = copy(message)
    setattr(turn.message, name + "_tag", final)
    return True


def _swap_tag(turn: Turn, name: str, old: str, new: str) -> bool:
    message, header = turn.message, turn.message.first(name)
    if header is None:
        return False
    start = message.raw.rfind(old.encode("latin-1"), header.start, header.end)
    if start < 0 or not message.raw[header.start:start].rstrip().endswith(b"="):
        return False
    note = Note("quirk-" + Repair.KEEPS_FIRST_TAG.value, name.title(), old, new,
                "a quirk says that this UA keeps the tag of the first 18x", "RFC 3261, section 12.1.2")
    turn.edits.replace(start, start + len(old), new.encode("latin-1"), note)
    return True


# -- R: no re-INVITE -------------------------------------------------------------------------------------

def _warn_of_reinvite(turn: Turn, call: Call) -> bool:
    """Say that this device is asked what it cannot do: natfix sends no re-INVITE, and can answer none."""
    message = turn.message
    if not (message.is_request and message.method == "INVITE" and message.to_tag):
        return False
    turn.leave("quirk-" + Repair.NO_REINVITE.value, "CSeq",
               "a quirk says that this UA knows no re-INVITE; have the other side send none (session timers, "
               "hold, direct media)", call.key.call_id)
    return True


# What a device says, and what it is told; in this order, for devices that need several.
SAID: dict[Repair, Fix] = {
    Repair.KEEPS_FIRST_TAG: _restore_final_tag,
    Repair.KEEPS_EARLY_SDP: _pin_early_sdp,
}
TOLD: dict[Repair, Fix] = {
    Repair.NO_REINVITE: _warn_of_reinvite,
    Repair.DROP_SECOND_EARLY_MEDIA: _drop_second_early_media,
    Repair.KEEPS_EARLY_SDP: lambda turn, call: _forget_early_sdp(turn, call) and False,
    Repair.KEEPS_FIRST_TAG: _show_first_tag,
}


def _keep(call: Call, name: str, value: str) -> str:
    """Keep *value* unless there is one; return what is kept, *value* itself where too much is."""
    if name not in call.kept and len(call.kept) >= MAX_KEPT:
        return value
    return call.kept.setdefault(name, value)


def _hide_body(turn: Turn) -> None:
    """What was replaced as a whole is nobody else's to read or to edit."""
    turn.message = copy(turn.message)
    turn.message.body = (len(turn.message.raw), len(turn.message.raw))


def _text(message: Message, header: Header) -> str:
    return message.raw[header.start:header.end].decode("latin-1")


def _line(message: Message, header: Header) -> tuple[int, int]:
    """Return the span of a header's whole line, its end of line included."""
    end = message.raw.find(b"\n", header.end) + 1
    return message.raw.rfind(b"\n", 0, header.start) + 1, end or len(message.raw)
