"""Faults of gateways and their ALGs: D11, D12, D14 to D16, D29."""

from __future__ import annotations

import re
import time

from tests.captures.ends import Ua, audio, counted, meddler, random_ports, register, rules, translate
from tests.captures.exchanges import BOB, PROVIDER, RELAY, WAITS, again, call, ends, hang_up
from tests.captures.faults import fault
from tests.lab.lab import Lab
from tests.lab.topology import GATEWAY_ADDRESS, PROVIDER_ADDRESS


@fault("d11-via-stays-rewritten", "an ALG rewrites the Via of a request, and not that of the response", "D11")
def _via(lab: Lab) -> None:
    def change(text: str, is_out: bool, inside: str) -> str:
        return text.replace(f"UDP {inside}", f"UDP {GATEWAY_ADDRESS}") if is_out else text
    phone, provider = ends(lab)
    with meddler(lab, change):
        message = phone.request("OPTIONS", BOB, "ping")
        phone.send(message, PROVIDER)
        provider.reply(200)
        again(phone, message, PROVIDER, WAITS[:2])
        provider.reply(200)
        provider.reply(200)
        phone.deaf()


@fault("d11-contact-mixed", "an ALG translates the Contact and not the SDP", "D01 D11")
def _mixed(lab: Lab) -> None:
    def change(text: str, is_out: bool, inside: str) -> str:
        head, blank, _ = translate(text, is_out, inside).partition("\r\n\r\n")
        return counted(head + blank + text.partition("\r\n\r\n")[2])
    phone, provider = ends(lab)
    with meddler(lab, change):
        _, ok = call(phone, provider, audio(phone.address))
        phone.talk(4000, (PROVIDER_ADDRESS, 4000))
        hang_up(phone, provider, ok)


@fault("d12-reply-to-another-port",
       "a gateway moves requests to port 17973 before its NAT, and forgets that for replies (Check Point)",
       "D12")
def _reply_elsewhere(lab: Lab) -> None:
    rules(lab, 'chain pre { type filter hook prerouting priority raw; '
               'iifname "inside" udp sport 5060 udp sport set 17973; }')
    phone, provider = ends(lab)
    message = phone.request("REGISTER", "sip:example.com", "registration", 1, "Expires: 3600",
                            to="<sip:alice@example.com>")
    again(phone, message, PROVIDER, WAITS[:1])
    for _ in range(2):
        heard = provider.hear()
        provider.send(provider.answer(heard, 200, f"Contact: {phone.contact};expires=3600"), heard.source)
        time.sleep(0.3)
    again(phone, message, PROVIDER, ())
    heard = provider.hear()
    provider.send(provider.answer(heard, 200, f"Contact: {phone.contact};expires=3600"), heard.source)


@fault("d12-not-symmetric-nat",
       "a NAT that takes a random port, and undoes it for the reply: nothing is wrong")
def _symmetric(lab: Lab) -> None:
    random_ports(lab)
    phone, provider = ends(lab)
    register(phone, provider)


@fault("d14-request-uri-changed",
       "an ALG changes the Request-URI, of which the digest was made: 401 for ever", "D14")
def _challenged(lab: Lab) -> None:
    def change(text: str, is_out: bool, inside: str) -> str:
        return text.replace("REGISTER sip:example.com ", "REGISTER sip:203.0.113.50 ") if is_out else text
    phone, provider = ends(lab)
    with meddler(lab, change):
        _authorize(phone, provider, 4, 401)


@fault("d14-not-two-challenges", "a stale nonce, asked for anew, and accepted: nothing is wrong")
def _challenged_twice(lab: Lab) -> None:
    phone, provider = ends(lab)
    _authorize(phone, provider, 3, 200)


def _authorize(phone: Ua, provider: Ua, attempts: int, last: int) -> None:
    for number in range(attempts):
        credentials = [f'Authorization: Digest username="alice", realm="example.com", nonce="{number}", '
                       f'uri="sip:example.com", response="{number:032x}", algorithm=MD5'] if number else []
        phone.send(phone.request("REGISTER", "sip:example.com", "registration", number + 1, "Expires: 3600",
                                 *credentials, to="<sip:alice@example.com>"), PROVIDER)
        is_last = number == attempts - 1
        stale = ", stale=true" if last == 200 and number else ""
        more = (f"Contact: {phone.contact};expires=3600" if is_last and last == 200 else
                f'WWW-Authenticate: Digest realm="example.com", nonce="{number + 1}"{stale}')
        provider.reply(last if is_last else 401, more)
        phone.hear()


