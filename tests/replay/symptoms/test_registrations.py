"""D07, D08, D09, D32: what shows them, and what looks like them and is none."""

from __future__ import annotations

import time

import pytest

from natfix.address import Endpoint
from natfix.replay.diagnosis import CAPTURE, CONVERSATION
from natfix.replay.model import Finding, Fixed, Severity, Vantage
from natfix.replay.symptoms import registrations
from tests.replay.sip import OTHER_PHONE, PHONE, PROVIDER, request, response
from tests.replay.symptoms.capture import EXT, GATEWAY, Capture, check

OTHER_EXT = Endpoint(GATEWAY, 40777)
OLD = Endpoint("203.0.113.200", 40625)
COUNT = 1000
SLOWEST = 4.0       # seconds; some 0.1 alone
ALICE = f"sip:alice@{PHONE}"


def found(capture: Capture, after: float = 1.0) -> list[Finding]:
    """Return what this module's rules find, *after* seconds behind the last message; each is whole."""
    capture.context.end = capture.time + after
    conversations = capture.conversations()
    findings = [finding for each in conversations for rule in registrations.CONVERSATION
                for finding in rule(each, capture.context)]
    findings += [finding for rule in registrations.CAPTURE for finding in rule(capture.context)]
    for finding in findings:
        check(finding)
    return findings


def codes(capture: Capture, after: float = 1.0) -> list[str]:
    return [finding.code for finding in found(capture, after)]


def register(capture: Capture, cseq: int = 1, ext: Endpoint = EXT, after: float = 0.05, expires: int = 3600,
             contact: str = "", status: int = 200, call_id: str = "r", phone: Endpoint = PHONE,
             listed: tuple[Endpoint, ...] = (), told: object = None) -> None:
    """A phone registers, seen on the sides of the NAT that the capture shows."""
    names = {"call_id": call_id, "cseq": cseq, "branch": f"z9hG4bK{call_id}{cseq}"}
    ask = request("REGISTER", phone, told or phone, **names)        # type: ignore[arg-type]
    more = tuple(f"Contact: <sip:alice@{each}>;expires={expires}" for each in listed)
    answer = response(status, "REGISTER", phone, contact or f"sip:alice@{phone}", seen_as=ext, headers=more,
                      expires=expires, **names)                     # type: ignore[arg-type]
    vantage = capture.view.vantage
    if vantage is Vantage.BOTH:
        capture.out(ask, source=phone, ext=ext, after=after)
        capture.back(answer, destination=phone, ext=ext)
    elif vantage is Vantage.INSIDE:
        capture.sip(ask, phone, PROVIDER, after=after)
        capture.sip(answer, PROVIDER, phone)
    else:
        capture.sip(ask, ext, PROVIDER, after=after)
        capture.sip(answer, PROVIDER, ext)


def lost(capture: Capture, times: int = 5, after: float = 600.0, to: Endpoint = EXT, method: str = "INVITE",
         source: Endpoint = PROVIDER, file: str = "outside", call_id: str = "call") -> None:
    """The registrar's request comes to the outside of the NAT, and is sent again."""
    payload = request(method, PROVIDER, PROVIDER, call_id, uri=f"sip:alice@{to}")
    for number in range(times):
        capture.sip(payload, source, to, file, after if number == 0 else 0.5 * 2 ** number)


# -- D07


def test_called_when_the_nat_has_forgotten() -> None:
    """Registered, silent for ten minutes, called outside and not inside; later the phone lives on."""
    capture = Capture(Vantage.BOTH)
    register(capture)
    lost(capture)
    register(capture, 2)
    finding, = found(capture)
    assert (finding.code, finding.severity, finding.fixed_by_natfix) == ("D07", Severity.HURTS, Fixed.YES)
    assert "comes 600.1 s after the last packet of the UA" in finding.evidence
    assert "not seen inside" in finding.evidence


def test_port_unreachable_is_enough() -> None:
    """One request, answered by the gateway with ICMP port unreachable, in one file of both sides."""
    capture = Capture(Vantage.BOTH)
    register(capture)
    lost(capture, 1, file="")
    capture.icmp(GATEWAY, "port-unreachable", PROVIDER, EXT)
    finding, = found(capture)
    assert finding.code == "D07"
    assert f"{GATEWAY} answers with ICMP port unreachable" in finding.evidence


