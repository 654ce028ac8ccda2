"""Who has no business here: D34, scanners and requests for holes that no call needs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from natfix.document import Document, Form, document_from_file
from natfix.expect import text
from natfix.replay.model import (
    Context,
    Conversation,
    Direction,
    Finding,
    Fixed,
    Passage,
    Severity,
    Side,
    Sighting,
    Visitor,
)
from natfix.replay.products import shorten
from natfix.replay.symptoms.reading import contact_uris, numbers, place, sdp_of, status_line, unique
from natfix.shipped import shipped
from natfix.sip.message import Message

FEWEST_USERS = 5        # a stranger that asks for so many, and reaches nobody, is searching
FEWEST_REQUESTS = 10
REJECTED = (401, 403, 404, 407)
ASKING = ("INVITE", "REGISTER", "OPTIONS", "SUBSCRIBE", "MESSAGE")
# What listens there is no phone: a hole to it is what NAT slipstreaming wants.
SERVICES = frozenset({
    20, 21, 22, 23, 25, 53, 80, 88, 110, 111, 135, 137, 138, 139, 143, 389, 443, 445, 515, 548, 587, 631, 636,
    873, 993, 995, 1433, 1521, 2049, 3306, 3389, 5432, 5900, 6379, 8080, 8443, 9100, 11211, 27017})
DISCARD = 9             # RFC 8840: the address comes later

REMEDY = (
    "Accept SIP from your providers' addresses only (natfix: [[peer]]; else a rule of the firewall), limit "
    "the rate of requests, use long passwords, and let anonymous calls reach nothing that costs money.")


class Scanner(NamedTuple):
    """A program that looks for PBXs."""

    user_agent: str     # how it begins
    source: str


FORM = Form(
    expectations={
        "user_agent": text("how a User-Agent begins, at least 4 characters",
                           lambda value: len(value) >= 4 and value.isprintable()),
        "source": text("where that is written", bool),
    },
    required=frozenset({"user_agent", "source"}),
)


@cache
def scanners() -> tuple[Scanner, ...]:
    """Return the scanners that come with natfix."""
    return scanners_from_file(shipped("rules", "scanners.toml"))


def scanners_from_file(path: Path | str) -> tuple[Scanner, ...]:
    """Return a file's scanners; raises ConfigError with one line for each fault in it."""
    return scanners_from_document(document_from_file(path, "scanners file"))


