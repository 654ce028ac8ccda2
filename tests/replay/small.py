"""A small replay for the tests of the outputs: sightings in, a result out, without a capture file."""

from __future__ import annotations

from collections.abc import Iterable

from natfix.address import Endpoint
from natfix.replay.model import Finding, Fixed, PacketId, Severity, Sighting
from natfix.replay.reading import Reading
from natfix.replay.replay import Options, replay_reading
from natfix.replay.result import Result
from natfix.replay.work import Work
from tests.replay.sip import MAPPED, PHONE, PROVIDER, TO, audio, request, response, sighting

START = 1_700_000_000.0
FILE = {"name": "call.pcap", "format": "pcap", "packets": 12, "sip": 5, "media": 0, "start": START,
        "end": START + 64, "link_types": ["Ethernet"], "interfaces": [], "cut": 0, "truncated": False,
        "problem": "", "left_out": {}}


def reading_of(sightings: Iterable[Sighting]) -> Reading:
    """Return what pass 1 would have left of these."""
    reading = Reading(files=[FILE])
    for each in sightings:
        reading.take(each)
    return reading


def result_of(*sightings: Sighting, options: Options | None = None, work: Work | None = None) -> Result:
    """Replay *sightings*."""
    return replay_reading(options or Options(()), reading_of(sightings), work or Work())


def call(call_id: str = "1", start: float = START, number: int = 1) -> list[Sighting]:
    """A call as captured inside of a plain NAT: INVITE (twice), 200, ACK, BYE from the provider."""
    branch, tagged = f"z9hG4bK{call_id}", TO + ";tag=b"
    invite = request(call_id=call_id, branch=branch, sdp=audio(Endpoint(PHONE.host, 12000)))
    answer = response(
        call_id=call_id, branch=branch, seen_as=MAPPED, contact="sip:bob@198.51.100.20:5060",
        sdp=audio(Endpoint("198.51.100.21", 40000)))
    ack = request("ACK", call_id=call_id, branch=branch + "a", to=tagged, contact="")
    bye = request("BYE", via=PROVIDER, call_id=call_id, branch=branch + "b", contact="", cseq=2,
                  uri="sip:alice@192.168.1.10:5060", to=tagged)
    steps = ((invite, PHONE, PROVIDER, 0.0), (invite, PHONE, PROVIDER, 0.5), (answer, PROVIDER, PHONE, 1.0),
             (ack, PHONE, PROVIDER, 1.1), (bye, PROVIDER, PHONE, 60.0))
    return [sighting(payload, source, destination, start + time, number + place)
            for place, (payload, source, destination, time) in enumerate(steps)]


def finding(call_id: str = "1", code: str = "D01", title: str = "One-way audio", **fields: object) -> Finding:
    """A finding, as a rule would yield it."""
    known: dict[str, object] = {
        "evidence": "packet 1: c=IN IP4 192.168.1.10", "cause": "nobody translates the SDP",
        "where": "the NAT", "remedy": "put natfix there", "fixed_by_natfix": Fixed.YES, "time": START}
    return Finding(code, Severity.BREAKS, title, call_id, (PacketId(1), PacketId(3)),
                   **{**known, **fields})       # type: ignore[arg-type]