def test_seen_outside_only() -> None:
    """From outside: silence after ten minutes, and then the phone registers from another port."""
    capture = Capture(Vantage.OUTSIDE)
    register(capture)
    lost(capture, file="")
    register(capture, 2, OTHER_EXT)
    assert codes(capture) == ["D07"]


@pytest.mark.parametrize("method", ["OPTIONS", "NOTIFY", "MESSAGE"])
def test_other_requests_that_need_the_mapping(method: str) -> None:
    """Whatever the registrar sends to a mapping that is gone shows it."""
    capture = Capture(Vantage.BOTH)
    register(capture)
    lost(capture, method=method)
    register(capture, 2)
    assert codes(capture) == ["D07"]


def test_delivered_after_a_pause() -> None:
    """A call that comes inside after a pause is none, though the phone does not answer."""
    capture = Capture(Vantage.BOTH)
    register(capture)
    invite = request("INVITE", PROVIDER, PROVIDER, "call", uri=f"sip:alice@{EXT}")
    for number in range(5):
        capture.back(invite, after=600.0 if number == 0 else 2.0)
    register(capture, 2)
    assert codes(capture) == []


@pytest.mark.parametrize(("vantage", "times"), [(Vantage.BOTH, 2), (Vantage.OUTSIDE, 2)])
def test_few_transmissions(vantage: Vantage, times: int) -> None:
    """One retransmission is chance."""
    capture = Capture(vantage)
    register(capture)
    lost(capture, times)
    register(capture, 2)
    assert codes(capture) == []


def test_registration_had_run_out() -> None:
    """A call that comes after the registration has expired is the registrar's mistake."""
    capture = Capture(Vantage.BOTH)
    register(capture, expires=300)
    lost(capture)
    register(capture, 2)
    assert codes(capture) == []


def test_unregistered() -> None:
    """A phone that has taken its registration back is not to be called."""
    capture = Capture(Vantage.BOTH)
    register(capture)
    register(capture, 2, expires=0)
    lost(capture)
    register(capture, 3)
    assert codes(capture) == []


def test_stranger_is_not_let_in() -> None:
    """A NAT that keeps out whom nobody has asked does what it should."""
    capture = Capture(Vantage.BOTH)
    register(capture)
    lost(capture, source=Endpoint("198.51.100.66", 5060))
    register(capture, 2)
    assert codes(capture) == []


def test_phone_is_off() -> None:
    """Nothing was heard of the phone for long before the call, nor after it: it may be unplugged."""
    capture = Capture(Vantage.BOTH)
    register(capture)
    lost(capture)
    register(capture, 1, OTHER_EXT, call_id="other", phone=OTHER_PHONE)
    assert codes(capture) == []


def test_capture_inside_ended_earlier() -> None:
    """Two files, of which the one of the inside has nothing any more."""
    capture = Capture(Vantage.BOTH)
    register(capture)
    lost(capture, after=60.0)
    assert codes(capture) == []


def test_answered_at_last() -> None:
    """An INVITE that was sent again often, and then answered."""
    capture = Capture(Vantage.OUTSIDE)
    register(capture)
    lost(capture)
    capture.sip(response(180, via=PROVIDER, call_id="call"), EXT, PROVIDER)
    register(capture, 2)
    assert codes(capture) == []


# -- D08


@pytest.mark.parametrize("vantage", [Vantage.BOTH, Vantage.INSIDE, Vantage.OUTSIDE])
def test_another_port_each_time(vantage: Vantage) -> None:
    """Three REGISTERs within the life of the first come from three ports: by the wire, or by rport."""
    capture = Capture(vantage)
    for number in range(3):
        register(capture, number + 1, Endpoint(GATEWAY, 40000 + number), 120.0)
    finding, = found(capture)
    assert (finding.code, finding.severity, finding.fixed_by_natfix) == ("D08", Severity.HURTS, Fixed.YES)
    for number in range(3):
        assert f"from {GATEWAY}:{40000 + number} (packet " in finding.evidence


def test_both_places_are_listed() -> None:
    """One change is enough where the registrar then holds the old place and the new one."""
    capture = Capture()
    register(capture, 1, EXT, contact=f"sip:alice@{EXT}")
    register(capture, 2, OTHER_EXT, 120.0, contact=f"sip:alice@{EXT}", listed=(OTHER_EXT,))
    finding, = found(capture)
    assert finding.code == "D08"
    assert f"lists {EXT} and {OTHER_EXT} for the one UA" in finding.evidence


