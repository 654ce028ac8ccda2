"""What holds for messages that cross the gateway where :class:`tests.scenarios.checks.Wiretap` asks too
much: some lines are left alone on purpose, some phones see each other as the gateway shows them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.agent import Sip
from tests.lab.pcap import Datagram, sip_messages
from tests.lab.programs import Capture
from tests.lab.topology import GATEWAY_ADDRESS, INSIDE, OUTSIDE

if TYPE_CHECKING:
    from tests.lab.gateway import Natfix
    from tests.lab.lab import Lab

INSIDE_ADDRESS = re.compile(r"192\.168\.\d+\.\d+")
OWN_ADDRESS = re.compile(re.escape(GATEWAY_ADDRESS) + r"(?!\d)")
SHOWN_LINES = ("c=", "o=", "a=rtcp:")       # SDP lines that name the sender's own host


class Crossing:
    """SIP messages on both sides of the gateway, captured until :meth:`stop`."""

    def __init__(self, lab: Lab, inside: str = INSIDE, ports: str = "udp port 5060") -> None:
        self._captures = [lab.start(Capture("gateway", side, ports)) for side in (inside, OUTSIDE)]
        self._addresses = {link.address for host in lab.hosts.values() for link in host.row.links
                           if link.address.startswith("192.168.")}
        self.inside: list[Datagram] = []
        self.outside: list[Datagram] = []

    def stop(self) -> Crossing:
        """End the captures and read them."""
        self.inside, self.outside = (sip_messages(capture.stop()) for capture in self._captures)
        return self

    def went_out(self) -> list[Sip]:
        """Return what left the gateway, as the outside saw it."""
        return [Sip(each.payload) for each in self.outside if each.source[0] == GATEWAY_ADDRESS]

    def came_in(self) -> list[tuple[str, Sip]]:
        """Return what inside hosts received from outside, as they saw it, each with the host's address."""
        return [(each.destination[0], Sip(each.payload)) for each in self.inside
                if not each.source[0].startswith("192.168.") and each.destination[0] in self._addresses]

    def written_inside(self) -> list[Sip]:
        """Return what inside hosts sent, as they wrote it."""
        return [Sip(each.payload) for each in self.inside if each.source[0] in self._addresses]

    def assert_right(self, left_alone: tuple[str, ...] = (), between_inside: bool = False,
                     host: str = "") -> None:
        """Fail where a message outside names an inside address in Via, Contact or SDP, or where one that
        came in (to *host* only) tells its receiver that there is NAT.

        *left_alone* are lines ("c=", "Contact:") that natfix is not to change in this scenario. Where both
        phones are inside, each may see the other as the gateway shows it.
        """
        came_in = [message for to, message in self.came_in() if host in ("", to)]
        assert self.went_out(), "nothing went out"
        assert came_in, "nothing came in"
        for message in self.went_out():
            assert_shown(message, left_alone)
        for message in came_in:
            assert_inverse(message, self.written_inside(), of_others=between_inside)


def assert_shown(message: Sip, left_alone: tuple[str, ...] = ()) -> None:
    """Fail where the inside shows in what a gateway let out: topmost Via, Contact, o=, c= or a=rtcp."""
    lines = [f"Contact: {value}" for value in message.all("contact")]
    lines += [f"Via: {value}" for value in message.all("via")[:1] if message.is_request]
    if message["content-type"].startswith(("application/sdp", "multipart/")):
        lines += [line for line in message.body.decode(errors="replace").splitlines()
                  if line.startswith(SHOWN_LINES)]
    for line in lines:
        assert line.startswith(left_alone) or not INSIDE_ADDRESS.search(line), \
            f"{line!r} outside, in {message.start!r}"


def assert_inverse(message: Sip, written: list[Sip], of_others: bool = False) -> None:
    """Fail where *message* names to an inside UA anything of itself that it has not *written* so."""
    text = message.payload.decode(errors="replace")
    # ICE tells a UA its outside endpoint by itself (RFC 8445, section 7.2.5.3.1), and it works with that.
    told = "\n".join(line for line in text.splitlines() if not line.startswith("a=remote-candidates:"))
    assert of_others or not OWN_ADDRESS.search(told), f"the gateway shows inside:\n{text}"
    if message.is_request:
        contacts = {_address(value) for each in written for value in each.all("contact")}
        assert _plain_uri(message.uri) in contacts, f"{message.start!r} is not for any of {contacts}"
        return
    requests = [each for each in written if each.is_request and each.branch == message.branch]
    assert requests, f"no request was sent with the Via of\n{text}"
    request = requests[-1]
    assert _sent_by(message) == _sent_by(request), f"{message['via']} answers {request['via']}"
    assert message["from"] == request["from"]
    assert _address(message["to"]) == _address(request["to"])


def notes_of(natfix: Natfix, call_id: str) -> list[dict[str, str]]:
    """Return what natfix noted of the messages of one call."""
    return [note for decision in natfix.request("notes")["decisions"] if decision.get("call_id") == call_id
            for note in decision["notes"]]


def _address(value: str) -> str:
    """The URI of a header's value, without display name and parameters."""
    found = re.search(r"<([^>]*)>", value)
    return _plain_uri(found[1] if found else value)


def _plain_uri(uri: str) -> str:
    return uri.partition(";")[0].strip()


def _sent_by(message: Sip) -> str:
    return message["via"].partition(";")[0]
