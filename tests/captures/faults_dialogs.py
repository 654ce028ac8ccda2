"""Faults of dialogs: D05, D06, D13, D26, D30, D31."""

from __future__ import annotations

import time

from tests.captures.ends import Ua, audio, meddler, register, short_memory, translate, via_of
from tests.captures.exchanges import BOB, PROVIDER, RELAY, WAITS, again, call, called, ends, hang_up
from tests.captures.faults import fault
from tests.lab.lab import Lab
from tests.lab.topology import PROVIDER_ADDRESS


@fault("d05-ack-to-private-contact",
       "a called phone answers with a private Contact: the ACK goes nowhere", "D05")
def _ack_lost(lab: Lab) -> None:
    phone, provider = ends(lab)
    place = register(phone, provider)
    heard, ok = called(phone, provider, place)
    phone.send(ok, heard.source)
    ack = provider.request("ACK", "sip:alice@192.168.1.10:5060", "called", to=provider.hear().header("To"))
    for wait in WAITS:
        provider.send(ack, (phone.address, 5060))       # as its Contact says
        time.sleep(wait)
        phone.send(ok, heard.source)
    bye = phone.request("BYE", "sip:bob@203.0.113.50:5060", "called", 1, 'Reason: SIP;cause=408',
                        to="<sip:bob@example.com>;tag=a", tag="b")
    provider.deaf()
    phone.send(bye, PROVIDER)
    provider.reply(200)
    phone.deaf()


@fault("d05-not-ack-comes-late", "as before, and the ACK comes with the second repetition: nothing is wrong")
def _ack_late(lab: Lab) -> None:
    phone, provider = ends(lab)
    place = register(phone, provider)
    heard, ok = called(phone, provider, place)
    again(phone, ok, heard.source, WAITS[:2])
    to = provider.hear().header("To")
    provider.send(provider.request("ACK", f"sip:alice@{place[0]}:{place[1]}", "called", to=to), place)
    provider.deaf()
    provider.send(provider.request("BYE", f"sip:alice@{place[0]}:{place[1]}", "called", 2, to=to), place)
    phone.hear()
    phone.reply(200)
    provider.deaf()


@fault("d06-bye-after-nat-timeout",
       "the NAT has forgotten the flow when the provider hangs up (timeouts: 1 s)", "D06")
def _bye_lost(lab: Lab) -> None:
    short_memory(lab)
    phone, provider = ends(lab)
    invite, _ = call(phone, provider)
    time.sleep(2.5)
    bye = provider.request("BYE", f"sip:alice@{invite.source[0]}:{invite.source[1]}", "call", 1,
                           to=f"{invite.header('From')}", tag="b")
    again(provider, bye, invite.source)


@fault("d13-private-record-route", "a proxy inside names itself in Record-Route", "D13")
def _private_record_route(lab: Lab) -> None:
    proxy, provider = Ua(lab, "pbx", "alice"), Ua(lab, "provider", "bob")
    proxy.send(proxy.request("INVITE", BOB, "call", 1, f"Record-Route: <sip:{proxy.address};lr>",
                             sdp=audio(RELAY)), PROVIDER)
    provider.reply(200, sdp=audio(PROVIDER_ADDRESS))
    ok = proxy.hear()
    proxy.send(proxy.request("ACK", "sip:bob@203.0.113.50:5060", "call", to=ok.header("To")), PROVIDER)
    provider.hear()
    time.sleep(0.5)
    hang_up(proxy, provider, ok)


@fault("d26-refresh-unanswered",
       "the session's refresh gets no answer, and the call ends (Session-Expires: 6)", "D26")
def _refresh(lab: Lab) -> None:
    phone, provider = ends(lab)
    _, ok = call(phone, provider, "", "", "Session-Expires: 6;refresher=uac", "Require: timer")
    time.sleep(3)
    update = phone.request("UPDATE", "sip:bob@203.0.113.50:5060", "call", 2, "Session-Expires: 6",
                           to=ok.header("To"))
    again(phone, update, PROVIDER, WAITS[:3])
    provider.deaf()
    hang_up(phone, provider, ok, cseq=3)


def _moved(lab: Lab, follows: bool) -> None:
    """The provider moves the dialog to another of its ports by re-INVITE; then the phone hangs up."""
    phone, provider = ends(lab)
    elsewhere = Ua(lab, "provider", "bob", 5070)
    invite, ok = call(phone, provider)
    provider.send(provider.request("INVITE", f"sip:alice@{invite.source[0]}:{invite.source[1]}", "call", 1,
                                   to=invite.header("From"), tag="b", contact=elsewhere.contact,
                                   sdp=audio(PROVIDER_ADDRESS, version=2)), invite.source)
    heard = phone.hear()
    phone.send(phone.answer(heard, 200, sdp=audio(RELAY, version=2)), heard.source)
    provider.hear()
    provider.send(provider.request("ACK", f"sip:alice@{invite.source[0]}:{invite.source[1]}", "call", 1,
                                   to=invite.header("From"), tag="b"), invite.source)
    phone.hear()
    time.sleep(0.5)
    port = 5070 if follows else 5060
    bye = phone.request("BYE", f"sip:bob@203.0.113.50:{port}", "call", 2, to=ok.header("To"))
    if follows:
        phone.send(bye, (PROVIDER_ADDRESS, port))
        elsewhere.reply(200)
        phone.hear()
    else:
        again(phone, bye, (PROVIDER_ADDRESS, port))