def test_same_port() -> None:
    """Refreshes from one port are as they should be."""
    capture = Capture()
    for number in range(4):
        register(capture, number + 1, EXT, 120.0)
    assert codes(capture) == []


def test_port_changed_once() -> None:
    """A restart of the gateway changes a port once."""
    capture = Capture()
    for number, ext in enumerate((EXT, EXT, OTHER_EXT, OTHER_EXT)):
        register(capture, number + 1, ext, 120.0)
    assert codes(capture) == []


def test_changed_after_expiry() -> None:
    """Nobody is called at a place whose registration has run out."""
    capture = Capture()
    for number in range(4):
        register(capture, number + 1, Endpoint(GATEWAY, 40000 + number), 120.0, expires=60)
    assert codes(capture) == []


def test_two_phones_with_one_name() -> None:
    """Two phones of one user, each at its own port, are listed side by side."""
    capture = Capture()
    for number in range(3):
        both = {"contact": f"sip:alice@{EXT}", "listed": (OTHER_EXT,)}
        register(capture, number + 1, EXT, 60.0, **both)            # type: ignore[arg-type]
        register(capture, number + 1, OTHER_EXT, 60.0, call_id="other", phone=OTHER_PHONE,
                 **both)                                            # type: ignore[arg-type]
    assert codes(capture) == []


def test_ua_that_chooses_its_port_anew() -> None:
    """A UA without NAT that names the new port itself."""
    capture = Capture(Vantage.OUTSIDE)
    for number in range(4):
        ext = Endpoint(GATEWAY, 40000 + number)
        register(capture, number + 1, ext, 120.0, told=ext)
    assert codes(capture) == []


def test_refused_registrations_are_no_places() -> None:
    """A challenge comes to any port; only what was stored can be stale."""
    capture = Capture()
    for number in range(4):
        register(capture, number + 1, Endpoint(GATEWAY, 40000 + number), 120.0, status=401)
    assert codes(capture) == []


# -- D09


def silent(capture: Capture, ext: Endpoint, times: int = 6, call_id: str = "r", phone: Endpoint = PHONE
           ) -> None:
    """REGISTER leaves as *ext*, again and again, and nothing returns."""
    payload = request("REGISTER", phone, phone, call_id, 7, branch="z9hG4bKstuck" + call_id)
    for _ in range(times):
        capture.out(payload, source=phone, ext=ext, after=4.0)


def test_leaves_with_the_private_source() -> None:
    """Behind the NAT the REGISTER still has the phone's own address; the stages tell what is behind."""
    capture = Capture(Vantage.BOTH)
    capture.context.stages = ("inside", "outside")
    silent(capture, PHONE)
    finding, = found(capture)
    assert (finding.code, finding.severity, finding.fixed_by_natfix) == ("D09", Severity.BREAKS, Fixed.YES)
    assert f"behind the NAT, it still has the source {PHONE}" in finding.evidence
    assert "--orig-src 192.168.1.10 --orig-port-src 5060" in finding.remedy


def test_private_source_where_others_were_translated() -> None:
    """That a point is behind the NAT is told by what was translated there before."""
    capture = Capture(Vantage.BOTH)
    register(capture, phone=OTHER_PHONE)
    silent(capture, PHONE, call_id="stuck")
    capture.context.behind = frozenset({("outside", "", None)})
    assert codes(capture) == ["D09"]


def test_two_points_of_the_inside() -> None:
    """A second point that shows no translation may well be inside too."""
    capture = Capture(Vantage.BOTH)
    silent(capture, PHONE)
    assert codes(capture) == []


def test_private_source_a_few_times() -> None:
    """A registrar that is late is not taken for a stuck connection."""
    capture = Capture(Vantage.BOTH)
    capture.context.stages = ("inside", "outside")
    silent(capture, PHONE, 3)
    assert codes(capture) == []


