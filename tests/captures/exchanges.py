"""Registrations and calls of scripted ends, in a line each."""

from __future__ import annotations

import time

from tests.captures.ends import Heard, Ua, audio
from tests.lab.lab import Lab
from tests.lab.topology import GATEWAY_ADDRESS, PROVIDER_ADDRESS

PROVIDER = (PROVIDER_ADDRESS, 5060)
RELAY = "203.0.113.60"          # of media, outside: no address of the SDP then needs translation
BOB = "sip:bob@example.com"
WAITS = (0.5, 1.0, 2.0, 4.0)    # until UDP requests and 2xx are sent again (RFC 3261, T1 = 0.5 s)


def ends(lab: Lab) -> tuple[Ua, Ua]:
    """Return a phone inside, and its provider."""
    return Ua(lab, "phone1", "alice"), Ua(lab, "provider", "bob")


def call(phone: Ua, provider: Ua, offer: str = "", answer: str = "", *headers: str, call_id: str = "call"
         ) -> tuple[Heard, Heard]:
    """Place a call from inside; return the INVITE as the provider saw it, and the answer."""
    phone.send(phone.request("INVITE", BOB, call_id, sdp=offer or audio(RELAY)), PROVIDER)
    invite = provider.reply(200, *headers, sdp=answer or audio(PROVIDER_ADDRESS))
    ok = phone.hear()
    phone.send(phone.request("ACK", "sip:bob@203.0.113.50:5060", call_id, to=ok.header("To")), PROVIDER)
    provider.hear()
    return invite, ok


def hang_up(phone: Ua, provider: Ua, ok: Heard, call_id: str = "call", cseq: int = 2) -> None:
    """End a call from inside."""
    phone.send(phone.request("BYE", "sip:bob@203.0.113.50:5060", call_id, cseq, to=ok.header("To")), PROVIDER)
    provider.reply(200)
    phone.hear()


def again(ua: Ua, message: str, to: tuple[str, int], waits: tuple[float, ...] = WAITS) -> None:
    """Send, and send again, whatever comes."""
    ua.send(message, to)
    for wait in waits:
        time.sleep(wait)
        ua.send(message, to)


def called(phone: Ua, provider: Ua, place: tuple[str, int], sdp: str = "", call_id: str = "called"
           ) -> tuple[Heard, str]:
    """Call the phone at *place*; return the INVITE as it saw it, and its answer, not yet sent."""
    invite = provider.request("INVITE", f"sip:alice@{place[0]}:{place[1]}", call_id,
                              sdp=audio(PROVIDER_ADDRESS))
    provider.send(invite, place)
    heard = phone.hear()
    return heard, phone.answer(heard, 200, sdp=sdp or audio(RELAY))


def converse(phone: Ua, provider: Ua, latched: bool = False) -> None:
    """Both talk, one after the other; the provider to port 4000, or *latched*: to where audio comes from."""
    with provider.listening(4000) as media:
        phone.talk(4000, (PROVIDER_ADDRESS, 4000))
        place = media.recvfrom(999)[1] if latched else (GATEWAY_ADDRESS, 4000)
    with phone.listening(4000):
        provider.talk(4000, place)
