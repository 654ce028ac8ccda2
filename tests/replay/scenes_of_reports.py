"""Results for the tests of the report: broken by a SIP ALG, audio one way, healthy, hostile."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from natfix.address import Endpoint
from natfix.replay.model import (
    Context,
    Finding,
    Fixed,
    IcmpError,
    MediaKind,
    PacketId,
    Severity,
    Side,
    Sighting,
    Stream,
)
from natfix.replay.replay import Options, replay_reading
from natfix.replay.result import Result
from natfix.replay.work import Work
from tests.replay.sip import MAPPED, PHONE, PROVIDER, TO, audio, request, response, sighting
from tests.replay.small import START, call, reading_of

AUDIO = Endpoint(PHONE.host, 12000)
FAR_AUDIO = Endpoint("198.51.100.21", 40000)
EVIL = ('</code></pre></style></title></svg><script>window.hit=1</script><img src=x onerror=window.hit=1>'
        '<svg onload=window.hit=1><a href="javascript:window.hit=1">\'"&lt;{{7*7}}{%x%}')
TURNED = "\u202eABC\u2066\x00\x1b[31m\x9b"


def stream(source: Endpoint, destination: Endpoint, start: float, seconds: int, number: int = 6,
           side: Side = Side.INSIDE, gaps: Iterable[tuple[float, float]] = ()) -> Stream:
    """RTP at 50 packets per second, none in the gaps."""
    silent = {second for begin, end in gaps for second in range(int(begin - start) + 1, int(end - start))}
    bins = [0 if second in silent else 50 for second in range(seconds)]
    return Stream(
        MediaKind.RTP, "", side, source, destination, 1, {0}, start, start + seconds, PacketId(number),
        PacketId(number + sum(bins)), sum(bins), 172 * sum(bins), bins=bins, gaps=[*gaps])


def icmp(number: int = 90, time: float = START + 3) -> IcmpError:
    """The phone says that nobody listens where audio arrives."""
    return IcmpError((PacketId(number),), time, "", Side.INSIDE, PHONE.host, "port-unreachable", "udp",
                     PROVIDER, PHONE)


def one_way(call_id: str = "one-way") -> Result:
    """A call as captured inside: audio leaves, none comes; the phone was silent for a while."""
    gap = (START + 20.2, START + 31.4)
    outward = stream(AUDIO, FAR_AUDIO, START + 1.2, 58, gaps=[gap])
    result = result_of(call(call_id), [outward], [icmp()])
    result.findings = [Finding(
        "D01", Severity.BREAKS, "the SDP asks a public peer to send audio to 192.168.1.10:12000", call_id,
        (PacketId(1), PacketId(3), PacketId(6)), "packet 1: c=IN IP4 192.168.1.10, m=audio 12000",
        "Nobody translated the SDP on its way out.", "the gateway, from inside to outside",
        "Switch the ALG on, or put natfix there: `natfix run`", Fixed.YES, START)]
    return result


def result_of(
    sightings: Iterable[Sighting], streams: Iterable[Stream] = (), errors: Iterable[IcmpError] = (),
) -> Result:
    """Replay sightings with media."""
    reading = reading_of(sightings)
    reading.streams += streams
    reading.errors += errors
    return replay_reading(Options(()), reading, Work())


def healthy() -> Result:
    """A call with audio both ways; whatever the rules say of it is left out."""
    result = result_of(call("healthy"), [stream(AUDIO, FAR_AUDIO, START + 1.2, 58),
                                         stream(FAR_AUDIO, AUDIO, START + 1.0, 58, 7)])
    result.findings = []
    return result


def broken_by_alg() -> Result:
    """The same call on both sides of a gateway whose ALG translates Contact and not the SDP's port."""
    sightings = []
    for inner in call("alg"):
        number = 2 * inner.packet.number
        is_outward = inner.source == PHONE
        payload = _through_alg(inner.payload) if is_outward else inner.payload
        outer = sighting(
            payload, MAPPED if is_outward else PROVIDER, PROVIDER if is_outward else MAPPED,
            inner.time + (0.002 if is_outward else -0.002), number, interface="outside")
        inner = replace(inner, packets=(PacketId(number + 1),), interface="inside")
        sightings += [inner, outer] if is_outward else [outer, inner]
    result = result_of(sightings)
    result.findings = [Finding(
        "D13", Severity.BREAKS, "a SIP ALG translates half of the message", "alg", (PacketId(2), PacketId(3)),
        "the SDP names 203.0.113.1:12000, the NAT shows the phone as 203.0.113.1:40625",
        "The ALG changes c= and leaves m= as it is.", "the gateway", "ip nat service: switch the ALG off\n"
        "no ip nat service sip udp port 5060", Fixed.YES, START)]
    return result


def _through_alg(payload: bytes) -> bytes:
    head, _, body = payload.partition(b"\r\n\r\n")
    head = head.replace(b"alice@192.168.1.10:5060", b"alice@203.0.113.1:40625")
    shown = body.replace(b"IP4 192.168.1.10", b"IP4 203.0.113.1")
    head = head.replace(f"Length: {len(body)}".encode(), f"Length: {len(shown)}".encode())
    return head + b"\r\n\r\n" + shown


def hostile() -> Result:
    """HTML, scripts, NULs and marks that turn text around, wherever a capture can have them."""
    evil = f"{EVIL}{TURNED}"
    headers = (f"User-Agent: {evil}", f"Subject: {evil}", f"X-{EVIL}: {evil}", f"Warning: 399 x \"{evil}\"")
    ids = f"1{EVIL}"
    sdp = audio(AUDIO).replace("s=-", f"s={evil}") + f"a={evil}\r\n"
    invite = request(call_id=ids, headers=headers, sdp=sdp, to=f"\"{EVIL}\" {TO}")
    answer = response(call_id=ids, headers=(f"Server: {evil}", *headers), seen_as=MAPPED,
                      to=f"\"{EVIL}\" {TO};tag=b", contact=f"sip:bob@{PROVIDER};x=\"{EVIL}\"", sdp=sdp)
    answer = answer.replace(b"200 Reason", f"200 {evil}".encode())
    odd = request("XODD", call_id=ids, branch="z9hG4bKodd", cseq=2)
    result = result_of(
        [sighting(invite, PHONE, PROVIDER, START, 1, interface=EVIL),
         sighting(answer, PROVIDER, PHONE, START + 1, 2, interface=EVIL),
         sighting(odd, PHONE, PROVIDER, START + 2, 3)],
        [stream(AUDIO, FAR_AUDIO, START + 1, 9)], [replace(icmp(), code=EVIL, sender=EVIL)])
    result.input = {**result.input, "files": [
        {**each, "name": f"{EVIL}{TURNED}", "format": EVIL} for each in result.input["files"]]}
    result.findings = [
        Finding(EVIL, Severity.BREAKS, evil, each, (PacketId(1), PacketId(9, EVIL)), evil, evil, evil,
                f"`{evil}` {evil}", Fixed.NO) for each in (ids, EVIL, "")]
    result.warnings = [evil]
    result.network.guesses.append(evil)
    result.network.outside = result.network.outside or EVIL
    result.mappings.append({"inside": evil, "outside": evil, "kind": evil, "holder": evil, "since": START,
                            "until": None})
    return result


def records(sightings: Iterable[Sighting]) -> Result:
    """Packets of which only headers are known."""
    result = result_of(sightings)
    assert isinstance(result.context, Context)
    return result
