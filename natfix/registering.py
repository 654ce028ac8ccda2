"""REGISTER: what a registrar accepts decides how long an inside endpoint can be reached (RFC 3261,
section 10). Nothing opens inward before the 2xx.

A REGISTER that an inside proxy has passed on names another inside host in its Contact. Where the operator
names the proxy, the registrar's requests come in to it, and its session descriptions may name that host.
"""

from __future__ import annotations

from sys import intern

from natfix.address import SIP_PORT, Endpoint
from natfix.deadlines import Deadlines
from natfix.errors import LimitReached, MalformedMessage
from natfix.happenings import Happenings
from natfix.mappings import Mapping, Mappings
from natfix.realms import Realms
from natfix.registrations import (
    Binding,
    BindingKey,
    PendingKey,
    PendingRegister,
    Registrations,
    Requested,
)
from natfix.signalling import Signalling
from natfix.sip.fields import Address, address_at, split_values
from natfix.sip.message import Message
from natfix.spelling import shown_text
from natfix.turn import Turn

DEFAULT_EXPIRES = 3600          # seconds; RFC 3261, section 10.2.1.1
LONGEST_EXPIRES = 7 * 86400     # seconds; no registrar needs more, and a hole should not last for ever


class Registering:
    """Follows REGISTERs of inside UAs and opens, renews and closes what their bindings need."""

    def __init__(
        self, realms: Realms, registrations: Registrations, mappings: Mappings, signalling: Signalling,
        deadlines: Deadlines, happened: Happenings,
    ) -> None:
        self._realms = realms
        self._registrations = registrations
        self._mappings = mappings
        self._signalling = signalling
        self._deadlines = deadlines
        self._happened = happened

    def on_request(self, turn: Turn) -> None:
        """Remember what an inside UA asks for."""
        assert turn.sender is not None
        message, sender = turn.message, turn.sender
        pending = PendingRegister(turn.packet.destination, intern(message.user_agent), aor=_aor(message))
        default = _header_seconds(message)
        for address in _contacts(message):
            if address.uri is None:
                pending.wildcard = message.raw[address.start:address.end].strip() == b"*"
            elif (host := address.uri.hostport.host) == sender.inside.host:
                pending.contacts.append(self._requested(turn, address, pending.aor, default, None))
            elif host in self._realms.own_hosts:
                turn.leave("already-right", "Contact", "the UA names the outside address itself", host)
            elif self._may_speak_for(turn, host):
                pending.contacts.append(self._requested(turn, address, pending.aor, default, sender.inside))
        if pending.contacts or pending.wildcard:
            key = PendingKey(sender.inside, message.call_id, message.cseq)
            self._registrations.expect(key, pending)

    def _may_speak_for(self, turn: Turn, host: str) -> bool:
        """Tell whether the sender is an inside proxy that the operator names, and *host* an inside one.

        Anybody could find a registrar that accepts a neighbour's address, so its 2xx alone proves nothing.
        """
        assert turn.sender is not None
        if not self._realms.is_inside(host):
            return False
        if self._signalling.is_peer(turn.sender.inside.host):
            return True
        turn.leave("proxy-unknown", "Contact",
                   "another inside host's: only a proxy that a [[peer]] names may register it", host)
        return False

    def _requested(
        self, turn: Turn, address: Address, aor: str, default: int | None, proxy: Endpoint | None
    ) -> Requested:
        raw, uri = turn.message.raw, address.uri
        assert uri is not None
        link = turn.sender.inside.link if turn.sender is not None else ""
        inside = Endpoint(uri.hostport.host, uri.hostport.port or SIP_PORT, link=link)
        mapping = None if proxy else self._mappings.find(inside)     # a proxy's is not shown in Contact
        if turn.sender is not None and turn.sender.is_stream and not proxy:
            mapping = turn.sender
        written = raw[uri.hostport.start:uri.hostport.end].decode("latin-1")
        shown = shown_text(uri.hostport, mapping.outside) if mapping else written
        asked = _parameter_seconds(raw, address)
        # A PBX has thousands of these, which say the same: each text is kept once.
        return Requested(BindingKey(mapping.inside if mapping else inside, aor, proxy), uri.user,
                         intern(written), intern(shown), asked if asked is not None else default)

    def on_response(self, turn: Turn) -> None:
        """Take what the registrar said; only a 2xx from where the REGISTER went changes anything."""
        assert turn.receiver is not None
        message = turn.message
        if not 200 <= message.status < 300:
            return
        pending = self._registrations.answered(
            PendingKey(turn.receiver.inside, message.call_id, message.cseq))
        if pending is None or pending.registrar.host != turn.packet.source.host:
            return
        if pending.wildcard:
            for binding in self._registrations.of_aor(turn.receiver.inside.host, pending.aor):
                self._remove(binding.key, turn.now)
        granted = _granted(message)
        _compare_echo(turn, pending.contacts, granted)
        for requested in pending.contacts:
            seconds = granted.get((requested.user, requested.shown), requested.expires)
            self._set(turn, pending, requested, DEFAULT_EXPIRES if seconds is None else seconds)

    def _set(self, turn: Turn, pending: PendingRegister, requested: Requested, seconds: int) -> None:
        mapping = self._mappings.find(requested.key.reached_at)
        if seconds <= 0 or requested.expires == 0 or mapping is None:
            self._remove(requested.key, turn.now)
            return
        known = self._registrations.find(requested.key)
        binding = Binding(
            requested.key, requested.user, requested.written, requested.shown, pending.registrar,
            turn.now + min(seconds, LONGEST_EXPIRES), known.registered_at if known else turn.now,
            pending.agent,
        )
        try:
            self._registrations.add(binding)
        except LimitReached as problem:
            turn.leave("limit", "Contact", str(problem), requested.written)
            return
        if requested.key.proxy is None:
            mapping.agent = pending.agent
        if known is not None and known.registrar != binding.registrar:
            self._mappings.release(mapping, known.holder, turn.now)
        if known is None:
            self._happened.of_binding("registered", binding, turn.now)
        self.open(mapping, binding, turn.now)

    def open(self, mapping: Mapping, binding: Binding, now: float) -> None:
        """Open the inward half for *binding*, and plan its end."""
        self._signalling.open_for_binding(mapping, binding, now)
        self._deadlines.set(("binding", binding.key), binding.expires_at)

    def handle_deadline(self, key: BindingKey, now: float) -> None:
        """Forget a binding that ran out; its mapping's holder has a deadline of its own."""
        binding = self._registrations.find(key)
        if binding is not None and binding.expires_at <= now:
            self._registrations.remove(key)
            self._happened.of_binding("expired", binding, now)

    def _remove(self, key: BindingKey, now: float) -> None:
        binding = self._registrations.remove(key)
        mapping = self._mappings.find(key.reached_at)
        if binding is not None:
            self._happened.of_binding("unregistered", binding, now)
        if binding is not None and mapping is not None:
            self._mappings.release(mapping, binding.holder, now)