@fault("d15-content-length-too-large", "an ALG shortens the body, and leaves Content-Length", "D15")
def _too_large(lab: Lab) -> None:
    def change(text: str, is_out: bool, inside: str) -> str:
        return text.replace("s=session\r\n", "s=-\r\n") if is_out else text
    phone, provider = ends(lab)
    with meddler(lab, change):
        message = phone.request("INVITE", BOB, "call", sdp=audio(RELAY).replace("s=-", "s=session"))
        phone.send(message, PROVIDER)
        invite = provider.hear()
        provider.send(provider.answer(invite, 400), invite.source)
        phone.hear()
        time.sleep(0.2)


@fault("d15-content-length-too-small", "an ALG makes the body longer, and leaves Content-Length", "D15")
def _too_small(lab: Lab) -> None:
    def change(text: str, is_out: bool, inside: str) -> str:
        return text.replace("s=-\r\n", "s=translated\r\n") if is_out else text
    phone, provider = ends(lab)
    with meddler(lab, change):
        _, ok = call(phone, provider)
        hang_up(phone, provider, ok)


@fault("d16-fragments-dropped",
       "a firewall drops fragments: a long INVITE never arrives, short ones do", "D16")
def _fragments(lab: Lab) -> None:
    rules(lab, 'chain early { type filter hook ingress device "inside" priority 0; '
               "ip frag-off & 0x1fff != 0 drop; }", family="netdev")
    phone, provider = ends(lab)
    register(phone, provider)
    again(phone, phone.request("INVITE", BOB, "call", sdp=_long()), PROVIDER)
    provider.deaf()


@fault("d16-not-fragments-arrive", "an INVITE in two fragments that arrives: nothing is wrong")
def _fragments_arrive(lab: Lab) -> None:
    phone, provider = ends(lab)
    register(phone, provider)
    _, ok = call(phone, provider, _long())
    hang_up(phone, provider, ok)


def _long() -> str:
    return audio(RELAY, 4000, *(f"a=x-codec-{number}:{'of no interest ' * 4}" for number in range(20)))


@fault("d29-sends-from-another-port",
       "a phone sends from 5062, listens at 5060, and knows nothing of rport", "D29")
def _asymmetric(lab: Lab) -> None:
    phone, provider = Ua(lab, "phone1", "alice", 5062), Ua(lab, "provider", "bob")
    phone.contact = "<sip:alice@192.168.1.10:5060>"
    message = phone.request("REGISTER", "sip:example.com", "registration", 1, "Expires: 3600",
                            to="<sip:alice@example.com>", via="192.168.1.10:5060")
    for wait in WAITS[:3]:
        phone.send(message, PROVIDER)
        provider.reply(200, f"Contact: {phone.contact};expires=3600")
        time.sleep(wait)


@fault("d11-not-via-restored", "an ALG rewrites Via, and undoes it in the response: nothing is wrong")
def _via_restored(lab: Lab) -> None:
    phone, provider = ends(lab)
    with meddler(lab, translate):
        register(phone, provider)
        phone.send(phone.request("OPTIONS", BOB, "ping"), PROVIDER)
        provider.reply(200)
        phone.hear()


@fault("d15-not-without-content-length", "an INVITE without Content-Length, as UDP allows: nothing is wrong")
def _no_length(lab: Lab) -> None:
    phone, provider = ends(lab)
    message = phone.request("INVITE", BOB, "call", sdp=audio(RELAY))
    phone.send(re.sub(r"Content-Length: [0-9]+\r\n", "", message), PROVIDER)
    provider.reply(200, sdp=audio(PROVIDER_ADDRESS))
    ok = phone.hear()
    phone.send(phone.request("ACK", "sip:bob@203.0.113.50:5060", "call", to=ok.header("To")), PROVIDER)
    provider.hear()
    hang_up(phone, provider, ok)


@fault("d29-not-with-rport", "a phone sends from 5062, names 5060, and asks for rport: nothing is wrong")
def _rport(lab: Lab) -> None:
    phone, provider = Ua(lab, "phone1", "alice", 5062), Ua(lab, "provider", "bob")
    phone.send(phone.request("REGISTER", "sip:example.com", "registration", 1, "Expires: 3600",
                             to="<sip:alice@example.com>", via="192.168.1.10:5060;rport"), PROVIDER)
    provider.reply(200, f"Contact: {phone.contact};expires=3600")
    phone.hear()


@fault("d14-not-forbidden", "a wrong password: 401, credentials, 403")
def _forbidden(lab: Lab) -> None:
    phone, provider = ends(lab)
    _authorize(phone, provider, 2, 403)
