"""What a message means for a call: RFC 3261's dialogs, RFC 3264's offers and answers, seen from the
middle. Every message is followed once for each inside party it has.
"""

from __future__ import annotations

from natfix.address import is_ipv4
from natfix.config import Settings
from natfix.deadlines import NEVER, Deadlines
from natfix.dialogs import (
    LATE_ANSWERS,
    Call,
    CallKey,
    Calls,
    Description,
    Dialog,
    ExchangeKey,
    Role,
    Side,
    State,
)
from natfix.errors import LimitReached, MalformedMessage
from natfix.happenings import Happenings
from natfix.mappings import Holder, Mapping, Mappings
from natfix.media import MediaKeeper
from natfix.realms import Realms, is_usable
from natfix.signalling import Signalling
from natfix.sip.fields import address_at, split_values
from natfix.sip.message import Message
from natfix.turn import Turn

T1 = 0.5                    # seconds; RFC 3261, section 17.1.1.1
LINGER = 64 * T1            # a dead call still answers retransmissions this long
RELEASE_DELAY = 2.0         # seconds from a call's end to its ports' (design, section 6)
EARLY_TIMEOUT = 200.0       # seconds without a message; longer than Timer C (RFC 3261, section 16.6)
SUBSCRIPTION = 3600.0       # seconds a subscription lasts where nobody says (RFC 6665, section 4.2.1)
UNSEEN_LIMIT = 86400.0      # seconds without a message after which a call is given up in any case
MAX_PEERS = 16              # addresses of one call's route set and Contacts

GAVE_WAY = "[limits] dialogs or dialogs_per_host is reached: a call that nobody has answered gave way"
FORMS_DIALOG = frozenset({"INVITE", "SUBSCRIBE", "REFER"})
MAY_RESUME = frozenset({"INVITE", "UPDATE"})    # in-dialog requests that an unknown call begins with
CARRIES_SDP = frozenset({"INVITE", "UPDATE", "PRACK", "ACK"})
CHALLENGES = frozenset({401, 407})              # the UA asks again, with credentials
ENDS_ON_BYE = frozenset({408, 481})             # besides 2xx; a 401 does not end a call