@fault("d30-old-contact-used",
       "the provider moves to port 5070 by re-INVITE, and BYE still goes to 5060", "D30")
def _not_followed(lab: Lab) -> None:
    _moved(lab, follows=False)


@fault("d30-not-old-contact", "the same, and BYE goes to the new port: nothing is wrong")
def _followed(lab: Lab) -> None:
    _moved(lab, follows=True)


def _transfer(lab: Lab, target: str, status: str) -> None:
    phone, provider = ends(lab)
    invite, ok = call(phone, provider)
    phone.send(phone.request("REFER", "sip:bob@203.0.113.50:5060", "call", 2, f"Refer-To: <{target}>",
                             "Referred-By: <sip:alice@example.com>", to=ok.header("To")), PROVIDER)
    provider.reply(202)
    phone.hear()
    time.sleep(0.5)
    provider.send(provider.request(
        "NOTIFY", f"sip:alice@{invite.source[0]}:{invite.source[1]}", "call", 1, "Event: refer",
        "Subscription-State: terminated;reason=noresource", to=invite.header("From"), tag="b",
        sdp=f"SIP/2.0 {status}\r\n").replace("application/sdp", "message/sipfrag"), invite.source)
    phone.reply(200)
    provider.hear()
    hang_up(phone, provider, ok, cseq=3)


@fault("d31-refer-to-private",
       "a transfer to a phone by its inside address: the provider reaches nobody", "D31")
def _transfer_lost(lab: Lab) -> None:
    _transfer(lab, "sip:carol@192.168.1.11:5060", "408 Request Timeout")


@fault("d31-not-refer-to-public", "a transfer to a number: nothing is wrong")
def _transfer_works(lab: Lab) -> None:
    _transfer(lab, "sip:carol@example.com", "200 OK")


@fault("d06-not-bye-sent-again", "the phone answers the second BYE: nothing is wrong")
def _bye_again(lab: Lab) -> None:
    phone, provider = ends(lab)
    invite, _ = call(phone, provider)
    bye = provider.request("BYE", f"sip:alice@{invite.source[0]}:{invite.source[1]}", "call", 1,
                           to=f"{invite.header('From')}", tag="b")
    again(provider, bye, invite.source, WAITS[:1])
    phone.hear()
    phone.reply(200)
    provider.hear()


@fault("d13-not-public-record-route", "a proxy inside; an ALG translates its Record-Route: nothing is wrong")
def _public_record_route(lab: Lab) -> None:
    proxy, provider = Ua(lab, "pbx", "alice"), Ua(lab, "provider", "bob")
    with meddler(lab, translate):
        proxy.send(proxy.request("INVITE", BOB, "call", 1, f"Record-Route: <sip:{proxy.address};lr>",
                                 sdp=audio(RELAY)), PROVIDER)
        provider.reply(200, sdp=audio(PROVIDER_ADDRESS))
        ok = proxy.hear()
        proxy.send(proxy.request("ACK", "sip:bob@203.0.113.50:5060", "call", to=ok.header("To")), PROVIDER)
        provider.hear()
        time.sleep(0.5)
        hang_up(proxy, provider, ok)


@fault("d26-not-refreshed", "the session's refresh is answered, and the call goes on: nothing is wrong")
def _refreshed(lab: Lab) -> None:
    phone, provider = ends(lab)
    _, ok = call(phone, provider, "", "", "Session-Expires: 6;refresher=uac", "Require: timer")
    for cseq in (2, 3):
        time.sleep(3)
        phone.send(phone.request("UPDATE", "sip:bob@203.0.113.50:5060", "call", cseq, "Session-Expires: 6",
                                 to=ok.header("To")), PROVIDER)
        provider.reply(200, "Session-Expires: 6;refresher=uac")
        phone.hear()
    hang_up(phone, provider, ok, cseq=4)


@fault("d05-not-given-up", "a caller that gives up: CANCEL, 487, and its ACK: nothing is wrong")
def _given_up(lab: Lab) -> None:
    phone, provider = ends(lab)
    invite = phone.request("INVITE", BOB, "call", sdp=audio(RELAY))
    phone.send(invite, PROVIDER)
    heard = provider.reply(180)
    phone.hear()
    via = via_of(invite)
    phone.send(phone.request("CANCEL", BOB, "call", via=via), PROVIDER)
    provider.reply(200)
    phone.hear()
    provider.send(provider.answer(heard, 487), heard.source)
    refusal = phone.hear()
    phone.send(phone.request("ACK", BOB, "call", to=refusal.header("To"), via=via), PROVIDER)
    provider.hear()


@fault("d31-not-private-and-done", "a transfer to an inside address that the provider knows how to reach")
def _transfer_done(lab: Lab) -> None:
    _transfer(lab, "sip:carol@192.168.1.11:5060", "200 OK")
