"""natfix.far_fix: what is changed in a message of a far UA and in what goes back to it, octet for octet."""

from __future__ import annotations

import pytest

from natfix.address import Endpoint
from natfix.config import FarEnd as Settings
from natfix.edits import Edits
from natfix.far_ends import FarEnds
from natfix.far_fix import FarFix
from natfix.packet import Packet
from natfix.sip.message import message_from_bytes
from natfix.turn import Turn

FAR, PBX = Endpoint("198.51.100.7", 41000), Endpoint("192.168.1.5", 5060)
HEAD = ("From: <sip:a@pbx.example>;tag=1\r\nTo: <sip:a@pbx.example>\r\nCall-ID: 1\r\nCSeq: 1 REGISTER\r\n")
REGISTER = "REGISTER sip:pbx.example SIP/2.0\r\nVia: {via}\r\n" + HEAD + "Contact: {contact}\r\n\r\n"
ANSWER = "SIP/2.0 200 OK\r\nVia: {via}\r\n" + HEAD + "Contact: {contact}\r\n\r\n"


class Bench:
    """The fix, and messages through it."""

    def __init__(self, settings: Settings = Settings()) -> None:     # noqa: B008 (immutable)
        self.ends = FarEnds(10)
        self.fix = FarFix(self.ends, settings)

    def inward(self, text: str) -> str:
        turn = self._turn(text, FAR, PBX)
        far = self.fix.sender_of(turn)
        if far is not None:
            self.fix.show(turn, far)
        return turn.edits.apply().decode()

    def outward(self, text: str) -> str:
        turn = self._turn(text, PBX, FAR)
        far = self.fix.receiver_of(turn)
        assert far is not None
        self.fix.restore(turn, far)
        return turn.edits.apply().decode()

    def _turn(self, text: str, source: Endpoint, destination: Endpoint) -> Turn:
        payload = text.encode()
        packet = Packet(b"", 20, source, destination, payload)
        return Turn(packet, message_from_bytes(payload), Edits(payload), 1.0, None, None)


@pytest.mark.parametrize(("via", "shown"), [
    ("SIP/2.0/UDP 10.0.0.5;branch=z9hG4bK1", "SIP/2.0/UDP 10.0.0.5;branch=z9hG4bK1;rport"),
    ("SIP/2.0/UDP 10.0.0.5;branch=z9hG4bK1 ", "SIP/2.0/UDP 10.0.0.5;branch=z9hG4bK1;rport "),
    ("SIP/2.0/UDP 10.0.0.5\r\n ;branch=z9hG4bK1", "SIP/2.0/UDP 10.0.0.5\r\n ;branch=z9hG4bK1;rport"),
    ("SIP/2.0/UDP 10.0.0.5;rport;branch=z9hG4bK1", "SIP/2.0/UDP 10.0.0.5;rport;branch=z9hG4bK1"),
    ("SIP/2.0/UDP 10.0.0.5", "SIP/2.0/UDP 10.0.0.5;rport"),
])
def test_rport(via: str, shown: str) -> None:
    """It is asked for at the end of the UA's own Via, unless the UA does so itself."""
    seen = Bench().inward(REGISTER.format(via=via, contact="<sip:a@10.0.0.5>"))
    assert seen == REGISTER.format(via=shown, contact=f"<sip:a@{FAR}>")


def test_there_and_back() -> None:
    """The answer names what the UA wrote, however it spelt it; parameters stay."""
    bench = Bench()
    contacts = ('"A; <x>" <sip:a@10.0.0.5;transport=udp>;q=0.5, <sip:b@10.0.0.5:5062>',
                f'"A; <x>" <sip:a@{FAR};transport=udp>;q=0.5, <sip:b@{FAR}>')
    bench.inward(REGISTER.format(via="SIP/2.0/UDP 10.0.0.5;branch=z9hG4bK1", contact=contacts[0]))
    via = f"SIP/2.0/UDP 10.0.0.5;branch=z9hG4bK1;rport={FAR.port};received={FAR.host}"
    answer = bench.outward(ANSWER.format(via=via, contact=contacts[1]))
    assert answer == ANSWER.format(via="SIP/2.0/UDP 10.0.0.5;branch=z9hG4bK1", contact=contacts[0])


def test_a_request_to_it() -> None:
    """The Request-URI is what the UA wrote; others' stay."""
    bench = Bench()
    bench.inward(REGISTER.format(via="SIP/2.0/UDP 10.0.0.5;branch=z9hG4bK1", contact="<sip:a@10.0.0.5>"))
    options = "OPTIONS {} SIP/2.0\r\nVia: SIP/2.0/UDP 192.168.1.5;branch=z9hG4bK2\r\n" + HEAD.replace(
        "REGISTER", "OPTIONS") + "\r\n"
    assert bench.outward(options.format(f"sip:a@{FAR};x=y")) == options.format("sip:a@10.0.0.5;x=y")
    assert bench.outward(options.format("sip:a@198.51.100.9")) == options.format("sip:a@198.51.100.9")


def test_redirections_name_others() -> None:
    """The Contacts of a 3xx are where the caller shall try next, private or not."""
    bench = Bench()
    bench.inward(REGISTER.format(via="SIP/2.0/UDP 10.0.0.5;branch=z9hG4bK1", contact="<sip:a@10.0.0.5>"))
    moved = ANSWER.format(via="SIP/2.0/UDP 192.168.1.5;branch=z9hG4bK2",
                          contact="<sip:c@10.0.0.9>").replace("200 OK", "302 Moved")
    assert bench.inward(moved) == moved


@pytest.mark.parametrize("settings", [Settings("never"), Settings(signs=())])
def test_switched_off(settings: Settings) -> None:
    """Nothing is recognised, nothing is changed."""
    bench = Bench(settings)
    text = REGISTER.format(via="SIP/2.0/UDP 10.0.0.5;branch=z9hG4bK1", contact="<sip:a@10.0.0.5>")
    assert bench.inward(text) == text
    assert len(bench.ends) == 0


def test_a_contact_that_only_differs() -> None:
    """A public Contact that is not the source is changed only where the operator has chosen that sign."""
    text = REGISTER.format(via="SIP/2.0/UDP 203.0.113.9:5060;rport;branch=z9hG4bK1",
                           contact="<sip:a@203.0.113.9>, <sip:b@203.0.113.10>")
    assert Bench().inward(text) == text
    chosen = Bench(Settings(signs=("contact-differs-from-source",)))
    assert chosen.inward(text) == text.replace("a@203.0.113.9", f"a@{FAR}")


def test_nonsense_is_left_alone() -> None:
    """What cannot be read is not changed, and nothing is raised."""
    for text in (REGISTER.format(via="SIP/2.0/UDP [::1]:x", contact="<sip:a@10.0.0.5>"),
                 REGISTER.format(via="SIP/2.0/UDP 10.0.0.5;rport", contact="<sip:a@10.0.0.5:99999>")):
        assert Bench().inward(text) == text