def _contacts(message: Message) -> list[Address]:
    found = []
    for header in message.all("contact"):
        try:
            found += [
                address_at(message.raw, start, end)
                for start, end in split_values(message.raw, header.start, header.end)
            ]
        except MalformedMessage:
            continue
    return found


def _compare_echo(turn: Turn, asked: list[Requested], granted: dict[tuple[str, str], int]) -> None:
    """Note where the registrar repeats none of the Contacts that it was shown, but others of the same users:
    somebody on the way has rewritten them (RFC 3261, section 10.3, step 8)."""
    shown = {(each.user, _canonical(each.shown)) for each in asked if each.expires != 0}
    listed = {(user, _canonical(hostport)) for user, hostport in granted}
    others = sorted(hostport for user, hostport in listed if user in {name for name, _ in shown})
    if shown and others and not shown & listed:
        turn.leave("echo-changed", "Contact", f"the registrar was shown {min(shown)[1]}", others[0])


def _canonical(hostport: str) -> str:
    return hostport.removesuffix(f":{SIP_PORT}")


def _granted(message: Message) -> dict[tuple[str, str], int]:
    """Return the seconds that the registrar gave each binding it listed, by user and host:port."""
    default = _header_seconds(message)
    granted = {}
    for address in _contacts(message):
        if address.uri is None:
            continue
        hostport = message.raw[address.uri.hostport.start:address.uri.hostport.end].decode("latin-1")
        seconds = _parameter_seconds(message.raw, address)
        if seconds is None:
            seconds = default
        if seconds is not None:
            granted[address.uri.user, hostport] = seconds
    return granted


def _aor(message: Message) -> str:
    """Return To's URI without parameters: the address-of-record (RFC 3261, section 10.3)."""
    header = message.first("to")
    if header is None:
        return ""
    try:
        uri = address_at(message.raw, header.start, header.end).uri
    except MalformedMessage:
        return ""
    return f"{uri.user}@{uri.hostport.host}" if uri else ""


def _header_seconds(message: Message) -> int | None:
    header = message.first("expires")
    return _seconds(message.raw, header.start, header.end) if header else None


def _parameter_seconds(raw: bytes, address: Address) -> int | None:
    span = address.params.get("expires")
    return _seconds(raw, *span) if span else None


def _seconds(raw: bytes, start: int, end: int) -> int | None:
    """Return delta-seconds; None for what is none, or has more digits than 2**32-1 (RFC 3261, 20.19)."""
    text = raw[start:end].strip()
    return int(text) if text.isdigit() and len(text) <= 10 else None
