"""Session descriptions by m-line: which endpoints each names, where its media is to go, and how that is
written into the message (design, section 5).
"""

from __future__ import annotations

from sys import intern
from typing import NamedTuple

from natfix.address import Endpoint, is_ipv4
from natfix.commands import Note
from natfix.dialogs import Line
from natfix.sdp import Candidate, Connection, Media, Session
from natfix.turn import Turn

DISCARD_PORT = 9        # RFC 8839, section 4.2.1 and RFC 3264: "no media here, for now"
UNSET_HOST = "0.0.0.0"  # the hold of RFC 2543; RFC 3264, section 8.4

RFC_CONNECTION = "RFC 8866, section 5.7"
RFC_MEDIA = "RFC 8866, section 5.14"
RFC_RTCP = "RFC 3605, section 2.1"


class Target(NamedTuple):
    """Where one m-line's media goes after treatment, next to what its two sides said."""

    media: Media
    rtp: Endpoint | None        # None: leave the line as it is
    rtcp: Endpoint | None
    sent: Line                  # in the sender's own terms
    received: Line              # in the receiver's terms


def silent_line(media: Media) -> Line:
    """Return what an m-line says that wants no media."""
    return Line(media.index, media.kind, None, None, pairs=1 if media.port else 0, direction=media.direction)


def left_alone(media: Media) -> Target:
    """Return the target of an m-line that stays as it is, and for which nothing is held."""
    return Target(media, None, None, silent_line(media), silent_line(media))


def endpoints_of(media: Media) -> tuple[Endpoint | None, Endpoint | None]:
    """Return where an m-line wants its RTP and RTCP; None where there is nothing to send to."""
    connection = media.effective
    if media.port in (0, DISCARD_PORT) or connection is None or connection.family != "IP4" \
            or connection.host == UNSET_HOST:
        return None, None
    rtp = Endpoint(intern(connection.host), media.port)     # kept for as long as the call is
    if not is_ipv4(rtp.host):
        return None, None
    if not _has_rtcp(media) or media.rtcp_port == DISCARD_PORT:
        return rtp, None
    if media.rtcp_port:
        host = media.rtcp_address.host if media.rtcp_address else rtp.host
        return rtp, Endpoint(host, media.rtcp_port) if is_ipv4(host) and host != UNSET_HOST else None
    return rtp, Endpoint(rtp.host, media.port + 1) if media.port < 65535 else None


def _has_rtcp(media: Media) -> bool:
    """T.38 and other non-RTP media have no RTCP (RFC 7345); a muxed one is decided by the answer."""
    return "RTP" in media.proto.upper()


def names_host(media: Media) -> bool:
    """Tell whether an m-line wants its media at a host name."""
    host = host_of(media)
    return bool(host) and media.port not in (0, DISCARD_PORT) and not is_ipv4(host)


def host_of(media: Media) -> str:
    """Return the address or name of the c= that counts for an m-line, "" without one."""
    return media.effective.host if media.effective else ""


def write(turn: Turn, session: Session, targets: list[Target]) -> None:
    """Replace what changed; a session's c= serves only m-lines that agree on the address."""
    shared = [t for t in targets if t.media.connection is None and _is_active(t)]
    hosts = {t.rtp.host if t.rtp else host_of(t.media) for t in shared if t.rtp or t.sent.rtp}
    changed = [t for t in targets if t.rtp is not None]
    if len(hosts) > 1:
        turn.leave("sdp-connection", "c=", "its m-lines would need different addresses")
        changed = [t for t in changed if t.media.connection is not None]
    elif session.connection is not None and any(t.rtp for t in shared):
        _edit(turn, session.connection, hosts.pop(), "sdp-connection", "c=", RFC_CONNECTION)
    for target in changed:
        _write_line(turn, target)
    _write_origin(turn, session, changed)


def _write_line(turn: Turn, target: Target) -> None:
    media, rtp, rtcp = target.media, target.rtp, target.rtcp
    assert rtp is not None
    if media.connection is not None:
        _edit(turn, media.connection, rtp.host, "sdp-connection", "c=", RFC_CONNECTION)
    _replace(turn, media.port_span, str(rtp.port), "sdp-media", "m=" + media.kind, RFC_MEDIA)
    if rtcp is not None and media.rtcp_port_span is not None:
        _replace(turn, media.rtcp_port_span, str(rtcp.port), "sdp-rtcp", "a=rtcp", RFC_RTCP)
    if media.rtcp_address is not None and (rtcp is not None or media.rtcp_port == DISCARD_PORT) \
            and media.rtcp_address.host != UNSET_HOST:
        _edit(turn, media.rtcp_address, (rtcp or rtp).host, "sdp-rtcp", "a=rtcp", RFC_RTCP)
    old_rtp, old_rtcp = endpoints_of(media)
    for candidate in media.candidates:
        _write_candidate(turn, candidate, {old_rtp: rtp, old_rtcp: rtcp})


def _write_candidate(
    turn: Turn, candidate: Candidate, moved: dict[Endpoint | None, Endpoint | None],
) -> None:
    """Show the host candidate that equals c=/m=, so that c= stays among the candidates (RFC 8839)."""
    new = moved.get(Endpoint(candidate.address, candidate.port))
    if new is not None and candidate.transport.lower() == "udp" and candidate.type == "host":
        rfc = "RFC 8839, section 4.2.1.2"
        _replace(turn, candidate.address_span, new.host, "sdp-candidate", "a=candidate", rfc)
        _replace(turn, candidate.port_span, str(new.port), "sdp-candidate", "a=candidate", rfc)


def _write_origin(turn: Turn, session: Session, changed: list[Target]) -> None:
    """o= names the sender's host, and stays the same through the session, also where a hold names no
    address otherwise; its version is never touched (RFC 3264, section 8)."""
    origin, sender = session.origin, turn.sender
    if origin is None or sender is None or turn.receiver is not None:
        return
    own = {sender.inside.host} | {t.sent.rtp.host for t in changed[:1] if t.sent.rtp}
    if origin.host in own:
        _edit(turn, origin, sender.outside.host, "sdp-origin", "o=", "RFC 8866, section 5.2")


def _edit(turn: Turn, where: Connection, host: str, rule: str, header: str, rfc: str) -> None:
    _replace(turn, (where.start, where.end), host, rule, header, rfc)


def _replace(turn: Turn, span: tuple[int, int], text: str, rule: str, header: str, rfc: str) -> None:
    old = turn.message.raw[span[0]:span[1]].decode("latin-1")
    if old != text:
        note = Note(rule, header, old, text, "media is sent here", rfc)
        turn.edits.replace(span[0], span[1], text.encode(), note)


def _is_active(target: Target) -> bool:
    return target.media.port not in (0, DISCARD_PORT)
