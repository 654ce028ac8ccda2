"""SIP headers: what an inside UA says of itself is shown outside as its outside endpoint, and what
comes back to it names again just what it wrote (design, section 5).

Two passes over the headers of one message, each driven by the tables of :mod:`natfix.headers`:
:meth:`Rewriter.show` for what the inside sender wrote, :meth:`Rewriter.restore` for what the inside
receiver once wrote.
"""

from __future__ import annotations

from sys import intern

from natfix.address import SIP_PORT, Endpoint, is_ipv4
from natfix.commands import Kind, Note
from natfix.dialogs import Call
from natfix.errors import LimitReached, MalformedMessage
from natfix.headers import (
    CONTACT,
    ECHOED_ONLY,
    IDENTITY,
    RESTORED_REQUEST_URI,
    RESTORED_VIA,
    ROUTE,
    RULES,
    SHOWN_REQUEST_URI,
    SHOWN_VIA,
    TARGET,
    TEXT_RULES,
    URI_PARAMETERS,
    VIA,
    Rule,
    address_or_none,
    hostports_in_text,
    is_signed,
    top_via,
    uri_or_none,
)
from natfix.mappings import Mapping, Mappings
from natfix.quirks import Quirks, Repair
from natfix.registrations import Registrations
from natfix.signalling import LOWEST_PORT, Signalling
from natfix.sip.fields import HostPort, Uri, Via, split_values
from natfix.sip.message import Header
from natfix.spelling import Spelling, inverse_text, shown_text
from natfix.turn import Turn

_REASONS = {
    VIA: "responses are sent here",
    CONTACT: "later requests are sent here",
    ROUTE: "later requests pass here",
    TARGET: "the other side is the same inside host, which outside has another address",
    IDENTITY: "the host is the sender's own inside address",
}


def fix_content_length(turn: Turn) -> None:
    """Content-Length follows the body; none is added where there was none (RFC 3261, 18.3)."""
    message = turn.message
    start, end = message.body
    delta = turn.edits.delta_after(start)
    if not delta:
        return
    new = str(end - start + delta)
    for header in message.all("content-length"):
        old = message.raw[header.start:header.end].decode("latin-1")
        note = Note("content-length", "Content-Length", old, new, "the body's length changed",
                    "RFC 3261, section 20.14")
        turn.edits.replace(header.start, header.end, new.encode(), note)