def test_leaves_with_the_old_address() -> None:
    """One phone leaves with the address that worked before; another's new one is answered."""
    capture = Capture(Vantage.BOTH)
    register(capture, 1, OLD)
    silent(capture, OLD)
    register(capture, 1, EXT, call_id="other", phone=OTHER_PHONE)
    finding, = found(capture)
    assert (finding.code, finding.severity) == ("D09", Severity.BREAKS)
    assert f"leaves as {OLD} 6 times" in finding.evidence
    assert f"{OTHER_PHONE} registers at the same registrar as {EXT}" in finding.evidence


def test_registrar_is_down() -> None:
    """Nobody is answered: that is not the NAT."""
    capture = Capture(Vantage.BOTH)
    register(capture, 1, OLD)
    silent(capture, OLD)
    silent(capture, EXT, 6, "other", OTHER_PHONE)
    assert codes(capture) == []


def test_two_links_that_both_work() -> None:
    """A gateway with two addresses: the one in question is answered for another phone."""
    capture = Capture(Vantage.BOTH)
    register(capture, 1, OLD)
    silent(capture, OLD)
    register(capture, 1, EXT, call_id="other", phone=OTHER_PHONE)
    register(capture, 1, Endpoint(OLD.host, 5099), call_id="third", phone=Endpoint("192.168.1.12", 5060))
    assert codes(capture) == []


def test_old_address_had_failed_before() -> None:
    """What was lost before the old address worked does not count, and does not hide what is stuck now."""
    capture = Capture(Vantage.BOTH)
    silent(capture, OLD, 2, "lost")
    register(capture, 1, OLD)
    silent(capture, OLD)
    register(capture, 1, EXT, call_id="other", phone=OTHER_PHONE)
    finding, = found(capture)
    assert f"leaves as {OLD} 6 times" in finding.evidence


# -- D32


def subscribe(capture: Capture, contact: object = PHONE, expires: int = 3600, status: int = 200) -> None:
    """A phone subscribes to its message lamp."""
    ask = request("SUBSCRIBE", contact=contact, call_id="s", headers=("Event: message-summary",))
    answer = response(status, "SUBSCRIBE", call_id="s", contact=f"sip:mwi@{PROVIDER}",
                      headers=(f"Expires: {expires}",))
    if capture.view.vantage is Vantage.BOTH:
        capture.out(ask)
        capture.back(answer)
    elif capture.view.vantage is Vantage.INSIDE:
        capture.sip(ask)
        capture.sip(answer, PROVIDER, PHONE)
    else:
        capture.sip(ask, EXT, PROVIDER)
        capture.sip(answer, PROVIDER, EXT)


def notify(capture: Capture, to: Endpoint = EXT, times: int = 5, **facts: object) -> None:
    """The server's NOTIFY, seen outside, again and again."""
    payload = request("NOTIFY", PROVIDER, PROVIDER, "s", uri=ALICE, branch="z9hG4bKn", to="<sip:b@c>;tag=x")
    for _ in range(times):
        capture.sip(payload, PROVIDER, to, after=2.0, **facts)      # type: ignore[arg-type]


def answered(capture: Capture, status: int = 200) -> None:
    capture.sip(response(status, "NOTIFY", PROVIDER, call_id="s", branch="z9hG4bKn"), EXT, PROVIDER)


def test_notify_goes_to_the_private_contact() -> None:
    """Outside, the NOTIFY is for the address that the SUBSCRIBE named."""
    capture = Capture(Vantage.OUTSIDE)
    subscribe(capture)
    notify(capture, PHONE)
    finding, = found(capture)
    assert (finding.code, finding.severity, finding.fixed_by_natfix) == ("D32", Severity.HURTS, Fixed.YES)
    assert f"SUBSCRIBE (packet 1) came from {EXT} with Contact {PHONE}" in finding.evidence


def test_notify_is_not_let_in() -> None:
    """The NOTIFY came to where the SUBSCRIBE had left from, and is not seen inside."""
    capture = Capture(Vantage.BOTH)
    subscribe(capture)
    notify(capture)
    finding, = found(capture)
    assert finding.code == "D32"
    assert "not let in" in finding.cause


@pytest.mark.parametrize("facts", [{"fragments": 2, "length": 1800}, {"length": 1501}])
def test_notify_is_too_large(facts: dict[str, int]) -> None:
    """A NOTIFY that takes several packets does not come inside."""
    capture = Capture(Vantage.BOTH)
    subscribe(capture)
    notify(capture, **facts)
    finding, = found(capture)
    assert (finding.code, finding.fixed_by_natfix) == ("D32", Fixed.PARTLY)
    assert "larger than a packet" in finding.cause