def scanners_from_document(document: Document) -> tuple[Scanner, ...]:
    """Return a document's scanners; raises as above."""
    homes = dict.fromkeys(FORM.expectations, "[[scanner]]")
    document.read_table((), Form({}, tables=("scanner",), homes=homes))
    entries = document.data.get("scanner", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        document.complain(("scanner",), "scanner must be a table: write [[scanner]] on a line of its own")
        entries = []
    rows = [document.read_table(("scanner", index), FORM) for index in range(len(entries))]
    document.refuse_if_wrong()
    return tuple(Scanner(**row) for row in rows)


def scanner_named(user_agent: str) -> Scanner | None:
    """Return the scanner that calls itself *user_agent*, None where none does."""
    name = user_agent.strip().lower()
    return next((each for each in scanners() if name.startswith(each.user_agent.lower())), None)


# -- visitors


def strangers(ctx: Context) -> Iterator[Finding]:
    """D34: a known scanner, or an unknown host that asks for many users and reaches none."""
    for visitor in ctx.visitors.values():
        asked = sum(visitor.requests.get(method, 0) for method in ASKING)
        scanner = scanner_named(visitor.user_agent)
        # Without an inside this is a server's own capture: who asks it for many users may be a customer.
        is_searching = bool(ctx.network.inside) and _is_searching(visitor, asked)
        if asked and (scanner is not None or is_searching):
            yield _visited(visitor, scanner, asked)


def _is_searching(visitor: Visitor, asked: int) -> bool:
    rejected = sum(visitor.answers.get(status, 0) for status in REJECTED)
    probes = asked - visitor.requests.get("INVITE", 0)
    reached = sum(count for status, count in visitor.answers.items() if 200 <= status < 300)
    talked = reached > visitor.requests.get("OPTIONS", 0)
    # A provider's calls may all fail, too, for the very reasons that this capture was taken for.
    many = max(probes, rejected) >= FEWEST_REQUESTS and len(visitor.users) >= FEWEST_USERS
    return many and visitor.side is Side.OUTSIDE and not visitor.is_known and not talked


def _visited(visitor: Visitor, scanner: Scanner | None, asked: int) -> Finding:
    got_in = any(200 <= status < 300 for status in visitor.answers) and bool(
        visitor.requests.get("INVITE") or visitor.requests.get("REGISTER"))
    methods = ", ".join(f"{count} {method}" for method, count in visitor.requests.items())
    answers = ", ".join(f"{_times(count)} {status}" for status, count in sorted(visitor.answers.items()))
    users = list(visitor.users)
    name = f" It calls itself {shorten(visitor.user_agent, 60)}" if visitor.user_agent else ""
    listed = f", which natfix knows as a scanner ({scanner.source})." if scanner else "." if name else ""
    shown = ", ".join(shorten(user, 30) for user in users[:4])
    whom = f" for {len(users)} users ({shown})" if len(users) > 1 else f" for {shown}" if users else ""
    packets = unique((visitor.first_packet, *visitor.users.values(), visitor.last_packet), 12)
    is_stranger = visitor.side is Side.OUTSIDE and not visitor.is_known
    unasked = ", and nobody here had asked it anything" if is_stranger else ""
    where = f"{visitor.side}, at {visitor.host}" if visitor.side is not Side.UNKNOWN else f"at {visitor.host}"
    return Finding(
        "D34", Severity.HURTS if got_in else Severity.WARNS, f"{visitor.host} scans: {methods}", "", packets,
        f"{visitor.host} sent {methods}{whom}, from packet {visitor.first_packet} on{unasked}.{name}{listed} "
        f"{'Answers: ' + answers if answers else 'Nobody answered'}.",
        "It looks for telephones and PBXs that take calls or registrations from anybody."
        + (" Some of its requests were accepted." if got_in else ""),
        where, REMEDY, Fixed.PARTLY, visitor.first_time)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


# -- holes


def hole_for_a_service(conversation: Conversation, ctx: Context) -> Iterator[Finding]:
    """D34: a message from inside asks an ALG for a hole to a service's port."""
    for passage in conversation.passages:
        message = passage.message
        if message is None or passage.repeats is not None or passage.direction is not Direction.OUTWARD:
            continue
        wanted = _wanted_hole(passage.first, message, ctx)
        if wanted:
            yield _hole(passage, message, wanted, conversation)
            return


def _wanted_hole(copy: Sighting, message: Message, ctx: Context) -> str:
    """Return what asks for the hole, in words; "" where nothing does."""
    session = sdp_of(message)
    for media in session.media if session is not None else ():
        host = media.effective.host if media.effective is not None else ""
        if 0 < media.port < 1024 and media.port != DISCARD and not media.candidates \
                and ctx.network.side_of(host) is Side.INSIDE:
            return f"m={media.kind} names port {media.port} of {host}"
    for uri in contact_uris(message):
        named = place(uri.hostport)
        is_web = "transport" in uri.params and message.raw[slice(*uri.params["transport"])].lower() in (
            b"ws", b"wss")
        if named.port in SERVICES and named != copy.source and not is_web \
                and ctx.network.side_of(named.host) is Side.INSIDE:
            return f"Contact names {named}"
    return ""


def _hole(passage: Passage, message: Message, wanted: str, conversation: Conversation) -> Finding:
    copy = passage.first
    return Finding(
        "D34", Severity.WARNS, f"{status_line(message)} asks for a hole to a service's port",
        conversation.call_id, passage.packets[:8],
        f"{numbers(passage.packets[:1]).capitalize()} from {copy.source} to {copy.destination}: {wanted}.",
        "A SIP ALG that believes this opens the port of a service to the outside. Web pages can make a "
        "browser "
        "send such a message (NAT slipstreaming).",
        f"inside, at {copy.source.host}",
        "Look what sent this from that host, and switch SIP ALGs off that open ports below 1024; natfix "
        "never does.",
        Fixed.YES, passage.time)


CONVERSATION = (hole_for_a_service,)
STATION = ()
CAPTURE = (strangers,)