class Rewriter:
    """Applies the two tables to a turn."""

    def __init__(
        self, signalling: Signalling, mappings: Mappings, registrations: Registrations, spelling: Spelling,
        quirks: Quirks,
    ) -> None:
        self._signalling = signalling
        self._mappings = mappings
        self._registrations = registrations
        self._spelling = spelling
        self._quirks = quirks

    def follow(self, quirks: Quirks) -> None:
        """Take other rules, for what is said from now on."""
        self._quirks = quirks

    # -- what the inside sender says of itself -------------------------------------------------

    def show(self, turn: Turn) -> None:
        """Replace the sender's own inside endpoints by the outside endpoints that stand for them."""
        assert turn.sender is not None
        message = turn.message
        host = turn.sender.inside.host.encode()
        raw = message.raw
        if message.is_request:
            self._show_via(turn)
            if message.to_tag and turn.sender_call is not None:
                self._show_request_uri(turn, turn.sender_call, host)
        for header in message.headers:
            name, start, end = header
            rule = RULES.get(name)
            if rule is None or raw.find(host, start, end) < 0:
                continue
            if name in TEXT_RULES:
                self._show_text(turn, header, rule)
            else:
                self._show_addresses(turn, header, rule)

    def _show_via(self, turn: Turn) -> None:
        via = top_via(turn.message)
        if via is None:
            turn.leave("via", "Via", "the topmost Via cannot be read")
            return
        if self._show_hostport(turn, via.sent_by, SHOWN_VIA):
            self._show_parameter(turn, via.params.get("maddr"), SHOWN_VIA)

    def _show_request_uri(self, turn: Turn, call: Call, host: bytes) -> None:
        """A UA that talks to its own host through a proxy was told the other side's Contact as an inside
        address; outside that means nothing. Somebody else's, which may look the same, stays."""
        message = turn.message
        start, end = message.request_uri
        if message.raw.find(host, start, end) < 0 or (uri := uri_or_none(message.raw, start, end)) is None:
            return
        target = message.raw[uri.hostport.start:uri.hostport.end].decode("latin-1")
        shown = next((s for (kind, s), text in call.written.items() if (kind, text) == (TARGET, target)), "")
        if shown:
            self._replace(turn, uri.hostport, target, shown, SHOWN_REQUEST_URI)
            for name in URI_PARAMETERS:
                self._show_parameter(turn, uri.params.get(name), SHOWN_REQUEST_URI)

    def _show_addresses(self, turn: Turn, header: Header, rule: Rule) -> None:
        raw = turn.message.raw
        for start, end in _values(raw, header):
            address = address_or_none(raw, start, end)
            if address is None or address.uri is None:
                continue
            if header.name in ECHOED_ONLY and not self._was_shown(turn, address.uri, rule):
                continue
            if rule.kind == IDENTITY:
                self._show_identity(turn, address.uri.hostport, rule)
                continue
            if self._show_hostport(turn, address.uri.hostport, rule) and rule.kind == CONTACT:
                for params in filter(None, (address.uri.params, address.params)):
                    for name in URI_PARAMETERS:
                        self._show_parameter(turn, params.get(name), rule)

    def _show_identity(self, turn: Turn, hostport: HostPort, rule: Rule) -> None:
        """Identities name a host, seldom a port, and are rewritten only where a call can undo it."""
        sender, call = turn.sender, turn.sender_call
        assert sender is not None
        if hostport.host != sender.inside.host:
            return
        written = turn.message.raw[hostport.start:hostport.end].decode("latin-1")
        if call is None:
            turn.leave(IDENTITY, rule.header, "no dialog remembers it, so it could not be restored", written)
            return
        shown = sender.outside.host
        if hostport.port is not None:
            mapping = self._mappings.find(Endpoint(hostport.host, hostport.port, link=sender.inside.link))
            shown += f":{mapping.outside.port if mapping else hostport.port}"
        call.remember_written(IDENTITY, shown, written)
        self._replace(turn, hostport, written, shown, rule)

    def _was_shown(self, turn: Turn, uri: Uri, rule: Rule) -> bool:
        """Tell whether natfix has shown this very text in another place of the dialog before."""
        call = turn.sender_call
        written = turn.message.raw[uri.hostport.start:uri.hostport.end].decode("latin-1")
        return call is not None and any(
            kind == rule.kind and original == written for (kind, _), original in call.written.items()
        )

    def _show_text(self, turn: Turn, header: Header, rule: Rule) -> None:
        sender = turn.sender
        assert sender is not None
        for hostport in hostports_in_text(turn.message.raw, header, sender.inside):
            written, shown = str(sender.inside), shown_text(hostport, sender.outside)
            self._replace(turn, hostport, written, shown, rule)

    def _show_hostport(self, turn: Turn, hostport: HostPort, rule: Rule) -> bool:
        """Show one host and port if it is the sender's own; True where it was replaced."""
        sender = turn.sender
        assert sender is not None
        if hostport.host != sender.inside.host:
            return False
        port = hostport.port or SIP_PORT
        # Whatever port a UA listens at: requests to it come by the connection that it opened (RFC 5923).
        is_own = port == sender.inside.port or sender.is_stream
        other = Endpoint(hostport.host, port, link=sender.inside.link)
        mapping = sender if is_own else self._beside(turn, other, rule)
        if mapping is None:
            return False
        written = intern(turn.message.raw[hostport.start:hostport.end].decode("latin-1"))
        shown = intern(shown_text(hostport, mapping.outside))       # many calls remember the same
        self._remember(turn, mapping, rule.kind, shown, written)
        self._replace(turn, hostport, written, shown, rule)
        return True

    def _beside(self, turn: Turn, endpoint: Endpoint, rule: Rule) -> Mapping | None:
        """Return the mapping of another endpoint on the sender's host; None where it must have none."""
        if endpoint.port < LOWEST_PORT:
            turn.leave("refused", rule.header, "a port below 1024 is a service, not SIP", str(endpoint))
            return None
        try:
            return self._signalling.map_endpoint(endpoint, turn.now)
        except LimitReached as problem:
            turn.leave("limit", rule.header, str(problem), str(endpoint))
            return None

    def _remember(self, turn: Turn, mapping: Mapping, kind: str, shown: str, written: str) -> None:
        """Keep how the UA wrote it, where that cannot be told from the endpoint alone."""
        if kind not in mapping.shown:
            mapping.shown |= {kind}
        call = turn.sender_call
        is_canonical = inverse_text(shown, mapping.inside) == written
        if call is not None and (kind == CONTACT or (kind == ROUTE and not is_canonical)):
            call.remember_written(kind, shown, written)     # a Contact always: its binding may differ
        elif not is_canonical:
            self._spelling.remember(turn.message.branch, kind, shown, written, turn.now)

    def _show_parameter(self, turn: Turn, span: tuple[int, int] | None, rule: Rule) -> None:
        """Replace the sender's address in a parameter that repeats it, port included where it has one."""
        sender = turn.sender
        assert sender is not None
        if span is not None:
            self._swap_parameter(turn, span, sender.inside, sender.outside, rule)

    def _swap_parameter(
        self, turn: Turn, span: tuple[int, int], old: Endpoint, new: Endpoint, rule: Rule
    ) -> None:
        text = turn.message.raw[span[0]:span[1]].decode("latin-1")
        changed = (
            text.replace(f"{old.host}:{old.port}", f"{new.host}:{new.port}")
            .replace(f"{old.host}~{old.port}", f"{new.host}~{new.port}")
        )
        if changed == text and text.strip('"') == old.host:
            changed = text.replace(old.host, new.host)
        if changed != text:
            note = Note("parameter", rule.header, text, changed, "the parameter repeats the address",
                        "RFC 3261, section 19.1.1")
            turn.edits.replace(span[0], span[1], changed.encode("latin-1"), note)

    # -- what the inside receiver once said -----------------------------------------------------

    def restore(self, turn: Turn) -> None:
        """Replace what natfix has shown of the receiver by what the receiver wrote."""
        assert turn.receiver is not None
        message, receiver = turn.message, turn.receiver
        raw = message.raw
        host = receiver.outside.host.encode()
        if message.is_request:
            self._restore_request_uri(turn)
        else:
            self._restore_via(turn)
        if raw.find(host) < 0:
            return
        for header in message.headers:
            name, start, end = header
            rule = RULES.get(name)
            if rule is None or raw.find(host, start, end) < 0:
                continue
            if name in TEXT_RULES:
                self._restore_text(turn, header, rule)
            else:
                self._restore_addresses(turn, header, rule)

    def _restore_request_uri(self, turn: Turn) -> None:
        message = turn.message
        start, end = message.request_uri
        if message.raw.find(turn.receiver.outside.host.encode(), start, end) < 0:  # type: ignore[union-attr]
            return
        uri = uri_or_none(message.raw, start, end)
        if uri is None:
            return
        if not message.to_tag and is_signed(message, start, end):
            turn.leave("request-uri", RESTORED_REQUEST_URI.header, "the credentials were computed over it",
                       message.raw[start:end].decode("latin-1"))
            return
        if self._restore_hostport(turn, uri.hostport, RESTORED_REQUEST_URI, uri.user):
            self._restore_parameters(turn, uri.params, RESTORED_REQUEST_URI)

    def _restore_via(self, turn: Turn) -> None:
        via = top_via(turn.message)
        receiver = turn.receiver
        if via is None or receiver is None:
            return
        if self._restore_hostport(turn, via.sent_by, RESTORED_VIA):
            if "maddr" in via.params:
                self._swap_parameter(
                    turn, via.params["maddr"], receiver.outside, receiver.inside, RESTORED_VIA)
        elif is_ipv4(via.sent_by.host):
            return
        if self._quirks and Repair.IGNORES_RPORT in self._quirks.repairs_for(receiver.agent):
            self._strip_received(turn, via)
            return
        inside, outside = receiver.inside, receiver.outside
        for name, old, new in (
            ("received", outside.host, inside.host), ("rport", str(outside.port), str(inside.port)),
        ):
            span = via.params.get(name)
            if span is not None and turn.message.raw[span[0]:span[1]] == old.encode() and old != new:
                note = Note("via-" + name, "Via", old, new,
                            "the UA is told the address it sent from", "RFC 3581, section 4")
                turn.edits.replace(span[0], span[1], new.encode(), note)

    def _strip_received(self, turn: Turn, via: Via) -> None:
        raw = turn.message.raw
        for name in ("received", "rport"):
            span = via.params.get(name)
            if span is None:
                continue
            start = raw.rfind(b";", via.start, span[0])
            note = Note("quirk-ignores-rport", "Via", raw[start:span[1]].decode("latin-1"), "",
                        "a quirk says that this UA cannot take received and rport", "RFC 3581, section 4")
            turn.edits.replace(start, span[1], b"", note)

    def _restore_addresses(self, turn: Turn, header: Header, rule: Rule) -> None:
        raw = turn.message.raw
        for start, end in _values(raw, header):
            address = address_or_none(raw, start, end)
            if address is None or address.uri is None:
                continue
            uri = address.uri
            written = self._restore_hostport(turn, uri.hostport, rule, uri.user)
            if written and rule.kind == CONTACT:
                self._restore_parameters(turn, uri.params, rule)
                self._restore_parameters(turn, address.params, rule)
                if header.name == "contact" and turn.receiver_call is not None:
                    shown = raw[uri.hostport.start:uri.hostport.end].decode("latin-1")
                    turn.receiver_call.remember_written(TARGET, shown, written)

    def _restore_parameters(self, turn: Turn, params: dict[str, tuple[int, int]], rule: Rule) -> None:
        receiver = turn.receiver
        assert receiver is not None
        for name in URI_PARAMETERS:
            if name in params:
                self._swap_parameter(turn, params[name], receiver.outside, receiver.inside, rule)

    def _restore_text(self, turn: Turn, header: Header, rule: Rule) -> None:
        assert turn.receiver is not None
        for hostport in hostports_in_text(turn.message.raw, header, turn.receiver.outside):
            self._restore_hostport(turn, hostport, rule)

    def _restore_hostport(self, turn: Turn, hostport: HostPort, rule: Rule, user: str = "") -> str:
        """Restore one host and port if it is one that natfix has shown; return how the UA wrote it, or ""."""
        receiver = turn.receiver
        assert receiver is not None
        if hostport.host != receiver.outside.host:
            return ""
        if rule.kind == IDENTITY:
            return self._restore_identity(turn, hostport, rule)
        port = hostport.port or SIP_PORT
        names_stream = receiver.is_stream and port == receiver.outside.port
        mapping = receiver if names_stream else self._mappings.find_outside(Endpoint(hostport.host, port))
        if mapping is None or mapping.kind is not Kind.SIGNALLING \
                or mapping.inside.host != receiver.inside.host or rule.kind not in mapping.shown:
            return ""
        shown = turn.message.raw[hostport.start:hostport.end].decode("latin-1")
        written = self._written(turn, mapping, rule.kind, shown, user)
        self._replace(turn, hostport, shown, written, rule)
        return written

    def _restore_identity(self, turn: Turn, hostport: HostPort, rule: Rule) -> str:
        """An identity is restored only if this dialog has shown it; else another UA wrote it."""
        call = turn.receiver_call
        shown = turn.message.raw[hostport.start:hostport.end].decode("latin-1")
        if call is None or (IDENTITY, shown) not in call.written:
            return ""
        written = call.written[IDENTITY, shown]
        self._replace(turn, hostport, shown, written, rule)
        return written

    def _written(self, turn: Turn, mapping: Mapping, kind: str, shown: str, user: str) -> str:
        """Return how the UA wrote what was shown as *shown*."""
        call = turn.receiver_call
        if call is not None and (kind, shown) in call.written:
            return call.written[kind, shown]
        spelled = self._spelling.recall(turn.message.branch, kind, shown)
        if spelled is not None:
            return spelled
        if kind == CONTACT:
            binding = self._registrations.find_user(mapping.inside, user)
            if binding is not None and binding.shown == shown:
                return binding.written
        return inverse_text(shown, mapping.inside)

    # -- both ------------------------------------------------------------------------------------

    def _replace(self, turn: Turn, hostport: HostPort, old: str, new: str, rule: Rule) -> None:
        if new != old:
            note = Note(rule.kind, rule.header, old, new, _REASONS[rule.kind], rule.rfc)
            turn.edits.replace(hostport.start, hostport.end, new.encode("latin-1"), note)


def _values(raw: bytes, header: Header) -> list[tuple[int, int]]:
    """Return a header's values; none where a quote or bracket is not closed: it is left as it is."""
    try:
        return split_values(raw, header.start, header.end)
    except MalformedMessage:
        return []