class CallFlow:
    """Finds, makes, follows and ends calls."""

    def __init__(
        self, settings: Settings, realms: Realms, mappings: Mappings, calls: Calls, deadlines: Deadlines,
        signalling: Signalling, media: MediaKeeper, happened: Happenings,
    ) -> None:
        self._settings = settings
        self._realms = realms
        self._mappings = mappings
        self._calls = calls
        self._deadlines = deadlines
        self._signalling = signalling
        self._media = media
        self._happened = happened

    def reconfigure(self, settings: Settings) -> None:
        """Take other settings, from each call's next deadline on."""
        self._settings = settings

    # -- finding --------------------------------------------------------------------------------

    def find(self, turn: Turn, mapping: Mapping, inside_sent: bool) -> Call | None:
        """Return the call that a message belongs to for the inside party at *mapping*.

        It is made where the message begins one; None where it belongs to none, or limits forbid it.
        """
        message = turn.message
        by_inside = inside_sent == message.is_request       # the inside party sent the request
        inside_tag, outside_tag = message.from_tag, message.to_tag
        if not by_inside:
            inside_tag, outside_tag = outside_tag, inside_tag
        host = mapping.inside.host
        call = self._calls.find(host, message.call_id, inside_tag, outside_tag)
        if call is None and message.is_request and self._begins_call(message):
            call = self._begin(turn, mapping, inside_sent)
        return call

    def _begins_call(self, message: Message) -> bool:
        begins = MAY_RESUME if message.to_tag else FORMS_DIALOG
        return message.method in begins and bool(message.call_id) and message.first("from") is not None

    def _begin(self, turn: Turn, mapping: Mapping, inside_sent: bool) -> Call | None:
        message = turn.message
        role = Role.CALLER if inside_sent else Role.CALLEE
        peer = turn.packet.destination if inside_sent else turn.packet.source
        call = Call(
            CallKey(mapping.inside.host, message.call_id, message.from_tag, role),
            "INVITE" if message.to_tag else message.method, mapping.inside, peer, turn.now,
            from_header=message.text("from"), to_header=message.text("to"),
        )
        call.peers.add(peer.host)
        self._make_room(turn, mapping.inside.host)
        try:
            self._calls.add(call)
        except LimitReached as problem:
            turn.lack("Call-ID", str(problem), message.call_id)
            return None
        self._arm(call, turn.now + EARLY_TIMEOUT)
        self._happened.of_call("call", call, turn.now)
        return call

    def _make_room(self, turn: Turn, host: str) -> None:
        """What nobody has answered gives way, so that a flood of INVITEs shuts no real call out."""
        oldest = self._calls.in_the_way(host)
        if oldest is not None:
            turn.leave("gave-way", "Call-ID", GAVE_WAY, oldest.key.call_id)
            self._happened.of_call("ended", oldest, turn.now, why=GAVE_WAY)
            self._release(oldest, turn.now)
            self._deadlines.set(("call", oldest.key), NEVER)
            self._calls.remove(oldest)

    # -- following ------------------------------------------------------------------------------

    def follow(
        self, turn: Turn, call: Call, mapping: Mapping, inside_sent: bool, said: Description | None
    ) -> None:
        """Take what a message does to *call*; *said* is its session description, None without one."""
        message = turn.message
        if not inside_sent and not self._is_peer(turn, call):
            turn.leave("stranger", "Call-ID", "the sender is not a peer of this call; its state stays")
            return
        call.alive_at = turn.now
        if inside_sent and said is not None and mapping.inside.link != call.inside.link:
            self._change_link(turn, call, mapping)
        self._note_peers(turn, call, mapping, inside_sent)
        if message.is_request and message.method == call.method and not message.to_tag:
            self._revive(call, message.cseq)
        key = ExchangeKey(inside_sent == message.is_request, message.cseq)
        before = (call.state, len(call.dialogs))
        dialog = self._dialog(turn, call, key)
        side = Side.INSIDE if inside_sent else Side.OUTSIDE
        if said is not None and message.cseq_method in CARRIES_SDP:
            self._take_description(call, dialog, key, side, said)
        if message.is_request:
            agreed = self._on_request(turn, call, dialog, key)
        else:
            agreed = self._on_response(turn, call, dialog, key, mapping)
        if agreed or said is not None or before != (call.state, len(call.dialogs)):
            self._media.settle(call, turn.now)
            self._calls.changed.add(call.key)
        elif call.awaits_other:
            self._media.settle(call, turn.now)
        if agreed and dialog is not None and dialog.refused and call.may_be_answered(turn.now):
            self._arm(call, min(self._next_look(call), turn.now + LATE_ANSWERS))

    def _change_link(self, turn: Turn, call: Call, mapping: Mapping) -> None:
        """The inside party goes on by another outside link, and with it its media and the way back to it."""
        old = self._mappings.find(call.inside)
        call.inside = mapping.inside
        if call.state is State.CONFIRMED:
            until = NEVER if call.method == "INVITE" else call.ends_at
            self._signalling.open_for_call(mapping, call, until, turn.now)
        if old is not None and call.holder in old.holders:
            self._mappings.release(old, call.holder, turn.now)

    def _dialog(self, turn: Turn, call: Call, key: ExchangeKey) -> Dialog | None:
        """Return the dialog that the message is in; None before the callee has a tag."""
        message = turn.message
        caller_asks = key.by_inside == (call.key.role is Role.CALLER)
        tag = message.to_tag if caller_asks else message.from_tag
        makes_none = message.method == "ACK" or message.status == 100 or message.status >= 300
        # A UA of RFC 2543 gives no tag, which counts as the tag "" (RFC 3261, section 12.1): but of its
        # responses only, since a request without one is the caller's first.
        untagged = call.dialogs.get("")
        if untagged is not None and untagged.state is State.CONFIRMED and tag not in call.dialogs:
            return untagged                     # its later responses may have a tag, for want of one in To
        is_answer = bool(message.status) and message.cseq_method == call.method
        if makes_none or not (tag or is_answer):
            return call.dialogs.get(tag)
        return call.dialog_for(tag)

    def _take_description(
        self, call: Call, dialog: Dialog | None, key: ExchangeKey, side: Side, said: Description
    ) -> None:
        if dialog is None:
            call.offer = {side: said}
        elif key in dialog.proposed or dialog.agreed.get(side) != said or dialog.refused:
            dialog.propose(key, side, said)     # a repeated answer says nothing new, a revived stream may

    def _on_request(self, turn: Turn, call: Call, dialog: Dialog | None, key: ExchangeKey) -> bool:
        method = turn.message.method
        if method == "ACK" and dialog is not None:
            call.is_acknowledged = True
            self._deadlines.bring_forward(("call", call.key), self._next_look(call))
            return dialog.agree(key)            # the answer to a late offer (RFC 3264, section 4)
        if method == "BYE":
            call.hangups.setdefault(key, turn.now)
            self._arm(call, self._next_look(call))
        elif method == "NOTIFY" and call.method != "INVITE" and _is_terminated(turn.message):
            self._end(call, turn.now, "the subscription was terminated")
        return False

    def _on_response(
        self, turn: Turn, call: Call, dialog: Dialog | None, key: ExchangeKey, mapping: Mapping
    ) -> bool:
        message = turn.message
        status, method = message.status, message.cseq_method
        if status < 200:
            if method == call.method and call.state is State.EARLY:
                self._note_ringing(call, status, turn.now)
                self._signalling.await_answer(mapping, call, turn.now + EARLY_TIMEOUT, turn.now)
            return False
        if method == "BYE" and (key in call.hangups or _is_agreed_with_registered(turn, key)):
            self._on_hangup_answered(turn, call, dialog, key)
            return False
        if method not in FORMS_DIALOG and method not in CARRIES_SDP:
            return False
        if status < 300:
            return self._on_success(turn, call, dialog, key, mapping)
        if call.state is State.EARLY and call.method == method and message.cseq == call.invite_cseq:
            kind = "challenged" if status in CHALLENGES else "ended"
            self._end(call, turn.now, f"{status} {message.reason}".strip(), kind)
            return True
        return dialog.reject(key) if dialog is not None else False

    def _note_ringing(self, call: Call, status: int, now: float) -> None:
        if status > 100 and not call.rings:
            call.rings = True
            self._happened.of_call("ringing", call, now, status=status)

    def _on_success(
        self, turn: Turn, call: Call, dialog: Dialog | None, key: ExchangeKey, mapping: Mapping
    ) -> bool:
        method = turn.message.cseq_method
        is_refresh = dialog is not None and dialog.state is State.CONFIRMED and method == "INVITE"
        if method == call.method and dialog is not None and not is_refresh:
            self._confirm(turn, call, dialog, mapping)      # each 2xx prolongs a subscription
        return dialog.agree(key) if dialog is not None else False

    def _confirm(self, turn: Turn, call: Call, dialog: Dialog, mapping: Mapping) -> None:
        dialog.state = State.CONFIRMED
        if call.answered_at is None:
            call.answered_at = turn.now
            self._happened.of_call("answered", call, turn.now)
        call.ended_at, call.ends_at = None, NEVER      # a 2xx after all, of another fork
        until = NEVER
        if call.method == "INVITE":
            for other in call.dialogs.values():
                if other.state is State.EARLY:
                    other.state = State.ENDED       # a fork that lost; a late 2xx would confirm it after all
            self._arm(call, self._next_look(call))
        else:
            # The last NOTIFY comes after the end, Timer N at the latest (RFC 6665, section 4.1.2.3).
            until = turn.now + _expires(turn.message) + LINGER
            call.ends_at = until
            self._arm(call, until)
        self._signalling.open_for_call(mapping, call, until, turn.now)

    def _on_hangup_answered(
        self, turn: Turn, call: Call, dialog: Dialog | None, key: ExchangeKey
    ) -> None:
        status = turn.message.status
        call.hangups.pop(key, None)
        if status >= 300 and status not in ENDS_ON_BYE:
            return
        if dialog is not None:
            dialog.state = State.ENDED
        if not call.live_dialogs():
            by = "inside" if key.by_inside else "outside"
            said = "" if status < 300 else f", answered with {status}"
            self._end(call, turn.now, f"BYE from {by}{said}")

    # -- peers ------------------------------------------------------------------------------------

    def _is_peer(self, turn: Turn, call: Call) -> bool:
        return turn.packet.source.host in call.peers

    def _note_peers(self, turn: Turn, call: Call, mapping: Mapping, inside_sent: bool) -> None:
        """Let those call back whom the call has got to know: a target refresh may name somebody new."""
        known = len(call.peers)
        if not inside_sent:
            self._note_route_set(turn, call)
        elif turn.message.is_request and len(call.peers) < MAX_PEERS:
            call.peers.add(turn.packet.destination.host)
        if len(call.peers) > known and call.state is State.CONFIRMED:
            until = NEVER if call.method == "INVITE" else call.ends_at
            self._signalling.open_for_call(mapping, call, until, turn.now)

    def _note_route_set(self, turn: Turn, call: Call) -> None:
        """Add the route set and the Contact of the other side to those who may call back."""
        raw = turn.message.raw
        for header in turn.message.headers:
            if header.name not in ("record-route", "contact"):
                continue
            for start, end in _values(raw, header.start, header.end):
                host = _host_at(raw, start, end)
                if len(call.peers) < MAX_PEERS and is_ipv4(host) and is_usable(host):
                    call.peers.add(host)

    # -- ending -----------------------------------------------------------------------------------

    def _revive(self, call: Call, cseq: int) -> None:
        """A new INVITE with the same Call-ID and tag, after a 407 for instance, takes the call up again."""
        if cseq != call.invite_cseq:
            call.invite_cseq = cseq
            if call.ended_at is not None:
                call.ended_at, call.ends_at = None, NEVER
                call.dialogs.clear()

    def _end(self, call: Call, now: float, why: str, kind: str = "ended") -> None:
        if call.ended_at is None:
            call.ended_at = now
            self._happened.of_call(kind, call, now, why=why)
            for dialog in call.dialogs.values():
                dialog.state = State.ENDED
            call.ends_at = now + RELEASE_DELAY
            self._arm(call, call.ends_at)
            self._calls.changed.add(call.key)

    def _arm(self, call: Call, when: float) -> None:
        """Look at *call* again at *when*, or before if that is planned."""
        self._deadlines.set(("call", call.key), min(when, call.ends_at))

    def handle_deadline(self, key: CallKey, now: float) -> str:
        """Do what is due for a call; return why it was ended, "" where it was not."""
        call = self._calls.get(key)
        if call is None:
            return ""
        reason = ""
        if call.ended_at is None:
            reason = self._reason_to_end(call, now)
            if reason:
                self._end(call, now, reason)
            else:
                self._media.settle(call, now)       # refused streams go when no other answer is to come
                self._calls.changed.add(key)
                # Whether its media is counted may turn out only now.
                self._arm(call, min(self._next_look(call), now + self._settings.media.silence))
        elif now >= call.ended_at + LINGER:
            self._release(call, now)        # a late message may have opened something again
            self._calls.remove(call)
        elif now >= call.ends_at:
            self._release(call, now)
            self._deadlines.set(("call", key), call.ended_at + LINGER)
        else:
            self._arm(call, call.ends_at)
        return reason

    def on_media(self, holder: Holder, flowed: bool, now: float) -> None:
        """The kernel has counted media of the call with this holder's name; *flowed*: there was some."""
        call = self._call_of(holder)
        if call is None:
            return
        if flowed:
            call.alive_at = max(call.alive_at, now)
        if not call.is_counted:
            call.is_counted = True      # until now its silence said nothing, and nobody was to look for it
            self._deadlines.bring_forward(("call", call.key), self._next_look(call))

    def on_source_learnt(self, relay: Mapping, now: float) -> None:
        """Where a far UA sends from is known: open what was waiting for that."""
        for holder in list(relay.holders):
            call = self._call_of(holder)
            if call is not None:
                self._media.settle(call, now)
                self._calls.changed.add(call.key)

    def _call_of(self, holder: Holder) -> Call | None:
        if holder[0] != "call":
            return None
        _, role, host, call_id, tag = holder
        return self._calls.get(CallKey(host, call_id, tag, Role(role)))

    def resume(self, call: Call, mapping: Mapping | None, now: float) -> None:
        """Take up a call from before a restart."""
        call.is_acknowledged = True         # it may have been
        if mapping is not None and call.state is State.CONFIRMED:
            self._signalling.open_for_call(mapping, call, NEVER, now)
        elif mapping is not None and call.dialogs:
            self._signalling.await_answer(mapping, call, now + EARLY_TIMEOUT, now)
        self._media.settle(call, now)
        self._arm(call, max(self._next_look(call), now + LINGER))
        self._happened.of_call("resumed", call, now)

    def _reason_to_end(self, call: Call, now: float) -> str:
        if now < self._next_look(call):
            return ""
        if call.hangups:
            return "nobody answered BYE"
        if call.state is State.EARLY:
            return "nobody answered"
        return "no message and no media for too long" if call.method == "INVITE" else "it ran out"

    def _next_look(self, call: Call) -> float:
        """Return when *call* is over if nothing happens before."""
        if call.hangups:
            return min(call.hangups.values()) + LINGER
        if call.state is State.EARLY:
            return call.alive_at + EARLY_TIMEOUT
        if call.method != "INVITE":
            return call.ends_at
        if not call.is_acknowledged:        # its 2xx is not repeated for longer (RFC 3261, section 13.3.1.4)
            return call.alive_at + EARLY_TIMEOUT
        # Media that the kernel does not count, or that was released, proves nothing by its silence.
        silence = self._settings.media.silence if call.is_counted else UNSEEN_LIMIT
        return call.alive_at + silence

    def _release(self, call: Call, now: float) -> None:
        """Give back all that a dead call holds; the call itself lingers."""
        self._media.release(call, now)
        mapping = self._mappings.find(call.inside)
        if mapping is not None and call.holder in mapping.holders:
            self._mappings.release(mapping, call.holder, now)


