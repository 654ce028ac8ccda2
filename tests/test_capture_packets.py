"""The packets of a capture: right headers, the reasons, no secrets."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from scapy.layers.inet import IP, TCP, UDP

from natfix.capture_packets import AFTER, BEFORE, MSS, Packets

INVITE = b"INVITE sip:b@c SIP/2.0\r\nAuthorization: Digest username=\"a\", response=\"s3cret\"\r\n\r\n"
NOTES = [{"rule": "via", "header": "Via", "old": "10.0.0.1:5060", "new": "203.0.113.1:5060",
          "reason": "responses are sent here", "rfc": "RFC 3261, section 18.1.1"},
         {"rule": "record-route", "header": "Record-Route", "old": "x", "new": "x", "reason": "not ours"}]


def row(
    octets: bytes = INVITE, shown: bytes | None = None, protocol: int = 17, **more: Any,
) -> dict[str, Any]:
    """Return what the daemon pushes."""
    found = {
        "at": 1.0, "where": "forward lan0 wan0", "verdict": "accept", "protocol": protocol, "notes": NOTES,
        "source": ["10.0.0.1", 5060], "destination": ["198.51.100.2", 5060], "octets": text(octets),
        "shown_source": ["203.0.113.1", 5060], "shown_destination": ["198.51.100.2", 5060], **more}
    return found if shown is None else found | {"shown_octets": text(shown)}


def text(octets: bytes) -> str:
    return b64encode(octets).decode()


def test_both_sides() -> None:
    """Before and after are whole IP packets with right checksums and one identification, a hop apart."""
    before, after = Packets().of(row(shown=INVITE.replace(b"b@c", b"b@ccc")))
    assert (before.interface, after.interface) == (BEFORE, AFTER)
    first, second = IP(before.data), IP(after.data)
    for packet in (first, second):
        whole = bytes(packet)
        del packet.chksum, packet.len, packet[UDP].chksum, packet[UDP].len
        assert bytes(IP(bytes(packet))) == whole
    assert (first.src, second.src, first.ttl - second.ttl) == ("10.0.0.1", "203.0.113.1", 1)
    assert first.id == second.id != 0


def test_reasons() -> None:
    """Before has what became of it and what was left alone, after has each change with rule and RFC."""
    before, after = Packets().of(row(shown=b"SIP/2.0 200 OK\r\n\r\n"))
    assert before.comment.splitlines() == [
        "natfix: 1 edit (forward lan0 wan0)", "mapping: 10.0.0.1:5060 -> 203.0.113.1:5060",
        "record-route: not ours"]
    assert after.comment == ("- Via: 10.0.0.1:5060\n+ Via: 203.0.113.1:5060    via (responses are sent here; "
                             "RFC 3261, section 18.1.1)")


def test_dropped_and_own() -> None:
    """What was dropped has no other side, what natfix sent by itself has no first one; both say so."""
    dropped = row(verdict="drop")
    del dropped["shown_source"], dropped["shown_destination"]
    only, = Packets().of(dropped)
    assert (only.interface, only.comment.splitlines()[0]) == (BEFORE, "natfix: DROPPED (forward lan0 wan0)")
    own = row(shown=INVITE, verdict="own")
    del own["source"], own["destination"], own["octets"]
    only, = Packets().of(own)
    assert (only.interface, only.comment.splitlines()[0]) == (AFTER, "natfix: its own packet")


def test_secrets() -> None:
    """Secrets are crossed out in packets and comments, at the same length, unless they are asked for."""
    summary = [{"rule": "x", "old": "", "new": "", "reason": "left alone: sip:a:s3cret@b"}]
    before, after = Packets().of(row(notes=summary))
    assert b"s3cret" not in before.data + after.data
    assert "s3cret" not in before.comment + after.comment
    kept, _ = Packets(with_secrets=True).of(row(notes=summary))
    assert b"s3cret" in kept.data
    assert len(kept.data) == len(before.data)


def test_streams_fit_together() -> None:
    """Each side of a TCP connection counts its octets on, and acknowledges the other's; what no packet can
    hold comes as several."""
    packets = Packets()
    long = INVITE + bytes(MSS)
    out = [each for _ in range(2) for each in packets.of(row(INVITE, INVITE + b"12", protocol=6))]
    back = next(iter(packets.of(row(
        long, protocol=6, source=["198.51.100.2", 5060], destination=["10.0.0.1", 5060]))))
    numbers = [IP(each.data)[TCP].seq for each in out]
    assert numbers == [1, 1, 1 + len(INVITE), 1 + len(INVITE) + 2]
    assert IP(back.data)[TCP].ack == 1 + 2 * len(INVITE)
    assert len(list(packets.of(row(long, protocol=6)))) == 4