@pytest.mark.parametrize("status", [200, 481])
def test_notify_is_answered(status: int) -> None:
    """Whoever answers has been reached, whatever the Contact said."""
    for vantage in (Vantage.BOTH, Vantage.OUTSIDE):
        capture = Capture(vantage)
        subscribe(capture)
        notify(capture)
        answered(capture, status)
        assert codes(capture, 60.0) == []


def test_notify_once_more() -> None:
    """One retransmission is chance."""
    capture = Capture(Vantage.BOTH)
    subscribe(capture)
    notify(capture, times=2)
    assert codes(capture) == []


def test_no_notify_follows() -> None:
    """Accepted, with an inside Contact seen outside, and no NOTIFY within Timer N."""
    capture = Capture(Vantage.BOTH)
    subscribe(capture)
    finding, = found(capture, 60.0)
    assert (finding.code, finding.fixed_by_natfix) == ("D32", Fixed.YES)
    assert "No NOTIFY is seen in the 60 s that follow" in finding.evidence


def test_no_notify_follows_inside() -> None:
    """From inside the same is seen, and whether somebody translates behind it is not."""
    capture = Capture()
    subscribe(capture)
    finding, = found(capture, 60.0)
    assert (finding.code, finding.fixed_by_natfix) == ("D32", Fixed.PARTLY)
    assert "if nobody behind this point translates it" in finding.cause


@pytest.mark.parametrize(("kind", "after"), [
    ({}, 10.0), ({"expires": 0}, 60.0), ({"status": 489}, 60.0), ({"contact": EXT}, 60.0)])
def test_no_notify_is_due(kind: dict[str, object], after: float) -> None:
    """The capture ends too early, the subscription ends, is refused, or names a Contact that is right."""
    capture = Capture(Vantage.BOTH)
    subscribe(capture, **kind)      # type: ignore[arg-type]
    assert codes(capture, after) == []


def test_server_that_notifies_without_being_asked() -> None:
    """Where NOTIFYs come outside of the subscription, the lamp is lit by those."""
    capture = Capture()
    subscribe(capture)
    unasked = {"call_id": "own", "branch": "z9hG4bKown"}
    capture.sip(request("NOTIFY", PROVIDER, PROVIDER, uri=ALICE, **unasked), PROVIDER, PHONE)
    capture.sip(response(200, "NOTIFY", PROVIDER, **unasked), PHONE, PROVIDER)
    assert codes(capture, 60.0) == []


def test_behind_a_working_far_end_fix() -> None:
    """The server sends its NOTIFY to where the SUBSCRIBE came from, and the phone answers."""
    capture = Capture()
    subscribe(capture)
    notify(capture, PHONE, 1)
    capture.sip(response(200, "NOTIFY", PROVIDER, call_id="s", branch="z9hG4bKn"), PHONE, PROVIDER)
    assert codes(capture, 60.0) == []


def test_floods() -> None:
    """Thousands of phones, and requests that never arrive, are judged in seconds."""
    capture = Capture(Vantage.BOTH)
    for number in range(COUNT):
        phone = Endpoint("192.168.1.10", 10000 + number)
        register(capture, 1, Endpoint(GATEWAY, 20000 + number), call_id=f"r{number}", phone=phone)
    for number in range(COUNT // 2):
        payload = request("INVITE", PROVIDER, PROVIDER, "call", number + 1, branch=f"z9hG4bK{number}")
        for _ in range(5):
            capture.sip(payload, PROVIDER, Endpoint(GATEWAY, 9999), "outside", 0.5)
    silent(capture, PHONE, COUNT)
    capture.context.end = capture.time
    conversations = capture.conversations()
    began = time.perf_counter()
    findings = [finding for each in conversations for rule in registrations.CONVERSATION
                for finding in rule(each, capture.context)]
    findings += [finding for rule in registrations.CAPTURE for finding in rule(capture.context)]
    assert time.perf_counter() - began < SLOWEST
    assert findings == []


def test_rules_are_asked() -> None:
    """Every rule of this module is one of the diagnosis."""
    assert set(registrations.CONVERSATION) <= set(CONVERSATION)
    assert set(registrations.CAPTURE) <= set(CAPTURE)