def _values(raw: bytes, start: int, end: int) -> list[tuple[int, int]]:
    try:
        return split_values(raw, start, end)
    except MalformedMessage:
        return []


def _host_at(raw: bytes, start: int, end: int) -> str:
    try:
        address = address_at(raw, start, end)
    except MalformedMessage:
        return ""
    return address.uri.hostport.host if address.uri else ""


def _is_terminated(message: Message) -> bool:
    header = message.first("subscription-state")
    if header is None:
        return False
    return message.raw[header.start:header.end].strip().lower().startswith(b"terminated")


def _expires(message: Message) -> float:
    """Return the seconds a subscription lasts by its 2xx (RFC 6665, section 4.1.2.1)."""
    header = message.first("expires")
    text = message.raw[header.start:header.end].strip() if header else b""
    return float(text) if text.isdigit() and len(text) <= 9 else SUBSCRIPTION


def _is_agreed_with_registered(turn: Turn, key: ExchangeKey) -> bool:
    """Tell whether the inside party agrees to a BYE that came from an address that the call does not know.

    A far NAT may have got another outside address in mid-call. A registrar has to know who is there now:
    what a stranger sends ends nothing here, whatever the phone makes of it (design, section 7).
    """
    far = turn.far_receiver
    return not key.by_inside and turn.message.status < 300 and far is not None and far.is_registered(turn.now)
