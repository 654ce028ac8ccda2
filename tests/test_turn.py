"""A message's turn."""

from natfix.edits import Edits
from natfix.packet import packet_from_bytes
from natfix.sip.message import message_from_bytes
from natfix.turn import Turn
from tests.datagram import Datagram, packet_bytes
from tests.playbook import PHONE, PROVIDER

OPTIONS = (
    b"OPTIONS sip:x SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@x>;tag=1\r\n"
    b"To: <sip:b@x>\r\nCall-ID: c\r\nCSeq: 1 OPTIONS\r\n\r\n"
)


def test_leaving_alone_is_a_note_that_changes_nothing() -> None:
    """Why something was left alone is told in the same words as an edit, old and new being equal."""
    packet = packet_from_bytes(packet_bytes(Datagram(PHONE, PROVIDER, OPTIONS)))
    turn = Turn(packet, message_from_bytes(OPTIONS), Edits(OPTIONS), 0.0, None, None)
    turn.leave("sdp-refused", "m=audio", "loopback", "127.0.0.1:4000")
    assert not turn.notes[0].is_edit
    assert turn.notes[0].old == "127.0.0.1:4000"
    assert not turn.edits
